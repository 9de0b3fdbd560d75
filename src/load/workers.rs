//! Worker processes that a run starts, of this same binary with the same configuration, and ends.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use tokio::process::{Child, Command};

/// How often a file or a process is looked at that is waited for.
const LOOK: Duration = Duration::from_millis(50);
/// How much longer than its drain deadline a worker may take to end.
const BEYOND_DRAIN: Duration = Duration::from_secs(15);

/// The options that `weir` itself was called with, which its workers get too.
#[derive(Debug, Clone, Default)]
pub struct Called {
    /// The configuration files.
    pub config: Vec<PathBuf>,
    /// The settings.
    pub set: Vec<String>,
}

/// One worker. Dropped before it has ended, it is killed.
pub(super) struct Worker {
    child: Child,
    pid: u32,
    log: PathBuf,
    pub(super) address: String,
}

/// Starts workers and waits until each serves its health.
pub(super) async fn start(
    count: usize,
    called: &Called,
    pool: &str,
    folder: &Path,
    within: Duration,
) -> Result<Vec<Worker>> {
    let mut workers = Vec::with_capacity(count);
    for number in 1..=count {
        // One console shows the whole group, and its address may be given.
        let console = if number == 1 { None } else { Some("console.listen=off") };
        workers.push(Worker::start(called, pool, console, folder.join(format!("worker-{number}.log")))?);
    }
    let until = Instant::now() + within;
    for worker in &mut workers {
        worker.find_address(until).await?;
    }
    Ok(workers)
}

/// The processes that are running, for whoever ends this one at once.
static RUNNING: Mutex<Vec<u32>> = Mutex::new(Vec::new());

/// Kills the workers that are running: nobody would end them any more.
pub fn abandon_workers() {
    for pid in RUNNING.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
        std::process::Command::new("kill").arg("-KILL").arg(pid.to_string()).status().ok();
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        RUNNING.lock().unwrap_or_else(PoisonError::into_inner).retain(|pid| *pid != self.pid);
    }
}

impl Worker {
    fn start(called: &Called, pool: &str, console: Option<&str>, log: PathBuf) -> Result<Self> {
        let binary = std::env::current_exe().context("find weir's own binary")?;
        let output = File::create(&log).with_context(|| format!("create {}", log.display()))?;
        let mut command = Command::new(binary);
        command.args(["run", "--pool", pool]);
        called.config.iter().for_each(|file| _ = command.arg("--config").arg(file));
        called.set.iter().for_each(|set| _ = command.arg("--set").arg(set));
        let own = ["health.listen=127.0.0.1:0", "log.format=text", "log.level=info"];
        for set in own.into_iter().chain(console) {
            command.arg("--set").arg(set);
        }
        // Its address is read from its log. In a process group of its own, Ctrl-C does not end it before the run.
        command.env_remove("RUST_LOG").process_group(0).kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(output);
        let child = command.spawn().context("start a worker")?;
        let pid = child.id().context("start a worker: it has ended")?;
        RUNNING.lock().unwrap_or_else(PoisonError::into_inner).push(pid);
        Ok(Self { child, pid, log, address: String::new() })
    }

    async fn find_address(&mut self, until: Instant) -> Result<()> {
        loop {
            let log = std::fs::read_to_string(&self.log).unwrap_or_default();
            let line = log.lines().find(|line| line.contains("health and metrics listening"));
            if let Some((_, address)) = line.and_then(|line| line.split_once("address=")) {
                address.trim().clone_into(&mut self.address);
                return Ok(());
            }
            if let Some(ended) = self.has_ended() {
                bail!(ended);
            }
            if Instant::now() > until {
                bail!("a worker did not tell its health address in time; its log is {}", self.log.display());
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// How it ended, if it has, though it was not told to.
    pub(super) fn has_ended(&mut self) -> Option<String> {
        let status = self.child.try_wait().ok()??;
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let last = log.lines().last().unwrap_or("it said nothing");
        Some(format!("a worker has ended ({status}): {last}; its log is {}", self.log.display()))
    }

    /// SIGTERM, and waits for its end. Says what went wrong.
    pub(super) async fn end(mut self, drain_deadline: Duration) -> Result<()> {
        if let Some(ended) = self.has_ended() {
            bail!(ended);
        }
        let told = Command::new("kill").arg("-TERM").arg(self.pid.to_string()).status().await;
        told.context("tell a worker to stop with kill -TERM")?;
        match tokio::time::timeout(drain_deadline + BEYOND_DRAIN, self.child.wait()).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => bail!("a worker ended with {status}; its log is {}", self.log.display()),
            Ok(Err(error)) => Err(error).context("wait for a worker's end"),
            Err(_) => bail!("a worker did not end in time and is killed; its log is {}", self.log.display()),
        }
    }
}
