//! A dead row tried again: all pipelines' effects and the row's removal in one transaction, behind the partition's
//! fence. The offset does not move, so what an unanswered commit came to is told by the row: gone, or still asked for.

use std::sync::Arc;

use super::settle::commit;
use super::{Batch, Counts, Decoding, Failure, Pipelines};
use crate::event::{Origin, Payload, Record, headers_from_json};
use crate::handler::Rejection;
use crate::store::{self, Fence, Held, KeptDead, Reason, Rejected, Tx};

/// What became of a row.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Replayed {
    /// Its effects are there, and it is gone.
    Applied(Counts),
    /// It is gone without an effect: its id was live, or no pipeline wants it any more.
    Settled,
    /// It was rejected again and is kept.
    Rejected,
    /// It was gone, or not asked for any more.
    Gone,
    /// Somebody else owns the partition.
    Fenced,
}

/// The record of a dead row. Rows of before time stamps were kept have only the time at which they were set aside.
fn record_of(row: &KeptDead) -> Record {
    let bytes = |part: &Option<Vec<u8>>| part.clone().map(bytes::Bytes::from);
    Record {
        offset: row.offset,
        timestamp_ms: row.record_ms.unwrap_or(row.created_ms),
        key: bytes(&row.key),
        value: bytes(&row.value),
        headers: row.headers.as_deref().map(headers_from_json).unwrap_or_default(),
    }
}

impl<T: Payload> Batch<T> {
    /// The one event of a dead row.
    pub(crate) fn of_dead(decoding: &Decoding<T>, pipelines: &Pipelines<T>, row: &KeptDead) -> Self {
        let (topic, topic_id, partition) = (Arc::from(row.topic.as_str()), row.topic_id, row.partition);
        let origin = Arc::new(Origin { topic, topic_id, partition });
        let mut batch = Self::decode(decoding, pipelines, &origin, vec![record_of(row)]);
        batch.trace.is_replay();
        batch
    }

    /// Turns its one event down.
    pub(crate) fn reject(&mut self, failure: Failure) {
        let pipeline = failure.pipeline.unwrap_or_else(|| Arc::from("store"));
        let rejection = Rejection { reason: failure.reason, message: failure.error.to_string() };
        for entry in &mut self.entries {
            entry.rejected = Some((Arc::clone(&pipeline), rejection.clone()));
        }
    }
}

impl<T: Payload> Pipelines<T> {
    /// Tries once to settle a dead row's prepared event.
    ///
    /// # Errors
    /// The store's or a handler's; nothing is left, except perhaps when the commit itself failed.
    pub(crate) async fn replay(&self, batch: &Batch<T>, row: &KeptDead, held: &Held) -> Result<Replayed, Failure> {
        let (mut tx, fence) = self.store.begin_fenced(held, held.next_offset, &self.pool).await?;
        if fence == Fence::Fenced {
            tx.rollback().await?;
            return Ok(Replayed::Fenced);
        }
        match self.replay_in(&mut *tx, batch, row).await {
            Ok(done @ (Replayed::Applied(_) | Replayed::Settled | Replayed::Rejected)) => {
                commit(tx, batch).await?;
                Ok(done)
            }
            Ok(undone @ (Replayed::Gone | Replayed::Fenced)) => {
                tx.rollback().await?;
                Ok(undone)
            }
            Err(failure) => {
                store::leave(tx, failure.error.fault).await;
                Err(failure)
            }
        }
    }

    async fn replay_in(&self, tx: &mut dyn Tx, batch: &Batch<T>, row: &KeptDead) -> Result<Replayed, Failure> {
        let plan = batch.plan(self.takes_repeats());
        if let Some(dead) = plan.dead.first()
            && self.live_among_dead(tx, &plan).await?.is_empty()
        {
            let rejected = Rejected {
                kind: dead.kind.clone(),
                event_id: dead.event_id.clone(),
                pipeline: dead.pipeline.clone(),
                reason: dead.reason,
                message: dead.message.clone(),
            };
            let kept = tx.rebury(&self.pool, row, &rejected).await?;
            if kept && row.holds_key {
                tx.stop_key(&self.pool, row).await?;
            }
            return Ok(if kept { Replayed::Rejected } else { Replayed::Gone });
        }
        if !tx.exhume(&self.pool, row).await? {
            return Ok(Replayed::Gone);
        }
        let fresh = self.apply(tx, batch, &plan.open).await?;
        if fresh.is_empty() {
            return Ok(Replayed::Settled);
        }
        let new: Vec<(&str, &str)> = fresh.iter().map(|at| batch.identity(*at)).collect();
        tx.unbury(&self.pool, &new).await?;
        tx.note_replayed(&self.pool, &new).await?;
        Ok(Replayed::Applied(self.counts(batch, &fresh, Vec::<Reason>::new())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::headers_as_json;

    #[test]
    fn a_dead_rows_record_is_the_one_that_was_set_aside() {
        let record = Record::new(7, b"{\xff").with_header("ce_id", b"x").with_header("raw", &[0xff, 0]);
        let row = KeptDead {
            kind: String::new(),
            event_id: "x".to_owned(),
            pipeline: "decode".to_owned(),
            reason: "malformed".to_owned(),
            message: String::new(),
            topic: "t".to_owned(),
            topic_id: uuid::Uuid::nil(),
            partition: 0,
            offset: 7,
            record_ms: Some(0),
            key: None,
            value: record.value.as_deref().map(<[u8]>::to_vec),
            headers: headers_as_json(&record.headers),
            attempts: 1,
            created_ms: 99,
            published_ms: None,
            holds_key: false,
            replay_ms: None,
        };
        assert_eq!(record_of(&row), record);
        assert_eq!(record_of(&KeptDead { record_ms: None, ..row }).timestamp_ms, 99);
    }
}
