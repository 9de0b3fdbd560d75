//! Deliberate moves of the ledger.

use async_trait::async_trait;

use super::{Place, Result};

/// One partition's move.
#[derive(Debug, Clone)]
pub struct Move {
    /// Whose place, where.
    pub place: Place,
    /// The offset that is handled next.
    pub to: i64,
}

/// What moves a ledger on purpose.
#[async_trait]
pub trait Seeks: Send + Sync {
    /// Moves ledger rows, all or none, and keeps in `weir_seeks` that it was done. Whoever owns a partition is fenced by
    /// it and takes over again at the new place. Says where each stood; `None` and nothing is moved when a row is not there.
    async fn seek(&self, moves: &[Move], moved_by: &str) -> Result<Option<Vec<i64>>>;
}
