//! Configuration: loaded in layers, checked whole, shown without its secrets.
//!
//! A later layer wins: defaults, the files in their order, `WEIR__…` variables, `--set`. A key that is not known is
//! an error in every layer, and everything wrong is said at once.
//!
//! Which handlers there are, and with them the keys of pipelines, this module is told (`handler.rs`). So [`Config::load`] and what
//! else depends on it stand where the handlers are known, in `src/handler/registry.rs`.

mod bloom;
mod budget;
mod conform;
mod console;
pub(crate) mod duration;
mod error;
mod files;
#[cfg(test)]
mod fuzz;
mod handler;
mod kafka;
mod layers;
mod lookup;
mod moderate;
mod pipeline;
mod pool;
mod process;
mod rate;
mod redis;
mod reference;
#[cfg(test)]
mod samples;
mod scaling;
pub(crate) mod schema;
mod secret;
mod settings;
pub(crate) mod size;
mod start;
mod store;
mod topics;
mod traces;
mod validate;

pub use self::redis::Redis;
pub(crate) use bloom::BLOCK_BITS;
pub use bloom::{Bitmap, Bloom};
pub use budget::Budget;
pub(crate) use conform::nearest;
pub use console::{Console, ConsoleListen};
pub use error::Error;
pub(crate) use handler::{Check, HandlerKind, Kinds};
pub use kafka::{GroupProtocol, Kafka};
pub use lookup::Lookup;
pub use moderate::{Classifier, Match, Moderate, OnUnavailable, PatternList, Verdict, VerdictRule, WordList};
pub(crate) use pipeline::MESSAGES;
pub use pipeline::{OnDuplicate, Pipeline};
pub use pool::{EventFields, OnReject, OnTombstone, OnUnknownType, Pool, ProcessedSet};
pub use process::{Health, Log, LogFormat};
pub use rate::Rate;
pub(crate) use reference::{Entry, Section, reference};
pub use scaling::Scaling;
pub use secret::Secret;
pub use settings::Settings;
pub use start::Start;
pub use store::{Pooler, Store};
pub(crate) use topics::is_topic;
pub use traces::{Headers, Relation, Traces};
pub(crate) use validate::{SQL_NAME, address_problem, is_http, is_name, is_sql_name};

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Everything that can be configured.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// How long a command waits for a service that does not answer yet; `weir run` waits for ever.
    #[serde(with = "duration")]
    pub startup_timeout: Duration,
    /// The Kafka cluster.
    pub kafka: Kafka,
    /// The database; pools need it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub store: Option<Store>,
    /// The processed set's Redis; nothing needs it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redis: Option<Redis>,
    /// The health and metrics endpoint.
    pub health: Health,
    /// The console.
    pub console: Console,
    /// The log.
    pub log: Log,
    /// The traces.
    pub traces: Traces,
    /// The pools, by name.
    pub pools: BTreeMap<String, Pool>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            startup_timeout: Duration::from_secs(60),
            kafka: Kafka::default(),
            store: None,
            redis: None,
            health: Health::default(),
            console: Console::default(),
            log: Log::default(),
            traces: Traces::default(),
            pools: BTreeMap::new(),
        }
    }
}

impl Config {
    /// Loads and checks configuration with the process' variables.
    pub(crate) fn load_for(kinds: Kinds<'_>, files: &[PathBuf], sets: &[String]) -> Result<Self, Error> {
        let variables = std::env::vars_os().filter_map(text_of).collect::<Result<Vec<_>, _>>()?;
        Self::load_with(kinds, files, variables.into_iter(), sets)
    }

    pub(crate) fn load_with(
        kinds: Kinds<'_>,
        files: &[PathBuf],
        variables: impl Iterator<Item = (String, String)>,
        sets: &[String],
    ) -> Result<Self, Error> {
        let merged = layers::merge(files, variables, sets)?;
        let problems = match &merged.cache.kind {
            ::config::ValueKind::Table(values) => conform::problems(values, kinds),
            _ => Vec::new(),
        };
        if !problems.is_empty() {
            return Err(Error::invalid(problems));
        }
        let mut config: Self = merged.try_deserialize().map_err(|error| Error::invalid([error.to_string()]))?;
        config.pools.values_mut().for_each(|pool| kinds.seal(pool));
        let mut problems = Vec::new();
        files::read_secrets(&mut config, kinds, &mut problems);
        problems.extend(validate::problems(&config, kinds));
        config.kafka.fill_in();
        if problems.is_empty() { Ok(config) } else { Err(Error::invalid(problems)) }
    }

    /// What is wrong with a pool that a program made or changed by itself: a line each.
    pub(crate) fn problems_of_pool(&self, kinds: Kinds<'_>, name: &str, pool: &Pool) -> Vec<String> {
        let mut pool = pool.clone();
        kinds.seal(&mut pool);
        validate::of_pool(&self.kafka, self.redis.as_ref(), kinds, (name, &pool))
    }
}

/// A variable as text. Those of other programs need not be; one of weir's that is not is an error, since without it
/// weir would run with something else.
fn text_of((name, value): (OsString, OsString)) -> Option<Result<(String, String), Error>> {
    let name = name.into_string().ok()?;
    let is_ours = name.get(..layers::PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(layers::PREFIX));
    match value.into_string() {
        Ok(value) => Some(Ok((name, value))),
        Err(_) if is_ours => {
            let problem = "its value is not UTF-8".to_owned();
            Some(Err(Error::Syntax { place: format!("the variable {name}"), problem }))
        }
        Err(_) => None,
    }
}
