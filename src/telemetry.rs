//! Logs: to standard error, as text or JSON, filtered by `log.level` or the variable `RUST_LOG`.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

use crate::config::{Log, LogFormat};

/// A log that cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The filter cannot be read.
    #[error("{place} is {filter:?}, which is no log filter: give a level such as \"info\" or \"warn,weir=debug\"")]
    Filter {
        /// Where it was given.
        place: &'static str,
        /// What was given.
        filter: String,
    },
    /// There is a log already.
    #[error("the log is set up twice")]
    Twice,
}

/// Sets the process's log up, once. Colours only where somebody looks.
///
/// # Errors
/// The filter cannot be read, or there is a log already.
pub fn init(log: &Log) -> Result<(), Error> {
    let (place, filter) = match std::env::var("RUST_LOG") {
        Ok(filter) if !filter.is_empty() => ("the variable RUST_LOG", filter),
        _ => ("`log.level`", log.level.clone()),
    };
    let Ok(filter) = EnvFilter::try_new(&filter) else { return Err(Error::Filter { place, filter }) };
    // A closed standard error leaves nobody to tell, not even that.
    let builder =
        tracing_subscriber::fmt().with_writer(std::io::stderr).log_internal_errors(false).with_env_filter(filter);
    let initialised = match log.format {
        LogFormat::Text => builder.with_ansi(wants_colours()).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).with_ansi(false).try_init(),
    };
    initialised.map_err(|_| Error::Twice)
}

/// Where somebody looks who has not declined them (<https://no-color.org>).
fn wants_colours() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|declined| declined.is_empty())
}
