//! What operators ask of a running pool by `weir pause`, `weir resume` and `weir rate`. It is kept in the store, where
//! every worker of the group looks for it; a worker that starts looks before it joins its group.
//!
//! A pool that is paused keeps its partitions: its tasks finish the batch in hand and take no other, dead rows are not
//! replayed, and everything else goes on. While the database is away, what was seen last applies.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::pacing::Pacing;
use super::partition::{Halt, Task, backoff};
use super::progress::Phase;
use crate::admin::{PausedReport, PoolHealth};
use crate::event::Payload;
use crate::metrics::{self, PoolMetrics};
use crate::store::{self, Change, Control, Fault, Pause, Store};

/// How often it is looked for.
const INTERVAL: Duration = Duration::from_secs(2);
/// How often a change is tried that met another one.
const TRIES_MAX: usize = 10;

/// What applies to a pool in this process.
pub(super) struct Steering {
    pool: Arc<str>,
    group: Arc<str>,
    pause: watch::Sender<Option<Pause>>,
    pub(super) pacing: Pacing,
    metrics: PoolMetrics,
    health: PoolHealth,
}

impl Steering {
    pub(super) fn new(
        (pool, group): (Arc<str>, Arc<str>),
        pacing: Pacing,
        metrics: PoolMetrics,
        health: PoolHealth,
    ) -> Self {
        Self { pool, group, pause: watch::Sender::new(None), pacing, metrics, health }
    }

    /// Asks the store, and applies what it says.
    pub(super) async fn look(&self, store: &dyn Store) -> store::Result<()> {
        self.apply(store.control(&self.group).await?);
        Ok(())
    }

    fn apply(&self, Control { pause, rate }: Control) {
        self.pacing.apply(rate);
        let told = pause.clone();
        if !self.pause.send_if_modified(|before| std::mem::replace(before, pause.clone()) != pause) {
            return;
        }
        let pool = &*self.pool;
        match &told {
            Some(pause) => tracing::info!(
                pool,
                state = %pause,
                by = pause.by,
                reason = pause.reason.as_deref().unwrap_or("none given"),
                "paused by `weir pause`: batches in hand are finished, and no others are taken"
            ),
            None => tracing::info!(pool, "resumed: batches are taken again"),
        }
        self.metrics.set_paused(told.is_some());
        self.health.paused(told.as_ref().map(|pause| PausedReport {
            since: humantime::format_rfc3339_seconds(time(pause.since_ms)).to_string(),
            until: pause.until_ms.map(|ms| humantime::format_rfc3339_seconds(time(ms)).to_string()),
            by: pause.by.clone(),
            reason: pause.reason.clone(),
        }));
    }

    pub(super) fn is_paused(&self) -> bool {
        self.pause.borrow().is_some()
    }

    async fn resumed(&self) {
        // The sender lives in `self`, so the wait cannot fail.
        self.pause.subscribe().wait_for(Option::is_none).await.ok();
    }
}

/// A point in time that can be written, whatever the table holds.
fn time(ms: i64) -> SystemTime {
    let last = 253_402_300_799_000;
    UNIX_EPOCH + Duration::from_millis(u64::try_from(ms.min(last)).unwrap_or_default())
}

/// Looks until it is told to stop.
pub(super) async fn watch<T: Payload>(shared: Arc<Shared<T>>, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(INTERVAL) => {}
        }
        // The tasks tell of a database that is away.
        if let Err(error) = shared.steering.look(&*shared.pipelines.store).await {
            tracing::debug!(pool = &*shared.name, %error, "pauses and rates are not looked for yet");
        }
    }
}

/// Changes what applies to a group: what did before, and what does now.
///
/// # Errors
/// The database's own.
pub async fn change(
    store: &dyn Store,
    (group, pool): (&str, &str),
    change: &Change,
    by: &str,
) -> store::Result<(Control, Control)> {
    let mut delays = backoff();
    for _ in 1..TRIES_MAX {
        match store.change_control(group, pool, change, by).await {
            Err(error) if error.fault == Fault::Busy => {
                tokio::time::sleep(delays.next().unwrap_or_default()).await;
            }
            done => return done,
        }
    }
    store.change_control(group, pool, change, by).await
}

impl<T: Payload> Task<T> {
    /// Waits while the pool is paused.
    pub(super) async fn await_resumed(&self) -> Result<(), Halt> {
        if !self.shared.steering.is_paused() {
            return Ok(());
        }
        let begun = Instant::now();
        self.progress.enter(Phase::Paused);
        let waited = tokio::select! {
            biased;
            () = self.stop.cancelled() => Err(Halt::Stop),
            () = self.nudge.notified() => Err(Halt::Retake),
            () = self.shared.steering.resumed() => Ok(()),
        };
        self.shared.metrics.spent(metrics::Phase::Wait, begun.elapsed());
        waited
    }
}
