//! Logs: to standard error, as text or JSON, filtered by `log.level` or the variable `RUST_LOG`. And traces.

pub mod traces;

use std::io::{self, IsTerminal as _, Write};
use std::sync::{Arc, Mutex, PoisonError};

use tracing_subscriber::EnvFilter;

use crate::config::{Log, LogFormat};
use crate::kafka::UNSAID;

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

/// The most bytes of a log that is held back; what comes after them is counted and left out.
const HELD_MAX: usize = 64 * 1024;

/// A log that is held back while something else has the terminal. Clones hold the same one.
#[derive(Debug, Clone, Default)]
pub struct HeldLog(Arc<Mutex<Held>>);

#[derive(Debug, Default)]
struct Held {
    text: Vec<u8>,
    left_out: usize,
}

impl HeldLog {
    /// Writes what was held back to standard error.
    pub fn release(&self) {
        let Held { text, left_out } = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        let mut stderr = io::stderr();
        // A closed standard error leaves nobody to tell.
        stderr.write_all(&text).ok();
        if left_out > 0 {
            writeln!(stderr, "(and {left_out} more bytes of log)").ok();
        }
    }
}

impl Write for HeldLog {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match held.text.len() + line.len() <= HELD_MAX {
            true => held.text.extend_from_slice(line),
            false => held.left_out += line.len(),
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Sets the process's log up, once: to standard error, or held back. Colours only where somebody looks.
///
/// # Errors
/// The filter cannot be read, or there is a log already.
pub fn init(log: &Log, held: Option<HeldLog>) -> Result<(), Error> {
    let (place, filter) = match std::env::var("RUST_LOG") {
        Ok(filter) if !filter.is_empty() => ("the variable RUST_LOG", filter),
        _ => ("`log.level`", log.level.clone()),
    };
    let Ok(filter) = EnvFilter::try_new(format!("{filter},{UNSAID}")) else {
        return Err(Error::Filter { place, filter });
    };
    let ansi = held.is_none() && wants_colours();
    let writer = move || -> Box<dyn Write> {
        match &held {
            Some(held) => Box::new(held.clone()),
            None => Box::new(io::stderr()),
        }
    };
    // A closed standard error leaves nobody to tell, not even that.
    let builder = tracing_subscriber::fmt().with_writer(writer).log_internal_errors(false).with_env_filter(filter);
    let initialised = match log.format {
        LogFormat::Text => builder.with_ansi(ansi).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).with_ansi(false).try_init(),
    };
    initialised.map_err(|_| Error::Twice)
}

/// Where somebody looks who has not declined them (<https://no-color.org>).
fn wants_colours() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|declined| declined.is_empty())
}
