//! The net below `prepare`: when the database refuses a batch, the events at fault are found by halving, in
//! transactions that are always rolled back. At most two probes an event.

use std::sync::Arc;

use super::{Batch, Failure, Pipelines};
use crate::event::Payload;
use crate::handler::Rejection;
use crate::store::{self, Fault};

impl<T: Payload> Pipelines<T> {
    /// Sets the events aside that make the batch fail; says how many.
    ///
    /// # Errors
    /// Another fault came up meanwhile. When no event fails alone, [`Fault::TooSlow`] asks for a smaller batch, in
    /// which they do not meet.
    pub(crate) async fn set_culprits_aside(&self, batch: &mut Batch<T>, refusal: Failure) -> Result<usize, Failure> {
        let plan = batch.plan(self.takes_repeats());
        let only = (plan.open.len() == 1).then(|| plan.open[0]);
        let mut suspects = vec![plan.open];
        let mut found = Vec::new();
        while let Some(mut half) = suspects.pop() {
            match self.probe(batch, &half).await {
                Ok(()) => {}
                Err(failure) if failure.error.fault != Fault::Reject => return Err(failure),
                Err(failure) if half.len() == 1 => found.push((half[0], failure)),
                Err(_) => {
                    suspects.push(half.split_off(half.len() / 2));
                    suspects.push(half);
                }
            }
        }
        // A constraint that is only checked at the commit is never met by a probe.
        if let (true, Some(only)) = (found.is_empty(), only) {
            found.push((only, refusal));
        }
        if found.is_empty() {
            let message = "the batch is refused only as a whole; trying smaller ones".to_owned();
            return Err(store::Error { fault: Fault::TooSlow, action: "find the refused event", message }.into());
        }
        let count = found.len();
        for (at, failure) in found {
            let pipeline = failure.pipeline.unwrap_or_else(|| Arc::from("store"));
            let rejection = Rejection { reason: failure.reason, message: failure.error.to_string() };
            batch.entries[at].rejected = Some((pipeline, rejection));
        }
        Ok(count)
    }

    async fn probe(&self, batch: &Batch<T>, entries: &[usize]) -> Result<(), Failure> {
        let mut tx = self.store.begin().await?;
        let applied = self.apply(&mut *tx, batch, entries).await;
        match &applied {
            Err(failure) => store::leave(tx, failure.error.fault).await,
            Ok(_) => tx.rollback().await?,
        }
        applied.map(drop)
    }
}
