//! Kafka to PostgreSQL on sentry_arroyo's `StreamProcessor`: batches, decoded and inserted by several tasks at a time,
//! offsets committed once a second.

#[path = "../../../../src/store/socket.rs"]
mod socket;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use sentry_arroyo::backends::kafka::InitialOffset;
use sentry_arroyo::backends::kafka::config::KafkaConfig;
use sentry_arroyo::backends::kafka::types::KafkaPayload;
use sentry_arroyo::processing::StreamProcessor;
use sentry_arroyo::processing::strategies::commit_offsets::CommitOffsets;
use sentry_arroyo::processing::strategies::reduce::Reduce;
use sentry_arroyo::processing::strategies::run_task_in_threads::{
    ConcurrencyConfig, RunTaskError, RunTaskFunc, RunTaskInThreads,
};
use sentry_arroyo::processing::strategies::{ProcessingStrategy, ProcessingStrategyFactory};
use sentry_arroyo::types::{Message, Topic};
use serde::Deserialize;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};

const CONCURRENCY: usize = 8;
const INSERT: &str = "
    INSERT INTO messages (message_id, conversation, sender, recipient, content, message_type, timestamp)
    SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::int4[], $7::int8[])
    ON CONFLICT (message_id) DO NOTHING";

#[derive(Deserialize)]
struct Body {
    message_id: String,
    from: i64,
    to: i64,
    content: String,
    message_type: i32,
    timestamp: i64,
}

#[derive(Deserialize)]
struct Event {
    message: Body,
}

#[derive(Clone, Debug)]
struct Failed(String);

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failed {}

struct Factory {
    pool: PgPool,
    concurrency: ConcurrencyConfig,
    batch: usize,
}

impl ProcessingStrategyFactory<KafkaPayload> for Factory {
    fn create(&self) -> Box<dyn ProcessingStrategy<KafkaPayload>> {
        let pool = self.pool.clone();
        let insert = move |message: Message<Vec<KafkaPayload>>| -> RunTaskFunc<(), Failed> {
            let pool = pool.clone();
            Box::pin(async move {
                let events: Vec<Event> = message
                    .payload()
                    .iter()
                    .filter_map(|payload| serde_json::from_slice(payload.payload()?).ok())
                    .collect();
                let inserted = insert(&pool, &events).await;
                inserted.map_err(|error| RunTaskError::Other(Failed(error.to_string())))?;
                Ok(message.replace(()))
            })
        };
        let threads =
            RunTaskInThreads::new(CommitOffsets::new(Duration::from_secs(1)), insert, &self.concurrency, None);
        Box::new(Reduce::new(
            threads,
            Arc::new(|mut batch: Vec<KafkaPayload>, message: Message<KafkaPayload>| {
                batch.push(message.into_payload());
                Ok(batch)
            }),
            Arc::new(Vec::new),
            self.batch,
            Duration::from_millis(100),
            |_| 1,
        ))
    }
}

async fn insert(pool: &PgPool, events: &[Event]) -> Result<(), sqlx::Error> {
    let text = |of: fn(&Body) -> String| events.iter().map(|event| of(&event.message)).collect::<Vec<_>>();
    let conversation = |body: &Body| {
        let (from, to) = (body.from.to_string(), body.to.to_string());
        if from <= to { format!("{from}:{to}") } else { format!("{to}:{from}") }
    };
    sqlx::query(INSERT)
        .bind(events.iter().map(|event| event.message.message_id.as_str()).collect::<Vec<_>>())
        .bind(text(conversation))
        .bind(text(|body| body.from.to_string()))
        .bind(text(|body| body.to.to_string()))
        .bind(events.iter().map(|event| event.message.content.as_str()).collect::<Vec<_>>())
        .bind(events.iter().map(|event| event.message.message_type).collect::<Vec<_>>())
        .bind(events.iter().map(|event| event.message.timestamp).collect::<Vec<_>>())
        .execute(pool)
        .await?;
    Ok(())
}

fn main() {
    let var = |name: &str| std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set"));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let url = var("POSTGRES_URL");
    let postgres: PgConnectOptions = url.parse().expect("POSTGRES_URL");
    let port = postgres.get_port();
    let pool = PgPoolOptions::new().max_connections(CONCURRENCY as u32).after_connect(move |_, _| {
        socket::send_at_once(port);
        Box::pin(async { Ok(()) })
    });
    let pool = runtime.block_on(pool.connect_with(postgres));
    let pool = pool.expect("PostgreSQL");
    let config = KafkaConfig::new_consumer_config(
        vec![var("BROKERS")],
        var("GROUP"),
        InitialOffset::Earliest,
        false,
        300_000,
        None,
    );
    let concurrency = ConcurrencyConfig::with_runtime(CONCURRENCY, runtime.handle().clone());
    let factory = Factory { pool, concurrency, batch: var("BATCH").parse().expect("a number in BATCH") };
    let topic = Topic::new(Box::leak(var("TOPIC").into_boxed_str()));
    StreamProcessor::with_kafka(config, factory, topic, None).run().expect("the processor ended");
}
