//! Where a worker has more partitions than connections, most of its batches would only wait for one: decoded, held in
//! memory, and the smaller for not having waited in Kafka. So there only some partitions have a batch in hand at once, each in
//! its turn.
//!
//! What waits for something of its own (a hold, a deadlock, a slow handler) gives its place to another and keeps its batch.
//! While the database is away nobody begins with another.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::Shared;
use super::ahead::Reading;
use super::partition::Task;
use super::progress::Phase;
use super::turns::Turns;
use crate::event::Payload;
use crate::metrics;
use crate::pipeline::{Batch, PrepareTimes};

/// Batches in hand a connection: one is written, one is decoded and prepared meanwhile.
const BATCHES_A_CONNECTION: usize = 2;
/// How long handlers may take before others need not wait for them.
const PREPARE_MAX: Duration = Duration::from_millis(50);

/// Places for batches, of which each has one for as long as it is its turn.
pub(super) fn room(connections: usize) -> Arc<Turns> {
    Turns::new(connections.max(1) * BATCHES_A_CONNECTION)
}

impl<T> Shared<T> {
    /// Whether partitions wait for each other's connections.
    pub(super) fn is_crowded(&self) -> bool {
        self.letters.is_none() && self.assigned.load(Ordering::Relaxed) > self.connections
    }
}

impl<T: Payload> Task<T> {
    /// Waits for a place for the next batch, where one is needed: from its first record on, so that a partition with nothing
    /// to do takes none. Safe to drop while it waits.
    pub(super) async fn make_room(&mut self, reading: &mut Reading<T>) {
        self.place = None;
        if !self.shared.is_crowded() || !self.queue.await_first(self.limits(), &mut reading.fetching).await {
            return;
        }
        let begun = Instant::now();
        self.progress.enter(Phase::Queued("room for its next batch"));
        self.place = Some(self.shared.room.turn(reading.fetching.oldest_ms()).await);
        let queued = begun.elapsed();
        self.shared.metrics.spent(metrics::Phase::Queue, queued);
        // Whoever meets an outage gives its place away, and all would come to have a batch in hand.
        if self.shared.gate.closed().is_some() {
            self.progress.enter(Phase::Waiting("the database".to_owned()));
            self.shared.gate.pass().await;
        }
        reading.waited = begun.elapsed();
        self.shared.metrics.spent(metrics::Phase::Wait, reading.waited.saturating_sub(queued));
        reading.fetching.linger_anew(self.limits());
        self.progress.enter(Phase::Polling);
    }

    /// Asks the handlers, and leaves the place to others if they take long: it is they who are waited for then, not a
    /// connection.
    pub(super) async fn prepare_in_place(
        &mut self,
        batch: &mut Batch<T>,
    ) -> Result<PrepareTimes, crate::handler::Error> {
        let shared = Arc::clone(&self.shared);
        let mut prepared = pin!(shared.pipelines.prepare(batch));
        if self.place.is_some() {
            tokio::select! {
                biased;
                prepared = &mut prepared => return prepared,
                () = tokio::time::sleep(PREPARE_MAX) => self.place = None,
            }
        }
        prepared.await
    }
}
