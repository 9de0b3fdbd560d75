//! The console: a page, and `weir top`, of what this process does and where the whole fleet stands.
//!
//! Promised: it changes nothing, whoever asks (only GET is answered, and nothing behind it writes); it shows no setting and so no
//! secret; what an event brings stays text; and it costs the pools next to nothing: what is known in the process is read as
//! it stands, Kafka and the database are asked by connections of its own, one look at a time, never more than a tenth of the
//! time, and only while somebody looks. A database that is away is said so, and the rest goes on. There is no login: it
//! listens where only this machine reaches it, and answers only by names that are its own (`guard.rs`).

mod dead;
mod fleet;
mod guard;
mod history;
mod model;
mod pages;
mod serve;
mod state;

#[cfg(test)]
pub(crate) use model::Fleet;
pub(crate) use model::{Partition, Place, Point, PoolState, State};
pub use serve::Error;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use uuid::Uuid;

use self::dead::DeadRows;
use self::fleet::FleetLook;
use self::history::History;
use crate::admin::Health;
use crate::config::Config;
use crate::metrics::{Metrics, PoolMetrics};
use crate::pool::Standings;

/// What the console is told of, and what it remembers. Clones show the same.
#[derive(Clone)]
pub struct Console(Arc<Shown>);

struct Shown {
    /// Tells this process from the one that had its address before.
    instance: Uuid,
    started: SystemTime,
    host: String,
    config: Config,
    health: Health,
    pools: Mutex<Vec<Watched>>,
    fleet: Arc<FleetLook>,
    dead: DeadRows,
}

/// A pool of this process.
struct Watched {
    name: String,
    metrics: PoolMetrics,
    /// Once it is made.
    standings: Option<Standings>,
    history: History,
}

impl Console {
    /// A console of these pools; nothing listens yet, and nothing is asked.
    #[must_use]
    pub fn new(config: &Config, pools: &[String], metrics: &Metrics, health: &Health) -> Self {
        let watched = |name: &String| Watched {
            name: name.clone(),
            metrics: metrics.pool(name),
            standings: None,
            history: History::default(),
        };
        let store = fleet::own_store(config);
        Self(Arc::new(Shown {
            instance: Uuid::new_v4(),
            started: SystemTime::now(),
            host: std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned(),
            config: config.clone(),
            health: health.clone(),
            pools: Mutex::new(pools.iter().map(watched).collect()),
            fleet: FleetLook::new(config, pools, store.clone()),
            dead: DeadRows::new(config, pools, store),
        }))
    }

    /// Shows a pool's partitions from now on.
    pub fn watch(&self, pool: &str, standings: Standings) {
        if let Some(watched) = self.0.pools().iter_mut().find(|watched| watched.name == pool) {
            watched.standings = Some(standings);
        }
    }
}

impl Shown {
    fn pools(&self) -> MutexGuard<'_, Vec<Watched>> {
        lock(&self.pools)
    }
}

/// Whoever panicked leaves whole values behind: every write is an assignment or a push.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Milliseconds since 1970.
fn ms(time: SystemTime) -> i64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
