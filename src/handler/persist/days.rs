//! The days of `messages`, where `weir migrate --partitioned` made it so: each worker looks once a minute, and one of them
//! makes what is missing and drops what is older than `store.messages_retention`.
//!
//! An event whose id was made before the retention is refused, and ends as a dead row: whether it was there already, nobody
//! could tell any more. A day is dropped a day later than that, so that clocks may differ and batches take their time.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::metrics::PoolMetrics;
use crate::store::{self, Fault, KeyType, Store, Upkeep, made_ms};

/// How often they are looked at.
const INTERVAL: Duration = Duration::from_secs(60);

/// From when on ids are known, in milliseconds since 1970.
#[derive(Debug, Clone)]
pub(super) struct KnownFrom(Arc<AtomicI64>);

impl KnownFrom {
    pub(super) fn always() -> Self {
        Self(Arc::new(AtomicI64::new(i64::MIN)))
    }

    fn set(&self, upkeep: Option<&Upkeep>) {
        self.0.store(upkeep.map_or(i64::MIN, |upkeep| upkeep.known_from_ms), Ordering::Relaxed);
    }

    /// Why an id is refused, if it is.
    pub(super) fn refusal(&self, id: &str, kind: KeyType) -> Option<String> {
        let known_from_ms = self.0.load(Ordering::Relaxed);
        if known_from_ms == i64::MIN || made_ms(id, kind)? >= known_from_ms {
            return None;
        }
        Some(
            "its id is older than store.messages_retention: messages of its day are dropped, so that nobody can tell whether \
             it was there"
                .to_owned(),
        )
    }
}

/// Looks after them.
pub(super) struct Keeper {
    pub(super) store: Arc<dyn Store>,
    pub(super) pool: Arc<str>,
    pub(super) metrics: PoolMetrics,
    pub(super) known_from: KnownFrom,
}

impl Keeper {
    /// What is known before the first batch.
    pub(super) async fn look(&self) -> Result<(), store::Error> {
        let upkeep = self.store.days().await?;
        self.known_from.set(upkeep.as_ref());
        Ok(())
    }

    /// Runs until it is told to stop, which leaves nothing half done.
    pub(super) async fn run(self, stop: CancellationToken) {
        let (mut unmade, mut kept) = (Vec::new(), Vec::new());
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.turn(&mut unmade, &mut kept) => {}
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(INTERVAL) => {}
            }
        }
    }

    async fn turn(&self, unmade: &mut Vec<String>, kept: &mut Vec<String>) {
        let pool = &*self.pool;
        match self.store.keep_days().await {
            Ok(None) => {}
            Ok(Some(upkeep)) => {
                self.known_from.set(Some(&upkeep));
                self.metrics.set_message_days(upkeep.ahead, upkeep.overdue);
                self.tell(upkeep, unmade, kept);
            }
            // The tasks tell of a database that is away.
            Err(error) if error.fault == Fault::Outage => tracing::debug!(pool, %error, "the days wait"),
            Err(error) => {
                let why = vec![error.to_string()];
                if *unmade != why {
                    tracing::warn!(pool, %error, "the days of messages cannot be looked after");
                    *unmade = why;
                }
            }
        }
    }

    /// Says what is done, and once what is not.
    fn tell(&self, upkeep: Upkeep, unmade: &mut Vec<String>, kept: &mut Vec<String>) {
        let pool = &*self.pool;
        if !upkeep.made.is_empty() {
            tracing::info!(pool, parts = upkeep.made.join(" "), "days of messages were made");
        }
        if !upkeep.dropped.is_empty() {
            tracing::info!(pool, parts = upkeep.dropped.join(" "), "days of messages were dropped");
        }
        if upkeep.unmade != *unmade && !upkeep.unmade.is_empty() {
            let (ahead, why) = (upkeep.ahead, upkeep.unmade.join("; "));
            tracing::warn!(pool, ahead, why, "days of messages cannot be made; they are tried again every minute");
        }
        if upkeep.kept != *kept && !upkeep.kept.is_empty() {
            let (overdue, why) = (upkeep.overdue, upkeep.kept.join("; "));
            tracing::warn!(pool, overdue, why, "days of messages cannot be dropped; they are tried again every minute");
        }
        (*unmade, *kept) = (upkeep.unmade, upkeep.kept);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_refused_only_if_its_time_is_known_and_before_what_is() {
        let known_from = KnownFrom::always();
        let id = "01a1a901-5801-7abc-8000-00000000000f";
        assert_eq!(known_from.refusal(id, KeyType::Text), None);
        let upkeep = |known_from_ms| Upkeep { known_from_ms, ..Upkeep::default() };
        known_from.set(Some(&upkeep(1_793_836_800_001)));
        assert_eq!(known_from.refusal(id, KeyType::Text), None);
        known_from.set(Some(&upkeep(1_793_836_800_002)));
        assert!(known_from.refusal(id, KeyType::Text).unwrap().contains("messages_retention"));
        assert_eq!(known_from.refusal("m-1", KeyType::Text), None);
        known_from.set(None);
        assert_eq!(known_from.refusal(id, KeyType::Text), None);
    }
}
