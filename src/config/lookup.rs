//! A lookup table: what conditions can ask of it by a key.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Where a lookup table comes from: a file, or a table of the database.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Lookup {
    /// A CSV file whose first line names the columns, or a JSON file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
    /// A table of the database.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub table: Option<String>,
    /// The column by which rows are found.
    pub key: String,
    /// How often the file is looked at, or the table read.
    #[serde(with = "super::duration")]
    pub refresh: Duration,
}

impl Default for Lookup {
    fn default() -> Self {
        Self { file: None, table: None, key: "id".to_owned(), refresh: Duration::from_secs(30) }
    }
}
