//! What the database's moment says of places: how far the pool had come, and which pipelines had begun where.

use super::database::{Begins, Ledger, Moved, Table};
use super::ids::Found;
use super::log::{Partition, Place};
use crate::config::Pool;

/// The database's moment.
pub(super) struct Moment {
    /// One past the last settled offset, by the index of the partition.
    next: Vec<i64>,
    /// The first offset that the pool is known to have handled.
    start: Vec<i64>,
    /// Deliberate moves, by the index of the partition.
    pub(super) moved: Vec<Moved>,
    /// The first offset of each table's pipeline, by table and partition.
    tables: Vec<Vec<i64>>,
    /// The first offset that the counting pipeline counted.
    counted: Vec<i64>,
    /// Whether the database may count events that Kafka has no more, or that are from an earlier run of the pipeline.
    pub(super) has_older: bool,
    /// Every partition is audited from its very first record.
    is_from_the_first: bool,
}

impl Moment {
    /// Where a start is not on record, `guessed` says at which offset the pool has begun at the latest.
    pub(super) fn new(
        pool: &Pool,
        partitions: &[Partition],
        tables: &[Table],
        ledger: &Ledger,
        begins: &Begins,
        guessed: &[i64],
    ) -> Self {
        let begin = |partition: &Partition, pipeline: &str| {
            begins.get(&(partition.topic_id, partition.number, pipeline.to_owned()))
        };
        let by_partition = |of: &dyn Fn(usize, &Partition) -> i64| {
            partitions.iter().enumerate().map(|(index, partition)| of(index, partition)).collect::<Vec<i64>>()
        };
        let offset = |index: usize, partition: &Partition, pipeline: &str| {
            begin(partition, pipeline).map_or(guessed[index], |begin| begin.offset)
        };
        let counting = pool.pipelines.iter().find(|pipeline| pipeline.handler == "analyze");
        let came_back = |begin: &super::database::Begin| !begin.is_first;
        let counts_older = counting.is_some_and(|counting| {
            partitions.iter().any(|partition| begin(partition, &counting.name).is_some_and(came_back))
        });
        Self {
            next: by_partition(&|_, partition| {
                ledger.get(&(partition.topic_id, partition.number)).copied().unwrap_or(0)
            }),
            start: by_partition(&|index, partition| {
                let begun = pool.pipelines.iter().filter_map(|pipeline| begin(partition, &pipeline.name));
                begun.map(|begin| begin.offset).min().unwrap_or(guessed[index])
            }),
            moved: vec![Moved::default(); partitions.len()],
            tables: tables
                .iter()
                .map(|table| by_partition(&|index, partition| offset(index, partition, &table.pipeline)))
                .collect(),
            counted: by_partition(&|index, partition| {
                counting.map_or(0, |counting| offset(index, partition, &counting.name))
            }),
            has_older: counts_older || partitions.iter().any(|p| p.low > 0 && p.from == p.low),
            is_from_the_first: partitions.iter().all(|partition| partition.from == 0),
        }
    }

    /// Whether no record of the pool's events is left out.
    pub(super) fn sees_all(&self) -> bool {
        self.is_from_the_first && !self.has_older
    }

    /// Whether the pool had come past a record.
    pub(super) fn has_passed(&self, place: Place) -> bool {
        place.offset() < self.next[place.partition()]
    }

    /// Whether a record lies where the pool had begun, and was passed.
    pub(super) fn has_begun(&self, place: Place) -> bool {
        self.has_passed(place) && place.offset() >= self.start[place.partition()]
    }

    /// Whether a record lies where the pool handled events.
    pub(super) fn is_handled(&self, place: Place) -> bool {
        let was_skipped = || self.moved[place.partition()].skipped.iter().any(|range| range.contains(&place.offset()));
        self.has_begun(place) && !was_skipped()
    }

    /// Whether a record may have been handled out of its turn, since somebody moved the pool past it.
    pub(super) fn was_moved(&self, place: Place) -> bool {
        self.moved[place.partition()].spans.iter().any(|span| span.contains(&place.offset()))
    }

    /// The tables in which an event handled at this place must be.
    pub(super) fn required(&self, place: Place) -> Found {
        if self.tables.is_empty() {
            return Found::table(0);
        }
        let begun = self.tables.iter().map(|begins| begins[place.partition()] <= place.offset());
        begun
            .enumerate()
            .filter(|(_, begun)| *begun)
            .fold(Found::default(), |all, (table, _)| all.with(Found::table(table)))
    }

    /// The tables in which an event must be that was handled nowhere as far as is known.
    pub(super) fn all(&self) -> Found {
        Found::all(self.tables.len().max(1))
    }

    /// Whether a record lies where the counting pipeline counts.
    pub(super) fn counts(&self, place: Place) -> bool {
        place.offset() >= self.counted[place.partition()]
    }
}
