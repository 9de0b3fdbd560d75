//! Moving a pool to another place on purpose.
//!
//! The ledger is what is moved, by a token and an epoch of its own: a running owner is fenced by its next batch, or
//! notices within seconds when it is idle, and takes over again at the new place. Kafka's commit follows. Events that are
//! handled again leave no second effect; events that are skipped are lost to the pool, which `weir_seeks` keeps.

use std::sync::Arc;
use std::time::Duration;

use super::partition::backoff;
use crate::config::{self, Config};
use crate::event::Origin;
use crate::kafka::resolved;
use crate::source::{LogError, LogReader, PartitionLog};
use crate::store::{self, Fault, Move, Place, Store};

/// How often a ledger row is tried to be moved that a batch is holding just then.
const TRIES_MAX: usize = 10;

/// Where to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum To {
    /// The oldest record that Kafka has.
    Beginning,
    /// Behind the newest record.
    End,
    /// This offset.
    Offset(i64),
    /// The first record that is not older: milliseconds since 1970.
    Time(i64),
}

/// Why nothing is moved.
#[derive(Debug, thiserror::Error)]
pub enum SeekError {
    /// Asked for what is not there.
    #[error("{0}")]
    Usage(String),
    /// The group has no place there yet.
    #[error("group {group:?} has no place on {places} yet: `weir run` begins there, at the pool's `start`")]
    NotBegun {
        /// The group.
        group: String,
        /// The partitions.
        places: String,
    },
    /// Kafka cannot be asked.
    #[error("{0}")]
    Kafka(String),
    /// The database's own error.
    #[error(transparent)]
    Store(#[from] store::Error),
}

impl From<LogError> for SeekError {
    fn from(error: LogError) -> Self {
        Self::Kafka(error.to_string())
    }
}

/// One partition's move, and what it means.
#[derive(Debug, Clone)]
pub struct Step {
    /// Whose place, where.
    pub place: Place,
    /// Where the ledger stands.
    pub from: i64,
    /// Where it is moved to.
    pub to: i64,
    /// The oldest offset that Kafka has.
    pub low: i64,
    /// The log's end.
    pub high: i64,
}

impl Step {
    /// Offsets whose records are not handled, though Kafka has them.
    #[must_use]
    pub fn skipped(&self) -> i64 {
        (self.to - self.from.max(self.low)).max(0)
    }

    /// Offsets that Kafka deleted before they were handled.
    #[must_use]
    pub fn gone(&self) -> i64 {
        (self.low - self.from).max(0)
    }

    /// Offsets that are handled again.
    #[must_use]
    pub fn repeated(&self) -> i64 {
        (self.from.min(self.high) - self.to).max(0)
    }
}

/// What a move would do: blocks on Kafka in a thread of its own.
///
/// # Errors
/// The topic, a partition or the offset is not there, the group has not begun there, or a service does not answer.
pub async fn plan(
    config: &Config,
    pool: &str,
    store: &dyn Store,
    topic: Option<&str>,
    partitions: &[i32],
    to: To,
) -> Result<Vec<Step>, SeekError> {
    let settings = config.pools.get(pool).ok_or_else(|| SeekError::Usage(format!("there is no pool {pool:?}")))?;
    let settings = &resolved(&config.kafka, settings, config.startup_timeout).await.map_err(LogError::from)?;
    let topics = topics_of(pool, settings, topic, partitions, to)?;
    let (kafka, patience, partitions) = (config.kafka.clone(), config.startup_timeout, partitions.to_vec());
    let found = tokio::task::spawn_blocking(move || look(&kafka, &topics, &partitions, to, patience)).await;
    let found = found.map_err(|error| SeekError::Kafka(format!("looking at Kafka was cut off: {error}")))??;
    let group: Arc<str> = Arc::from(settings.group_of(pool));
    let ledger = store.ledger_of_group(&group).await?;
    let (mut steps, mut unbegun) = (Vec::with_capacity(found.len()), Vec::new());
    for (origin, log, to) in found {
        match ledger.get(&(origin.topic_id, origin.partition)) {
            Some(row) => {
                let place = Place { group: Arc::clone(&group), origin: Arc::new(origin) };
                steps.push(Step { place, from: row.next_offset, to, low: log.low, high: log.high });
            }
            None => unbegun.push(origin.to_string()),
        }
    }
    match unbegun.is_empty() {
        true => Ok(steps),
        false => Err(SeekError::NotBegun { group: group.to_string(), places: unbegun.join(", ") }),
    }
}

fn topics_of(
    pool: &str,
    settings: &config::Pool,
    topic: Option<&str>,
    partitions: &[i32],
    to: To,
) -> Result<Vec<String>, SeekError> {
    if matches!(to, To::Offset(_)) && partitions.is_empty() {
        let problem = "an offset means another place on each partition: say which by --partition";
        return Err(SeekError::Usage(problem.to_owned()));
    }
    let known = settings.topics.join(", ");
    match topic {
        Some(topic) if settings.topics.iter().any(|known| known == topic) => Ok(vec![topic.to_owned()]),
        Some(topic) => Err(SeekError::Usage(format!("pool {pool} does not read topic {topic:?}: it reads {known}"))),
        None if settings.topics.len() > 1 && !partitions.is_empty() => {
            Err(SeekError::Usage(format!("pool {pool} reads {known}: say by --topic whose partitions are meant")))
        }
        None => Ok(settings.topics.clone()),
    }
}

type Found = (Origin, PartitionLog, i64);

/// Every partition that is to be moved, and where to.
fn look(
    kafka: &config::Kafka,
    topics: &[String],
    only: &[i32],
    to: To,
    patience: Duration,
) -> Result<Vec<Found>, SeekError> {
    let reader = LogReader::open(kafka, topics, patience)?;
    let mut found = Vec::new();
    for topic in topics {
        let topic_id = reader.topic_id(topic)?;
        let mut logs = reader.partitions(topic)?;
        if let Some(absent) = only.iter().find(|number| logs.iter().all(|log| log.partition != **number)) {
            let last = logs.len().saturating_sub(1);
            return Err(SeekError::Usage(format!("topic {topic} has no partition {absent}: it has 0 to {last}")));
        }
        logs.retain(|log| only.is_empty() || only.contains(&log.partition));
        let targets: Vec<i64> = match to {
            To::Beginning => logs.iter().map(|log| log.low).collect(),
            To::End => logs.iter().map(|log| log.high).collect(),
            To::Time(ms) => reader.offsets_at(topic, &logs, ms)?,
            To::Offset(offset) => vec![offset; logs.len()],
        };
        for (log, to) in logs.into_iter().zip(targets) {
            if !(log.low..=log.high).contains(&to) {
                return Err(SeekError::Usage(format!(
                    "offset {to} lies outside the log of {topic}/{}, which has {} to {}",
                    log.partition, log.low, log.high
                )));
            }
            found.push((Origin { topic: Arc::from(topic.as_str()), topic_id, partition: log.partition }, log, to));
        }
    }
    Ok(found)
}

/// Carries a plan out. A batch that is settled meanwhile moves where a partition stands: the steps then say where it did.
///
/// # Errors
/// A ledger row is gone, or the database's own.
pub async fn carry_out(store: &dyn Store, steps: &mut [Step], moved_by: &str) -> Result<(), SeekError> {
    let moves: Vec<Move> = steps.iter().map(|step| Move { place: step.place.clone(), to: step.to }).collect();
    let mut delays = backoff();
    for attempt in 1.. {
        match store.seek(&moves, moved_by).await {
            Ok(Some(from)) => {
                steps.iter_mut().zip(from).for_each(|(step, from)| step.from = from);
                break;
            }
            Ok(None) => {
                let problem = "a partition's ledger row is gone: nothing was moved; look again with --dry-run";
                return Err(SeekError::Usage(problem.to_owned()));
            }
            Err(error) if error.fault == Fault::Busy && attempt < TRIES_MAX => {
                tokio::time::sleep(delays.next().unwrap_or_default()).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
    for step in steps {
        tracing::info!(place = %step.place, from = step.from, to = step.to, moved_by, "the ledger was moved on purpose");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(from: i64, to: i64, low: i64, high: i64) -> (i64, i64, i64) {
        let origin = Origin { topic: "t".into(), topic_id: uuid::Uuid::nil(), partition: 0 };
        let place = Place { group: "g".into(), origin: Arc::new(origin) };
        let step = Step { place, from, to, low, high };
        (step.skipped(), step.gone(), step.repeated())
    }

    #[test]
    fn a_move_says_what_it_skips_what_is_gone_and_what_it_repeats() {
        assert_eq!(step(5, 9, 0, 10), (4, 0, 0));
        assert_eq!(step(9, 5, 0, 10), (0, 0, 4));
        assert_eq!(step(5, 5, 0, 10), (0, 0, 0));
        assert_eq!(step(2, 6, 6, 10), (0, 4, 0), "what Kafka has deleted is skipped by nobody");
        assert_eq!(step(2, 8, 6, 10), (2, 4, 0));
        assert_eq!(step(30, 10, 0, 10), (0, 0, 0), "nothing lies between the log's end and the ledger");
        assert_eq!(step(30, 4, 0, 10), (0, 0, 6));
    }
}
