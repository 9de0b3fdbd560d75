//! How far a pool is behind, asked of Kafka and the store from outside any worker.

use uuid::Uuid;

use super::partition::now_ms;
use crate::config::{self, Config};
use crate::kafka::resolved;
use crate::source::{LogError, LogReader, PartitionLog, Span, committed};
use crate::store::{self, DeadFilter, Store};

/// Why it cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum LagError {
    /// Kafka cannot be asked.
    #[error("{0}")]
    Kafka(String),
    /// The database's own error.
    #[error(transparent)]
    Store(#[from] store::Error),
}

impl From<LogError> for LagError {
    fn from(error: LogError) -> Self {
        Self::Kafka(error.to_string())
    }
}

/// One pool.
#[derive(Debug)]
pub struct PoolLag {
    /// Its group.
    pub group: String,
    /// By topic and number.
    pub partitions: Vec<PartitionLag>,
    /// Its dead rows; a pool without a store has none.
    pub dead: Option<DeadRows>,
}

/// How many rows were set aside.
#[derive(Debug, Clone, Copy)]
pub struct DeadRows {
    /// All of them.
    pub all: i64,
    /// Those that wait behind one of their key.
    pub parked: i64,
}

/// One partition.
#[derive(Debug)]
pub struct PartitionLag {
    /// The topic.
    pub topic: String,
    /// Its number.
    pub partition: i32,
    /// The log's end.
    pub end: i64,
    /// The first offset that is not settled; `None`: the group has not begun there.
    pub ledger: Option<i64>,
    /// Who claimed it last: the token that its worker logs.
    pub owner: Option<Uuid>,
    /// What Kafka believes, which follows the ledger.
    pub committed: Option<i64>,
    /// Records that Kafka has and that are not settled.
    pub records: i64,
    /// The age of the oldest of them, in seconds; 0 where there is none, `None` where it could not be read.
    pub seconds: Option<f64>,
}

/// Looks at a pool once: blocks on Kafka in a thread of its own. The place of a pool without a store is what it committed.
///
/// # Errors
/// A service does not answer, or a topic is not there.
pub async fn of_pool(config: &Config, pool: &str, store: Option<&dyn Store>) -> Result<PoolLag, LagError> {
    let settings = config.pools.get(pool).cloned().unwrap_or_default();
    let settings = resolved(&config.kafka, &settings, config.startup_timeout).await.map_err(LogError::from)?;
    let group = settings.group_of(pool).to_owned();
    let (ledger, dead) = match store {
        Some(store) => (Some(store.ledger_of_group(&group).await?), Some(dead_rows(pool, store).await?)),
        None => (None, None),
    };
    let (kafka, asked, patience) = (config.kafka.clone(), group.clone(), config.startup_timeout);
    let looked = tokio::task::spawn_blocking(move || {
        let reader = LogReader::open(&kafka, &settings.topics, patience)?;
        let mut partitions = Vec::new();
        for topic in &settings.topics {
            let topic_id = reader.topic_id(topic)?;
            let rows = ledger.as_ref().map(|ledger| |partition| ledger.get(&(topic_id, partition)).copied());
            partitions.extend(of_topic(&reader, &kafka, &asked, topic, rows)?);
        }
        Ok::<_, LogError>(partitions)
    });
    let partitions =
        looked.await.map_err(|error| LagError::Kafka(format!("looking at Kafka was cut off: {error}")))??;
    Ok(PoolLag { group, partitions, dead })
}

async fn dead_rows(pool: &str, store: &dyn Store) -> Result<DeadRows, store::Error> {
    let filter = |reason: Option<&str>| DeadFilter {
        pool: pool.to_owned(),
        reason: reason.map(str::to_owned),
        ..DeadFilter::default()
    };
    let all = store.count_dead(&filter(None)).await?;
    Ok(DeadRows { all, parked: store.count_dead(&filter(Some("parked"))).await? })
}

fn of_topic(
    reader: &LogReader,
    kafka: &config::Kafka,
    group: &str,
    topic: &str,
    ledger: Option<impl Fn(i32) -> Option<store::LedgerRow>>,
) -> Result<Vec<PartitionLag>, LogError> {
    let logs = reader.partitions(topic)?;
    let committed = committed(kafka, group, topic, &logs)?;
    let mut partitions: Vec<PartitionLag> = logs
        .iter()
        .zip(committed)
        .map(|(log, committed)| {
            let row = ledger.as_ref().and_then(|ledger| ledger(log.partition));
            let next = if ledger.is_some() { row.map(|row| row.next_offset) } else { committed };
            let records = next.map_or(log.high - log.low, |next| unsettled(*log, next));
            PartitionLag {
                topic: topic.to_owned(),
                partition: log.partition,
                end: log.high,
                ledger: row.map(|row| row.next_offset),
                owner: row.and_then(|row| row.owner),
                committed,
                records,
                seconds: (records == 0).then_some(0.0),
            }
        })
        .collect();
    let oldest: Vec<Span> = logs
        .iter()
        .zip(&partitions)
        .filter(|(_, lag)| lag.records > 0)
        .map(|(log, lag)| {
            let place = if ledger.is_some() { lag.ledger } else { lag.committed };
            let from = place.unwrap_or(log.low).max(log.low);
            Span { partition: log.partition, from, to: from + 1 }
        })
        .collect();
    if !oldest.is_empty() {
        reader.read(topic, &oldest, |number, record| {
            #[expect(clippy::cast_precision_loss, reason = "an age in milliseconds is far below 2^52")]
            let seconds = (now_ms() - record.timestamp_ms).max(0) as f64 / 1_000.0;
            if let Some(lag) = partitions.iter_mut().find(|lag| lag.partition == number) {
                lag.seconds = Some(seconds);
            }
            true
        })?;
    }
    Ok(partitions)
}

/// One partition of a group, whoever has it: what the ledger says of it, and how far it is behind.
#[cfg(feature = "console")]
#[derive(Debug, Clone)]
pub(crate) struct FleetPartition {
    pub(crate) topic: String,
    pub(crate) partition: i32,
    /// The log's end.
    pub(crate) end: i64,
    /// What the ledger has of it, once the group has begun there.
    pub(crate) row: Option<store::LedgerRow>,
    /// Records that Kafka has and that are not settled.
    pub(crate) records: i64,
}

/// Looks at all partitions of a group with a client that is there already. Blocks.
#[cfg(feature = "console")]
pub(crate) fn of_fleet(
    reader: &LogReader,
    topics: &[String],
    ledger: &std::collections::HashMap<(Uuid, i32), store::LedgerRow>,
) -> Result<Vec<FleetPartition>, LogError> {
    let mut partitions = Vec::new();
    for topic in topics {
        let topic_id = reader.topic_id(topic)?;
        partitions.extend(reader.ends(topic)?.into_iter().map(|log| {
            let row = ledger.get(&(topic_id, log.partition)).copied();
            let (topic, partition, end) = (topic.clone(), log.partition, log.high);
            let records = row.map_or(log.high - log.low, |row| unsettled(log, row.next_offset));
            FleetPartition { topic, partition, end, row, records }
        }));
    }
    Ok(partitions)
}

/// What Kafka has deleted is handled by nobody, and is no lag.
fn unsettled(log: PartitionLog, next: i64) -> i64 {
    (log.high - next.max(log.low)).max(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lag_is_what_kafka_still_has_behind_the_ledger() {
        let log = PartitionLog { partition: 0, low: 10, high: 30 };
        let of = |next| unsettled(log, next);
        assert_eq!((of(0), of(10), of(25), of(30), of(99)), (20, 20, 5, 0, 0));
    }
}
