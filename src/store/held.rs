//! The right to write a partition's effects.

#[cfg(feature = "postgres")]
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use uuid::Uuid;

use super::Place;
#[cfg(feature = "postgres")]
use super::postgres::LastSeen;

/// The right to write a partition's effects, as its owner holds it.
#[derive(Debug, Clone)]
pub struct Held {
    /// The partition.
    pub place: Place,
    /// The owner's token, new with every claim.
    pub token: Uuid,
    /// The first offset that is not settled.
    pub next_offset: i64,
    /// Where the store found the ledger's row last.
    pub row: RowHint,
}

impl Held {
    /// As a claim gives it.
    pub fn new(place: Place, token: Uuid, next_offset: i64) -> Self {
        Self { place, token, next_offset, row: RowHint::default() }
    }
}

/// Where a row was last, in the store's own terms. A hint: what stands in the row decides, wherever it was found. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct RowHint {
    #[cfg(feature = "postgres")]
    last_seen: Arc<Mutex<LastSeen>>,
}

#[cfg(feature = "postgres")]
impl RowHint {
    pub(super) fn last_seen(&self) -> MutexGuard<'_, LastSeen> {
        self.last_seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
