//! The processed set's Redis.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Secret;

/// A Redis that remembers which events are done: a hint that saves work, never what decides.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Redis {
    /// Its address, such as `redis://cache:6379`.
    pub url: Secret,
    /// A file that holds the address, in place of `url`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url_file: Option<PathBuf>,
    /// How long an event is remembered.
    #[serde(with = "super::duration")]
    pub expiry: Duration,
    /// How long an answer is waited for before the work is done without it.
    #[serde(with = "super::duration")]
    pub deadline: Duration,
}

impl Default for Redis {
    fn default() -> Self {
        Self {
            url: Secret::default(),
            url_file: None,
            expiry: Duration::from_secs(15 * 60),
            deadline: Duration::from_millis(50),
        }
    }
}
