//! Where a partition is read from: the ledger's offset.
//!
//! The fetcher begins at the group's offset in Kafka, while the ledger is still asked. Mostly they are the same, and what was
//! fetched meanwhile is what comes first; where they are not, the ledger's is sought.

use std::time::{Duration, Instant};

use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::ahead::{Next, Reading};
use super::partition::{Halt, Task};
use super::progress::Phase;
use crate::event::{Payload, Record};
use crate::source::Fetched;
use crate::store::Held;

/// How long a seek is tried before the fetcher is started anew.
const SEEK_PATIENCE: Duration = Duration::from_millis(500);
/// After how many sightings of a hole seeking is not believed any more, and the fetcher is started anew.
const SEEKS_MAX: u32 = 2;
/// The pause after a sighting. Holes are rare: only compaction and transactions make them.
const HOLE_PAUSE: Duration = Duration::from_millis(500);
/// How often a seek is tried while the partition's fetcher starts.
const SEEK_RETRY: Duration = Duration::from_millis(50);

/// Where the fetcher was when it said its first word.
enum Begun {
    /// At the ledger's offset or before it; from that one on, these are what it has fetched.
    There(Vec<Record>),
    /// At another, as after a crash.
    Elsewhere,
    /// Nowhere: the group has no offset in Kafka, or one outside the log.
    Nowhere,
}

impl<T: Payload> Task<T> {
    /// Waits for the fetcher's first word: sought before it has been told where it begins, it would go there afterwards. A pool
    /// that is paused takes nothing in hand.
    async fn begin_fetching(&mut self, held: &Held, reading: &mut Reading<T>) -> Result<Begun, Halt> {
        self.await_resumed().await?;
        self.progress.enter(Phase::Polling);
        let first = self.next(reading).await?;
        self.has_begun_fetching = true;
        match first {
            Next::Fetched(Fetched::Records(records)) => {
                let records = unsettled(records, held.next_offset);
                let is_there = records.first().is_some_and(|record| record.offset == held.next_offset);
                Ok(if is_there { Begun::There(records) } else { Begun::Elsewhere })
            }
            // At the log's end or, if that has moved meanwhile, before it.
            Next::Fetched(Fetched::End) if self.log_end() == Some(held.next_offset) => {
                self.caught_up()?;
                Ok(Begun::There(Vec::new()))
            }
            Next::Fetched(Fetched::End) | Next::Decoded(_) => Ok(Begun::Elsewhere),
            Next::Fetched(Fetched::Error(error)) if is_position(&error) => Ok(Begun::Nowhere),
            Next::Fetched(Fetched::Error(error)) => {
                self.recover(&error, held).await?;
                Err(Halt::Retake)
            }
        }
    }

    /// Brings the fetch position to the ledger's. The first record may lie above it only where the log has a hole. What
    /// was fetched before a seek looks the same: so a hole is believed only when it is still there after a second seek and
    /// after the fetcher was started anew.
    pub(super) async fn start_at(&mut self, held: &Held, reading: &mut Reading<T>) -> Result<Vec<Record>, Halt> {
        // Of a topic that was made again meanwhile the same offsets are other records.
        let is_same_topic = self.first_met == Some(Some(held.place.origin.topic_id));
        let begun = match self.has_begun_fetching {
            true => Begun::Elsewhere,
            false => match self.begin_fetching(held, reading).await? {
                Begun::There(_) if !is_same_topic => Begun::Elsewhere,
                begun => begun,
            },
        };
        let mut is_stopped = match begun {
            Begun::There(records) => return Ok(records),
            Begun::Elsewhere => false,
            Begun::Nowhere => true,
        };
        // What was fetched is not needed, so whoever has records goes first.
        self.place = None;
        let (mut hole_at, mut sightings) = (None, 0);
        loop {
            if sightings < SEEKS_MAX && !is_stopped {
                self.seek(held).await?;
            } else {
                self.restart(held).await?;
            }
            is_stopped = false;
            *reading = Reading::default();
            loop {
                self.progress.enter(Phase::Polling);
                match self.next_or_replay(reading, held).await? {
                    Next::Fetched(Fetched::End) => self.caught_up()?,
                    Next::Fetched(Fetched::Error(error)) => {
                        self.recover(&error, held).await?;
                        break;
                    }
                    Next::Decoded(_) => return Err(Halt::Retake),
                    Next::Fetched(Fetched::Records(records)) => {
                        let records = unsettled(records, held.next_offset);
                        let Some(offset) = records.first().map(|record| record.offset) else { continue };
                        if offset == held.next_offset {
                            return Ok(records);
                        }
                        sightings = if hole_at == Some(offset) { sightings + 1 } else { 1 };
                        hole_at = Some(offset);
                        let (place, from) = (&held.place, held.next_offset);
                        if sightings > SEEKS_MAX {
                            tracing::warn!(%place, from, to = offset, "the log has no records between these offsets");
                            return Ok(records);
                        }
                        tracing::debug!(%place, from, to = offset, sightings, "records are missing; fetching again");
                        // Answers to what was asked before arrive in the meantime, not after the next seek.
                        self.sleep(HOLE_PAUSE).await?;
                        break;
                    }
                }
            }
        }
    }

    /// Starts the partition's fetcher anew at the ledger's offset.
    async fn restart(&mut self, held: &Held) -> Result<(), Halt> {
        let restarted = self.shared.source.client.restart(&self.topic, self.partition, held.next_offset).await;
        match restarted {
            Ok(()) => Ok(()),
            Err(error) => {
                self.wait_for(&format!("the partition to be fetched: {error}")).await?;
                Err(Halt::Retake)
            }
        }
    }

    async fn seek(&mut self, held: &Held) -> Result<(), Halt> {
        let begun = Instant::now();
        loop {
            let seek = self.shared.source.client.seek(&self.topic, self.partition, held.next_offset);
            match self.unless_stopped(seek).await? {
                Ok(()) => return Ok(()),
                Err(_) if begun.elapsed() < SEEK_PATIENCE => self.sleep(SEEK_RETRY).await?,
                Err(error) => {
                    tracing::debug!(topic = &*self.topic, partition = self.partition, %error, "cannot seek; fetching anew");
                    return self.restart(held).await;
                }
            }
        }
    }
}

/// Whether it says that there is no position, or none in the log.
pub(super) fn is_position(error: &KafkaError) -> bool {
    let code = error.rdkafka_error_code();
    matches!(code, Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange))
}

/// The records from an offset on; what lies below is settled.
pub(super) fn unsettled(mut records: Vec<Record>, next_offset: i64) -> Vec<Record> {
    let settled = records.partition_point(|record| record.offset < next_offset);
    records.drain(..settled);
    records
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_below_the_ledger_is_settled() {
        let records: Vec<Record> = [3, 4, 7, 8].map(|offset| Record::new(offset, "{}")).into();
        let offsets = |next| unsettled(records.clone(), next).iter().map(|record| record.offset).collect::<Vec<_>>();
        assert_eq!(offsets(0), [3, 4, 7, 8]);
        assert_eq!(offsets(5), [7, 8]);
        assert!(offsets(9).is_empty());
    }
}
