//! Moderation with a classifier that is slow and fails, looked at by a reader all the while.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::http::StatusCode;
use axum::routing::post;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{Headers as _, Message as _};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::{Offset, TopicPartitionList};
use tokio::net::TcpListener;

use super::dead::json;
use super::worker::Worker;
use super::world::{World, kafka};
use super::{PATIENCE, until};

/// A classifier that hides what says "forbidden", answers after 0 to 200 ms, and fails one time in ten.
struct Classifier {
    url: String,
    asked: Arc<AtomicU64>,
    serving: tokio::task::JoinHandle<()>,
}

impl Classifier {
    fn start(listener: TcpListener) -> Self {
        let url = format!("http://{}/judge", listener.local_addr().unwrap());
        let asked = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&asked);
        let judge = move |body: Bytes| async move {
            count.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(fastrand::u64(0..=200))).await;
            if fastrand::u8(0..10) == 0 {
                return (StatusCode::INTERNAL_SERVER_ERROR, String::new());
            }
            let question: serde_json::Value = serde_json::from_slice(&body).unwrap();
            let is_bad = question["text"].as_str().unwrap().contains("forbidden");
            let verdict = if is_bad { "hide" } else { "allow" };
            (StatusCode::OK, format!("{{\"verdict\":\"{verdict}\",\"label\":\"test\"}}"))
        };
        let router = Router::new().route("/judge", post(judge));
        let serving = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, asked, serving }
    }
}

impl Drop for Classifier {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// A pipeline that moderates, with a list of banned words and a classifier.
fn moderating(world: &World, pool: &str, url: &str, on_unavailable: &str) -> String {
    let (topic, words) = (&world.topic, world.dir.join("banned.txt"));
    format!(
        "[[pools.{pool}.pipelines]]\nname = \"moderation\"\nhandler = \"moderate\"\nwhen = \"event.type == 'new_message'\"\n\
         [pools.{pool}.pipelines.moderate]\nreload = \"100ms\"\nstatus_topic = \"{topic}.status\"\n\
         [[pools.{pool}.pipelines.moderate.words]]\nfile = \"{}\"\n\
         [pools.{pool}.pipelines.moderate.classifier]\nurl = \"{url}\"\nconcurrency = 64\n\
         on_unavailable = \"{on_unavailable}\"\n",
        words.display()
    )
}

/// Sends messages whose contents are these, and waits until all are acknowledged.
async fn send(world: &World, contents: impl Iterator<Item = String>) {
    let producer: FutureProducer = kafka().set("linger.ms", "5").create().unwrap();
    let sent = contents.enumerate().map(|(n, content)| {
        let key = format!("user-{}", n % 50);
        let value = serde_json::json!({"type": "new_message", "timestamp": 1, "message": {
            "message_id": uuid::Uuid::new_v4(), "from": key, "to": "all", "content": content, "message_type": 1,
            "timestamp": 1_767_225_600_000_u64,
        }});
        let record = FutureRecord::to(&world.topic).key(&key);
        let value = value.to_string();
        producer.send_result(record.payload(&value)).map_err(|(error, _)| error).unwrap()
    });
    for delivery in sent.collect::<Vec<_>>() {
        delivery.await.unwrap().unwrap();
    }
}

/// The ids of the events on a topic, and how many of its messages say that they are hidden.
fn status_events(topic: &str) -> (HashSet<String>, usize) {
    let consumer: BaseConsumer = kafka().set("group.id", topic).create().unwrap();
    let metadata = consumer.fetch_metadata(Some(topic), PATIENCE).unwrap();
    let partitions: Vec<i32> = metadata.topics()[0].partitions().iter().map(|partition| partition.id()).collect();
    let (mut list, mut left) = (TopicPartitionList::new(), 0);
    for partition in partitions {
        list.add_partition_offset(topic, partition, Offset::Beginning).unwrap();
        let (low, high) = consumer.fetch_watermarks(topic, partition, PATIENCE).unwrap();
        left += high - low;
    }
    consumer.assign(&list).unwrap();
    let (mut ids, mut hidden) = (HashSet::new(), HashSet::new());
    while left > 0 {
        let message = consumer.poll(PATIENCE).expect("the topic has more").unwrap();
        let header = message.headers().unwrap().iter().find(|header| header.key == "weir-id").unwrap();
        ids.insert(String::from_utf8(header.value.unwrap().to_vec()).unwrap());
        let event: serde_json::Value = serde_json::from_slice(message.payload().unwrap()).unwrap();
        if event["status"] == "hide" && event["type"] == "message_status" {
            hidden.insert(event["message_id"].as_str().unwrap().to_owned());
        }
        left -= 1;
    }
    (ids, hidden.len())
}

const READABLE_BAD: &str = "SELECT count(*) FROM readable_messages WHERE content LIKE 'no: %'";

#[tokio::test(flavor = "multi_thread")]
async fn no_hidden_message_is_ever_readable() {
    const BANNED: u64 = 5_000;
    const FINE: u64 = 500;
    let world = World::new(4).await;
    std::fs::write(world.dir.join("banned.txt"), "badword\n").unwrap();
    let classifier = Classifier::start(TcpListener::bind("127.0.0.1:0").await.unwrap());
    let config = world.config("") + &moderating(&world, &world.pool, &classifier.url, "hold");
    let mut worker = Worker::start_configured(&world, &config).await;

    let done = AtomicBool::new(false);
    let reader = async {
        let (mut looks, mut in_between) = (0u64, 0u64);
        while !done.load(Ordering::Relaxed) {
            assert_eq!(world.count(READABLE_BAD).await, 0, "a hidden message was readable");
            let rows = u64::try_from(world.count("SELECT count(*) FROM messages").await).unwrap();
            looks += 1;
            in_between += u64::from(rows > 0 && rows < BANNED + FINE);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        (looks, in_between)
    };
    let writer = async {
        let content = |n: u64| match n % 11 {
            0 => format!("ok: message {n}"),
            n_of if n_of % 2 == 0 => format!("no: forbidden {n}"),
            n_of if n_of % 3 == 0 => format!("no: a ＢＡＤword, {n}"),
            _ => format!("no: badword {n}"),
        };
        send(&world, (0..BANNED + FINE).map(content)).await;
        // A kill in the midst of it: batches are judged again, by whoever comes next.
        until("some rows", PATIENCE, async || {
            let rows = world.count("SELECT count(*) FROM messages").await;
            (rows > 500, rows)
        })
        .await;
        worker.kill();
        worker = Worker::start_configured(&world, &config).await;
        world.drained(PATIENCE * 4).await;
        done.store(true, Ordering::Relaxed);
    };
    let ((looks, in_between), ()) = tokio::join!(reader, writer);
    assert!(looks > 50 && in_between > 10, "{looks} looks, {in_between} of them while rows were written");

    let count = async |sql: &str| u64::try_from(world.count(sql).await).unwrap();
    assert_eq!(count("SELECT count(*) FROM messages").await, BANNED + FINE, "{}", worker.log());
    assert_eq!(count("SELECT count(*) FROM messages WHERE status = 'hide' AND content LIKE 'no: %'").await, BANNED);
    assert_eq!(count("SELECT count(*) FROM readable_messages").await, FINE);
    assert_eq!(count("SELECT count(*) FROM weir_verdicts WHERE verdict = 'hide'").await, BANNED);
    let by_words = count("SELECT count(*) FROM weir_verdicts WHERE reason = 'words banned.txt:1'").await;
    let by_classifier = count("SELECT count(*) FROM weir_verdicts WHERE reason = 'classifier: test'").await;
    assert!(by_words > 2_000 && by_classifier > 2_000 && by_words + by_classifier == BANNED);
    // Some requests failed, and none was asked about for each of its batch's attempts anew.
    let asked = classifier.asked.load(Ordering::Relaxed);
    assert!(asked > by_classifier + FINE && asked < 2 * (by_classifier + FINE), "{asked} requests");
    assert!(worker.metric("weir_classifier_requests_total", "outcome=\"error\"") > 0.0);
    until("the status events to be sent", PATIENCE, async || {
        let left = world.count("SELECT count(*) FROM weir_verdicts WHERE published_at IS NULL").await;
        (left == 0, left)
    })
    .await;
    let (ids, hidden) = status_events(&format!("{}.status", world.topic));
    assert_eq!((ids.len() as u64, hidden as u64), (BANNED, BANNED));

    let id = "SELECT min(event_id) FROM weir_verdicts WHERE reason = 'words banned.txt:1'";
    let id: String = sqlx::query_scalar(id).fetch_one(world.db.postgres()).await.unwrap();
    let (code, told) = json(&world, &config, &["why", &id]);
    let effect = &told["pools"][0]["effects"][1];
    let row = &effect["row"];
    assert!(code == 0 && effect["pipeline"] == "moderation" && effect["table"] == "weir_verdicts", "{told:#}");
    assert!(row["verdict"] == "hide" && row["reason"] == "words banned.txt:1", "{told:#}");
    assert!(row["status_event_sent"] == true && row["decided_at_ms"].as_i64().unwrap() > 1_767_225_600_000, "{told:#}");

    // A list that changes counts from then on; one that is broken changes nothing.
    let file = world.dir.join("banned.txt");
    let replace = |text: &[u8]| {
        let new = world.dir.join("banned.new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(&new, &file).unwrap();
    };
    replace(b"badword\nnewword\n");
    until("the list to be read again", PATIENCE, async || {
        let read = worker.metric("weir_reloads_total", "result=\"ok\"");
        (read >= 1.0, read)
    })
    .await;
    replace(b"badword\n\xff\n");
    until("the broken list to be met", PATIENCE, async || {
        let met = worker.metric("weir_reloads_total", "result=\"error\"");
        (met >= 1.0, met)
    })
    .await;
    assert!(worker.log().contains("a list of moderation cannot be used"), "{}", worker.log());
    send(&world, (0..50).map(|n| format!("no: newword {n}"))).await;
    world.drained(PATIENCE).await;
    assert_eq!(count("SELECT count(*) FROM messages WHERE content LIKE '%newword%' AND status = 'hide'").await, 50);
    assert_eq!(world.count(READABLE_BAD).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_classifier_that_is_away_is_met_as_configured() {
    for (on_unavailable, flagged, readable) in [("flag", 20, 20), ("allow", 0, 20)] {
        let world = World::new(1).await;
        std::fs::write(world.dir.join("banned.txt"), "badword\n").unwrap();
        let config = world.config("") + &moderating(&world, &world.pool, "http://127.0.0.1:9/judge", on_unavailable);
        let worker = Worker::start_configured(&world, &config).await;
        send(&world, (0..20).map(|n| format!("ok: {n}")).chain(["no: badword".to_owned()])).await;
        world.drained(PATIENCE).await;
        let flags = "SELECT count(*) FROM messages m JOIN weir_verdicts v ON v.event_id = m.message_id
                      WHERE m.status = 'flag' AND v.verdict = 'flag' AND v.reason = 'classifier: unavailable'";
        assert_eq!(world.count(flags).await, flagged, "{on_unavailable}: {}", worker.log());
        assert_eq!(world.count("SELECT count(*) FROM readable_messages").await, readable, "{on_unavailable}");
        assert_eq!(world.count(READABLE_BAD).await, 0, "{on_unavailable}");
    }
}

/// Waits until the metric and `/readyz` say that the pipeline's service is away, or that it answers.
async fn left_alone(worker: &Worker, is_so: bool) {
    until(&format!("the classifier to be left alone: {is_so}"), PATIENCE, async || {
        let open = worker.metric("weir_breaker_open", "dependency=\"pipeline/");
        let ready = worker.get("/readyz");
        (open == f64::from(is_so) && ready.contains("\"dependency\":\"pipeline/") == is_so, (open, ready))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_is_held_until_the_classifier_answers() {
    let world = World::new(1).await;
    std::fs::write(world.dir.join("banned.txt"), "badword\n").unwrap();
    let place = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = place.local_addr().unwrap();
    drop(place);
    let config = world.config("") + &moderating(&world, &world.pool, &format!("http://{address}/judge"), "hold");
    let worker = Worker::start_configured(&world, &config).await;
    send(&world, (0..20).map(|n| format!("no: forbidden {n}"))).await;
    until("the partition to be held", PATIENCE, async || {
        let holds = worker.metric("weir_holds", "");
        (holds == 1.0, holds)
    })
    .await;
    assert!(worker.get("/readyz").contains("the classifier does not answer"), "{}", worker.log());
    assert_eq!(world.count("SELECT count(*) FROM messages").await, 0);
    assert_eq!(world.count("SELECT count(*) FROM weir_dead").await, 0);
    left_alone(&worker, true).await;
    let _classifier = Classifier::start(TcpListener::bind(address).await.unwrap());
    world.drained(PATIENCE * 2).await;
    left_alone(&worker, false).await;
    assert_eq!(world.count("SELECT count(*) FROM messages WHERE status = 'hide'").await, 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_of_its_own_hides_by_its_verdicts_whichever_comes_first() {
    let world = World::new(2).await;
    std::fs::write(world.dir.join("banned.txt"), "badword\n").unwrap();
    let own = format!("{}-m", world.pool);
    let classifier = Classifier::start(TcpListener::bind("127.0.0.1:0").await.unwrap());
    let pool = format!("[pools.{own}]\ntopics = [\"{}\"]\nstart = \"beginning\"\n", world.topic);
    let config = world.config("") + &pool + &moderating(&world, &own, &classifier.url, "hold");
    send(&world, (0..200).map(|n| if n % 2 == 0 { format!("ok: {n}") } else { format!("no: badword {n}") })).await;
    let bad = "SELECT count(*) FROM weir_verdicts WHERE verdict = 'hide'";

    // The verdicts come first: nothing of what they hide is ever readable.
    let only = world.weir_with(&config, &["run", "--pool", &own]);
    let mut worker = Worker::spawn(only, &world).await;
    until("the verdicts", PATIENCE, async || {
        let verdicts = world.count(bad).await;
        (verdicts == 100, verdicts)
    })
    .await;
    assert_eq!(world.count("SELECT count(*) FROM messages").await, 0);
    worker.terminate();
    let _worker = Worker::start_configured(&world, &config).await;
    until("the messages", PATIENCE, async || {
        assert_eq!(world.count(READABLE_BAD).await, 0);
        let rows = world.count("SELECT count(*) FROM messages").await;
        (rows == 200, rows)
    })
    .await;
    assert_eq!(world.count("SELECT count(*) FROM readable_messages").await, 100);
    assert_eq!(world.count("SELECT count(*) FROM messages WHERE status = 'allow'").await, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn events_that_are_found_by_bisecting_or_replayed_are_judged_like_others() {
    let world = World::new(2).await;
    std::fs::write(world.dir.join("banned.txt"), "badword\n").unwrap();
    world.sql("ALTER TABLE messages ADD CONSTRAINT picky CHECK (content NOT LIKE '%refused%')").await;
    let classifier = Classifier::start(TcpListener::bind("127.0.0.1:0").await.unwrap());
    let config = world.config("") + &moderating(&world, &world.pool, &classifier.url, "hold");
    let worker = Worker::start_configured(&world, &config).await;
    let content = |n: u64| match n % 4 {
        0 => format!("ok: {n}"),
        1 => format!("no: badword {n}"),
        2 if n % 40 == 2 => format!("no: badword, refused {n}"),
        _ => format!("no: forbidden {n}"),
    };
    send(&world, (0..400).map(content)).await;
    world.drained(PATIENCE * 2).await;
    assert_eq!(world.count("SELECT count(*) FROM weir_dead").await, 10, "{}", worker.log());
    assert_eq!(world.count("SELECT count(*) FROM messages WHERE status = 'hide'").await, 290);
    assert_eq!(world.count("SELECT count(*) FROM weir_verdicts").await, 290, "what is set aside has no effect");
    world.sql("ALTER TABLE messages DROP CONSTRAINT picky").await;
    let (code, done) = super::dead::json(&world, &config, &["dead", "replay"]);
    assert_eq!((code, done["replayed"].as_i64()), (0, Some(10)), "{done}");
    assert_eq!(world.count("SELECT count(*) FROM messages WHERE status = 'hide'").await, 300);
    assert_eq!(world.count("SELECT count(*) FROM weir_verdicts WHERE verdict = 'hide'").await, 300);
    assert_eq!(world.count(READABLE_BAD).await, 0);
    assert_eq!(world.count("SELECT count(*) FROM readable_messages").await, 100);
}
