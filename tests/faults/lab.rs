//! Services of the harness's own, and a proxy before each of them for every worker: rows may stop, fill and
//! reconfigure them without touching what other tests use.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rdkafka::ClientConfig;
use rdkafka::admin::AdminClient;
use rdkafka::client::DefaultClientContext;
use redis::AsyncConnectionConfig;

use super::database::Database;
use super::proxy::{Proxy, Weather};
use super::setting::Setting;

/// Workers that run at a time, each with proxies of its own.
pub(crate) const SLOTS: usize = 3;
/// How long Redis may take for one command.
const REDIS_PATIENCE: Duration = Duration::from_secs(10);

/// What one worker sees of the services.
pub(crate) struct Slot {
    pub(crate) kafka: Proxy,
    pub(crate) postgres: Proxy,
    pub(crate) mariadb: Proxy,
    pub(crate) redis: Proxy,
}

impl Slot {
    /// The proxy before the database of a setting.
    pub(crate) fn database(&self, setting: Setting) -> &Proxy {
        if setting == Setting::Mariadb { &self.mariadb } else { &self.postgres }
    }
}

pub(crate) struct Lab {
    dir: PathBuf,
    pub(crate) brokers: String,
    postgres_url: String,
    mysql_url: String,
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
            let slot = Slot {
                kafka: Proxy::listen().await?,
                postgres: Proxy::listen().await?,
                mariadb: Proxy::listen().await?,
                redis: Proxy::listen().await?,
            };
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
        let (postgres_url, mysql_url, redis_url) = (of("POSTGRES_URL")?, of("MYSQL_URL")?, of("REDIS_URL")?);
        for slot in &slots {
            slot.postgres.lead_to(port_of(&postgres_url)?);
            slot.mariadb.lead_to(port_of(&mysql_url)?);
            slot.redis.lead_to(port_of(&redis_url)?);
        }
        let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join("faults");
        fs::create_dir_all(&kept)?;
        Ok(Self { dir, brokers: of("KAFKA_BROKERS")?, postgres_url, mysql_url, redis_url, slots, kept, _lock: lock })
    }

    /// Fair weather everywhere.
    pub(crate) fn clear(&self) {
        for slot in &self.slots {
            for proxy in [&slot.kafka, &slot.postgres, &slot.mariadb, &slot.redis] {
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

    /// Lets all workers see their database in this weather.
    pub(crate) fn set_databases(&self, setting: Setting, weather: Weather) {
        self.slots.iter().for_each(|slot| slot.database(setting).set(weather));
    }

    fn url(&self, setting: Setting) -> &str {
        if setting == Setting::Mariadb { &self.mysql_url } else { &self.postgres_url }
    }

    pub(crate) async fn open(&self, setting: Setting, database: &str, connections: u32) -> Result<Database> {
        let url = format!("{}/{database}", self.url(setting).rsplit_once('/').context("a database's address")?.0);
        Database::connect(&url, connections).await.with_context(|| format!("connect to {database}"))
    }

    /// Runs SQL where no database of a row is open.
    pub(crate) async fn server_sql(&self, setting: Setting, sql: &str) -> Result<()> {
        let server = self.open(setting, if setting == Setting::Mariadb { "weir" } else { "postgres" }, 1).await?;
        let done = server.sql(sql).await;
        server.close().await;
        done.with_context(|| sql.to_owned())
    }

    pub(crate) async fn make_database(&self, setting: Setting, name: &str) -> Result<()> {
        let charset = if setting == Setting::Mariadb { "CHARACTER SET utf8mb4" } else { "" };
        self.server_sql(setting, &format!("CREATE DATABASE {name} {charset}")).await
    }

    pub(crate) async fn drop_database(&self, setting: Setting, name: &str) -> Result<()> {
        let force = if setting == Setting::Mariadb { "" } else { "WITH (FORCE)" };
        self.server_sql(setting, &format!("DROP DATABASE IF EXISTS {name} {force}")).await
    }

    /// The address of a database through a slot's proxy.
    pub(crate) fn database_url(&self, setting: Setting, slot: usize, database: &str, user: &str) -> String {
        let scheme = if setting == Setting::Mariadb { "mysql" } else { "postgres" };
        let port = self.slots[slot].database(setting).port;
        format!("{scheme}://{user}:weir@127.0.0.1:{port}/{database}")
    }

    /// One of PostgreSQL's own tools, ready for this server.
    pub(crate) fn postgres_tool(&self, name: &str) -> Result<Command> {
        let mut versions: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
            .map(|entries| entries.flatten().map(|entry| entry.path().join("bin").join(name)).collect())
            .unwrap_or_default();
        versions.retain(|path| path.exists());
        versions.sort();
        let mut command = Command::new(versions.pop().unwrap_or_else(|| name.into()));
        command.env("PGPASSWORD", "weir").env("PGUSER", "weir").env("PGHOST", "127.0.0.1");
        command.env("PGPORT", port_of(&self.postgres_url)?.to_string());
        Ok(command)
    }

    /// One of MariaDB's own tools, ready for this server.
    pub(crate) fn mariadb_tool(&self, name: &str) -> Result<Command> {
        let mut command = Command::new(name);
        let port = port_of(&self.mysql_url)?.to_string();
        command.args(["--no-defaults", "--protocol=tcp", "-h", "127.0.0.1", "-P", &port, "-u", "weir", "-pweir"]);
        Ok(command)
    }

    pub(crate) async fn redis(&self, command: &[&str]) -> Result<()> {
        let client = redis::Client::open(self.redis_url.as_str())?;
        // To forget some million ids takes longer than the half second that the library waits by itself.
        let patient = AsyncConnectionConfig::new().set_response_timeout(Some(REDIS_PATIENCE));
        let mut connection = client.get_multiplexed_async_connection_with_config(&patient).await?;
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

/// The port in an address.
fn port_of(url: &str) -> Result<u16> {
    let at = url.rsplit_once("127.0.0.1:").with_context(|| format!("{url} names no port"))?.1;
    Ok(at.split('/').next().unwrap_or(at).parse()?)
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
