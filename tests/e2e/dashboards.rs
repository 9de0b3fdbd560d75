//! The dashboards and alerts, on a real Prometheus that scrapes real workers: no panel stays empty.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use rdkafka::producer::{FutureProducer, FutureRecord};
use serde_json::Value;
use url::form_urlencoded::byte_serialize;

use super::load::{Plan, publish};
use super::panels::{Query, queries, selectors};
use super::worker::Worker;
use super::world::{World, kafka};
use super::{PATIENCE, dead, until};

/// What may be 0 all the time in a run like this one; its series are there all the same.
const QUIET: [&str; 6] = [
    // Its series begin with the first retry, and a rate needs a second one.
    "weir_retries_total",
    "weir_holds",
    "weir_parked_keys",
    "weir_fences_total",
    "weir_dead_unpublished",
    "weir_processed_set_unmarked_total",
];

struct Prometheus {
    child: Child,
    address: String,
    log: PathBuf,
}

impl Prometheus {
    async fn start(world: &World, workers: &[&Worker]) -> Self {
        let targets: Vec<String> = workers.iter().map(|worker| format!("{:?}", worker.address())).collect();
        let config = world.dir.join("prometheus.yml");
        let text = format!(
            "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: [{}/alerts/weir.yaml]\n\
             scrape_configs:\n  - {{job_name: weir, static_configs: [{{targets: [{}]}}]}}\n",
            env!("CARGO_MANIFEST_DIR"),
            targets.join(", ")
        );
        std::fs::write(&config, text).unwrap();
        let log = world.dir.join("prometheus.log");
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", world.dir.join("prometheus").display()))
            .arg("--web.listen-address=127.0.0.1:0")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .expect("Prometheus is installed: scripts/require.sh prometheus");
        let mut prometheus = Self { child, address: String::new(), log };
        let mut address = None;
        until("Prometheus to listen", PATIENCE, async || {
            let log = std::fs::read_to_string(&prometheus.log).unwrap();
            let line = log.lines().find(|line| line.contains("Listening on")).map(str::to_owned);
            address = line.and_then(|line| Some(line.split_once("address=")?.1.split(' ').next()?.to_owned()));
            (address.is_some(), log)
        })
        .await;
        prometheus.address = address.unwrap();
        prometheus
    }

    fn get(&self, path: &str) -> std::io::Result<Value> {
        let mut stream = TcpStream::connect(&self.address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        // Version 1.0: the answer comes in one piece.
        write!(stream, "GET {path} HTTP/1.0\r\nhost: {}\r\n\r\n", self.address)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (_, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
        let answer: Value = serde_json::from_str(body).unwrap_or_default();
        assert_ne!(answer["status"], "error", "{path}: {answer}");
        Ok(answer["data"].clone())
    }

    /// All values of an expression's series since a moment, a second apart; none while Prometheus still starts.
    fn values(&self, expr: &str, since: SystemTime) -> Vec<f64> {
        let seconds = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap().as_secs();
        let expr: String = byte_serialize(expr.as_bytes()).collect();
        let (start, end) = (seconds(since), seconds(SystemTime::now()));
        let data = self.get(&format!("/api/v1/query_range?query={expr}&start={start}&end={end}&step=1"));
        let series = data.unwrap_or_default()["result"].as_array().cloned().unwrap_or_default();
        let samples = series.iter().flat_map(|series| series["values"].as_array().unwrap().clone());
        samples.filter_map(|sample| sample[1].as_str()?.parse().ok()).filter(|value: &f64| value.is_finite()).collect()
    }

    async fn shows(&self, expr: &str, since: SystemTime) {
        until(expr, PATIENCE, async || {
            let values = self.values(expr, since);
            (values.iter().any(|value| *value > 0.0), values)
        })
        .await;
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
        if std::thread::panicking() {
            eprintln!("--- Prometheus\n{}", std::fs::read_to_string(&self.log).unwrap_or_default());
        }
    }
}

/// A query as Grafana sends it, with everything chosen.
fn as_sent(query: &Query) -> String {
    let range = query.expr.replace("$__rate_interval", "10s").replace("$__range", "10m");
    ["$job", "$instance", "$pool"].iter().fold(range, |expr, variable| expr.replace(variable, ".+"))
}

/// What is wrong with a query's answer.
fn problem(prometheus: &Prometheus, query: &Query, since: SystemTime) -> Option<String> {
    let values = prometheus.values(&as_sent(query), since);
    let is_quiet = selectors(&query.expr).iter().any(|selector| QUIET.contains(&selector.name));
    if values.is_empty() {
        Some("no data".to_owned())
    } else if !is_quiet && values.iter().all(|value| *value == 0.0) {
        Some("nothing but 0".to_owned())
    } else {
        None
    }
}

/// A run that has something of everything: repeats, poison, a tombstone, a replay, an outage.
async fn eventful(world: &World, config: &str, prometheus: &Prometheus, since: SystemTime) {
    let plan = Plan { poison_per_mille: 10, repeats_per_mille: 100, per_second: 1_000, ..Plan::new(80, 5_000) };
    publish(world, plan).await;
    let producer: FutureProducer = kafka().create().unwrap();
    producer.send(FutureRecord::<str, str>::to(&world.topic).key("gone"), PATIENCE).await.unwrap();
    world.drained(PATIENCE).await;
    // The poison is rejected again.
    let (code, told, _) = dead::run(world, config, &["dead", "replay"]);
    assert_eq!(code, 1, "{told}");

    world.service("stop", "postgres");
    publish(world, Plan::new(81, 500)).await;
    prometheus.shows("max(weir_breaker_open)", since).await;
    world.service("start", "postgres");
    world.drained(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_panel_is_without_data_and_every_alert_can_be_evaluated() {
    let world = World::alone(4).await;
    let config = world.config("rate = \"3000/s\"\ntransactions_max = 4\n");
    let since = SystemTime::now();
    let first = Worker::start_configured(&world, &config).await;
    first.owns(4).await;
    let mut second = Worker::start_configured(&world, &config).await;
    let prometheus = Prometheus::start(&world, &[&first, &second]).await;
    prometheus.shows("count(weir_partitions_assigned) > 1", since).await;
    eventful(&world, &config, &prometheus, since).await;
    // A rebalance, after which the other worker claims what this one had.
    second.terminate();

    let queries = queries();
    assert!(queries.len() > 60, "{} queries", queries.len());
    until("every panel to have data", PATIENCE, async || {
        let problems: BTreeMap<String, String> = queries
            .iter()
            .filter_map(|query| Some((format!("{}: {}", query.place, query.expr), problem(&prometheus, query, since)?)))
            .collect();
        (problems.is_empty(), problems)
    })
    .await;

    until("every alert to be evaluated", PATIENCE, async || {
        let data = prometheus.get("/api/v1/rules").unwrap();
        let rules = data["groups"][0]["rules"].as_array().cloned().unwrap_or_default();
        let wrong: Vec<Value> = rules.iter().filter(|rule| rule["health"] != "ok").cloned().collect();
        (rules.len() >= 10 && wrong.is_empty(), (rules.len(), wrong))
    })
    .await;
}
