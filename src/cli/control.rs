//! What `weir pause`, `weir resume` and `weir rate` have in common: they ask a pool's workers through the store.

use std::process::ExitCode;

use serde_json::{Value, json};

use super::{open_store, pool_names, print, shown};
use crate::config::{Config, Rate};
use crate::pool::control;
use crate::store::{Change, Control, Store};

/// One pool that was asked: what applied, and what applies now.
struct Done {
    pool: String,
    group: String,
    configured: Option<Rate>,
    was: Control,
    is: Control,
}

/// Asks each pool, or all, and prints what was and what is.
pub(super) async fn run(pools: &[String], config: &Config, change: &Change, json: bool) -> anyhow::Result<ExitCode> {
    let names = pool_names(pools, config)?;
    let store = open_store(config).await?;
    let mut done = Vec::with_capacity(names.len());
    let mut failed = None;
    for pool in names {
        match ask(config, &*store, pool, change).await {
            Ok(asked) => done.push(asked),
            Err(error) => {
                failed = Some(error);
                break;
            }
        }
    }
    if !done.is_empty() || json {
        print(&report(&done, change, json))?;
    }
    failed.map_or(Ok(ExitCode::SUCCESS), Err)
}

async fn ask(config: &Config, store: &dyn Store, pool: String, change: &Change) -> anyhow::Result<Done> {
    let settings = &config.pools[&pool];
    let group = settings.group_of(&pool).to_owned();
    let (was, is) = control::change(store, (&group, &pool), change, &shown::who()).await?;
    Ok(Done { configured: settings.rate, pool, group, was, is })
}

fn report(done: &[Done], change: &Change, as_json: bool) -> String {
    if as_json {
        let pools: Vec<Value> = done
            .iter()
            .map(|pool| {
                json!({
                    "pool": pool.pool,
                    "group": pool.group,
                    "was": value(&pool.was, pool.configured),
                    "is": value(&pool.is, pool.configured),
                })
            })
            .collect();
        return format!("{:#}", json!({"pools": pools}));
    }
    let mut lines: Vec<String> = done.iter().map(|pool| line(pool, change)).collect();
    if !lines.is_empty() {
        lines.push("running workers follow within seconds; others when they start".to_owned());
    }
    lines.join("\n")
}

fn line(Done { pool, configured, was, is, .. }: &Done, change: &Change) -> String {
    match change {
        Change::Pause { .. } | Change::Resume => format!("pool {pool}: {} -> {}", standing(was), standing(is)),
        Change::Rate(_) | Change::DefaultRate => {
            let mut line = format!("pool {pool}: rate {} -> {}", rate(was, *configured), rate(is, *configured));
            if is.pause.is_some() {
                line += "; it is paused";
            }
            line
        }
    }
}

fn standing(control: &Control) -> String {
    let Some(pause) = &control.pause else { return "running".to_owned() };
    let mut told = format!("{pause}, since {} by {}", shown::time(pause.since_ms), shown::safe(&pause.by));
    if let Some(reason) = &pause.reason {
        told += &format!(": {}", shown::safe(reason));
    }
    told
}

fn rate(control: &Control, configured: Option<Rate>) -> String {
    match (control.rate, configured) {
        (Some(set), _) => set.to_string(),
        (None, Some(rate)) => format!("{rate} (as configured)"),
        (None, None) => "none (as configured)".to_owned(),
    }
}

fn value(control: &Control, configured: Option<Rate>) -> Value {
    let pause = control.pause.as_ref().map(|pause| {
        json!({
            "since": shown::time(pause.since_ms),
            "until": pause.until_ms.map(shown::time),
            "by": pause.by,
            "reason": pause.reason,
        })
    });
    json!({
        "paused": pause,
        "rate_set": control.rate.map(|set| set.to_string()),
        "rate_configured": configured,
    })
}
