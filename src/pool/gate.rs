//! One prober for a database that is away: the first task that notices closes the gate, all wait at it, and whoever
//! is let through finds the database answering. One that answers and still takes nothing, as with a full disk or a
//! standby, closes it again: then it is tried less and less often, and said once.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::watch;

use crate::store::{Fault, Store};

/// How soon a database that is away is asked; twice as late each time that it took nothing afterwards.
const PROBE_MIN: Duration = Duration::from_secs(1);
const PROBE_MAX: Duration = Duration::from_secs(5);

/// Closed while the database is away.
pub(super) struct Gate {
    open: watch::Sender<bool>,
    store: Arc<dyn Store>,
    pool: Arc<str>,
    outage: Mutex<Outage>,
}

/// What has happened since the last batch was settled.
#[derive(Debug, Default)]
struct Outage {
    /// The reason that was told.
    told: Option<String>,
    /// When the gate was first closed, and the last error.
    since: Option<SystemTime>,
    error: String,
    /// How often the gate was closed.
    closed: u32,
    /// Whose batch closed it first. Others may settle theirs meanwhile, as where one index is broken.
    by: Option<(Arc<str>, i32)>,
}

impl Gate {
    pub(super) fn new(pool: Arc<str>, store: Arc<dyn Store>) -> Self {
        Self { open: watch::Sender::new(true), store, pool, outage: Mutex::default() }
    }

    /// Closes the gate, unless it is closed, and starts the one prober.
    pub(super) fn close(self: &Arc<Self>, why: &str, topic: &Arc<str>, partition: i32) {
        let closed = self.open.send_if_modified(|open| std::mem::replace(open, false));
        if !closed {
            return;
        }
        let delay = {
            let mut outage = self.outage();
            if outage.told.as_deref() != Some(why) {
                outage.told = Some(why.to_owned());
                let pool = &*self.pool;
                tracing::error!(
                    pool,
                    why,
                    "the database is away; nothing is committed, events wait in Kafka until it returns"
                );
            }
            outage.since.get_or_insert_with(SystemTime::now);
            why.clone_into(&mut outage.error);
            outage.closed += 1;
            outage.by.get_or_insert_with(|| (Arc::clone(topic), partition));
            PROBE_MIN.saturating_mul(1 << (outage.closed - 1).min(8)).min(PROBE_MAX)
        };
        let gate = Arc::clone(self);
        tokio::spawn(async move { gate.probe(delay).await });
    }

    /// Ends with the gate, or when the pool is gone and nobody waits any more.
    async fn probe(&self, first: Duration) {
        tokio::time::sleep(first).await;
        while let Err(error) = self.store.check().await
            && error.fault == Fault::Outage
            && !self.open.is_closed()
        {
            self.outage().error = error.to_string();
            tokio::time::sleep(PROBE_MIN).await;
        }
        self.open.send_replace(true);
    }

    /// A partition settled a batch: the outage is over, if it was this one that met it.
    pub(super) fn settled(&self, topic: &Arc<str>, partition: i32) {
        let mut outage = self.outage();
        if outage.closed > 0 && outage.by.as_ref().is_none_or(|by| *by == (Arc::clone(topic), partition)) {
            *outage = Outage::default();
            tracing::info!(pool = &*self.pool, "the database takes effects again");
        }
    }

    /// A partition is no longer this process's: the next one to settle a batch, or to meet the outage, speaks for all.
    pub(super) fn left(&self, topic: &Arc<str>, partition: i32) {
        let mut outage = self.outage();
        outage.by.take_if(|by| *by == (Arc::clone(topic), partition));
    }

    /// Waits until the gate is open.
    pub(super) async fn pass(&self) {
        // The sender lives in `self`, so the wait cannot fail.
        self.open.subscribe().wait_for(|open| *open).await.ok();
    }

    /// Since when the database is away and the last error, while the gate is closed.
    pub(super) fn closed(&self) -> Option<(SystemTime, String)> {
        let outage = self.outage();
        let is_open = *self.open.borrow();
        outage.since.filter(|_| !is_open).map(|since| (since, outage.error.clone()))
    }

    fn outage(&self) -> MutexGuard<'_, Outage> {
        self.outage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
