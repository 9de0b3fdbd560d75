//! `weir verify`: the auditor.

use std::process::ExitCode;

use indicatif::{ProgressBar, ProgressStyle};

use crate::config::Config;
use crate::verify::{self, PoolReport, Report};

/// Reconciles Kafka with the database
///
/// Reads the pools' topics and tables, changes nothing, and may run beside workers. Events that a pool has
/// not come to yet are pending. The exit code is 1 if an event is lost or repeated or a counter is wrong.
#[derive(Debug, clap::Args)]
#[command(after_help = super::examples!("weir verify", "weir verify --pool storage --json"))]
pub(super) struct Args {
    /// Audit only these pools; may be given more than once. Without it, all
    #[arg(long = "pool", value_name = "NAME")]
    pools: Vec<String>,
    /// Print the report as one JSON object
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: Args, config: Config) -> anyhow::Result<ExitCode> {
    let pools = super::pool_names(&args.pools, &config)?;
    let bar = ProgressBar::new(0).with_style(
        ProgressStyle::with_template("{msg} {wide_bar} {human_pos}/{human_len} events, {per_sec}, {eta} left")
            .expect("the template is a constant, tried by every run on a terminal"),
    );
    bar.set_message("reading");
    let shown = bar.clone();
    let progress = move |read: u64, ahead: u64| {
        shown.inc_length(ahead);
        shown.inc(read);
    };
    let report = verify::run(config, pools, Box::new(progress)).await;
    bar.finish_and_clear();
    let report = report?;
    super::print(if args.json { serde_json::to_string(&report)? } else { table(&report) }.trim_end())?;
    Ok(if report.has_findings() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// The report for people: a line a pool, then what was found.
fn table(report: &Report) -> String {
    let width = report.pools.keys().map(|name| name.len()).chain([4]).max().unwrap_or(4);
    let mut text = format!(
        "{:width$}  {:>11}  {:>11}  {:>8}  {:>9}  {:>6}  {:>8}  {:>14}\n",
        "pool", "unique ids", "persisted", "dead", "pending", "lost", "repeated", "counters wrong"
    );
    for (name, pool) in &report.pools {
        text += &format!(
            "{name:width$}  {:>11}  {:>11}  {:>8}  {:>9}  {:>6}  {:>8}  {:>14}\n",
            pool.unique_ids,
            pool.persisted,
            pool.dead_lettered,
            pool.pending,
            pool.lost,
            pool.repeated,
            if pool.counters_compared == 0 { "-".to_owned() } else { pool.counters_wrong.to_string() },
        );
    }
    for (name, pool) in &report.pools {
        findings(&mut text, name, pool);
    }
    text
}

fn findings(text: &mut String, name: &str, pool: &PoolReport) {
    let kinds = [
        ("lost", pool.lost, &pool.lost_ids),
        ("repeated", pool.repeated, &pool.repeated_ids),
        ("counter", pool.counters_wrong, &pool.wrong_counters),
    ];
    for (kind, count, named) in kinds {
        named.iter().for_each(|finding| *text += &format!("{name}: {kind}: {finding}\n"));
        let more = count.saturating_sub(named.len() as u64);
        if more > 0 {
            *text += &format!("{name}: {kind}: and {more} more\n");
        }
    }
    let remarks = [
        (pool.before_start, "ids are from before the pool's start"),
        (pool.skipped, "ids were skipped on purpose, by `weir seek`"),
        (pool.forgotten, "ids are older than the pool's seen_horizon: nothing can be said of them"),
        (pool.ambiguous, "ids have records that disagree in what they add to counters"),
    ];
    for (count, remark) in remarks.iter().filter(|(count, _)| *count > 0) {
        *text += &format!("{name}: note: {count} {remark}\n");
    }
    pool.notes.iter().for_each(|note| *text += &format!("{name}: note: {note}\n"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_are_named_and_the_rest_counted() {
        let pool = PoolReport {
            unique_ids: 20,
            persisted: 8,
            lost: 12,
            lost_ids: vec!["m-1 at t/0 offset 4".to_owned()],
            ..PoolReport::default()
        };
        let report = Report { pools: [("storage".to_owned(), pool)].into(), ..Report::default() };
        let text = table(&report);
        assert!(text.contains("storage: lost: m-1 at t/0 offset 4\nstorage: lost: and 11 more\n"), "{text}");
        assert_eq!(text.lines().count(), 4, "{text}");
    }
}
