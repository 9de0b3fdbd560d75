//! `weir seek`: a deliberate move of a pool's place.

use std::process::ExitCode;

use serde_json::json;

use super::{Usage, open_store, print, shown, stored_pool_names};
use crate::config::Config;
use crate::pool::seek::{self, SeekError, Step, To};

/// Moves a pool to another place on its topics
///
/// The ledger is moved, not Kafka's committed offset, which follows. Workers may run: they go on from the new place
/// within seconds. Events that are handled again leave no second effect. Events that are skipped are lost to the pool, so
/// that needs --yes. Every move is kept in the table weir_seeks.
#[derive(Debug, clap::Args)]
#[command(after_help = super::examples!(
    "weir seek storage --to beginning --dry-run",
    "weir seek storage --topic message-events --partition 3 --to 1200345 --yes",
    "weir seek storage --to 2026-01-31T08:00:00Z",
    "weir seek storage --to 2h",
))]
pub(super) struct Args {
    /// The pool
    pool: String,
    /// Only this topic of the pool
    #[arg(long)]
    topic: Option<String>,
    /// Only these partitions
    #[arg(long = "partition", value_name = "P", value_delimiter = ',', value_parser = clap::value_parser!(i32).range(0..))]
    partitions: Vec<i32>,
    /// Where to: beginning, end, an offset, a time such as 2026-01-31T08:00:00Z, or how long ago, such as 2h
    #[arg(long, value_name = "PLACE", value_parser = parse_to)]
    to: To,
    /// Say what would be skipped or repeated, and move nothing
    #[arg(long)]
    dry_run: bool,
    /// Yes, skip events
    #[arg(long)]
    yes: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

fn parse_to(text: &str) -> Result<To, String> {
    match text {
        "beginning" => Ok(To::Beginning),
        "end" => Ok(To::End),
        _ if text.bytes().all(|byte| byte.is_ascii_digit()) && !text.is_empty() => {
            text.parse().map(To::Offset).map_err(|error| format!("{text} is no offset: {error}"))
        }
        _ => shown::parse_time(text).map(To::Time).map_err(|_| {
            format!("{text:?}: expected beginning, end, an offset, a time such as 2026-01-31T08:00:00Z, or 2h for two hours ago")
        }),
    }
}

pub(super) async fn run(args: Args, config: Config) -> anyhow::Result<ExitCode> {
    let Args { pool, topic, partitions, to, dry_run, yes, json } = args;
    stored_pool_names(std::slice::from_ref(&pool), &config)?;
    let store = open_store(&config).await?;
    let planned = seek::plan(&config, &pool, &*store, topic.as_deref(), &partitions, to).await;
    let mut steps = planned.map_err(told)?;
    let skipped: i64 = steps.iter().map(Step::skipped).sum();
    if dry_run {
        print(&report(&pool, &steps, json, false))?;
        return Ok(ExitCode::SUCCESS);
    }
    if skipped > 0 && !yes {
        print(&report(&pool, &steps, json, false))?;
        let problem = format!("nothing was moved: {skipped} events would be skipped, which needs --yes");
        return Err(Usage(problem).into());
    }
    seek::carry_out(&*store, &mut steps, &shown::who()).await.map_err(told)?;
    print(&report(&pool, &steps, json, true))?;
    Ok(ExitCode::SUCCESS)
}

fn told(error: SeekError) -> anyhow::Error {
    match error {
        SeekError::Usage(problem) => Usage(problem).into(),
        error => error.into(),
    }
}

fn report(pool: &str, steps: &[Step], as_json: bool, is_moved: bool) -> String {
    if as_json {
        let steps: Vec<_> = steps
            .iter()
            .map(|step| {
                json!({
                    "topic": *step.place.origin.topic,
                    "partition": step.place.origin.partition,
                    "from": step.from,
                    "to": step.to,
                    "skipped": step.skipped(),
                    "gone": step.gone(),
                    "repeated": step.repeated(),
                })
            })
            .collect();
        return json!({ "pool": pool, "moved": is_moved, "partitions": steps }).to_string();
    }
    let mut lines: Vec<String> = steps.iter().map(line).collect();
    let sum = |of: fn(&Step) -> i64| steps.iter().map(of).sum::<i64>();
    lines.push(format!(
        "pool {pool}: {} events {} skipped, {} handled again; {} were deleted by Kafka before they were handled",
        sum(Step::skipped),
        if is_moved { "are" } else { "would be" },
        sum(Step::repeated),
        sum(Step::gone),
    ));
    if is_moved {
        lines.push("running workers go on from there within seconds".to_owned());
    }
    lines.join("\n")
}

fn line(step: &Step) -> String {
    let mut line = format!("{}: {} -> {}", step.place.origin, step.from, step.to);
    for (events, what) in
        [(step.skipped(), "skipped"), (step.repeated(), "handled again"), (step.gone(), "deleted by Kafka unhandled")]
    {
        if events > 0 {
            line += &format!(", {events} {what}");
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_word_an_offset_or_a_time() {
        assert_eq!(parse_to("beginning"), Ok(To::Beginning));
        assert_eq!(parse_to("end"), Ok(To::End));
        assert_eq!(parse_to("120"), Ok(To::Offset(120)));
        assert_eq!(parse_to("2026-01-31T08:00:00Z"), Ok(To::Time(1_769_846_400_000)));
        assert!(matches!(parse_to("2h"), Ok(To::Time(_))));
        for wrong in ["", "-1", "start", "99999999999999999999"] {
            assert!(parse_to(wrong).is_err(), "{wrong}");
        }
    }
}
