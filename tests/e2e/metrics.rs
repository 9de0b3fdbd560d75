//! What `weir metrics` lists is what a worker serves.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::{Command, Stdio};

use super::dead::json;
use super::load::{Plan, publish};
use super::worker::Worker;
use super::world::World;
use super::{PATIENCE, until};

/// What a worker serves only where something is tried again, moderated, routed by a condition, read anew or traced.
const OF_SOME_POOLS: [&str; 11] = [
    "weir_retries_total",
    "weir_classifier_duration_seconds",
    "weir_classifier_requests_total",
    "weir_message_days_ahead",
    "weir_message_days_overdue",
    "weir_reloads_total",
    "weir_spans_total",
    "weir_status_unpublished",
    "weir_unknown_types_total",
    "weir_verdicts_total",
    "weir_when_missing_total",
];

/// Name, type and help of each family that is served.
fn served(text: &str) -> BTreeMap<String, (String, String)> {
    let mut families: BTreeMap<String, (String, String)> = BTreeMap::new();
    for line in text.lines() {
        if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|line| line.split_once(' ')) {
            families.entry(name.to_owned()).or_default().1 = help.to_owned();
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|line| line.split_once(' ')) {
            families.entry(name.to_owned()).or_default().0 = kind.to_owned();
        }
    }
    families
}

#[tokio::test(flavor = "multi_thread")]
async fn every_metric_is_listed_as_it_is_served() {
    let world = World::new(2).await;
    let config = world.config("rate = \"100000/s\"\ntransactions_max = 4");
    let worker = Worker::start_configured(&world, &config).await;
    worker.owns(2).await;
    publish(&world, Plan::new(90, 2_000)).await;
    world.drained(PATIENCE).await;
    let mut answer = String::new();
    until("the topic's settings to be told", PATIENCE, async || {
        answer = worker.get("/metrics");
        (answer.contains("weir_retention_left_seconds{"), answer.clone())
    })
    .await;
    let (_, text) = answer.split_once("\r\n\r\n").unwrap();

    let (code, listed) = json(&world, &config, &["metrics"]);
    assert_eq!(code, 0);
    let listed: BTreeMap<String, (String, String)> = listed["metrics"]
        .as_array()
        .unwrap()
        .iter()
        .map(|metric| {
            let of = |name: &str| metric[name].as_str().unwrap().to_owned();
            (of("name"), (of("type"), of("help")))
        })
        .collect();
    let served = served(text);
    for (name, family) in &served {
        assert_eq!(listed.get(name), Some(family), "{name}");
    }
    let unserved: Vec<&String> = listed.keys().filter(|name| !served.contains_key(*name)).collect();
    assert!(unserved.iter().all(|name| OF_SOME_POOLS.contains(&name.as_str())), "{unserved:?}");

    let mut check = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("promtool is installed: scripts/require.sh monitoring");
    check.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let done = check.wait_with_output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stdout));
}
