//! `weir metrics`: what a worker serves at `/metrics`.

use std::process::ExitCode;

use serde_json::json;

use super::print;
use crate::metrics::{Described, Metrics};

/// Lists every metric with its type, its labels and what it tells
#[derive(Debug, clap::Args)]
#[command(after_help = super::examples!("weir metrics", "weir metrics --json"))]
pub(super) struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let list = Metrics::list();
    let text = if args.json {
        let metrics: Vec<_> = list
            .iter()
            .map(|metric| json!({"name": metric.name, "type": metric.kind, "labels": metric.labels, "help": metric.help}))
            .collect();
        format!("{:#}", json!({"metrics": metrics}))
    } else {
        list.iter().map(entry).collect::<Vec<_>>().join("\n")
    };
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn entry(metric: &Described) -> String {
    let labels = match metric.labels.is_empty() {
        true => String::new(),
        false => format!("{{{}}}", metric.labels.join(", ")),
    };
    format!("{}{labels} ({})\n    {}", metric.name, metric.kind, metric.help)
}
