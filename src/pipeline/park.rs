//! Parking: after an event of a key is rejected, later events of the key on its partition follow it into the dead rows, in
//! order, until the key is released.
//!
//! Promised: of a key no event takes effect before an earlier one that is a dead row. Which keys are held back is in the
//! database; what a batch brings is decided in its own transaction. A record without a key holds nothing back.

use std::collections::HashMap;
use std::sync::Arc;

use super::batch::Plan;
use super::{Batch, Pipelines};
use crate::event::Payload;
use crate::handler::Rejection;
use crate::store::{self, DeadRow, Reason, Tx};

/// Under which name events wait that no pipeline has rejected.
const PARK: &str = "park";

/// The keys that are held back on a partition, and how many rows each has.
pub(crate) type ParkedKeys = HashMap<Vec<u8>, i64>;

fn behind() -> (Arc<str>, Rejection) {
    let message = "an earlier event of its key was rejected; it goes on, in order, by `weir dead release`".to_owned();
    (Arc::from(PARK), Rejection { reason: Reason::Parked, message })
}

impl<T: Payload> Batch<T> {
    /// Sets the events aside whose key is held back.
    pub(crate) fn park(&mut self, keys: &ParkedKeys) {
        self.keys_held = keys.len();
        for entry in &mut self.entries {
            let rows = entry.event.record.key.as_deref().and_then(|key| keys.get_key_value(key));
            if let Some((key, rows)) = rows.filter(|_| entry.wanted != 0) {
                entry.rejected.get_or_insert_with(behind);
                self.parked_keys.insert(key.clone(), *rows);
            }
        }
    }

    /// Sets these entries aside as well.
    pub(super) fn park_entries(&mut self, entries: &[usize]) {
        for at in entries {
            self.entries[*at].rejected.get_or_insert_with(behind);
        }
    }
}

impl<T: Payload> Pipelines<T> {
    /// The open entries that come behind a rejected one of their key. A bad copy of a live event is a duplicate, and holds
    /// nothing back.
    pub(super) async fn followers(
        &self,
        tx: &mut dyn Tx,
        batch: &Batch<T>,
        plan: &Plan,
    ) -> Result<Vec<usize>, store::Error> {
        if self.park_limit.is_none() || plan.dead.is_empty() || plan.open.is_empty() {
            return Ok(Vec::new());
        }
        let live = self.live_among_dead(tx, plan).await?;
        let mut heads: HashMap<&[u8], i64> = HashMap::new();
        for row in &plan.dead {
            if let Some(key) = row.key.as_deref()
                && !live.contains(&(row.kind.clone(), row.event_id.clone()))
            {
                let head = heads.entry(key).or_insert(row.offset);
                *head = row.offset.min(*head);
            }
        }
        let follows = |at: &usize| {
            let record = &batch.entries[*at].event.record;
            record.key.as_deref().and_then(|key| heads.get(key)).is_some_and(|head| record.offset > *head)
        };
        Ok(plan.open.iter().copied().filter(follows).collect())
    }

    /// Says which rows hold their key back, and why the batch must wait where a key has too many.
    pub(super) fn hold_keys(&self, batch: &Batch<T>, rows: &mut [DeadRow]) -> Option<String> {
        let limit = self.park_limit?;
        let mut counts: HashMap<&[u8], i64> = HashMap::new();
        let mut is_full = false;
        for row in rows.iter_mut() {
            row.holds_key = row.key.is_some();
            if let Some(key) = row.key.as_deref() {
                let before = batch.parked_keys.get(key).copied().unwrap_or(0);
                let rows = counts.entry(key).or_insert(before);
                *rows += 1;
                // A rejected event is set aside all the same: the first of a key must be.
                is_full |= row.reason == Reason::Parked && usize::try_from(*rows).is_ok_and(|rows| rows > limit);
            }
        }
        let added = counts.keys().filter(|key| !batch.parked_keys.contains_key(**key)).count();
        let what = match () {
            () if is_full => {
                format!("a key of {} has park_limit = {limit} events waiting behind a rejected one", batch.origin)
            }
            () if added > 0 && batch.keys_held + added > limit => {
                format!("{} has park_limit = {limit} keys held back, each behind a rejected event", batch.origin)
            }
            () => return None,
        };
        let pool = &self.pool;
        Some(format!(
            "{what}: mend what they were rejected for and release keys (`weir dead list {pool} --reason parked`, `weir dead \
             release KEY --pool {pool}`), or raise park_limit"
        ))
    }
}
