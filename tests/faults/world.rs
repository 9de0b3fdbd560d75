//! A topic, a database and a group of one row.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rdkafka::admin::{AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use uuid::Uuid;

use super::database::{Database, LedgerRow};
use super::lab::Lab;
use super::setting::Setting;
use super::until;

const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct World {
    /// The pool's and the group's name.
    pub(crate) pool: String,
    pub(crate) topic: String,
    pub(crate) topic_id: Uuid,
    pub(crate) partitions: i32,
    /// How its workers are members of the group.
    pub(crate) setting: Setting,
    pub(crate) database: String,
    pub(crate) db: Database,
    pub(crate) dir: PathBuf,
}

impl World {
    pub(crate) async fn new(lab: &Lab, name: &str, partitions: i32, setting: Setting) -> Result<Self> {
        let id = format!("{name}-{}", &Uuid::new_v4().simple().to_string()[..8]);
        let database = format!("faults_{}", id.replace('-', "_"));
        lab.make_database(setting, &database).await?;
        let dir = lab.kept.join(&id);
        std::fs::create_dir_all(&dir)?;
        let db = lab.open(setting, &database, 4).await?;
        let mut world = Self {
            topic: format!("faults-{id}"),
            topic_id: Uuid::nil(),
            pool: id,
            partitions,
            setting,
            database,
            db,
            dir,
        };
        world.make_topic(lab).await?;
        world.migrate(lab).await?;
        Ok(world)
    }

    async fn migrate(&self, lab: &Lab) -> Result<()> {
        self.weir(lab, &["migrate"])?;
        if self.setting == Setting::Mariadb {
            return Ok(());
        }
        // Says of each row which process wrote it.
        self.sql("ALTER TABLE messages ADD COLUMN writer text DEFAULT current_setting('application_name')").await
    }

    /// Runs a command of an operator's, which has to succeed.
    pub(crate) fn weir(&self, lab: &Lab, args: &[&str]) -> Result<()> {
        let file = self.dir.join("operator.toml");
        std::fs::write(&file, self.config(lab, 0, "weir", [""; 3]))?;
        let mut weir = std::process::Command::new(env!("CARGO_BIN_EXE_weir"));
        let ran = weir.args(args).arg("--config").arg(file).output()?;
        ensure!(ran.status.success(), "weir {}: {}", args.join(" "), String::from_utf8_lossy(&ran.stderr));
        Ok(())
    }

    pub(crate) async fn make_topic(&mut self, lab: &Lab) -> Result<()> {
        let topic = NewTopic::new(&self.topic, self.partitions, TopicReplication::Fixed(1));
        let topic = topic.set("max.message.bytes", "3000000");
        for made in lab.admin()?.create_topics([&topic], &AdminOptions::new()).await? {
            made.map_err(|(topic, code)| anyhow::anyhow!("make topic {topic}: {code}"))?;
        }
        self.topic_id = self.look_up_topic_id(lab).await?;
        Ok(())
    }

    pub(crate) async fn look_up_topic_id(&self, lab: &Lab) -> Result<Uuid> {
        let consumer: BaseConsumer = lab.kafka().create()?;
        let mut found = None;
        until("the topic's id", PATIENCE, async || {
            found = weir::source::topic_id(consumer.client(), &self.topic, PATIENCE).ok();
            Ok(found.is_some())
        })
        .await?;
        found.context("the topic's id")
    }

    pub(crate) async fn delete_topic(&self, lab: &Lab, topic: &str) -> Result<()> {
        for gone in lab.admin()?.delete_topics(&[topic], &AdminOptions::new()).await? {
            gone.map_err(|(topic, code)| anyhow::anyhow!("delete topic {topic}: {code}"))?;
        }
        let consumer: BaseConsumer = lab.kafka().create()?;
        until("the topic to be gone", PATIENCE, async || {
            let metadata = consumer.fetch_metadata(Some(topic), PATIENCE)?;
            Ok(metadata.topics()[0].partitions().is_empty())
        })
        .await
    }

    pub(crate) async fn add_partitions(&mut self, lab: &Lab, total: i32) -> Result<()> {
        let more = NewPartitions::new(&self.topic, usize::try_from(total)?);
        for made in lab.admin()?.create_partitions([&more], &AdminOptions::new()).await? {
            made.map_err(|(topic, code)| anyhow::anyhow!("add partitions to {topic}: {code}"))?;
        }
        self.partitions = total;
        Ok(())
    }

    /// The configuration of a worker in a slot: its services are behind the slot's proxies.
    pub(crate) fn config(&self, lab: &Lab, slot: usize, user: &str, lines: [&str; 3]) -> String {
        let [kafka_lines, redis_lines, pool_lines] = lines;
        let Self { pool, topic, database, .. } = self;
        let of = &lab.slots[slot];
        format!(
            "[kafka]\nbrokers = [\"127.0.0.1:{}\"]\n{}metadata_refresh_ms = 2000\n{kafka_lines}\
             [store]\nurl = \"{}\"\n[redis]\nurl = \"redis://127.0.0.1:{}\"\n{redis_lines}[health]\nlisten = \"127.0.0.1:0\"\n\
             [log]\nlevel = \"info,weir::pool=debug\"\n\
             [pools.{pool}]\ngroup = \"{pool}\"\ntopics = [\"{topic}\"]\nstart = \"beginning\"\n{pool_lines}\n\
             [[pools.{pool}.pipelines]]\nname = \"persist\"\nhandler = \"persist\"\n\
             [[pools.{pool}.pipelines]]\nname = \"stats\"\nhandler = \"analyze\"\ndimensions = [\"type\", \"user\", \"active_users\"]\n",
            of.kafka.port,
            self.setting.config(slot),
            lab.database_url(self.setting, slot, database, user),
            of.redis.port,
        )
    }

    /// The topic of its dead letters.
    pub(crate) fn mirror(&self) -> String {
        format!("{}.{}.dead", self.topic, self.pool)
    }

    pub(crate) async fn count(&self, sql: &str) -> Result<i64> {
        self.db.count(sql).await.with_context(|| sql.to_owned())
    }

    pub(crate) async fn sql(&self, sql: &str) -> Result<()> {
        self.db.sql(sql).await.with_context(|| sql.to_owned())
    }

    /// The ledger's rows for the topic's present id: partition, owner, epoch, next offset.
    pub(crate) async fn ledger(&self) -> Result<Vec<LedgerRow>> {
        self.db.ledger(&self.pool, self.topic_id).await.context("read the ledger")
    }

    pub(crate) async fn close(&self, lab: &Lab) {
        self.db.close().await;
        // Either may be gone by the row's own doing.
        if let Ok(admin) = lab.admin() {
            admin.delete_topics(&[&self.topic, &self.mirror()], &AdminOptions::new()).await.ok();
        }
        lab.drop_database(self.setting, &self.database).await.ok();
    }
}
