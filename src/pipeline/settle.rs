//! The second phase: fence, effects, dead rows, in one transaction.

use std::collections::HashSet;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::time::Instant;

use super::batch::Plan;
use super::{Batch, Counts, Novelty, Pipelines};
use crate::event::{Event, Payload};
use crate::handler::{Applied, ErasedWork};
use crate::sabotage::{self, Bug};
use crate::store::{self, Fault, Fence, Held, Reason, Tx};

/// Events by type and id; see [`Batch::identity`].
pub(super) type Identities = HashSet<(String, String)>;

/// How an attempt ended that met no error.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Attempt {
    /// Everything is committed.
    Settled {
        /// What the commit took.
        commit: Duration,
    },
    /// The ledger is not as it was held: somebody else owns the partition, or an earlier attempt was committed.
    Fenced,
    /// The processed set knows ids that the database does not have: those of these entries.
    Unverified(Vec<usize>),
    /// A key has too many events that wait behind a rejected one; says what to do.
    Full(String),
}

/// Why a transaction is undone that met no error.
pub(super) enum Undone {
    As(Attempt),
    /// These entries come behind a rejected one of their key.
    Followed(Vec<usize>),
}

/// An attempt's error, with the pipeline whose effects were being applied.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) pipeline: Option<Arc<str>>,
    pub(crate) reason: Reason,
    pub(crate) error: store::Error,
}

impl From<store::Error> for Failure {
    fn from(error: store::Error) -> Self {
        Self { pipeline: None, reason: Reason::Refused, error }
    }
}

/// Commits a batch's transaction.
pub(super) async fn commit<T>(tx: Box<dyn Tx>, batch: &Batch<T>) -> store::Result<()> {
    let clock = batch.trace.clock();
    let committed = tx.commit().await;
    batch.trace.committed(clock, committed.as_ref().err().map(|error| error.fault.as_str()));
    committed
}

impl<T: Payload> Pipelines<T> {
    /// Tries once to settle a prepared batch. The counts are those of this attempt, also when its commit's outcome is
    /// not known.
    ///
    /// # Errors
    /// The store's or a handler's; nothing is left, except perhaps when the commit itself failed.
    pub(crate) async fn attempt(
        &self,
        batch: &mut Batch<T>,
        held: &Held,
        novelty: &mut Novelty,
        counts: &mut Counts,
    ) -> Result<Attempt, Failure> {
        batch.count_attempt();
        // Each round but the last sets events aside or leaves an assumption, so there is an end.
        loop {
            let plan = batch.plan(self.takes_repeats());
            let (mut tx, fence) = self.store.begin_fenced(held, batch.next_offset, &self.pool).await?;
            let assumed = !self.takes_repeats() && novelty.is_expected() && tx.assume_new(plan.open.len());
            match self.settle_in(&mut *tx, fence, batch, &plan).await {
                Ok(Ok(settled)) => {
                    *counts = settled;
                    let begun = Instant::now();
                    commit(tx, batch).await?;
                    if assumed {
                        novelty.confirmed();
                    }
                    return Ok(Attempt::Settled { commit: begun.elapsed() });
                }
                Ok(Err(undone)) => {
                    tx.rollback().await?;
                    match undone {
                        Undone::As(attempt) => return Ok(attempt),
                        Undone::Followed(entries) => batch.park_entries(&entries),
                    }
                }
                Err(failure) => {
                    store::leave(tx, failure.error.fault).await;
                    match failure.error.fault {
                        Fault::Reject | Fault::Hold | Fault::Fatal if assumed => {
                            tracing::debug!(place = %held.place, error = %failure.error, "not new as a whole; writing it again");
                            novelty.refuted();
                        }
                        _ => {
                            // Whoever lies in between may take no COPY and say so in any way.
                            if assumed {
                                novelty.leave();
                            }
                            return Err(failure);
                        }
                    }
                }
            }
        }
    }

    async fn settle_in(
        &self,
        tx: &mut dyn Tx,
        fence: Fence,
        batch: &Batch<T>,
        plan: &Plan,
    ) -> Result<Result<Counts, Undone>, Failure> {
        let has_dead_rows = match fence {
            Fence::Passed { has_dead_rows } => has_dead_rows,
            Fence::Fenced if sabotage::has(Bug::NoFence) => true,
            Fence::Fenced => return Ok(Err(Undone::As(Attempt::Fenced))),
        };
        let missing = self.missing(tx, batch, &plan.known).await?;
        if !missing.is_empty() {
            return Ok(Err(Undone::As(Attempt::Unverified(missing))));
        }
        let followers = self.followers(tx, batch, plan).await?;
        if !followers.is_empty() {
            return Ok(Err(Undone::Followed(followers)));
        }
        let fresh = self.apply(tx, batch, &plan.open).await?;
        let live = self.live_among_dead(tx, plan).await?;
        let mut dead: Vec<_> =
            plan.dead.iter().filter(|row| !live.contains(&(row.kind.clone(), row.event_id.clone()))).cloned().collect();
        if let Some(why) = self.hold_keys(batch, &mut dead) {
            return Ok(Err(Undone::As(Attempt::Full(why))));
        }
        if !dead.is_empty() {
            tx.bury(&self.pool, &dead).await?;
        }
        let new: Vec<(&str, &str)> = fresh.iter().map(|at| batch.identity(*at)).collect();
        // A dead row committed since the fence is met again before its letter is sent.
        if has_dead_rows && !new.is_empty() {
            tx.unbury(&self.pool, &new).await?;
        }
        let mut counts = self.counts(batch, &fresh, dead.iter().map(|row| row.reason).collect());
        counts.held_keys = dead.into_iter().filter(|row| row.holds_key).filter_map(|row| row.key).collect();
        Ok(Ok(counts))
    }

    /// Claims the ids of the entries and applies the pipelines to those that are new; says which these are.
    pub(super) async fn apply(
        &self,
        tx: &mut dyn Tx,
        batch: &Batch<T>,
        entries: &[usize],
    ) -> Result<Vec<usize>, Failure> {
        if entries.is_empty() {
            return Ok(Vec::new());
        }
        let fresh = match self.claimer {
            Some(claimer) => match self.apply_one(tx, batch, claimer, entries).await? {
                Applied::Claimed(fresh) if fresh.len() == entries.len() => fresh,
                _ => {
                    let message = "a claiming handler must answer for each event whether it was new".to_owned();
                    return Err(store::Error { fault: Fault::Fatal, action: "claim ids", message }.into());
                }
            },
            None => {
                let ids: Vec<(&str, &str)> = entries.iter().map(|at| batch.identity(*at)).collect();
                tx.claim_seen(&self.pool, &ids).await?
            }
        };
        let fresh: Vec<usize> = entries.iter().zip(fresh).filter(|(_, fresh)| *fresh).map(|(at, _)| *at).collect();
        for pipeline in (0..self.list.len()).filter(|at| self.claimer != Some(*at)) {
            let ready = |at: &usize| batch.entries[*at].is_wanted_by(pipeline) && batch.work[pipeline][*at].is_some();
            let entries: Vec<usize> = fresh.iter().copied().filter(ready).collect();
            if entries.is_empty() {
                continue;
            }
            if sabotage::has(Bug::OwnTransaction) {
                let mut own = self.store.begin().await?;
                self.apply_one(&mut *own, batch, pipeline, &entries).await?;
                own.commit().await?;
                continue;
            }
            self.apply_one(tx, batch, pipeline, &entries).await?;
        }
        Ok(fresh)
    }

    async fn apply_one(
        &self,
        tx: &mut dyn Tx,
        batch: &Batch<T>,
        pipeline: usize,
        entries: &[usize],
    ) -> Result<Applied, Failure> {
        let items: Vec<(&Event<T>, &ErasedWork)> = entries
            .iter()
            .filter_map(|at| Some((&batch.entries[*at].event, batch.work[pipeline][*at].as_ref()?)))
            .collect();
        let name = &self.list[pipeline].name;
        // The transaction is rolled back after a panic, so nothing half done is left in it.
        let clock = batch.trace.clock();
        let applied = AssertUnwindSafe(self.list[pipeline].handler.apply(tx, &items)).catch_unwind().await;
        let error = match &applied {
            Ok(applied) => applied.as_ref().err().map(|error| error.fault.as_str()),
            Err(_) => Some(Fault::Reject.as_str()),
        };
        batch.trace.applied(clock, name, error);
        match applied {
            Ok(applied) => {
                applied.map_err(|error| Failure { pipeline: Some(Arc::clone(name)), reason: Reason::Refused, error })
            }
            Err(_) => Err(Failure {
                pipeline: Some(Arc::clone(name)),
                reason: Reason::Handler,
                error: store::Error {
                    fault: Fault::Reject,
                    action: "apply a pipeline",
                    message: "the handler panicked".to_owned(),
                },
            }),
        }
    }

    /// Which of the entries that the processed set knows are not there.
    async fn missing(&self, tx: &mut dyn Tx, batch: &Batch<T>, known: &[usize]) -> Result<Vec<usize>, store::Error> {
        if known.is_empty() || sabotage::has(Bug::UnverifiedSkip) {
            return Ok(Vec::new());
        }
        let ids: Vec<(&str, &str)> = known.iter().map(|at| batch.identity(*at)).collect();
        let there = self.existing(tx, &ids).await?;
        let is_missing = |(kind, id): (&str, &str)| !there.contains(&(kind.to_owned(), id.to_owned()));
        Ok(known.iter().copied().filter(|at| is_missing(batch.identity(*at))).collect())
    }

    /// Rejected events that are live already: a bad copy of a good event is a duplicate.
    pub(super) async fn live_among_dead(&self, tx: &mut dyn Tx, plan: &Plan) -> Result<Identities, store::Error> {
        if plan.dead.is_empty() {
            return Ok(Identities::new());
        }
        let ids: Vec<(&str, &str)> = plan.dead.iter().map(|row| (row.kind.as_str(), row.event_id.as_str())).collect();
        self.existing(tx, &ids).await
    }

    async fn existing(&self, tx: &mut dyn Tx, ids: &[(&str, &str)]) -> Result<Identities, store::Error> {
        match self.id_key() {
            Some(key) => {
                let ids: Vec<&str> = ids.iter().map(|(_, id)| *id).collect();
                let existing = tx.existing(key, &ids).await?;
                Ok(existing.into_iter().map(|id| (String::new(), id)).collect())
            }
            None => tx.existing_seen(&self.pool, ids).await,
        }
    }

    pub(super) fn counts(&self, batch: &Batch<T>, fresh: &[usize], reasons: Vec<Reason>) -> Counts {
        let mut is_fresh = vec![false; batch.entries.len()];
        for at in fresh {
            is_fresh[*at] = true;
        }
        let zero = || vec![0; self.list.len()];
        let mut counts = Counts {
            applied: zero(),
            duplicate: zero(),
            filtered: zero(),
            dead: zero(),
            reasons,
            held_keys: Vec::new(),
            intended_us: fresh.iter().filter_map(|at| batch.entries[*at].event.record.intended_us()).collect(),
        };
        for (at, entry) in batch.entries.iter().enumerate() {
            for pipeline in 0..self.list.len() {
                let outcome = match () {
                    () if !entry.is_wanted_by(pipeline) => &mut counts.filtered,
                    () if entry.rejected.is_some() => &mut counts.dead,
                    () if is_fresh[at] => &mut counts.applied,
                    () => &mut counts.duplicate,
                };
                outcome[pipeline] += 1;
            }
        }
        counts
    }
}
