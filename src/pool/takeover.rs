//! Becoming a partition's owner: read the ledger, probe the group, claim. In this order, in the task.
//!
//! The probe is a synchronous offset commit of what the ledger says: the broker refuses whoever is not a member of
//! the present generation. The claim fails if the ledger has moved since it was read. So an old owner that slept
//! between its probe and its claim is refused by the new owner's claim, and one that slept before its probe by the
//! broker. A refused probe is no reason to give up: a partition kept through a rebalance gets no callback, so the
//! task tries again until it is accepted or told to stop, and a partition is never left without an owner.

use std::sync::Arc;

use uuid::Uuid;

use super::Shared;
use super::partition::{Halt, Task};
use crate::config::Start;
use crate::event::{Origin, Payload};
use crate::sabotage::{self, Bug};
use crate::source::TopicIdError;
use crate::store::{Claim, Claimant, Fault, Held, LedgerRow, Move, Place};

impl<T: Payload> Task<T> {
    /// Tries until the partition is claimed or the task is told to stop.
    pub(super) async fn take_over(&mut self) -> Result<Held, Halt> {
        if self.shared.letters.is_some() {
            return self.take_over_unstored().await;
        }
        loop {
            let origin = self.origin().await?;
            let place = Place { group: Arc::clone(&self.shared.group), origin };
            let row = self.shared.pipelines.store.ledger(&place).await;
            let Some(row) = self.unless_failed(row).await? else { continue };
            let Some(row) = row else {
                self.begin_ledger(&place).await?;
                continue;
            };
            let row = if sabotage::has(Bug::KafkaOverLedger) { self.moved_to_commit(&place, row).await? } else { row };
            if let Some(held) = self.claim(&place, row).await? {
                self.shared.metrics.claimed();
                return Ok(held);
            }
        }
    }

    /// The ledger after the deliberate bug that Kafka's commit overrules it.
    async fn moved_to_commit(&mut self, place: &Place, row: LedgerRow) -> Result<LedgerRow, Halt> {
        let asked = self.shared.source.client.start_offsets(&self.topic, &Start::Committed, Some(self.partition));
        let Ok(Some(offsets)) = self.unless_stopped(asked).await? else { return Ok(row) };
        let Some((_, to)) = offsets.into_iter().find(|(partition, _)| *partition == self.partition) else {
            return Ok(row);
        };
        let moves = [Move { place: place.clone(), to }];
        let moved = self.shared.pipelines.store.seek(&moves, "sabotage").await;
        let read = match self.unless_failed(moved).await? {
            Some(_) => self.shared.pipelines.store.ledger(place).await,
            None => return Ok(row),
        };
        Ok(self.unless_failed(read).await?.flatten().unwrap_or(row))
    }

    /// The partition with its topic's present id.
    pub(super) async fn origin(&mut self) -> Result<Arc<Origin>, Halt> {
        loop {
            let asked = self.shared.source.client.topic_id(&self.topic);
            match self.unless_stopped(asked).await? {
                Ok(topic_id) => {
                    self.first_met.get_or_insert(Some(topic_id));
                    let (topic, partition) = (Arc::clone(&self.topic), self.partition);
                    return Ok(Arc::new(Origin { topic, topic_id, partition }));
                }
                Err(TopicIdError::Missing(topic)) => {
                    self.first_met.get_or_insert(None);
                    self.wait_for(&format!("topic {topic} to exist")).await?;
                }
                Err(error) => self.wait_for(&error.to_string()).await?,
            }
        }
    }

    /// Whether the group takes this process for the partition's owner; if not, it has waited.
    pub(super) async fn is_confirmed(&mut self, origin: &Origin, next_offset: i64) -> Result<bool, Halt> {
        let Origin { topic, partition, .. } = origin;
        // The ledger may have gone back, and then no commit of before may follow the probe's.
        self.shared.source.watermarks.give_up(&[(topic.to_string(), *partition)]);
        if sabotage::has(Bug::NoCommitProbe) {
            return Ok(true);
        }
        let probe = self.shared.source.client.probe(topic, *partition, next_offset);
        if let Err(error) = self.unless_stopped(probe).await? {
            tracing::debug!(topic = &**topic, partition, %error, "the group does not confirm the assignment yet");
            self.wait_for("the group to confirm the assignment").await?;
            return Ok(false);
        }
        Ok(true)
    }

    async fn claim(&mut self, place: &Place, row: LedgerRow) -> Result<Option<Held>, Halt> {
        if !self.is_confirmed(&place.origin, row.next_offset).await? {
            return Ok(None);
        }
        let shared = Arc::clone(&self.shared);
        let names: Vec<&str> = shared.pipelines.names().map(|name| &**name).collect();
        let claimant = Claimant { pool: &shared.name, pipelines: &names };
        let claim = shared.pipelines.store.claim(place, row, claimant, Uuid::new_v4()).await;
        match self.unless_failed(claim).await? {
            None => {}
            Some(Claim::Taken(held)) => return Ok(Some(held)),
            Some(Claim::Moved) => self.wait_for("the ledger, which moved while it was claimed").await?,
            Some(Claim::Lacks(lacking)) => {
                let (pool, lacking) = (&*shared.name, lacking.join(", "));
                let why = format!(
                    "{lacking} has begun on this partition, and this worker lacks it: only workers that have it take the \
                     partition, so that nothing is missing. Once no worker has it any more, run `weir retire {pool} {lacking}`"
                );
                self.hold(&why).await?;
            }
            Some(Claim::Renamed(owner)) => {
                let (pool, group) = (&*shared.name, &*place.group);
                return Err(Halt::Fatal(format!(
                    "group {group} is pool {owner:?} by its ledger, and this configuration calls the pool {pool:?}: its dead \
                     rows and claimed ids go by that name. Keep the name, or give the new pool a group of its own"
                )));
            }
        }
        Ok(None)
    }

    /// The value of a store operation; on an error waits as its fault asks, and then there is none.
    pub(super) async fn unless_failed<V>(&mut self, result: crate::store::Result<V>) -> Result<Option<V>, Halt> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(error) => {
                let fault = match error.fault {
                    // Nothing of an event is involved here, so nothing can be set aside or made smaller.
                    Fault::Reject | Fault::TooSlow => Fault::Busy,
                    fault => fault,
                };
                self.after(fault, &error.to_string()).await?;
                Ok(None)
            }
        }
    }

    /// Gives a group its first place on a topic: all partitions at once by the pool's `start`, once per group and
    /// topic name. A partition added later, or of a topic made again, starts at its beginning.
    async fn begin_ledger(&mut self, place: &Place) -> Result<(), Halt> {
        let shared = Arc::clone(&self.shared);
        let _one_at_a_time = self.unless_stopped(shared.begin.lock()).await?;
        let row = self.shared.pipelines.store.ledger(place).await;
        if !matches!(self.unless_failed(row).await?, Some(None)) {
            return Ok(());
        }
        let known = self.shared.pipelines.store.knows_topic(&place.group, &self.topic).await;
        let Some(known) = self.unless_failed(known).await? else { return Ok(()) };
        if self.shared.config.has_patterns() && !known {
            return self.begin_with_patterns(place).await;
        }
        let start = if known { Start::Beginning } else { self.shared.config.start.clone() };
        let only = known.then_some(self.partition);
        let asked = self.shared.source.client.start_offsets(&self.topic, &start, only);
        let offsets = match self.unless_stopped(asked).await? {
            Ok(Some(offsets)) => offsets,
            Ok(None) => {
                let group = &place.group;
                return self
                    .hold(&format!(
                        "start is \"committed\" and group {group} has committed nothing on {}: set start to \"beginning\", \"end\" or a time",
                        self.topic
                    ))
                    .await;
            }
            Err(error) => return self.wait_for(&format!("the broker to tell the start offsets: {error}")).await,
        };
        let rows = rows_at(&place.group, &self.topic, (place.origin.topic_id, offsets));
        self.write_ledger(rows, known).await
    }

    async fn write_ledger(&mut self, rows: Vec<(Place, i64)>, added: bool) -> Result<(), Halt> {
        let begun = self.shared.pipelines.store.begin_ledger(&rows).await;
        if self.unless_failed(begun).await?.is_some() {
            tracing::info!(topic = &*self.topic, partitions = rows.len(), added, "the group begins on a topic");
        }
        Ok(())
    }

    /// A group that reads by patterns begins once, by the pool's `start` and everywhere at once: a topic that a pattern finds
    /// later is newer than the group's place elsewhere, or than this worker, and is read from its beginning, so that nothing
    /// is missed that came before it was found.
    async fn begin_with_patterns(&mut self, place: &Place) -> Result<(), Halt> {
        let shared = Arc::clone(&self.shared);
        let ledger = shared.pipelines.store.ledger_of_group(&place.group).await;
        let Some(ledger) = self.unless_failed(ledger).await? else { return Ok(()) };
        let topics = if ledger.is_empty() { shared.topics().to_vec() } else { vec![self.topic.to_string()] };
        let (mut rows, mut uncommitted) = (Vec::new(), Vec::new());
        for topic in topics {
            let is_newer = !ledger.is_empty() || !shared.first_topics.contains(&topic);
            let start = match is_newer && shared.config.finds(&topic) {
                true => &Start::Beginning,
                false => &shared.config.start,
            };
            match self.unless_stopped(shared.begins_at(&topic, start)).await? {
                Ok(Some(found)) => rows.extend(rows_at(&place.group, &topic, found)),
                Ok(None) => uncommitted.push(topic),
                Err(why) => return self.wait_for(&format!("the broker to tell the start offsets: {why}")).await,
            }
        }
        if rows.is_empty() && !uncommitted.is_empty() {
            return self
                .hold(&format!(
                    "start is \"committed\" and group {} has committed nothing on {}: set start to \"beginning\", \"end\" or a time",
                    place.group,
                    uncommitted.join(", ")
                ))
                .await;
        }
        // Of a group that is adopted, what it had not come to.
        for topic in uncommitted {
            match self.unless_stopped(shared.begins_at(&topic, &Start::Beginning)).await? {
                Ok(found) => rows.extend(found.map(|found| rows_at(&place.group, &topic, found)).unwrap_or_default()),
                Err(why) => return self.wait_for(&format!("the broker to tell the start offsets: {why}")).await,
            }
        }
        self.write_ledger(rows, !ledger.is_empty()).await
    }
}

impl<T: Payload> Shared<T> {
    /// A topic's id, and the offsets at which the group begins on it; of a topic that is named and not there, none. `None`:
    /// nothing was committed to adopt.
    async fn begins_at(&self, topic: &str, start: &Start) -> Result<Option<(Uuid, Vec<(i32, i64)>)>, String> {
        let client = &self.source.client;
        let topic_id = match client.topic_id(topic).await {
            Ok(topic_id) => topic_id,
            Err(TopicIdError::Missing(_)) => return Ok(Some((Uuid::nil(), Vec::new()))),
            Err(error) => return Err(error.to_string()),
        };
        let offsets = client.start_offsets(topic, start, None).await.map_err(|error| error.to_string())?;
        Ok(offsets.map(|offsets| (topic_id, offsets)))
    }
}

/// The group's rows of a topic, by the topic's id.
fn rows_at(group: &Arc<str>, topic: &str, (topic_id, offsets): (Uuid, Vec<(i32, i64)>)) -> Vec<(Place, i64)> {
    let topic: Arc<str> = Arc::from(topic);
    let row = |(partition, offset)| {
        let origin = Origin { topic: Arc::clone(&topic), topic_id, partition };
        (Place { group: Arc::clone(group), origin: Arc::new(origin) }, offset)
    };
    offsets.into_iter().map(row).collect()
}
