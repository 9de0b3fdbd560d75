//! A topic and a database in a state made by hand.

use std::collections::BTreeMap;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use uuid::Uuid;
use weir::config::Config;
use weir::verify::{self, Report, Scope};

use super::{kafka, services};

/// 2026-01-01T00:00:00Z, a whole minute.
pub(crate) const MINUTE_MS: i64 = 1_767_225_600_000;

/// A topic and a database of one test.
pub(crate) struct World {
    pub(crate) topic: kafka::Topic,
    pub(crate) topic_id: Uuid,
    pub(crate) producer: FutureProducer,
    pub(crate) database: String,
    pub(crate) connection: PgConnection,
}

/// Records that are sent and settled one by one.
#[derive(Clone)]
pub(crate) struct Message {
    pub(crate) id: String,
    pub(crate) from: Value,
    pub(crate) to: Value,
    pub(crate) at_ms: i64,
}

pub(crate) fn storage() -> Scope {
    Scope { pools: vec!["storage".to_owned()], since_ms: None, wanted: None }
}

pub(crate) fn message(id: &str) -> Message {
    Message { id: id.to_owned(), from: json!("ann"), to: json!(7), at_ms: MINUTE_MS + 1_500 }
}

impl Message {
    pub(crate) fn json(&self) -> String {
        let Self { id, from, to, at_ms } = self;
        json!({
            "type": "new_message",
            "message": {"message_id": id, "from": from, "to": to, "content": "hi", "message_type": 1, "timestamp": at_ms},
            "timestamp": at_ms,
        })
        .to_string()
    }
}

pub(crate) fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

pub(crate) fn url_of(database: &str) -> String {
    let url = services::env("POSTGRES_URL");
    format!("{}/{database}", url.rsplit_once('/').unwrap().0)
}

impl World {
    pub(crate) async fn new() -> Self {
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

    pub(crate) fn config(&self, pipelines: Value) -> Config {
        serde_json::from_value(json!({
            "kafka": {"brokers": [services::env("KAFKA_BROKERS")]},
            "store": {"url": url_of(&self.database)},
            "pools": {"storage": {"group": "g", "topics": [self.topic.0], "start": "beginning", "pipelines": pipelines}},
        }))
        .unwrap()
    }

    pub(crate) async fn verify(&self) -> Report {
        self.verify_with(persist_and_analyze()).await
    }

    pub(crate) async fn verify_since(&self, since_ms: i64) -> Report {
        let scope = Scope { since_ms: Some(since_ms), ..storage() };
        verify::run(self.config(persist_and_analyze()), scope, Box::new(|_| {})).await.unwrap()
    }

    pub(crate) async fn verify_with(&self, pipelines: Value) -> Report {
        verify::run(self.config(pipelines), storage(), Box::new(|_| {})).await.unwrap()
    }

    pub(crate) async fn send_record(&self, partition: i32, value: Option<&[u8]>, header: Option<(&str, &str)>) -> i64 {
        let headers = header.map(|(key, value)| OwnedHeaders::new().insert(Header { key, value: Some(value) }));
        let mut record =
            FutureRecord::<str, [u8]>::to(&self.topic.0).partition(partition).headers(headers.unwrap_or_default());
        record.payload = value;
        let sent = self.producer.send(record, kafka::PATIENCE).await.unwrap();
        sent.offset
    }

    /// A record with a key, as old as it is said to be.
    pub(crate) async fn send_keyed(&self, key: &str, message: &Message, record_ms: i64) -> i64 {
        let payload = message.json();
        let record = FutureRecord::to(&self.topic.0).partition(0).key(key).payload(&payload).timestamp(record_ms);
        self.producer.send(record, kafka::PATIENCE).await.unwrap().offset
    }

    pub(crate) async fn took_effect(&mut self, id: &str, at_ms: i64) {
        let set = format!("UPDATE messages SET received_at = to_timestamp({at_ms} / 1000.0) WHERE message_id = '{id}'");
        assert_eq!(self.sql(&set).await, 1);
    }

    pub(crate) async fn send(&self, partition: i32, message: &Message) -> i64 {
        self.send_record(partition, Some(message.json().as_bytes()), None).await
    }

    pub(crate) async fn sql(&mut self, sql: &str) -> u64 {
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut self.connection).await.unwrap().rows_affected()
    }

    /// Leaves the effects that a worker would: the row and the counters.
    pub(crate) async fn settle(&mut self, message: &Message) {
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

    pub(crate) async fn kill(&mut self, id: &str, reason: &str, partition: i32, offset: i64) {
        self.kill_as("", id, reason, partition, offset).await;
    }

    pub(crate) async fn kill_as(&mut self, kind: &str, id: &str, reason: &str, partition: i32, offset: i64) {
        let (topic, topic_id) = (self.topic.0.clone(), self.topic_id);
        self.sql(&format!(
            "INSERT INTO weir_dead (pool, type, event_id, pipeline, reason, message, topic, topic_id, partition, \"offset\") \
             VALUES ('storage', '{kind}', '{id}', 'persist', '{reason}', '', '{topic}', '{topic_id}', {partition}, {offset})"
        ))
        .await;
    }

    pub(crate) async fn next_offset(&mut self, partition: i32) -> i64 {
        sqlx::query_scalar("SELECT next_offset FROM weir_ledger WHERE partition = $1")
            .bind(partition)
            .fetch_one(&mut self.connection)
            .await
            .unwrap()
    }

    pub(crate) async fn begin(&mut self, pipeline: &str, partition: i32, offset: i64) {
        let topic_id = self.topic_id;
        self.sql(&format!(
            "INSERT INTO weir_pipelines (group_name, topic_id, partition, pipeline, pool, begin_offset)
             VALUES ('g', '{topic_id}', {partition}, '{pipeline}', 'storage', {offset})"
        ))
        .await;
    }

    pub(crate) async fn pass(&mut self, partition: i32, next_offset: i64) {
        let (topic, topic_id) = (self.topic.0.clone(), self.topic_id);
        self.sql(&format!(
            "INSERT INTO weir_ledger (group_name, topic_id, partition, topic, next_offset) \
             VALUES ('g', '{topic_id}', {partition}, '{topic}', {next_offset}) \
             ON CONFLICT (group_name, topic_id, partition) DO UPDATE SET next_offset = excluded.next_offset"
        ))
        .await;
    }

    /// Twenty messages over both partitions, settled and passed.
    pub(crate) async fn settled() -> (Self, Vec<Message>) {
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

pub(crate) fn persist_and_analyze() -> Value {
    json!([
        {"name": "persist", "handler": "persist"},
        {"name": "analyze", "handler": "analyze", "dimensions": ["type", "user", "conversation", "active_users"]},
    ])
}

pub(crate) fn numbers(report: &Report) -> BTreeMap<&'static str, u64> {
    let all = [
        ("unique_ids", report.unique_ids),
        ("persisted", report.persisted),
        ("dead_lettered", report.dead_lettered),
        ("lost", report.lost),
        ("repeated", report.repeated),
        ("out_of_order", report.out_of_order),
        ("counters_wrong", report.counters_wrong),
        ("pending", report.pending),
    ];
    all.into_iter().filter(|(_, number)| *number > 0).collect()
}

pub(crate) fn expect(report: &Report, expected: &[(&'static str, u64)]) {
    assert_eq!(numbers(report), expected.iter().copied().collect(), "{report:#?}");
}
