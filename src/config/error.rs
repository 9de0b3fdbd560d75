//! What can be wrong with configuration. Every one of these ends the process with exit code 2.

use std::path::PathBuf;

use super::secret::redact_addresses;

/// Configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read.
    #[error("read {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// What should be TOML is none.
    #[error("{place}: {problem}")]
    Syntax {
        /// The file or argument.
        place: String,
        /// What is wrong, and in which line.
        problem: String,
    },
    /// It can be read, but not be used: every problem that was found.
    #[error("the configuration cannot be used:\n  {}", .0.join("\n  "))]
    Invalid(Vec<String>),
}

impl Error {
    pub(super) fn invalid(problems: impl IntoIterator<Item = String>) -> Self {
        Self::Invalid(problems.into_iter().map(|problem| redact_addresses(&problem)).collect())
    }
}
