//! Where Kafka, PostgreSQL and Redis are, and the database of this measurement.

use std::time::Duration;

use anyhow::{Context, Result};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use sqlx::{Connection as _, PgConnection};

/// The services' addresses, handed to the children by their environment and configuration.
pub(crate) struct Services {
    pub(crate) brokers: String,
    pub(crate) redis: String,
    /// The address of the database made for this measurement.
    pub(crate) postgres: String,
    /// Its name, which names what else is made as well.
    pub(crate) name: String,
    admin: String,
}

impl Services {
    pub(crate) async fn set_up() -> Result<Self> {
        let var = |name| std::env::var(name).with_context(|| format!("{name} is not set; run this by `make bench`"));
        let admin = var("POSTGRES_URL")?;
        let name = format!("weir_bench_{}", uuid::Uuid::new_v4().simple());
        let server = admin.rsplit_once('/').context("POSTGRES_URL has no database")?.0;
        let postgres = format!("{server}/{name}");
        sql(&mut PgConnection::connect(&admin).await?, &format!("CREATE DATABASE {name}")).await?;
        Ok(Self { brokers: var("KAFKA_BROKERS")?, redis: var("REDIS_URL")?, postgres, name, admin })
    }

    /// Removes the database and the topics, the mirrors of dead rows included.
    pub(crate) async fn tear_down(&self, topics: &[String]) -> Result<()> {
        let mut admin = PgConnection::connect(&self.admin).await?;
        sql(&mut admin, &format!("DROP DATABASE {} WITH (FORCE)", self.name)).await?;
        let mirrors: Vec<String> = topics.iter().map(|topic| format!("{topic}.storage.dead")).collect();
        let all: Vec<&str> = topics.iter().chain(&mirrors).map(String::as_str).collect();
        if !all.is_empty() {
            self.kafka_admin()?.delete_topics(&all, &AdminOptions::new()).await?;
        }
        Ok(())
    }

    pub(crate) async fn make_topic(&self, topic: &str, partitions: i32) -> Result<()> {
        let topic = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
        for made in self.kafka_admin()?.create_topics([&topic], &AdminOptions::new()).await? {
            made.map_err(|(name, code)| anyhow::anyhow!("topic {name}: {code}"))?;
        }
        Ok(())
    }

    /// An empty schema and an empty Redis.
    pub(crate) async fn empty(&self) -> Result<PgConnection> {
        let mut db = PgConnection::connect(&self.postgres).await?;
        sql(&mut db, "DROP SCHEMA public CASCADE; CREATE SCHEMA public").await?;
        // Not in the background: what one side left must not be freed while the next is measured.
        let patient = redis::AsyncConnectionConfig::new().set_response_timeout(Some(Duration::from_secs(60)));
        let redis = redis::Client::open(self.redis.as_str())?;
        let mut redis = redis.get_multiplexed_async_connection_with_config(&patient).await?;
        redis::cmd("FLUSHDB").arg("SYNC").exec_async(&mut redis).await?;
        Ok(db)
    }

    pub(crate) fn client(&self) -> ClientConfig {
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", &self.brokers);
        client
    }

    fn kafka_admin(&self) -> Result<AdminClient<DefaultClientContext>> {
        Ok(self.client().create()?)
    }
}

pub(crate) async fn sql(db: &mut PgConnection, statement: &str) -> Result<()> {
    sqlx::raw_sql(sqlx::AssertSqlSafe(statement.to_owned())).execute(db).await?;
    Ok(())
}
