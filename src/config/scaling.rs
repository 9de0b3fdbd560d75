//! How many workers a pool asks for.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What the wanted number of workers is to achieve.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Scaling {
    /// In how long a backlog is to be cleared.
    #[serde(with = "super::duration")]
    pub clear_within: Duration,
    /// How long fewer workers must have been enough before fewer are asked for.
    #[serde(with = "super::duration")]
    pub down_after: Duration,
    /// The fewest workers.
    pub min: u32,
    /// The most workers; without it, as many as there are partitions with work.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max: Option<u32>,
}

impl Default for Scaling {
    fn default() -> Self {
        Self { clear_within: Duration::from_secs(5 * 60), down_after: Duration::from_secs(5 * 60), min: 1, max: None }
    }
}
