//! The database away, slow, cut at the worst moment, and full.

use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::case::{Case, RECOVERY_MAX};
use crate::load::Mix;
use crate::proxy::Weather;
use crate::until;
use crate::worker::Worker;

const FAULT: Duration = Duration::from_secs(12);

/// No dead letter for it, no rebalance, and a pool with another store does not notice.
pub(super) async fn database_down(case: &mut Case<'_>) -> Result<()> {
    let mix = Mix { odd_per_mille: 0, ..Mix::default() };
    let per_second = mix.per_second as f64;
    case.begin(2, mix).await?;
    let other = other_pool(case).await?;
    until("the other pool to catch up", RECOVERY_MAX, async || Ok(settled(&other)? > 0.0 && lag(&other)? < per_second))
        .await?;
    let rebalances = case.metric("weir_rebalances_total", "");
    let (others, published) = (settled(&other)?, case.book().records);
    let how = ["stop", "kill", "black hole"][case.rng.usize(0..3)];
    case.fault_begins()?;
    if how == "black hole" {
        case.lab.set_databases(case.world.setting, Weather::BlackHole);
    } else {
        case.lab.service(how, case.world.setting.database()).await?;
    }
    case.sleep(FAULT).await;
    let (others, published) = (settled(&other)? - others, (case.book().records - published) as f64);
    let others_lag = lag(&other)?;
    case.lab.clear();
    case.lab.service("start", case.world.setting.database()).await?;
    case.fault_ends()?;
    case.check(others > 0.8 * published, || {
        format!("the other pool settled {others} of {published} during the outage")
    });
    case.check(others_lag < per_second, || format!("the other pool's lag grew to {others_lag}"));
    case.recover().await?;
    let now = case.metric("weir_rebalances_total", "");
    case.check(now == rebalances, || format!("{} rebalances", now - rebalances));
    case.note(format!("by {how}; the other pool settled {others} of {published} in the meantime"));
    Ok(())
}

/// A worker on a database file of its own.
async fn other_pool(case: &Case<'_>) -> Result<Worker> {
    let lab = case.lab;
    let config = case.world.config(lab, 2, "weir", [""; 3]);
    let url = lab.database_url(case.world.setting, 2, &case.world.database, "weir");
    let file = format!("sqlite://{}", case.world.dir.join("other.db").display());
    // A pool of another name: what the set of this one knows, its database has.
    let config =
        config.replace(&url, &file).replace("group = \"", "group = \"other-").replace("pools.", "pools.other-");
    let path = case.world.dir.join("other.toml");
    std::fs::write(&path, &config)?;
    let migrated = Command::new(env!("CARGO_BIN_EXE_weir")).arg("migrate").arg("--config").arg(&path).output()?;
    ensure!(migrated.status.success(), "weir migrate: {}", String::from_utf8_lossy(&migrated.stderr));
    Worker::start(2, &case.world.dir, &config, &[]).await
}

fn settled(worker: &Worker) -> Result<f64> {
    worker.metric("weir_events_settled_total", "pipeline=\"persist\"")
}

fn lag(worker: &Worker) -> Result<f64> {
    worker.metric("weir_lag_events", "")
}

/// Every answer 2 s late: batches shrink, nobody is evicted.
pub(super) async fn database_slow(case: &mut Case<'_>) -> Result<()> {
    case.begin(2, Mix { per_second: 1_000, ..Mix::default() }).await?;
    case.load()?.burst(60_000);
    until("batches to have grown", RECOVERY_MAX, async || Ok(limit(case) >= 50.0)).await?;
    case.load()?.burst(20_000);
    let (before, rebalances) = (limit(case), case.metric("weir_rebalances_total", ""));
    case.fault_begins()?;
    case.lab.set_databases(case.world.setting, Weather::Slow(Duration::from_secs(2)));
    let mut least = before;
    for _ in 0..30 {
        case.sleep(Duration::from_secs(1)).await;
        least = least.min(limit(case));
    }
    let evicted = case.metric("weir_rebalances_total", "") - rebalances;
    case.lab.clear();
    case.fault_ends()?;
    case.check(least < before, || format!("batches did not shrink below {before} events"));
    case.check(evicted == 0.0, || format!("{evicted} rebalances"));
    case.note(format!("batches of at most {before} events went down to {least}"));
    case.recover().await
}

/// The least limit of a batch over the workers.
fn limit(case: &Case<'_>) -> f64 {
    let limits = case.workers.iter().filter_map(|worker| worker.metric("weir_batch_limit_events", "").ok());
    limits.fold(f64::INFINITY, f64::min)
}

/// Connections end before the COMMIT reaches the database, and then before its answer comes back.
pub(super) async fn cut_at_commit(case: &mut Case<'_>) -> Result<()> {
    case.begin(3, Mix::default()).await?;
    let setting = case.world.setting;
    let cuts = |case: &Case<'_>| case.lab.slots.iter().map(|slot| slot.database(setting).cuts()).sum::<u64>();
    let mut told = Vec::new();
    for before in [true, false] {
        let (every, begun) = (case.rng.u64(5..15), cuts(case));
        case.fault_begins()?;
        case.lab.set_databases(setting, Weather::CutAtCommit { before, every });
        case.sleep(Duration::from_secs(8)).await;
        case.lab.clear();
        case.fault_ends()?;
        let made = cuts(case) - begun;
        case.check(made >= 5, || format!("only {made} connections were cut"));
        told.push(format!("{made} {}", if before { "before it" } else { "after it" }));
        case.moving().await?;
    }
    case.recover().await?;
    let fences = case.metric("weir_fences_total", "");
    case.check(fences == 0.0, || format!("{fences} fences: a commit of one's own was taken for somebody else's"));
    case.note(format!("cut at COMMIT: {}", told.join(", ")));
    Ok(())
}

/// Says why a small file system cannot be made here.
pub(super) fn no_small_disk() -> Option<String> {
    match SmallDisk::mount() {
        Ok(disk) => {
            drop(disk);
            None
        }
        Err(error) => Some(format!("a small file system cannot be mounted ({error:#}); it takes root")),
    }
}

/// The table's disk is full for a while.
pub(super) async fn disk_full(case: &mut Case<'_>) -> Result<()> {
    let disk = SmallDisk::mount()?;
    let place = format!("CREATE TABLESPACE small LOCATION '{}'", disk.0.display());
    case.lab.server_sql(case.world.setting, &place).await?;
    let moved = "ALTER TABLE messages SET TABLESPACE small; ALTER INDEX messages_pkey SET TABLESPACE small";
    case.world.sql(moved).await?;
    let ran = fill(case, &disk).await;
    // The audit reads the table, and the disk goes with the row.
    while !case.workers.is_empty() {
        case.stop_worker(0).await?;
    }
    let back = "ALTER TABLE messages SET TABLESPACE pg_default; ALTER INDEX messages_pkey SET TABLESPACE pg_default";
    case.world.sql(back).await?;
    case.lab.server_sql(case.world.setting, "DROP TABLESPACE small").await?;
    ran
}

async fn fill(case: &mut Case<'_>, disk: &SmallDisk) -> Result<()> {
    case.begin(2, Mix::default()).await?;
    let rebalances = case.metric("weir_rebalances_total", "");
    case.fault_begins()?;
    disk.fill()?;
    until("the full disk to be noticed", RECOVERY_MAX, async || {
        Ok(case.workers.iter().any(|worker| worker.log().contains("SQLSTATE 53100")))
    })
    .await?;
    case.sleep(FAULT).await;
    disk.free()?;
    case.fault_ends()?;
    case.recover().await?;
    let retries = case.metric("weir_retries_total", "outage");
    let now = case.metric("weir_rebalances_total", "");
    case.check(now == rebalances, || format!("{} rebalances", now - rebalances));
    let most = FAULT.as_secs_f64() * f64::from(case.world.partitions) * 2.0;
    case.check(retries < most, || format!("{retries} attempts while the disk was full: it was not backed off"));
    case.note(format!("{retries} attempts met the full disk"));
    Ok(())
}

/// A file system of memory, unmounted when it is dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount() -> Result<Self> {
        let place = PathBuf::from(format!("/var/lib/weir-services/small-{}", std::process::id()));
        std::fs::create_dir_all(&place)?;
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=96M,mode=0700,uid=postgres,gid=postgres", "tmpfs"])
            .arg(&place)
            .output()?;
        ensure!(mount.status.success(), "{}", String::from_utf8_lossy(&mount.stderr).trim());
        Ok(Self(place))
    }

    fn fill(&self) -> Result<()> {
        let mut filler = File::create(self.0.join("filler"))?;
        let megabyte = vec![1; 1 << 20];
        while filler.write_all(&megabyte).is_ok() {}
        while filler.write_all(&[1; 512]).is_ok() {}
        Ok(())
    }

    fn free(&self) -> Result<()> {
        std::fs::remove_file(self.0.join("filler")).context("free the disk")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        Command::new("umount").arg("-l").arg(&self.0).status().ok();
        std::fs::remove_dir(&self.0).ok();
    }
}
