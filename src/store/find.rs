//! What the database has of one event.

use async_trait::async_trait;

use super::{IdKey, Result};

/// Looks for one event.
#[async_trait]
pub trait Finds: Send + Sync {
    /// A table's row of an id, as JSON text.
    async fn row_of(&self, key: &IdKey, id: &str) -> Result<Option<String>>;

    /// The types under which weir's own table holds an id, and since when, in milliseconds since 1970.
    async fn seen_of(&self, pool: &str, id: &str) -> Result<Vec<(String, i64)>>;

    /// What a pool's moderation keeps of an id, by pipeline.
    async fn verdicts_of(&self, pool: &str, id: &str) -> Result<Vec<FoundVerdict>>;
}

/// A verdict other than allow, as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundVerdict {
    /// The pipeline that reached it.
    pub pipeline: String,
    /// `flag` or `hide`.
    pub verdict: String,
    /// What it was reached by.
    pub reason: String,
    /// When: milliseconds since 1970.
    pub decided_ms: i64,
    /// Whether readers were told by a status event.
    pub is_published: bool,
}

/// A verdict's columns, in their order.
pub(super) type VerdictColumns = (String, String, String, i64, bool);

impl From<VerdictColumns> for FoundVerdict {
    fn from((pipeline, verdict, reason, decided_ms, is_published): VerdictColumns) -> Self {
        Self { pipeline, verdict, reason, decided_ms, is_published }
    }
}
