//! A broker that does not answer or refuses the login, a topic that is not there, a group that others use.

use rdkafka::consumer::{BaseConsumer, Consumer as _};

use crate::common::kafka::{Topic, client};
use crate::common::services;
use crate::forwarder::{Forwarder, closed_address};
use crate::place::{Place, is_clear, lines_with, until};

#[test]
fn a_broker_that_answers_later_is_waited_for_by_run_which_says_so_once() {
    let place = Place::migrated();
    place.publish();
    let address = closed_address();
    let mut worker = place.worker(&[&format!("kafka.brokers={address}")]);
    worker.waits_for(&format!("Kafka: no broker of {address} answers"));
    // Longer than two further attempts.
    std::thread::sleep(std::time::Duration::from_secs(5));
    let log = worker.log();
    assert_eq!(lines_with(&log, "waiting for Kafka: no broker of"), 1, "{log}");
    assert_eq!(lines_with(&log, "WARN") + lines_with(&log, "ERROR"), 1, "{log}");
    assert!(log.contains("Connection refused") && log.contains("check kafka.brokers"), "{log}");
    let _forwarder = Forwarder::start(&address, &services::env("KAFKA_BROKERS"));
    worker.is_ready();
    place.settles(1, &worker);
    worker.stops();
    is_clear(&worker.log());
}

#[test]
fn a_worker_that_waits_for_a_broker_stops_when_it_is_told_to() {
    let place = Place::migrated();
    let address = closed_address();
    let mut worker = place.worker(&[&format!("kafka.brokers={address}")]);
    worker.waits_for("Kafka");
    worker.stops();
}

#[test]
fn a_broker_that_does_not_answer_ends_publish_and_verify_with_1() {
    let place = Place::migrated();
    let event = place.file("event.ndjson", "{}\n");
    let address = closed_address();
    let brokers = format!("kafka.brokers={address}");
    let told = format!("no broker of {address} answers (Connect to ipv4#{address} failed: Connection refused)");
    for args in [&["publish", &event][..], &["verify"]] {
        let ran = place.weir(&[args, &["--set", &brokers]].concat());
        ran.fails_with(1, &[&told, "check kafka.brokers"]);
        assert!(ran.lines_with("") <= 2, "at most a line that says that it waits: {ran:?}");
    }
}

#[test]
fn a_login_that_is_refused_ends_every_command_with_1() {
    let place = Place::migrated();
    let event = place.file("event.ndjson", "{}\n");
    let sets = ["security_protocol=sasl_plaintext", "sasl_mechanism=PLAIN", "sasl_username=u", "sasl_password=hunter2"];
    let sets = sets.map(|set| format!("kafka.options.{set}"));
    let mut sets: Vec<&str> = sets.iter().flat_map(|set| ["--set", set]).collect();
    // Where it listens would be a line too.
    sets.extend(["--set", "console.listen=off"]);
    for args in [&["publish", &event][..], &["verify"], &["run"]] {
        let ran = place.weir(&[args, &sets].concat());
        let told = format!("Kafka at {} refuses the login (SASL PLAIN", services::env("KAFKA_BROKERS"));
        ran.fails_with(1, &[&told, "check security_protocol, sasl_mechanism, sasl_username and sasl_password"]);
        assert!(ran.lines_with("") <= 2, "{ran:?}");
    }
}

#[test]
fn a_missing_topic_ends_publish_and_verify_with_1() {
    let place = Place::migrated();
    let event = place.file("event.ndjson", "{}\n");
    let told = "topic no-such-topic does not exist on";
    let parts = [told, "create it with `kafka-topics.sh --create --topic no-such-topic"];
    place.weir(&["publish", "--topic", "no-such-topic", &event]).fails_with(1, &parts);
    place.weir(&["verify", "--set", "pools.bad.topics=no-such-topic"]).fails_with(1, &parts);
}

#[test]
fn a_missing_topic_is_waited_for_by_run_and_used_once_it_is_made() {
    let mut place = Place::migrated();
    let name = format!("later-{}", uuid::Uuid::new_v4());
    let mut worker = place.worker(&[&format!("pools.bad.topics={name}")]);
    worker.waits_for(&format!("the topic \\\"{name}\\\", which does not exist"));
    until("the missing topic to be told", || {
        let log = worker.log();
        (lines_with(&log, "the topic does not exist; waiting for it to be made") == 1, log)
    });
    place.topic = Topic::named(&name, 2);
    place.publish();
    place.settles(1, &worker);
    worker.is_ready();
    let log = worker.log();
    assert_eq!(lines_with(&log, "WARN") + lines_with(&log, "ERROR"), 1, "{log}");
    worker.stops();
}

/// A member of a group, which polls until it is dropped.
struct Member {
    stop: std::sync::mpsc::Sender<()>,
    polling: Option<std::thread::JoinHandle<()>>,
}

impl Member {
    fn join(place: &Place, settings: &[(&str, &str)]) -> Self {
        let mut config = client();
        config.set("group.id", &place.group);
        settings.iter().for_each(|(name, value)| _ = config.set(*name, *value));
        let consumer: BaseConsumer = config.create().unwrap();
        consumer.subscribe(&[&place.topic.0]).unwrap();
        until("the other member to have its partitions", || {
            consumer.poll(std::time::Duration::from_millis(100));
            let count = consumer.assignment().unwrap().count();
            (count > 0, count)
        });
        let (stop, stopped) = std::sync::mpsc::channel();
        let polling = std::thread::spawn(move || {
            while stopped.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
                consumer.poll(std::time::Duration::from_millis(100));
            }
        });
        Self { stop, polling: Some(polling) }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.stop.send(()).ok();
        if let Some(polling) = self.polling.take() {
            polling.join().ok();
        }
    }
}

#[test]
fn a_group_with_another_assignor_is_waited_for_with_one_message_and_joined_once_it_is_free() {
    let place = Place::migrated();
    place.publish();
    let settings = [("partition.assignment.strategy", "range"), ("auto.offset.reset", "latest")];
    let other = Member::join(&place, &settings);
    let mut worker = place.worker(&[]);
    worker.waits_for(&format!("group \\\"{}\\\" has members with another protocol or assignor", place.group));
    // Several refused attempts.
    std::thread::sleep(std::time::Duration::from_secs(4));
    let log = worker.log();
    assert_eq!(lines_with(&log, "has members with another protocol or assignor"), 1, "{log}");
    assert_eq!(lines_with(&log, "WARN") + lines_with(&log, "ERROR"), 1, "{log}");
    assert!(log.contains("stop them, or give the pool another `group`"), "{log}");
    is_clear(&log);
    drop(other);
    worker.is_ready();
    place.settles(1, &worker);
    worker.stops();
}

/// Kafka 4 translates between the protocols, so that a group can move from one to the other while it runs.
#[test]
fn a_group_of_the_newer_protocol_is_joined_where_the_broker_translates() {
    let place = Place::migrated();
    place.publish();
    let other = Member::join(&place, &[("group.protocol", "consumer"), ("auto.offset.reset", "latest")]);
    let mut worker = place.worker(&[]);
    worker.is_ready();
    drop(other);
    place.settles(1, &worker);
    is_clear(&worker.log());
    worker.stops();
}

/// Kafka does not translate what librdkafka's cooperative-sticky tells of earlier assignments, as every member does that has
/// been through a rebalance.
#[test]
fn the_consumer_protocol_waits_with_one_message_for_a_group_that_cannot_be_translated() {
    let place = Place::migrated();
    place.publish();
    let settings = [("partition.assignment.strategy", "cooperative-sticky"), ("auto.offset.reset", "latest")];
    let others = [Member::join(&place, &settings), Member::join(&place, &settings)];
    let mut worker = place.worker(&["kafka.group_protocol=consumer"]);
    worker.waits_for(&format!("group \\\"{}\\\" has members with the classic protocol", place.group));
    // Another look at the group.
    std::thread::sleep(std::time::Duration::from_secs(4));
    let log = worker.log();
    assert_eq!(lines_with(&log, "has members with the classic protocol"), 1, "{log}");
    assert_eq!(lines_with(&log, "WARN") + lines_with(&log, "ERROR"), 1, "{log}");
    assert!(log.contains("stop them, set kafka.group_protocol to \"classic\", or give"), "{log}");
    is_clear(&log);
    drop(others);
    worker.is_ready();
    place.settles(1, &worker);
    worker.stops();
}
