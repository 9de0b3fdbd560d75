//! Making a pool: by code, or wholly from configuration.

use std::sync::Arc;

use super::control::Steering;
use super::pacing::Pacing;
use super::transactions::Transactions;
use super::{Pool, Standings};
use crate::admin::Health;
use crate::config::{self, Config, Start};
use crate::event::{Decode, Document, Event, Fields, FieldsError, Json, Payload};
use crate::handler::{Handler, PersistError, SHIPPED, Setup};
use crate::metrics::Metrics;
use crate::once::{Link, ProcessedSet};
use crate::pipeline::{Decoding, Pipeline, Pipelines, PipelinesError};
use crate::store::{self, Store};

/// The fewest connections that a pool gets, whatever the process's number divides to.
const CONNECTIONS_MIN: u32 = 2;

/// What a pool cannot be made of.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The pipelines do not go together.
    #[error(transparent)]
    Pipelines(#[from] PipelinesError),
    /// A JSON pointer is wrong.
    #[error(transparent)]
    Fields(#[from] FieldsError),
    /// The database's address is wrong, or it refuses weir.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// Something is not set.
    #[error("pool {pool:?}: {missing} is not set")]
    Missing {
        /// The pool.
        pool: String,
        /// The setting.
        missing: &'static str,
    },
    /// A setting cannot be, each in a line that says what to do.
    #[error("{}", .problems.join("\n"))]
    Settings {
        /// What is wrong.
        problems: Vec<String>,
    },
    /// A handler cannot be made.
    #[error("pool {pool:?}, pipeline {pipeline:?}: {problem}")]
    Handler {
        /// The pool.
        pool: String,
        /// The pipeline.
        pipeline: String,
        /// What is wrong and what to do.
        problem: String,
    },
}

/// What pools of one process share.
#[derive(Clone)]
pub struct Process {
    /// All metrics.
    pub metrics: Metrics,
    /// What the health endpoints show.
    pub health: Health,
}

/// A pool in the making.
pub struct PoolBuilder<T> {
    name: String,
    group: Option<String>,
    topics: Option<Vec<String>>,
    start: Option<Start>,
    decoder: Option<Box<dyn Decode<T>>>,
    pipelines: Vec<Pipeline<T>>,
    process: Option<Process>,
}

impl<T: Payload> PoolBuilder<T> {
    pub(super) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            group: None,
            topics: None,
            start: None,
            decoder: None,
            pipelines: Vec::new(),
            process: None,
        }
    }

    /// The consumer group; without one, the pool's name.
    #[must_use]
    pub fn group(mut self, group: impl Into<String>) -> Self {
        self.group = Some(group.into());
        self
    }

    /// The topics to consume.
    #[must_use]
    pub fn topics<S: Into<String>>(mut self, topics: impl IntoIterator<Item = S>) -> Self {
        self.topics = Some(topics.into_iter().map(Into::into).collect());
        self
    }

    /// Where a group begins that has no place on a topic yet.
    #[must_use]
    pub fn start(mut self, start: Start) -> Self {
        self.start = Some(start);
        self
    }

    /// How records become events.
    #[must_use]
    pub fn decoder(mut self, decoder: impl Decode<T>) -> Self {
        self.decoder = Some(Box::new(decoder));
        self
    }

    /// A pipeline that wants every event.
    #[must_use]
    pub fn pipeline(self, name: &str, handler: impl Handler<T>) -> Self {
        self.push(name, None, Box::new(handler))
    }

    /// A pipeline that wants the events for which the filter says so. An error of the filter sets the event aside.
    #[must_use]
    pub fn pipeline_when(
        self,
        name: &str,
        when: impl Fn(&Event<T>) -> Result<bool, String> + Send + Sync + 'static,
        handler: impl Handler<T>,
    ) -> Self {
        self.push(name, Some(Box::new(when)), Box::new(handler))
    }

    /// Metrics and health that are shared with other pools and served by the process.
    #[must_use]
    pub fn process(mut self, process: Process) -> Self {
        self.process = Some(process);
        self
    }

    fn push(
        mut self,
        name: &str,
        when: Option<crate::pipeline::Filter<T>>,
        handler: Box<dyn crate::handler::DynHandler<T>>,
    ) -> Self {
        self.pipelines.push(Pipeline { name: Arc::from(name), when, handler });
        self
    }

    /// Makes the pool. Connections are made when it runs.
    ///
    /// # Errors
    /// A setting is missing, or the pipelines do not go together.
    pub fn build_with(self, config: &Config, decoder: impl Decode<T>) -> Result<Pool<T>, BuildError> {
        self.decoder(decoder).finish(config)
    }

    fn finish(self, config: &Config) -> Result<Pool<T>, BuildError> {
        let missing = |missing| BuildError::Missing { pool: self.name.clone(), missing };
        let mut settings = config.pools.get(&self.name).cloned().unwrap_or_default();
        settings.topics = self.topics.unwrap_or(settings.topics);
        if settings.topics.is_empty() {
            return Err(missing("topics"));
        }
        if let Some(start) = self.start {
            settings.start = start;
        } else if !config.pools.contains_key(&self.name) {
            return Err(missing("start"));
        }
        let problems = config.pool_problems(&self.name, &settings);
        if !problems.is_empty() {
            return Err(BuildError::Settings { problems });
        }
        let decoder = self.decoder.ok_or_else(|| missing("a decoder"))?;
        let store = connect(config, config.pools.len().max(1)).ok_or_else(|| missing("store.url"))??;
        let process = self
            .process
            .unwrap_or_else(|| Process { metrics: Metrics::new(), health: Health::new([self.name.as_str()]) });
        let pool: Arc<str> = Arc::from(self.name.as_str());
        let group = self.group.or_else(|| settings.group.clone()).unwrap_or_else(|| self.name.clone());
        let pipelines = Pipelines::new(Arc::clone(&pool), store, self.pipelines)?;
        Ok(assemble(config, settings, &pool, &group, decoder, pipelines, &process))
    }
}

impl<T: Payload + serde::de::DeserializeOwned> PoolBuilder<T> {
    /// Makes the pool, decoding JSON unless another decoder was given. Connections are made when it runs.
    ///
    /// # Errors
    /// A setting is missing, or the pipelines do not go together.
    pub fn build(mut self, config: &Config) -> Result<Pool<T>, BuildError> {
        self.decoder.get_or_insert_with(|| Box::new(Json::<T>::default()));
        self.finish(config)
    }
}

impl Pool<Document> {
    /// Makes a configured pool. Handlers look at their tables, so the database must answer.
    ///
    /// # Errors
    /// A setting is missing or does not fit the database's tables; the database's own errors.
    pub async fn from_config(config: &Config, name: &str, process: &Process) -> Result<Self, BuildError> {
        let missing = |missing| BuildError::Missing { pool: name.to_owned(), missing };
        let settings = config.pools.get(name).cloned().ok_or_else(|| missing("its section [pools.…]"))?;
        let store = connect(config, config.pools.len()).ok_or_else(|| missing("store.url"))??;
        let mut fields = Fields::new(&settings.event)?;
        store.reach().await?;
        let mut list = Vec::with_capacity(settings.pipelines.len());
        for pipeline in &settings.pipelines {
            list.push(pipeline_of(name, pipeline, &settings, &mut fields, &store).await?);
        }
        let pool: Arc<str> = Arc::from(name);
        let group = settings.group_of(name).to_owned();
        let pipelines = Pipelines::new(Arc::clone(&pool), store, list)?;
        Ok(assemble(config, settings, &pool, &group, Box::new(fields), pipelines, process))
    }
}

async fn pipeline_of(
    pool: &str,
    pipeline: &config::Pipeline,
    settings: &config::Pool,
    fields: &mut Fields,
    store: &Arc<dyn Store>,
) -> Result<Pipeline<Document>, BuildError> {
    let problem =
        |problem: String| BuildError::Handler { pool: pool.to_owned(), pipeline: pipeline.name.clone(), problem };
    let shipped = SHIPPED.iter().find(|(name, _)| *name == pipeline.handler);
    let (_, build) = shipped.ok_or_else(|| problem(format!("there is no handler {:?}", pipeline.handler)))?;
    let setup = Setup { pipeline, fields, id_pointer: &settings.event.id, store };
    let handler = build(setup).await.map_err(|error| match error.downcast() {
        Ok(PersistError::Store(error)) => BuildError::Store(error),
        Ok(error) => problem(error.to_string()),
        Err(error) => problem(format!("{error:#}")),
    })?;
    Ok(Pipeline { name: Arc::from(pipeline.name.as_str()), when: None, handler })
}

/// The pool's share of the process's connections: one pool's batches never wait for another's.
fn connect(config: &Config, pools: usize) -> Option<Result<Arc<dyn Store>, BuildError>> {
    let mut settings = config.store.clone()?;
    settings.connections = connections_of_pool(&settings, pools);
    Some(store::open(&settings).map_err(BuildError::from))
}

fn connections_of_pool(store: &config::Store, pools: usize) -> u32 {
    let pools = u32::try_from(pools.max(1)).unwrap_or(u32::MAX);
    (store.connections / pools).max(CONNECTIONS_MIN)
}

fn assemble<T: Payload>(
    config: &Config,
    settings: config::Pool,
    pool: &Arc<str>,
    group: &str,
    decoder: Box<dyn Decode<T>>,
    pipelines: Pipelines<T>,
    process: &Process,
) -> Pool<T> {
    let metrics = process.metrics.pool(pool);
    let pipelines = match settings.on_reject {
        config::OnReject::Park => pipelines.parking(settings.park_limit),
        config::OnReject::Dead => pipelines,
    };
    let reject_tombstones = settings.on_tombstone == config::OnTombstone::Reject;
    let takes_set = settings.processed_set == config::ProcessedSet::Set;
    // Nothing connects before something is asked: a rate may be set while the pool runs.
    let redis = config.redis.clone().map(|redis| (Link::open(&redis, pool), redis));
    let processed = redis
        .as_ref()
        .filter(|_| takes_set)
        .map(|(link, redis)| ProcessedSet::over(link.clone(), redis, pool, metrics.clone()));
    let names = (Arc::clone(pool), Arc::from(group));
    let health = process.health.pool(pool);
    let pacing = Pacing::new(names.clone(), settings.rate, redis, metrics.clone());
    let steering = Steering::new(names, pacing, metrics.clone(), health.clone());
    let connections = config.store.as_ref().map_or(1, |store| connections_of_pool(store, config.pools.len()));
    let transactions =
        settings.transactions_max.map(|max| Transactions::new(max.min(connections) as usize, metrics.clone()));
    Pool {
        name: Arc::clone(pool),
        group: Arc::from(group),
        kafka: config.kafka.clone(),
        config: settings,
        pipelines,
        decoding: Decoding { decoder, reject_tombstones },
        processed,
        steering,
        transactions,
        connections: connections as usize,
        metrics,
        health,
        standings: Standings::default(),
    }
}
