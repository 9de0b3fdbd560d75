//! One event: where the database has it, and what its records say, taken in one after the other, however many there are.

use super::Error;
use super::events::Digest;
use super::identity::Rows;
use super::ids::{Entries, Entry, Found, Occurrence};
use super::log::Place;
use super::moment::Moment;

/// Whether an event was counted.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Counted {
    Yes,
    No,
    /// Some of its records lie before the counting pipeline's begin, and some after it.
    Unknown,
}

/// What is known of one event.
#[derive(Debug)]
pub(super) struct Story {
    pub(super) id: Digest,
    pub(super) found: Found,
    /// When its row took effect, in microseconds since 1970.
    pub(super) effect_us: Option<i64>,
    pub(super) first: Occurrence,
    pub(super) records: u64,
    /// Records disagree in what they add to counters.
    pub(super) is_ambiguous: bool,
    /// The first record that lies where the pool handled events.
    pub(super) handled: Option<Occurrence>,
    /// The pool had come past a record, or past one where it had begun.
    pub(super) is_passed: bool,
    pub(super) is_begun: bool,
    /// Everything is there that one of the handled records needs. Which was handled first is not on record.
    is_met: bool,
    is_after: bool,
    is_before: bool,
}

impl Story {
    fn new(id: Digest, found: Found, effect_us: Option<i64>, first: Occurrence) -> Self {
        Self {
            id,
            found,
            effect_us,
            first,
            records: 0,
            is_ambiguous: false,
            handled: None,
            is_passed: false,
            is_begun: false,
            is_met: false,
            is_after: false,
            is_before: false,
        }
    }

    fn add(&mut self, record: Occurrence, moment: &Moment) {
        self.records += 1;
        self.is_ambiguous |= record.facts != self.first.facts;
        self.is_passed |= moment.has_passed(record.place);
        self.is_begun |= moment.has_begun(record.place);
        if moment.is_handled(record.place) {
            self.handled.get_or_insert(record);
            self.is_met |= self.found.contains(moment.required(record.place));
        }
        match moment.counts(record.place) {
            true => self.is_after = true,
            false => self.is_before = true,
        }
    }

    /// Whether everything is there that the event needs.
    pub(super) fn is_whole(&self, moment: &Moment) -> bool {
        match self.handled {
            None => self.found.contains(moment.all()),
            Some(_) => self.found.has_effect() && self.is_met,
        }
    }

    pub(super) fn is_counted(&self) -> Counted {
        match (self.is_before, self.is_after) {
            (false, _) => Counted::Yes,
            (true, false) => Counted::No,
            (true, true) => Counted::Unknown,
        }
    }
}

/// What comes of a digest's entries.
#[derive(Debug)]
pub(super) enum Told {
    Story(Story),
    /// No event has this digest: the database has it alone, records have it in their header, or they are copies without a type.
    NoEvent,
}

/// Tells the events one after the other.
pub(super) struct Stories<'a> {
    entries: Entries<'a>,
    /// What the rows of the present id say.
    rows: Rows,
}

impl<'a> Stories<'a> {
    pub(super) fn of(entries: Entries<'a>) -> Self {
        Self { entries, rows: Rows::default() }
    }

    /// Takes in the entries of the next event. `alias` is shown the places of records that a dead row of its id may stand for.
    pub(super) fn next(
        &mut self,
        moment: &Moment,
        mut alias: impl FnMut(Place) -> Result<(), Error>,
    ) -> Result<Option<Told>, Error> {
        let Self { entries, rows } = self;
        let Some(id) = entries.id() else { return Ok(None) };
        rows.turn_to(id);
        let (mut own, mut effect_us, mut story) = (Found::default(), None, None);
        while let Some(entry) = entries.of(id)? {
            match entry {
                Entry::Found(there, since_us) => {
                    own = own.with(there);
                    effect_us = effect_us.or(since_us);
                }
                Entry::Record(record) => {
                    let begun = || Story::new(id, rows.found(own), effect_us, record);
                    story.get_or_insert_with(begun).add(record, moment);
                }
                Entry::Alias(place) if own.is_dead() => alias(place)?,
                Entry::Alias(_) => {}
            }
        }
        let Some(mut story) = story.filter(|_| !rows.are_copies()) else {
            rows.keep(own);
            return Ok(Some(Told::NoEvent));
        };
        story.found = story.found.with(rows.left_over(entries.id()));
        Ok(Some(Told::Story(story)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::database::{Begins, Ledger};
    use super::super::identity::{Identity, Kind};
    use super::super::ids::Ids;
    use super::super::log::Partition;
    use super::super::spill::Disk;
    use super::*;
    use crate::config::Pool;

    const SEEN: bool = true;
    const DEAD: bool = false;

    /// What is told of the events of one id in a pool without a table, by the types of its records and of its rows.
    fn told<'a>(records: &[&'a str], rows: &[(&str, bool)]) -> Vec<(&'a str, &'static str)> {
        let (mut identity, mut ids) = (Identity::of(&[]), Ids::new(&Disk::tiny()));
        for (offset, kind) in (0..).zip(records) {
            let record = Occurrence { place: Place::new(0, offset), facts: 0, record_ms: 0, key: None };
            ids.note(identity.of_record(Kind::of(kind), "x"), Entry::Record(record)).unwrap();
        }
        identity.of_record(Kind::of("b"), "another event's");
        for (kind, is_seen) in rows {
            let found = if *is_seen { Found::table(0) } else { Found::DEAD };
            ids.note(identity.of_row(kind, "x"), Entry::Found(found, None)).unwrap();
        }
        let topic_id = uuid::Uuid::nil();
        let partition = Partition { topic: "t".to_owned(), topic_id, number: 0, low: 0, from: 0, end: 9 };
        let ledger = Ledger::from([((topic_id, 0), 9)]);
        let moment = Moment::new(&Pool::default(), &[partition], &[], &ledger, &Begins::new(), &[0]);
        let mut stories = Stories::of(ids.entries().unwrap());
        let mut told = Vec::new();
        while let Some(next) = stories.next(&moment, |_| Ok(())).unwrap() {
            let Told::Story(story) = next else { continue };
            let standing = match (story.is_whole(&moment), story.found.is_dead()) {
                (true, true) => "repeated",
                (true, false) => "settled",
                (false, true) => "dead",
                (false, false) => "lost",
            };
            told.push((records[usize::try_from(story.first.place.offset()).unwrap()], standing));
        }
        told.sort_unstable();
        told
    }

    #[test]
    fn two_types_of_one_id_are_two_events() {
        let both = ["a", "b"];
        assert_eq!(told(&both, &[("a", SEEN), ("b", SEEN)]), [("a", "settled"), ("b", "settled")]);
        assert_eq!(told(&both, &[("a", SEEN)]), [("a", "settled"), ("b", "lost")]);
        assert_eq!(told(&both, &[("a", SEEN), ("b", DEAD)]), [("a", "settled"), ("b", "dead")]);
        assert_eq!(told(&both, &[("a", SEEN), ("b", SEEN), ("a", DEAD)]), [("a", "repeated"), ("b", "settled")]);
        assert_eq!(told(&["a", "a"], &[("b", SEEN)]), [("a", "lost")], "its own record is not there");
    }

    #[test]
    fn a_row_without_a_type_stands_for_an_event_that_has_none_of_its_own() {
        assert_eq!(told(&["a"], &[("", DEAD)]), [("a", "dead")]);
        for seen in ["a", "b"] {
            let dead = if seen == "a" { "b" } else { "a" };
            let mut expected = [(seen, "settled"), (dead, "dead")];
            expected.sort_unstable();
            assert_eq!(told(&["a", "b"], &[(seen, SEEN), ("", DEAD)]), expected);
        }
        assert_eq!(told(&["a"], &[("a", SEEN), ("", DEAD)]), [("a", "repeated")]);
        let repeated = told(&["a", "b"], &[("a", SEEN), ("b", SEEN), ("", DEAD)]);
        assert_eq!(repeated.iter().filter(|(_, standing)| *standing == "repeated").count(), 1, "{repeated:?}");
        assert_eq!(told(&["a"], &[("", SEEN)]), [("a", "settled")]);
    }

    #[test]
    fn a_row_of_a_type_that_no_record_has_settles_and_is_no_repeat() {
        assert_eq!(told(&["a"], &[("renamed", SEEN)]), [("a", "settled")]);
        assert_eq!(told(&["a"], &[("renamed", DEAD)]), [("a", "dead")]);
        assert_eq!(told(&["a"], &[("a", SEEN), ("renamed", DEAD)]), [("a", "settled")]);
        assert_eq!(told(&["a"], &[("renamed", SEEN), ("", DEAD)]), [("a", "settled")]);
    }

    #[test]
    fn a_record_without_a_type_is_settled_by_any_row_and_no_event_beside_one_that_is_settled() {
        assert_eq!(told(&[""], &[]), [("", "lost")]);
        assert_eq!(told(&[""], &[("", DEAD)]), [("", "dead")]);
        for kind in ["", "b", "renamed"] {
            assert_eq!(told(&[""], &[(kind, SEEN)]), [("", "settled")], "{kind}");
            assert_eq!(told(&[""], &[(kind, SEEN), (kind, DEAD)]), [("", "repeated")], "{kind}");
        }
        assert_eq!(told(&[""], &[("b", SEEN), ("renamed", DEAD)]), [("", "settled")]);
        assert_eq!(told(&[""], &[("b", SEEN), ("", DEAD)]), [("", "repeated")]);
        assert_eq!(told(&["", "a"], &[("a", SEEN)]), [("a", "settled")]);
        assert_eq!(told(&["", "a"], &[("a", DEAD)]), [("a", "dead")]);
        assert_eq!(told(&["", "a"], &[("a", SEEN), ("", DEAD)]), [("a", "repeated")]);
        assert_eq!(told(&["", "a"], &[("a", SEEN), ("", SEEN)]), [("", "settled"), ("a", "settled")]);
        assert_eq!(told(&["", "a"], &[]), [("", "lost"), ("a", "lost")]);
    }
}
