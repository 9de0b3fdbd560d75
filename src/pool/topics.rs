//! The ids of the pool's topics. A topic made again under its old name is another topic.

use std::sync::Arc;

use super::tasks::Tasks;
use crate::event::Payload;

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
                let Ok(id) = shared.source.topic_id(&topic).await else { return };
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
