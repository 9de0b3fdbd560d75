//! The workers' clock jumps.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};

use crate::case::Case;
use crate::load::Mix;
use crate::until;

/// Where distributions put it.
const LIBRARIES: [&str; 3] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib64/faketime/libfaketimeMT.so.1",
];
const HOUR_S: i64 = 3_600;

fn library() -> Option<PathBuf> {
    LIBRARIES.iter().map(PathBuf::from).find(|path| path.exists())
}

pub(super) fn no_fake_clock() -> Option<String> {
    library().is_none().then(|| "libfaketime is not installed (Debian: faketime)".to_owned())
}

/// Compiles what has a program with jemalloc start under libfaketime.
fn starter(dir: &Path) -> Result<PathBuf> {
    let (source, library) = (dir.join("clock.c"), dir.join("clock.so"));
    std::fs::write(&source, include_str!("clock.c"))?;
    let compiled = Command::new("cc")
        .args(["-shared", "-fPIC", "-O2", "-o"])
        .args([&library, &source])
        .output()
        .context("run cc, the C compiler")?;
    ensure!(compiled.status.success(), "cc {}: {}", source.display(), String::from_utf8_lossy(&compiled.stderr).trim());
    Ok(library)
}

/// An hour forward and an hour back, each with the database away for a while: retries go by a clock that does not jump.
pub(super) async fn jumped(case: &mut Case<'_>) -> Result<()> {
    let file = case.world.dir.join("clock");
    set(&file, 0)?;
    let library = library().context("libfaketime")?;
    let starter = starter(&case.world.dir)?;
    let env = [
        ("LD_PRELOAD", format!("{} {}", starter.display(), library.display())),
        ("FAKETIME_TIMESTAMP_FILE", file.display().to_string()),
        ("FAKETIME_CACHE_DURATION", "1".to_owned()),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ("DONT_FAKE_MONOTONIC", "1".to_owned()),
    ];
    case.worker_env.extend(env.map(|(name, value)| (name.to_owned(), value)));
    case.begin(2, Mix::default()).await?;
    let mut told = Vec::new();
    for offset_s in [HOUR_S, -HOUR_S] {
        case.fault_begins()?;
        case.lab.service("stop", "postgres").await?;
        set(&file, offset_s)?;
        case.sleep(Duration::from_secs(3)).await;
        case.lab.service("start", "postgres").await?;
        case.fault_ends()?;
        case.moving().await.with_context(|| format!("a clock {offset_s} s off"))?;
        case.sleep(Duration::from_secs(3)).await;
        // Its own log says what a worker takes the time to be.
        until("the workers' clocks to have jumped", Duration::from_secs(20), async || {
            Ok(case
                .workers
                .iter()
                .all(|worker| jump_s(&worker.log()).is_some_and(|jump| (jump - offset_s).abs() < 120)))
        })
        .await?;
        told.push(format!("{:+} h", offset_s / HOUR_S));
    }
    set(&file, 0)?;
    case.sleep(Duration::from_secs(2)).await;
    case.fault_ends()?;
    case.recover().await?;
    case.note(format!("clocks at {}, the database away at each jump", told.join(" and ")));
    Ok(())
}

fn set(file: &Path, offset_s: i64) -> Result<()> {
    std::fs::write(file, format!("{offset_s:+}s\n")).context("set the clock")
}

/// How far the last line of a log is from now.
fn jump_s(log: &str) -> Option<i64> {
    let time = log.lines().rev().find_map(|line| line.split_whitespace().next()?.strip_suffix('Z'))?;
    let (_, clock) = time.split_once('T')?;
    let mut parts = clock.split(':');
    let of_day = parts.next()?.parse::<i64>().ok()? * HOUR_S + parts.next()?.parse::<i64>().ok()? * 60;
    let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs()).ok()? % 86_400;
    let jump = of_day - now;
    Some((jump + 43_200).rem_euclid(86_400) - 43_200)
}
