//! Many types in one topic, types that change, and values of another format than the pool reads.

use std::borrow::Cow;

use async_trait::async_trait;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use weir::admin::Health;
use weir::config::{OnUnknownType, Start};
use weir::event::{Event, Payload, Tagged};
use weir::handler::{Each, HandleEach};
use weir::metrics::Metrics;
use weir::payload::{OrderPaid, UserLogin};
use weir::pool::{Pool, Process};
use weir::store::{self, Tx};

use super::library::{Running, config};
use super::worker::Worker;
use super::world::{World, kafka};
use super::{PATIENCE, until};

/// What a topic of two teams has.
enum Activity {
    Paid(OrderPaid),
    Login(UserLogin),
}

impl Payload for Activity {
    fn id(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::Paid(event) => event.id(),
            Self::Login(event) => event.id(),
        }
    }

    fn kind(&self) -> &str {
        match self {
            Self::Paid(event) => event.kind(),
            Self::Login(event) => event.kind(),
        }
    }
}

/// Notes each event's type, id and whose it is.
struct Note;

#[async_trait]
impl HandleEach<Activity> for Note {
    async fn apply(&self, tx: &mut dyn Tx, event: &Event<Activity>) -> Result<(), store::Error> {
        let user = match &event.payload {
            Activity::Paid(paid) => &paid.user_id,
            Activity::Login(login) => &login.user_id,
        };
        sqlx::query("INSERT INTO notes VALUES ($1, $2, $3)")
            .bind(event.payload.kind())
            .bind(event.id.as_str())
            .bind(user.to_string())
            .execute(tx.postgres().expect("the store is PostgreSQL"))
            .await?;
        Ok(())
    }
}

pub(super) async fn send(world: &World, value: impl AsRef<[u8]>, id: Option<&str>) {
    let producer: FutureProducer = kafka().create().unwrap();
    let mut record = FutureRecord::to(&world.topic).key("k").payload(value.as_ref());
    if let Some(id) = id {
        record = record.headers(OwnedHeaders::new().insert(Header { key: "ce_id", value: Some(id) }));
    }
    producer.send(record, PATIENCE).await.unwrap();
}

const PAID: &str = r#"{"type":"order_paid","event_id":"p","order_id":1,"user_id":"a","amount_minor":1,"currency":"EUR","timestamp":1767225600000}"#;
/// Of a later release: fields were added, and the optional ones are left out.
const PAID_LATER: &str = r#"{"version":2,"amount_minor":1,"lines":[{"sku":"x","price":{"minor":1}}],"currency":"EUR","order_id":"o","user_id":"b","timestamp":1767225600000,"type":"order_paid"}"#;
/// Of an earlier one, before a field that is required now.
const PAID_EARLIER: &str =
    r#"{"type":"order_paid","event_id":"q","order_id":1,"user_id":"a","currency":"EUR","timestamp":1767225600000}"#;
const LOGIN: &str = r#"{"type":"user_login","event_id":"p","user_id":7,"timestamp":1767225600000}"#;
const UNKNOWN: &str = r#"{"type":"order_refunded","event_id":"r","order_id":1,"timestamp":1767225600000}"#;

#[tokio::test(flavor = "multi_thread")]
async fn types_of_one_topic_are_told_apart_and_unknown_ones_counted_and_passed_or_set_aside() {
    for (on_unknown_type, dead) in [(OnUnknownType::Pass, vec!["q"]), (OnUnknownType::Reject, vec!["q", "r"])] {
        let world = World::new(1).await;
        world.sql("CREATE TABLE notes (type text, id text, user_id text)").await;
        send(&world, PAID, None).await;
        send(&world, LOGIN, None).await;
        send(&world, UNKNOWN, Some("r")).await;
        send(&world, PAID_LATER, Some("later")).await;
        send(&world, PAID_EARLIER, Some("q")).await;
        let metrics = Metrics::new();
        let process = Process { metrics: metrics.clone(), health: Health::new([world.pool.as_str()]) };
        let decoder = Tagged::by_field("type").json("order_paid", Activity::Paid).json("user_login", Activity::Login);
        let pool = Pool::<Activity>::builder(&world.pool)
            .topics([&world.topic])
            .start(Start::Beginning)
            .on_unknown_type(on_unknown_type)
            .pipeline("note", Each(Note))
            .process(process)
            .build_with(&config(&world), decoder)
            .unwrap();
        let running = Running::start(pool);
        world.drained(PATIENCE).await;
        running.stop().await;
        let notes: Vec<(String, String, String)> =
            sqlx::query_as("SELECT * FROM notes ORDER BY 1, 2").fetch_all(world.db.postgres()).await.unwrap();
        let expected = [("order_paid", "later", "b"), ("order_paid", "p", "a"), ("user_login", "p", "7")];
        assert_eq!(notes, expected.map(|(kind, id, user)| (kind.to_owned(), id.to_owned(), user.to_owned())));
        let found: Vec<String> = sqlx::query_scalar("SELECT event_id FROM weir_dead ORDER BY 1")
            .fetch_all(world.db.postgres())
            .await
            .unwrap();
        assert_eq!(found, dead, "{on_unknown_type:?}");
        let counted = format!("weir_unknown_types_total{{pool=\"{}\"}} 1", world.pool);
        assert!(metrics.render().lines().any(|line| line == counted), "{}", metrics.render());
    }
}

const MESSAGE: &str = r#"{"type":"new_message","message":{"message_id":"ID","from":1,"to":2,"content":"x","message_type":1,"timestamp":1767225600000},"timestamp":1767225600000}"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_configured_pool_passes_the_types_it_does_not_know_and_the_auditor_agrees() {
    let world = World::new(1).await;
    send(&world, MESSAGE.replace("ID", "m1"), None).await;
    send(&world, r#"{"type":"typing","from":1}"#, None).await;
    send(&world, MESSAGE.replace("ID", "m2"), None).await;
    let lines = "types = [\"new_message\"]\non_unknown_type = \"pass\"\n";
    let mut worker = Worker::start_with(&world, lines).await;
    world.drained(PATIENCE).await;
    assert!(worker.metric("weir_unknown_types_total", "") >= 1.0);
    assert!(worker.terminate().0.success());
    assert_eq!(world.count("SELECT count(*) FROM messages").await, 2);
    assert_eq!(world.count("SELECT count(*) FROM weir_dead").await, 0);
    let audit = world.weir_with(&world.config(lines), &["verify"]).output().unwrap();
    assert!(audit.status.success(), "{}", String::from_utf8_lossy(&audit.stdout));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_confluent_header_where_json_is_read_holds_the_partition_behind_what_came_before() {
    let world = World::new(1).await;
    send(&world, MESSAGE.replace("ID", "m1"), None).await;
    for at in 0..60 {
        send(&world, [&b"\0\0\0\0\x07\x02"[..], &[at]].concat(), None).await;
    }
    send(&world, MESSAGE.replace("ID", "m2"), None).await;
    let mut worker = Worker::start(&world).await;
    until("the partition to be held", PATIENCE, async || {
        let ready = worker.get("/readyz");
        (ready.contains("Confluent header") && ready.contains("schema id 7"), ready)
    })
    .await;
    assert_eq!(world.ledger().await, [1], "what came before it is settled");
    assert_eq!(world.count("SELECT count(*) FROM weir_dead").await, 0, "set aside instead of held");
    assert!(worker.log().contains("Unframed for JSON"), "{}", worker.log());
    // A person decides to go on behind them, as the message says.
    let seek = ["seek", &world.pool, "--topic", &world.topic, "--partition", "0", "--to", "61", "--yes"];
    let sought = world.weir(&seek).output().unwrap();
    assert!(sought.status.success(), "{}", String::from_utf8_lossy(&sought.stderr));
    world.drained(PATIENCE).await;
    assert!(worker.terminate().0.success());
    assert_eq!(world.count("SELECT count(*) FROM messages").await, 2);
}
