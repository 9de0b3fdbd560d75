//! What the demo runs on: topics and a scratch database, made one after the other and removed whatever happens between.

use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};

use super::{ANSWERED, Options};
use crate::config;
use crate::demo::broker::Broker;
use crate::store::{self, Scratch};

/// How long removing may take.
const REMOVED: Duration = Duration::from_secs(30);

/// What was made until now.
#[derive(Default)]
pub(super) struct Place {
    pub(super) broker: Option<Broker>,
    pub(super) scratch: Option<Scratch>,
}

/// Waits until the services answer that are to be used; the settings of the database.
pub(super) async fn answered(options: &Options, name: &str) -> Result<config::Store> {
    let temporary = || {
        let path = std::env::temp_dir().join(format!("{name}.db"));
        config::Secret::from(format!("sqlite://{}", path.display()))
    };
    let settings = config::Store {
        url: options.store.clone().unwrap_or_else(temporary),
        // All partitions of a SQLite pool wait for one writer.
        statement_timeout: Duration::from_secs(10),
        ..config::Store::default()
    };
    Scratch::check(&settings)?;
    store::await_answer(&*store::open(&settings)?, ANSWERED).await?;
    if let Some(brokers) = &options.brokers {
        Broker::answers(brokers, name).await?;
    }
    Ok(settings)
}

impl Place {
    /// Makes everything, or as much as goes.
    pub(super) async fn make(
        &mut self,
        options: &Options,
        store: config::Store,
        name: &str,
        topics: &[String],
    ) -> Result<()> {
        let broker = match &options.brokers {
            None => Broker::in_memory()?,
            Some(brokers) => Broker::real(brokers.clone()),
        };
        self.broker.insert(broker).make(topics).await?;
        let scratch = Scratch::make(&store, name).await.context("make a scratch database for the demo")?;
        let inside = store::open(&self.scratch.insert(scratch).settings)?;
        inside.migrate().await.context("make the demo's tables")
    }

    /// Removes what was made: both, even if one of them fails.
    pub(super) async fn remove(self) -> Result<()> {
        let removed = async {
            let tables = match self.scratch {
                Some(scratch) => scratch.remove().await.context("the demo's tables are left behind"),
                None => Ok(()),
            };
            let topics = match self.broker {
                Some(broker) => broker.remove().await.context("the demo's topics are left behind"),
                None => Ok(()),
            };
            match (tables, topics) {
                (Err(tables), Err(topics)) => Err(anyhow!("{tables:#}; {topics:#}")),
                (tables, topics) => tables.and(topics),
            }
        };
        let late = || anyhow!("the demo's topics and tables may be left behind: removing them took too long");
        tokio::time::timeout(REMOVED, removed).await.unwrap_or_else(|_| Err(late()))
    }
}
