//! Verdicts of moderation as they are kept: the truth of what may be read, and an outbox of what readers are told.

use async_trait::async_trait;
use uuid::Uuid;

use super::{IdKey, Result};

/// A verdict other than allow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredVerdict {
    /// The message's id.
    pub event_id: String,
    /// `flag` or `hide`.
    pub verdict: String,
    /// What it was reached by; nothing of the message.
    pub reason: String,
    /// The message's conversation.
    pub conversation: Option<String>,
    /// The id of the topic it came from.
    pub topic_id: Uuid,
    /// The partition it came from, whose owner tells of it.
    pub partition: i32,
    /// The record's key, which is the status event's too.
    pub key: Option<Vec<u8>>,
}

/// A verdict that the topic of status events does not have yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnpublishedVerdict {
    /// The pipeline that reached it.
    pub pipeline: String,
    /// What was kept.
    pub stored: StoredVerdict,
    /// When it was reached: milliseconds since 1970.
    pub decided_ms: i64,
}

/// The outbox of verdicts.
#[async_trait]
pub trait Verdicts: Send + Sync {
    /// Those of these partitions that are not published, the oldest first, at most `limit`.
    async fn unpublished_verdicts(
        &self,
        pool: &str,
        partitions: &[(Uuid, i32)],
        limit: i64,
    ) -> Result<Vec<UnpublishedVerdict>>;

    /// Notes that these were published, unless they have changed since they were read.
    async fn published_verdicts(&self, pool: &str, verdicts: &[UnpublishedVerdict]) -> Result<()>;
}

/// Verdicts inside the transaction of their messages' effects.
#[async_trait]
pub trait VerdictTx: Send {
    /// Keeps verdicts of different ids, in the order of the ids. One that was kept before is replaced, and published again.
    async fn keep_verdicts(&mut self, pool: &str, pipeline: &str, verdicts: &[StoredVerdict]) -> Result<()>;

    /// Sets the column `status` of the messages that a table has.
    async fn set_status(&mut self, messages: &IdKey, verdicts: &[StoredVerdict]) -> Result<()>;
}
