//! `weir dead show`.

use std::collections::HashSet;
use std::process::ExitCode;

use serde_json::{Value, json};

use super::as_json;
use crate::cli::{one_pool, open_store, print, shown};
use crate::config::Config;
use crate::store::{DeadFilter, KeptDead};

/// Rows shown at once: an id has one row a type.
const ROWS_MAX: i64 = 1_000;

/// Shows all of dead rows: the record with its headers and payload, and why it was set aside
///
/// What is not printable text is shown as hexadecimal. The exit code is 1 if an id has no dead row.
#[derive(Debug, clap::Args)]
#[command(after_help = crate::cli::examples!(
    "weir dead show 0198f1c2-7d3e-7000-8000-000000000001",
    "weir dead show order-17 --pool orders --json | jq -r '.[0].value' > order-17.json",
))]
pub(super) struct Args {
    /// The events' ids
    #[arg(required = true, value_name = "ID")]
    ids: Vec<String>,
    /// The pool; may be left out where there is only one
    #[arg(long, value_name = "NAME")]
    pool: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: Args, config: &Config) -> anyhow::Result<ExitCode> {
    let pool = one_pool(args.pool.as_deref(), config)?;
    let store = open_store(config).await?;
    let filter =
        DeadFilter { pool: pool.clone(), ids: Some(args.ids.clone()), limit: ROWS_MAX, ..DeadFilter::default() };
    let rows = store.dead_rows(&filter).await?;
    if args.json {
        print(&serde_json::to_string(&rows.iter().map(whole_as_json).collect::<Vec<_>>())?)?;
    } else if !rows.is_empty() {
        print(rows.iter().map(text).collect::<Vec<_>>().join("\n").trim_end())?;
    }
    let found: HashSet<&str> = rows.iter().map(|row| row.event_id.as_str()).collect();
    let missing: Vec<&str> = args.ids.iter().map(String::as_str).filter(|id| !found.contains(id)).collect();
    if missing.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    anyhow::bail!("pool {pool} has no dead row of {}: `weir dead list` shows those it has", missing.join(", "))
}

fn headers(row: &KeptDead) -> Value {
    row.headers.as_deref().and_then(|headers| serde_json::from_slice(headers).ok()).unwrap_or(Value::Null)
}

fn whole_as_json(row: &KeptDead) -> Value {
    let mut object = as_json(row);
    object["headers"] = headers(row);
    shown::put(&mut object, "value", row.value.as_deref());
    object["value_bytes"] = json!(row.value.as_ref().map(Vec::len));
    object
}

fn text(row: &KeptDead) -> String {
    let time = |ms: Option<i64>, none: &str| ms.map_or_else(|| none.to_owned(), shown::time);
    let mut lines = vec![
        ("id", shown::safe(&row.event_id)),
        ("type", shown::safe(&row.kind)),
        ("reason", row.reason.clone()),
        ("pipeline", shown::safe(&row.pipeline)),
        ("message", shown::safe(&row.message)),
        ("position", format!("{}/{} offset {}", row.topic, row.partition, row.offset)),
        ("topic id", row.topic_id.to_string()),
        ("attempts", row.attempts.to_string()),
        ("record at", time(row.record_ms, "not kept")),
        ("set aside at", shown::time(row.created_ms)),
        ("mirrored at", time(row.published_ms, "not yet")),
        ("replay at", time(row.replay_ms, "not asked for")),
        ("key", row.key.as_deref().map_or_else(|| "none".to_owned(), shown::line)),
    ];
    if row.holds_key {
        lines.push(("holds", "later events of its key wait behind it".to_owned()));
    }
    for header in headers(row).as_array().into_iter().flatten() {
        let name = shown::safe(header["name"].as_str().unwrap_or_default());
        let value = match (header["value"].as_str(), header["hex"].as_str()) {
            (Some(value), _) => shown::safe(value),
            (None, Some(hex)) => format!("{hex} (hex)"),
            (None, None) => "no value".to_owned(),
        };
        lines.push(("header", format!("{name}: {value}")));
    }
    let mut text: String = lines
        .into_iter()
        .filter(|(name, value)| !(value.is_empty() && *name == "type"))
        .map(|(name, value)| format!("{name:13} {value}\n"))
        .collect();
    text += &match row.value.as_deref() {
        None => "value         none: a tombstone\n".to_owned(),
        Some(value) => format!("value         {} bytes\n{}\n", value.len(), shown::whole(value)),
    };
    text
}
