//! `weir rate`: another rate for a running pool.

use std::process::ExitCode;

use super::control;
use crate::config::Config;
use crate::store::Change;

/// Sets the rate of a running pool's group, in place of the configured one
///
/// It outlives restarts and deploys, until `weir rate POOL default` lets the configured one apply again. Every change is
/// kept in the table weir_control_log.
#[derive(Debug, clap::Args)]
#[command(after_help = super::examples!(
    "weir rate storage 5000/s",
    "weir rate storage none      no rate, whatever is configured",
    "weir rate storage default   as configured",
))]
pub(super) struct Args {
    /// The pool
    pool: String,
    /// A rate such as 5000/s or 300/m, or none, or default
    #[arg(value_parser = parse_rate)]
    rate: Change,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

fn parse_rate(text: &str) -> Result<Change, String> {
    match text {
        "none" => Ok(Change::Rate(None)),
        "default" => Ok(Change::DefaultRate),
        _ => text.parse().map(|rate| Change::Rate(Some(rate))).map_err(|problem| format!("{problem}, none or default")),
    }
}

pub(super) async fn run(args: Args, config: Config) -> anyhow::Result<ExitCode> {
    control::run(&[args.pool], &config, &args.rate, args.json).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_set_lifted_or_left_to_the_configuration() {
        assert_eq!(parse_rate("none"), Ok(Change::Rate(None)));
        assert_eq!(parse_rate("default"), Ok(Change::DefaultRate));
        assert_eq!(parse_rate("300/m"), Ok(Change::Rate("300/m".parse().ok())));
        assert!(parse_rate("fast").unwrap_err().contains("none or default"));
    }
}
