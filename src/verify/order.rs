//! Order per key: along a key's offsets on its partition, the transactions that wrote the rows were begun in order.
//!
//! A row says when its transaction began, by the database's clock. Left out is what may have taken effect out of its turn:
//! replays, what lies in the span of a deliberate move, ids with several records, and effects older than their record,
//! which are an earlier record's that is not audited.

use super::Error;
use super::NAMED_MAX;
use super::ids::{Packer, Unpacker};
use super::log::Place;
use super::spill::{Disk, Sorter};

const EFFECT_BYTES: usize = 2 + 8 + 8 + 8;

/// An event that took effect before an earlier one of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Late {
    /// The one that was late.
    pub(super) place: Place,
    /// The one that came before it, and lies behind it.
    pub(super) overtaken_by: Place,
}

/// What came of comparing.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Compared {
    pub(super) events: u64,
    pub(super) out_of_order: u64,
    /// The first ones.
    pub(super) named: Vec<Late>,
}

/// When events took effect, by key.
#[derive(Debug)]
pub(super) struct Order(Sorter<EFFECT_BYTES>);

impl Order {
    pub(super) fn new(disk: &Disk) -> Self {
        Self(Sorter::new(disk))
    }

    pub(super) fn note(&mut self, place: Place, key: u64, effect_us: i64) -> Result<(), Error> {
        let mut packer = Packer::new();
        let partition = u16::try_from(place.partition()).expect("an audit has no more partitions than 16 bits count");
        packer.put(partition.to_be_bytes()).put(key.to_be_bytes());
        packer.put(place.offset().to_be_bytes()).put(effect_us.to_be_bytes());
        self.0.push(packer.bytes)
    }

    pub(super) fn compare(mut self) -> Result<Compared, Error> {
        let mut compared = Compared::default();
        // The event of the running key that took effect last so far.
        let mut latest: Option<(u16, u64, i64, i64)> = None;
        let mut sorted = self.0.sorted()?;
        while let Some(bytes) = sorted.next()? {
            let mut unpacker = Unpacker(&bytes);
            let partition = u16::from_be_bytes(unpacker.take());
            let key = u64::from_be_bytes(unpacker.take());
            let (offset, effect_us) = (i64::from_be_bytes(unpacker.take()), i64::from_be_bytes(unpacker.take()));
            compared.events += 1;
            match latest {
                Some((of, like, before, latest_us)) if (of, like) == (partition, key) && effect_us < latest_us => {
                    compared.out_of_order += 1;
                    if compared.named.len() < NAMED_MAX {
                        let place = |offset| Place::new(usize::from(partition), offset);
                        compared.named.push(Late { place: place(before), overtaken_by: place(offset) });
                    }
                }
                _ => latest = Some((partition, key, offset, effect_us)),
            }
        }
        Ok(compared)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compared(effects: &[(usize, u64, i64, i64)]) -> Compared {
        let mut order = Order::new(&Disk::tiny());
        for (partition, key, offset, effect_us) in effects {
            order.note(Place::new(*partition, *offset), *key, *effect_us).unwrap();
        }
        order.compare().unwrap()
    }

    #[test]
    fn an_effect_before_that_of_an_earlier_event_of_the_key_is_found() {
        let found = compared(&[(0, 7, 4, 30), (0, 7, 1, 10), (0, 7, 2, 40), (0, 7, 9, 40)]);
        let late = Late { place: Place::new(0, 2), overtaken_by: Place::new(0, 4) };
        assert_eq!(found, Compared { events: 4, out_of_order: 1, named: vec![late] });
    }

    #[test]
    fn other_keys_other_partitions_and_one_transaction_are_in_order() {
        let found = compared(&[(0, 7, 1, 10), (0, 8, 2, 5), (1, 7, 3, 4), (0, 7, 4, 10)]);
        assert_eq!(found, Compared { events: 4, ..Compared::default() });
    }
}
