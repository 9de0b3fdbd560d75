//! Traces, as a receiver of OTLP sees them: over a dead letter and its replay, and while the receiver is away.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{Headers as _, Message as _};
use rdkafka::{Offset, TopicPartitionList};
use uuid::Uuid;
use weir::publish::{Outgoing, PublishOptions, Publisher};

use super::dead::{json, run};
use super::worker::Worker;
use super::world::{World, kafka};
use super::{PATIENCE, until};

const CONSUMER: i32 = 5;
const PRODUCER: i32 = 4;

/// Takes spans as a collector does.
#[derive(Clone, Default)]
struct Receiver {
    spans: Arc<Mutex<Vec<Span>>>,
    services: Arc<Mutex<Vec<String>>>,
}

impl Receiver {
    /// Listens; its address.
    async fn start() -> (Self, String) {
        let receiver = Self::default();
        let taking = receiver.clone();
        let take = move |body: Bytes| async move {
            let request = ExportTraceServiceRequest::decode(body).unwrap();
            for resource in request.resource_spans {
                let attributes = resource.resource.unwrap().attributes;
                taking.services.lock().unwrap().push(text_of(&attributes, "service.name").unwrap());
                let spans = resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
                taking.spans.lock().unwrap().extend(spans);
            }
        };
        let router = Router::new().route("/v1/traces", post(take));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        (receiver, address)
    }

    fn spans(&self) -> Vec<Span> {
        self.spans.lock().unwrap().clone()
    }

    /// Waits for a span of which this is so.
    async fn span(&self, what: &str, is_it: impl Fn(&Span) -> bool) -> Span {
        let mut found = None;
        until(what, PATIENCE, async || {
            let spans = self.spans();
            found = spans.iter().find(|span| is_it(span)).cloned();
            (found.is_some(), spans.iter().map(|span| span.name.clone()).collect::<Vec<_>>())
        })
        .await;
        found.unwrap()
    }

    /// The names of the spans below one, sorted; each is of its trace.
    fn below(&self, parent: &Span) -> Vec<String> {
        let spans = self.spans();
        let below = spans.iter().filter(|span| span.parent_span_id == parent.span_id);
        let mut names: Vec<String> = below
            .map(|span| {
                assert_eq!(span.trace_id, parent.trace_id, "{}", span.name);
                span.name.clone()
            })
            .collect();
        names.sort();
        names
    }
}

fn value_of(attributes: &[KeyValue], name: &str) -> Option<Value> {
    attributes.iter().find(|attribute| attribute.key == name)?.value.clone()?.value
}

fn text_of(attributes: &[KeyValue], name: &str) -> Option<String> {
    match value_of(attributes, name)? {
        Value::StringValue(text) => Some(text),
        other => Some(format!("{other:?}")),
    }
}

fn is_replay(span: &Span) -> bool {
    value_of(&span.attributes, "weir.replay") == Some(Value::BoolValue(true))
}

/// A context of somebody who publishes, and the header that tells of it.
struct Context {
    trace: [u8; 16],
    span: [u8; 8],
}

impl Context {
    fn new() -> Self {
        let trace = *Uuid::new_v4().as_bytes();
        let span = *Uuid::new_v4().as_bytes().first_chunk().unwrap();
        Self { trace, span }
    }

    fn header(&self, flags: &str) -> String {
        format!("00-{}-{}-{flags}", hex(&self.trace), hex(&self.span))
    }

    fn is_linked(&self, span: &Span) -> bool {
        span.links.iter().any(|link| link.trace_id == self.trace && link.span_id == self.span)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn event(content: &str) -> String {
    format!(
        r#"{{"type":"new_message","message":{{"message_id":"{}","from":1,"to":2,"content":"{content}","message_type":1,"timestamp":1767225600000}},"timestamp":1767225600000}}"#,
        Uuid::now_v7()
    )
}

fn config(world: &World, endpoint: &str, lines: &str) -> String {
    format!("{}[traces]\nendpoint = \"{endpoint}\"\n{lines}\n", world.config(""))
}

async fn refuse(world: &World) {
    world.sql("ALTER TABLE messages ADD CONSTRAINT picky CHECK (content !~ 'refused')").await;
}

async fn replay(world: &World, config: &str) {
    world.sql("ALTER TABLE messages DROP CONSTRAINT picky").await;
    let (code, done) = json(world, config, &["dead", "replay"]);
    assert_eq!((code, done["replayed"].as_i64()), (0, Some(1)), "{done}");
}

/// The only letter's header of this name.
fn letter_header(world: &World, name: &str) -> Option<String> {
    let consumer: BaseConsumer = kafka().set("group.id", "not-joined").create().unwrap();
    let mut assignment = TopicPartitionList::new();
    let topic = format!("{}.{}.dead", world.topic, world.pool);
    let metadata = consumer.fetch_metadata(Some(&topic), PATIENCE).unwrap();
    for partition in metadata.topics()[0].partitions() {
        assignment.add_partition_offset(&topic, partition.id(), Offset::Beginning).unwrap();
    }
    consumer.assign(&assignment).unwrap();
    let deadline = Instant::now() + PATIENCE;
    loop {
        assert!(Instant::now() < deadline, "there is no letter on {topic}");
        let Some(letter) = consumer.poll(Duration::from_millis(200)) else { continue };
        let letter = letter.unwrap();
        let header = letter.headers()?.iter().find(|header| header.key == name)?;
        return Some(String::from_utf8(header.value?.to_vec()).unwrap());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_links_to_its_events_and_a_dead_one_keeps_its_trace_over_letter_and_replay() {
    let world = World::new(1).await;
    let (receiver, endpoint) = Receiver::start().await;
    let config = config(&world, &endpoint, "sample_ratio = 0");
    refuse(&world).await;
    let [good, bad, unsampled] = [Context::new(), Context::new(), Context::new()];
    let publisher = Publisher::new(kafka(), PublishOptions::default()).unwrap();
    for (context, flags, content) in
        [(&good, "01", "taken"), (&bad, "01", "refused"), (&unsampled, "00", "taken"), (&unsampled, "xx", "taken")]
    {
        let (header, value) = (context.header(flags), event(content));
        let headers = [("traceparent", header.as_bytes()), ("tracestate", b"vendor=kept".as_slice())];
        publisher.send(Outgoing::new(&world.topic, value.as_bytes()).headers(&headers)).await.unwrap().await.unwrap();
    }
    let worker = Worker::start_configured(&world, &config).await;
    world.drained(PATIENCE).await;

    let process = receiver.span("a batch with a link to the good event", |span| good.is_linked(span)).await;
    assert_eq!((process.name.as_str(), process.kind), (format!("process {}", world.topic).as_str(), CONSUMER));
    assert!(process.parent_span_id.is_empty() && process.trace_id != good.trace, "it is a trace of its own");
    assert_eq!(text_of(&process.attributes, "messaging.consumer.group.name").as_ref(), Some(&world.pool));
    let is_below = |name: &str| receiver.below(&process).iter().any(|below| below == name);
    for name in ["prepare persist", "prepare stats", "apply persist", "apply stats", &format!("commit {}", world.topic)]
    {
        assert!(is_below(name), "{name} is not below the batch: {:?}", receiver.below(&process));
    }
    let batch = receiver.span("a batch with a link to the bad event", |span| bad.is_linked(span)).await;
    assert!(batch.events.iter().any(|event| text_of(&event.attributes, "error.type").as_deref() == Some("refused")));

    let mirror = format!("send {}.{}.dead", world.topic, world.pool);
    let letter = receiver.span("the letter's span", |span| span.name == mirror).await;
    assert_eq!((letter.trace_id.as_slice(), letter.parent_span_id.as_slice()), (&bad.trace[..], &bad.span[..]));
    assert_eq!(letter.kind, PRODUCER);
    let header = format!("00-{}-{}-01", hex(&bad.trace), hex(&letter.span_id));
    assert_eq!(letter_header(&world, "traceparent"), Some(header));
    assert_eq!(letter_header(&world, "tracestate").as_deref(), Some("vendor=kept"));

    replay(&world, &config).await;
    let replayed = receiver.span("the replay's span", is_replay).await;
    assert!(bad.is_linked(&replayed), "{replayed:?}");
    assert!(!bad.is_linked(&Span { links: Vec::new(), ..replayed }), "the helper looks at links only");
    let is_of_the_unsampled = |span: &Span| span.trace_id == unsampled.trace || unsampled.is_linked(span);
    assert!(!receiver.spans().iter().any(is_of_the_unsampled), "an event that is not sampled has a span");
    assert!(receiver.services.lock().unwrap().iter().all(|name| name == "weir"));
    assert!(worker.metric("weir_spans_total", "result=\"exported\"") > 0.0);
    assert_eq!(worker.metric("weir_spans_total", "result=\"failed\""), 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_relation_parent_an_events_whole_life_is_one_trace() {
    let world = World::new(1).await;
    let (receiver, endpoint) = Receiver::start().await;
    let config = config(&world, &endpoint, "sample_ratio = 1\nrelation = \"parent\"\nservice_name = \"named\"");
    refuse(&world).await;
    let file = world.dir.join("events.ndjson");
    std::fs::write(&file, [event("taken"), event("refused"), event("taken")].join("\n")).unwrap();
    let (code, _, told) = run(&world, &config, &["publish", file.to_str().unwrap(), "--topic", &world.topic]);
    assert_eq!(code, 0, "{told}");
    let _worker = Worker::start_configured(&world, &config).await;
    world.drained(PATIENCE).await;

    let send = format!("send {}", world.topic);
    let process = format!("process {}", world.topic);
    let mirror = format!("send {}.{}.dead", world.topic, world.pool);
    let sent: Vec<Span> = receiver.spans().into_iter().filter(|span| span.name == send).collect();
    assert_eq!(sent.len(), 3, "a trace begins with each event");
    for event in &sent {
        assert!(event.parent_span_id.is_empty());
        let is_its = |span: &Span| span.name == process && span.parent_span_id == event.span_id;
        let handled = receiver.span("the event's handling", is_its).await;
        assert_eq!((&handled.trace_id, handled.kind), (&event.trace_id, CONSUMER));
        assert!(handled.links.is_empty());
        let of = |span: &Span| value_of(&span.attributes, "messaging.kafka.offset");
        assert!(of(event).is_some() && of(event) == of(&handled), "{event:?}\n{handled:?}");
        let below = receiver.below(&handled);
        assert!(below.contains(&"apply persist".to_owned()) && below.contains(&format!("commit {}", world.topic)));
    }
    let letter = receiver.span("the letter's span", |span| span.name == mirror).await;
    let bad =
        sent.iter().find(|event| event.span_id == letter.parent_span_id).expect("it is below the event's sending");
    assert_eq!(letter.trace_id, bad.trace_id);
    let failed = receiver
        .span("the handling that failed", |span| {
            text_of(&span.attributes, "error.type").as_deref() == Some("refused") && span.name == process
        })
        .await;
    assert_eq!(failed.parent_span_id, bad.span_id);

    replay(&world, &config).await;
    let replayed = receiver.span("the replay's span", is_replay).await;
    assert_eq!((&replayed.trace_id, &replayed.parent_span_id), (&bad.trace_id, &bad.span_id));
    assert_eq!(value_of(&replayed.attributes, "error.type"), None);
    assert!(receiver.services.lock().unwrap().iter().all(|name| name == "named"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_is_away_holds_nothing_up() {
    let world = World::new(1).await;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let mut worker = Worker::start_configured(&world, &config(&world, &endpoint, "sample_ratio = 1")).await;
    let publisher = Publisher::new(kafka(), PublishOptions::default()).unwrap();
    let failed = |worker: &Worker| worker.metric("weir_spans_total", "result=\"failed\"");
    let mut counted = 0.0;
    for round in 0..2 {
        let value = event("taken");
        publisher.send(Outgoing::new(&world.topic, value.as_bytes())).await.unwrap().await.unwrap();
        world.drained(PATIENCE).await;
        until("spans to be counted as failed", PATIENCE, async || (failed(&worker) > counted, failed(&worker))).await;
        counted = failed(&worker);
        assert_eq!(worker.log().matches("spans are not taken").count(), 1, "round {round}: said once");
    }
    assert_eq!(world.count("SELECT count(*) FROM messages").await, 2);
    let (status, took) = worker.terminate();
    assert!(status.success() && took < Duration::from_secs(15), "{status:?} after {took:?}");
}
