//! Pools without a store: the handlers' `prepare` is the effect, and nothing guards it but the processed set.
//!
//! Promised: at least once. An event's effect is there before its offset is committed, and one that is rejected has its letter
//! on the dead-letter topic before. Repeats come after a kill, from where Kafka's offset was committed last, and where a
//! pipeline fails in the middle of a batch; the processed set catches those of batches that were done. What breaks it:
//! handlers that say "done" before they are.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use super::{Batch, Counts, Pipelines};
use crate::event::Payload;
use crate::handler::Error;
use crate::store::DeadRow;

impl<T: Payload> Batch<T> {
    /// Of several copies of one id only the first is handled.
    pub(crate) fn pass_copies(&mut self) {
        let mut first: HashSet<(String, String)> = HashSet::with_capacity(self.entries.len());
        for at in 0..self.entries.len() {
            let (kind, id) = self.identity(at);
            let is_first = !self.entries[at].is_open() || first.insert((kind.to_owned(), id.to_owned()));
            self.entries[at].known |= !is_first;
        }
    }

    /// Under which names the processed set keeps the open events, in the order that [`note_known`](Self::note_known) takes
    /// answers. A hit is believed here, so it must be this group's, and of the event's own type.
    pub(crate) fn marks(&self, group: &str) -> Vec<String> {
        let open = (0..self.entries.len()).filter(|at| self.entries[*at].is_open());
        open.map(|at| {
            let (kind, id) = self.identity(at);
            format!("{group}\n{kind}\n{id}")
        })
        .collect()
    }

    /// What was rejected is asked about once more, and what was done is not.
    pub(crate) fn ask_rejected_again(&mut self) {
        for entry in self.entries.iter_mut().filter(|entry| entry.wanted != 0) {
            entry.known |= entry.rejected.is_none();
            entry.rejected = None;
        }
    }
}

impl<T: Payload> Pipelines<T> {
    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.list.len()
    }

    /// Has one pipeline's effects done. One after the other: a pipeline that fails must not have the others repeat theirs.
    ///
    /// # Errors
    /// The pipeline's fault that is not one event's; some of its effects may be there.
    pub(crate) async fn effect(&self, batch: &mut Batch<T>, pipeline: usize) -> Result<Duration, Error> {
        let begun = Instant::now();
        let asked = self.asked(batch, pipeline);
        let answers = self.answers(batch, pipeline, &asked).await?;
        for (at, answer) in asked.into_iter().zip(answers) {
            self.note(batch, pipeline, at, answer)?;
        }
        Ok(begun.elapsed())
    }

    /// What is to be set aside, and what has become of the batch once it is.
    pub(crate) fn effected(&self, batch: &Batch<T>) -> (Vec<DeadRow>, Counts) {
        let plan = batch.plan(false);
        let counts = self.counts(batch, &plan.open, plan.dead.iter().map(|row| row.reason).collect());
        (plan.dead, counts)
    }
}
