//! What was found, with the first places of each kind: their number has no bound, and is kept on disk or only counted.

use std::collections::BTreeSet;

use super::log::Place;
use super::order::Order;
use super::spill::{Disk, Sorter};
use super::{Error, NAMED_MAX};

/// How many there are, and the first in the order of their places.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Places {
    count: u64,
    first: BTreeSet<Place>,
}

impl Places {
    pub(super) fn note(&mut self, place: Place) {
        self.count += 1;
        self.first.insert(place);
        if self.first.len() > NAMED_MAX {
            self.first.pop_last();
        }
    }

    pub(super) fn count(&self) -> u64 {
        self.count
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Place> {
        self.first.iter().copied()
    }
}

/// What judging left to be told.
#[derive(Debug)]
pub(super) struct Findings {
    /// Ids with an effect and a dead row, by their first record.
    pub(super) repeated: Places,
    /// Records that were passed and whose id has neither an effect nor a dead row.
    pub(super) suspects: Sorter<8>,
    pub(super) order: Order,
}

impl Findings {
    pub(super) fn new(disk: &Disk) -> Self {
        Self { repeated: Places::default(), suspects: Sorter::new(disk), order: Order::new(disk) }
    }
}

/// The suspects that no dead row stands for, and how many there are of the others.
pub(super) fn without(suspects: &mut Sorter<8>, dead: &mut Sorter<8>) -> Result<(Places, u64), Error> {
    let (mut lost, mut settled) = (Places::default(), 0);
    let (mut suspects, mut dead) = (suspects.sorted()?, dead.sorted()?);
    let mut next = dead.next()?;
    while let Some(suspect) = suspects.next()? {
        while next.is_some_and(|place| place < suspect) {
            next = dead.next()?;
        }
        match next {
            Some(place) if place == suspect => settled += 1,
            _ => lost.note(Place::unpacked(u64::from_be_bytes(suspect))),
        }
    }
    Ok((lost, settled))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(offsets: impl IntoIterator<Item = i64>) -> Sorter<8> {
        let mut sorter = Sorter::new(&Disk::tiny());
        offsets.into_iter().for_each(|at| sorter.push(Place::new(1, at).packed().to_be_bytes()).unwrap());
        sorter
    }

    #[test]
    fn suspects_without_a_dead_row_are_counted_and_the_first_named() {
        let (lost, settled) = without(&mut places((0..40).rev()), &mut places([3, 99, 0, 7, 7])).unwrap();
        assert_eq!((lost.count(), settled), (37, 3));
        let offsets: Vec<i64> = lost.iter().map(Place::offset).collect();
        assert_eq!(offsets, [1, 2, 4, 5, 6, 8, 9, 10, 11, 12]);
    }
}
