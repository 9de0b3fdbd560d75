//! `weir dead list`.

use std::process::ExitCode;

use serde_json::json;

use super::{Select, as_json, dead_rows};
use crate::cli::{one_pool, open_store, print, shown};
use crate::config::Config;
use crate::store::KeptDead;

/// Lists what was set aside, the oldest first
///
/// Payloads are not printed: `weir dead show` does.
#[derive(Debug, clap::Args)]
#[command(after_help = crate::cli::examples!(
    "weir dead list",
    "weir dead list storage --reason malformed --since 2026-01-31T08:00:00Z",
    "weir dead list --key 17:42 --json | jq -r '.rows[].id'",
))]
pub(super) struct Args {
    /// The pool; may be left out where there is only one
    pool: Option<String>,
    #[command(flatten)]
    select: Select,
    /// At most so many rows
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(i64).range(1..=100_000))]
    limit: i64,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: Args, config: &Config) -> anyhow::Result<ExitCode> {
    let pool = one_pool(args.pool.as_deref(), config)?;
    let store = open_store(config).await?;
    let mut filter = args.select.filter(&pool, args.limit);
    filter.without_bodies = true;
    let rows = store.dead_rows(&filter).await?;
    let total = store.count_dead(&filter).await?;
    if args.json {
        let rows: Vec<_> = rows.iter().map(as_json).collect();
        print(&json!({ "pool": pool, "total": total, "rows": rows }).to_string())?;
    } else {
        print(&table(&pool, &rows, total.cast_unsigned()))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn table(pool: &str, rows: &[KeptDead], total: u64) -> String {
    let header = ["set aside", "id", "reason", "pipeline", "position", "tries", "key", ""].map(str::to_owned);
    let cells: Vec<[String; 8]> = std::iter::once(header).chain(rows.iter().map(cells)).collect();
    let width = |column: usize| cells.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; 8] = std::array::from_fn(width);
    let mut text = String::new();
    for (at, row) in cells.iter().enumerate() {
        let padded = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        text += padded.collect::<Vec<_>>().join("  ").trim_end();
        text.push('\n');
        if let Some(row) = at.checked_sub(1).and_then(|at| rows.get(at)) {
            text += &format!("    {}\n", shown::safe(&row.message));
        }
    }
    match rows.len() as u64 {
        0 => format!("pool {pool} has no such dead rows"),
        shown if shown < total => text + &format!("{shown} of {total} dead rows of pool {pool}: --limit shows more"),
        shown => text + &format!("{} of pool {pool}", dead_rows(shown)),
    }
}

fn cells(row: &KeptDead) -> [String; 8] {
    let asked = row.replay_ms.map(|at| format!("replay asked for {}", shown::time(at)));
    let holds = row.holds_key.then(|| "holds its key back".to_owned());
    [
        shown::time(row.created_ms),
        shown::safe(&row.event_id),
        row.reason.clone(),
        shown::safe(&row.pipeline),
        format!("{}/{}@{}", row.topic, row.partition, row.offset),
        row.attempts.to_string(),
        row.key.as_deref().map_or_else(|| "-".to_owned(), |key| shortened(&shown::line(key))),
        asked.into_iter().chain(holds).collect::<Vec<_>>().join(", "),
    ]
}

/// A key that fits into a line.
fn shortened(key: &str) -> String {
    const CHARS_MAX: usize = 40;
    match key.char_indices().nth(CHARS_MAX) {
        Some((at, _)) => format!("{}…", &key[..at]),
        None => key.to_owned(),
    }
}
