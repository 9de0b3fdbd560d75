//! `weir verify`: the auditor.

use std::process::ExitCode;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::shown;
use crate::config::Config;
use crate::verify::{self, PoolReport, Report, Scope, Stage, Step};

/// How the events of Kafka are shown, whose number is known, and the rows of the database, whose number is not.
const BAR: &str = "{msg} {wide_bar} {human_pos}/{human_len} events, {per_sec}, {eta} left";
const SPINNER: &str = "{spinner} {msg}, {human_pos} rows so far, {elapsed}";
const TICK: Duration = Duration::from_millis(200);

/// Reconciles Kafka with the database
///
/// Reads the pools' topics and tables, changes nothing, and may run beside workers. Events that a pool has
/// not come to yet are pending. The exit code is 1 if an event is lost, repeated or out of its key's order, or a counter
/// is wrong. Memory does not grow with the number of events; temporary files in TMPDIR (else /var/tmp) do.
#[derive(Debug, clap::Args)]
#[command(after_help = super::examples!("weir verify", "weir verify --pool storage --json", "weir verify --since 2h"))]
pub(super) struct Args {
    /// Audit only these pools; may be given more than once. Without it, all
    #[arg(long = "pool", value_name = "NAME")]
    pools: Vec<String>,
    /// Audit only events recorded since then: 2026-01-31T08:00:00Z, or 2h for the last two hours
    #[arg(long, value_name = "TIME", value_parser = shown::parse_time)]
    since: Option<i64>,
    /// Print the report as one JSON object
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: Args, config: Config) -> anyhow::Result<ExitCode> {
    let pools = super::stored_pool_names(&args.pools, &config)?;
    let bar = ProgressBar::new(0);
    let report =
        verify::run(config, Scope { pools, since_ms: args.since, wanted: None }, Box::new(shown_on(bar.clone()))).await;
    bar.finish_and_clear();
    let report = report?;
    super::print(if args.json { serde_json::to_string(&report)? } else { table(&report) }.trim_end())?;
    Ok(if report.has_findings() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Shows how it gets on, where standard error is a terminal.
fn shown_on(bar: ProgressBar) -> impl FnMut(Step) + Send {
    let style =
        |template| ProgressStyle::with_template(template).expect("the templates are constants, tried by a test");
    move |step| match step {
        Step::Doing(stage) => {
            bar.reset();
            bar.set_length(0);
            bar.set_style(style(if stage == Stage::Kafka { BAR } else { SPINNER }));
            bar.set_message(stage.as_str());
            bar.enable_steady_tick(TICK);
        }
        Step::Ahead(ahead) => bar.inc_length(ahead),
        Step::Done(done) => bar.inc(done),
    }
}

/// The report for people: a line a pool, then what was found.
fn table(report: &Report) -> String {
    let width = report.pools.keys().map(|name| name.len()).chain([4]).max().unwrap_or(4);
    let mut text = format!(
        "{:width$}  {:>11}  {:>11}  {:>8}  {:>9}  {:>6}  {:>8}  {:>12}  {:>14}\n",
        "pool", "unique ids", "persisted", "dead", "pending", "lost", "repeated", "out of order", "counters wrong"
    );
    for (name, pool) in &report.pools {
        text += &format!(
            "{name:width$}  {:>11}  {:>11}  {:>8}  {:>9}  {:>6}  {:>8}  {:>12}  {:>14}\n",
            pool.unique_ids,
            pool.persisted,
            pool.dead_lettered,
            pool.pending,
            pool.lost,
            pool.repeated,
            or_dash(pool.out_of_order, pool.order_compared),
            or_dash(pool.counters_wrong, pool.counters_compared),
        );
    }
    for (name, pool) in &report.pools {
        findings(&mut text, name, pool);
    }
    text
}

/// A number of findings; a dash where nothing was compared.
fn or_dash(findings: u64, compared: u64) -> String {
    if compared == 0 { "-".to_owned() } else { findings.to_string() }
}

fn findings(text: &mut String, name: &str, pool: &PoolReport) {
    let kinds = [
        ("lost", pool.lost, &pool.lost_ids),
        ("repeated", pool.repeated, &pool.repeated_ids),
        ("out of order", pool.out_of_order, &pool.out_of_order_ids),
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
    fn every_step_can_be_shown() {
        let mut show = shown_on(ProgressBar::hidden());
        for stage in [Stage::Kafka, Stage::Database, Stage::Comparing] {
            show(Step::Doing(stage));
        }
        show(Step::Ahead(3));
        show(Step::Done(2));
    }

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
