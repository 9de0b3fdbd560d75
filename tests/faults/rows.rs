//! The matrix: what is done, and what must hold besides that nothing is lost, repeated or out of order.

mod clock;
mod database;
mod deploys;
mod events;
mod kafka;
mod outages;
mod rates;
mod redis;
mod workers;

use anyhow::Result;
use futures_util::future::LocalBoxFuture;

use super::case::Case;

/// What a row does.
pub(crate) type Run = for<'a> fn(&'a mut Case<'_>) -> LocalBoxFuture<'a, Result<()>>;

/// One fault.
#[derive(Clone, Copy)]
pub(crate) struct Row {
    pub(crate) number: u32,
    pub(crate) fault: &'static str,
    /// Part of the short loop.
    pub(crate) is_quick: bool,
    /// It is about who is a member of the group, and runs under each protocol.
    pub(crate) is_membership: bool,
    /// It is about the database, and runs on each.
    pub(crate) is_database: bool,
    /// Why this machine cannot try it, if it cannot.
    pub(crate) prevented: Option<fn() -> Option<String>>,
    pub(crate) run: Run,
}

impl Row {
    /// It is part of the short loop.
    fn quick(self) -> Self {
        Self { is_quick: true, ..self }
    }

    fn database(self) -> Self {
        Self { is_database: true, ..self }
    }

    fn membership(self) -> Self {
        Self { is_membership: true, ..self }
    }

    fn unless(self, prevented: fn() -> Option<String>) -> Self {
        Self { prevented: Some(prevented), ..self }
    }
}

macro_rules! row {
    ($number:literal, $fault:literal, $run:path) => {
        Row {
            number: $number,
            fault: $fault,
            is_quick: false,
            is_membership: false,
            is_database: false,
            prevented: None,
            run: |case| Box::pin($run(case)),
        }
    };
}

/// All rows in their order.
pub(crate) fn all() -> Vec<Row> {
    vec![
        row!(1, "kill -9 of workers, in a loop", workers::killed).quick().membership(),
        row!(2, "SIGTERM under load", workers::terminated).membership(),
        row!(3, "a worker frozen, then awake", workers::frozen).membership(),
        row!(4, "broker restart", kafka::restarted),
        row!(5, "broker down", kafka::down),
        row!(6, "database down", outages::database_down).database(),
        row!(7, "database 2 s slow", outages::database_slow).database(),
        row!(8, "deadlock", database::deadlocked).database(),
        row!(9, "connection cut at COMMIT", outages::cut_at_commit).quick().database(),
        row!(10, "Redis down", redis::down),
        row!(11, "Redis FLUSHALL, over and over", redis::flushed),
        row!(12, "Redis 500 ms slow", redis::slow),
        row!(13, "a worker cut off from the broker", kafka::cut_off).membership(),
        row!(14, "poison events", events::poison).database(),
        row!(15, "oversized events", events::oversized),
        row!(16, "malformed, deep, not UTF-8, empty, tombstones", events::malformed).quick(),
        row!(17, "schema change inside a batch", events::schema_changed),
        row!(18, "clock an hour off, both ways", clock::jumped).unless(clock::no_fake_clock),
        row!(19, "database disk full", outages::disk_full).unless(outages::no_small_disk),
        row!(20, "a member joins and leaves every 2 s", workers::come_and_go).membership(),
        row!(21, "dead-letter topic missing, forbidden", kafka::no_dead_letter_topic),
        row!(22, "ledger's offset no longer in the log", kafka::log_truncated),
        row!(23, "topic deleted and made again", kafka::topic_made_again),
        row!(24, "partitions added", kafka::partitions_added).membership(),
        row!(25, "Redis full", redis::full),
        row!(26, "database restored from an older dump", database::restored).database(),
        row!(27, "table missing, INSERT revoked", database::table_missing).database(),
        row!(28, "frozen inside a transaction", database::frozen_inside_transaction).database(),
        row!(29, "a long-open snapshot", database::long_snapshot),
        row!(30, "a deploy that adds a pipeline, to and fro", deploys::pipeline_added),
    ]
}
