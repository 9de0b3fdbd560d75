//! What `weir publish` says: bad lines and undelivered events while it runs, a summary at the end.

use std::io::Write as _;
use std::time::Instant;

use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::publish::{PublishError, Undelivered};

use super::End;
use super::input::Input;
use crate::cli::print;

/// Bad lines, and undelivered events, that are printed one by one; the rest are counted.
const PRINTED_MAX: u64 = 20;

/// Says something on standard error, beside the command's result.
pub(super) fn say(text: &str) {
    // A closed standard error leaves nobody to tell.
    writeln!(std::io::stderr(), "{text}").ok();
}

/// Where an event came from.
#[derive(Clone, Copy)]
pub(super) struct Place {
    /// The input's index.
    pub(super) file: usize,
    /// The line's number, from 1.
    pub(super) number: u64,
}

/// Counts what became of each line.
pub(super) struct Report {
    file_names: Vec<String>,
    bar: ProgressBar,
    began: Instant,
    delivered: u64,
    delivered_bytes: u64,
    bad_lines: u64,
    blank_lines: u64,
    undelivered: u64,
    bad_lines_printed: u64,
    undelivered_printed: u64,
}

#[derive(serde::Serialize)]
struct Summary {
    published: u64,
    bad_lines: u64,
    undelivered: u64,
    blank_lines: u64,
    bytes: u64,
    seconds: f64,
}

impl Report {
    /// Starts the clock, and the progress bar if standard error is a terminal.
    pub(super) fn new(inputs: &[Input]) -> Self {
        Self {
            file_names: inputs.iter().map(|input| input.name.clone()).collect(),
            bar: progress_bar(inputs),
            began: Instant::now(),
            delivered: 0,
            delivered_bytes: 0,
            bad_lines: 0,
            blank_lines: 0,
            undelivered: 0,
            bad_lines_printed: 0,
            undelivered_printed: 0,
        }
    }

    pub(super) fn file_name(&self, file: usize) -> &str {
        &self.file_names[file]
    }

    /// Whether every line so far is blank, delivered or on its way.
    pub(super) fn is_clean(&self) -> bool {
        self.bad_lines == 0 && self.undelivered == 0
    }

    pub(super) fn read(&mut self, read_bytes: u64, blank_lines: u64) {
        self.bar.inc(read_bytes);
        self.blank_lines += blank_lines;
    }

    pub(super) fn delivered(&mut self, value_bytes: u64) {
        self.delivered += 1;
        self.delivered_bytes += value_bytes;
    }

    pub(super) fn bad_line(&mut self, place: Place, reason: &str) {
        self.bad_lines += 1;
        if self.bad_lines_printed < PRINTED_MAX {
            self.bad_lines_printed += 1;
            self.print(place, reason);
        }
    }

    pub(super) fn undelivered(&mut self, place: Place, error: &PublishError) {
        self.undelivered += 1;
        if self.undelivered_printed < PRINTED_MAX {
            self.undelivered_printed += 1;
            self.print(place, &format!("not delivered: {error}"));
        }
    }

    /// Takes back what was counted as delivered when it entered the buffer. Which events these were is
    /// not known: their bytes stay counted.
    pub(super) fn lost_from_buffer(&mut self, left: &Undelivered) {
        self.delivered = self.delivered.saturating_sub(left.total());
        self.undelivered += left.total();
        if let Some(error) = &left.first_error {
            self.bar.suspend(|| say(&format!("not delivered, the first: {error}")));
            self.undelivered_printed += 1;
        }
    }

    fn print(&self, Place { file, number }: Place, what: &str) {
        let name = self.file_name(file);
        self.bar.suspend(|| say(&format!("{name}:{number}: {what}")));
    }

    /// Prints what was too much to print one by one, why the work ended early if it did, and the summary.
    pub(super) fn finish(&self, end: &End, topic: &str, as_json: bool) -> anyhow::Result<()> {
        self.bar.finish_and_clear();
        self.say_the_rest(end);
        let summary = Summary {
            published: self.delivered,
            bad_lines: self.bad_lines,
            undelivered: self.undelivered,
            blank_lines: self.blank_lines,
            bytes: self.delivered_bytes,
            seconds: self.began.elapsed().as_secs_f64(),
        };
        print(&if as_json { serde_json::to_string(&summary)? } else { summary.text(topic) })
    }

    fn say_the_rest(&self, end: &End) {
        let more = |count: u64, printed: u64, what: &str| {
            if count > printed {
                say(&format!("… and {} more {what}", count - printed));
            }
        };
        more(self.bad_lines, self.bad_lines_printed, "bad lines");
        more(self.undelivered, self.undelivered_printed, "undelivered events");
        match end {
            End::Complete => {}
            End::FailedFast => say("stopped there (--fail-fast); later lines were not sent"),
            End::Unreadable(why) => say(&format!("error: {why}; later lines were not sent")),
            End::Interrupted => say("stopped by a signal; later lines were not sent"),
        }
    }
}

impl Summary {
    fn text(&self, topic: &str) -> String {
        let mut text = format!(
            "published {} events ({}) to {topic} in {:.2} s; {} bad lines, {} undelivered",
            HumanCount(self.published),
            HumanBytes(self.bytes),
            self.seconds,
            self.bad_lines,
            self.undelivered,
        );
        if self.blank_lines > 0 {
            text.push_str(&format!(", {} blank lines skipped", self.blank_lines));
        }
        text
    }
}

/// A bar where all sizes are known, else a count of bytes. Shows itself on a terminal only.
fn progress_bar(inputs: &[Input]) -> ProgressBar {
    let total_bytes: Option<u64> = inputs.iter().map(|input| input.size_bytes).sum();
    let template = match total_bytes {
        Some(_) => "{bar:40} {bytes}/{total_bytes} {bytes_per_sec}, {eta} left",
        None => "{spinner} {bytes} {bytes_per_sec}",
    };
    let style = ProgressStyle::with_template(template).expect("the template is well-formed");
    let bar = ProgressBar::with_draw_target(total_bytes, ProgressDrawTarget::stderr());
    bar.with_style(style)
}
