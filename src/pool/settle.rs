//! One batch's way to being settled, with every fault it can meet.

use std::time::{Duration, Instant};

use super::ahead::{Decoded, Reading};
use super::batch_size::Change;
use super::partition::{Halt, Task, now_ms};
use super::progress::Phase;
use crate::event::{Payload, Record};
use crate::metrics;
use crate::pipeline::{Attempt, Batch, Counts, Failure};
use crate::sabotage::{self, Bug};
use crate::store::{Fault, Held};

impl<T: Payload> Task<T> {
    /// Settles a batch, however long it takes. The records come back when they must be tried in smaller batches, and those
    /// from which on they could not be read.
    pub(super) async fn settle(
        &mut self,
        decoded: Decoded<T>,
        held: &mut Held,
        reading: &mut Reading<T>,
    ) -> Result<Option<Vec<Record>>, Halt> {
        let shared = std::sync::Arc::clone(&self.shared);
        // What waiting for a service that is away takes says nothing of how large a batch may be.
        let Decoded { mut batch, took: mut worked } = decoded;
        if let Some((fault, why)) = batch.waits_for() {
            self.after(fault, &why).await?;
            self.still_holds(held).await?;
            return Ok(Some(batch.into_records()));
        }
        if shared.letters.is_some() {
            return self.settle_unstored(Decoded { batch, took: worked }, held).await;
        }
        self.set_parked_aside(&mut batch);
        self.sabotage(&batch).await;
        let mut counts = Counts::default();
        let mut prepared = false;
        loop {
            self.progress.enter(Phase::Working);
            if !prepared {
                let Some(took) = self.prepare(&mut batch).await? else {
                    self.still_holds(held).await?;
                    continue;
                };
                prepared = true;
                worked += took;
            }
            if self.must_hold(&mut batch).await? {
                self.still_holds(held).await?;
                let records = batch.into_records();
                batch = self.decode(held, records);
                prepared = false;
                continue;
            }
            let turn = self.turn().await?;
            let apply_begun = Instant::now();
            let mut novelty = std::mem::take(&mut self.novelty);
            let (attempt, ()) =
                tokio::join!(shared.pipelines.attempt(&mut batch, held, &mut novelty, &mut counts), async {
                    self.look_ahead(reading, held);
                });
            self.novelty = novelty;
            if self.novelty.was_refuted() {
                shared.metrics.retried("assumed");
            }
            shared.metrics.spent(metrics::Phase::Apply, apply_begun.elapsed());
            if let (Some(transactions), Some(turn), Ok(Attempt::Settled { commit })) =
                (&shared.transactions, turn, &attempt)
            {
                transactions.committed(turn, *commit);
            }
            match attempt {
                Ok(Attempt::Settled { .. }) => {
                    worked += apply_begun.elapsed();
                    shared.metrics.applied_in(apply_begun.elapsed());
                    break;
                }
                // Each time there are fewer that are taken for known.
                Ok(Attempt::Unverified(missing)) => {
                    shared.metrics.lookups().unverified.inc_by(missing.len() as u64);
                    batch.distrust(&missing);
                    prepared = false;
                }
                Ok(Attempt::Full(_)) if batch.len() > 1 => {
                    // What comes before the one event too many is settled first: else there were nothing to release.
                    let records = batch.into_records();
                    self.batch_size.halve(records.len());
                    return Ok(Some(records));
                }
                Ok(Attempt::Full(why)) => {
                    self.wait_for_room(&why, held).await?;
                    batch = self.decode(held, batch.into_records());
                    prepared = false;
                }
                Ok(Attempt::Fenced) => {
                    if self.was_committed(&batch, held).await? {
                        break;
                    }
                    return Err(Halt::Retake);
                }
                Err(failure) => {
                    if self.meet(failure, &mut batch).await? == Next::Smaller {
                        let records = batch.into_records();
                        self.batch_size.halve(records.len());
                        return Ok(Some(records));
                    }
                }
            }
        }
        let unread = batch.take_unread();
        self.fit_batches(batch.len(), worked);
        self.note_settled(batch, &counts, held).await;
        Ok(unread)
    }

    /// Makes the next batch as large as the time budget allows.
    pub(super) fn fit_batches(&mut self, events: usize, worked: Duration) {
        let (pool, topic, partition) = (&*self.shared.name, &*self.topic, self.partition);
        match self.batch_size.settled(events, worked) {
            Change::None => {}
            Change::Limited { event_ms } => {
                let (batch_events, budget) = (self.batch_size.now(), &self.shared.budget);
                let (max_ms, limited_by) = (budget.batch_ms_max(), budget.limited_by);
                tracing::warn!(
                    pool,
                    topic,
                    partition,
                    batch_events,
                    "batches get smaller: an event takes {event_ms:.1} ms, and a batch may take {max_ms} ms, half of {limited_by}"
                );
            }
            Change::Free => tracing::info!(pool, topic, partition, "full batches fit their time again"),
        }
        self.progress.lock().batch_events_max = self.batch_size.now();
    }

    /// How long `prepare` took; `None`: it did not go through, and has waited as the fault asks.
    async fn prepare(&mut self, batch: &mut Batch<T>) -> Result<Option<Duration>, Halt> {
        let begun = Instant::now();
        let prepared = self.prepare_in_place(batch).await;
        self.shared.metrics.spent(metrics::Phase::Prepare, begun.elapsed());
        match prepared {
            Ok(times) => {
                self.shared.note_prepare_times(&times);
                Ok(Some(begun.elapsed()))
            }
            Err(error) => {
                // A service of a handler is not the database: its gate stays open.
                let fault = if error.fault == Fault::Outage { Fault::Busy } else { error.fault };
                self.after(fault, &error.message).await?;
                Ok(None)
            }
        }
    }

    /// Whether so many events of so many senders are rejected that the fault is elsewhere; then it has waited.
    pub(super) async fn must_hold(&mut self, batch: &mut Batch<T>) -> Result<bool, Halt> {
        let ratio = self.shared.config.reject_hold_ratio;
        let keys = batch.rejected_keys();
        if keys.is_empty() || !self.rejects.would_hold(ratio, batch.len(), &keys) {
            return Ok(false);
        }
        let why = format!(
            "{} of {} events are rejected, from many keys: the table, the mapping or the events' format has changed. \
             Mend it, or set reject_hold_ratio = 1.0 to set them all aside",
            keys.len(),
            batch.len()
        );
        self.hold(&why).await?;
        Ok(true)
    }

    /// What to do after a failed attempt.
    async fn meet(&mut self, failure: Failure, batch: &mut Batch<T>) -> Result<Next, Halt> {
        let fault = failure.error.fault;
        if fault == Fault::Reject {
            let turn = self.turn().await?;
            let bisected = self.shared.pipelines.set_culprits_aside(batch, failure).await;
            drop(turn);
            return match bisected {
                Ok(_) => Ok(Next::Again),
                Err(failure) if failure.error.fault == Fault::TooSlow && batch.len() > 1 => Ok(Next::Smaller),
                Err(failure) => {
                    self.after(failure.error.fault, &failure.error.to_string()).await?;
                    Ok(Next::Again)
                }
            };
        }
        self.after(fault, &failure.error.to_string()).await?;
        Ok(if fault == Fault::TooSlow { Next::Smaller } else { Next::Again })
    }

    /// Whoever waits writes nothing, and so must ask whether the ledger was moved meanwhile.
    async fn still_holds(&mut self, held: &Held) -> Result<(), Halt> {
        if self.shared.letters.is_some() {
            return Ok(());
        }
        let shared = std::sync::Arc::clone(&self.shared);
        let row = shared.pipelines.store.ledger(&held.place).await;
        match self.unless_failed(row).await? {
            Some(Some(row)) if row.owner == Some(held.token) && row.next_offset == held.next_offset => Ok(()),
            Some(_) => Err(Halt::Retake),
            None => Ok(()),
        }
    }

    /// After a fence: whether an earlier attempt, whose commit was not answered, is what moved the ledger. Only the
    /// ledger can tell.
    async fn was_committed(&mut self, batch: &Batch<T>, held: &Held) -> Result<bool, Halt> {
        loop {
            match self.shared.pipelines.store.ledger(&held.place).await {
                Ok(Some(row)) if row.owner == Some(held.token) && row.next_offset == batch.next_offset => {
                    return Ok(true);
                }
                Ok(_) => {
                    self.shared.metrics.fenced();
                    tracing::warn!(place = %held.place, offset = held.next_offset, "fenced: the ledger has another owner or offset; nothing was written");
                    return Ok(false);
                }
                Err(error) => self.after(error.fault, &error.to_string()).await?,
            }
        }
    }

    /// After the commit: the offset for Kafka, the figures, the hint. None of it can undo an effect. The hint is given
    /// while the next batch is fetched, one batch behind at most.
    pub(super) async fn note_settled(&mut self, mut batch: Batch<T>, counts: &Counts, held: &mut Held) {
        let begun = Instant::now();
        let shared = std::sync::Arc::clone(&self.shared);
        batch.end_trace();
        held.next_offset = batch.next_offset;
        shared.source.watermarks.advance(&self.topic, self.partition, batch.next_offset);
        self.progress.settled(batch.next_offset);
        self.rejects.note(batch.len(), &batch.rejected_keys());
        self.backoff = super::partition::backoff();
        shared.gate.settled(&self.topic, self.partition);
        if self.held_for.take().is_some() {
            tracing::info!(pool = &*shared.name, place = %held.place, "partition goes on");
        }
        self.note_parked(counts);
        shared.note_settled(&batch, counts, now_ms());
        // Without a store they were marked before the offset moved.
        if let Some(processed) = shared.processed_set().filter(|_| shared.letters.is_none()).cloned() {
            if let Some(marking) = self.marking.take() {
                marking.await.ok();
            }
            self.marking = Some(tokio::spawn(async move { processed.mark(&batch.settled_ids()).await }));
        }
        shared.metrics.spent(metrics::Phase::Commit, begun.elapsed());
    }
}

impl<T: Payload> Task<T> {
    /// Says that a batch is done before it is, where that is the deliberate bug.
    async fn sabotage(&self, batch: &Batch<T>) {
        if sabotage::has(Bug::CommitBeforeWork) {
            self.shared.source.watermarks.advance(&self.topic, self.partition, batch.next_offset);
        }
        if sabotage::has(Bug::MarkBeforeCommit)
            && let Some(processed) = self.shared.processed_set()
        {
            processed.mark(&batch.settled_ids()).await;
        }
    }
}

/// What follows a failed attempt.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    Again,
    Smaller,
}
