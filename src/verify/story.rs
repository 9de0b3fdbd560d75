//! One id: where the database has it, and what its records say, taken in one after the other, however many there are.

use super::Error;
use super::events::Digest;
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

/// What is known of one id.
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

/// What comes of an id's entries.
#[derive(Debug)]
pub(super) enum Told {
    Story(Story),
    /// No event has this id: the database has it alone, or records have it in their header.
    NoEvent,
}

/// Takes in the entries of the next id. `alias` is shown the places of records that a dead row of this id may stand for.
pub(super) fn next(
    entries: &mut Entries<'_>,
    moment: &Moment,
    mut alias: impl FnMut(Place) -> Result<(), Error>,
) -> Result<Option<Told>, Error> {
    let Some(id) = entries.id() else { return Ok(None) };
    let (mut found, mut effect_us, mut story) = (Found::default(), None, None);
    while let Some(entry) = entries.of(id)? {
        match entry {
            Entry::Found(there, since_us) => {
                found = found.with(there);
                effect_us = effect_us.or(since_us);
            }
            Entry::Record(record) => {
                story.get_or_insert_with(|| Story::new(id, found, effect_us, record)).add(record, moment);
            }
            Entry::Alias(place) if found.is_dead() => alias(place)?,
            Entry::Alias(_) => {}
        }
    }
    Ok(Some(story.map_or(Told::NoEvent, Told::Story)))
}
