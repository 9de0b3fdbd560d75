//! What makes an event of a pool one and the same. In a pool with a table it is the id, which is the table's unique key.
//! Without one, ids are claimed in `weir_seen` by type, and two types may share an id as two events.
//!
//! **No type stands for any type,** as it does for the worker. A dead row has none where its event could not be decoded, or
//! was set aside while the pool still had a table; and a Rust type may call its events otherwise than their payload does. So:
//!
//! - A row without a type, or of a type that no record has, settles those events of its id that have no row of their
//!   own. A dead row without a type is a repeat only where each of them has an effect of its own.
//! - A record without a type is settled by any row of its id, and is a copy where an event with a type is settled.
//!
//! Both may hide a loss among events that share an id; neither makes a finding up.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hasher as _};

use super::database::Table;
use super::events::{Digest, KeyKind};
use super::ids::Found;

/// Types of a pool that are told apart in rows. Rows of others settle what has none of its own.
const KINDS_MAX: usize = 1 << 14;

/// The last 32 bits of a digest, below 96 of the id: first come rows that stand for several events, then the events, and
/// in the end the records that any of these rows may settle.
const UNTYPED_ROWS: u32 = 0;
const EVENT: u32 = 1 << 31;
const UNTYPED_RECORDS: u32 = u32::MAX;

/// An event's type, as a hash below [`EVENT`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Kind(u32);

impl Kind {
    pub(super) const NONE: Self = Self(UNTYPED_ROWS);

    pub(super) fn of(name: &str) -> Self {
        if name.is_empty() {
            return Self::NONE;
        }
        let mut hasher = DefaultHasher::new();
        hasher.write(name.as_bytes());
        // None of them is one of the marks.
        let hash = 1 + hasher.finish() % u64::from(EVENT - 2);
        Self(u32::try_from(hash).expect("it is below EVENT"))
    }
}

/// Gives every record and row the digest of its event.
#[derive(Debug)]
pub(super) struct Identity {
    pub(super) key: KeyKind,
    is_typed: bool,
    /// The types of the records so far.
    kinds: HashSet<Kind>,
}

impl Identity {
    pub(super) fn of(tables: &[Table]) -> Self {
        let key = tables.first().map_or(KeyKind::Text, |table| table.key);
        Self { key, is_typed: tables.is_empty(), kinds: HashSet::new() }
    }

    pub(super) fn of_record(&mut self, kind: Kind, id: &str) -> Digest {
        let mark = match kind {
            _ if !self.is_typed => EVENT,
            Kind::NONE => UNTYPED_RECORDS,
            Kind(hash) => {
                if self.kinds.len() < KINDS_MAX {
                    self.kinds.insert(kind);
                }
                EVENT | hash
            }
        };
        self.digest(id, mark)
    }

    /// Types are known once all records are read.
    pub(super) fn of_row(&self, kind: &str, id: &str) -> Digest {
        if !self.is_typed {
            return self.digest(id, EVENT);
        }
        let kind = Kind::of(kind);
        self.digest(id, if self.kinds.contains(&kind) { EVENT | kind.0 } else { kind.0 })
    }

    fn digest(&self, id: &str, mark: u32) -> Digest {
        let [high, low] = self.key.digest(id);
        [high, low << 32 | u64::from(mark)]
    }
}

fn mark_of(digest: Digest) -> u32 {
    digest[1] as u32
}

fn share_id(one: Digest, other: Digest) -> bool {
    (one[0], one[1] >> 32) == (other[0], other[1] >> 32)
}

/// What the rows of one id say, while its events are told in the order of their digests.
#[derive(Debug, Default)]
pub(super) struct Rows {
    digest: Digest,
    untyped: Found,
    /// Those that settle events without a row of their own.
    spare: Found,
    /// Those of which no event has been told.
    untold: Found,
    /// A type of these has an effect and a dead row.
    is_repeated: bool,
    /// An event with a type is settled.
    has_settled: bool,
    /// An event with a type has no effect of its own: a dead row without a type may be its.
    has_wanting: bool,
}

impl Rows {
    pub(super) fn turn_to(&mut self, digest: Digest) {
        if !share_id(self.digest, digest) {
            *self = Self::default();
        }
        self.digest = digest;
    }

    /// Takes in the rows of a digest that has no records.
    pub(super) fn keep(&mut self, rows: Found) {
        self.untold = self.untold.with(rows);
        self.is_repeated |= rows.has_effect() && rows.is_dead();
        let mark = mark_of(self.digest);
        if mark == UNTYPED_ROWS {
            self.untyped = rows;
        }
        if mark < EVENT {
            self.spare = self.spare.with(rows);
        }
    }

    /// Where an event is found that has these rows of its own.
    pub(super) fn found(&mut self, own: Found) -> Found {
        if mark_of(self.digest) != UNTYPED_RECORDS {
            self.has_wanting |= !own.has_effect();
            let found = if own.is_settled() { own } else { own.with(self.spare.as_one()) };
            self.has_settled |= found.is_settled();
            return found;
        }
        match self.untold {
            _ if self.untyped.has_effect() => self.untyped,
            untold if self.is_repeated => untold,
            untold => untold.as_one(),
        }
    }

    /// Whether the records are only copies, without a type, of an event that is settled.
    pub(super) fn are_copies(&self) -> bool {
        mark_of(self.digest) == UNTYPED_RECORDS && self.has_settled && !self.untyped.has_effect()
    }

    /// What the id's last event has too: a dead row that stands for no other one.
    pub(super) fn left_over(&self, next: Option<Digest>) -> Found {
        let is_event = |next: Digest| share_id(self.digest, next) && mark_of(next) != UNTYPED_RECORDS;
        let is_last = !next.is_some_and(is_event);
        match is_last && self.untyped.is_dead() && !self.untyped.has_effect() && !self.has_wanting {
            true => Found::DEAD,
            false => Found::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(key: KeyKind, is_typed: bool) -> Identity {
        Identity { key, is_typed, kinds: HashSet::new() }
    }

    #[test]
    fn with_a_table_the_id_alone_counts_however_it_is_spelt() {
        let mut identity = identity(KeyKind::Integer, false);
        let of_record = identity.of_record(Kind::of("a"), "7");
        assert_eq!(identity.of_record(Kind::NONE, "007"), of_record);
        assert_eq!((identity.of_row("", "7"), identity.of_row("b", "7")), (of_record, of_record));
        assert_ne!(identity.of_row("", "8"), of_record);
    }

    #[test]
    fn without_a_table_the_type_counts_too() {
        let mut identity = identity(KeyKind::Text, true);
        let (a, b) = (identity.of_record(Kind::of("a"), "x"), identity.of_record(Kind::of("b"), "x"));
        let untyped = identity.of_record(Kind::NONE, "x");
        assert_eq!((identity.of_row("a", "x"), identity.of_row("b", "x")), (a, b));
        assert!(a != b && share_id(a, b) && share_id(a, untyped));
        assert!(!share_id(a, identity.of_record(Kind::of("a"), "y")));
        // Rows that may be any event's come before the events, and records that may be any row's behind them.
        for rows in [identity.of_row("", "x"), identity.of_row("no record has it", "x")] {
            assert!(share_id(rows, a) && rows < a.min(b) && a.max(b) < untyped);
        }
    }
}
