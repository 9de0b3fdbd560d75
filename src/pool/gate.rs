//! One prober for a database that is away: the first task that notices closes the gate, all wait at it, and whoever
//! is let through finds the database answering.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::store::{Fault, Store};

/// How often a database that is away is asked.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// Closed while the database is away.
pub(super) struct Gate {
    open: watch::Sender<bool>,
    store: Arc<dyn Store>,
    pool: Arc<str>,
}

impl Gate {
    pub(super) fn new(pool: Arc<str>, store: Arc<dyn Store>) -> Self {
        Self { open: watch::Sender::new(true), store, pool }
    }

    /// Closes the gate, unless it is closed, and starts the one prober.
    pub(super) fn close(self: &Arc<Self>, why: &str) {
        let closed = self.open.send_if_modified(|open| std::mem::replace(open, false));
        if !closed {
            return;
        }
        let pool = &*self.pool;
        tracing::error!(pool, why, "the database is away; nothing is committed, events wait in Kafka until it returns");
        let gate = Arc::clone(self);
        tokio::spawn(async move { gate.probe().await });
    }

    /// Ends with the gate, or when the pool is gone and nobody waits any more.
    async fn probe(&self) {
        loop {
            tokio::time::sleep(PROBE_INTERVAL).await;
            let away = matches!(self.store.check().await, Err(error) if error.fault == Fault::Outage);
            if !away || self.open.is_closed() {
                break;
            }
        }
        tracing::info!(pool = &*self.pool, "the database answers again");
        self.open.send_replace(true);
    }

    /// Waits until the gate is open.
    pub(super) async fn pass(&self) {
        // The sender lives in `self`, so the wait cannot fail.
        self.open.subscribe().wait_for(|open| *open).await.ok();
    }

    pub(super) fn is_open(&self) -> bool {
        *self.open.borrow()
    }
}
