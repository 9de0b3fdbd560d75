//! A topic, a database and a group of one test.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use uuid::Uuid;

use super::audit::committed;
use super::database::{Database, LedgerRow};
use super::worker::ports_of;
use super::{PATIENCE, services, until};

static SERVICES: RwLock<()> = RwLock::const_new(());

/// Short, so that takeovers are quick.
pub(crate) const SESSION_TIMEOUT: Duration = Duration::from_secs(6);

pub(crate) struct World {
    /// The pool's and the group's name.
    pub(crate) pool: String,
    pub(crate) topic: String,
    pub(crate) partitions: i32,
    pub(crate) database: String,
    /// The service that has its database.
    pub(crate) service: &'static str,
    pub(crate) db: Database,
    pub(crate) dir: PathBuf,
    services: Use,
}

/// How a test uses the services.
enum Use {
    Shared(#[expect(dead_code, reason = "held, not read")] RwLockReadGuard<'static, ()>),
    Alone(#[expect(dead_code, reason = "held, not read")] RwLockWriteGuard<'static, ()>),
}

pub(crate) fn kafka() -> ClientConfig {
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", services::env("KAFKA_BROKERS"));
    client
}

pub(crate) fn admin() -> AdminClient<DefaultClientContext> {
    kafka().create().expect("an admin client")
}

/// The address of a database of a service, beside the one that the services tell.
fn address(service: &str, database: &str) -> String {
    let url = services::env(if service == "mariadb" { "MYSQL_URL" } else { "POSTGRES_URL" });
    format!("{}/{database}", url.rsplit_once('/').expect("the address names a database").0)
}

/// Runs SQL on PostgreSQL where no database of a test is open.
pub(crate) async fn server_sql(sql: &str) {
    on_server("postgres", sql).await;
}

async fn on_server(service: &str, sql: &str) {
    let server = Database::connect(&address(service, if service == "mariadb" { "weir" } else { "postgres" }), 1).await;
    let server = server.unwrap();
    server.sql(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    server.close().await;
}

impl World {
    /// With a PostgreSQL database, and with other tests beside it.
    pub(crate) async fn new(partitions: i32) -> Self {
        Self::on("postgres", partitions).await
    }

    /// With a database of this service, and with other tests beside it.
    pub(crate) async fn on(service: &'static str, partitions: i32) -> Self {
        Self::using(Use::Shared(SERVICES.read().await), service, partitions).await
    }

    /// With nothing beside it: what stops a service or counts by the second needs this.
    pub(crate) async fn alone(partitions: i32) -> Self {
        Self::alone_on("postgres", partitions).await
    }

    pub(crate) async fn alone_on(service: &'static str, partitions: i32) -> Self {
        Self::using(Use::Alone(SERVICES.write().await), service, partitions).await
    }

    async fn using(services: Use, service: &'static str, partitions: i32) -> Self {
        let id = Uuid::new_v4().simple().to_string();
        let database = format!("weir_test_{id}");
        let charset = if service == "mariadb" { "CHARACTER SET utf8mb4" } else { "" };
        on_server(service, &format!("CREATE DATABASE {database} {charset}")).await;
        let db = Database::connect(&address(service, &database), 4).await.unwrap();
        let dir = std::env::temp_dir().join(&database);
        std::fs::create_dir_all(&dir).unwrap();
        let pool = format!("p-{id}");
        let world = Self { topic: format!("test-{id}"), pool, partitions, service, database, db, dir, services };
        world.make_topic().await;
        let migrated = world.weir(&["migrate"]).output().unwrap();
        assert!(migrated.status.success(), "{}", String::from_utf8_lossy(&migrated.stderr));
        world
    }

    /// Starts or stops a service of this clone.
    pub(crate) fn service(&self, action: &str, name: &str) {
        assert!(matches!(self.services, Use::Alone(_)), "other tests use {name} too: `World::alone`");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/services.sh");
        let done = Command::new(script).args([action, name]).status().expect("services.sh runs");
        assert!(done.success(), "services.sh {action} {name} failed");
    }

    pub(crate) async fn make_topic(&self) {
        let topic = NewTopic::new(&self.topic, self.partitions, TopicReplication::Fixed(1));
        for made in admin().create_topics([&topic], &AdminOptions::new()).await.unwrap() {
            made.unwrap();
        }
    }

    pub(crate) async fn delete_topic(&self) {
        for gone in admin().delete_topics(&[&self.topic], &AdminOptions::new()).await.unwrap() {
            gone.unwrap();
        }
        let consumer: BaseConsumer = kafka().create().unwrap();
        until("the topic to be gone", PATIENCE, async || {
            let metadata = consumer.fetch_metadata(Some(&self.topic), PATIENCE).unwrap();
            let partitions = metadata.topics()[0].partitions().len();
            (partitions == 0, partitions)
        })
        .await;
    }

    pub(crate) async fn add_partitions(&mut self, total: i32) {
        let more = NewPartitions::new(&self.topic, usize::try_from(total).unwrap());
        for made in admin().create_partitions([&more], &AdminOptions::new()).await.unwrap() {
            made.unwrap();
        }
        self.partitions = total;
    }

    /// The configuration of a worker: what all tests use, and lines of the pool's own.
    pub(crate) fn config(&self, pool_lines: &str) -> String {
        let Self { pool, topic, database, .. } = self;
        let start = if pool_lines.contains("start =") { "" } else { "start = \"beginning\"\n" };
        format!(
            "[kafka]\nbrokers = [\"{}\"]\nsession_timeout_ms = {}\nmetadata_refresh_ms = 2000\n\
             [store]\nurl = \"{}\"\n[redis]\nurl = \"{}\"\n[health]\nlisten = \"127.0.0.1:0\"\n\
             [log]\nlevel = \"info,weir::pool=debug\"\n\
             [pools.{pool}]\ngroup = \"{pool}\"\ntopics = [\"{topic}\"]\n{start}{pool_lines}\n\
             [[pools.{pool}.pipelines]]\nname = \"persist\"\nhandler = \"persist\"\n\
             [[pools.{pool}.pipelines]]\nname = \"stats\"\nhandler = \"analyze\"\ndimensions = [\"type\", \"user\", \"active_users\"]\n",
            services::env("KAFKA_BROKERS"),
            SESSION_TIMEOUT.as_millis(),
            address(self.service, database),
            services::env("REDIS_URL"),
        )
    }

    /// The binary with this world's configuration.
    pub(crate) fn weir(&self, args: &[&str]) -> Command {
        self.weir_with(&self.config(""), args)
    }

    pub(crate) fn weir_with(&self, config: &str, args: &[&str]) -> Command {
        self.program_with(Path::new(env!("CARGO_BIN_EXE_weir")), config, args)
    }

    /// A program that has weir's command line.
    pub(crate) fn program_with(&self, program: &Path, config: &str, args: &[&str]) -> Command {
        let file = self.dir.join(format!("{}.toml", Uuid::new_v4().simple()));
        std::fs::write(&file, config).unwrap();
        let mut command = Command::new(program);
        command.args(args).arg("--config").arg(file);
        command
    }

    pub(crate) async fn count(&self, sql: &str) -> i64 {
        self.db.count(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    pub(crate) async fn sql(&self, sql: &str) {
        self.db.sql(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    }

    /// The log's end of each partition.
    pub(crate) fn ends(&self) -> Vec<i64> {
        let consumer: BaseConsumer = kafka().create().unwrap();
        let deadline = Instant::now() + PATIENCE;
        let end = |partition| loop {
            match consumer.fetch_watermarks(&self.topic, partition, PATIENCE) {
                Ok((_, end)) => return end,
                // A broker can list a partition a moment before it leads it.
                Err(error) => assert!(Instant::now() < deadline, "{}/{partition}: {error}", self.topic),
            }
            std::thread::sleep(Duration::from_millis(50));
        };
        (0..self.partitions).map(end).collect()
    }

    /// Waits until the ledger stands at the log's end everywhere, and Kafka's offsets with it: the lag that others see
    /// is 0. A worker must run, since it is what commits.
    pub(crate) async fn drained(&self, patience: Duration) {
        let ends = self.ends();
        until("the ledger to reach the log's end", patience, async || {
            let at = self.ledger().await;
            (at == ends, at)
        })
        .await;
        self.committed_by(&self.pool, PATIENCE).await;
    }

    /// Waits until a group has committed the log's end everywhere.
    pub(crate) async fn committed_by(&self, group: &str, patience: Duration) {
        let ends = self.ends();
        let consumer: BaseConsumer = kafka().set("group.id", group).create().unwrap();
        until("Kafka's offsets to reach the log's end", patience, async || {
            let at = committed(&consumer, &self.topic, self.partitions);
            (at.as_ref() == Some(&ends), at)
        })
        .await;
    }

    /// The ledger's owners and offsets for the topic's present id, by partition.
    pub(crate) async fn owners(&self) -> Vec<LedgerRow> {
        self.db.ledger(&self.pool, self.topic_id()).await.unwrap_or_default()
    }

    /// Whether a worker's process is inside a transaction of a batch.
    pub(crate) async fn is_inside_transaction(&self, pid: u32) -> bool {
        self.db.is_inside_transaction(pid, &ports_of(pid), true).await.unwrap()
    }

    /// The ledger's offsets for the topic's present id; 0 where there is none.
    pub(crate) async fn ledger(&self) -> Vec<i64> {
        let rows = self.owners().await;
        (0..self.partitions)
            .map(|p| rows.iter().find(|row| row.partition == p).map_or(0, |row| row.next_offset))
            .collect()
    }

    pub(crate) fn topic_id(&self) -> Uuid {
        let consumer: BaseConsumer = kafka().create().unwrap();
        let deadline = Instant::now() + PATIENCE;
        loop {
            match weir::source::topic_id(consumer.client(), &self.topic, PATIENCE) {
                Ok(id) => return id,
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let (topic, database, service) = (self.topic.clone(), self.database.clone(), self.service);
        let mirror = format!("{topic}.{}.dead", self.pool);
        let cleaned = std::thread::spawn(move || {
            tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
                // Either may be gone by the test's own doing.
                admin().delete_topics(&[&topic, &mirror], &AdminOptions::new()).await.ok();
                let force = if service == "mariadb" { "" } else { "WITH (FORCE)" };
                on_server(service, &format!("DROP DATABASE IF EXISTS {database} {force}")).await;
            });
        })
        .join();
        std::fs::remove_dir_all(&self.dir).ok();
        assert!(cleaned.is_ok() || std::thread::panicking(), "database {} is left behind", self.database);
    }
}
