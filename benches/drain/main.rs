//! How fast a backlog is drained into PostgreSQL, pair by pair: a hand-written rdkafka loop, then `weir run`; and how
//! much memory weir takes for a backlog and for one ten times as long.
//!
//! The loop does the same decode, the same check and mark in Redis, writes the same rows, and nothing else: no group,
//! no ledger, no retry, no metrics. Both sides are child processes; what each left is counted in the database after
//! the run and must be the same. Run it with `make bench`. The environment changes it:
//!
//! | variable | default | |
//! |---|---|---|
//! | `EVENTS` | 2,000,000 | the backlog of the pairs |
//! | `ROUNDS` | 5 | pairs of each workload |
//! | `WORKLOAD` | all | `persist`, `analyze` (persist and analyze) or `memory` |
//! | `MEMORY_EVENTS` | half of `EVENTS` | the shorter of the two backlogs whose memory is measured; 0: none |
//! | `WEIR` | the one just built | another binary |
//! | `BESIDE` | none | further binaries of weir, separated by `:`, run in each round as well: before and after, interleaved |
//!
//! The shorter backlog must be a good deal longer than what is fetched ahead, or its peak is not a worker's usual one.
#![expect(clippy::print_stdout, reason = "the figures are the answer")]

mod drain;
mod hand_written;
mod load;
mod services;

use std::path::{Path, PathBuf};

use anyhow::{Result, bail, ensure};
use drain::{Run, Side, Workload};
use load::Backlog;
use services::Services;

/// What was asked for.
struct Asked {
    events: u64,
    rounds: usize,
    workloads: Vec<Workload>,
    /// The shorter of the backlogs whose memory is measured.
    memory_events: Option<u64>,
    /// The binary whose memory is measured, and those beside it, by name.
    weir: Vec<(String, Side)>,
}

impl Asked {
    fn from_env() -> Result<Self> {
        let number = |name: &str, default: u64| match std::env::var(name) {
            Ok(given) => given.replace([',', '_'], "").parse(),
            Err(_) => Ok(default),
        };
        let events = number("EVENTS", 2_000_000)?;
        let memory_events = number("MEMORY_EVENTS", events / 2)?;
        let (workloads, memory) = match std::env::var("WORKLOAD").as_deref() {
            Err(_) => (vec![Workload::Persist, Workload::PersistAndAnalyze], true),
            Ok("persist") => (vec![Workload::Persist], false),
            Ok("analyze") => (vec![Workload::PersistAndAnalyze], false),
            Ok("memory") => (Vec::new(), true),
            Ok(other) => bail!("WORKLOAD is persist, analyze or memory, not {other:?}"),
        };
        let rounds = usize::try_from(number("ROUNDS", 5)?)?;
        ensure!(events > 0 && rounds > 0, "EVENTS and ROUNDS are at least 1");
        Ok(Self {
            events,
            rounds,
            workloads,
            memory_events: (memory && memory_events > 0).then_some(memory_events),
            weir: binaries().map(|path| (name_of(&path), Side::Weir(path))).collect(),
        })
    }
}

fn binaries() -> impl Iterator<Item = PathBuf> {
    let weir = std::env::var_os("WEIR").map_or_else(|| env!("CARGO_BIN_EXE_weir").into(), PathBuf::from);
    let beside = std::env::var_os("BESIDE").unwrap_or_default();
    let beside: Vec<PathBuf> = std::env::split_paths(&beside).filter(|path| !path.as_os_str().is_empty()).collect();
    std::iter::once(weir).chain(beside)
}

fn name_of(path: &Path) -> String {
    path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}

#[tokio::main]
async fn main() -> Result<()> {
    if std::env::args().any(|arg| arg == "hand-written") {
        return hand_written::run().await;
    }
    let asked = Asked::from_env()?;
    let services = Services::set_up().await?;
    let mut backlogs = Vec::new();
    let outcome = measure(&asked, &services, &mut backlogs).await;
    let topics: Vec<String> = backlogs.into_iter().map(|backlog| backlog.topic).collect();
    services.tear_down(&topics).await?;
    outcome
}

async fn measure(asked: &Asked, services: &Services, backlogs: &mut Vec<Backlog>) -> Result<()> {
    let mut sizes: Vec<u64> = asked.workloads.iter().map(|_| asked.events).collect();
    sizes.extend(asked.memory_events.into_iter().flat_map(|events| [events, events * 10]));
    sizes.sort_unstable();
    sizes.dedup();
    for events in sizes {
        backlogs.push(load::publish(services, events).await?);
    }
    let of = |events: u64| backlogs.iter().find(|backlog| backlog.events == events).expect("it was published");
    for workload in &asked.workloads {
        pairs(asked, services, of(asked.events), *workload).await?;
    }
    if let Some(events) = asked.memory_events {
        memory(asked, services, [of(events), of(events * 10)]).await?;
    }
    Ok(())
}

/// Rounds of the hand-written loop, then weir, then the binaries beside it, if any.
async fn pairs(asked: &Asked, services: &Services, backlog: &Backlog, workload: Workload) -> Result<()> {
    let what = if workload == Workload::Persist { "persist" } else { "persist and analyze" };
    println!("\n{what}: {} events, {} rounds", backlog.events, asked.rounds);
    heading();
    let mut ratios = vec![Vec::new(); asked.weir.len()];
    for _ in 0..asked.rounds {
        let floor = Side::HandWritten.drain(services, backlog, workload).await?;
        line("hand-written", backlog, &floor);
        for ((name, side), ratios) in asked.weir.iter().zip(&mut ratios) {
            let run = side.drain(services, backlog, workload).await?;
            line(name, backlog, &run);
            ensure!(run.left == floor.left, "{name} left {:?}, the loop {:?}", run.left, floor.left);
            ratios.push(floor.seconds / run.seconds);
        }
    }
    for ((name, _), ratios) in asked.weir.iter().zip(&mut ratios) {
        ratios.sort_by(f64::total_cmp);
        let (min, median, max) = (ratios[0], ratios[ratios.len() / 2], ratios[ratios.len() - 1]);
        println!("{name} / hand-written: min {min:.2}, median {median:.2}, max {max:.2}");
    }
    Ok(())
}

/// weir's peak at a backlog and at one ten times as long, side by side.
async fn memory(asked: &Asked, services: &Services, backlogs: [&Backlog; 2]) -> Result<()> {
    println!("\nmemory: persist, {} and {} events", backlogs[0].events, backlogs[1].events);
    heading();
    let (name, weir) = &asked.weir[0];
    let mut peaks = Vec::new();
    for backlog in backlogs {
        let run = weir.drain(services, backlog, Workload::Persist).await?;
        line(name, backlog, &run);
        peaks.push(run.peak_mib);
    }
    println!("peak: {:.0} MiB at 1x, {:.0} MiB at 10x, {:.2} times as much", peaks[0], peaks[1], peaks[1] / peaks[0]);
    Ok(())
}

fn heading() {
    println!("{:<14} {:>10} {:>12} {:>8} {:>8} {:>9}", "run", "events", "events/s", "s", "cpu s", "peak MiB");
}

fn line(name: &str, backlog: &Backlog, run: &Run) {
    #[expect(clippy::cast_precision_loss, reason = "a backlog is far below 2^52")]
    let rate = backlog.events as f64 / run.seconds;
    let Run { seconds, cpu_seconds, peak_mib, .. } = run;
    println!("{name:<14} {:>10} {rate:>12.0} {seconds:>8.2} {cpu_seconds:>8.2} {peak_mib:>9.0}", backlog.events);
}
