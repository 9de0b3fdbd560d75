//! The pool's topics: which there are, by name or by pattern, and their ids. A topic made again under its old name is another
//! topic.
//!
//! weir matches the patterns itself and subscribes by name: the same expression means the same to workers of both group
//! protocols, and to the commands that look at a pool from outside.

use std::collections::HashSet;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::Shared;
use super::tasks::Tasks;
use crate::config;
use crate::dead_letter::{make_topics, mirror_topic, producer_settings};
use crate::event::Payload;
use crate::kafka::{Probe, Unanswered};

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

/// A pool's topics, and how many partitions each has; none for one that it names and that is not there. Blocks.
pub(super) fn find(probe: &Probe, pool: &config::Pool) -> Result<Vec<(String, usize)>, Unanswered> {
    let existing = if pool.has_patterns() { probe.topic_names()? } else { Vec::new() };
    let topics = pool.topics_among(&existing);
    let counts = probe.partitions(&topics)?;
    Ok(topics.into_iter().zip(counts).collect())
}

/// Looks for topics that match the pool's patterns, and reads them from then on, for as long as they are there.
pub(super) async fn follow<T: Payload>(shared: Arc<Shared<T>>, kafka: config::Kafka, stop: CancellationToken) {
    if !shared.config.has_patterns() {
        return;
    }
    let (pool, patterns) = (Arc::clone(&shared.name), shared.config.patterns());
    if shared.topics().is_empty() {
        tracing::warn!(pool = &*pool, patterns, "no topic matches; waiting for one to be made");
    }
    // A broker that has just come back may not know all of them yet: who is missing once is waited for.
    let mut absent = HashSet::new();
    // The topics of dead letters that are still to be made.
    let mut letters: HashSet<String> = HashSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(Duration::from_millis(kafka.metadata_refresh_ms)) => {}
        }
        let asked = tokio::select! {
            () = stop.cancelled() => return,
            asked = shared.source.client.topic_names() => asked,
        };
        // Brokers that do not answer are told by the tasks.
        let Ok(existing) = asked else { continue };
        let before = shared.topics();
        let (after, missing) = followed(&before, shared.config.topics_among(&existing), &absent);
        absent = missing;
        let added: Vec<String> = after.iter().filter(|topic| !before.contains(topic)).cloned().collect();
        let gone: Vec<&String> = before.iter().filter(|topic| !after.contains(topic)).collect();
        if !letters.is_empty() && make_letters(&kafka, &letters, &stop).await.is_ok() {
            letters.clear();
        }
        // A subscription to nothing would leave the group.
        if (added.is_empty() && gone.is_empty()) || after.is_empty() {
            continue;
        }
        if let Err(error) = shared.source.client.subscribe(&after).await {
            tracing::warn!(pool = &*pool, %error, "the topics that match have changed, and cannot be subscribed to yet");
            continue;
        }
        *shared.topics.lock().unwrap_or_else(PoisonError::into_inner) = after.clone().into();
        for topic in gone {
            tracing::info!(pool = &*pool, topic, "a topic that matched is gone");
        }
        for topic in &added {
            tracing::info!(pool = &*pool, topic, "a topic that matches is read from now on");
        }
        letters.extend(added.iter().map(|topic| mirror_topic(topic, &pool)));
        match make_letters(&kafka, &letters, &stop).await {
            Ok(()) => letters.clear(),
            // It is tried again, and not said again.
            Err(why) => tracing::warn!(pool = &*pool, why, "the topics of dead letters could not be made"),
        }
    }
}

async fn make_letters(
    kafka: &config::Kafka,
    letters: &HashSet<String>,
    stop: &CancellationToken,
) -> Result<(), String> {
    let client = producer_settings(kafka);
    tokio::select! {
        () = stop.cancelled() => Ok(()),
        made = make_topics(&client, letters.clone()) => made,
    }
}

/// What is read from now on, and what of it was not there: what was not there the last time either is read no more.
fn followed(before: &[String], found: Vec<String>, absent: &HashSet<String>) -> (Vec<String>, HashSet<String>) {
    let missing: HashSet<String> = before.iter().filter(|topic| !found.contains(topic)).cloned().collect();
    let mut after = found;
    after.extend(before.iter().filter(|topic| missing.contains(*topic) && !absent.contains(*topic)).cloned());
    (after, missing)
}

impl<T: Payload> Shared<T> {
    /// The topics that the pool reads now.
    pub(super) fn topics(&self) -> Arc<[String]> {
        Arc::clone(&self.topics.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The topic that is waited for, in words.
    pub(super) fn waits_for(&self) -> Option<String> {
        if self.topics().is_empty() {
            return Some(format!("a topic that matches {}", self.config.patterns()));
        }
        Some(format!("the topic {:?}, which does not exist", self.missing_topic()?))
    }

    /// A topic that is waited for.
    pub(super) fn missing_topic(&self) -> Option<String> {
        self.missing.lock().unwrap_or_else(PoisonError::into_inner).first().cloned()
    }
}

impl<T: Payload> Tasks<T> {
    /// Makes the tasks of topics that were made again claim and fetch anew. Asks in the background: the pool's loop
    /// must not wait for a broker.
    pub(super) fn check_topic_ids(&self) {
        for topic in self.shared.topics().iter() {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_appears_is_read_at_once_and_what_is_missing_twice_no_more() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<String>>();
        let (after, absent) = followed(&names(&["a", "b"]), names(&["a", "c"]), &HashSet::new());
        assert_eq!(after, ["a", "c", "b"]);
        let (after, absent) = followed(&after, names(&["a", "c"]), &absent);
        assert_eq!(after, ["a", "c"]);
        let (after, absent) = followed(&after, names(&["a", "b", "c"]), &absent);
        assert_eq!((after, absent.len()), (names(&["a", "b", "c"]), 0));
    }
}
