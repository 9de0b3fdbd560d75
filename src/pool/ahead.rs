//! What was read of a partition and is not handled yet. While a batch is being written, the next one is decoded and looked
//! up in the processed set, if it is there as a whole: then a partition with a backlog waits for the database only.
//!
//! The order is kept: the next batch is prepared and applied when the one before it is settled. All of it is dropped when
//! the partition must be taken over anew, which reads it again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::task::AbortOnDropHandle;

use super::Shared;
use super::partition::{Halt, Task};
use crate::event::{Origin, Payload, Record};
use crate::metrics;
use crate::pipeline::Batch;
use crate::source::{Fetched, Fetching};
use crate::store::Held;

/// Read and not handled.
pub(super) struct Reading<T> {
    /// Records that are no batch yet.
    pub(super) fetching: Fetching,
    /// The batch that comes before them.
    ahead: Option<AbortOnDropHandle<Decoded<T>>>,
    /// How long it was waited for room and for the database, once there was a record.
    pub(super) waited: Duration,
}

/// A batch that was decoded and looked up, and how long that took.
pub(super) struct Decoded<T> {
    pub(super) batch: Batch<T>,
    pub(super) took: Duration,
}

/// What a task does next.
pub(super) enum Next<T> {
    Fetched(Fetched),
    Decoded(Decoded<T>),
}

impl<T> Default for Reading<T> {
    fn default() -> Self {
        Self { fetching: Fetching::default(), ahead: None, waited: Duration::ZERO }
    }
}

impl<T: Payload> Shared<T> {
    /// Where there is a rate, or a partition has no connection to itself, batches wait for that, and more of them only take
    /// memory. Without a processed set, decoding on another thread costs what it saves (docs/performance.md); the simulation
    /// has none and must meet this all the same.
    fn looks_ahead(&self) -> bool {
        let waits = self.steering.pacing.now().is_some() || self.is_crowded();
        !waits && (self.processed_set().is_some() || cfg!(test))
    }

    /// Decodes records and asks the processed set, which is a hint: no answer, or a wrong one, changes no effect.
    pub(super) async fn decode(&self, origin: &Arc<Origin>, records: Vec<Record>) -> Decoded<T> {
        let begun = Instant::now();
        let mut batch = Batch::decode(&self.decoding, &self.pipelines, origin, records);
        let decoded = Instant::now();
        self.metrics.spent(metrics::Phase::Decode, decoded - begun);
        if let Some(processed) = self.processed_set() {
            let hits = match &self.letters {
                None => processed.lookup(&batch.ids()).await,
                Some(_) => {
                    let marks = batch.marks(&self.group);
                    processed.lookup(&marks.iter().map(String::as_str).collect::<Vec<_>>()).await
                }
            };
            if let Some(hits) = hits {
                batch.note_known(&hits);
            }
        }
        self.metrics.spent(metrics::Phase::Dedupe, decoded.elapsed());
        Decoded { batch, took: begun.elapsed() }
    }
}

impl<T: Payload> Task<T> {
    /// Begins with the next batch if all of it is there. Fewer records are left to grow to a whole one.
    pub(super) fn look_ahead(&self, reading: &mut Reading<T>, held: &Held) {
        // Batches that are still to find their size follow the one before.
        if reading.ahead.is_some() || !self.batch_size.is_full() || !self.shared.looks_ahead() {
            return;
        }
        let begun = Instant::now();
        let records = self.queue.fetch_full(self.limits(), &mut reading.fetching);
        self.shared.metrics.spent(metrics::Phase::Poll, begun.elapsed());
        if let Some(records) = records {
            let (shared, origin) = (Arc::clone(&self.shared), Arc::clone(&held.place.origin));
            let decoding = tokio::spawn(async move { shared.decode(&origin, records).await });
            reading.ahead = Some(AbortOnDropHandle::new(decoding));
        }
    }

    /// The next batch, if one was begun with; else what the queue gives. Safe to drop while it waits.
    pub(super) async fn next(&mut self, reading: &mut Reading<T>) -> Result<Next<T>, Halt> {
        let (stop, nudge) = (self.stop.clone(), Arc::clone(&self.nudge));
        let next = async {
            let Some(decoding) = &mut reading.ahead else {
                self.make_room(reading).await;
                return Ok(Next::Fetched(self.queue.fetch(self.limits(), &mut reading.fetching).await));
            };
            let decoded = decoding.await;
            reading.ahead = None;
            // What users' code does is caught inside, so this is weir's own fault.
            decoded.map(Next::Decoded).map_err(|error| Halt::Fatal(format!("decoding a batch failed: {error}")))
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => Err(Halt::Stop),
            () = nudge.notified() => Err(Halt::Retake),
            next = next => next,
        }
    }
}
