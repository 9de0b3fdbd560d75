//! What of a batch was delivered already: a batch that failed in the middle is tried again, and what went out stays out.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use uuid::Uuid;

use crate::event::Event;

/// The offsets delivered of each partition's batch: bounded, since a partition has one batch at a time.
#[derive(Debug, Default)]
pub(super) struct Delivered(Mutex<HashMap<(Uuid, i32), HashSet<i64>>>);

impl Delivered {
    /// A batch begins or is tried again; what lies before it is settled.
    pub(super) fn begin<T>(&self, events: &[&Event<T>]) {
        let Some(first) = events.first() else { return };
        if let Some(offsets) = self.lock().get_mut(&place(first)) {
            offsets.retain(|offset| *offset >= first.record.offset);
        }
    }

    pub(super) fn has<T>(&self, event: &Event<T>) -> bool {
        self.lock().get(&place(event)).is_some_and(|offsets| offsets.contains(&event.record.offset))
    }

    pub(super) fn note<T>(&self, event: &Event<T>) {
        self.lock().entry(place(event)).or_default().insert(event.record.offset);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(Uuid, i32), HashSet<i64>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn place<T>(event: &Event<T>) -> (Uuid, i32) {
    (event.origin.topic_id, event.origin.partition)
}
