//! Every id met in Kafka with its records, and where the database has it: brought together by sorting, 47 bytes an entry.

use super::Error;
use super::events::Digest;
use super::log::Place;
use super::spill::{Disk, Sorted, Sorter};

const ENTRY_BYTES: usize = 16 + 1 + 30;

/// What is known of an id, in the order in which it is told: where it was found, its records, what else it may stand for.
const FOUND: u8 = 0;
const RECORD: u8 = 1;
const ALIAS: u8 = 2;

/// One record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Occurrence {
    pub(super) place: Place,
    /// A digest of what the record adds to counters: records of one id should agree.
    pub(super) facts: u32,
    /// Milliseconds since 1970 by Kafka.
    pub(super) record_ms: i64,
    /// A hash of its key; `None` for a record without one.
    pub(super) key: Option<u64>,
}

/// Where an id was found in the database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Found(u16);

/// The tables that a pool's effects are in, at most.
pub(super) const TABLES_MAX: usize = 7;

impl Found {
    pub(super) const DEAD: Self = Self(1 << TABLES_MAX);
    /// It was a dead row, and took effect when that was replayed.
    pub(super) const REPLAYED: Self = Self(2 << TABLES_MAX);

    pub(super) fn table(index: usize) -> Self {
        Self(1 << index)
    }

    /// The bits of this many tables.
    pub(super) fn all(tables: usize) -> Self {
        Self((1 << tables) - 1)
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

    pub(super) fn is_settled(self) -> bool {
        self.has_effect() || self.is_dead()
    }

    /// What one event has of rows that may be several events': an effect, or else a dead row.
    pub(super) fn as_one(self) -> Self {
        if self.has_effect() { Self(self.0 & !Self::DEAD.0) } else { self }
    }

    /// Whether any table has it.
    pub(super) fn has_effect(self) -> bool {
        self.0 & Self::all(TABLES_MAX).0 != 0
    }
}

/// Something known of an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    /// The database has it, since this many microseconds since 1970 where that is known.
    Found(Found, Option<i64>),
    Record(Occurrence),
    /// The record at this place has this id in its header and another one in its payload.
    Alias(Place),
}

/// The ids of a pool.
#[derive(Debug)]
pub(super) struct Ids(Sorter<ENTRY_BYTES>);

impl Ids {
    pub(super) fn new(disk: &Disk) -> Self {
        Self(Sorter::new(disk))
    }

    pub(super) fn note(&mut self, id: Digest, entry: Entry) -> Result<(), Error> {
        self.0.push(pack(id, entry))
    }

    /// All ids in the order of their digests; each id's records in the order of their places.
    pub(super) fn entries(&mut self) -> Result<Entries<'_>, Error> {
        let mut sorted = self.0.sorted()?;
        let ahead = sorted.next()?.map(|bytes| unpack(&bytes));
        Ok(Entries { sorted, ahead })
    }
}

/// Ids in order.
pub(super) struct Entries<'a> {
    sorted: Sorted<'a, ENTRY_BYTES>,
    ahead: Option<(Digest, Entry)>,
}

impl Entries<'_> {
    /// The id that comes next.
    pub(super) fn id(&self) -> Option<Digest> {
        self.ahead.map(|(id, _)| id)
    }

    /// What else is known of this id.
    pub(super) fn of(&mut self, id: Digest) -> Result<Option<Entry>, Error> {
        match self.ahead {
            Some((next, entry)) if next == id => {
                self.ahead = self.sorted.next()?.map(|bytes| unpack(&bytes));
                Ok(Some(entry))
            }
            _ => Ok(None),
        }
    }
}

fn pack(id: Digest, entry: Entry) -> [u8; ENTRY_BYTES] {
    let mut packer = Packer::<ENTRY_BYTES>::new();
    packer.digest(id);
    match entry {
        Entry::Found(found, since) => {
            packer.put([FOUND]).put(found.0.to_be_bytes()).put([u8::from(since.is_some())]);
            packer.put(since.unwrap_or(0).to_be_bytes());
        }
        Entry::Record(Occurrence { place, facts, record_ms, key }) => {
            packer.put([RECORD]).put(place.packed().to_be_bytes()).put(facts.to_be_bytes());
            packer.put(record_ms.to_be_bytes()).put([u8::from(key.is_some())]).put(key.unwrap_or(0).to_be_bytes());
        }
        Entry::Alias(place) => drop(packer.put([ALIAS]).put(place.packed().to_be_bytes())),
    }
    packer.bytes
}

fn unpack(bytes: &[u8; ENTRY_BYTES]) -> (Digest, Entry) {
    let mut unpacker = Unpacker(bytes);
    let id = unpacker.digest();
    let entry = match unpacker.take::<1>()[0] {
        FOUND => {
            let found = Found(u16::from_be_bytes(unpacker.take()));
            let is_known = unpacker.take::<1>()[0] > 0;
            Entry::Found(found, is_known.then_some(i64::from_be_bytes(unpacker.take())))
        }
        RECORD => {
            let place = Place::unpacked(u64::from_be_bytes(unpacker.take()));
            let facts = u32::from_be_bytes(unpacker.take());
            let record_ms = i64::from_be_bytes(unpacker.take());
            let has_key = unpacker.take::<1>()[0] > 0;
            let key = has_key.then_some(u64::from_be_bytes(unpacker.take()));
            Entry::Record(Occurrence { place, facts, record_ms, key })
        }
        _ => Entry::Alias(Place::unpacked(u64::from_be_bytes(unpacker.take()))),
    };
    (id, entry)
}

/// Puts values into a record one after the other; what is left stays 0.
pub(super) struct Packer<const N: usize> {
    pub(super) bytes: [u8; N],
    at: usize,
}

impl<const N: usize> Packer<N> {
    pub(super) fn new() -> Self {
        Self { bytes: [0; N], at: 0 }
    }

    pub(super) fn put<const M: usize>(&mut self, value: [u8; M]) -> &mut Self {
        self.bytes[self.at..self.at + M].copy_from_slice(&value);
        self.at += M;
        self
    }

    pub(super) fn digest(&mut self, [high, low]: Digest) -> &mut Self {
        self.put(high.to_be_bytes()).put(low.to_be_bytes())
    }
}

/// Takes them out again.
pub(super) struct Unpacker<'a>(pub(super) &'a [u8]);

impl Unpacker<'_> {
    pub(super) fn take<const M: usize>(&mut self) -> [u8; M] {
        let (value, rest) = self.0.split_first_chunk().expect("a record is taken apart as it was put together");
        self.0 = rest;
        *value
    }

    pub(super) fn digest(&mut self) -> Digest {
        [u64::from_be_bytes(self.take()), u64::from_be_bytes(self.take())]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(offset: i64, key: Option<u64>) -> Entry {
        Entry::Record(Occurrence { place: Place::new(3, offset), facts: 7, record_ms: -5, key })
    }

    #[test]
    fn what_is_known_of_an_id_comes_together_and_in_order() {
        let found = Entry::Found(Found::table(1).with(Found::REPLAYED), Some(-9));
        let noted = [
            ([2, 0], record(9, Some(1))),
            ([1, 5], Entry::Alias(Place::new(0, 4))),
            ([2, 0], record(4, None)),
            ([2, 0], found),
            ([2, 0], Entry::Found(Found::DEAD, None)),
            ([1, 5], record(1, Some(u64::MAX))),
        ];
        let mut ids = Ids::new(&Disk::tiny());
        noted.iter().for_each(|(id, entry)| ids.note(*id, *entry).unwrap());
        let mut entries = ids.entries().unwrap();
        let mut told = Vec::new();
        while let Some(id) = entries.id() {
            while let Some(entry) = entries.of(id).unwrap() {
                told.push((id, entry));
            }
        }
        let order = [5, 1, 4, 3, 2, 0].map(|index: usize| noted[index]);
        assert_eq!(told.len(), noted.len());
        assert_eq!(told[..2], order[..2]);
        assert_eq!(told[4..], order[4..], "the first record comes first, after what was found");
        assert!(told[2..4].contains(&noted[3]) && told[2..4].contains(&noted[4]));
    }

    #[test]
    fn an_effect_is_whole_when_every_table_has_it() {
        let mut found = Found::DEAD.with(Found::REPLAYED);
        assert!(!found.has_effect());
        for table in 0..TABLES_MAX {
            assert!(!found.contains(Found::all(TABLES_MAX)));
            found = found.with(Found::table(table));
        }
        assert!(found.contains(Found::all(TABLES_MAX)) && found.has_effect());
    }
}
