//! The ledger's size. Every batch leaves an old version of a row behind, which the database removes on the way, unless
//! somebody's transaction stays open and may still want to see it: then the table grows, and only a person can end it.

use std::sync::atomic::Ordering;

use super::Shared;
use crate::event::Payload;

/// What a small ledger may take, and each of the group's rows beyond it: some tens of versions. The rest is bloat.
const BYTES_MIN: i64 = 1 << 20;
const ROW_BYTES_MAX: i64 = 4 << 10;

impl<T: Payload> Shared<T> {
    /// Shows the size; says once that it is too large, and once that it is not any more.
    pub(super) fn note_ledger_bytes(&self, bytes: i64, rows: usize) {
        self.metrics.set_ledger_bytes(bytes);
        let bytes_max = BYTES_MIN.max(ROW_BYTES_MAX.saturating_mul(i64::try_from(rows).unwrap_or(i64::MAX)));
        let is_large = bytes > bytes_max;
        if self.ledger_is_large.swap(is_large, Ordering::Relaxed) == is_large {
            return;
        }
        let pool = &*self.name;
        if is_large {
            tracing::warn!(
                pool,
                bytes,
                bytes_max,
                "weir_ledger grows: a transaction that stays open, such as a dump, keeps old versions of its rows; end it, \
                 and then run VACUUM FULL weir_ledger"
            );
        } else {
            tracing::info!(pool, bytes, "weir_ledger has its usual size again");
        }
    }
}
