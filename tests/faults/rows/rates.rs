//! The rate at which a backlog is worked off, with a fault and without it, in turns: a machine that others use has
//! no rate of its own.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::case::{Case, RECOVERY_MAX};
use crate::load::Mix;
use crate::until;

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

/// Measures in turns, with so many events published before the workers start; `switch` makes the fault and ends it. The row's fault has ended when it returns.
pub(super) async fn rates(
    case: &mut Case<'_>,
    events: u64,
    mut switch: impl AsyncFnMut(&Case<'_>, bool) -> Result<()>,
) -> Result<Rates> {
    backlog(case, events, 3).await?;
    let (mut without, mut with) = (0.0, 0.0);
    for _ in 0..TURNS {
        without += calm(case).await? / f64::from(TURNS);
        switch(case, true).await?;
        with += calm(case).await? / f64::from(TURNS);
        switch(case, false).await?;
    }
    case.fault_ends()?;
    Ok(Rates { without, with })
}

/// The same while something is done.
pub(super) async fn rates_while(
    case: &mut Case<'_>,
    (events, workers): (u64, usize),
    mut done: impl AsyncFnMut(&mut Case<'_>) -> Result<()>,
) -> Result<Rates> {
    backlog(case, events, workers).await?;
    let (mut without, mut with) = (0.0, 0.0);
    for _ in 0..TURNS {
        without += calm(case).await? / f64::from(TURNS);
        let begun = Begun::now(case).await?;
        done(case).await?;
        with += begun.rate(case).await? / f64::from(TURNS);
    }
    case.fault_ends()?;
    Ok(Rates { without, with })
}

/// So many workers, with work for minutes.
async fn backlog(case: &mut Case<'_>, events: u64, workers: usize) -> Result<()> {
    case.pool_lines = POOL_LINES.to_owned();
    // A backlog of minutes is not a fault's.
    case.recovery_max = RECOVERY_MAX * 4;
    case.start_load(Mix { per_second: 0, ..Mix::default() })?;
    case.load()?.burst(events);
    until("the backlog to be published", RECOVERY_MAX * 2, async || Ok(case.load()?.burst_left() == 0)).await?;
    case.stop_load().await?;
    case.begin_watch()?;
    for slot in 0..workers {
        case.start_worker(slot).await?;
    }
    case.shared().await?;
    case.moving().await
}

/// The rate of a window in which nothing else is done.
async fn calm(case: &Case<'_>) -> Result<f64> {
    let begun = Begun::now(case).await?;
    case.sleep(WINDOW).await;
    begun.rate(case).await
}

/// Where the ledger stood when a window began.
struct Begun {
    settled: i64,
    at: Instant,
}

impl Begun {
    async fn now(case: &Case<'_>) -> Result<Self> {
        Ok(Self { settled: settled(case).await?, at: Instant::now() })
    }

    /// The rate since then, if there was always something to do.
    async fn rate(self, case: &Case<'_>) -> Result<f64> {
        let (now, took) = (settled(case).await?, self.at.elapsed());
        let ends: i64 = case.book().ends.values().sum();
        ensure!(now + 1_000 < ends, "the backlog of {ends} events was over before it was measured");
        Ok((now - self.settled) as f64 / took.as_secs_f64())
    }
}

async fn settled(case: &Case<'_>) -> Result<i64> {
    Ok(case.world.ledger().await?.iter().map(|row| row.next_offset).sum())
}
