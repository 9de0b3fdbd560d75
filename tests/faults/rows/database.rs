//! What the database does, or others do in it.

use std::collections::HashSet;
use std::fs::File;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use sqlx::{Connection as _, Executor as _};

use crate::case::{Case, RECOVERY_MAX};
use crate::database::Database;
use crate::lab::Lab;
use crate::load::Mix;
use crate::setting::Setting;
use crate::until;
use crate::worker::Worker;

use super::rates::rates;

/// As configured by default, and a little for looking.
const IDLE_IN_TRANSACTION_MAX: Duration = Duration::from_secs(5 + 3);
const RATE_MIN: f64 = 0.7;
/// What a dump does first.
const SNAPSHOT: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM weir_ledger";

/// A second session takes the same locks in the opposite order, and weir is the victim.
pub(super) async fn deadlocked(case: &mut Case<'_>) -> Result<()> {
    case.begin(2, Mix::default()).await?;
    let deadlocks = match case.world.setting {
        Setting::Mariadb => {
            "SELECT CAST(variable_value AS SIGNED) FROM information_schema.global_status
              WHERE variable_name = 'INNODB_DEADLOCKS'"
        }
        _ => "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()",
    };
    let before = case.world.count(deadlocks).await?;
    let session = case.lab.open(case.world.setting, &case.world.database, 1).await?;
    let is_strong = match case.world.setting {
        // Whoever has written least is its victim.
        Setting::Mariadb => {
            "CREATE TABLE heavy (id integer PRIMARY KEY, n integer NOT NULL);
             INSERT INTO heavy SELECT seq, 0 FROM seq_1_to_20000"
        }
        // Whoever has waited longest looks first for a deadlock, and is its victim.
        _ => "SET deadlock_timeout = '30s'",
    };
    session.sql(is_strong).await?;
    case.fault_begins()?;
    let rounds = if case.scale < 1.0 { 2 } else { 6 };
    for _ in 0..rounds {
        let partition = case.rng.i32(0..case.world.partitions);
        cross(&session, partition).await?;
        case.sleep(Duration::from_millis(500)).await;
    }
    case.fault_ends()?;
    session.close().await;
    case.recover().await?;
    case.sleep(Duration::from_secs(1)).await;
    let found = case.world.count(deadlocks).await? - before;
    let retries = case.metric("weir_retries_total", "busy");
    case.check(found > 0, || "there was no deadlock".to_owned());
    case.check(retries > 0.0, || "no batch was tried again".to_owned());
    case.note(format!("{found} deadlocks in {rounds} rounds; {retries} batches tried again"));
    Ok(())
}

/// weir locks a partition's ledger row first and its counters last.
async fn cross(session: &Database, partition: i32) -> Result<()> {
    let counters = "SELECT 1 FROM weir_counts WHERE dimension = 'type' FOR UPDATE";
    let sql = match session {
        Database::Postgres(_) => format!(
            "BEGIN; {counters}; SELECT pg_sleep(0.3);
             SELECT 1 FROM weir_ledger WHERE partition = {partition} FOR UPDATE; COMMIT"
        ),
        Database::Mariadb(_) => format!(
            "START TRANSACTION; UPDATE heavy SET n = n + 1; {counters}; DO SLEEP(0.3);
             SELECT 1 FROM weir_ledger WHERE `partition` = {partition} FOR UPDATE; COMMIT"
        ),
    };
    session.sql(&sql).await.context("the session itself was the victim")
}

/// A dump of some seconds ago takes the database's place; Redis and Kafka know better.
pub(super) async fn restored(case: &mut Case<'_>) -> Result<()> {
    case.begin(2, Mix::default()).await?;
    let (database, dump) = (case.world.database.clone(), case.world.dir.join("dump"));
    let (lab, setting) = (case.lab, case.world.setting);
    dump_to(lab, setting, &database, &dump).await?;
    case.sleep(Duration::from_secs(8)).await;
    let rows = case.world.count("SELECT count(*) FROM messages").await?;
    case.fault_begins()?;
    case.watch()?.may_go_back(true);
    case.set_may_lead = true;
    lab.drop_database(setting, &database).await?;
    lab.make_database(setting, &database).await?;
    restore_from(lab, setting, &database, &dump).await?;
    case.watch()?.forget();
    let restored =
        case.world.count("SELECT count(*) FROM messages WHERE received_at < now() - interval '3' second").await?;
    case.check(restored < rows, || "the dump is not older".to_owned());
    case.fault_ends()?;
    case.recover().await?;
    case.note(format!("{rows} rows before, {restored} in the dump"));
    case.watch()?.may_go_back(false);
    Ok(())
}

async fn dump_to(lab: &Lab, setting: Setting, database: &str, file: &Path) -> Result<()> {
    match setting {
        Setting::Mariadb => {
            let mut dump = lab.mariadb_tool("mariadb-dump")?;
            run(dump.arg("--single-transaction").arg(format!("--result-file={}", file.display())).arg(database)).await
        }
        _ => run(lab.postgres_tool("pg_dump")?.args(["-Fc", "-f"]).arg(file).arg(database)).await,
    }
}

async fn restore_from(lab: &Lab, setting: Setting, database: &str, file: &Path) -> Result<()> {
    match setting {
        Setting::Mariadb => run(lab.mariadb_tool("mariadb")?.arg(database).stdin(File::open(file)?)).await,
        _ => run(lab.postgres_tool("pg_restore")?.args(["-d", database]).arg(file)).await,
    }
}

async fn run(command: &mut Command) -> Result<()> {
    let child = command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::piped()).spawn()?;
    let done = tokio::task::spawn_blocking(move || child.wait_with_output()).await??;
    ensure!(done.status.success(), "{}: {}", command.get_program().display(), String::from_utf8_lossy(&done.stderr));
    Ok(())
}

/// The table is missing, and then must not be written, each for a while: nothing is set aside for it.
pub(super) async fn table_missing(case: &mut Case<'_>) -> Result<()> {
    let database = &case.world.database;
    let limited = match case.world.setting {
        Setting::Mariadb => {
            const TABLES: [&str; 8] = [
                "messages",
                "weir_ledger",
                "weir_dead",
                "weir_seen",
                "weir_counts",
                "weir_pipelines",
                "weir_seeks",
                "weir_replayed",
            ];
            let grants = TABLES.map(|table| format!("GRANT INSERT ON {database}.{table} TO limited"));
            format!(
                "CREATE USER IF NOT EXISTS limited IDENTIFIED BY 'weir';
                 GRANT SELECT, UPDATE, DELETE ON {database}.* TO limited; {}",
                grants.join("; ")
            )
        }
        _ => "DO $$ BEGIN CREATE ROLE limited LOGIN PASSWORD 'weir'; EXCEPTION WHEN duplicate_object THEN NULL; END $$;
              GRANT ALL ON ALL TABLES IN SCHEMA public TO limited; GRANT ALL ON SCHEMA public TO limited"
            .to_owned(),
    };
    case.world.sql(&limited).await?;
    case.user = "limited".to_owned();
    case.begin(2, Mix { odd_per_mille: 0, ..Mix::default() }).await?;
    let faults = [
        ("ALTER TABLE messages RENAME TO hidden", "ALTER TABLE hidden RENAME TO messages"),
        ("REVOKE INSERT ON messages FROM limited", "GRANT INSERT ON messages TO limited"),
    ];
    for (breaks, mends) in faults {
        case.shared().await?;
        let rebalances = case.metric("weir_rebalances_total", "");
        case.fault_begins()?;
        case.world.sql(breaks).await?;
        let held = until("every partition to be held", RECOVERY_MAX, async || {
            Ok(case.metric("weir_holds", "") == f64::from(case.world.partitions))
        })
        .await;
        case.sleep(Duration::from_secs(5)).await;
        let is_said =
            case.workers.iter().all(|worker| worker.get("/readyz").is_ok_and(|ready| ready.contains("messages")));
        case.world.sql(mends).await?;
        case.fault_ends()?;
        held.context(breaks)?;
        let dead = case.world.count("SELECT count(*) FROM weir_dead").await?;
        let now = case.metric("weir_rebalances_total", "");
        case.check(is_said, || format!("{breaks}: /readyz does not say why"));
        case.check(dead == 0, || format!("{breaks}: {dead} dead rows"));
        case.check(now == rebalances, || format!("{breaks}: {} rebalances", now - rebalances));
        case.moving().await?;
    }
    case.recover().await?;
    until("the holds to end", RECOVERY_MAX, async || Ok(case.metric("weir_holds", "") == 0.0)).await
}

/// The database frees the row by itself; the heirs go on.
pub(super) async fn frozen_inside_transaction(case: &mut Case<'_>) -> Result<()> {
    case.begin(3, Mix::default()).await?;
    case.load()?.burst(60_000);
    let at = case.rng.usize(0..case.workers.len());
    case.fault_begins()?;
    freeze_when(case, at, true).await?;
    let frozen_at = Instant::now();
    until("the frozen worker's rows to be free", IDLE_IN_TRANSACTION_MAX, async || {
        Ok(!is_inside_transaction(case, &case.workers[at]).await?)
    })
    .await?;
    let freed = frozen_at.elapsed();
    let mut then = case.world.ledger().await?.iter().map(|row| (row.partition, row.next_offset)).collect();
    case.advanced(&mut then, RECOVERY_MAX).await.context("takeover")?;
    case.workers[at].signal("CONT")?;
    case.fault_ends()?;
    case.recover().await?;
    case.note(format!("the row was free after {:.1} s", freed.as_secs_f64()));
    Ok(())
}

/// Whether one of a worker's connections is inside a transaction of a batch.
pub(super) async fn is_inside_transaction(case: &Case<'_>, worker: &Worker) -> Result<bool> {
    let ports = case.lab.slots[worker.slot].database(case.world.setting).ports();
    Ok(case.world.db.is_inside_transaction(worker.pid(), &ports, true).await?)
}

/// Whether one of its connections has begun a transaction: the database will end it while the process is frozen.
async fn has_begun(case: &Case<'_>, worker: &Worker) -> Result<bool> {
    let ports = case.lab.slots[worker.slot].database(case.world.setting).ports();
    Ok(case.world.db.is_inside_transaction(worker.pid(), &ports, false).await?)
}

/// Freezes a worker at a moment when it has work in hand, and is inside a transaction or not.
pub(super) async fn freeze_when(case: &mut Case<'_>, at: usize, inside: bool) -> Result<()> {
    let deadline = Instant::now() + RECOVERY_MAX;
    while Instant::now() < deadline {
        case.workers[at].signal("STOP")?;
        // What the stopped process had already sent to the database is let through first.
        tokio::time::sleep(Duration::from_millis(20)).await;
        let claims: HashSet<_> = case.workers[at].claims();
        let ends = case.book().ends.clone();
        let behind = case.world.ledger().await?.iter().any(|row| {
            let end = ends.get(&row.partition).copied().unwrap_or(0);
            row.owner.is_some_and(|owner| claims.contains(&owner)) && end > row.next_offset + 500
        });
        if !behind && case.load()?.burst_left() == 0 {
            case.load()?.burst(40_000);
        }
        let is_there = match inside {
            true => is_inside_transaction(case, &case.workers[at]).await?,
            false => !has_begun(case, &case.workers[at]).await?,
        };
        if behind && is_there {
            return Ok(());
        }
        case.workers[at].signal("CONT")?;
        let run_for = case.rng.u64(3..26);
        tokio::time::sleep(Duration::from_millis(run_for)).await;
    }
    anyhow::bail!("the worker was not caught {} a transaction", if inside { "inside" } else { "outside" })
}

/// How old the snapshot is when the rate is measured.
const SNAPSHOT_AGE: Duration = Duration::from_secs(10);

/// A dump that runs for long keeps every old version of the ledger's rows.
pub(super) async fn long_snapshot(case: &mut Case<'_>) -> Result<()> {
    let pool = case.lab.open(case.world.setting, &case.world.database, 1).await?;
    let mut session = pool.postgres().acquire().await?.detach();
    let rates = rates(case, 1_000_000, async |case, on| {
        if on {
            session.execute(SNAPSHOT).await?;
            case.sleep(SNAPSHOT_AGE).await;
        } else {
            session.execute("ROLLBACK").await?;
        }
        Ok(())
    })
    .await?;
    case.check(rates.ratio() >= RATE_MIN, || format!("the rate fell to {rates}"));
    session.execute(SNAPSHOT).await?;
    case.start_load(Mix::default())?;
    case.load()?.burst(300_000);
    let told = until("the workers to see and to tell the ledger's bloat", RECOVERY_MAX * 2, async || {
        let is_told = case.workers.iter().all(|worker| worker.log().contains("weir_ledger grows"));
        Ok(is_told && case.workers.iter().all(|worker| worker.metric("weir_ledger_bytes", "").is_ok_and(|b| b > 1e6)))
    })
    .await;
    let bytes = case.world.count("SELECT pg_relation_size('weir_ledger')").await?;
    session.execute("ROLLBACK").await?;
    case.fault_ends()?;
    if let Err(error) = told {
        case.findings.push(format!("{error:#}"));
    }
    case.note(format!("the rate: {rates}; the ledger grew to {} KiB", bytes >> 10));
    session.close().await?;
    case.recover().await
}
