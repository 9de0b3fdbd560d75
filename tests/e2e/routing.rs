//! Conditions of pipelines, against a real worker: who gets what, what is counted, what is set aside, and what the auditor says.

use rdkafka::producer::{FutureProducer, FutureRecord};

use super::worker::Worker;
use super::world::{World, kafka};
use super::{PATIENCE, until};

/// Messages from users, one after the other; what is added to the message is the caller's.
async fn send(world: &World, messages: impl Iterator<Item = (String, serde_json::Value)>) {
    let producer: FutureProducer = kafka().set("linger.ms", "5").create().unwrap();
    let sent = messages.enumerate().map(|(n, (user, more))| {
        let mut message = serde_json::json!({"message_id": uuid::Uuid::new_v4(), "from": user, "to": "all",
            "content": format!("message {n}"), "message_type": 1, "timestamp": 1_767_225_600_000_u64});
        message.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let value = serde_json::json!({"type": "new_message", "message": message, "timestamp": 1}).to_string();
        let key = format!("{user}-{n}");
        producer
            .send_result(FutureRecord::to(&world.topic).key(&key).payload(&value))
            .map_err(|(error, _)| error)
            .unwrap()
    });
    for delivery in sent.collect::<Vec<_>>() {
        delivery.await.unwrap().unwrap();
    }
}

/// The base configuration, with a condition on its `stats` and a table of users.
fn config(world: &World, when: &str) -> String {
    let pool = &world.pool;
    world.config(&format!("[pools.{pool}.lookups.users]\ntable = \"people\"\nrefresh = \"100ms\"\n"))
        + &format!("when = \"{when}\"\n")
}

fn verify(world: &World, config: &str) -> serde_json::Value {
    let verified = world.weir_with(config, &["verify", "--json"]).output().unwrap();
    serde_json::from_slice(&verified.stdout).unwrap_or_else(|error| {
        panic!("{error}: {}", String::from_utf8_lossy(&verified.stderr));
    })
}

const COUNTED: &str = "SELECT coalesce(sum(count), 0)::bigint FROM message_stats WHERE dimension = 'type'";

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_gets_what_it_wants_and_the_auditor_agrees() {
    let world = World::new(2).await;
    world.sql("CREATE TABLE people (id text PRIMARY KEY, country text)").await;
    world.sql("INSERT INTO people VALUES ('ann', 'NO'), ('bob', 'SE')").await;
    let config = config(&world, "lookup('users', event.user).country == 'NO' && event.payload.message.score > 3");
    let worker = Worker::start_configured(&world, &config).await;
    let of = |user: &str, score: serde_json::Value| {
        let more = if score.is_null() { serde_json::json!({}) } else { serde_json::json!({ "score": score }) };
        (user.to_owned(), more)
    };
    // Wanted, not wanted by user, not wanted by score, without a score, of nobody known, and of a kind that compares with nothing.
    let kinds = [
        of("ann", 4.into()),
        of("bob", 4.into()),
        of("ann", 2.into()),
        of("ann", serde_json::Value::Null),
        of("carl", 4.into()),
        of("ann", "much".into()),
    ];
    send(&world, (0..600).map(|n| kinds[n % kinds.len()].clone())).await;
    world.drained(PATIENCE).await;
    assert_eq!(world.count("SELECT count(*) FROM messages").await, 500, "{}", worker.log());
    assert_eq!(world.count(COUNTED).await, 100);
    let errors = "SELECT count(*) FROM weir_dead WHERE reason = 'when_error' AND pipeline = 'stats' AND message NOT LIKE '%much%'";
    assert_eq!(world.count(errors).await, 100);
    // Both without a score, and of nobody known.
    assert_eq!(worker.metric("weir_when_missing_total", "pipeline=\"stats\""), 200.0);
    assert_eq!(worker.metric("weir_events_settled_total", "outcome=\"filtered\""), 400.0);
    let report = verify(&world, &config);
    let told = |name: &str| report[name].as_u64().unwrap();
    assert_eq!((told("lost"), told("repeated"), told("counters_wrong")), (0, 0, 0), "{report:#}");
    assert_eq!((told("persisted"), told("dead_lettered")), (500, 100), "{report:#}");

    // The table changes, and with it what is wanted.
    world.sql("INSERT INTO people VALUES ('carl', 'NO')").await;
    let read = worker.metric("weir_reloads_total", "result=\"ok\"");
    until("the table to be read again", PATIENCE, async || {
        let now = worker.metric("weir_reloads_total", "result=\"ok\"");
        (now >= read + 2.0, now)
    })
    .await;
    send(&world, (0..50).map(|_| kinds[4].clone())).await;
    world.drained(PATIENCE).await;
    assert_eq!(world.count(COUNTED).await, 150);
}

#[tokio::test(flavor = "multi_thread")]
async fn events_that_no_pipeline_wants_leave_nothing_and_are_not_lost() {
    let world = World::new(2).await;
    let when = "when = \"event.payload.message.score > 3\"\n";
    let config = world.config("").replace("handler = \"persist\"\n", &format!("handler = \"persist\"\n{when}")) + when;
    let _worker = Worker::start_configured(&world, &config).await;
    let score = |n: u64| ("ann".to_owned(), serde_json::json!({ "score": n % 5 }));
    send(&world, (0..500).map(score)).await;
    world.drained(PATIENCE).await;
    assert_eq!(world.count("SELECT count(*) FROM messages").await, 100);
    assert_eq!(world.count(COUNTED).await, 100);
    let report = verify(&world, &config);
    let told = |name: &str| report[name].as_u64().unwrap();
    assert_eq!((told("lost"), told("counters_wrong"), told("persisted")), (0, 0, 100), "{report:#}");
}
