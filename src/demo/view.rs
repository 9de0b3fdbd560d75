//! What is seen of a running demo: a live screen on a terminal, a line a second elsewhere, nothing where the answer is
//! to be read by a program.

mod screen;

use std::io::{self, Write as _};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::Setting;
use super::flow::{Flow, Look};
use crate::terminal::{self, grouped};
use screen::Screen;

/// How often a line is written.
const LINE_EVERY: Duration = Duration::from_secs(1);
/// How often the screen is drawn.
const DRAW_EVERY: Duration = Duration::from_millis(250);

/// What is seen of a run.
pub enum View {
    /// A screen of its own on the terminal.
    Live(Box<Screen>),
    /// A line a second on standard output.
    Lines(Pace),
    /// Only where it runs, on standard error.
    Silent,
}

/// What the rate is made of: the last look.
#[derive(Debug, Default)]
pub struct Pace {
    looked_at: Option<Instant>,
    settled: u64,
}

impl Pace {
    /// A look and the records settled a second since the last one, if so much time has passed.
    fn look(&mut self, flow: &Flow, every: Duration) -> Option<(Look, f64)> {
        let looked_at = *self.looked_at.get_or_insert_with(Instant::now);
        let passed = looked_at.elapsed();
        if passed < every {
            return None;
        }
        let look = flow.look();
        let rate = look.settled.saturating_sub(self.settled) as f64 / passed.as_secs_f64();
        (self.looked_at, self.settled) = (Some(Instant::now()), look.settled);
        Some((look, rate))
    }
}

impl View {
    /// The view that fits where the output goes.
    #[must_use]
    pub fn new(json: bool) -> Self {
        match json {
            true => Self::Silent,
            false if terminal::is_there() => Self::Live(Box::default()),
            false => Self::Lines(Pace::default()),
        }
    }

    /// Whether the terminal is taken over, so that nothing else may write to it.
    #[must_use]
    pub fn is_live(&self) -> bool {
        matches!(self, Self::Live(_))
    }

    /// Says what it runs on, before anything can be shown.
    pub(super) fn announce(&self, setting: &Setting) -> Result<()> {
        let said = format!(
            "weir demo: broker {}; database {}; for {}, Ctrl-C stops it",
            setting.broker,
            setting.store,
            humantime::format_duration(setting.duration)
        );
        match self {
            Self::Live(_) | Self::Lines(_) => {
                say(&said)?;
                say("waiting for the consumer group's first rebalance")
            }
            Self::Silent => {
                // A closed standard error leaves nobody to tell.
                writeln!(io::stderr(), "{said}").ok();
                Ok(())
            }
        }
    }

    /// Takes the terminal over, if there is one. Until it is given back, Ctrl-C is a key, which only a look at it hears.
    pub(super) fn open(&mut self, setting: &Setting) -> Result<()> {
        match self {
            Self::Live(screen) => screen.open(setting).context("draw on the terminal"),
            Self::Lines(_) | Self::Silent => Ok(()),
        }
    }

    /// Says that the rest takes a moment.
    pub(super) fn audits(&self) -> Result<()> {
        match self {
            Self::Live(_) | Self::Lines(_) => say("everything is settled; auditing the database"),
            Self::Silent => Ok(()),
        }
    }

    pub(super) fn show(&mut self, flow: &Flow, elapsed: Duration) -> Result<()> {
        match self {
            Self::Live(screen) => screen.show(flow, elapsed).context("draw on the terminal"),
            Self::Lines(pace) => match pace.look(flow, LINE_EVERY) {
                None => Ok(()),
                Some((look, rate)) => say(&line(&look, rate, elapsed)),
            },
            Self::Silent => Ok(()),
        }
    }

    pub(super) fn wants_to_stop(&mut self) -> bool {
        match self {
            Self::Live(screen) => screen.wants_to_stop(),
            Self::Lines(_) | Self::Silent => false,
        }
    }

    pub(super) fn close(&mut self) {
        if let Self::Live(screen) = self {
            screen.close();
        }
    }
}

/// A reader that has seen enough and closed the pipe is no failure.
fn say(line: &str) -> Result<()> {
    match writeln!(io::stdout(), "{line}") {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error).context("write to standard output"),
        _ => Ok(()),
    }
}

fn line(look: &Look, rate: f64, elapsed: Duration) -> String {
    format!(
        "{:>5.0} s {:>9} events/s  settled {:>11}  lag {:>7}  p50 {:>4.0} ms  p99 {:>4.0} ms",
        elapsed.as_secs_f64(),
        grouped(rate as u64),
        grouped(look.settled),
        grouped(look.lag),
        look.p50_ms,
        look.p99_ms
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_matters() {
        let look = Look { settled: 123_456, lag: 789, p50_ms: 41.2, p99_ms: 90.0, ..Look::default() };
        let text = line(&look, 41_234.5, Duration::from_secs(3));
        assert_eq!(text, "    3 s    41,234 events/s  settled     123,456  lag     789  p50   41 ms  p99   90 ms");
    }
}
