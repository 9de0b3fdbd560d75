//! The loop that a team writes for itself: a queue a partition, batches of 500, Redis check and mark, one insert; and
//! where events are counted as well, one transaction of the insert and the counters.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result};
use futures_util::StreamExt as _;
use hdrhistogram::Histogram;
use rdkafka::consumer::{Consumer as _, StreamConsumer};
use rdkafka::message::{BorrowedMessage, Headers as _};
use rdkafka::{ClientConfig, Message as _, Offset, TopicPartitionList};
use redis::{AsyncCommands as _, IntoConnectionInfo as _};
use sqlx::postgres::{PgArguments, Postgres};
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, PgConnection, Row as _};
use weir::event::INTENDED_HEADER;
use weir::metrics::Percentiles;
use weir::payload::MessageEvent;

use crate::latency::now_us;
use crate::socket;

const BATCH: usize = 500;
const EXPIRY_SECONDS: u64 = 900;

const INSERT: &str = "
    INSERT INTO messages (message_id, conversation, sender, recipient, content, message_type, timestamp)
    SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::int4[], $7::int8[])
    ON CONFLICT (message_id) DO NOTHING";

/// What a partition's task works with.
struct Task {
    partition: i32,
    pool: sqlx::PgPool,
    /// `None`: nothing is looked up.
    redis: Option<redis::aio::MultiplexedConnection>,
    /// Whether new events are counted as well.
    analyze: bool,
    latencies: Option<Arc<Mutex<Histogram<u64>>>>,
}

pub(crate) async fn run() -> Result<()> {
    let var = |name: &str| std::env::var(name).with_context(|| format!("{name} is not set"));
    let topic = var("BENCH_TOPIC")?;
    let consumer: Arc<StreamConsumer> = Arc::new(
        ClientConfig::new()
            .set("bootstrap.servers", var("KAFKA_BROKERS")?)
            .set("group.id", uuid::Uuid::new_v4().to_string())
            .set("enable.auto.commit", "false")
            .set("queued.max.messages.kbytes", "4096")
            .set("fetch.message.max.bytes", "1048576")
            .set("fetch.queue.backoff.ms", "20")
            .create()?,
    );
    let postgres: sqlx::postgres::PgConnectOptions = var("BENCH_POSTGRES")?.parse()?;
    let port = postgres.get_port();
    let pool = sqlx::postgres::PgPoolOptions::new()
        .max_connections(8)
        .test_before_acquire(false)
        .after_connect(move |_, _| {
            socket::send_at_once(port);
            Box::pin(async { Ok(()) })
        })
        .connect_with(postgres)
        .await?;
    let redis = match var("BENCH_REDIS")?.as_str() {
        "true" => {
            let info = var("REDIS_URL")?.into_connection_info()?;
            let tcp = info.tcp_settings().clone().set_nodelay(true);
            Some(redis::Client::open(info.set_tcp_settings(tcp))?)
        }
        _ => None,
    };
    let metadata = consumer.fetch_metadata(Some(&topic), Duration::from_secs(5))?;
    let partitions: Vec<i32> = metadata.topics()[0].partitions().iter().map(|p| p.id()).collect();
    let mut assignment = TopicPartitionList::new();
    for partition in &partitions {
        assignment.add_partition_offset(&topic, *partition, Offset::Beginning)?;
    }
    let queues: Vec<_> = partitions
        .iter()
        .filter_map(|partition| Some((*partition, consumer.split_partition_queue(&topic, *partition)?)))
        .collect();
    consumer.assign(&assignment)?;
    let analyze = var("BENCH_ANALYZE")? == "true";
    let latencies = measured_latencies();
    for (partition, queue) in queues {
        let redis = match &redis {
            Some(redis) => Some(redis.get_multiplexed_async_connection().await?),
            None => None,
        };
        let mut task = Task { partition, pool: pool.clone(), redis, analyze, latencies: latencies.clone() };
        tokio::spawn(async move {
            let mut batches = queue.stream().ready_chunks(BATCH);
            while let Some(batch) = batches.next().await {
                let events: Vec<MessageEvent> = batch
                    .iter()
                    .flatten()
                    .filter_map(|message| serde_json::from_slice(message.payload()?).ok())
                    .collect();
                task.handle(&events).await.expect("the benchmark's services are up");
                if let Some(latencies) = &task.latencies {
                    note(&mut latencies.lock().unwrap(), batch.iter().flatten());
                }
            }
        });
    }
    loop {
        // Serves the client's events; messages come by the partitions' own queues.
        tokio::time::timeout(Duration::from_millis(100), consumer.recv()).await.ok();
    }
}

/// What is measured, written to its file twice a second, where it is asked for.
fn measured_latencies() -> Option<Arc<Mutex<Histogram<u64>>>> {
    let path = PathBuf::from(std::env::var_os("BENCH_LATENCIES")?);
    let latencies = Arc::new(Mutex::new(weir::metrics::latency_histogram()));
    let written = Arc::clone(&latencies);
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_millis(500)).await;
            let now = Percentiles::of(&written.lock().unwrap());
            let (text, new) = (serde_json::to_vec(&now).expect("figures"), path.with_extension("new"));
            std::fs::write(&new, text).and_then(|()| std::fs::rename(&new, &path)).expect("write the latencies");
        }
    });
    Some(latencies)
}

fn note<'a>(latencies: &mut Histogram<u64>, messages: impl Iterator<Item = &'a BorrowedMessage<'a>>) {
    let now = now_us();
    for message in messages {
        let header =
            message.headers().and_then(|headers| headers.iter().find(|header| header.key == INTENDED_HEADER)?.value);
        let intended: Option<i64> = header.and_then(|value| std::str::from_utf8(value).ok()?.parse().ok());
        if let Some(intended) = intended {
            latencies.saturating_record(u64::try_from(now - intended).unwrap_or(0));
        }
    }
}

fn id(event: &MessageEvent) -> String {
    event.message.message_id.as_ref().map(ToString::to_string).unwrap_or_default()
}

impl Task {
    async fn handle(&mut self, events: &[MessageEvent]) -> Result<()> {
        let keys: Vec<String> = events.iter().map(|event| format!("loop:{}", id(event))).collect();
        let seen: Vec<Option<String>> = match &mut self.redis {
            Some(redis) => redis.mget(&keys).await?,
            None => vec![None; keys.len()],
        };
        let new: Vec<&MessageEvent> =
            events.iter().zip(seen).filter(|(_, seen)| seen.is_none()).map(|(event, _)| event).collect();
        if self.analyze {
            let mut tx = self.pool.begin().await?;
            let sql = format!("{INSERT} RETURNING message_id");
            let inserted = insert(&sql, &new).fetch_all(&mut *tx).await?;
            let inserted: HashSet<&str> = inserted.iter().map(|row| row.get(0)).collect();
            let new = new.into_iter().filter(|event| inserted.contains(&*id(event)));
            count(&mut tx, self.partition, new).await?;
            tx.commit().await?;
        } else {
            insert(INSERT, &new).execute(&self.pool).await?;
        }
        if let Some(redis) = &mut self.redis {
            let mut mark = redis::pipe();
            for key in &keys {
                mark.set_ex(key, 1, EXPIRY_SECONDS).ignore();
            }
            mark.exec_async(redis).await?;
        }
        Ok(())
    }
}

fn insert<'a>(sql: &str, new: &[&'a MessageEvent]) -> Query<'a, Postgres, PgArguments> {
    let column = |of: fn(&MessageEvent) -> String| new.iter().map(|event| of(event)).collect::<Vec<_>>();
    sqlx::query(AssertSqlSafe(sql.to_owned()))
        .bind(column(id))
        .bind(column(MessageEvent::conversation))
        .bind(column(|event| event.message.from.to_string()))
        .bind(column(|event| event.message.to.to_string()))
        .bind(new.iter().map(|event| event.message.content.as_str()).collect::<Vec<_>>())
        .bind(new.iter().map(|event| event.message.message_type).collect::<Vec<_>>())
        .bind(new.iter().map(|event| event.message.timestamp).collect::<Vec<_>>())
}

/// Adds new events to the counters, in the order of their keys: two partitions that met them in different orders would
/// wait for each other.
async fn count(db: &mut PgConnection, shard: i32, new: impl Iterator<Item = &MessageEvent>) -> Result<()> {
    let mut added: BTreeMap<(i64, &str, String), i64> = BTreeMap::new();
    let mut active: BTreeMap<(i64, &str, String), i64> = BTreeMap::new();
    for event in new {
        let (minute, user) = (event.message.timestamp.div_euclid(60_000), event.message.from.to_string());
        active.insert((minute, "active_users", user.clone()), 0);
        for (dimension, member) in
            [("type", event.r#type.clone()), ("user", user), ("conversation", event.conversation())]
        {
            *added.entry((minute, dimension, member)).or_default() += 1;
        }
    }
    for (counts, on_conflict) in
        [(added, "DO UPDATE SET count = weir_counts.count + excluded.count"), (active, "DO NOTHING")]
    {
        let sql = format!(
            "INSERT INTO weir_counts (minute, dimension, member, shard, count)
             SELECT to_timestamp(m * 60), d, n, $1, c
               FROM unnest($2::int8[], $3::text[], $4::text[], $5::int8[]) AS u(m, d, n, c)
             ON CONFLICT (minute, dimension, member, shard) {on_conflict}"
        );
        sqlx::query(AssertSqlSafe(sql))
            .bind(shard)
            .bind(counts.keys().map(|(minute, ..)| *minute).collect::<Vec<_>>())
            .bind(counts.keys().map(|(_, dimension, _)| *dimension).collect::<Vec<_>>())
            .bind(counts.keys().map(|(.., member)| member.as_str()).collect::<Vec<_>>())
            .bind(counts.values().copied().collect::<Vec<_>>())
            .execute(&mut *db)
            .await?;
    }
    Ok(())
}
