//! What an event costs where there are more events, more partitions, more workers; and what more workers bring.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use sqlx::{Connection as _, PgConnection};
use url::Url;

use crate::contest::{heading, line, median};
use crate::drain::{Processes, Workload, drain, migrate};
use crate::load::Backlog;
use crate::proxy::{Proxy, Weather};
use crate::services::{Services, sql};
use crate::side::{Job, Lines, Side};

/// How long a rate is measured.
const WINDOW: Duration = Duration::from_secs(10);
const COMMIT_LATENCY: Duration = Duration::from_millis(50);
/// Many transactions, and fewer at a time in a worker than there are partitions, so that a second worker has its use.
const SMALL: Lines = Lines { pool: "max_poll_records = 10\n", store: "connections = 4\n" };
/// It is the cost at one batch size that must not grow: batches are full from the first on, since many partitions would else have
/// the more small ones, and of a size for which the queue of one of 512 partitions has room.
const AT_ONCE: Lines = Lines { pool: "handle_ms = 0.1\nmax_poll_records = 250\n", store: "" };

/// What one run cost.
struct Cost<'a> {
    side: &'a str,
    of: String,
    us: f64,
    peak_mib: f64,
    batch: f64,
}

/// The cost of an event, by backlog, partitions and workers, of each binary in turn.
pub(crate) async fn costs(sides: &[(String, Side)], services: &Services, cases: &[(&Backlog, usize)]) -> Result<()> {
    println!("\nthe cost of an event: persist");
    heading();
    let mut costs: Vec<Cost<'_>> = Vec::new();
    for (backlog, workers) in cases {
        for (name, side) in sides {
            let job = Job { lines: AT_ONCE, ..Job::new(services, backlog, Workload::Persist) };
            let run = drain(side, &job, *workers).await?;
            let millions = backlog.events as f64 / 1e6;
            let of = format!("{name}: {millions} M, {} partitions, {workers} workers", backlog.partitions);
            line(&of, backlog, &run);
            let us = run.cpu_seconds * 1e6 / backlog.events as f64;
            let batch = backlog.events as f64 / transactions(services).await? as f64;
            costs.push(Cost { side: name, of, us, peak_mib: run.peak_mib, batch });
        }
    }
    println!();
    for Cost { side, of, us, peak_mib, batch } in &costs {
        let first = costs.iter().find(|cost| cost.side == *side).map_or(*us, |first| first.us);
        println!(
            "{of:<40} {us:.2} µs of CPU an event, {:.2} times the first, in batches of {batch:.0}; at most {peak_mib:.0} MiB a worker",
            us / first
        );
    }
    Ok(())
}

/// How many transactions wrote the rows.
async fn transactions(services: &Services) -> Result<i64> {
    let mut db = PgConnection::connect(&services.postgres).await?;
    Ok(sqlx::query_scalar("SELECT count(DISTINCT xmin::text) FROM messages").fetch_one(&mut db).await?)
}

/// Rates of one worker and of several, in turns: with commits that take long, and with a database at its limit.
pub(crate) async fn workers(side: &Side, services: &Services, backlog: &Backlog, rounds: usize) -> Result<()> {
    let proxy = Proxy::listen().await.context("listen before the database")?;
    let direct = Url::parse(&services.postgres).context("POSTGRES_URL")?;
    proxy.lead_to(direct.port().unwrap_or(5432));
    let mut through = direct.clone();
    through.set_port(Some(proxy.port)).ok().context("a port in POSTGRES_URL")?;
    proxy.set(Weather::SlowCommits(COMMIT_LATENCY));
    let slow = Job { postgres: through.to_string(), lines: SMALL, ..Job::new(services, backlog, Workload::Persist) };
    println!(
        "\ncommits that take {COMMIT_LATENCY:?}: batches of 10, 4 connections a worker, {} partitions",
        backlog.partitions
    );
    in_turns(side, &slow, &[1, 3], rounds).await?;
    println!("\na database at its limit: everything at its default, {} partitions", backlog.partitions);
    in_turns(side, &Job::new(services, backlog, Workload::Persist), &[1, 2, 3, 4], rounds).await
}

async fn in_turns(side: &Side, job: &Job<'_>, workers: &[usize], rounds: usize) -> Result<()> {
    let mut ratios = vec![Vec::new(); workers.len()];
    for _ in 0..rounds {
        let mut first = None;
        for (workers, ratios) in workers.iter().zip(&mut ratios) {
            let rate = rate(side, job, *workers).await?;
            let ratio = rate / *first.get_or_insert(rate);
            println!("{workers} workers: {rate:>8.0} events/s, {ratio:.2} times one");
            ratios.push(ratio);
        }
    }
    for (workers, ratios) in workers.iter().zip(ratios) {
        let median = median(ratios).unwrap_or(f64::NAN);
        println!("{workers} workers: {median:.2} times one in the median of {rounds}");
    }
    Ok(())
}

/// Events a second while there is a backlog, by the ledger.
async fn rate(side: &Side, job: &Job<'_>, workers: usize) -> Result<f64> {
    let mut db = job.services.empty().await?;
    // Directly: what it takes says nothing of the workers.
    let direct = Job { lines: job.lines, ..Job::new(job.services, job.backlog, job.workload) };
    migrate(&direct)?;
    sql(&mut db, "CHECKPOINT").await?;
    let job = Job { postgres: job.postgres.clone(), ..direct };
    let mut processes = Processes::start(side, &job, workers)?;
    let patience = Instant::now() + Duration::from_secs(60);
    while owners(&mut db).await? < workers || settled(&mut db).await? == 0 {
        processes.check()?;
        ensure!(Instant::now() < patience, "{workers} workers have not shared the partitions within 60 s");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let (before, begun) = (settled(&mut db).await?, Instant::now());
    let (mut now, mut at) = (before, begun);
    while at - begun < WINDOW && now.unsigned_abs() < job.backlog.events * 9 / 10 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        (now, at) = (settled(&mut db).await?, Instant::now());
    }
    drop(processes);
    Ok((now - before) as f64 / (at - begun).as_secs_f64())
}

async fn settled(db: &mut PgConnection) -> Result<i64> {
    Ok(sqlx::query_scalar("SELECT coalesce(sum(next_offset), 0)::bigint FROM weir_ledger").fetch_one(db).await?)
}

/// How many processes write: each has connections of its own name.
async fn owners(db: &mut PgConnection) -> Result<usize> {
    let names: i64 = sqlx::query_scalar(
        "SELECT count(DISTINCT application_name) FROM pg_stat_activity
          WHERE datname = current_database() AND application_name LIKE 'weir/%'",
    )
    .fetch_one(db)
    .await?;
    Ok(usize::try_from(names).unwrap_or(0))
}
