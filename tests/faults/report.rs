//! What came of the rows: a table for people, JSON for machines.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use super::setting::Setting;

#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) row: u32,
    pub(crate) setting: Setting,
    pub(crate) fault: String,
    pub(crate) seed: u64,
    pub(crate) events: u64,
    pub(crate) lost: u64,
    pub(crate) repeated: u64,
    pub(crate) out_of_order: u64,
    /// From the fault's end until all that was published by then was settled.
    pub(crate) recovery: Option<Duration>,
    pub(crate) longest_gap: Duration,
    pub(crate) peak_memory_bytes: u64,
    pub(crate) took: Duration,
    pub(crate) samples: u64,
    pub(crate) findings: Vec<String>,
    pub(crate) notes: Vec<String>,
    /// Where the workers' logs are, when it failed.
    pub(crate) logs: Option<PathBuf>,
    pub(crate) not_run: Option<String>,
}

impl Outcome {
    /// A row that could not be tried, which is not passed.
    pub(crate) fn not_run((row, setting): (u32, Setting), fault: &str, seed: u64, why: String) -> Self {
        Self {
            row,
            setting,
            fault: fault.to_owned(),
            seed,
            events: 0,
            lost: 0,
            repeated: 0,
            out_of_order: 0,
            recovery: None,
            longest_gap: Duration::ZERO,
            peak_memory_bytes: 0,
            took: Duration::ZERO,
            samples: 0,
            findings: Vec::new(),
            notes: Vec::new(),
            logs: None,
            not_run: Some(why),
        }
    }

    pub(crate) fn is_passed(&self) -> bool {
        self.not_run.is_none() && self.findings.is_empty()
    }

    fn verdict(&self) -> &'static str {
        match (&self.not_run, self.is_passed()) {
            (Some(_), _) => "not run",
            (None, true) => "passed",
            (None, false) => "FAILED",
        }
    }

    fn json(&self) -> Value {
        json!({
            "row": self.row, "setting": self.setting.name(), "fault": self.fault, "seed": self.seed, "events": self.events, "lost": self.lost,
            "repeated": self.repeated, "out_of_order": self.out_of_order,
            "recovery_s": self.recovery.map(|recovery| recovery.as_secs_f64()),
            "longest_gap_s": self.longest_gap.as_secs_f64(), "peak_memory_bytes": self.peak_memory_bytes,
            "took_s": self.took.as_secs_f64(), "samples": self.samples, "verdict": self.verdict(),
            "findings": self.findings, "notes": self.notes, "not_run": self.not_run,
        })
    }
}

const HEAD: &str = "row          fault                                            seed   events  lost  rep.  order  recovery  longest gap  peak MiB  took  verdict";

pub(crate) fn print_head() {
    println!("{HEAD}");
}

pub(crate) fn print(outcome: &Outcome) {
    let Outcome { row, setting, fault, seed, events, lost, repeated, out_of_order, .. } = outcome;
    let recovery = outcome.recovery.map_or_else(|| "-".to_owned(), |took| format!("{:.1} s", took.as_secs_f64()));
    println!(
        "{:<11}  {fault:<44} {seed:>8} {events:>8} {lost:>5} {repeated:>5} {out_of_order:>6} {recovery:>9} {:>10.1} s {:>9} {:>4.0}s  {}",
        setting.label(*row),
        outcome.longest_gap.as_secs_f64(),
        outcome.peak_memory_bytes >> 20,
        outcome.took.as_secs_f64(),
        outcome.verdict(),
    );
    for note in &outcome.notes {
        println!("       {note}");
    }
    if let Some(why) = &outcome.not_run {
        println!("       not run: {why}");
    }
    for finding in &outcome.findings {
        println!("     ! {finding}");
    }
    if !outcome.findings.is_empty() {
        println!("     ! again by: make faults FAULTS='--only {row} --under {} --seed {seed}'", setting.name());
    }
    if let Some(logs) = &outcome.logs {
        println!("     ! logs: {}", logs.display());
    }
}

pub(crate) fn summary(outcomes: &[Outcome]) -> String {
    let passed = outcomes.iter().filter(|outcome| outcome.is_passed()).count();
    let not_run = outcomes.iter().filter(|outcome| outcome.not_run.is_some()).count();
    let events: u64 = outcomes.iter().map(|outcome| outcome.events).sum();
    let failed = outcomes.len() - passed - not_run;
    format!("{passed} passed, {failed} failed, {not_run} not run; {events} events")
}

pub(crate) fn json(outcomes: &[Outcome]) -> Value {
    let is_passed = outcomes.iter().all(Outcome::is_passed);
    json!({ "passed": is_passed, "rows": outcomes.iter().map(Outcome::json).collect::<Vec<_>>() })
}
