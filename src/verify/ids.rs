//! Every id met in Kafka with its places, packed and sorted: 33 bytes a record.

use super::events::Digest;
use super::log::Place;

/// One record.
#[derive(Clone, Copy, Debug)]
pub(super) struct Occurrence {
    pub(super) id: Digest,
    pub(super) place: Place,
    /// A digest of what the record adds to counters: records of one id should agree.
    pub(super) facts: u32,
    /// Older than the pool remembers ids for.
    pub(super) is_old: bool,
}

/// Where an id was found in the database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Found(u8);

/// The tables that a pool's effects are in, at most: the bit after them is for dead rows.
pub(super) const TABLES_MAX: usize = 7;

impl Found {
    pub(super) const DEAD: Self = Self(1 << TABLES_MAX);

    pub(super) fn table(index: usize) -> Self {
        Self(1 << index)
    }

    /// The bits of this many tables.
    pub(super) fn all(tables: usize) -> Self {
        Self(((1_u16 << tables) - 1) as u8)
    }

    pub(super) fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(super) fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    pub(super) fn is_dead(self) -> bool {
        self.contains(Self::DEAD)
    }

    /// Whether any table has it.
    pub(super) fn has_effect(self) -> bool {
        self.0 & !Self::DEAD.0 != 0
    }
}

/// The records of a pool by id.
#[derive(Debug)]
pub(super) struct Ids {
    occurrences: Vec<Occurrence>,
    /// Of each id's first occurrence; unused for the others.
    found: Vec<Found>,
}

impl Ids {
    pub(super) fn new(mut occurrences: Vec<Occurrence>) -> Self {
        occurrences.sort_unstable_by_key(|occurrence| (occurrence.id, occurrence.place));
        let found = vec![Found::default(); occurrences.len()];
        Self { occurrences, found }
    }

    /// Notes that the database has an id, if Kafka has it as well.
    pub(super) fn note(&mut self, id: Digest, found: Found) {
        if let Some(first) = self.first(id) {
            self.found[first].0 |= found.0;
        }
    }

    /// An id's occurrences in the order of their places, and where it was found.
    pub(super) fn get(&self, id: Digest) -> Option<(&[Occurrence], Found)> {
        let first = self.first(id)?;
        let count = self.occurrences[first..].iter().take_while(|occurrence| occurrence.id == id).count();
        Some((&self.occurrences[first..first + count], self.found[first]))
    }

    /// All ids.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&[Occurrence], Found)> {
        let mut first = 0;
        self.occurrences.chunk_by(|a, b| a.id == b.id).map(move |occurrences| {
            let found = self.found[first];
            first += occurrences.len();
            (occurrences, found)
        })
    }

    fn first(&self, id: Digest) -> Option<usize> {
        let first = self.occurrences.partition_point(|occurrence| occurrence.id < id);
        self.occurrences.get(first).is_some_and(|occurrence| occurrence.id == id).then_some(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn occurrence(id: u64, offset: i64) -> Occurrence {
        Occurrence { id: [id, 0], place: Place::new(0, offset), facts: 0, is_old: false }
    }

    #[test]
    fn what_is_found_is_noted_for_the_id_and_no_other() {
        let mut ids = Ids::new(vec![occurrence(2, 9), occurrence(1, 3), occurrence(2, 4), occurrence(3, 1)]);
        ids.note([2, 0], Found::table(0));
        ids.note([2, 0], Found::DEAD);
        ids.note([4, 0], Found::table(0));
        let found: Vec<_> = ids.iter().map(|(all, found)| (all.len(), found.has_effect(), found.is_dead())).collect();
        assert_eq!(found, [(1, false, false), (2, true, true), (1, false, false)]);
        let (occurrences, _) = ids.get([2, 0]).unwrap();
        assert_eq!(occurrences[0].place.offset(), 4, "the first comes first");
        assert!(ids.get([5, 0]).is_none());
    }

    #[test]
    fn an_effect_is_whole_when_every_table_has_it() {
        let mut ids = Ids::new(vec![occurrence(1, 0)]);
        for table in 0..TABLES_MAX {
            assert!(!ids.get([1, 0]).unwrap().1.contains(Found::all(TABLES_MAX)));
            ids.note([1, 0], Found::table(table));
        }
        let found = ids.get([1, 0]).unwrap().1;
        assert!(found.contains(Found::all(TABLES_MAX)) && !found.is_dead());
    }
}
