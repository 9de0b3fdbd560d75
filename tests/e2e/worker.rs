//! A worker process, held by its pid.

use std::collections::HashSet;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::world::World;
use super::{PATIENCE, until};

pub(crate) struct Worker {
    child: Child,
    log: PathBuf,
    health: String,
}

impl Worker {
    pub(crate) async fn start(world: &World) -> Self {
        Self::start_with(world, "").await
    }

    /// A worker with lines of its own in the pool's section. Returns when it serves its health.
    pub(crate) async fn start_with(world: &World, pool_lines: &str) -> Self {
        Self::spawn(world.weir_with(&world.config(pool_lines), &["run"]), world).await
    }

    pub(crate) async fn start_configured(world: &World, config: &str) -> Self {
        Self::spawn(world.weir_with(config, &["run"]), world).await
    }

    pub(crate) async fn spawn(mut command: Command, world: &World) -> Self {
        let log = world.dir.join(format!("{}.log", uuid::Uuid::new_v4().simple()));
        let stderr = File::create(&log).unwrap();
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr).spawn().unwrap();
        let mut worker = Self { child, log, health: String::new() };
        let mut health = None;
        until("the worker to serve its health", PATIENCE, async || {
            let log = worker.log();
            health = log
                .lines()
                .find(|line| line.contains("health and metrics listening"))
                .and_then(|line| Some(line.split_once("address=")?.1.trim().to_owned()));
            (health.is_some(), log)
        })
        .await;
        worker.health = health.unwrap();
        worker
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where it serves its health and metrics.
    pub(crate) fn address(&self) -> &str {
        &self.health
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The tokens of all its claims so far, with which the ledger tells whose a partition is.
    pub(crate) fn claims(&self) -> HashSet<Uuid> {
        let token = |line: &str| line.split_once(" owner=")?.1.split(' ').next()?.parse().ok();
        self.log().lines().filter(|line| line.contains(" claimed ")).filter_map(token).collect()
    }

    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill").arg(format!("-{name}")).arg(self.pid().to_string()).status().unwrap();
        assert!(sent.success(), "the worker {} is gone:\n{}", self.pid(), self.log());
    }

    /// SIGKILL, and waits for its end.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM; its exit status and how long it took.
    pub(crate) fn terminate(&mut self) -> (ExitStatus, Duration) {
        let begun = Instant::now();
        self.signal("TERM");
        (self.child.wait().unwrap(), begun.elapsed())
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    pub(crate) fn exit_code(&mut self) -> Option<i32> {
        self.child.try_wait().unwrap()?.code()
    }

    pub(crate) fn get(&self, path: &str) -> String {
        let asked = || -> std::io::Result<String> {
            let mut stream = TcpStream::connect(&self.health)?;
            stream.set_read_timeout(Some(Duration::from_secs(10)))?;
            write!(stream, "GET {path} HTTP/1.1\r\nhost: weir\r\nconnection: close\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        };
        asked().unwrap_or_else(|error| panic!("{path}: {error}\n{}", self.log()))
    }

    /// The sum of a metric's series whose labels contain a text.
    pub(crate) fn metric(&self, name: &str, labels: &str) -> f64 {
        let of = |line: &str| -> Option<f64> {
            let rest = line.strip_prefix(name)?;
            let (found, value) = rest.rsplit_once(' ')?;
            (found.is_empty() || found.starts_with('{')).then_some(())?;
            found.contains(labels).then(|| value.parse().ok())?
        };
        self.get("/metrics").lines().filter_map(of).sum()
    }

    /// Waits until it owns so many partitions.
    pub(crate) async fn owns(&self, partitions: i32) {
        until("the worker to own its partitions", PATIENCE, async || {
            let assigned = self.metric("weir_partitions_assigned", "");
            let claims = self.metric("weir_claims_total", "");
            (assigned >= f64::from(partitions) && claims >= f64::from(partitions), (assigned, claims))
        })
        .await;
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if !self.has_ended() {
            self.child.kill().ok();
            self.child.wait().ok();
        }
        if std::thread::panicking() {
            eprintln!("--- worker {}\n{}", self.pid(), self.log());
        }
    }
}

/// The ports of a process's own ends of its TCP connections.
pub(crate) fn ports_of(pid: u32) -> Vec<u16> {
    let process = Path::new("/proc").join(pid.to_string());
    let Ok(files) = std::fs::read_dir(process.join("fd")) else { return Vec::new() };
    let sockets: HashSet<String> = files
        .filter_map(|file| std::fs::read_link(file.ok()?.path()).ok()?.to_str().map(str::to_owned))
        .filter_map(|link| Some(link.strip_prefix("socket:[")?.trim_end_matches(']').to_owned()))
        .collect();
    let table = std::fs::read_to_string(process.join("net/tcp")).unwrap_or_default();
    let port = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let is_own = sockets.contains(*fields.get(9)?);
        is_own.then(|| u16::from_str_radix(fields[1].rsplit_once(':')?.1, 16).ok())?
    };
    table.lines().skip(1).filter_map(port).collect()
}
