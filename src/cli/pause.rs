//! `weir pause`: no batches for a while.

use std::process::ExitCode;
use std::time::Duration;

use super::control;
use crate::config::Config;
use crate::store::Change;

/// The longest pause that ends by itself: what is meant to last longer is ended by a person.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// Lets running pools finish their batches in hand and take no others
///
/// Workers keep their partitions and stay in their group, lag goes on being told, and what starts meanwhile is paused too.
/// It ends by `weir resume`, or by itself with --for. Every change is kept in the table weir_control_log.
#[derive(Debug, clap::Args)]
#[command(after_help = super::examples!(
    "weir pause storage --reason 'index is being built'",
    "weir pause storage --for 1h",
    "weir pause   all pools",
))]
pub(super) struct Args {
    /// The pools; without one, all that are configured
    #[arg(value_name = "POOL")]
    pools: Vec<String>,
    /// Resume by itself after this long, such as 1h
    #[arg(long = "for", value_name = "TIME", value_parser = parse_for)]
    lasts: Option<Duration>,
    /// What for, for whoever asks
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

fn parse_for(text: &str) -> Result<Duration, String> {
    let lasts =
        humantime::parse_duration(text).map_err(|_| format!("{text:?}: expected a time such as 30min or 1h"))?;
    match lasts {
        lasts if lasts < Duration::from_secs(1) => Err(format!("{text:?}: a pause lasts a second or longer")),
        lasts if lasts > LONGEST => Err(format!("{text:?}: leave --for out for a pause that lasts longer than a year")),
        lasts => Ok(lasts),
    }
}

pub(super) async fn run(args: Args, config: Config) -> anyhow::Result<ExitCode> {
    let change = Change::Pause { lasts: args.lasts, reason: args.reason };
    control::run(&args.pools, &config, &change, args.json).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_lasts_from_a_second_to_a_year() {
        assert_eq!(parse_for("1h"), Ok(Duration::from_secs(3_600)));
        for wrong in ["", "0s", "1", "soon", "10y"] {
            assert!(parse_for(wrong).is_err(), "{wrong}");
        }
    }
}
