//! How fast a backlog is drained into PostgreSQL, by sides that take turns: a hand-written rdkafka loop, `weir run`, and
//! beside them what nobody can beat, the database's `COPY` of the same rows and the broker's own consumer. With
//! `WORKLOAD=scale`: what an event costs with ten times the backlog, more partitions and more workers, and what more workers
//! bring. With `WORKLOAD=latency`: how long an event takes at 30 and 10 % of the loop's rate. With
//! `WORKLOAD=traces`: what traces cost, of events that are not sampled and where one in a hundred is. With
//! `WORKLOAD=moderate`: what moderation's local rules cost.
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
//! | `WORKLOAD` | `persist` and `analyze` | one of those named here, or `peers`; `analyze` is persist and analyze |
//! | `WEIR` | the one just built | another binary |
//! | `BESIDE` | none | further binaries of weir, separated by `:`, run in each round as well: before and after, interleaved |
//! | `PEERS` | all | of the peers, those whose name has one of these words, separated by commas |
//!
//! The backlog must be a good deal longer than what is fetched ahead, or its peak is not a worker's usual one.
#![expect(clippy::print_stdout, reason = "the figures are the answer")]

mod contest;
mod drain;
mod hand_written;
mod latency;
mod limits;
mod load;
mod moderation;
#[path = "../../tests/faults/proxy.rs"]
#[expect(dead_code, reason = "the fault matrix makes worse weather")]
mod proxy;
mod scale;
mod services;
mod side;
#[path = "../../src/store/socket.rs"]
#[expect(unused_imports, reason = "its tests run with the library's")]
mod socket;
mod traces;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
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
    scale: bool,
    latency: bool,
    traces: bool,
}

impl Asked {
    fn from_env() -> Result<Self> {
        let number = |name: &str, default: u64| match std::env::var(name) {
            Ok(given) => given.replace([',', '_'], "").parse(),
            Err(_) => Ok(default),
        };
        let events = number("EVENTS", 2_000_000)?;
        let workload = std::env::var("WORKLOAD").ok();
        let contests = match workload.as_deref() {
            None => vec![persist(), analyze()],
            Some("persist") => vec![persist()],
            Some("analyze") => vec![analyze()],
            Some("moderate") => vec![moderation::contest()?],
            Some("scale" | "latency" | "traces") => Vec::new(),
            Some("peers") => vec![peers()?],
            Some(other) => {
                bail!("WORKLOAD is persist, analyze, scale, latency, traces, moderate or peers, not {other:?}")
            }
        };
        let is = |name| workload.as_deref() == Some(name);
        let rounds = usize::try_from(number("ROUNDS", 5)?)?;
        ensure!(events > 0 && rounds > 0, "EVENTS and ROUNDS are at least 1");
        Ok(Self { events, rounds, contests, scale: is("scale"), latency: is("latency"), traces: is("traces") })
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
    let outcome = Box::pin(measure(&asked, &services, &mut backlogs)).await;
    let topics: Vec<String> = backlogs.into_iter().map(|backlog| backlog.topic).collect();
    services.tear_down(&topics).await?;
    outcome
}

async fn measure(asked: &Asked, services: &Services, backlogs: &mut Vec<Backlog>) -> Result<()> {
    if asked.scale {
        return scale(asked, services, backlogs).await;
    }
    if asked.traces {
        return Box::pin(traces::hold(services, asked.events, asked.rounds, backlogs)).await;
    }
    backlogs.push(load::publish(services, asked.events, load::PARTITIONS).await?);
    for contest in &asked.contests {
        contest.hold(services, &backlogs[0], asked.rounds).await?;
    }
    if asked.latency {
        let sides: Vec<_> = persist().sides.into_iter().filter(|(_, side)| side.uses_redis()).collect();
        let backlog = backlogs[0].clone();
        latency::hold(&sides, services, &backlog, asked.rounds, backlogs).await?;
    }
    Ok(())
}

async fn scale(asked: &Asked, services: &Services, backlogs: &mut Vec<Backlog>) -> Result<()> {
    let events = asked.events;
    let topics = [(events, 8), (events * 10, 8), (events, 64), (events, 512), (events * 10, 512), (events, 12)];
    for (events, partitions) in topics {
        backlogs.push(load::publish(services, events, partitions).await?);
    }
    let [short, long, many, most, most_long, twelve] = &backlogs[..] else { bail!("six topics were published") };
    let sides: Vec<_> = weir(true).collect();
    let (_, side) = sides.first().context("weir's binary")?;
    // What 512 partitions cost once, when they are taken over, is a tenth of it where there are ten times the events.
    let cases = [(short, 1), (long, 1), (many, 1), (most, 1), (most_long, 1), (short, 3)];
    scale::costs(&sides, services, &cases).await?;
    scale::workers(side, services, twelve, asked.rounds).await
}
