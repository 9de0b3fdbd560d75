//! The auditor against real Kafka and PostgreSQL, in states made by hand: it must not need a worker to be right.

#[path = "common/kafka.rs"]
mod kafka;
#[path = "common/services.rs"]
mod services;

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::{Arc, Mutex};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use uuid::Uuid;
use weir::config::Config;
use weir::verify::{self, Report};

/// 2026-01-01T00:00:00Z, a whole minute.
const MINUTE_MS: i64 = 1_767_225_600_000;

/// A topic and a database of one test.
struct World {
    topic: kafka::Topic,
    topic_id: Uuid,
    producer: FutureProducer,
    database: String,
    connection: PgConnection,
}

/// Records that are sent and settled one by one.
#[derive(Clone)]
struct Message {
    id: String,
    from: Value,
    to: Value,
    at_ms: i64,
}

fn message(id: &str) -> Message {
    Message { id: id.to_owned(), from: json!("ann"), to: json!(7), at_ms: MINUTE_MS + 1_500 }
}

impl Message {
    fn json(&self) -> String {
        let Self { id, from, to, at_ms } = self;
        json!({
            "type": "new_message",
            "message": {"message_id": id, "from": from, "to": to, "content": "hi", "message_type": 1, "timestamp": at_ms},
            "timestamp": at_ms,
        })
        .to_string()
    }
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn url_of(database: &str) -> String {
    let url = services::env("POSTGRES_URL");
    format!("{}/{database}", url.rsplit_once('/').unwrap().0)
}

impl World {
    async fn new() -> Self {
        let database = format!("verify_{}", Uuid::new_v4().simple());
        let mut admin = PgConnection::connect(&services::env("POSTGRES_URL")).await.unwrap();
        sqlx::raw_sql(AssertSqlSafe(format!("CREATE DATABASE {database}"))).execute(&mut admin).await.unwrap();
        let connection = PgConnection::connect(&url_of(&database)).await.unwrap();
        let settings = weir::config::Store {
            url: weir::config::Secret::from(url_of(&database)),
            ..weir::config::Store::default()
        };
        weir::store::open(&settings).unwrap().migrate().await.unwrap();
        let topic = kafka::Topic::new(2);
        let consumer: BaseConsumer = kafka::client().create().unwrap();
        let topic_id = weir::source::topic_id(consumer.client(), &topic.0, kafka::PATIENCE).unwrap();
        let producer = kafka::client().create().unwrap();
        Self { topic, topic_id, producer, database, connection }
    }

    fn config(&self, pipelines: Value) -> Config {
        serde_json::from_value(json!({
            "kafka": {"brokers": [services::env("KAFKA_BROKERS")]},
            "store": {"url": url_of(&self.database)},
            "pools": {"storage": {"group": "g", "topics": [self.topic.0], "start": "beginning", "pipelines": pipelines}},
        }))
        .unwrap()
    }

    async fn verify(&self) -> Report {
        self.verify_with(persist_and_analyze()).await
    }

    async fn verify_with(&self, pipelines: Value) -> Report {
        verify::run(self.config(pipelines), vec!["storage".to_owned()], Box::new(|_, _| {})).await.unwrap()
    }

    async fn send_record(&self, partition: i32, value: Option<&[u8]>, header: Option<(&str, &str)>) -> i64 {
        let headers = header.map(|(key, value)| OwnedHeaders::new().insert(Header { key, value: Some(value) }));
        let mut record =
            FutureRecord::<str, [u8]>::to(&self.topic.0).partition(partition).headers(headers.unwrap_or_default());
        record.payload = value;
        let sent = self.producer.send(record, kafka::PATIENCE).await.unwrap();
        sent.offset
    }

    async fn send(&self, partition: i32, message: &Message) -> i64 {
        self.send_record(partition, Some(message.json().as_bytes()), None).await
    }

    async fn sql(&mut self, sql: &str) -> u64 {
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut self.connection).await.unwrap().rows_affected()
    }

    /// Leaves the effects that a worker would: the row and the counters.
    async fn settle(&mut self, message: &Message) {
        let Message { id, from, to, at_ms } = message;
        let mut pair = [text(from), text(to)];
        pair.sort();
        let (conversation, from, to) = (pair.join(":"), text(from), text(to));
        self.sql(&format!(
            "INSERT INTO messages (message_id, conversation, sender, recipient, content, message_type, \"timestamp\") \
             VALUES ('{id}', '{conversation}', '{from}', '{to}', 'hi', 1, {at_ms})"
        ))
        .await;
        let members =
            [("type", "new_message"), ("user", &from), ("conversation", &conversation), ("active_users", &from)];
        for (dimension, member) in members {
            self.sql(&format!(
                "INSERT INTO weir_counts (minute, dimension, member, shard, count) \
                 VALUES (date_trunc('minute', to_timestamp({at_ms} / 1000.0)), '{dimension}', '{member}', 0, 1) \
                 ON CONFLICT (minute, dimension, member, shard) DO UPDATE SET count = weir_counts.count + 1"
            ))
            .await;
        }
    }

    async fn kill(&mut self, id: &str, reason: &str, partition: i32, offset: i64) {
        let (topic, topic_id) = (self.topic.0.clone(), self.topic_id);
        self.sql(&format!(
            "INSERT INTO weir_dead (pool, type, event_id, pipeline, reason, message, topic, topic_id, partition, \"offset\") \
             VALUES ('storage', '', '{id}', 'persist', '{reason}', '', '{topic}', '{topic_id}', {partition}, {offset})"
        ))
        .await;
    }

    async fn next_offset(&mut self, partition: i32) -> i64 {
        sqlx::query_scalar("SELECT next_offset FROM weir_ledger WHERE partition = $1")
            .bind(partition)
            .fetch_one(&mut self.connection)
            .await
            .unwrap()
    }

    async fn begin(&mut self, pipeline: &str, partition: i32, offset: i64) {
        let topic_id = self.topic_id;
        self.sql(&format!(
            "INSERT INTO weir_pipelines (group_name, topic_id, partition, pipeline, pool, begin_offset)
             VALUES ('g', '{topic_id}', {partition}, '{pipeline}', 'storage', {offset})"
        ))
        .await;
    }

    async fn pass(&mut self, partition: i32, next_offset: i64) {
        let (topic, topic_id) = (self.topic.0.clone(), self.topic_id);
        self.sql(&format!(
            "INSERT INTO weir_ledger (group_name, topic_id, partition, topic, next_offset) \
             VALUES ('g', '{topic_id}', {partition}, '{topic}', {next_offset}) \
             ON CONFLICT (group_name, topic_id, partition) DO UPDATE SET next_offset = excluded.next_offset"
        ))
        .await;
    }

    /// Twenty messages over both partitions, settled and passed.
    async fn settled() -> (Self, Vec<Message>) {
        let mut world = Self::new().await;
        let mut messages = Vec::new();
        for n in 0..20_i32 {
            let from = if n % 3 == 0 { json!(n) } else { json!("bob") };
            let at_ms = MINUTE_MS + i64::from(n) * 10_000;
            messages.push(Message { from, at_ms, ..message(&format!("m-{n}")) });
            world.send(n % 2, &messages[n as usize]).await;
            world.settle(&messages[n as usize]).await;
        }
        world.pass(0, 10).await;
        world.pass(1, 10).await;
        (world, messages)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let database = self.database.clone();
        let dropped = std::thread::spawn(move || {
            tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
                let mut admin = PgConnection::connect(&services::env("POSTGRES_URL")).await.unwrap();
                let sql = format!("DROP DATABASE {database} WITH (FORCE)");
                sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut admin).await.unwrap();
            });
        });
        assert!(dropped.join().is_ok() || std::thread::panicking(), "database {} is left behind", self.database);
    }
}

fn persist_and_analyze() -> Value {
    json!([
        {"name": "persist", "handler": "persist"},
        {"name": "analyze", "handler": "analyze", "dimensions": ["type", "user", "conversation", "active_users"]},
    ])
}

fn numbers(report: &Report) -> BTreeMap<&'static str, u64> {
    let all = [
        ("unique_ids", report.unique_ids),
        ("persisted", report.persisted),
        ("dead_lettered", report.dead_lettered),
        ("lost", report.lost),
        ("repeated", report.repeated),
        ("counters_wrong", report.counters_wrong),
        ("pending", report.pending),
    ];
    all.into_iter().filter(|(_, number)| *number > 0).collect()
}

fn expect(report: &Report, expected: &[(&'static str, u64)]) {
    assert_eq!(numbers(report), expected.iter().copied().collect(), "{report:#?}");
}

#[tokio::test]
async fn a_consistent_state_has_no_findings() {
    let (mut world, messages) = World::settled().await;
    world.send(1, &messages[0]).await;
    world.send_record(0, None, None).await;
    let no_json = world.send_record(0, Some(b"\xff{"), None).await;
    world.kill(&format!("{}:0:{no_json}", world.topic_id), "malformed", 0, no_json).await;
    let with_header = world.send_record(0, Some(b"[]"), Some(("weir-id", "w-1"))).await;
    world.kill("w-1", "malformed", 0, with_header).await;
    let refused = world.send(0, &message("refused")).await;
    world.kill("refused", "refused", 0, refused).await;
    world.pass(0, 14).await;
    world.pass(1, 11).await;
    let report = world.verify().await;
    expect(&report, &[("unique_ids", 23), ("persisted", 20), ("dead_lettered", 3)]);
    assert!(!report.has_findings());
    let pool = &report.pools["storage"];
    assert_eq!((pool.records, pool.ambiguous), (24, 0));
    assert!(pool.counters_compared > 10 && pool.notes.is_empty(), "{pool:#?}");
}

#[tokio::test]
async fn a_removed_row_is_lost_and_named() {
    let (mut world, _) = World::settled().await;
    assert_eq!(world.sql("DELETE FROM messages WHERE message_id = 'm-7'").await, 1);
    let report = world.verify_with(json!([{"name": "persist", "handler": "persist"}])).await;
    expect(&report, &[("unique_ids", 20), ("persisted", 19), ("lost", 1)]);
    assert!(report.has_findings());
    assert_eq!(report.pools["storage"].lost_ids, [format!("m-7 at {}/1 offset 3", world.topic.0)]);
}

#[tokio::test]
async fn an_id_both_live_and_dead_is_repeated() {
    let (mut world, _) = World::settled().await;
    world.kill("m-4", "handler", 0, 2).await;
    let report = world.verify().await;
    expect(&report, &[("unique_ids", 20), ("persisted", 20), ("dead_lettered", 1), ("repeated", 1)]);
    assert_eq!(report.pools["storage"].repeated_ids, [format!("m-4 at {}/0 offset 2", world.topic.0)]);
}

#[tokio::test]
async fn counters_too_high_too_low_missing_and_made_up_are_wrong() {
    let (mut world, _) = World::settled().await;
    let first = "minute = to_timestamp(1767225600)";
    world.sql(&format!("UPDATE weir_counts SET count = count + 1 WHERE {first} AND dimension = 'type'")).await;
    world
        .sql(&format!("UPDATE weir_counts SET count = 1 WHERE {first} AND member = 'bob' AND dimension = 'user'"))
        .await;
    let gone = format!("DELETE FROM weir_counts WHERE {first} AND dimension = 'conversation' AND member = '0:7'");
    assert_eq!(world.sql(&gone).await, 1);
    world.sql("INSERT INTO weir_counts VALUES (to_timestamp(0), 'user', 'nobody', 3, 2)").await;
    world
        .sql(&format!(
            "INSERT INTO weir_counts SELECT minute, dimension, 'ghost', 0, 1 FROM weir_counts \
                        WHERE {first} AND dimension = 'active_users' LIMIT 1"
        ))
        .await;
    let report = world.verify().await;
    expect(&report, &[("unique_ids", 20), ("persisted", 20), ("counters_wrong", 5)]);
    let mut wrong = report.pools["storage"].wrong_counters.clone();
    wrong.sort();
    assert_eq!(
        wrong,
        [
            "1970-01-01T00:00:00Z user \"nobody\": counted 2, expected 0",
            "2026-01-01T00:00:00Z active_users \"\": counted 4, expected 3",
            "2026-01-01T00:00:00Z conversation \"0:7\": counted 0, expected 1",
            "2026-01-01T00:00:00Z type \"new_message\": counted 7, expected 6",
            "2026-01-01T00:00:00Z user \"bob\": counted 1, expected 4",
        ]
    );
}

#[tokio::test]
async fn what_the_ledger_has_not_passed_is_pending_and_not_lost() {
    let (mut world, _) = World::settled().await;
    for n in 0..3 {
        world.send(0, &message(&format!("later-{n}"))).await;
    }
    let report = world.verify().await;
    expect(&report, &[("unique_ids", 23), ("persisted", 20), ("pending", 3)]);
    world.pass(0, 12).await;
    let report = world.verify().await;
    expect(&report, &[("unique_ids", 23), ("persisted", 20), ("pending", 1), ("lost", 2)]);
}

#[tokio::test]
async fn a_pool_that_never_ran_has_everything_pending() {
    let world = World::new().await;
    world.send(0, &message("a")).await;
    expect(&world.verify().await, &[("unique_ids", 1), ("pending", 1)]);
}

/// A worker goes on while the auditor reads: what it settles meanwhile is neither lost nor miscounted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_settled_during_the_audit_is_audited_too() {
    let (world, _) = World::settled().await;
    let config = world.config(persist_and_analyze());
    let world = Arc::new(Mutex::new(Some(world)));
    let (runtime, worker) = (tokio::runtime::Handle::current(), Arc::clone(&world));
    let mut done = false;
    let meanwhile = move |_, _| {
        if !std::mem::replace(&mut done, true) {
            let mut guard = worker.lock().unwrap();
            let world = guard.as_mut().unwrap();
            runtime.block_on(async {
                world.send(0, &message("meanwhile")).await;
                world.settle(&message("meanwhile")).await;
                world.pass(0, 11).await;
            });
        }
    };
    let report = verify::run(config, vec!["storage".to_owned()], Box::new(meanwhile)).await.unwrap();
    expect(&report, &[("unique_ids", 21), ("persisted", 21)]);
    drop(world.lock().unwrap().take());
}

#[tokio::test]
async fn a_pool_without_a_table_is_audited_by_its_seen_ids() {
    let mut world = World::new().await;
    for (offset, id) in ["a", "b", "c"].into_iter().enumerate() {
        world.send(0, &message(id)).await;
        if id != "c" {
            world
                .sql(&format!("INSERT INTO weir_seen (pool, type, event_id) VALUES ('storage', 'new_message', '{id}')"))
                .await;
        }
        world.pass(0, offset as i64 + 1).await;
    }
    world.sql("INSERT INTO weir_counts VALUES (to_timestamp(1767225600), 'type', 'new_message', 0, 2)").await;
    let report = world.verify_with(json!([{"name": "analyze", "handler": "analyze", "dimensions": ["type"]}])).await;
    expect(&report, &[("unique_ids", 3), ("persisted", 2), ("lost", 1)]);
}

/// A typed decoder may refuse a payload whose id can be read: it is dead under its record's id.
#[tokio::test]
async fn a_pipeline_is_audited_from_where_it_began() {
    let (mut world, messages) = World::settled().await;
    world.sql("CREATE TABLE later (message_id text PRIMARY KEY)").await;
    let pipelines = || {
        let Value::Array(mut pipelines) = persist_and_analyze() else { panic!("a list") };
        pipelines.push(json!({"name": "later", "handler": "persist", "table": "later", "key": "message_id",
                              "columns": {"message_id": "$id"}}));
        Value::Array(pipelines)
    };
    let missing = world.verify_with(pipelines()).await;
    assert_eq!(missing.lost, messages.len() as u64, "nothing on record: it should have them all");
    for partition in 0..2 {
        let next = world.next_offset(partition).await;
        world.begin("later", partition, next).await;
        world.begin("persist", partition, 0).await;
    }
    let begun = world.verify_with(pipelines()).await;
    assert_eq!((begun.lost, begun.persisted), (0, messages.len() as u64), "{begun:?}");

    let late = message("late");
    let offset = world.send(0, &late).await;
    world.settle(&late).await;
    world.pass(0, offset + 1).await;
    let report = world.verify_with(pipelines()).await;
    assert_eq!(report.lost, 1, "{report:?}");
    assert!(report.pools["storage"].lost_ids[0].starts_with("late at"), "{report:?}");
}

#[tokio::test]
async fn what_was_settled_before_the_counting_began_is_not_expected_in_counters() {
    let (mut world, messages) = World::settled().await;
    world.sql("DELETE FROM weir_counts").await;
    for partition in 0..2 {
        let next = world.next_offset(partition).await;
        world.begin("persist", partition, 0).await;
        world.begin("analyze", partition, next).await;
    }
    let report = world.verify().await;
    assert_eq!((report.counters_wrong, report.persisted), (0, messages.len() as u64), "{report:?}");
    world.sql("UPDATE weir_pipelines SET begin_offset = 0").await;
    assert!(world.verify().await.counters_wrong > 0);
}

#[tokio::test]
async fn a_malformed_event_with_a_readable_id_is_not_lost() {
    let (mut world, _) = World::settled().await;
    let payload = br#"{"type":"new_message","message":{"message_id":"odd"}}"#;
    let first = world.send_record(0, Some(payload), Some(("ce_id", "c-1"))).await;
    world.kill("c-1", "malformed", 0, first).await;
    world.pass(0, 11).await;
    let report = world.verify().await;
    expect(&report, &[("unique_ids", 21), ("persisted", 20), ("dead_lettered", 1)]);
}

#[tokio::test]
async fn counters_of_disagreeing_duplicates_are_left_out_with_a_note() {
    let (mut world, messages) = World::settled().await;
    world.send(0, &Message { from: json!("eve"), ..messages[2].clone() }).await;
    world.pass(0, 11).await;
    let report = world.verify().await;
    expect(&report, &[("unique_ids", 20), ("persisted", 20)]);
    let pool = &report.pools["storage"];
    assert_eq!((pool.ambiguous, pool.notes.len()), (1, 1), "{pool:#?}");
}

#[tokio::test]
async fn the_key_may_be_a_uuid_in_another_table() {
    let mut world = World::new().await;
    world.sql("CREATE SCHEMA shop; CREATE TABLE shop.\"Orders\" (\"Id\" uuid PRIMARY KEY)").await;
    world.send(0, &message("0192F0C1-2222-7000-8000-00000000000A")).await;
    world.sql("INSERT INTO shop.\"Orders\" VALUES ('0192f0c1-2222-7000-8000-00000000000a')").await;
    world.pass(0, 1).await;
    let pipelines = json!([{"name": "persist", "handler": "persist", "table": "shop.Orders", "key": "Id"}]);
    expect(&world.verify_with(pipelines).await, &[("unique_ids", 1), ("persisted", 1)]);
    let wrong = world.config(json!([{"name": "persist", "handler": "persist", "table": "absent"}]));
    let error = verify::run(wrong, vec!["storage".to_owned()], Box::new(|_, _| {})).await.unwrap_err();
    assert!(error.to_string().contains("table absent with column message_id does not exist"), "{error}");
}

#[tokio::test]
async fn the_command_says_it_by_its_exit_code_and_as_json() {
    let (mut world, _) = World::settled().await;
    let (brokers, topic) = (services::env("KAFKA_BROKERS"), &world.topic.0);
    let config = std::env::temp_dir().join(format!("{topic}.toml"));
    let text = format!(
        "[kafka]\nbrokers = [\"{brokers}\"]\n[store]\nurl = \"{}\"\n[pools.storage]\ngroup = \"g\"\n\
         topics = [\"{topic}\"]\nstart = \"beginning\"\n[[pools.storage.pipelines]]\nname = \"persist\"\n\
         handler = \"persist\"\n",
        url_of(&world.database)
    );
    std::fs::write(&config, text).unwrap();
    let verify = |more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
        command.arg("verify").arg("--config").arg(&config).args(more).output().unwrap()
    };
    let good = verify(&["--json"]);
    assert_eq!(good.status.code(), Some(0), "{good:?}");
    let report: Value = serde_json::from_slice(&good.stdout).unwrap();
    let keys = ["unique_ids", "persisted", "dead_lettered", "lost", "repeated", "counters_wrong"];
    assert_eq!(keys.map(|key| report[key].as_u64()), [20, 20, 0, 0, 0, 0].map(Some), "{report}");
    world.sql("DELETE FROM messages WHERE message_id = 'm-0'").await;
    let bad = verify(&[]);
    assert_eq!(bad.status.code(), Some(1), "{bad:?}");
    let table = String::from_utf8(bad.stdout).unwrap();
    assert!(table.contains("storage: lost: m-0 at "), "{table}");
    std::fs::remove_file(config).unwrap();
}
