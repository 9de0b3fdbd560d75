//! The ids of the pool's topics. A topic made again under its old name is another topic.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use rdkafka::consumer::Consumer as _;
use uuid::Uuid;

use crate::source::{REQUEST_TIMEOUT, SourceHandle, TopicIdError, topic_id};

/// Ids as last told by a broker.
#[derive(Debug, Default)]
pub(super) struct Topics(Mutex<HashMap<String, Uuid>>);

impl Topics {
    /// Asks a broker for a topic's id and remembers it.
    pub(super) async fn ask(&self, source: &SourceHandle, topic: &str) -> Result<Uuid, TopicIdError> {
        let consumer = std::sync::Arc::clone(source.consumer());
        let name = topic.to_owned();
        let asked = tokio::task::spawn_blocking(move || topic_id(consumer.client(), &name, REQUEST_TIMEOUT)).await;
        let id = asked.unwrap_or_else(|_| {
            Err(TopicIdError::Unanswered { topic: topic.to_owned(), message: "the process is ending".to_owned() })
        })?;
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(topic.to_owned(), id);
        Ok(id)
    }

    /// The id as last told.
    pub(super) fn known(&self, topic: &str) -> Option<Uuid> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(topic).copied()
    }
}
