//! Pools without a store: `forward` and `notify`, at least once, their repeats bounded, their rejects on the dead-letter topic.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use hmac::{Hmac, KeyInit as _, Mac as _};
use rdkafka::admin::{AdminOptions, NewTopic, TopicReplication};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{Headers as _, Message as _, OwnedMessage};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::{Offset, TopicPartitionList};

use super::dead::{json, run};
use super::worker::Worker;
use super::world::{World, admin, kafka};
use super::{PATIENCE, until};

/// A worker's configuration without any `[store]`.
fn config(world: &World, pool_lines: &str, pipeline: &str) -> String {
    let whole = world.config(pool_lines);
    let (head, _) = whole.split_once("[[pools.").unwrap();
    let (before, store) = head.split_once("[store]").unwrap();
    let (_, after) = store.split_once("[redis]").unwrap();
    let pool = &world.pool;
    format!(
        "{before}[redis]\ndeadline = \"5s\"{after}[pools.{pool}.event]\nid = \"/id\"\nuser = \"/user\"\ntimestamp = \"/at\"\n\
         [[pools.{pool}.pipelines]]\nname = \"out\"\n{pipeline}\n"
    )
}

async fn make_topic(name: &str, partitions: i32) {
    let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
    for made in admin().create_topics([&topic], &AdminOptions::new()).await.unwrap() {
        made.unwrap();
    }
}

async fn delete_topic(name: &str) {
    for gone in admin().delete_topics(&[name], &AdminOptions::new()).await.unwrap() {
        gone.unwrap();
    }
}

/// Everything on a topic, by partition and offset.
fn read(topic: &str) -> Vec<OwnedMessage> {
    let consumer: BaseConsumer = kafka().set("group.id", "not-joined").create().unwrap();
    let metadata = consumer.fetch_metadata(Some(topic), PATIENCE).unwrap();
    let (mut assignment, mut expected) = (TopicPartitionList::new(), 0);
    for partition in metadata.topics()[0].partitions() {
        let (low, high) = consumer.fetch_watermarks(topic, partition.id(), PATIENCE).unwrap();
        expected += usize::try_from(high - low).unwrap();
        assignment.add_partition_offset(topic, partition.id(), Offset::Beginning).unwrap();
    }
    consumer.assign(&assignment).unwrap();
    let mut found = Vec::with_capacity(expected);
    while found.len() < expected {
        let message = consumer.poll(PATIENCE).expect("what the log has can be read");
        found.push(message.unwrap().detach());
    }
    found.sort_by_key(|message| (message.partition(), message.offset()));
    found
}

fn header(message: &OwnedMessage, name: &str) -> Option<String> {
    let headers = message.headers()?;
    let found = headers.iter().find(|header| header.key == name)?;
    Some(String::from_utf8_lossy(found.value?).into_owned())
}

fn text(bytes: Option<&[u8]>) -> String {
    String::from_utf8(bytes.unwrap_or_default().to_vec()).unwrap()
}

async fn send_all(world: &World, events: impl IntoIterator<Item = (String, String)>) {
    let producer: FutureProducer = kafka().set("partitioner", "murmur2_random").create().unwrap();
    let mut sent = Vec::new();
    for (key, value) in events {
        let record = FutureRecord::to(&world.topic).key(&key).payload(&value);
        sent.push(producer.send_result(record).map_err(|(error, _)| error).unwrap());
    }
    for delivery in sent {
        delivery.await.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn forwarding_survives_a_kill_without_a_loss_and_repeats_one_batch_a_partition_at_most() {
    const EVENTS: usize = 3_000;
    const BATCH: usize = 50;
    let world = World::new(3).await;
    let out = format!("{}-paid", world.topic);
    make_topic(&out, 5).await;
    let event = |n: usize| {
        let key = format!("k{}", n % 17);
        (key, format!(r#"{{"type":"paid","id":"e{n}","order":{{"id":{}}}}}"#, n % 23))
    };
    send_all(&world, (0..EVENTS).map(event)).await;
    let lines = format!("max_poll_records = {BATCH}\nrate = 600\n");
    let pipeline =
        format!("handler = \"forward\"\ntopic = \"{}-{{type}}\"\nrecord_key = \"order-{{/order/id}}\"", world.topic);
    let config = config(&world, &lines, &pipeline);
    let mut first = Worker::start_configured(&world, &config).await;
    until("a part to be forwarded", PATIENCE, async || {
        let count = read(&out).len();
        (count > EVENTS / 5, count)
    })
    .await;
    first.kill();
    let before = read(&out).len();
    assert!(before < EVENTS, "the kill came too late to show anything");
    let mut second = Worker::start_configured(&world, &config).await;
    world.committed_by(&world.pool, PATIENCE).await;
    assert!(second.terminate().0.success());

    let found = read(&out);
    let mut copies: HashMap<String, usize> = HashMap::new();
    let mut last: BTreeMap<String, (usize, String)> = BTreeMap::new();
    for message in &found {
        let id = header(message, "weir-id").expect("each has its id");
        let number: usize = id[1..].parse().unwrap();
        let (key, value) = event(number);
        assert_eq!((text(message.payload()), text(message.key())), (value, format!("order-{}", number % 23)));
        assert!(header(message, "weir-source").unwrap().starts_with(&format!("{}/", world.topic)));
        let copy = copies.entry(id.clone()).or_default();
        *copy += 1;
        // The first copies of a conversation are in order within the order's partition.
        if *copy == 1
            && let Some((before, _)) = last.insert(format!("{key} {}", number % 23), (number, id))
        {
            assert!(before < number, "{before} came before {number}");
        }
    }
    assert_eq!(copies.len(), EVENTS, "events are lost");
    let repeats = found.len() - copies.len();
    assert!(repeats <= 3 * BATCH, "{repeats} repeats");
    assert_eq!(world.ledger().await, [0, 0, 0], "it has no store");
    delete_topic(&out).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_forwarded_is_on_the_dead_letter_topic_before_the_offset_and_held_while_that_is_missing() {
    let world = World::new(1).await;
    let (out, dead) = (format!("{}-out", world.topic), format!("{}.{}.dead", world.topic, world.pool));
    let pipeline = format!("handler = \"forward\"\ntopic = \"{out}\"\nrecord_key = \"{{/order}}\"");
    let event = |id: &str, rest: &str| ("k".to_owned(), format!(r#"{{"type":"paid","id":"{id}"{rest}}}"#));
    send_all(&world, [event("a", r#","order":1"#), event("b", ""), ("k".to_owned(), "{".to_owned())]).await;
    let mut worker = Worker::start_configured(&world, &config(&world, "", &pipeline)).await;
    let held = async |what: &str| {
        until("the partition to be held", PATIENCE, async || {
            let ready = worker.get("/readyz");
            (ready.contains(&format!("topic {what} does not exist")), ready)
        })
        .await;
    };
    held(&out).await;
    make_topic(&out, 1).await;
    world.committed_by(&world.pool, PATIENCE).await;
    let letters = read(&dead);
    let told: Vec<_> =
        letters.iter().map(|letter| (header(letter, "weir-reason").unwrap(), text(letter.payload()))).collect();
    let expected = [("handler", event("b", "").1), ("malformed", "{".to_owned())];
    let mut told_sorted = told.clone();
    told_sorted.sort();
    assert_eq!(told_sorted, expected.map(|(reason, value)| (reason.to_owned(), value)));
    assert!(header(&letters[0], "weir-letter-id").is_some());
    assert_eq!(worker.metric("weir_dead_events_total", ""), 2.0);

    delete_topic(&dead).await;
    // A repeat of an event that is done, and another event that has its id: ids belong to types.
    let refunded = ("k".to_owned(), r#"{"type":"refunded","id":"a","order":3}"#.to_owned());
    send_all(&world, [event("a", r#","order":1"#), event("c", ""), event("d", r#","order":2"#), refunded]).await;
    held(&dead).await;
    make_topic(&dead, 1).await;
    world.committed_by(&world.pool, PATIENCE).await;
    assert!(worker.terminate().0.success());
    assert_eq!(read(&dead).iter().map(|letter| text(letter.payload())).collect::<Vec<_>>(), [event("c", "").1]);
    let forwarded: Vec<_> = read(&out).iter().map(|message| header(message, "weir-id").unwrap()).collect();
    assert_eq!(forwarded, ["a", "d", "a"]);
    assert!(text(read(&out)[2].payload()).contains("refunded"), "the repeat was forwarded");
    delete_topic(&out).await;
}

/// A web service that is told of events.
#[derive(Clone, Default)]
struct Service(Arc<Mutex<Told>>);

#[derive(Default)]
struct Told {
    is_away: bool,
    /// Ids taken, in order.
    taken: Vec<String>,
    refused: usize,
    wrong: Vec<String>,
}

const SECRET: &str = "a long random text";

impl Service {
    async fn serve(&self) -> SocketAddr {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let app = Router::new().route("/hook", post(take)).with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        address
    }

    fn told<T>(&self, look: impl FnOnce(&mut Told) -> T) -> T {
        look(&mut self.0.lock().unwrap())
    }
}

fn is_signed(headers: &HeaderMap, body: &[u8]) -> bool {
    let signature = headers["weir-signature"].to_str().unwrap();
    let (at, hex) = signature.strip_prefix("t=").unwrap().split_once(",v1=").unwrap();
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
    mac.update(format!("{at}.").as_bytes());
    mac.update(body);
    let expected: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    hex == expected
}

async fn take(State(service): State<Service>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let id = headers["idempotency-key"].to_str().unwrap().to_owned();
    let body_id = serde_json::from_slice::<serde_json::Value>(&body).unwrap()["id"].as_str().unwrap().to_owned();
    service.told(|told| {
        if told.is_away {
            return StatusCode::SERVICE_UNAVAILABLE;
        }
        if id != body_id || !is_signed(&headers, &body) {
            told.wrong.push(id);
            return StatusCode::OK;
        }
        if id.starts_with("bad") {
            told.refused += 1;
            return StatusCode::UNPROCESSABLE_ENTITY;
        }
        told.taken.push(id);
        StatusCode::NO_CONTENT
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_is_notified_of_each_event_in_order_waited_for_while_it_is_away_and_believed_when_it_refuses() {
    const EVENTS: usize = 300;
    let world = World::new(2).await;
    let dead = format!("{}.{}.dead", world.topic, world.pool);
    let service = Service::default();
    service.told(|told| told.is_away = true);
    let pipeline = format!(
        "handler = \"notify\"\nurl = \"http://{}/hook?token=sEcReT\"\nsecret = \"{SECRET}\"\ntimeout = \"5s\"",
        service.serve().await
    );
    let event = |n: usize| {
        let id = if n % 100 == 50 { format!("bad{n}") } else { format!("e{n}") };
        (format!("k{}", n % 7), format!(r#"{{"type":"paid","id":"{id}"}}"#))
    };
    send_all(&world, (0..EVENTS).map(event)).await;
    let config = config(&world, "max_poll_records = 100\n", &pipeline);
    let mut first = Worker::start_configured(&world, &config).await;
    until("the service to be waited for", PATIENCE, async || {
        let ready = first.get("/readyz");
        (ready.contains("status 503") || ready.contains("left alone"), ready)
    })
    .await;
    service.told(|told| told.is_away = false);
    until("a part to be told", PATIENCE, async || {
        let count = service.told(|told| told.taken.len());
        (count > 20, count)
    })
    .await;
    first.kill();
    let log = first.log();
    let mut second = Worker::start_configured(&world, &config).await;
    world.committed_by(&world.pool, PATIENCE).await;
    assert!(second.terminate().0.success());

    let (taken, wrong) = service.told(|told| (told.taken.clone(), std::mem::take(&mut told.wrong)));
    assert!(wrong.is_empty(), "without their id or their signature: {wrong:?}");
    let mut copies: HashMap<&str, usize> = HashMap::new();
    let mut last = [None; 7];
    for id in &taken {
        let number: usize = id[1..].parse().unwrap();
        let copy = copies.entry(id).or_default();
        *copy += 1;
        if *copy == 1 {
            assert!(last[number % 7] < Some(number), "{id} out of order");
            last[number % 7] = Some(number);
        }
    }
    assert_eq!(copies.len(), EVENTS - 3, "events are lost");
    assert!(taken.len() - copies.len() <= 2 * 100, "{} repeats", taken.len() - copies.len());
    let mut letters: Vec<_> = read(&dead).iter().map(|letter| header(letter, "weir-event-id").unwrap()).collect();
    letters.sort();
    letters.dedup();
    assert_eq!(letters, ["bad150", "bad250", "bad50"]);
    assert!(!log.contains("sEcReT") && !second.log().contains("sEcReT"), "the log has the address's token");
    assert!(log.contains("the notified service does not answer"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_delivery_of_a_pool_is_told_and_what_it_cannot_have_is_refused() {
    let world = World::new(1).await;
    let forward = "handler = \"forward\"\ntopic = \"out\"";
    let check = |config: &str, command: &[&str]| {
        let output = world.weir_with(config, command).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(said).unwrap())
    };
    let (code, said) = check(&config(&world, "", forward), &["check"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("at least once; the processed set in redis"), "{said}");
    let (_, said) = check(&world.config(""), &["check"]);
    assert!(said.contains("one effect of each event"), "{said}");
    for (lines, pipeline, problem) in [
        ("on_reject = \"park\"\n", forward, "has no store in which later events could wait"),
        ("transactions_max = 2\n", forward, "transactions_max` has no use"),
        ("", "handler = \"forward\"", "topic` is not set"),
        ("", "handler = \"forward\"\ntopic = \"a{typ}\"", "there is no \"typ\""),
        ("", "handler = \"notify\"", "url` is not set"),
        ("", "handler = \"notify\"\nurl = \"ftp://x/\"", "url` must be an address"),
        ("", "handler = \"notify\"\nurl = \"http://x/\"\ntopic = \"t\"", "topic` belongs to the handler forward"),
    ] {
        let (code, said) = check(&config(&world, lines, pipeline), &["check"]);
        assert!(code == Some(2) && said.contains(problem), "{problem}: {said}");
    }
    let mixed = format!("{}[[pools.{}.pipelines]]\nname = \"out\"\n{forward}\n", world.config(""), world.pool);
    let (code, said) = check(&mixed, &["check"]);
    assert!(code == Some(2) && said.contains("a pool of its own"), "{said}");
    let (code, said) = check(&config(&world, "", forward), &["verify"]);
    assert!(code == Some(2) && said.contains("has no store"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lag_of_a_pool_without_a_store_is_counted_from_what_it_committed() {
    let world = World::new(2).await;
    let out = format!("{}-out", world.topic);
    make_topic(&out, 1).await;
    let config = config(&world, "", &format!("handler = \"forward\"\ntopic = \"{out}\""));
    let events = |from: usize, count: usize| {
        (from..from + count).map(|n| (format!("k{n}"), format!(r#"{{"type":"paid","id":"e{n}"}}"#)))
    };
    send_all(&world, events(0, 40)).await;
    let lag = || {
        let (code, told) = json(&world, &config, &["lag"]);
        assert_eq!(code, 0, "{told:#}");
        let pool = &told["pools"][0];
        assert!(pool["dead"].is_null() && pool["partitions"][0]["ledger"].is_null(), "{told:#}");
        let partitions = pool["partitions"].as_array().unwrap();
        partitions.iter().map(|one| one["records"].as_i64().unwrap()).sum::<i64>()
    };
    assert_eq!(lag(), 40);
    let mut worker = Worker::start_configured(&world, &config).await;
    world.committed_by(&world.pool, PATIENCE).await;
    assert!(worker.terminate().0.success());
    assert_eq!(lag(), 0);
    send_all(&world, events(40, 7)).await;
    assert_eq!(lag(), 7);
    let (code, text, err) = run(&world, &config, &["lag"]);
    assert!(code == 0 && text.contains("7 events behind") && text.contains("no store"), "{text}{err}");
    delete_topic(&out).await;
}
