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
}
