//! How a run gets on, on standard error: a bar on a terminal, else a line now and then; and its end in words.

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::result::{Interval, Percentiles, RunResult};

const BAR: &str = "{prefix} {wide_bar} {msg}";
/// About so many lines are written off a terminal …
const LINES: u32 = 30;
/// … but one so often at least.
const LINE_MAX: Duration = Duration::from_secs(60);

/// The view of a run.
pub(super) struct Shown {
    bar: Option<ProgressBar>,
    whole: Duration,
    line_every: Duration,
    line_at: Option<Instant>,
}

impl Shown {
    pub(super) fn new(whole: Duration, interval: Duration) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(u64::try_from(whole.as_millis()).unwrap_or(u64::MAX));
            bar.set_style(ProgressStyle::with_template(BAR).expect("the template is a constant, tried by a test"));
            bar
        });
        let line_every = (whole / LINES).clamp(interval.min(LINE_MAX), LINE_MAX);
        Self { bar, whole, line_every, line_at: None }
    }

    /// What is waited for before the run.
    pub(super) fn says(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.set_message(text.to_owned()),
            // A closed standard error leaves nobody to tell.
            None => drop(writeln!(std::io::stderr(), "{text}")),
        }
    }

    /// An interval has ended.
    pub(super) fn interval(&mut self, phase: &str, interval: &Interval) {
        let at = Duration::from_secs_f64(interval.at_s);
        let left = match self.whole.saturating_sub(at) {
            Duration::ZERO => "draining".to_owned(),
            left => format!("{} left", humantime::format_duration(Duration::from_secs(left.as_secs()))),
        };
        let line = line(interval, &left);
        if let Some(bar) = &self.bar {
            bar.set_prefix(phase.to_owned());
            bar.set_position(u64::try_from(at.min(self.whole).as_millis()).unwrap_or(u64::MAX));
            bar.set_message(line);
        } else if self.line_at.is_none_or(|last| last.elapsed() + Duration::from_millis(50) >= self.line_every) {
            self.line_at = Some(Instant::now());
            writeln!(std::io::stderr(), "{:8.1} s  {phase}: {line}", interval.at_s).ok();
        }
    }

    pub(super) fn close(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn line(interval: &Interval, left: &str) -> String {
    #[expect(clippy::cast_precision_loss, reason = "a number of events is far below 2^52")]
    let per_s = |events: u64| events as f64 / interval.length_s.max(1e-9);
    format!(
        "sent {:.0}/s, settled {:.0}/s, lag {} ({:.1} s), p99 {:.0} ms, {left}",
        per_s(interval.sent),
        per_s(interval.settled),
        interval.lag_events,
        interval.lag_s,
        interval.latency.p99_ms
    )
}

/// A result for people.
#[must_use]
pub fn summary(result: &RunResult) -> String {
    let totals = &result.totals;
    let figures = |name: &str, of: &Percentiles| match of.count {
        0 => format!("{name:<10} nothing was measured\n"),
        count => format!(
            "{name:<10} p50 {:.1} ms, p90 {:.1} ms, p99 {:.1} ms, p99.9 {:.1} ms, max {:.1} ms, of {count}\n",
            of.p50_ms, of.p90_ms, of.p99_ms, of.p999_ms, of.max_ms
        ),
    };
    let or_unknown = |count: Option<u64>| count.map_or_else(|| "not known".to_owned(), |count| count.to_string());
    let mut text = format!(
        "{}: {} intended, {} acknowledged ({} duplicates, {} poison), {} failed, in {:.1} s\n",
        result.name,
        totals.intended,
        totals.acknowledged,
        totals.duplicates,
        totals.poison,
        totals.failed,
        result.took_s
    );
    text += &format!(
        "effects    {}, dead rows {}, lost {}, repeated {}, out of order {}\n",
        totals.effects,
        totals.dead,
        or_unknown(totals.lost),
        or_unknown(totals.repeated),
        or_unknown(totals.out_of_order)
    );
    text += &figures("latency", &totals.latency);
    text += &figures("slip", &totals.slip);
    let drained = totals.drained_in_s.map_or_else(|| "not".to_owned(), |seconds| format!("in {seconds:.2} s"));
    text += &format!(
        "drained    {drained}; {} rebalances, longest pause {:.1} s\n",
        totals.rebalances, totals.longest_pause_s
    );
    for verdict in &result.verdicts {
        let outcome = if verdict.passed { "passed" } else { "FAILED" };
        text += &format!("{outcome}     {}: asked {}, found {}\n", verdict.name, verdict.asked, verdict.found);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_can_be_shown() {
        ProgressStyle::with_template(BAR).unwrap();
    }

    #[test]
    fn a_line_has_rates_and_lag() {
        let interval =
            Interval { length_s: 2.0, sent: 200, settled: 100, lag_events: 7, lag_s: 0.5, ..Interval::default() };
        assert_eq!(line(&interval, "3s left"), "sent 100/s, settled 50/s, lag 7 (0.5 s), p99 0 ms, 3s left");
    }
}
