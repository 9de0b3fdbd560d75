//! What the processed set costs as sets and as a bitmap: Redis' memory an id, and marks and look-ups a second in batches of
//! 500, through the same code as `weir run`. Each way has a Redis of its own, started here; they take turns, a million ids
//! at a time, so that both meet the same machine. Then the ways in which bits could be asked and set, side by side. Run it
//! with `make bench-processed`. The environment changes it:
//!
//! | variable | default | |
//! |---|---|---|
//! | `IDS` | 10,000,000 | ids marked |
//! | `TASKS` | 4 | batches under way, as partitions have them |
#![expect(clippy::print_stdout, reason = "the figures are the answer")]

mod server;
mod ways;

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use server::Server;
use tokio::task::JoinSet;
use uuid::Uuid;
use weir::config;
use weir::metrics::Metrics;
use weir::once::ProcessedSet;

const BATCH_IDS: u64 = 500;
const TURN_IDS: u64 = 1_000_000;
/// Ids that nobody has marked begin here.
const UNKNOWN_FROM: u64 = 1 << 40;
const POOL: &str = "storage";

#[tokio::main]
async fn main() -> Result<()> {
    let (ids, tasks) = (number("IDS", 10_000_000)?, number("TASKS", 4)?);
    let mut sides =
        [Side::new("set", config::ProcessedSet::Set, ids)?, Side::new("bloom", config::ProcessedSet::Bloom, ids)?];
    println!(
        "Redis {}, {ids} ids of 36 characters, batches of {BATCH_IDS}, {tasks} at a time",
        sides[0].server.version()?
    );
    for from in (0..ids).step_by(usize::try_from(TURN_IDS)?) {
        for side in &mut sides {
            let pace = side.turn(Ask::Mark, from..ids.min(from + TURN_IDS), tasks).await?;
            side.marks.add(pace);
        }
    }
    for side in &mut sides {
        side.memory_bytes = side.server.used_memory()? - side.empty_bytes;
    }
    for turn in 0..3 {
        for side in &mut sides {
            let known = turn * TURN_IDS % ids;
            let pace = side.turn(Ask::Known, known..ids.min(known + TURN_IDS), tasks).await?;
            side.hits.add(pace);
            let unknown = UNKNOWN_FROM + turn * TURN_IDS;
            let pace = side.turn(Ask::Unknown, unknown..unknown + TURN_IDS, tasks).await?;
            side.misses.add(pace);
        }
    }
    for side in &sides {
        side.tell(ids);
    }
    drop(sides);
    ways::compare()
}

fn number(name: &str, default: u64) -> Result<u64> {
    match std::env::var(name) {
        Ok(given) => given.replace([',', '_'], "").parse().with_context(|| format!("{name} is no number")),
        Err(_) => Ok(default),
    }
}

/// What is done with ids, and what must come of it.
#[derive(Clone, Copy)]
enum Ask {
    Mark,
    /// All are known.
    Known,
    /// None is, but for false positives.
    Unknown,
}

/// What was done, and what it took.
#[derive(Default)]
struct Pace {
    ids: u64,
    hits: u64,
    took: Duration,
    /// The processor time of Redis.
    redis_s: f64,
}

impl Pace {
    fn add(&mut self, other: Self) {
        self.ids += other.ids;
        self.hits += other.hits;
        self.took += other.took;
        self.redis_s += other.redis_s;
    }

    fn text(&self) -> String {
        let (per_s, us) = (self.ids as f64 / self.took.as_secs_f64(), self.redis_s * 1e6 / self.ids as f64);
        format!("{per_s:.0} ids/s, {us:.2} µs of Redis' processor an id")
    }
}

/// One way of keeping ids, and its Redis.
struct Side {
    name: &'static str,
    server: Server,
    set: ProcessedSet,
    metrics: Metrics,
    empty_bytes: u64,
    memory_bytes: u64,
    said_bytes: Option<u64>,
    marks: Pace,
    hits: Pace,
    misses: Pace,
}

impl Side {
    fn new(name: &'static str, kind: config::ProcessedSet, ids: u64) -> Result<Self> {
        let mut server = Server::start()?;
        // One generation holds all of it, whenever the run begins.
        let redis = serde_json::json!({ "url": server.url(), "expiry": "3650days", "deadline": "10s" });
        let redis: config::Redis = serde_json::from_value(redis)?;
        let bloom = config::Bloom { ids: Some(ids), ..config::Bloom::default() };
        let settings = config::Pool { processed_set: kind, bloom, ..config::Pool::default() };
        let metrics = Metrics::new();
        let set = ProcessedSet::configured(&redis, &settings, POOL, metrics.pool(POOL));
        let set = set.map_err(anyhow::Error::msg)?.context("there is a set")?;
        let bitmap = config::Bitmap::of(&settings, Some(&redis)).map_err(anyhow::Error::msg)?;
        if let Some(bitmap) = &bitmap {
            println!("{name}: {bitmap}");
        }
        Ok(Self {
            name,
            empty_bytes: server.used_memory()?,
            memory_bytes: 0,
            said_bytes: bitmap.map(|bitmap| bitmap.memory_bytes()),
            server,
            set,
            metrics,
            marks: Pace::default(),
            hits: Pace::default(),
            misses: Pace::default(),
        })
    }

    async fn turn(&mut self, ask: Ask, ids: std::ops::Range<u64>, tasks: u64) -> Result<Pace> {
        let batches: Vec<Vec<String>> = ids
            .clone()
            .step_by(usize::try_from(BATCH_IDS)?)
            .map(|from| (from..ids.end.min(from + BATCH_IDS)).map(id).collect())
            .collect();
        let batches = Arc::new(batches);
        let before_s = self.server.processor_s()?;
        let begun = Instant::now();
        let mut running = JoinSet::new();
        for task in 0..usize::try_from(tasks)? {
            let (set, batches, tasks) = (self.set.clone(), Arc::clone(&batches), usize::try_from(tasks)?);
            running.spawn(async move {
                let mut hits = 0;
                for batch in batches.iter().skip(task).step_by(tasks) {
                    hits += one(&set, ask, batch).await?;
                }
                Ok::<u64, anyhow::Error>(hits)
            });
        }
        let mut hits = 0;
        while let Some(done) = running.join_next().await {
            hits += done??;
        }
        let pace = Pace {
            ids: ids.end - ids.start,
            hits,
            took: begun.elapsed(),
            redis_s: self.server.processor_s()? - before_s,
        };
        let unmarked = format!("weir_processed_set_unmarked_total{{pool=\"{POOL}\"}} 0");
        ensure!(self.metrics.render().contains(&unmarked), "{}: marks were not taken", self.name);
        ensure!(!matches!(ask, Ask::Known) || pace.hits == pace.ids, "{}: an id was forgotten", self.name);
        Ok(pace)
    }

    fn tell(&self, ids: u64) {
        let per_id = self.memory_bytes as f64 / ids as f64;
        println!("{}: {:.1} MiB, {per_id:.2} bytes an id", self.name, self.memory_bytes as f64 / f64::from(1 << 20));
        if let Some(said) = self.said_bytes {
            println!("  `weir check` says {:.1} MiB for two generations", said as f64 / f64::from(1 << 20));
        }
        println!("  marks: {}", self.marks.text());
        println!("  look-ups of known ids: {}", self.hits.text());
        println!("  look-ups of unknown ids: {}", self.misses.text());
        println!("  false positives: {} of {}", self.misses.hits, self.misses.ids);
    }
}

async fn one(set: &ProcessedSet, ask: Ask, batch: &[String]) -> Result<u64> {
    let ids: Vec<&str> = batch.iter().map(String::as_str).collect();
    match ask {
        Ask::Mark => {
            set.mark(&ids).await;
            Ok(0)
        }
        Ask::Known | Ask::Unknown => {
            let known = set.lookup(&ids).await.context("a look-up was not answered")?;
            Ok(known.iter().filter(|known| **known).count() as u64)
        }
    }
}

/// A UUID that looks like a random one.
fn id(n: u64) -> String {
    let mixed = u128::from(n).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
    Uuid::from_u128(mixed ^ (mixed >> 64)).to_string()
}
