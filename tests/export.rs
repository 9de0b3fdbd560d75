//! `weir export`, against a real Kafka.

mod common {
    pub(crate) mod kafka;
    pub(crate) mod services;
}

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use common::kafka::{PATIENCE, Topic, client};
use common::services;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::message::{Message as _, OwnedMessage};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::{Offset, TopicPartitionList};
use serde_json::Value;

/// A folder of one test, with a configuration for the real broker in it.
struct Workplace(PathBuf);

impl Workplace {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("weir-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir(&path).unwrap();
        let config = format!("startup_timeout = \"30s\"\n[kafka]\nbrokers = [{:?}]\n", services::env("KAFKA_BROKERS"));
        std::fs::write(path.join("weir.toml"), config).unwrap();
        Self(path)
    }

    fn out(&self) -> PathBuf {
        self.0.join("out")
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
        command.arg("export").arg("--config").arg(self.0.join("weir.toml")).arg("--out").arg(self.out()).args(args);
        command
    }

    fn export(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// The lines of all parts, by the names of the parts.
    fn lines(&self) -> BTreeMap<String, Vec<Value>> {
        parts(&self.out()).into_iter().map(|part| (part.clone(), lines(&self.out().join(part)))).collect()
    }
}

impl Drop for Workplace {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

fn parts(folder: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut parts: Vec<String> = names.filter(|name| name.ends_with(".zst")).collect();
    parts.sort();
    parts
}

fn lines(part: &Path) -> Vec<Value> {
    let mut text = String::new();
    zstd::Decoder::new(std::fs::File::open(part).unwrap()).unwrap().read_to_string(&mut text).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn publish(topic: &Topic, values: impl Iterator<Item = (String, String, i64)>) {
    let producer: BaseProducer = client().create().unwrap();
    for (key, value, ms) in values {
        let mut record = BaseRecord::to(&topic.0).key(&key).payload(&value).timestamp(ms);
        while let Err((error, back)) = producer.send(record) {
            assert_eq!(error.rdkafka_error_code(), Some(rdkafka::types::RDKafkaErrorCode::QueueFull), "{error}");
            producer.poll(Duration::from_millis(10));
            record = back;
        }
    }
    producer.flush(PATIENCE).unwrap();
}

fn numbered(count: i64) -> impl Iterator<Item = (String, String, i64)> {
    (0..count)
        .map(|n| (format!("k{}", n % 50), format!("{{\"n\": {n},\n \"text\": \"ä\"}}"), 1_760_000_000_000 + n * 1_000))
}

/// Everything that was exported, as it stands in Kafka.
fn compare(exported: &BTreeMap<String, Vec<Value>>, kafka: &[OwnedMessage]) {
    let mut lines: Vec<&Value> = exported.values().flatten().collect();
    lines.sort_by_key(|line| (line["partition"].as_i64(), line["offset"].as_i64()));
    assert_eq!(lines.len(), kafka.len());
    for (line, message) in lines.into_iter().zip(kafka) {
        assert_eq!(line["partition"], message.partition());
        assert_eq!(line["offset"], message.offset());
        assert_eq!(line["timestamp_ms"].as_i64(), message.timestamp().to_millis());
        assert_eq!(line["key"].as_str().unwrap().as_bytes(), message.key().unwrap());
        let value: Value = serde_json::from_slice(message.payload().unwrap()).unwrap();
        assert_eq!(line["value"], value);
    }
}

#[test]
fn everything_is_exported_once_however_often_it_is_interrupted() {
    let (topic, place) = (Topic::new(3), Workplace::new());
    publish(&topic, numbered(60_000));
    let args = ["--topic", &topic.0, "--part-records", "1000"];
    for parts_wanted in [3, 11] {
        let mut running = place.command(&args).spawn().unwrap();
        let deadline = Instant::now() + PATIENCE;
        while parts(&place.out()).len() < parts_wanted && running.try_wait().unwrap().is_none() {
            assert!(Instant::now() < deadline, "{:?}", parts(&place.out()));
        }
        // No goodbye: what is unfinished stays unfinished.
        running.kill().unwrap();
        running.wait().unwrap();
    }
    let before = parts(&place.out());
    let finished = place.export(&[&args[..], &["--json"]].concat());
    assert!(finished.status.success(), "{}", String::from_utf8_lossy(&finished.stderr));
    let summary: Value = serde_json::from_slice(&finished.stdout).unwrap();
    assert_eq!(summary["is_complete"], true);
    assert_eq!(summary["before"].as_u64().unwrap() + summary["records"].as_u64().unwrap(), 60_000);
    assert!(summary["before"].as_u64().unwrap() >= 11_000, "the whole parts of earlier runs are kept: {summary}");
    assert!(before.iter().all(|part| place.out().join(part).exists()));
    let exported = place.lines();
    assert!(exported.values().all(|lines| lines.len() <= 1_000));
    compare(&exported, &topic.read());
    // Records that come later belong to another export.
    publish(&topic, numbered(10));
    let again = place.export(&[&args[..], &["--json"]].concat());
    let summary: Value = serde_json::from_slice(&again.stdout).unwrap();
    assert_eq!((&summary["records"], &summary["is_complete"]), (&0.into(), &true.into()), "{summary}");
}

#[test]
fn a_range_of_time_is_exported_and_no_group_hears_of_it() {
    let (topic, place) = (Topic::new(2), Workplace::new());
    publish(&topic, numbered(1_000));
    let args = ["--topic", &topic.0, "--from", "2025-10-09T08:55:00Z", "--to", "2025-10-09T09:00:00Z"];
    let done = place.export(&args);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let (from, to) = (1_760_000_100_000, 1_760_000_400_000);
    let within = |message: &OwnedMessage| (from..to).contains(&message.timestamp().to_millis().unwrap());
    let expected: Vec<OwnedMessage> = topic.read().into_iter().filter(within).collect();
    assert_eq!(expected.len(), 300);
    compare(&place.lines(), &expected);
    let other = place.export(&["--topic", &topic.0, "--from", "2025-10-09T08:56:00Z"]);
    assert_eq!(other.status.code(), Some(1));
    let told = String::from_utf8_lossy(&other.stderr);
    assert!(told.contains("another export") && told.contains("another folder"), "{told}");
}

#[test]
fn what_kafka_deleted_meanwhile_is_told() {
    let (topic, place) = (Topic::new(1), Workplace::new());
    publish(&topic, numbered(500));
    let args = ["--topic", &topic.0, "--part-records", "100"];
    // Settled, and then deleted before anything was read.
    let first = place.export(&args);
    assert!(first.status.success(), "{}", String::from_utf8_lossy(&first.stderr));
    for part in parts(&place.out()) {
        std::fs::remove_file(place.out().join(part)).unwrap();
    }
    let mut until = TopicPartitionList::new();
    until.add_partition_offset(&topic.0, 0, Offset::Offset(120)).unwrap();
    let admin: AdminClient<DefaultClientContext> = client().create().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(admin.delete_records(&until, &AdminOptions::new())).unwrap();
    let second = place.export(&args);
    assert_eq!(second.status.code(), Some(1));
    let told = String::from_utf8_lossy(&second.stdout);
    assert!(told.contains("120 records were deleted"), "{told}");
    assert_eq!(place.lines().values().flatten().count(), 380);
}

#[test]
fn bad_usage_says_what_is_wrong() {
    let place = Workplace::new();
    for (args, expected) in [
        (vec!["--topic", "t", "--from", "yesterday"], "is no time"),
        (vec!["--topic", "t", "--from", "1h", "--to", "2h"], "--from is not before --to"),
        (vec!["--pool", "nobody"], "no pool is configured"),
        (vec![], "--topic"),
    ] {
        let done = place.export(&args);
        assert_eq!(done.status.code(), Some(2), "{args:?}");
        let told = String::from_utf8_lossy(&done.stderr);
        assert!(told.contains(expected), "{args:?}: {told}");
    }
    let absent = place.export(&["--topic", "is-not-there"]);
    assert_eq!(absent.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&absent.stderr).contains("is-not-there"));
}
