//! The producers in `examples/producers`: each checks events by the schemas in `schemas/`, and puts keys where weir does.
//! They are installed into `.services/producers`, so this needs Python 3 with venv, Go, and the package registries.

mod common {
    pub(crate) mod kafka;
    pub(crate) mod services;
}

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::LazyLock;

use common::kafka::Topic;
use rdkafka::message::Message;

const PARTITIONS: i32 = 7;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The installed producers.
static INSTALLED: LazyLock<PathBuf> = LazyLock::new(|| {
    let made = Command::new(root().join("scripts/producers.sh")).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    root().join(".services/producers")
});

#[derive(Debug, Clone, Copy)]
enum Producer {
    Weir,
    Python,
    Go,
}

impl Producer {
    const ALL: [Self; 3] = [Self::Weir, Self::Python, Self::Go];

    fn publish(self, topic: &Topic, schema: &str, key_field: Option<&str>, file: &Path) -> Output {
        let brokers = common::services::env("KAFKA_BROKERS");
        let schema = root().join("schemas").join(format!("{schema}.json"));
        let (mut command, dashes) = match self {
            Self::Weir => {
                let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
                command.args(["publish", "--set"]).arg(format!("kafka.brokers={brokers}"));
                (command, "--")
            }
            Self::Python => {
                let mut command = Command::new(INSTALLED.join("python/bin/python"));
                command.arg(root().join("examples/producers/python/publish.py"));
                command.args(["--brokers", &brokers, "--schema"]).arg(schema);
                (command, "--")
            }
            Self::Go => {
                let mut command = Command::new(INSTALLED.join("publish-go"));
                command.args(["-brokers", &brokers, "-schema"]).arg(schema);
                (command, "-")
            }
        };
        command.args([&format!("{dashes}topic"), &topic.0]);
        command.args(key_field.into_iter().flat_map(|field| [format!("{dashes}key-field"), field.to_owned()]));
        command.arg(file).output().unwrap()
    }
}

fn lines(name: &str, lines: &[String]) -> PathBuf {
    let file = std::env::temp_dir().join(format!("weir-producers-{name}-{}.ndjson", std::process::id()));
    std::fs::write(&file, lines.join("\n")).unwrap();
    file
}

/// Each record's partition, by key and value.
fn placed(topic: &Topic) -> BTreeMap<(Option<Vec<u8>>, String), i32> {
    let records = topic.read();
    let count = records.len();
    let by_record: BTreeMap<_, _> = records
        .into_iter()
        .map(|record| {
            let value = String::from_utf8(record.payload().unwrap().to_vec()).unwrap();
            ((record.key().map(<[u8]>::to_vec), value), record.partition())
        })
        .collect();
    assert_eq!(by_record.len(), count, "records are there twice");
    by_record
}

#[test]
fn the_same_keys_land_on_the_same_partitions_whoever_publishes_them() {
    let orders: Vec<String> = ["", "a", "order-42", "zoë", "日本語", "😀😀", "-7"]
        .map(|id| format!("\"{id}\""))
        .into_iter()
        .chain((1..=60).map(|length| format!("\"{}\"", "k".repeat(length))))
        .chain([0, -1, 1001, i64::MAX].map(|id| id.to_string()))
        .map(|id| format!(r#"{{"type":"order_cancelled","order_id":{id},"timestamp":1767225600000}}"#))
        .collect();
    let message = |ends: &str| {
        format!(
            r#"{{"type":"new_message","message":{{{ends},"content":"x","message_type":1,"timestamp":1}},"timestamp":1}}"#
        )
    };
    let messages = [
        r#""from":1001,"to":"999""#,
        r#""from":"zoë","to":"Zoe""#,
        r#""from":"日本","to":"\ud83d\ude00""#,
        r#""from":1,"to":2,"group_id":42"#,
        r#""from":2,"to":1,"group_id":"""#,
    ]
    .map(message);
    for (name, schema, key_field, events) in
        [("orders", "order-events", Some("/order_id"), orders), ("messages", "message-events", None, messages.to_vec())]
    {
        let file = lines(name, &events);
        let found = Producer::ALL.map(|producer| {
            let topic = Topic::new(PARTITIONS);
            let published = producer.publish(&topic, schema, key_field, &file);
            assert!(published.status.success(), "{producer:?}: {}", String::from_utf8_lossy(&published.stderr));
            placed(&topic)
        });
        let [by_weir, by_python, by_go] = found;
        assert_eq!(by_weir.len(), events.len());
        assert_eq!(by_python, by_weir, "Python's are elsewhere");
        assert_eq!(by_go, by_weir, "Go's are elsewhere");
        std::fs::remove_file(file).unwrap();
    }
}

#[test]
fn an_event_that_is_not_of_the_schema_is_named_and_left_out() {
    let good = r#"{"type":"order_cancelled","order_id":"o","timestamp":1,"added":"later"}"#;
    let bad = [
        r#"{"type":"order_cancelled","timestamp":1}"#,
        r#"{"type":"order_cancelled","order_id":1.5,"timestamp":1}"#,
        r#"{"type":"order_lost","order_id":"o","timestamp":1}"#,
        "{",
    ];
    let events: Vec<String> = bad.iter().chain([&good]).map(|line| (*line).to_owned()).collect();
    let file = lines("bad", &events);
    for producer in [Producer::Python, Producer::Go] {
        let topic = Topic::new(1);
        let published = producer.publish(&topic, "order-events", Some("/order_id"), &file);
        let said = String::from_utf8_lossy(&published.stderr);
        assert_eq!(published.status.code(), Some(1), "{producer:?}: {said}");
        for number in 1..=bad.len() {
            assert!(said.contains(&format!(".ndjson:{number}:")), "{producer:?} does not name line {number}: {said}");
        }
        assert_eq!(topic.values(), [good], "{producer:?}");
    }
    std::fs::remove_file(file).unwrap();
}
