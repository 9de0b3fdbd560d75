//! Services of the harness's own, and a proxy before each of them for every worker: rows may stop, fill and
//! reconfigure them without touching what other tests use.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use rdkafka::ClientConfig;
use rdkafka::admin::AdminClient;
use rdkafka::client::DefaultClientContext;
use sqlx::AssertSqlSafe;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};

use super::proxy::{Proxy, Weather};

/// Workers that run at a time, each with proxies of its own.
pub(crate) const SLOTS: usize = 3;

/// What one worker sees of the services.
pub(crate) struct Slot {
    pub(crate) kafka: Proxy,
    pub(crate) postgres: Proxy,
    pub(crate) redis: Proxy,
}

pub(crate) struct Lab {
    dir: PathBuf,
    pub(crate) brokers: String,
    postgres: PgConnectOptions,
    redis_url: String,
    pub(crate) slots: Vec<Slot>,
    /// Where logs of failed rows are kept.
    pub(crate) kept: PathBuf,
    /// Held as long as the services are used.
    _lock: fs::File,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

impl Lab {
    pub(crate) async fn start() -> Result<Self> {
        let dir = root().join(".services/faults");
        fs::create_dir_all(root().join(".services"))?;
        let lock = fs::File::create(root().join(".services/faults.lock"))?;
        lock.lock().context("lock .services/faults.lock")?;
        // What an earlier run left that was ended from outside.
        services(&dir, &["clean"])?;
        fs::create_dir_all(&dir)?;
        let mut slots = Vec::new();
        let mut listeners = String::new();
        for at in 0..SLOTS {
            let slot =
                Slot { kafka: Proxy::listen().await?, postgres: Proxy::listen().await?, redis: Proxy::listen().await? };
            // A port for the broker's listener of this slot: held by nobody once the probe is dropped.
            let port = Proxy::listen().await?.port;
            listeners.push_str(&format!("SLOT{at} {port} {}\n", slot.kafka.port));
            slot.kafka.lead_to(port);
            slots.push(slot);
        }
        fs::write(dir.join("kafka.listeners"), listeners)?;
        services(&dir, &["up"])?;
        let text = fs::read_to_string(dir.join("env"))?;
        let of = |name: &str| -> Result<String> {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
            line.map(str::to_owned).with_context(|| format!("{name} in .services/faults/env"))
        };
        let (postgres_url, redis_url) = (of("POSTGRES_URL")?, of("REDIS_URL")?);
        let postgres: PgConnectOptions = postgres_url.parse()?;
        let redis_port = redis_url.rsplit_once(':').context("a port in REDIS_URL")?.1.parse()?;
        for slot in &slots {
            slot.postgres.lead_to(postgres.get_port());
            slot.redis.lead_to(redis_port);
        }
        let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join("faults");
        fs::create_dir_all(&kept)?;
        Ok(Self { dir, brokers: of("KAFKA_BROKERS")?, postgres, redis_url, slots, kept, _lock: lock })
    }

    /// Fair weather everywhere.
    pub(crate) fn clear(&self) {
        for slot in &self.slots {
            for proxy in [&slot.kafka, &slot.postgres, &slot.redis] {
                proxy.set(Weather::Clear);
            }
        }
    }

    /// `start`, `stop` or `kill` of a service, and the script's other commands.
    pub(crate) async fn service(&self, action: &str, name: &str) -> Result<()> {
        let (dir, args) = (self.dir.clone(), [action.to_owned(), name.to_owned()]);
        tokio::task::spawn_blocking(move || services(&dir, &[&args[0], &args[1]])).await?
    }

    pub(crate) fn kafka(&self) -> ClientConfig {
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", &self.brokers);
        client
    }

    pub(crate) fn admin(&self) -> Result<AdminClient<DefaultClientContext>> {
        self.kafka().create().context("an admin client")
    }

    pub(crate) async fn open(&self, database: &str, connections: u32) -> Result<PgPool> {
        let options = self.postgres.clone().database(database).application_name("harness");
        PgPoolOptions::new()
            .max_connections(connections)
            .acquire_timeout(std::time::Duration::from_secs(20))
            .connect_with(options)
            .await
            .with_context(|| format!("connect to {database}"))
    }

    /// Runs SQL where no database of a row is open.
    pub(crate) async fn server_sql(&self, sql: &str) -> Result<()> {
        let server = self.open("postgres", 1).await?;
        let done = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&server).await;
        server.close().await;
        done.with_context(|| sql.to_owned()).map(drop)
    }

    /// The address of a database through a slot's proxy.
    pub(crate) fn postgres_url(&self, slot: usize, database: &str, user: &str) -> String {
        format!("postgres://{user}:weir@127.0.0.1:{}/{database}", self.slots[slot].postgres.port)
    }

    /// One of PostgreSQL's own tools, ready for this server.
    pub(crate) fn postgres_tool(&self, name: &str) -> Command {
        let mut versions: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
            .map(|entries| entries.flatten().map(|entry| entry.path().join("bin").join(name)).collect())
            .unwrap_or_default();
        versions.retain(|path| path.exists());
        versions.sort();
        let mut command = Command::new(versions.pop().unwrap_or_else(|| name.into()));
        command.env("PGPASSWORD", "weir").env("PGUSER", "weir").env("PGHOST", "127.0.0.1");
        command.env("PGPORT", self.postgres.get_port().to_string());
        command
    }

    pub(crate) async fn redis(&self, command: &[&str]) -> Result<()> {
        let client = redis::Client::open(self.redis_url.as_str())?;
        let mut connection = client.get_multiplexed_async_connection().await?;
        let mut sent = redis::cmd(command[0]);
        command[1..].iter().for_each(|word| _ = sent.arg(*word));
        sent.exec_async(&mut connection).await.with_context(|| command.join(" "))
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        services(&self.dir, &["clean"]).ok();
    }
}

fn services(dir: &Path, args: &[&str]) -> Result<()> {
    let done = Command::new(root().join("scripts/services.sh"))
        .args(args)
        .env("WEIR_SERVICES_DIR", dir)
        .output()
        .context("run scripts/services.sh")?;
    ensure!(done.status.success(), "services.sh {}: {}", args.join(" "), String::from_utf8_lossy(&done.stderr).trim());
    Ok(())
}
