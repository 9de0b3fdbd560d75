//! The loop that a team writes for itself: a queue a partition, batches of 500, Redis check and mark, one insert.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use futures_util::StreamExt as _;
use rdkafka::consumer::{Consumer as _, StreamConsumer};
use rdkafka::{ClientConfig, Message as _, Offset, TopicPartitionList};
use redis::AsyncCommands as _;
use weir::payload::MessageEvent;

const BATCH: usize = 500;
const EXPIRY_SECONDS: u64 = 900;

pub(crate) async fn run() -> Result<()> {
    let var = |name: &str| std::env::var(name).with_context(|| format!("{name} is not set"));
    let topic = var("BENCH_TOPIC")?;
    let consumer: Arc<StreamConsumer> = Arc::new(
        ClientConfig::new()
            .set("bootstrap.servers", var("KAFKA_BROKERS")?)
            .set("group.id", uuid::Uuid::new_v4().to_string())
            .set("enable.auto.commit", "false")
            .set("queued.max.messages.kbytes", "12288")
            .set("fetch.message.max.bytes", "1048576")
            .set("fetch.queue.backoff.ms", "20")
            .create()?,
    );
    let pool = sqlx::postgres::PgPoolOptions::new().max_connections(8).connect(&var("BENCH_POSTGRES")?).await?;
    let redis = redis::Client::open(var("REDIS_URL")?)?;
    let metadata = consumer.fetch_metadata(Some(&topic), Duration::from_secs(5))?;
    let partitions: Vec<i32> = metadata.topics()[0].partitions().iter().map(|p| p.id()).collect();
    let mut assignment = TopicPartitionList::new();
    for partition in &partitions {
        assignment.add_partition_offset(&topic, *partition, Offset::Beginning)?;
    }
    let queues: Vec<_> =
        partitions.iter().filter_map(|partition| consumer.split_partition_queue(&topic, *partition)).collect();
    consumer.assign(&assignment)?;
    for queue in queues {
        let (pool, mut redis) = (pool.clone(), redis.get_multiplexed_async_connection().await?);
        tokio::spawn(async move {
            let mut batches = queue.stream().ready_chunks(BATCH);
            while let Some(batch) = batches.next().await {
                let events: Vec<MessageEvent> = batch
                    .iter()
                    .flatten()
                    .filter_map(|message| serde_json::from_slice(message.payload()?).ok())
                    .collect();
                handle(&pool, &mut redis, &events).await.expect("the benchmark's services are up");
            }
        });
    }
    loop {
        // Serves the client's events; messages come by the partitions' own queues.
        tokio::time::timeout(Duration::from_millis(100), consumer.recv()).await.ok();
    }
}

async fn handle(
    pool: &sqlx::PgPool,
    redis: &mut redis::aio::MultiplexedConnection,
    events: &[MessageEvent],
) -> Result<()> {
    let id = |event: &MessageEvent| event.message.message_id.as_ref().map(ToString::to_string).unwrap_or_default();
    let keys: Vec<String> = events.iter().map(|event| format!("loop:{}", id(event))).collect();
    let seen: Vec<Option<String>> = redis.mget(&keys).await?;
    let new: Vec<&MessageEvent> =
        events.iter().zip(seen).filter(|(_, seen)| seen.is_none()).map(|(event, _)| event).collect();
    let column = |of: fn(&MessageEvent) -> String| new.iter().map(|event| of(event)).collect::<Vec<_>>();
    sqlx::query(
        "INSERT INTO messages (message_id, conversation, sender, recipient, content, message_type, timestamp)
         SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::int4[], $7::int8[])
         ON CONFLICT (message_id) DO NOTHING",
    )
    .bind(new.iter().map(|event| id(event)).collect::<Vec<_>>())
    .bind(column(MessageEvent::conversation))
    .bind(column(|event| event.message.from.to_string()))
    .bind(column(|event| event.message.to.to_string()))
    .bind(new.iter().map(|event| event.message.content.as_str()).collect::<Vec<_>>())
    .bind(new.iter().map(|event| event.message.message_type).collect::<Vec<_>>())
    .bind(new.iter().map(|event| event.message.timestamp).collect::<Vec<_>>())
    .execute(pool)
    .await?;
    let mut mark = redis::pipe();
    for key in &keys {
        mark.set_ex(key, 1, EXPIRY_SECONDS).ignore();
    }
    mark.exec_async(redis).await?;
    Ok(())
}
