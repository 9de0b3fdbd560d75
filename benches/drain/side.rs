//! Who drains: the hand-written loop, weir, and what others use for it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};
use url::Url;

use crate::drain::Workload;
use crate::load::Backlog;
use crate::services::Services;

/// As many as weir takes at once by default, and the others where it is their own setting.
const BATCH: &str = "500";
const HEAP_MAX: &str = "-Xmx1g";

/// What is to be drained, and where to.
pub(crate) struct Job<'a> {
    pub(crate) services: &'a Services,
    pub(crate) backlog: &'a Backlog,
    pub(crate) workload: Workload,
    pub(crate) group: String,
    /// Where the database is to be reached, if not directly.
    pub(crate) postgres: String,
    /// Lines of the pool's and the store's sections, beside the defaults.
    pub(crate) lines: Lines,
    /// Where weir's health and metrics are; 0: anywhere.
    pub(crate) health_port: u16,
    /// Where the hand-written loop writes the latencies that it measures.
    pub(crate) latencies: Option<PathBuf>,
}

/// Settings of weir's that are not at their default.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Lines {
    pub(crate) pool: &'static str,
    pub(crate) store: &'static str,
}

impl<'a> Job<'a> {
    /// With a group of its own, and everything at its default.
    pub(crate) fn new(services: &'a Services, backlog: &'a Backlog, workload: Workload) -> Self {
        let group = uuid::Uuid::new_v4().to_string();
        Self {
            services,
            backlog,
            workload,
            group,
            postgres: services.postgres.clone(),
            lines: Lines::default(),
            health_port: 0,
            latencies: None,
        }
    }
}

/// One of those that are compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Side {
    /// The loop that a team writes for itself.
    HandWritten { redis: bool },
    /// `weir run` with its defaults, with or without the processed set.
    Weir { binary: PathBuf, processed_set: bool },
    /// `weir run` with the processed set, and traces sent to this address.
    Traced { binary: PathBuf, endpoint: String, relation: &'static str },
    /// `weir run` with the processed set, and a pipeline of moderation as these lines say.
    Moderated { binary: PathBuf, lines: String },
    /// `benches/peers/arroyo`.
    Arroyo,
    /// `benches/peers/spring`.
    Spring { redis: bool },
    /// `benches/peers/parallel-consumer`.
    ParallelConsumer,
    /// `benches/peers/connect`.
    Connect,
}

impl Side {
    /// Whether it looks in Redis before and marks there after.
    pub(crate) fn uses_redis(&self) -> bool {
        match self {
            Self::HandWritten { redis } | Self::Spring { redis } => *redis,
            Self::Weir { processed_set, .. } => *processed_set,
            Self::Traced { .. } | Self::Moderated { .. } => true,
            Self::Arroyo | Self::ParallelConsumer | Self::Connect => false,
        }
    }

    /// The process that drains, with all that it needs to know.
    pub(crate) fn command(&self, job: &Job<'_>) -> Result<Command> {
        let mut command = match self {
            Self::HandWritten { redis } => {
                let mut command = Command::new(std::env::current_exe()?);
                command
                    .arg("hand-written")
                    .env("BENCH_TOPIC", &job.backlog.topic)
                    .env("BENCH_POSTGRES", &job.services.postgres)
                    .env("BENCH_REDIS", redis.to_string())
                    .envs(job.latencies.iter().map(|path| ("BENCH_LATENCIES", path)))
                    .env("BENCH_ANALYZE", (job.workload == Workload::PersistAndAnalyze).to_string());
                command
            }
            Self::Weir { binary, processed_set } => {
                let mut command = Command::new(binary);
                command.arg("run").arg("--config").arg(job.write_config("run", *processed_set)?).stderr(job.log()?);
                command
            }
            Self::Traced { binary, endpoint, relation } => {
                let mut command = Command::new(binary);
                command.arg("run").arg("--config").arg(job.write_config("run", true)?).stderr(job.log()?);
                command.env("WEIR__TRACES__ENDPOINT", endpoint).env("WEIR__TRACES__RELATION", relation);
                command
            }
            Self::Moderated { binary, lines } => {
                let mut command = Command::new(binary);
                let config = job.write("run.toml", &(job.config(true) + lines))?;
                command.arg("run").arg("--config").arg(config).stderr(job.log()?);
                command
            }
            Self::Arroyo => Command::new(peers().join("arroyo/release/arroyo-peer")),
            Self::Spring { redis } => {
                let mut command = java("spring");
                command.arg("peers.App").env("REDIS_CHECK", redis.to_string());
                command
            }
            Self::ParallelConsumer => {
                let mut command = java("parallel-consumer");
                command.arg("-Dorg.slf4j.simpleLogger.defaultLogLevel=warn").arg("peers.Pc");
                command
            }
            Self::Connect => connect(job)?,
        };
        let redis = Url::parse(&job.services.redis).context("REDIS_URL")?;
        command
            .env("BROKERS", &job.services.brokers)
            .env("TOPIC", &job.backlog.topic)
            .env("GROUP", &job.group)
            .env("BATCH", BATCH)
            .env("POSTGRES_URL", &job.services.postgres)
            .env("JDBC_URL", jdbc(&job.services.postgres)?)
            .env("REDIS_HOST", redis.host_str().unwrap_or("127.0.0.1"))
            .env("REDIS_PORT", redis.port().unwrap_or(6379).to_string());
        Ok(command)
    }
}

impl Job<'_> {
    /// A file of this measurement's own, put in place whole: a process that was started before may be reading the last one.
    fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = std::env::temp_dir().join(format!("{}-{name}", self.services.name));
        let new = path.with_extension("new");
        std::fs::write(&new, text).with_context(|| format!("write {}", new.display()))?;
        std::fs::rename(&new, &path).with_context(|| format!("write {}", path.display()))?;
        Ok(path)
    }

    /// Where a worker's log goes, to be looked at when it ends early.
    fn log(&self) -> Result<Stdio> {
        let path = std::env::temp_dir().join(format!("{}.log", self.services.name));
        let file = std::fs::OpenOptions::new().create(true).append(true).open(&path);
        Ok(file.with_context(|| format!("write {}", path.display()))?.into())
    }

    pub(crate) fn write_config(&self, name: &str, processed_set: bool) -> Result<PathBuf> {
        self.write(&format!("{name}.toml"), &self.config(processed_set))
    }

    /// weir's configuration: everything at its default but the addresses and the pipelines.
    fn config(&self, processed_set: bool) -> String {
        let Services { brokers, redis, .. } = self.services;
        let (group, topic, postgres) = (&self.group, &self.backlog.topic, &self.postgres);
        let Lines { pool, store } = self.lines;
        let health_port = self.health_port;
        let set = if processed_set { "" } else { "processed_set = \"off\"\n" };
        let mut text = format!(
            "[kafka]\nbrokers = [\"{brokers}\"]\n[store]\nurl = \"{postgres}\"\n{store}[redis]\nurl = \"{redis}\"\n\
             [health]\nlisten = \"127.0.0.1:{health_port}\"\n\
             [pools.storage]\ngroup = \"{group}\"\ntopics = [\"{topic}\"]\nstart = \"beginning\"\n{set}{pool}\
             [[pools.storage.pipelines]]\nname = \"persist\"\nhandler = \"persist\"\n",
        );
        if self.workload == Workload::PersistAndAnalyze {
            text.push_str(
                "[[pools.storage.pipelines]]\nname = \"analyze\"\nhandler = \"analyze\"\n\
                 dimensions = [\"type\", \"user\", \"conversation\", \"active_users\"]\n",
            );
        }
        text
    }
}

fn peers() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/peers")
}

fn java(peer: &str) -> Command {
    let built = peers().join(peer);
    let mut command = Command::new("java");
    let classes = format!("{}:{}/*", built.join("classes").display(), built.join("libs").display());
    // What they warn of is theirs; that they have drained everything is seen in the database.
    command.arg(HEAP_MAX).arg("-cp").arg(classes).stderr(Stdio::null());
    command
}

/// Kafka Connect on its own, with Debezium's JDBC sink and a converter of events without a schema.
fn connect(job: &Job<'_>) -> Result<Command> {
    let built = peers().join("connect");
    let read = |name: &str| {
        let path = built.join(name);
        std::fs::read_to_string(&path)
            .with_context(|| format!("read {}; `make bench-peers` puts it there", path.display()))
    };
    let offsets = std::env::temp_dir().join(format!("{}-{}-offsets", job.services.name, job.group));
    let worker = format!(
        "{}bootstrap.servers={}\nlisteners=http://127.0.0.1:0\noffset.storage.file.filename={}\n",
        read("worker.properties")?,
        job.services.brokers,
        offsets.display()
    );
    let sink = format!(
        "{}name={}\ntopics={}\nbatch.size={BATCH}\nconsumer.override.max.poll.records={BATCH}\n\
         collection.name.format=messages\nconnection.url={}\nconnection.username={}\nconnection.password={}\n\
         value.converter=peers.PlainJsonConverter\n",
        read("sink.properties")?,
        job.group,
        job.backlog.topic,
        jdbc(&job.services.postgres)?,
        postgres(job)?.username(),
        postgres(job)?.password().unwrap_or_default(),
    );
    let mut command = java("connect");
    command
        .arg(format!("-Dlog4j2.configurationFile={}", built.join("log4j2.properties").display()))
        .arg("org.apache.kafka.connect.cli.ConnectStandalone")
        .arg(job.write("connect-worker.properties", &worker)?)
        .arg(job.write("connect-sink.properties", &sink)?)
        .stdout(Stdio::null());
    Ok(command)
}

fn postgres(job: &Job<'_>) -> Result<Url> {
    Url::parse(&job.services.postgres).context("POSTGRES_URL")
}

/// The database's address as Java's driver has it, with multi-row inserts, which its documentation recommends.
fn jdbc(postgres: &str) -> Result<String> {
    let url = Url::parse(postgres).context("POSTGRES_URL")?;
    let (host, port) = (url.host_str().unwrap_or("127.0.0.1"), url.port().unwrap_or(5432));
    let (user, password) = (url.username(), url.password().unwrap_or_default());
    Ok(format!(
        "jdbc:postgresql://{host}:{port}{}?user={user}&password={password}&reWriteBatchedInserts=true",
        url.path()
    ))
}
