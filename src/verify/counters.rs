//! Counters, recounted from the events that have their effect.

use std::collections::{HashMap, HashSet};

use super::events::{Counter, Digest, digest};
use super::log::Place;

/// What the counters should be.
#[derive(Debug, Default)]
pub(super) struct Recount {
    tallies: HashMap<Digest, Tally>,
    /// Counters that events of disagreeing duplicates touch: which of them counted cannot be told.
    excluded: HashSet<Digest>,
    /// Users by minute, for `active_users`.
    active: HashSet<Digest>,
}

#[derive(Clone, Copy, Debug)]
struct Tally {
    count: i64,
    /// An event that it counts, to name the counter by.
    place: Place,
}

/// A counter that differs.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    pub(super) counter: Named,
    pub(super) expected: i64,
    pub(super) found: i64,
}

/// A counter, or an event that it would have counted.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Named {
    Counter(Counter),
    /// The digest of a counter that the database does not have, and an event that adds to it.
    ByEvent(Digest, Place),
}

impl Recount {
    /// Counts an event once.
    pub(super) fn add(&mut self, counters: &[Counter], place: Place) {
        for counter in counters {
            let key = match summed(counter) {
                None => counter.digest(),
                Some(sum) => match self.active.insert(user_minute(counter)) {
                    true => sum.digest(),
                    false => continue,
                },
            };
            self.tallies.entry(key).or_insert(Tally { count: 0, place }).count += 1;
        }
    }

    /// Leaves the counters of an event out of the comparison.
    pub(super) fn exclude(&mut self, counters: &[Counter]) {
        for counter in counters {
            self.excluded.insert(summed(counter).as_ref().unwrap_or(counter).digest());
        }
    }

    /// Compares a counter of the database. `may_exceed`: it may also count events that Kafka has no more.
    pub(super) fn compare(&mut self, counter: Counter, found: i64, may_exceed: bool) -> Option<Wrong> {
        let key = counter.digest();
        let expected = self.tallies.remove(&key).map_or(0, |tally| tally.count);
        let is_right = found == expected || (may_exceed && found > expected) || self.excluded.contains(&key);
        (!is_right).then_some(Wrong { counter: Named::Counter(counter), expected, found })
    }

    /// The counters that the database lacks, when all that it has were compared.
    pub(super) fn missing(&self) -> impl Iterator<Item = Wrong> {
        let missing = self.tallies.iter().filter(|(key, _)| !self.excluded.contains(*key));
        missing.map(|(key, tally)| Wrong {
            counter: Named::ByEvent(*key, tally.place),
            expected: tally.count,
            found: 0,
        })
    }

    pub(super) fn excluded(&self) -> usize {
        self.excluded.len()
    }
}

/// Of an event's counters the one with this digest.
pub(super) fn named(counters: &[Counter], key: Digest) -> Option<Counter> {
    let in_view = counters.iter().map(|counter| summed(counter).unwrap_or_else(|| counter.clone()));
    in_view.into_iter().find(|counter| counter.digest() == key)
}

/// The view has one number a minute for `active_users`, without a member.
fn summed(counter: &Counter) -> Option<Counter> {
    (counter.dimension == "active_users").then(|| Counter { member: String::new(), ..counter.clone() })
}

fn user_minute(counter: &Counter) -> Digest {
    digest(&[&counter.minute.to_string(), &counter.member])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counter(dimension: &str, member: &str) -> Counter {
        Counter { minute: 7, dimension: dimension.to_owned(), member: member.to_owned() }
    }

    fn recount() -> Recount {
        let mut recount = Recount::default();
        for (user, offset) in [("a", 0), ("b", 1), ("a", 2)] {
            recount.add(&[counter("type", "new"), counter("active_users", user)], Place::new(0, offset));
        }
        recount
    }

    #[test]
    fn events_are_counted_and_users_once_a_minute() {
        let mut recount = recount();
        assert_eq!(recount.compare(counter("type", "new"), 3, false), None);
        assert_eq!(recount.compare(counter("active_users", ""), 2, false), None);
        assert_eq!(recount.missing().count(), 0);
    }

    #[test]
    fn too_many_too_few_unknown_and_missing_ones_are_wrong() {
        let mut recount = recount();
        assert_eq!(recount.compare(counter("type", "new"), 4, false).map(|wrong| wrong.expected), Some(3));
        assert_eq!(recount.compare(counter("type", "other"), 1, false).map(|wrong| wrong.expected), Some(0));
        let missing: Vec<Wrong> = recount.missing().collect();
        assert_eq!((missing.len(), missing[0].expected, missing[0].found), (1, 2, 0));
        let Named::ByEvent(key, _) = missing[0].counter else { panic!("{missing:?}") };
        assert_eq!(
            named(&[counter("type", "new"), counter("active_users", "a")], key),
            Some(counter("active_users", ""))
        );
    }

    #[test]
    fn what_cannot_be_told_is_not_wrong() {
        let mut recount = recount();
        recount.exclude(&[counter("active_users", "c")]);
        assert_eq!(recount.compare(counter("active_users", ""), 9, false), None);
        assert_eq!(recount.compare(counter("type", "new"), 4, true), None);
        assert!(recount.compare(counter("type", "new"), -1, true).is_some());
    }
}
