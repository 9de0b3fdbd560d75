//! Counters, recounted from the events that have their effect. What events add is kept by id until it is known which
//! of them count, and then by counter until the database's numbers are compared with it; both on disk.

use std::collections::{HashMap, HashSet};

use super::events::{Counter, Digest, digest};
use super::ids::{Packer, Unpacker};
use super::log::Place;
use super::spill::{Disk, Sorted, Sorter};
use super::{Error, NAMED_MAX};

/// Counters, and users of a minute, that are put together in memory before they go to disk.
const TOGETHER_MAX: usize = 32 << 10;

/// What an event adds to one counter of the view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Share {
    pub(super) counter: Digest,
    /// For `active_users`, which counts users and not events, the user's digest.
    pub(super) user: Option<Digest>,
}

impl Share {
    pub(super) fn of(counter: &Counter) -> Self {
        match summed(counter) {
            None => Self { counter: counter.digest(), user: None },
            Some(sum) => Self { counter: sum.digest(), user: Some(digest(&[&counter.member])) },
        }
    }

    /// A part of a digest that tells it from others.
    pub(super) fn fact(&self) -> u32 {
        let [high, _] = self.user.unwrap_or_default();
        (self.counter[0] ^ high) as u32
    }
}

const SHARE_BYTES: usize = 16 + 8 + 16 + 1 + 16;

/// What each record adds to counters, by id.
#[derive(Debug)]
pub(super) struct Shares(Sorter<SHARE_BYTES>);

impl Shares {
    pub(super) fn new(disk: &Disk) -> Self {
        Self(Sorter::new(disk))
    }

    pub(super) fn note(&mut self, id: Digest, place: Place, share: Share) -> Result<(), Error> {
        let mut packer = Packer::new();
        packer.digest(id).put(place.packed().to_be_bytes()).digest(share.counter);
        packer.put([u8::from(share.user.is_some())]).digest(share.user.unwrap_or_default());
        self.0.push(packer.bytes)
    }

    pub(super) fn by_id(&mut self) -> Result<SharesById<'_>, Error> {
        let mut sorted = self.0.sorted()?;
        let ahead = sorted.next()?;
        Ok(SharesById { sorted, ahead })
    }
}

/// Shares in the order of ids.
pub(super) struct SharesById<'a> {
    sorted: Sorted<'a, SHARE_BYTES>,
    ahead: Option<[u8; SHARE_BYTES]>,
}

impl SharesById<'_> {
    /// The next share of an id, with the place of its record. Ids are asked for in order; those left out are passed over.
    pub(super) fn of(&mut self, id: Digest) -> Result<Option<(Place, Share)>, Error> {
        while let Some(bytes) = self.ahead {
            let mut unpacker = Unpacker(&bytes);
            let next = unpacker.digest();
            if next > id {
                return Ok(None);
            }
            self.ahead = self.sorted.next()?;
            if next == id {
                let place = Place::unpacked(u64::from_be_bytes(unpacker.take()));
                let counter = unpacker.digest();
                let has_user = unpacker.take::<1>()[0] > 0;
                let user = unpacker.digest();
                return Ok(Some((place, Share { counter, user: has_user.then_some(user) })));
            }
        }
        Ok(None)
    }
}

/// A counter that differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    pub(super) counter: Digest,
    /// An event that it counts, to name the counter by.
    pub(super) place: Option<Place>,
    pub(super) expected: i64,
    pub(super) found: i64,
}

/// What came of comparing.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Compared {
    pub(super) counters: u64,
    pub(super) wrong: u64,
    /// Counters that could not be told.
    pub(super) excluded: u64,
    /// The first wrong ones.
    pub(super) named: Vec<Wrong>,
}

/// What is noted of a counter, in the order in which it is compared.
const STORED: u8 = 0;
const EXCLUDED: u8 = 1;
const COUNTED: u8 = 2;
const USER: u8 = 3;

const NOTE_BYTES: usize = 16 + 1 + 16 + 8;

/// What the counters should be, and what they are.
#[derive(Debug)]
pub(super) struct Recount {
    notes: Sorter<NOTE_BYTES>,
    /// Events by counter, not yet noted, and one of them.
    together: HashMap<Digest, (i64, Place)>,
    /// Users by counter that were noted lately.
    users: HashSet<(Digest, Digest)>,
}

impl Recount {
    pub(super) fn new(disk: &Disk) -> Self {
        Self { notes: Sorter::new(disk), together: HashMap::new(), users: HashSet::new() }
    }

    /// Counts an event's share once.
    pub(super) fn add(&mut self, share: Share, place: Place) -> Result<(), Error> {
        let Share { counter, user } = share;
        if let Some(user) = user {
            if self.users.len() >= TOGETHER_MAX {
                self.users.clear();
            }
            return match self.users.insert((counter, user)) {
                true => self.notes.push(note(counter, USER, user, place)),
                false => Ok(()),
            };
        }
        if self.together.len() >= TOGETHER_MAX {
            self.put_down()?;
        }
        self.together.entry(counter).or_insert((0, place)).0 += 1;
        Ok(())
    }

    fn put_down(&mut self) -> Result<(), Error> {
        for (counter, (count, place)) in self.together.drain() {
            self.notes.push(note(counter, COUNTED, [count.cast_unsigned(), 0], place))?;
        }
        Ok(())
    }

    /// Leaves a counter out of the comparison: which of an id's disagreeing records counted cannot be told.
    pub(super) fn exclude(&mut self, share: Share) -> Result<(), Error> {
        self.notes.push(note(share.counter, EXCLUDED, [0, 0], Place::new(0, 0)))
    }

    /// Notes a counter of the database. `may_exceed`: it may also count events that are not audited.
    pub(super) fn stored(&mut self, counter: &Counter, count: i64, may_exceed: bool) -> Result<(), Error> {
        let value = [count.cast_unsigned(), u64::from(may_exceed)];
        self.notes.push(note(counter.digest(), STORED, value, Place::new(0, 0)))
    }

    /// Compares what should be with what is.
    pub(super) fn compare(mut self) -> Result<Compared, Error> {
        self.put_down()?;
        let mut compared = Compared::default();
        let mut sum: Option<Sum> = None;
        let mut sorted = self.notes.sorted()?;
        while let Some(bytes) = sorted.next()? {
            let mut unpacker = Unpacker(&bytes);
            let counter = unpacker.digest();
            let (kind, value) = (unpacker.take::<1>()[0], unpacker.digest());
            let place = Place::unpacked(u64::from_be_bytes(unpacker.take()));
            if let Some(done) = sum.take_if(|sum| sum.counter != counter) {
                done.judge(&mut compared);
            }
            sum.get_or_insert_with(|| Sum::of(counter)).note(kind, value, place);
        }
        sum.into_iter().for_each(|last| last.judge(&mut compared));
        Ok(compared)
    }
}

fn note(counter: Digest, kind: u8, value: Digest, place: Place) -> [u8; NOTE_BYTES] {
    let mut packer = Packer::new();
    packer.digest(counter).put([kind]).digest(value).put(place.packed().to_be_bytes());
    packer.bytes
}

/// One counter's notes, taken together.
#[derive(Debug)]
struct Sum {
    counter: Digest,
    stored: Option<i64>,
    may_exceed: bool,
    is_excluded: bool,
    expected: i64,
    place: Option<Place>,
    /// The last user that was counted: a user's notes follow each other.
    user: Option<Digest>,
}

impl Sum {
    fn of(counter: Digest) -> Self {
        let (stored, place, user) = (None, None, None);
        Self { counter, stored, may_exceed: false, is_excluded: false, expected: 0, place, user }
    }

    fn note(&mut self, kind: u8, value: Digest, place: Place) {
        match kind {
            STORED => {
                self.stored = Some(self.stored.unwrap_or(0) + value[0].cast_signed());
                self.may_exceed |= value[1] > 0;
            }
            EXCLUDED => self.is_excluded = true,
            COUNTED => {
                self.expected += value[0].cast_signed();
                self.place.get_or_insert(place);
            }
            _ => {
                self.expected += i64::from(self.user.replace(value) != Some(value));
                self.place.get_or_insert(place);
            }
        }
    }

    fn judge(self, compared: &mut Compared) {
        let Self { counter, expected, place, .. } = self;
        compared.excluded += u64::from(self.is_excluded);
        let found = self.stored.unwrap_or(0);
        let is_right = found == expected || (self.may_exceed && found > expected) || self.is_excluded;
        compared.counters += u64::from(self.stored.is_some() || !is_right);
        if is_right {
            return;
        }
        compared.wrong += 1;
        if compared.named.len() < NAMED_MAX {
            compared.named.push(Wrong { counter, place, expected, found });
        }
    }
}

/// Of an event's counters the one with this digest, as the view has it.
pub(super) fn named(counters: &[Counter], key: Digest) -> Option<Counter> {
    let in_view = counters.iter().map(|counter| summed(counter).unwrap_or_else(|| counter.clone()));
    in_view.into_iter().find(|counter| counter.digest() == key)
}

/// The view has one number a minute for `active_users`, without a member.
fn summed(counter: &Counter) -> Option<Counter> {
    (counter.dimension == "active_users").then(|| Counter { member: String::new(), ..counter.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counter(dimension: &str, member: &str) -> Counter {
        Counter { minute: 7, dimension: dimension.to_owned(), member: member.to_owned() }
    }

    /// Three events of two users, and what the database has.
    fn compared(excluded: Option<&Counter>, stored: &[(Counter, i64, bool)]) -> Compared {
        let mut recount = Recount::new(&Disk::tiny());
        for (user, offset) in [("a", 0), ("b", 1), ("a", 2)] {
            for counter in [counter("type", "new"), counter("active_users", user)] {
                recount.add(Share::of(&counter), Place::new(0, offset)).unwrap();
            }
            // As when there are more counters than are put together.
            recount.put_down().unwrap();
            recount.users.clear();
        }
        excluded.into_iter().for_each(|counter| recount.exclude(Share::of(counter)).unwrap());
        stored.iter().for_each(|(counter, count, may_exceed)| recount.stored(counter, *count, *may_exceed).unwrap());
        recount.compare().unwrap()
    }

    #[test]
    fn events_are_counted_and_users_once_a_minute() {
        let stored = [(counter("type", "new"), 3, false), (counter("active_users", ""), 2, false)];
        assert_eq!(compared(None, &stored), Compared { counters: 2, ..Compared::default() });
    }

    #[test]
    fn too_many_too_few_unknown_and_missing_ones_are_wrong() {
        let stored = [(counter("type", "new"), 4, false), (counter("type", "other"), 1, false)];
        let compared = compared(None, &stored);
        assert_eq!((compared.counters, compared.wrong), (3, 3));
        let wrong = |of: &Counter| compared.named.iter().find(|wrong| wrong.counter == of.digest()).copied().unwrap();
        assert_eq!(wrong(&counter("type", "new")).expected, 3);
        assert_eq!((wrong(&counter("type", "other")).expected, wrong(&counter("type", "other")).place), (0, None));
        let missing = wrong(&counter("active_users", ""));
        assert_eq!((missing.expected, missing.found, missing.place.is_some()), (2, 0, true));
        let of_event = [counter("type", "new"), counter("active_users", "a")];
        assert_eq!(named(&of_event, missing.counter), Some(counter("active_users", "")));
    }

    #[test]
    fn what_cannot_be_told_is_not_wrong() {
        let stored =
            |users, events| [(counter("active_users", ""), users, false), (counter("type", "new"), events, true)];
        let excluded = counter("active_users", "c");
        assert_eq!(compared(Some(&excluded), &stored(9, 4)).wrong, 0);
        assert_eq!(compared(Some(&excluded), &stored(9, 2)).wrong, 1, "too low, whatever else it counts");
        assert_eq!(compared(None, &stored(9, 4)).wrong, 1);
    }

    #[test]
    fn shares_come_by_id_with_those_of_ids_not_asked_for_left_out() {
        let mut shares = Shares::new(&Disk::tiny());
        let share = |member| Share::of(&counter("user", member));
        for (id, offset, member) in [(3, 1, "c"), (1, 2, "a"), (2, 3, "b"), (1, 0, "d")] {
            shares.note([id, 0], Place::new(0, offset), share(member)).unwrap();
        }
        let mut by_id = shares.by_id().unwrap();
        let mut next = |id| by_id.of([id, 0]).unwrap();
        assert_eq!(next(1), Some((Place::new(0, 0), share("d"))));
        assert_eq!(next(1), Some((Place::new(0, 2), share("a"))));
        assert_eq!(next(1), None);
        assert_eq!(next(3), Some((Place::new(0, 1), share("c"))));
        assert_eq!(next(4), None);
    }
}
