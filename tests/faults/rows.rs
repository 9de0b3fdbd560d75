//! The matrix: what is done, and what must hold besides that nothing is lost, repeated or out of order.

mod database;
mod events;
mod kafka;
mod outages;
mod redis;
mod workers;

use anyhow::Result;
use futures_util::future::LocalBoxFuture;

use super::case::Case;

/// What a row does.
pub(crate) type Run = for<'a> fn(&'a mut Case<'_>) -> LocalBoxFuture<'a, Result<()>>;

/// One fault.
pub(crate) struct Row {
    pub(crate) number: u32,
    pub(crate) fault: &'static str,
    /// Part of the short loop.
    pub(crate) is_quick: bool,
    /// Why this machine cannot try it, if it cannot.
    pub(crate) prevented: Option<fn() -> Option<String>>,
    pub(crate) run: Run,
}

macro_rules! row {
    ($number:literal, $fault:literal, $run:path) => {
        Row { number: $number, fault: $fault, is_quick: false, prevented: None, run: |case| Box::pin($run(case)) }
    };
}

/// All rows in their order.
pub(crate) fn all() -> Vec<Row> {
    vec![
        row!(1, "kill -9 of workers, in a loop", workers::killed),
        row!(2, "SIGTERM under load", workers::terminated),
        row!(3, "a worker frozen, then awake", workers::frozen),
    ]
}
