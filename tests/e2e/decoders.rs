//! Avro by a schema registry: a registry that is away is an outage, a schema that it lacks a hold.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::get;
use weir::config::Start;
use weir::event::{Avro, Event, Registry};
use weir::handler::{Each, HandleEach};
use weir::payload::OrderPaid;
use weir::pool::{Phase, Pool};
use weir::store::{self, Tx};

use super::library::{Running, config};
use super::types::send;
use super::world::World;
use super::{PATIENCE, until};

/// A registry over HTTP, with a switch.
#[derive(Clone, Default)]
struct Stub(Arc<Mutex<Answers>>);

#[derive(Default)]
struct Answers {
    is_away: bool,
    schemas: BTreeMap<u32, String>,
    asked: BTreeMap<u32, usize>,
}

impl Stub {
    async fn serve(&self) -> SocketAddr {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let app = Router::new().route("/schemas/ids/{id}", get(answer)).with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        address
    }

    fn change(&self, change: impl FnOnce(&mut Answers)) {
        change(&mut self.0.lock().unwrap());
    }

    fn asked(&self, id: u32) -> usize {
        self.0.lock().unwrap().asked.get(&id).copied().unwrap_or(0)
    }
}

async fn answer(State(stub): State<Stub>, Path(id): Path<u32>) -> (StatusCode, String) {
    let mut answers = stub.0.lock().unwrap();
    *answers.asked.entry(id).or_default() += 1;
    match answers.schemas.get(&id) {
        _ if answers.is_away => (StatusCode::SERVICE_UNAVAILABLE, String::new()),
        Some(schema) => (StatusCode::OK, serde_json::json!({ "schema": schema }).to_string()),
        None => (StatusCode::NOT_FOUND, r#"{"error_code":40403,"message":"Schema not found"}"#.to_owned()),
    }
}

/// A writer's schema: of an earlier release without the optional field `event_id`.
const SCHEMA: &str = r#"{"type":"record","name":"OrderPaid","fields":[{"name":"order_id","type":"string"},{"name":"user_id","type":"long"},
    {"name":"amount_minor","type":"long"},{"name":"currency","type":"string"},{"name":"timestamp","type":"long"}]}"#;

/// A long as Avro writes it.
fn long(value: i64) -> Vec<u8> {
    let mut rest = ((value << 1) ^ (value >> 63)).cast_unsigned();
    let mut bytes = Vec::new();
    while rest >= 0x80 {
        bytes.push((rest as u8) | 0x80);
        rest >>= 7;
    }
    bytes.push(rest as u8);
    bytes
}

fn text(value: &str) -> Vec<u8> {
    [&long(i64::try_from(value.len()).unwrap()), value.as_bytes()].concat()
}

fn paid(schema: u32, order: &str, amount: i64) -> Vec<u8> {
    let header = [&[0], &schema.to_be_bytes()[..]].concat();
    [header, text(order), long(7), long(amount), text("EUR"), long(1_767_225_600_000)].concat()
}

struct Sum;

#[async_trait]
impl HandleEach<OrderPaid> for Sum {
    async fn apply(&self, tx: &mut dyn Tx, event: &Event<OrderPaid>) -> Result<(), store::Error> {
        sqlx::query("INSERT INTO sums VALUES ($1, $2)")
            .bind(event.payload.order_id.to_string())
            .bind(event.payload.amount_minor)
            .execute(tx.postgres().expect("the store is PostgreSQL"))
            .await?;
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_is_away_is_waited_for_and_a_schema_that_it_lacks_holds_the_partition() {
    let world = World::new(1).await;
    world.sql("CREATE TABLE sums (order_id text, total bigint)").await;
    let stub = Stub::default();
    stub.change(|answers| answers.is_away = true);
    let registry = Registry::new(&format!("http://{}", stub.serve().await)).unwrap();
    send(&world, paid(1, "a", 100), Some("e1")).await;
    send(&world, paid(1, "b", -5), Some("e2")).await;
    send(&world, [&paid(1, "c", 1)[..], b"more"].concat(), Some("e3")).await;
    send(&world, paid(2, "d", 4), Some("e4")).await;
    let pool = Pool::<OrderPaid>::builder(&world.pool)
        .topics([&world.topic])
        .start(Start::Beginning)
        .pipeline("sum", Each(Sum))
        .build_with(&config(&world), Avro::new(registry))
        .unwrap();
    let standings = pool.standings();
    let phase = || standings.list().pop().map(|standing| standing.phase);
    let running = Running::start(pool);

    let waits = |phase: &Option<Phase>| matches!(phase, Some(Phase::Waiting(what)) if what.contains("is away"));
    until("the registry to be waited for", PATIENCE, async || (waits(&phase()), phase())).await;
    until("the registry to be asked again", PATIENCE, async || (stub.asked(1) >= 3, stub.asked(1))).await;
    assert_eq!(world.ledger().await, [0]);

    stub.change(|answers| {
        answers.is_away = false;
        answers.schemas.insert(1, SCHEMA.to_owned());
    });
    let is_held = |phase: &Option<Phase>| matches!(phase, Some(Phase::Held(why)) if why.contains("no schema id 2"));
    until("the partition to be held", PATIENCE, async || (is_held(&phase()), phase())).await;
    assert_eq!(world.ledger().await, [3], "what can be read goes on");
    let asked = stub.asked(1);

    stub.change(|answers| drop(answers.schemas.insert(2, SCHEMA.to_owned())));
    world.drained(PATIENCE).await;
    running.stop().await;
    assert_eq!(stub.asked(1), asked, "a schema that is known is not asked for again");
    let sums: Vec<(String, i64)> =
        sqlx::query_as("SELECT * FROM sums ORDER BY 1").fetch_all(world.db.postgres()).await.unwrap();
    assert_eq!(sums, [("a".to_owned(), 100), ("b".to_owned(), -5), ("d".to_owned(), 4)]);
    let dead: Vec<String> =
        sqlx::query_scalar("SELECT event_id FROM weir_dead").fetch_all(world.db.postgres()).await.unwrap();
    assert_eq!(dead, ["e3"], "a value with bytes behind it is one event's own fault");
}
