//! A worker process, held by its pid.

use std::collections::HashSet;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use uuid::Uuid;

use super::until;

pub(crate) struct Worker {
    pub(crate) slot: usize,
    child: Child,
    log: PathBuf,
    health: String,
    /// Set when the harness itself ends it: any other end is a finding.
    is_ended: bool,
}

impl Worker {
    /// Starts `weir run` with a configuration, in an environment of its own; returns when it serves its health.
    pub(crate) async fn start(slot: usize, dir: &Path, config: &str, env: &[(String, String)]) -> Result<Self> {
        let name = format!("worker-{slot}-{}", &Uuid::new_v4().simple().to_string()[..6]);
        let (file, log) = (dir.join(format!("{name}.toml")), dir.join(format!("{name}.log")));
        std::fs::write(&file, config)?;
        let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
        command.arg("run").arg("--config").arg(&file).envs(env.iter().map(|(name, value)| (name, value)));
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&log)?).spawn()?;
        let mut worker = Self { slot, child, log, health: String::new(), is_ended: false };
        until("a worker to serve its health", Duration::from_secs(30), async || {
            let log = worker.log();
            let line = log.lines().find(|line| line.contains("health and metrics listening"));
            let address = line.and_then(|line| Some(line.split_once("address=")?.1.trim().to_owned()));
            worker.health = address.unwrap_or_default();
            Ok(!worker.health.is_empty())
        })
        .await?;
        Ok(worker)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The tokens of all its claims so far, with which the ledger tells whose a partition is.
    pub(crate) fn claims(&self) -> HashSet<Uuid> {
        let token = |line: &str| line.split_once(" owner=")?.1.split(' ').next()?.parse().ok();
        self.log().lines().filter(|line| line.contains(" claimed ")).filter_map(token).collect()
    }

    pub(crate) fn signal(&self, name: &str) -> Result<()> {
        let sent = Command::new("kill").arg(format!("-{name}")).arg(self.pid().to_string()).status()?;
        ensure!(sent.success(), "worker {} is gone", self.pid());
        Ok(())
    }

    /// Its end is the row's own doing.
    pub(crate) fn may_be_over(&mut self) {
        self.is_ended = true;
    }

    /// SIGKILL, and waits for its end.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.is_ended = true;
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// SIGTERM; its exit status and how long it took. One that does not end is killed.
    pub(crate) async fn terminate(&mut self) -> Result<(ExitStatus, Duration)> {
        self.is_ended = true;
        let begun = Instant::now();
        self.signal("TERM")?;
        while begun.elapsed() < Duration::from_secs(30) {
            if let Some(status) = self.child.try_wait()? {
                return Ok((status, begun.elapsed()));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.child.kill()?;
        Ok((self.child.wait()?, begun.elapsed()))
    }

    /// Whether it ended by itself.
    pub(crate) fn has_died(&mut self) -> Option<ExitStatus> {
        if self.is_ended { None } else { self.child.try_wait().ok().flatten() }
    }

    /// The most memory it ever had, in bytes; `None` once it has ended.
    pub(crate) fn peak_memory(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        let kib: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
        Some(kib * 1024)
    }

    pub(crate) fn get(&self, path: &str) -> Result<String> {
        let mut stream = TcpStream::connect(&self.health).context("connect to a worker's health")?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        write!(stream, "GET {path} HTTP/1.1\r\nhost: weir\r\nconnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }

    /// The sum of a metric's series whose labels contain a text.
    pub(crate) fn metric(&self, name: &str, labels: &str) -> Result<f64> {
        let of = |line: &str| -> Option<f64> {
            let rest = line.strip_prefix(name)?;
            let (found, value) = rest.rsplit_once(' ')?;
            (found.is_empty() || found.starts_with('{')).then_some(())?;
            found.contains(labels).then(|| value.parse().ok())?
        };
        Ok(self.get("/metrics")?.lines().filter_map(of).sum())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(Some(_))) {
            self.child.kill().ok();
            self.child.wait().ok();
        }
    }
}
