//! The look at the whole group: the ledger of the database, and the logs' ends of Kafka. Taken only while somebody looks at
//! the console, one at a time, by a client and connections of its own; the next one waits at least ten times as long as
//! the last one took.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::watch;

use super::lock;
use crate::config::{self, Config};
use crate::pool::lag::{self, FleetPartition};
use crate::source::{LogError, LogReader};
use crate::store::{self, DeadFilter, Fault, Store};

/// Between two looks at least.
const REST_MIN: Duration = Duration::from_secs(2);
/// How many times as long as a look took is rested after it.
const REST_FACTOR: u32 = 10;
/// How long nobody has looked when the client of Kafka is given up.
const IDLE: Duration = Duration::from_secs(60);
/// Connections to the database: for the look at the fleet, and for dead rows.
const CONNECTIONS: u32 = 2;
/// How long the database may take for a statement.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(3);

/// The database by connections that no pool needs. A database whose address is wrong is told by the pools.
pub(super) fn own_store(config: &Config) -> Option<Arc<dyn Store>> {
    let settings = config.store.as_ref()?;
    let settings = config::Store {
        connections: CONNECTIONS,
        statement_timeout: settings.statement_timeout.min(STATEMENT_TIMEOUT),
        ..settings.clone()
    };
    store::open(&settings).ok()
}

/// What is known of a pool's group.
#[derive(Debug, Clone, Default)]
pub(super) struct Looked {
    /// All its partitions, and when they were looked at.
    pub(super) partitions: Option<(SystemTime, Vec<FleetPartition>)>,
    pub(super) dead_rows: Option<i64>,
    /// Why the last look failed; what was known before stays.
    pub(super) error: Option<String>,
}

/// All partitions, and the number of dead rows where it could be told.
type Seen = (Vec<FleetPartition>, Option<i64>);

/// Looks, and remembers what was seen.
pub(super) struct FleetLook {
    kafka: config::Kafka,
    /// Those with a store: only they have a ledger.
    pools: Vec<(String, config::Pool)>,
    store: Option<Arc<dyn Store>>,
    seen: Mutex<BTreeMap<String, Looked>>,
    turn: Mutex<Turn>,
    /// Looks that have ended.
    ended: watch::Sender<u64>,
    reader: Arc<Mutex<Option<LogReader>>>,
}

/// A look that is under way: however it ends, the next one may begin.
struct Look {
    of: Arc<FleetLook>,
    begun: Instant,
}

impl Drop for Look {
    fn drop(&mut self) {
        lock(&self.of.turn).end(Instant::now(), self.begun.elapsed());
        self.of.ended.send_modify(|looks| *looks += 1);
    }
}

/// Whether a look may begin.
#[derive(Debug, Default)]
struct Turn {
    is_taken: bool,
    next_at: Option<Instant>,
    wanted_at: Option<Instant>,
}

impl Turn {
    /// Somebody looks: whether a look is to begin now.
    fn want(&mut self, now: Instant) -> bool {
        self.wanted_at = Some(now);
        let begins = !self.is_taken && self.next_at.is_none_or(|at| now >= at);
        self.is_taken |= begins;
        begins
    }

    fn end(&mut self, now: Instant, took: Duration) {
        self.is_taken = false;
        self.next_at = Some(now + (took * REST_FACTOR).max(REST_MIN));
    }

    fn is_idle(&self, now: Instant) -> bool {
        !self.is_taken && self.wanted_at.is_none_or(|at| now.duration_since(at) >= IDLE)
    }
}

impl FleetLook {
    pub(super) fn new(config: &Config, pools: &[String], store: Option<Arc<dyn Store>>) -> Arc<Self> {
        let of = |name: &String| Some((name.clone(), config.pools.get(name)?.clone()));
        Arc::new(Self {
            kafka: config.kafka.clone(),
            pools: pools.iter().filter_map(of).filter(|(_, pool)| pool.needs_store()).collect(),
            store,
            seen: Mutex::default(),
            turn: Mutex::default(),
            ended: watch::Sender::new(0),
            reader: Arc::default(),
        })
    }

    /// What was seen last of a pool.
    pub(super) fn last(&self, pool: &str) -> Looked {
        lock(&self.seen).get(pool).cloned().unwrap_or_default()
    }

    /// Somebody looks: a new look begins where it may.
    pub(super) fn want(self: &Arc<Self>) {
        if self.pools.is_empty() || !lock(&self.turn).want(Instant::now()) {
            return;
        }
        let look = Look { of: Arc::clone(self), begun: Instant::now() };
        tokio::spawn(async move {
            for (name, pool) in &look.of.pools {
                let seen = look.of.look(name, pool).await;
                look.of.note(name, seen);
            }
        });
    }

    /// Waits for the first look's end, so that who asks once is told of the fleet.
    pub(super) async fn first(&self, within: Duration) {
        if self.pools.is_empty() {
            return;
        }
        let mut ended = self.ended.subscribe();
        // Without a look in time, what the process knows is told.
        drop(tokio::time::timeout(within, ended.wait_for(|looks| *looks > 0)).await);
    }

    /// Gives the client of Kafka up while nobody looks.
    pub(super) async fn rest(&self) {
        if lock(&self.turn).is_idle(Instant::now()) {
            let reader = lock(&self.reader).take();
            // Closing a client takes a while.
            tokio::task::spawn_blocking(move || drop(reader)).await.ok();
        }
    }

    fn note(&self, pool: &str, seen: Result<Seen, String>) {
        let mut all = lock(&self.seen);
        let looked = all.entry(pool.to_owned()).or_default();
        match seen {
            Ok((partitions, dead_rows)) => {
                let partitions = Some((SystemTime::now(), partitions));
                *looked = Looked { partitions, dead_rows, error: None };
            }
            Err(error) => looked.error = Some(error),
        }
    }

    async fn look(&self, name: &str, pool: &config::Pool) -> Result<Seen, String> {
        let Some(store) = &self.store else { return Err("the database's address cannot be used".to_owned()) };
        let ledger = store.ledger_of_group(pool.group_of(name)).await.map_err(|error| error.to_string())?;
        let filter = DeadFilter { pool: name.to_owned(), ..DeadFilter::default() };
        let dead_rows = match store.count_dead(&filter).await {
            Ok(rows) => Some(rows),
            // So many that counting them takes too long: the rest is worth telling without.
            Err(error) if error.fault == Fault::TooSlow => None,
            Err(error) => return Err(error.to_string()),
        };
        let (kafka, pool, kept) = (self.kafka.clone(), pool.clone(), Arc::clone(&self.reader));
        let asked = tokio::task::spawn_blocking(move || {
            let taken = lock(&kept).take();
            let reader = taken.map_or_else(|| LogReader::connect(&kafka), Ok)?;
            let partitions = lag::of_fleet(&reader, &topics(&reader, &pool)?, &ledger)?;
            // Only one that has answered is kept.
            lock(&kept).replace(reader);
            Ok::<_, LogError>(partitions)
        });
        match asked.await {
            Ok(Ok(partitions)) => Ok((partitions, dead_rows)),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("the process is ending".to_owned()),
        }
    }
}

/// The topics that a pool reads, those that its patterns find among them.
fn topics(reader: &LogReader, pool: &config::Pool) -> Result<Vec<String>, LogError> {
    if !pool.has_patterns() {
        return Ok(pool.topics.clone());
    }
    Ok(pool.topics_among(&reader.topic_names()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_look_at_a_time_and_a_tenth_of_the_time_at_most() {
        let (mut turn, begun) = (Turn::default(), Instant::now());
        let at = |ms| begun + Duration::from_millis(ms);
        assert!(turn.want(at(0)));
        assert!(!turn.want(at(1)), "one is under way");
        turn.end(at(50), Duration::from_millis(50));
        assert!(!turn.want(at(1_000)) && turn.want(at(2_050)));
        turn.end(at(3_050), Duration::from_secs(1));
        assert!(!turn.want(at(13_000)) && turn.want(at(13_050)));
    }

    #[test]
    fn a_client_is_given_up_when_nobody_has_looked_for_a_while() {
        let (mut turn, begun) = (Turn::default(), Instant::now());
        assert!(turn.is_idle(begun) && turn.want(begun));
        assert!(!turn.is_idle(begun + 2 * IDLE), "the look is under way");
        turn.end(begun, Duration::ZERO);
        assert!(!turn.is_idle(begun + IDLE / 2) && turn.is_idle(begun + IDLE));
    }
}
