//! Under which names a pool's topics stand in its metrics. Patterns find any number of topics, and a scrape's size must have
//! a bound: of more than [`TOPICS_MAX`] those that the configuration names have series of their own, so many at most, and
//! all others have one together. Every worker of the pool comes to the same names.

use std::collections::HashSet;

use crate::config;
use crate::event::Payload;
use crate::metrics::TopicMetrics;
use crate::pool::Shared;

/// The most topics of a pool that have series of their own.
const TOPICS_MAX: usize = 100;

/// What all others are called; Kafka lets no topic be called so.
const OTHERS: &str = "(others)";

/// The names of a pool's topics in its metrics.
#[derive(Debug)]
pub(super) struct Names {
    /// Those that are themselves, however many are read.
    own: HashSet<String>,
}

impl Names {
    pub(super) fn new(config: &config::Pool) -> Self {
        Self { own: config.named_topics().take(TOPICS_MAX).cloned().collect() }
    }

    /// The name of a topic while the pool reads so many.
    pub(super) fn of<'a>(&self, topic: &'a str, topics_read: usize) -> &'a str {
        if topics_read <= TOPICS_MAX || self.own.contains(topic) { topic } else { OTHERS }
    }
}

impl<T: Payload> Shared<T> {
    /// The series of a topic, or those that it shares with others.
    pub(super) fn topic_metrics(&self, topic: &str) -> TopicMetrics {
        self.metrics.topic(self.told.of(topic, self.topics().len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(topics: impl IntoIterator<Item = impl Into<String>>) -> Names {
        Names::new(&config::Pool { topics: topics.into_iter().map(Into::into).collect(), ..config::Pool::default() })
    }

    #[test]
    fn topics_have_names_of_their_own_until_there_are_too_many_and_then_those_that_are_named() {
        let names = names(["orders", "^chat-"]);
        assert_eq!(names.of("chat-7", TOPICS_MAX), "chat-7");
        assert_eq!(names.of("chat-7", TOPICS_MAX + 1), OTHERS);
        assert_eq!(names.of("orders", 10_000), "orders");
    }

    #[test]
    fn of_those_that_are_named_only_so_many_have_names_of_their_own() {
        let all: Vec<String> = (0..2_000).map(|n| format!("t{n}")).collect();
        let names = names(all.clone());
        let told: HashSet<&str> = all.iter().map(|topic| names.of(topic, all.len())).collect();
        assert_eq!(told.len(), TOPICS_MAX + 1);
        assert!(told.contains(OTHERS) && told.contains("t0") && !told.contains("t100"));
    }
}
