//! Many runs of the same rows as one table: what came of each row over all loops, for docs/reliability.md.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use serde::Deserialize;
use serde_json::Value;

const HEAD: &str = "\
| # | passed | events | lost | repeated | out of order | recovery, median | most | longest gap, median | most | peak MiB |
|---|---|---|---|---|---|---|---|---|---|---|
";

/// What `--json` wrote.
#[derive(Deserialize)]
struct Loops {
    rows: Vec<Run>,
}

/// One run of a row, as far as the table tells it.
#[derive(Debug, Clone, Deserialize)]
struct Run {
    row: u32,
    setting: String,
    events: u64,
    lost: u64,
    repeated: u64,
    out_of_order: u64,
    recovery_s: Option<f64>,
    longest_gap_s: f64,
    peak_memory_bytes: u64,
    verdict: String,
}

/// The files' runs as a table, a line a row and setting.
pub(crate) fn table_of(files: &[PathBuf]) -> Result<String> {
    let mut runs = Vec::new();
    for file in files {
        let text = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        let loops: Loops =
            serde_json::from_slice(&text).with_context(|| format!("{} is not what --json writes", file.display()))?;
        runs.extend(loops.rows);
    }
    Ok(table(&runs))
}

/// The same of one result as `--json` has it.
pub(crate) fn table_in(json: Value) -> Result<String> {
    let loops: Loops = serde_json::from_value(json)?;
    Ok(table(&loops.rows))
}

fn table(runs: &[Run]) -> String {
    let mut by_row: BTreeMap<(u32, usize), Vec<&Run>> = BTreeMap::new();
    for run in runs {
        let known = ["classic", "static", "consumer", "mariadb"];
        let setting = known.iter().position(|name| *name == run.setting).unwrap_or(known.len());
        by_row.entry((run.row, setting)).or_default().push(run);
    }
    let mut table = HEAD.to_owned();
    for runs in by_row.values() {
        table += &line(&label(runs[0]), runs);
    }
    table += &line("all", &runs.iter().collect::<Vec<_>>());
    table
}

fn label(run: &Run) -> String {
    if run.setting == "classic" { run.row.to_string() } else { format!("{}/{}", run.row, run.setting) }
}

fn line(label: &str, runs: &[&Run]) -> String {
    let sum = |of: fn(&Run) -> u64| runs.iter().map(|run| of(run)).sum::<u64>();
    let passed = runs.iter().filter(|run| run.verdict == "passed").count();
    let recoveries = seconds(runs.iter().filter_map(|run| run.recovery_s).collect());
    let gaps = seconds(runs.iter().map(|run| run.longest_gap_s).collect());
    let peak = runs.iter().map(|run| run.peak_memory_bytes).max().unwrap_or(0) >> 20;
    format!(
        "| {label} | {passed} of {} | {} | {} | {} | {} | {recoveries} | {gaps} | {peak} |\n",
        runs.len(),
        grouped(sum(|run| run.events)),
        sum(|run| run.lost),
        sum(|run| run.repeated),
        sum(|run| run.out_of_order),
    )
}

/// The median and the most of them, as two cells.
fn seconds(mut values: Vec<f64>) -> String {
    values.sort_by(f64::total_cmp);
    match values.last() {
        Some(most) => format!("{:.1} s | {most:.1} s", values[values.len() / 2]),
        None => "- | -".to_owned(),
    }
}

fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().filter_map(|group| std::str::from_utf8(group).ok()).collect();
    groups.join(",")
}
