//! How fast a backlog is drained into PostgreSQL, by sides that take turns: a hand-written rdkafka loop, `weir run`, and
//! beside them what nobody can beat, the database's `COPY` of the same rows and the broker's own consumer; then how much
//! memory weir takes for a backlog and for one ten times as long.
//!
//! The loop does the same decode, the same check and mark in Redis, writes the same rows, and nothing else: no group,
//! no ledger, no retry, no metrics. All sides are child processes; what each left is counted in the database after
//! the run and must be the same. Run it with `make bench`; with `make bench-peers`, which measures others' consumers in
//! their place (`benches/peers`). The environment changes it:
//!
//! | variable | default | |
//! |---|---|---|
//! | `EVENTS` | 2,000,000 | the backlog |
//! | `ROUNDS` | 5 | how often each side drains it |
//! | `WORKLOAD` | all but `peers` | `persist`, `analyze` (persist and analyze), `memory` or `peers` |
//! | `MEMORY_EVENTS` | half of `EVENTS` | the shorter of the two backlogs whose memory is measured; 0: none |
//! | `WEIR` | the one just built | another binary |
//! | `BESIDE` | none | further binaries of weir, separated by `:`, run in each round as well: before and after, interleaved |
//! | `PEERS` | all | of the peers, those whose name has one of these words, separated by commas |
//!
//! The shorter backlog must be a good deal longer than what is fetched ahead, or its peak is not a worker's usual one.
#![expect(clippy::print_stdout, reason = "the figures are the answer")]

mod contest;
mod drain;
mod hand_written;
mod limits;
mod load;
mod services;
mod side;

use std::path::{Path, PathBuf};

use anyhow::{Result, bail, ensure};
use contest::Contest;
use drain::Workload;
use load::Backlog;
use services::Services;
use side::Side;

/// What was asked for.
struct Asked {
    events: u64,
    rounds: usize,
    contests: Vec<Contest>,
    /// The shorter of the backlogs whose memory is measured.
    memory_events: Option<u64>,
}

impl Asked {
    fn from_env() -> Result<Self> {
        let number = |name: &str, default: u64| match std::env::var(name) {
            Ok(given) => given.replace([',', '_'], "").parse(),
            Err(_) => Ok(default),
        };
        let events = number("EVENTS", 2_000_000)?;
        let memory_events = number("MEMORY_EVENTS", events / 2)?;
        let (contests, memory) = match std::env::var("WORKLOAD").as_deref() {
            Err(_) => (vec![persist(), analyze()], true),
            Ok("persist") => (vec![persist()], false),
            Ok("analyze") => (vec![analyze()], false),
            Ok("memory") => (Vec::new(), true),
            Ok("peers") => (vec![peers()?], false),
            Ok(other) => bail!("WORKLOAD is persist, analyze, memory or peers, not {other:?}"),
        };
        let rounds = usize::try_from(number("ROUNDS", 5)?)?;
        ensure!(events > 0 && rounds > 0, "EVENTS and ROUNDS are at least 1");
        Ok(Self { events, rounds, contests, memory_events: (memory && memory_events > 0).then_some(memory_events) })
    }
}

fn named(name: &str, side: Side) -> (String, Side) {
    (name.to_owned(), side)
}

fn weir(processed_set: bool) -> impl Iterator<Item = (String, Side)> {
    binaries().map(move |binary| {
        let name = name_of(&binary);
        let name = if processed_set { name } else { format!("{name}, no processed set") };
        (name, Side::Weir { binary, processed_set })
    })
}

fn persist() -> Contest {
    let mut sides = vec![named("hand-written", Side::HandWritten { redis: true })];
    sides.extend(weir(true));
    sides.push(named("hand-written, no Redis", Side::HandWritten { redis: false }));
    sides.extend(weir(false));
    Contest { title: "persist", workload: Workload::Persist, sides, limits: true }
}

fn analyze() -> Contest {
    let mut sides = vec![named("hand-written", Side::HandWritten { redis: true })];
    sides.extend(weir(true));
    Contest { title: "persist and analyze", workload: Workload::PersistAndAnalyze, sides, limits: false }
}

fn peers() -> Result<Contest> {
    let mut all: Vec<(String, Side)> = weir(true).chain(weir(false)).collect();
    all.extend([
        named("sentry_arroyo", Side::Arroyo),
        named("Spring Kafka, Redis", Side::Spring { redis: true }),
        named("Spring Kafka", Side::Spring { redis: false }),
        named("Parallel Consumer", Side::ParallelConsumer),
        named("Kafka Connect, Debezium", Side::Connect),
    ]);
    let asked = std::env::var("PEERS").unwrap_or_default().to_lowercase();
    let words: Vec<&str> = asked.split(',').map(str::trim).filter(|word| !word.is_empty()).collect();
    let sides: Vec<_> = all
        .into_iter()
        .filter(|(name, _)| words.is_empty() || words.iter().any(|word| name.to_lowercase().contains(word)))
        .collect();
    ensure!(!sides.is_empty(), "PEERS={asked}: nobody has a name like that");
    Ok(Contest { title: "persist, by others", workload: Workload::Persist, sides, limits: false })
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
    let mut sizes: Vec<u64> = asked.contests.iter().map(|_| asked.events).collect();
    sizes.extend(asked.memory_events.into_iter().flat_map(|events| [events, events * 10]));
    sizes.sort_unstable();
    sizes.dedup();
    for events in sizes {
        backlogs.push(load::publish(services, events).await?);
    }
    let of = |events: u64| backlogs.iter().find(|backlog| backlog.events == events).expect("it was published");
    for contest in &asked.contests {
        contest.hold(services, of(asked.events), asked.rounds).await?;
    }
    if let Some(events) = asked.memory_events {
        memory(services, [of(events), of(events * 10)]).await?;
    }
    Ok(())
}

/// weir's peak at a backlog and at one ten times as long, side by side.
async fn memory(services: &Services, backlogs: [&Backlog; 2]) -> Result<()> {
    println!("\nmemory: persist, {} and {} events", backlogs[0].events, backlogs[1].events);
    contest::heading();
    let mut peaks = Vec::new();
    for backlog in backlogs {
        for (name, side) in weir(true).take(1) {
            let run = drain::drain(&side, services, backlog, Workload::Persist).await?;
            contest::line(&name, backlog, &run);
            peaks.push(run.peak_mib);
        }
    }
    println!("peak: {:.0} MiB at 1x, {:.0} MiB at 10x, {:.2} times as much", peaks[0], peaks[1], peaks[1] / peaks[0]);
    Ok(())
}
