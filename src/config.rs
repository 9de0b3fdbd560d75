//! Configuration: loaded in layers, checked whole, shown without its secrets.
//!
//! A later layer wins: defaults, the files in their order, `WEIR__…` variables, `--set`. A key that is not known is
//! an error in every layer, and everything wrong is said at once.

mod duration;
mod error;
mod kafka;
mod pipeline;
mod pool;
mod process;
mod redis;
mod secret;
mod size;
mod start;
mod store;

pub use error::Error;
pub use kafka::Kafka;
pub use pipeline::{OnDuplicate, Pipeline};
pub use pool::{EventFields, OnTombstone, Pool, ProcessedSet};
pub use process::{Health, Log, LogFormat};
pub use redis::Redis;
pub use secret::Secret;
pub use start::Start;
pub use store::Store;

use std::collections::BTreeMap;
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
    /// The log.
    pub log: Log,
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
            log: Log::default(),
            pools: BTreeMap::new(),
        }
    }
}

impl Config {
    /// Loads and checks configuration: defaults, then files, then variables, then `key=value` settings.
    ///
    /// # Errors
    /// A file cannot be read, something is no TOML, or the whole cannot be used.
    pub fn load(files: &[PathBuf], sets: &[String]) -> Result<Self, Error> {
        let mut builder = ::config::Config::builder();
        for file in files {
            builder = builder.add_source(::config::File::from(file.as_path()).format(::config::FileFormat::Toml));
        }
        for set in sets {
            builder = builder.add_source(::config::File::from_str(set, ::config::FileFormat::Toml));
        }
        let whole = builder.build().and_then(::config::Config::try_deserialize);
        whole.map_err(|error| Error::Invalid(vec![error.to_string()]))
    }
}
