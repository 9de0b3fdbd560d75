//! What `weir metrics` lists is what a worker serves.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::process::{Command, Stdio};

use rdkafka::admin::{AdminOptions, NewTopic, TopicReplication};

use super::dead::json;
use super::load::{Plan, publish};
use super::worker::Worker;
use super::world::{World, admin};
use super::{PATIENCE, until};

/// What a worker serves only where something is tried again, moderated, routed by a condition, read anew or traced.
const OF_SOME_POOLS: &[&str] = &[
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

/// Found by a pattern: more than have series of their own. 2,000 are read by `pool/simulation/series.rs`.
const TOPICS: i32 = 110;
/// Of the first topic, which the configuration names.
const PARTITIONS: i32 = 512;
/// What docs/metrics.md promises of a pool with two pipelines: 120, 50 for each pipeline, 4 for each of 101 topics.
const SERIES_MAX: usize = 624;
const BYTES_MAX: usize = 100_000;

/// The series of a scrape, and of how many topics they tell.
fn series(text: &str) -> (usize, BTreeSet<&str>) {
    let series: Vec<&str> = text.lines().filter(|line| line.starts_with("weir_")).collect();
    let topics = series.iter().filter_map(|line| Some(line.split_once("topic=\"")?.1.split_once('"')?.0));
    (series.len(), topics.collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_number_of_series_has_a_bound_and_shrinks_with_what_is_read() {
    let world = World::new(PARTITIONS).await;
    let (topic, names) = (&world.topic, (0..TOPICS).map(|n| format!("{}.{n:04}", world.topic)).collect::<Vec<_>>());
    let config = world.config("processed_set = \"off\"");
    let config = config.replace(&format!("[\"{topic}\"]"), &format!("[\"{topic}\", '^{topic}\\.']"));
    let worker = Worker::start_configured(&world, &config).await;
    worker.owns(PARTITIONS).await;
    publish(&world, Plan { poison_per_mille: 0, ..Plan::new(91, 2_000) }).await;
    world.drained(PATIENCE).await;
    let told = |what: &'static str, count: usize| {
        let worker = &worker;
        async move {
            let mut answer = String::new();
            until(what, PATIENCE, async || {
                answer = worker.get("/metrics");
                let (_, topics) = series(&answer);
                (topics.len() == count && answer.contains("weir_retention_left_seconds{"), answer.clone())
            })
            .await;
            answer
        }
    };
    let alone = told("the one topic to be told", 1).await;

    let made: Vec<_> = names.iter().map(|name| NewTopic::new(name, 1, TopicReplication::Fixed(1))).collect();
    for made in admin().create_topics(&made, &AdminOptions::new()).await.unwrap() {
        made.unwrap();
    }
    let all = told("all topics to be told", 2).await;
    let (count, topics) = series(&all);
    assert_eq!(topics, BTreeSet::from(["(others)", topic]), "the others together");
    assert!(count <= SERIES_MAX && all.len() <= BYTES_MAX, "{count} series, {} bytes", all.len());

    let gone: Vec<&str> = names.iter().map(String::as_str).collect();
    for gone in admin().delete_topics(&gone, &AdminOptions::new()).await.unwrap() {
        gone.unwrap();
    }
    let text = told("the topics to be gone", 1).await;
    let of_topics = |text: &str| text.lines().filter(|line| line.contains("topic=\"")).count();
    assert_eq!(of_topics(&text), of_topics(&alone), "what is given up leaves nothing");
}
