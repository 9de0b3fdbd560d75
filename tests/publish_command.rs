//! `weir publish`, against a real Kafka.

mod common {
    pub(crate) mod kafka;
    pub(crate) mod services;
}

use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use common::kafka::{PATIENCE, Topic};
use common::services;
use rdkafka::message::Message;

/// A directory of one test, with a configuration for the real broker in it.
struct Workplace(PathBuf);

impl Workplace {
    fn new() -> Self {
        Self::with_kafka(&services::env("KAFKA_BROKERS"))
    }

    fn with_kafka(brokers: &str) -> Self {
        let path = std::env::temp_dir().join(format!("weir-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir(&path).unwrap();
        let brokers: Vec<&str> = brokers.split(',').collect();
        let config = format!("startup_timeout = \"2s\"\n[kafka]\nbrokers = {brokers:?}\n");
        std::fs::write(path.join("weir.toml"), config).unwrap();
        Self(path)
    }

    fn file(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let path = self.0.join(name);
        std::fs::write(&path, content).unwrap();
        path.display().to_string()
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
        command
            .arg("publish")
            .arg("--config")
            .arg(self.0.join("weir.toml"))
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    fn publish(&self, args: &[&str]) -> Run {
        self.publish_stdin(args, "")
    }

    fn publish_stdin(&self, args: &[&str], input: &str) -> Run {
        let mut child = self.command(args).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // It may end without reading; what it says then is the test's matter.
        drop(stdin.write_all(input.as_bytes()));
        drop(stdin);
        Run::of(child)
    }
}

impl Drop for Workplace {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

/// What a command said, and its exit code.
#[derive(Debug)]
struct Run {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Run {
    fn of(child: Child) -> Self {
        let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
        Self {
            code: status.code(),
            stdout: String::from_utf8(stdout).unwrap(),
            stderr: String::from_utf8(stderr).unwrap(),
        }
    }

    /// A number of the JSON summary.
    fn count(&self, name: &str) -> u64 {
        let summary: serde_json::Value = serde_json::from_str(&self.stdout).unwrap();
        summary[name].as_u64().unwrap_or_else(|| panic!("{name} in {self:?}"))
    }
}

#[test]
fn a_bad_line_is_named_and_its_neighbours_arrive_byte_for_byte() {
    let (topic, place) = (Topic::new(1), Workplace::new());
    let before = "  {\"b\" : 1.0,\t\"a\":\"\\u00e9\" , \"a\":\"é\"} ";
    let after = "{\"n\":18446744073709551616000}";
    let file = place.file("events.ndjson", format!("{before}\r\n\n{{\"cut\":\n{after}"));
    let run = place.publish(&["--topic", &topic.0, "--json", &file]);
    assert_eq!(run.code, Some(1), "{run:?}");
    assert!(run.stderr.contains(&format!("{file}:3: not JSON")), "{run:?}");
    assert_eq!(topic.values(), [before, after]);
    assert_eq!((run.count("published"), run.count("bad_lines")), (2, 1));
    assert_eq!((run.count("undelivered"), run.count("blank_lines")), (0, 1));
    assert_eq!(run.count("bytes"), (before.len() + after.len()) as u64);
}

#[test]
fn every_event_of_a_long_file_is_settled() {
    let (topic, place) = (Topic::new(4), Workplace::new());
    let lines: Vec<String> =
        (0..30_000).map(|n| format!("{{\"message\":{{\"from\":{n},\"to\":{}}}}}", n % 7)).collect();
    let file = place.file("events.ndjson", lines.join("\n"));
    let run = place.publish(&["--topic", &topic.0, "--json", &file]);
    assert_eq!(run.code, Some(0), "{run:?}");
    assert_eq!(run.count("published"), 30_000);
    let (mut found, mut expected) = (topic.values(), lines);
    found.sort();
    expected.sort();
    assert!(found == expected, "each line once, as it was");
}

#[test]
fn good_lines_from_files_and_standard_input_end_with_0() {
    let (topic, place) = (Topic::new(1), Workplace::new());
    let one = place.file("one", "{\"n\":1}\n{\"n\":2}\n");
    let two = place.file("two", "{\"n\":4}");
    let run = place.publish_stdin(&["--topic", &topic.0, &one, "-", &two], "{\"n\":3}\n");
    assert_eq!(run.code, Some(0), "{run:?}");
    assert!(run.stdout.contains("published 4 events"), "{run:?}");
    assert_eq!(run.stderr, "", "no progress bar where no terminal is");
    let all = ["{\"n\":1}", "{\"n\":2}", "{\"n\":3}", "{\"n\":4}"];
    assert_eq!(topic.values(), all);
}

/// The keys as text.
fn keys(topic: &Topic) -> Vec<Option<String>> {
    let text = |key: &[u8]| String::from_utf8(key.to_vec()).unwrap();
    let events = topic.read();
    events.iter().map(|event| event.key().map(text)).collect()
}

#[test]
fn the_key_is_the_conversation_a_field_or_a_value() {
    let lines = concat!(
        "{\"message\":{\"from\":\"b\",\"to\":\"a\"},\"user\":7}\n",
        "{\"message\":{\"group_id\":42}}\n",
        "{\"user\":\"zoë\"}\n",
    );
    let key = |key: &str| Some(key.to_owned());
    for (args, mut expected) in [
        (&[][..], vec![key("a:b"), key("42"), None]),
        (&["--key-field", "/user"], vec![key("7"), None, key("zoë")]),
        (&["--key", "all"], vec![key("all"); 3]),
    ] {
        let (topic, place) = (Topic::new(3), Workplace::new());
        let args = [&["--topic", &topic.0], args].concat();
        let run = place.publish_stdin(&args, lines);
        assert_eq!(run.code, Some(0), "{run:?}");
        let mut found = keys(&topic);
        found.sort();
        expected.sort();
        assert_eq!(found, expected, "{args:?}");
    }
}

#[test]
fn a_missing_topic_is_said_and_not_made() {
    let place = Workplace::new();
    let name = format!("missing-{}", uuid::Uuid::new_v4());
    for _ in 0..2 {
        let run = place.publish_stdin(&["--topic", &name], "{}\n");
        assert_eq!(run.code, Some(1), "{run:?}");
        let message = format!("topic {name} does not exist on {}", services::env("KAFKA_BROKERS"));
        assert!(run.stderr.contains(&message), "{run:?}");
        assert!(run.stderr.contains("--create"), "{run:?}");
    }
}

#[test]
fn a_broker_that_does_not_answer_is_waited_for_and_named() {
    let place = Workplace::with_kafka("127.0.0.1:1");
    let began = Instant::now();
    let run = place.publish_stdin(&[], "{}\n");
    assert_eq!(run.code, Some(1), "{run:?}");
    assert!(began.elapsed() >= Duration::from_secs(1), "it waits");
    assert!(began.elapsed() < PATIENCE, "up to startup_timeout");
    assert!(run.stderr.contains("127.0.0.1:1"), "{run:?}");
}

#[test]
fn an_event_beyond_the_limit_is_named_and_the_others_arrive() {
    let (topic, place) = (Topic::new(1), Workplace::new());
    let large = format!("{{\"x\":\"{}\"}}", "x".repeat(1_500_000));
    let run = place.publish_stdin(&["--topic", &topic.0, "--json"], &format!("{{}}\n{large}\n{{}}\n"));
    assert_eq!(run.code, Some(1), "{run:?}");
    assert!(run.stderr.contains("stdin:2: not delivered"), "{run:?}");
    assert!(run.stderr.contains("1500008 bytes, more than the limit of 1000000"), "{run:?}");
    assert_eq!((run.count("published"), run.count("undelivered")), (2, 1));
    assert_eq!(topic.values(), ["{}", "{}"]);
}

#[test]
fn many_bad_lines_are_counted_rather_than_printed() {
    let (topic, place) = (Topic::new(1), Workplace::new());
    let run = place.publish_stdin(&["--topic", &topic.0, "--json"], &"[]\n".repeat(50));
    assert_eq!((run.code, run.count("bad_lines")), (Some(1), 50));
    assert_eq!(run.stderr.lines().count(), 21, "{run:?}");
    assert!(run.stderr.contains("30 more bad lines"), "{run:?}");
}

#[test]
fn fail_fast_sends_what_is_before_the_bad_line_and_nothing_after() {
    let (topic, place) = (Topic::new(1), Workplace::new());
    let input = "{\"n\":1}\n7\n{\"n\":2}\n7\n";
    let run = place.publish_stdin(&["--topic", &topic.0, "--fail-fast", "--json"], input);
    assert_eq!((run.code, run.count("bad_lines")), (Some(1), 1));
    assert_eq!(topic.values(), ["{\"n\":1}"]);
}

#[test]
fn buffered_delivery_and_every_compression_arrive() {
    let topic = Topic::new(1);
    let place = Workplace::new();
    for compression in ["none", "snappy", "lz4", "zstd"] {
        let args = ["--topic", &topic.0, "--compression", compression, "--delivery", "buffered"];
        let run = place.publish_stdin(&args, &format!("{{\"by\":\"{compression}\"}}\n"));
        assert_eq!(run.code, Some(0), "{run:?}");
    }
    assert_eq!(topic.values().len(), 4);
}

#[test]
fn wrong_usage_ends_with_2_and_a_missing_file_before_anything_is_sent() {
    let (topic, place) = (Topic::new(1), Workplace::new());
    let run = place.publish(&["--key-field", "message/from"]);
    assert_eq!(run.code, Some(2), "{run:?}");
    assert!(run.stderr.contains("is not a JSON pointer"), "{run:?}");
    let there = place.file("there", "{}\n");
    let run = place.publish(&["--topic", &topic.0, &there, "/no/such/file"]);
    assert_eq!(run.code, Some(1), "{run:?}");
    assert!(run.stderr.contains("/no/such/file"), "{run:?}");
    assert_eq!(topic.values(), [""; 0]);
}

#[test]
fn a_wrong_kafka_setting_ends_with_2_and_is_named() {
    let place = Workplace::new();
    let config = "[kafka.options]\nlinger_ms = \"soon\"\n";
    let config = place.file("wrong.toml", config);
    let run = place.publish(&["--config", &config]);
    assert_eq!(run.code, Some(2), "{run:?}");
    assert!(run.stderr.contains("linger.ms"), "{run:?}");
}

#[test]
fn a_line_that_trickles_in_is_sent_at_once_and_a_signal_ends_it_in_order() {
    let (topic, place) = (Topic::new(1), Workplace::new());
    let mut child = place.command(&["--topic", &topic.0, "--json"]).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"{\"n\":1}\n").unwrap();
    let deadline = Instant::now() + PATIENCE;
    while topic.values().is_empty() {
        assert!(Instant::now() < deadline, "the line never arrived");
    }
    let id = child.id().to_string();
    let killed = Command::new("kill").args(["-TERM", &id]).status().unwrap();
    assert!(killed.success());
    let run = Run::of(child);
    assert_eq!((run.code, run.count("published")), (Some(1), 1), "{run:?}");
    assert!(run.stderr.contains("stopped by a signal"), "{run:?}");
    drop(stdin);
}
