//! Memory that does not grow with the number of events, keys and counters; measured on the command itself.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::Value;

use super::world::{MINUTE_MS, World, url_of};
use super::{kafka, services};

/// Events of one minute.
const A_MINUTE: u64 = 1_000;
/// Users, each of whom is active in every minute.
const USERS: u64 = 100;

/// A topic and tables that agree on so many events: a key for every four, a counter for every five.
struct Filled {
    world: World,
    events: u64,
}

impl Filled {
    async fn with(events: u64) -> Self {
        let mut filled = Self { world: World::new().await, events: 0 };
        filled.up_to(events).await;
        filled
    }

    /// Adds events, by SQL and without a worker.
    async fn up_to(&mut self, events: u64) {
        assert_eq!(events % A_MINUTE, 0, "whole minutes, on both partitions alike");
        let numbers = self.events..events;
        self.publish(numbers.clone());
        let (first, last) = (numbers.start, numbers.end - 1);
        let at = format!("to_timestamp({MINUTE_MS} / 1000.0 + n * 60.0 / {A_MINUTE})");
        self.world
            .sql(&format!(
                "INSERT INTO messages (message_id, conversation, sender, recipient, content, message_type, \"timestamp\", received_at)
                 SELECT 'v-' || n, n / 4, n % {USERS}, 'r', 'hi', 1, {MINUTE_MS}, {at} FROM generate_series({first}, {last}) n"
            ))
            .await;
        let users = format!("(n % {USERS})::text");
        for (dimension, member) in [("type", "'new_message'"), ("user", &users), ("active_users", &users)] {
            self.world
                .sql(&format!(
                    "INSERT INTO weir_counts SELECT date_trunc('minute', {at}), '{dimension}', {member}, 0, count(*)
                       FROM generate_series({first}::bigint, {last}) n GROUP BY 1, 2, 3"
                ))
                .await;
        }
        let next = i64::try_from(events / 2).unwrap();
        self.world.pass(0, next).await;
        self.world.pass(1, next).await;
        self.events = events;
    }

    fn publish(&self, numbers: std::ops::Range<u64>) {
        let mut client = kafka::client();
        client.set("linger.ms", "20").set("compression.type", "lz4").set("queue.buffering.max.messages", "200000");
        let producer: BaseProducer = client.create().unwrap();
        for n in numbers {
            let at_ms = MINUTE_MS.cast_unsigned() + n * 60_000 / A_MINUTE;
            let payload = format!(
                "{{\"type\":\"new_message\",\"message\":{{\"message_id\":\"v-{n}\",\"from\":{},\"timestamp\":{at_ms}}}}}",
                n % USERS
            );
            // A key's events lie on one partition.
            let key = (n / 8 * 2 + n % 2).to_string();
            let record = || BaseRecord::to(&self.world.topic.0).partition((n % 2) as i32).key(&key).payload(&payload);
            while producer.send(record()).is_err() {
                producer.poll(Duration::from_millis(5));
            }
            if n % 1_000 == 0 {
                producer.poll(Duration::ZERO);
            }
        }
        producer.flush(kafka::PATIENCE).unwrap();
    }

    fn config(&self) -> std::path::PathBuf {
        let (brokers, topic) = (services::env("KAFKA_BROKERS"), &self.world.topic.0);
        let path = std::env::temp_dir().join(format!("{topic}.toml"));
        let text = format!(
            "[kafka]\nbrokers = [\"{brokers}\"]\n[store]\nurl = \"{}\"\n[pools.storage]\ngroup = \"g\"\n\
             topics = [\"{topic}\"]\nstart = \"beginning\"\n[[pools.storage.pipelines]]\nname = \"persist\"\n\
             handler = \"persist\"\n[[pools.storage.pipelines]]\nname = \"analyze\"\nhandler = \"analyze\"\n\
             dimensions = [\"type\", \"user\", \"active_users\"]\n",
            url_of(&self.world.database)
        );
        std::fs::write(&path, text).unwrap();
        path
    }

    /// Runs the command and holds its report against what is there.
    fn audit(&self) -> Figures {
        let config = self.config();
        let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
        let begun = Instant::now();
        let mut child =
            command.args(["verify", "--json", "--config"]).arg(&config).stdout(Stdio::piped()).spawn().unwrap();
        let mut peak_kib = 0;
        while child.try_wait().unwrap().is_none() {
            peak_kib = peak_kib_of(&child).unwrap_or(peak_kib);
            std::thread::sleep(Duration::from_millis(10));
        }
        let took = begun.elapsed();
        let output = child.wait_with_output().unwrap();
        std::fs::remove_file(config).unwrap();
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        let pool = &report["pools"]["storage"];
        assert!(output.status.success(), "{report}");
        for counted in ["unique_ids", "persisted", "order_compared"] {
            assert_eq!(pool[counted], self.events, "{counted}: {report}");
        }
        let counters = self.events / A_MINUTE * (USERS + 2);
        assert_eq!(pool["counters_compared"], counters, "{report}");
        Figures { peak_mib: peak_kib as f64 / 1024.0, took }
    }
}

struct Figures {
    peak_mib: f64,
    took: Duration,
}

/// The peak is kept by the kernel, so that looking now and then misses nothing but the very end.
fn peak_kib_of(child: &Child) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).ok()?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    peak.trim().trim_end_matches(" kB").parse().ok()
}

/// With 500,000 events every sort is on disk already, and peaks scatter by some 20 MiB. 21 bytes an event more, hardly a
/// digest with its place, would break the bound.
const SCATTER_MIB: f64 = 30.0;

#[tokio::test]
async fn memory_is_the_same_for_four_times_the_events() {
    let mut filled = Filled::with(500_000).await;
    let small = filled.audit();
    filled.up_to(2_000_000).await;
    let large = filled.audit();
    let (small, large) = (small.peak_mib, large.peak_mib);
    assert!(
        small > 0.0 && large < small + SCATTER_MIB,
        "{small:.0} MiB for 500,000 events, {large:.0} MiB for 2,000,000"
    );
    println!("{small:.0} MiB for 500,000 events, {large:.0} MiB for 2,000,000");

    // A file may have a megabyte: as on a full disk, but for the error's name.
    let config = filled.config();
    let limited = Command::new("sh")
        .args(["-c", "trap '' XFSZ; ulimit -f 2048; exec \"$0\" verify --config \"$1\"", env!("CARGO_BIN_EXE_weir")])
        .arg(&config)
        .output()
        .unwrap();
    std::fs::remove_file(config).unwrap();
    let told = String::from_utf8(limited.stderr).unwrap();
    assert_eq!(limited.status.code(), Some(1), "{told}");
    assert!(
        told.contains("temporary files in ") && told.contains("File too large") && told.contains("TMPDIR"),
        "{told}"
    );
}

/// `make bench-verify`: what an audit costs, by the number of events (`EVENTS`, such as `1000000,10000000`).
#[tokio::test]
#[ignore = "a measurement of some minutes, for make bench-verify"]
async fn bench() {
    let events = std::env::var("EVENTS").unwrap_or_else(|_| "1000000,10000000".to_owned());
    let mut filled = Filled { world: World::new().await, events: 0 };
    let mut least = f64::INFINITY;
    println!("{:>12}  {:>8}  {:>8}  {:>10}", "events", "peak MiB", "seconds", "events/s");
    for events in events.split(',').map(|events| events.trim().parse().expect("EVENTS are numbers")) {
        filled.up_to(events).await;
        let Figures { peak_mib, took } = filled.audit();
        let seconds = took.as_secs_f64();
        println!("{events:>12}  {peak_mib:>8.0}  {seconds:>8.1}  {:>10.0}", events as f64 / seconds);
        least = least.min(peak_mib);
        assert!(peak_mib < least + SCATTER_MIB, "{peak_mib:.0} MiB for {events} events, {least:.0} for fewer");
    }
}
