//! Making a pool: by code, or wholly from configuration.

use std::sync::Arc;

use super::control::Steering;
use super::pacing::Pacing;
use super::transactions::Transactions;
use super::{Pool, Standings};
use crate::admin::Health;
use crate::config::{self, Config, OnUnknownType, Start};
use crate::dead_letter::Letters;
use crate::event::{Decode, Document, Event, Fields, FieldsError, Json, Payload};
use crate::handler::{Beside, DynHandler, Handler, PersistError, Setup, shipped};
use crate::metrics::{Metrics, PoolMetrics};
use crate::once::{Link, ProcessedSet};
use crate::pipeline::{Decoding, Pipeline, Pipelines, PipelinesError, When};
use crate::publish::PublishError;
use crate::rules::{LookupError, Lookups, Rule, RuleError, Ruling};
use crate::store::{self, Store, Unstored};

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
    /// The Kafka client refuses a setting.
    #[error(transparent)]
    Kafka(#[from] PublishError),
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
    /// A pipeline's condition cannot be used.
    #[error("pool {pool:?}, pipeline {pipeline:?}, `when`: {error}")]
    When {
        /// The pool.
        pool: String,
        /// The pipeline.
        pipeline: String,
        /// Where and why.
        error: RuleError,
    },
    /// A lookup table cannot be used.
    #[error("pool {pool:?}: {error}")]
    Lookup {
        /// The pool.
        pool: String,
        /// Why not.
        error: LookupError,
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
    on_unknown_type: Option<OnUnknownType>,
    has_store: bool,
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
            on_unknown_type: None,
            has_store: true,
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

    /// What becomes of events whose type the decoder does not know ([`Tagged`](crate::event::Tagged)).
    #[must_use]
    pub fn on_unknown_type(mut self, on_unknown_type: OnUnknownType) -> Self {
        self.on_unknown_type = Some(on_unknown_type);
        self
    }

    /// The pool writes to no database: its handlers' `prepare` is the effect, `apply` is never called. At least once, in each
    /// partition's order; Kafka's committed offset is the position, and rejected events go to the dead-letter topic.
    #[must_use]
    pub fn without_store(mut self) -> Self {
        self.has_store = false;
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
        self.push(name, Some(When { filter: Box::new(when), text: None }), Box::new(handler))
    }

    /// Metrics and health that are shared with other pools and served by the process.
    #[must_use]
    pub fn process(mut self, process: Process) -> Self {
        self.process = Some(process);
        self
    }

    fn push(mut self, name: &str, when: Option<When<T>>, handler: Box<dyn crate::handler::DynHandler<T>>) -> Self {
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
        settings.on_unknown_type = self.on_unknown_type.unwrap_or(settings.on_unknown_type);
        let mut problems = config.pool_problems(&self.name, &settings);
        if !self.has_store {
            problems.extend(settings.problems_without_store(&self.name));
        }
        if !problems.is_empty() {
            return Err(BuildError::Settings { problems });
        }
        let decoder = self.decoder.ok_or_else(|| missing("a decoder"))?;
        let store = match self.has_store {
            true => connect(config, config.pools.len().max(1)).ok_or_else(|| missing("store.url"))??,
            false => Arc::new(Unstored),
        };
        let has_store = self.has_store;
        let process = self
            .process
            .unwrap_or_else(|| Process { metrics: Metrics::new(), health: Health::new([self.name.as_str()]) });
        let pool: Arc<str> = Arc::from(self.name.as_str());
        let group = self.group.or_else(|| settings.group.clone()).unwrap_or_else(|| self.name.clone());
        let pipelines = Pipelines::new(Arc::clone(&pool), store, self.pipelines)?;
        let parts = Parts { settings, has_store, decoder, pipelines };
        assemble(config, &pool, &group, parts, &process)
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
        let has_store = settings.needs_store();
        let store = match has_store {
            true => connect(config, config.pools.len()).ok_or_else(|| missing("store.url"))??,
            false => Arc::new(Unstored),
        };
        let mut fields = Fields::new(&settings.event)?;
        store.reach().await?;
        let lookups = lookups_of(name, &settings, &store).await?;
        let metrics = process.metrics.pool(name);
        let pool: Arc<str> = Arc::from(name);
        let mut beside: Vec<Beside> = Vec::new();
        let mut list = Vec::with_capacity(settings.pipelines.len());
        for pipeline in &settings.pipelines {
            let when = when_of(name, pipeline, &mut fields, &lookups, &metrics)?;
            let setup = Setup {
                pipeline,
                pool: &settings,
                pool_name: &pool,
                fields: &mut fields,
                id_pointer: &settings.event.id,
                store: &store,
                lookups: &lookups,
                kafka: &config.kafka,
                metrics: &metrics,
                beside: &mut beside,
            };
            let handler = handler_of(setup).await?;
            list.push(Pipeline { name: Arc::from(pipeline.name.as_str()), when, handler });
        }
        let group = settings.group_of(name).to_owned();
        let pipelines = Pipelines::new(Arc::clone(&pool), Arc::clone(&store), list)?;
        let parts = Parts { settings, has_store, decoder: Box::new(fields), pipelines };
        let mut built = assemble(config, &pool, &group, parts, process)?;
        built.beside = beside;
        if !lookups.is_empty() {
            built.beside.push(Box::new(move |stop| Box::pin(lookups.watch(pool, store, metrics, stop))));
        }
        Ok(built)
    }
}

async fn lookups_of(pool: &str, settings: &config::Pool, store: &Arc<dyn Store>) -> Result<Lookups, BuildError> {
    let problem = |error| match error {
        LookupError::Store(error) => BuildError::Store(error),
        error => BuildError::Lookup { pool: pool.to_owned(), error },
    };
    let lookups = Lookups::from_files(&settings.lookups).map_err(problem)?;
    lookups.load(&**store).await.map_err(problem)?;
    Ok(lookups)
}

/// What an event lacks makes its pipeline not want it, and is counted.
fn when_of(
    pool: &str,
    pipeline: &config::Pipeline,
    fields: &mut Fields,
    lookups: &Lookups,
    metrics: &PoolMetrics,
) -> Result<Option<When<Document>>, BuildError> {
    let Some(text) = &pipeline.when else { return Ok(None) };
    let rule = Rule::compile(text, fields, lookups).map_err(|error| BuildError::When {
        pool: pool.to_owned(),
        pipeline: pipeline.name.clone(),
        error,
    })?;
    let missing = metrics.when_missing(&pipeline.name);
    let filter = move |event: &Event<Document>| {
        Ok(match rule.ask(event)? {
            Ruling::Yes => true,
            Ruling::No => false,
            Ruling::Missing => {
                missing.inc();
                false
            }
        })
    };
    Ok(Some(When { filter: Box::new(filter), text: Some(Arc::from(text.as_str())) }))
}

async fn handler_of(setup: Setup<'_>) -> Result<Box<dyn DynHandler<Document>>, BuildError> {
    let (pool, pipeline) = (setup.pool_name.to_string(), setup.pipeline.name.clone());
    let handler = &setup.pipeline.handler;
    let problem = |problem: String| BuildError::Handler { pool, pipeline, problem };
    let Some(shipped) = shipped(handler) else { return Err(problem(format!("there is no handler {handler:?}"))) };
    (shipped.build)(setup).await.map_err(|error| match error.downcast() {
        Ok(PersistError::Store(error)) => BuildError::Store(error),
        Ok(error) => problem(error.to_string()),
        Err(error) => match error.downcast::<store::Error>() {
            Ok(error) => BuildError::Store(error),
            Err(error) => problem(format!("{error:#}")),
        },
    })
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

/// What is particular to a pool.
struct Parts<T> {
    settings: config::Pool,
    has_store: bool,
    decoder: Box<dyn Decode<T>>,
    pipelines: Pipelines<T>,
}

fn assemble<T: Payload>(
    config: &Config,
    pool: &Arc<str>,
    group: &str,
    parts: Parts<T>,
    process: &Process,
) -> Result<Pool<T>, BuildError> {
    let Parts { settings, has_store, decoder, pipelines } = parts;
    let letters = match has_store {
        true => None,
        false => Some(Letters::new(&config.kafka, pool)?),
    };
    let metrics = process.metrics.pool(pool);
    let pipelines = match settings.on_reject {
        config::OnReject::Park => pipelines.parking(settings.park_limit),
        config::OnReject::Dead => pipelines,
    };
    // Nothing connects before something is asked: a rate may be set while the pool runs.
    let redis = config.redis.clone().map(|redis| (Link::open(&redis, pool), redis));
    let processed = match &redis {
        Some((link, redis)) => ProcessedSet::over(link.clone(), redis, &settings, pool, metrics.clone())
            .map_err(|problem| BuildError::Settings { problems: vec![format!("`pools.{pool}.bloom`: {problem}")] })?,
        None => None,
    };
    let names = (Arc::clone(pool), Arc::from(group));
    let health = process.health.pool(pool);
    let pacing = Pacing::new(names.clone(), settings.rate, redis, metrics.clone());
    let steering = Steering::new(names, pacing, metrics.clone(), health.clone());
    let connections = config.store.as_ref().map_or(1, |store| connections_of_pool(store, config.pools.len()));
    let transactions =
        settings.transactions_max.map(|max| Transactions::new(max.min(connections) as usize, metrics.clone()));
    Ok(Pool {
        name: Arc::clone(pool),
        group: Arc::from(group),
        kafka: config.kafka.clone(),
        decoding: Decoding::new(decoder, &settings),
        letters,
        config: settings,
        pipelines,
        processed,
        steering,
        transactions,
        connections: connections as usize,
        metrics,
        health,
        standings: Standings::default(),
        beside: Vec::new(),
    })
}
