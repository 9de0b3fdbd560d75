//! One drain of a backlog by one side, a child process: how long it took, what it used, what it left.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use sqlx::PgConnection;

use crate::services::sql;
use crate::side::{Job, Side};

/// How often the size of the tables is looked at.
const LOOK: Duration = Duration::from_millis(20);
/// How long the tables stand still before their rows are counted.
const STILL: Duration = Duration::from_millis(400);

/// What is done with the events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Workload {
    Persist,
    PersistAndAnalyze,
}

/// What one run took, and what it left.
pub(crate) struct Run {
    /// From the start of the process to the last row.
    pub(crate) seconds: f64,
    /// From its start to the first row.
    pub(crate) first_s: f64,
    pub(crate) cpu_seconds: f64,
    pub(crate) peak_mib: f64,
    pub(crate) left: Left,
}

/// The effects, counted in the database. The digests are sums of the rows' hashes, times of arrival left out.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Left {
    rows: i64,
    digest: String,
    counters: Vec<Counters>,
}

/// One dimension's counters.
#[derive(Debug, PartialEq, Eq)]
struct Counters {
    dimension: String,
    rows: i64,
    counted: i64,
    digest: String,
}

impl Left {
    pub(crate) async fn count(db: &mut PgConnection) -> Result<Self> {
        let (rows, digest) = sqlx::query_as(
            "SELECT count(*), sum(hashtextextended(concat_ws('|', message_id, conversation, sender, recipient, content,
                                                             message_type, timestamp), 0))::text FROM messages",
        )
        .fetch_one(&mut *db)
        .await?;
        let counters: Vec<(String, i64, i64, String)> = sqlx::query_as(
            "SELECT dimension, count(*) AS rows, sum(count)::bigint AS counted,
                    sum(hashtextextended(c::text, 0))::text AS digest
               FROM weir_counts AS c GROUP BY dimension ORDER BY dimension",
        )
        .fetch_all(db)
        .await?;
        let of = |(dimension, rows, counted, digest)| Counters { dimension, rows, counted, digest };
        let counters = counters.into_iter().map(of).collect();
        Ok(Self { rows, digest, counters })
    }

    /// Every event has a row, and was counted once in each dimension that sums.
    pub(crate) fn check(&self, workload: Workload, events: u64) -> Result<()> {
        ensure!(self.rows.unsigned_abs() == events, "{} rows of {events}", self.rows);
        let dimensions = if workload == Workload::Persist { 0 } else { 4 };
        ensure!(self.counters.len() == dimensions, "{dimensions} dimensions were to be counted: {:?}", self.counters);
        for counters in self.counters.iter().filter(|counters| counters.dimension != "active_users") {
            ensure!(counters.counted.unsigned_abs() == events, "{events} events were to be counted: {counters:?}");
        }
        Ok(())
    }
}

/// Drains the whole topic into empty tables, with a fresh group and an empty Redis.
pub(crate) async fn drain(side: &Side, job: &Job<'_>, workers: usize) -> Result<Run> {
    let mut db = job.services.empty().await?;
    migrate(job)?;
    sql(&mut db, "CHECKPOINT").await?;
    let begun = Instant::now();
    let mut processes = Processes::start(side, job, workers)?;
    let watched = watch(&mut processes, begun, &mut db, job.backlog.events).await;
    drop(processes);
    let (first_s, seconds, Usage { cpu_seconds, peak_mib }) = watched?;
    let left = Left::count(&mut db).await?;
    left.check(job.workload, job.backlog.events)?;
    Ok(Run { seconds, first_s, cpu_seconds, peak_mib, left })
}

/// The processes of a side, ended when they are dropped.
pub(crate) struct Processes(Vec<Child>);

impl Processes {
    pub(crate) fn start(side: &Side, job: &Job<'_>, workers: usize) -> Result<Self> {
        let mut started = Self(Vec::new());
        for _ in 0..workers {
            let mut command = side.command(job)?;
            let child = command.spawn().with_context(|| format!("start {}", command.get_program().display()))?;
            started.0.push(child);
        }
        Ok(started)
    }

    pub(crate) fn check(&mut self) -> Result<()> {
        for child in &mut self.0 {
            if let Some(status) = child.try_wait()? {
                bail!(
                    "a process ended with {status} before the topic was drained; workers' logs are in {}",
                    std::env::temp_dir().display()
                );
            }
        }
        Ok(())
    }

    /// All their time, and the peak of the largest.
    fn usage(&self) -> Usage {
        let each = self.0.iter().filter_map(|child| Usage::of(child.id()));
        each.fold(Usage::default(), |all, one| Usage {
            cpu_seconds: all.cpu_seconds + one.cpu_seconds,
            peak_mib: all.peak_mib.max(one.peak_mib),
        })
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        for child in &mut self.0 {
            child.kill().ok();
            child.wait().ok();
        }
    }
}

/// All sides write into the tables that weir makes.
pub(crate) fn migrate(job: &Job<'_>) -> Result<()> {
    let config = job.write_config("migrate", true)?;
    let mut migrate = Command::new(env!("CARGO_BIN_EXE_weir"));
    let migrated = migrate.arg("migrate").arg("--config").arg(&config).stdout(Stdio::null()).status()?;
    ensure!(migrated.success(), "weir migrate failed");
    Ok(())
}

/// Waits until the table has stopped growing at the full count. Its size is looked at, which costs nothing, and the
/// rows are counted only once it stands still. The counters are written by the same transactions.
async fn watch(
    processes: &mut Processes,
    begun: Instant,
    db: &mut PgConnection,
    events: u64,
) -> Result<(f64, f64, Usage)> {
    let patience = Duration::from_secs(60 + events / 1_000);
    let (mut size, mut first, mut grown_at, mut used) = (0i64, None, Instant::now(), Usage::default());
    loop {
        tokio::time::sleep(LOOK).await;
        ensure!(begun.elapsed() < patience, "not drained within {} s", patience.as_secs());
        processes.check()?;
        let now: i64 = sqlx::query_scalar("SELECT pg_relation_size('messages')").fetch_one(&mut *db).await?;
        if now > size {
            (size, grown_at) = (now, Instant::now());
            first.get_or_insert_with(|| begun.elapsed().as_secs_f64());
            used = processes.usage();
        } else if grown_at.elapsed() > STILL {
            let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM messages").fetch_one(&mut *db).await?;
            if rows.unsigned_abs() >= events {
                return Ok((first.unwrap_or_default(), (grown_at - begun).as_secs_f64(), used));
            }
            grown_at = Instant::now();
        }
    }
}

/// What a process has used so far.
#[derive(Debug, Clone, Copy, Default)]
struct Usage {
    cpu_seconds: f64,
    /// Its peak resident memory.
    peak_mib: f64,
}

impl Usage {
    fn of(pid: u32) -> Option<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let ticks: f64 = fields[11].parse::<f64>().ok()? + fields[12].parse::<f64>().ok()?;
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        let kib: f64 = peak.trim().trim_end_matches(" kB").parse().ok()?;
        Some(Self { cpu_seconds: ticks / 100.0, peak_mib: kib / 1024.0 })
    }
}
