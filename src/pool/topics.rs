//! The ids of the pool's topics. A topic made again under its old name is another topic.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::Shared;
use super::tasks::Tasks;
use crate::event::Payload;

/// How often a missing topic is asked for. The answer also makes librdkafka subscribe to it at once.
const ASK_AGAIN: Duration = Duration::from_secs(2);

/// Waits until every topic is there that was not there at the start.
pub(super) async fn await_missing<T: Payload>(shared: Arc<Shared<T>>, stop: CancellationToken) {
    while let Some(topic) = shared.missing_topic() {
        if shared.source.client.partitions(&topic).await.is_ok_and(|partitions| partitions > 0) {
            tracing::info!(pool = &*shared.name, topic, "the topic is there now");
            shared.missing.lock().unwrap_or_else(PoisonError::into_inner).retain(|name| *name != topic);
            continue;
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(ASK_AGAIN) => {}
        }
    }
}

impl<T: Payload> Shared<T> {
    /// A topic that is waited for.
    pub(super) fn missing_topic(&self) -> Option<String> {
        self.missing.lock().unwrap_or_else(PoisonError::into_inner).first().cloned()
    }
}

impl<T: Payload> Tasks<T> {
    /// Makes the tasks of topics that were made again claim and fetch anew. Asks in the background: the pool's loop
    /// must not wait for a broker.
    pub(super) fn check_topic_ids(&self) {
        for topic in &self.shared.config.topics {
            let of_topic = self.running.iter().filter(|((name, _), _)| name == topic);
            let tasks: Vec<_> =
                of_topic.map(|(_, task)| (Arc::clone(&task.progress), Arc::clone(&task.nudge))).collect();
            if tasks.is_empty() {
                continue;
            }
            let (shared, topic) = (Arc::clone(&self.shared), topic.clone());
            tokio::spawn(async move {
                // A topic that is gone or a broker that is away is told by the tasks' own errors.
                let Ok(id) = shared.source.client.topic_id(&topic).await else { return };
                for (progress, nudge) in tasks {
                    if progress.lock().owned.is_some_and(|owned| owned != id) {
                        tracing::warn!(topic, %id, "the topic was made again; reading the new one from its beginning");
                        nudge.notify_one();
                    }
                }
            });
        }
    }
}
