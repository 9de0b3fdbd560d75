//! The rate at which a backlog is worked off, with a fault and without it, in turns: a machine that others use has
//! no rate of its own.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::case::{Case, RECOVERY_MAX};
use crate::load::Mix;
use crate::until;

/// What is published before the workers start.
const BACKLOG: u64 = 800_000;
/// Small batches make many transactions, and a backlog that lasts.
const POOL_LINES: &str = "max_poll_records = 25\n";
const WINDOW: Duration = Duration::from_secs(4);
const TURNS: u32 = 2;

/// Events a second.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rates {
    without: f64,
    with: f64,
}

impl Rates {
    pub(super) fn ratio(self) -> f64 {
        self.with / self.without
    }
}

impl fmt::Display for Rates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { with, without } = self;
        write!(f, "{with:.0} of {without:.0} events a second, {:.0} %", 100.0 * self.ratio())
    }
}

/// Measures in turns; `switch` makes the fault and ends it. The row's fault has ended when it returns.
pub(super) async fn rates(
    case: &mut Case<'_>,
    mut switch: impl AsyncFnMut(&Case<'_>, bool) -> Result<()>,
) -> Result<Rates> {
    case.pool_lines = POOL_LINES.to_owned();
    // A backlog of minutes is not a fault's.
    case.recovery_max = RECOVERY_MAX * 4;
    case.start_load(Mix { per_second: 0, ..Mix::default() })?;
    case.load()?.burst(BACKLOG);
    until("the backlog to be published", RECOVERY_MAX * 2, async || Ok(case.load()?.burst_left() == 0)).await?;
    case.stop_load().await?;
    case.begin_watch()?;
    for slot in 0..3 {
        case.start_worker(slot).await?;
    }
    case.shared().await?;
    case.moving().await?;
    let (mut without, mut with) = (0.0, 0.0);
    for _ in 0..TURNS {
        without += window(case).await? / f64::from(TURNS);
        switch(case, true).await?;
        with += window(case).await? / f64::from(TURNS);
        switch(case, false).await?;
    }
    case.fault_ends()?;
    Ok(Rates { without, with })
}

/// The rate of a window in which there is always something to do.
async fn window(case: &Case<'_>) -> Result<f64> {
    let sum =
        async || Ok::<_, anyhow::Error>(case.world.ledger().await?.iter().map(|row| row.next_offset).sum::<i64>());
    let (then, begun) = (sum().await?, Instant::now());
    case.sleep(WINDOW).await;
    let (now, took) = (sum().await?, begun.elapsed());
    let ends: i64 = case.book().ends.values().sum();
    ensure!(now + 1_000 < ends, "the backlog of {ends} events was over before it was measured");
    Ok((now - then) as f64 / took.as_secs_f64())
}
