//! A topic, a database and a directory of one test, and the binary in it.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use uuid::Uuid;

use crate::common::kafka::{PATIENCE, Topic};
use crate::common::services;

/// What a pool named `bad` does, in a group of its own.
const POOL: &str = "[[pools.bad.pipelines]]\nname = \"persist\"\nhandler = \"persist\"\n";

/// Waits until something is so; panics with what it is when it never becomes so.
#[track_caller]
pub(crate) fn until<T: std::fmt::Debug>(what: &str, mut look: impl FnMut() -> (bool, T)) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (is_so, seen) = look();
        if is_so {
            return;
        }
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}; last seen: {seen:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Runs one statement; what it counts, where it counts.
fn sql(url: &str, sql: &str) -> Option<i64> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut db = PgConnection::connect(url).await.unwrap();
        let row = sqlx::query_scalar(AssertSqlSafe(sql.to_owned())).fetch_optional(&mut db).await;
        db.close().await.unwrap();
        row.unwrap_or_else(|error| panic!("{sql}: {error}"))
    })
}

/// The address of a service as host and port.
pub(crate) fn host_of(url: &str) -> String {
    let rest = url.rsplit_once('@').map_or(url, |(_, rest)| rest);
    rest.split('/').next().unwrap().to_owned()
}

pub(crate) struct Place {
    dir: PathBuf,
    database: String,
    pub(crate) group: String,
    pub(crate) topic: Topic,
}

impl Place {
    /// A topic and an empty database.
    pub(crate) fn new() -> Self {
        let id = Uuid::new_v4().simple().to_string();
        let database = format!("weir_bad_{id}");
        sql(&services::env("POSTGRES_URL"), &format!("CREATE DATABASE {database}"));
        let dir = std::env::temp_dir().join(&database);
        std::fs::create_dir_all(&dir).unwrap();
        let place = Self { dir, database, group: format!("bad-{id}"), topic: Topic::new(2) };
        let (brokers, redis) = (services::env("KAFKA_BROKERS"), services::env("REDIS_URL"));
        let (url, group, topic) = (place.url(), &place.group, &place.topic.0);
        let config = format!(
            "startup_timeout = \"2s\"\n[kafka]\nbrokers = [\"{brokers}\"]\nmetadata_refresh_ms = 1000\n\
             [store]\nurl = \"{url}\"\n[redis]\nurl = \"{redis}\"\n[health]\nlisten = \"127.0.0.1:0\"\n\
             [pools.bad]\ngroup = \"{group}\"\ntopics = [\"{topic}\"]\nstart = \"beginning\"\n{POOL}"
        );
        place.file("weir.toml", &config);
        place
    }

    /// The same with weir's tables.
    pub(crate) fn migrated() -> Self {
        let place = Self::new();
        let ran = place.weir(&["migrate"]);
        assert_eq!(ran.code, Some(0), "{ran:?}");
        place
    }

    /// A path in the directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    pub(crate) fn file(&self, name: &str, content: &str) -> String {
        let path = self.dir.join(name);
        std::fs::write(&path, content).unwrap();
        path.display().to_string()
    }

    /// The database's address.
    pub(crate) fn url(&self) -> String {
        let url = services::env("POSTGRES_URL");
        format!("{}/{}", url.rsplit_once('/').unwrap().0, self.database)
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
        command.arg("--config").arg(self.dir.join("weir.toml")).args(args);
        command.env_remove("RUST_LOG").stdin(Stdio::null());
        command
    }

    /// Runs a command that ends by itself; one that does not is ended with 124.
    pub(crate) fn weir(&self, args: &[&str]) -> Ran {
        let mut command = Command::new("timeout");
        let (name, args) = args.split_first().unwrap();
        let config = self.dir.join("weir.toml");
        command.arg("30").arg(env!("CARGO_BIN_EXE_weir")).arg(name).arg("--config").arg(config).args(args);
        Ran::of(command.env_remove("RUST_LOG").stdin(Stdio::null()).output().unwrap())
    }

    /// A worker with some settings of its own.
    pub(crate) fn worker(&self, sets: &[&str]) -> Worker {
        let args: Vec<&str> = std::iter::once("run").chain(sets.iter().flat_map(|set| ["--set", set])).collect();
        Worker::start(self.command(&args), self.dir.join(format!("{}.log", Uuid::new_v4())))
    }

    /// Publishes one event.
    pub(crate) fn publish(&self) {
        let id = Uuid::new_v4();
        let event = format!(
            "{{\"type\":\"new_message\",\"message\":{{\"message_id\":\"{id}\",\"from\":1,\"to\":2,\"content\":\"x\",\
             \"message_type\":1,\"timestamp\":1767225600000}},\"timestamp\":1767225600000}}\n"
        );
        let file = self.file("event.ndjson", &event);
        let ran = self.weir(&["publish", "--topic", &self.topic.0, &file]);
        assert_eq!(ran.code, Some(0), "{ran:?}");
    }

    /// Waits for rows of the table `messages`.
    #[track_caller]
    pub(crate) fn settles(&self, rows: i64, worker: &Worker) {
        until("the events to be settled", || {
            let found = sql(&self.url(), "SELECT count(*) FROM messages");
            (found == Some(rows), (found, worker.log()))
        });
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.dir).ok();
        let drop_it = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.database);
        let dropped = std::thread::spawn(move || sql(&services::env("POSTGRES_URL"), &drop_it)).join();
        assert!(dropped.is_ok() || std::thread::panicking(), "database {} is left behind", self.database);
    }
}

/// What a command said, and its exit code.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    pub(crate) fn of(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }

    /// Ended with one clear message that has these parts.
    #[track_caller]
    pub(crate) fn fails_with(&self, code: i32, parts: &[&str]) {
        assert_eq!(self.code, Some(code), "{self:?}");
        let errors: Vec<&str> = self.err.lines().filter(|line| line.starts_with("error: ")).collect();
        assert_eq!(errors.len(), 1, "one message: {}", self.err);
        for part in parts {
            assert!(self.err.contains(part), "{part:?} is not in:\n{}", self.err);
        }
        is_clear(&self.err);
        let segments: Vec<&str> = errors[0].split(": ").filter(|segment| segment.len() > 12).collect();
        for segment in &segments {
            assert_eq!(errors[0].matches(segment).count(), 1, "{segment:?} is said twice: {}", errors[0]);
        }
    }

    /// How many lines contain a text.
    pub(crate) fn lines_with(&self, text: &str) -> usize {
        lines_with(&self.err, text)
    }
}

pub(crate) fn lines_with(all: &str, text: &str) -> usize {
    all.lines().filter(|line| line.contains(text)).count()
}

/// Nothing that only a programmer would read, no secret, no control characters.
#[track_caller]
pub(crate) fn is_clear(text: &str) {
    for noise in ["panicked", "RUST_BACKTRACE", "Some(", "Err(", "Error {", "ERROR librdkafka", ":weir@", "hunter2"] {
        assert!(!text.contains(noise), "{noise:?} is in:\n{text}");
    }
    let control = text.chars().find(|c| c.is_control() && *c != '\n');
    assert_eq!(control, None, "a control character is in:\n{text:?}");
}

/// `weir run` in the background.
pub(crate) struct Worker {
    child: Child,
    log: PathBuf,
    health: String,
}

impl Worker {
    fn start(mut command: Command, log: PathBuf) -> Self {
        let stderr = File::create(&log).unwrap();
        let child = command.stdout(Stdio::null()).stderr(stderr).spawn().unwrap();
        let mut worker = Self { child, log, health: String::new() };
        until("the worker to serve its health", || {
            let log = worker.log();
            let line = log.lines().find(|line| line.contains("health and metrics listening"));
            let address = line.and_then(|line| Some(line.split_once("address=")?.1.trim().to_owned()));
            worker.health = address.clone().unwrap_or_default();
            (address.is_some(), log)
        });
        worker
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The answer to a GET.
    pub(crate) fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(&self.health).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nhost: weir\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    /// Waits until it is not ready and says why.
    #[track_caller]
    pub(crate) fn waits_for(&self, what: &str) {
        until(&format!("{what:?} to be waited for"), || {
            let ready = self.get("/readyz");
            (ready.starts_with("HTTP/1.1 503") && ready.contains(what), (ready, self.log()))
        });
        assert!(self.get("/healthz").starts_with("HTTP/1.1 200"), "waiting is not being stuck");
    }

    #[track_caller]
    pub(crate) fn is_ready(&self) {
        until("the worker to be ready", || {
            let ready = self.get("/readyz");
            (ready.starts_with("HTTP/1.1 200"), (ready, self.log()))
        });
    }

    /// SIGTERM ends it soon, with 0.
    #[track_caller]
    pub(crate) fn stops(&mut self) {
        let sent = Command::new("kill").arg("-TERM").arg(self.child.id().to_string()).status().unwrap();
        assert!(sent.success());
        until("the worker to end", || (self.child.try_wait().unwrap().is_some(), self.log()));
        assert_eq!(self.child.wait().unwrap().code(), Some(0), "{}", self.log());
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // One that has ended cannot be killed.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
