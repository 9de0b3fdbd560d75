//! How a partition of a pool without a store goes: taken over from Kafka's committed offset, and each batch effected, marked
//! and only then committed. What that promises is in `pipeline/unstored.rs`.

use std::sync::Arc;
use std::time::Instant;

use uuid::Uuid;

use super::ahead::Decoded;
use super::partition::{Halt, Task};
use super::progress::Phase;
use crate::config::Start;
use crate::event::{Origin, Payload, Record};
use crate::metrics;
use crate::pipeline::Batch;
use crate::store::{DeadRow, Fault, Held, Place};

impl<T: Payload> Task<T> {
    /// Tries until the group confirms the position or the task is told to stop. Nothing is claimed: a former owner that
    /// slept can leave effects a second time, and its commits are refused by the broker.
    pub(super) async fn take_over_unstored(&mut self) -> Result<Held, Halt> {
        loop {
            let origin = self.origin().await?;
            let Some(next_offset) = self.position(&origin).await? else { continue };
            if self.is_confirmed(&origin, next_offset).await? {
                self.shared.metrics.claimed();
                let place = Place { group: Arc::clone(&self.shared.group), origin };
                return Ok(Held::new(place, Uuid::new_v4(), next_offset));
            }
        }
    }

    /// The offset that the group has committed; where it has none, the pool's `start`, or the beginning where the group has
    /// been on the topic before. `None`: it could not be told, and it has waited.
    async fn position(&mut self, origin: &Origin) -> Result<Option<i64>, Halt> {
        for (start, only) in [(Start::Committed, Some(origin.partition)), (Start::Committed, None)] {
            if let Some(offset) = self.offset_of(origin, &start, only).await? {
                return Ok(offset);
            }
        }
        match self.shared.config.start.clone() {
            Start::Committed => {
                let (group, topic) = (Arc::clone(&self.shared.group), &origin.topic);
                self.hold(&format!(
                    "start is \"committed\" and group {group} has committed nothing on {topic}: set start to \"beginning\", \"end\" or a time"
                ))
                .await?;
                Ok(None)
            }
            start => Ok(self.offset_of(origin, &start, Some(origin.partition)).await?.flatten()),
        }
    }

    /// `None`: nothing was committed; `Some(None)`: no broker told, and it has waited.
    async fn offset_of(
        &mut self,
        origin: &Origin,
        start: &Start,
        only: Option<i32>,
    ) -> Result<Option<Option<i64>>, Halt> {
        let client = Arc::clone(&self.shared.source.client);
        let asked = client.start_offsets(&origin.topic, start, only);
        match self.unless_stopped(asked).await? {
            Ok(None) => Ok(None),
            Ok(Some(offsets)) => {
                let found = offsets.into_iter().find(|(partition, _)| *partition == origin.partition);
                match found {
                    Some((_, offset)) => Ok(Some(Some(offset))),
                    None => {
                        self.wait_for("the broker to tell the partition's offset").await?;
                        Ok(Some(None))
                    }
                }
            }
            Err(error) => {
                self.wait_for(&format!("the broker to tell the committed offset: {error}")).await?;
                Ok(Some(None))
            }
        }
    }

    /// Settles a batch: effects, letters, marks, then the offset. The records come back from which on they could not be read.
    pub(super) async fn settle_unstored(
        &mut self,
        decoded: Decoded<T>,
        held: &mut Held,
    ) -> Result<Option<Vec<Record>>, Halt> {
        let Decoded { mut batch, took } = decoded;
        batch.count_attempt();
        let begun = Instant::now();
        loop {
            batch.pass_copies();
            for pipeline in 0..self.shared.pipelines.len() {
                self.effect(&mut batch, pipeline).await?;
            }
            // So that what was done is not done again, whatever happens next.
            if let Some(processed) = self.shared.processed_set() {
                let marks = batch.marks(&self.shared.group);
                processed.mark(&marks.iter().map(String::as_str).collect::<Vec<_>>()).await;
            }
            if !self.must_hold(&mut batch).await? {
                break;
            }
            batch.ask_rejected_again();
        }
        let (dead, counts) = self.shared.pipelines.effected(&batch);
        self.send_letters(&dead).await?;
        self.shared.metrics.applied_in(begun.elapsed());
        let unread = batch.take_unread();
        self.fit_batches(batch.len(), took + begun.elapsed());
        self.note_settled(batch, &counts, held).await;
        Ok(unread)
    }

    async fn effect(&mut self, batch: &mut Batch<T>, pipeline: usize) -> Result<(), Halt> {
        let shared = Arc::clone(&self.shared);
        loop {
            self.progress.enter(Phase::Working);
            let begun = Instant::now();
            let effected = shared.pipelines.effect(batch, pipeline).await;
            shared.metrics.spent(metrics::Phase::Prepare, begun.elapsed());
            match effected {
                Ok(took) => {
                    shared.pipeline_metrics[pipeline].prepare_seconds.observe(took.as_secs_f64());
                    return Ok(());
                }
                Err(error) => {
                    let fault = if error.fault == Fault::Outage { Fault::Busy } else { error.fault };
                    self.after(fault, &error.message).await?;
                }
            }
        }
    }

    /// Waits until the dead-letter topic has every letter: nothing else keeps the events that were set aside.
    async fn send_letters(&mut self, dead: &[DeadRow]) -> Result<(), Halt> {
        let shared = Arc::clone(&self.shared);
        let Some(letters) = shared.letters.as_ref().filter(|_| !dead.is_empty()) else { return Ok(()) };
        while let Err((fault, why)) = letters.send(dead).await {
            self.after(fault, &why).await?;
        }
        Ok(())
    }
}
