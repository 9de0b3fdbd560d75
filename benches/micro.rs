//! What one event costs outside the services: decoding, its id, its attributes; and what a batch's watermark and metrics cost. Run it with `make bench-micro`.
#![allow(missing_docs, reason = "divan's macros make items of their own")]

use std::sync::Arc;

use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, black_box};
use uuid::Uuid;
use weir::config::{self, EventFields};
use weir::event::{Decode, Document, Event, EventId, Fields, Json, Origin, Payload, Record};
use weir::handler::{Handler, Moderate};
use weir::metrics::Metrics;
use weir::payload::{MessageEvent, conversation_of_two};
use weir::rules::{Lookups, Rule};
use weir::source::Watermarks;

fn main() {
    divan::main();
}

fn origin() -> Arc<Origin> {
    Arc::new(Origin { topic: "message-events".into(), topic_id: Uuid::from_u128(7), partition: 3 })
}

/// A chat message as `make bench` publishes it.
fn message() -> Record {
    let words = "some words of a usual length that people send each other in a day ".repeat(2);
    Record::new(
        1_234_567,
        format!(
            r#"{{"type":"new_message","message":{{"message_id":"0199c8a2-7b7e-7000-8000-0123456789ab","from":4711,"to":4712,"content":"message 1234567: {words}","message_type":1,"timestamp":1760000000001}},"timestamp":1760000000002}}"#
        ),
    )
}

/// A record whose payload has no id of its own.
fn without_id() -> Record {
    Record::new(
        1_234_567,
        r#"{"type":"new_message","message":{"from":1,"to":2,"content":"x","message_type":1,"timestamp":5},"timestamp":6}"#,
    )
}

/// The decoder that `persist` uses with its default mapping.
fn fields() -> Fields {
    let mut fields = Fields::new(&EventFields::default()).expect("the default pointers are pointers");
    for pointer in ["/message/from", "/message/to", "/message/content", "/message/message_type", "/message/timestamp"] {
        fields.value(pointer).expect("a pointer");
    }
    fields
}

fn decoded<T: Payload>(decoder: &dyn Decode<T>, record: Record) -> Event<T> {
    match Event::decode(decoder, &origin(), record) {
        Ok(event) => event,
        Err(refused) => panic!("the event is malformed: {}", refused.1),
    }
}

mod decode {
    use super::*;

    /// Of JSON, by serde, into the shipped Rust type.
    #[divan::bench]
    fn message_event(bencher: Bencher<'_, '_>) {
        decode(bencher, &Json::<MessageEvent>::default());
    }

    /// The fields that `persist` asks for, in one pass, without a tree.
    #[divan::bench]
    fn document(bencher: Bencher<'_, '_>) {
        decode(bencher, &fields());
    }

    /// With its id, as a pool does it.
    #[divan::bench]
    fn whole_event(bencher: Bencher<'_, '_>) {
        let (origin, record, fields) = (origin(), message(), fields());
        bencher
            .counter(ItemsCount::new(1usize))
            .with_inputs(|| record.clone())
            .bench_values(|record| Event::<Document>::decode(&fields, black_box(&origin), record));
    }

    fn decode<T: Payload>(bencher: Bencher<'_, '_>, decoder: &dyn Decode<T>) {
        let record = message();
        let bytes = record.value.as_deref().map_or(0, <[u8]>::len);
        bencher
            .counter(ItemsCount::new(1usize))
            .counter(BytesCount::new(bytes))
            .bench(|| decoder.decode(black_box(&record)));
    }
}

mod id {
    use super::*;

    #[divan::bench]
    fn of_the_payload(bencher: Bencher<'_, '_>) {
        let event = decoded(&fields(), message());
        bencher.bench(|| black_box(&event).payload.id().map(std::borrow::Cow::into_owned));
    }

    #[divan::bench]
    fn of_a_header(bencher: Bencher<'_, '_>) {
        let (origin, record) = (origin(), without_id().with_header("ce_id", b"0199c8a2-7b7e-7000-8000-0123456789ab"));
        bencher.bench(|| EventId::of_record(black_box(&origin), black_box(&record)));
    }

    #[divan::bench]
    fn of_the_position(bencher: Bencher<'_, '_>) {
        let (origin, record) = (origin(), without_id());
        bencher.bench(|| EventId::of_record(black_box(&origin), black_box(&record)));
    }
}

/// What the headers say of an event's trace, as it is asked of each event where traces are on.
mod trace {
    use weir::telemetry::traces::{Origin, TRACEPARENT, TRACESTATE};

    use super::*;

    fn read(bencher: Bencher<'_, '_>, traceparent: Option<&[u8]>) {
        let record =
            message().with_header("ce_id", b"0199c8a2-7b7e-7000-8000-0123456789ab").with_header("ce_type", b"x");
        let record = match traceparent {
            Some(value) => record.with_header(TRACEPARENT, value).with_header(TRACESTATE, b"vendor=value"),
            None => record,
        };
        bencher.counter(ItemsCount::new(1usize)).bench(|| {
            let record = black_box(&record);
            Origin::of(record.header(TRACEPARENT), || record.header(TRACESTATE))
        });
    }

    #[divan::bench]
    fn none(bencher: Bencher<'_, '_>) {
        read(bencher, None);
    }

    #[divan::bench]
    fn unsampled(bencher: Bencher<'_, '_>) {
        read(bencher, Some(b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"));
    }

    #[divan::bench]
    fn sampled(bencher: Bencher<'_, '_>) {
        read(bencher, Some(b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"));
    }
}

mod conversation {
    use super::*;

    #[divan::bench]
    fn of_two(bencher: Bencher<'_, '_>) {
        bencher.bench(|| conversation_of_two(black_box("4711"), black_box("4712")));
    }

    /// Asked for the first time.
    #[divan::bench]
    fn of_a_document(bencher: Bencher<'_, '_>) {
        let (fields, record) = (fields(), message());
        bencher
            .with_inputs(|| decoded::<Document>(&fields, record.clone()))
            .bench_refs(|event| event.payload.conversation().map(|conversation| conversation.len()));
    }
}

mod watermark {
    use super::*;

    const PARTITIONS: [i32; 3] = [8, 64, 512];

    fn owned(partitions: i32) -> Watermarks {
        let watermarks = Watermarks::default();
        for partition in 0..partitions {
            watermarks.own("message-events", partition, 0);
        }
        watermarks
    }

    /// Once a batch.
    #[divan::bench(args = PARTITIONS)]
    fn advance(bencher: Bencher<'_, '_>, partitions: i32) {
        let watermarks = owned(partitions);
        let mut next_offset = 0;
        bencher.bench_local(|| {
            next_offset += 500;
            watermarks.advance(black_box("message-events"), black_box(partitions / 2), next_offset);
        });
    }

    /// Once a second: all that moved, as a list for the commit.
    #[divan::bench(args = PARTITIONS)]
    fn commit_all(bencher: Bencher<'_, '_>, partitions: i32) {
        let watermarks = owned(partitions);
        bencher
            .with_inputs(|| (0..partitions).for_each(|partition| watermarks.advance("message-events", partition, 500)))
            .bench_local_values(|()| watermarks.untold());
    }
}

mod metrics {
    use std::time::Duration;

    use weir::metrics::Phase;

    use super::*;

    /// Events in a batch.
    const BATCHES: [usize; 3] = [1, 100, 1_000];
    /// Topics of a pool with a topic for each conversation.
    const TOPICS: [usize; 3] = [1, 100, 2_000];

    /// All that a batch of one pipeline counts.
    #[divan::bench(args = BATCHES)]
    fn batch(bencher: Bencher<'_, '_>, events: usize) {
        let metrics = Metrics::new();
        let pool = metrics.pool("storage");
        let persist = pool.pipeline("persist");
        let (took, count) = (Duration::from_micros(1_234), events as u64);
        bencher.counter(ItemsCount::new(events)).bench_local(|| {
            pool.topic("message-events").consumed.inc_by(count);
            for phase in [Phase::Queue, Phase::Wait, Phase::Poll, Phase::Decode, Phase::Dedupe] {
                pool.spent(phase, black_box(took));
            }
            pool.lookups().miss.inc_by(count);
            for phase in [Phase::Prepare, Phase::Apply, Phase::Commit] {
                pool.spent(phase, black_box(took));
            }
            pool.applied_in(took);
            persist.prepare_seconds.observe(took.as_secs_f64());
            pool.batch(events);
            pool.tombstones(0);
            pool.unknown_types(0);
            pool.settled_after((0..events).map(|at| black_box(at) as f64 / 1_000.0));
            for outcome in [&persist.applied, &persist.duplicate, &persist.filtered, &persist.dead] {
                outcome.inc_by(black_box(count));
            }
        });
    }

    /// What a scrape is answered with, of a pool with so many topics.
    #[divan::bench(args = TOPICS)]
    fn scrape(bencher: Bencher<'_, '_>, topics: usize) {
        let metrics = Metrics::new();
        let pool = metrics.pool("storage");
        for at in 0..topics {
            let topic = pool.topic(&format!("chat.conversation-{at}"));
            topic.consumed.inc();
            topic.set_lag(Some(7), Some(0.5));
            topic.set_retention_left(Some(90.5));
        }
        bencher.bench_local(|| metrics.render().len());
    }
}

mod when {
    use super::*;

    /// Whatever the condition asks for was picked as the event was decoded.
    #[divan::bench(args = [
        "event.type == 'new_message'",
        "event.type in ['new_group', 'new_message', 'user_login']",
        "event.payload.message.message_type == 1",
        "event.payload.message.content.contains('nothing of the kind')",
        "lookup('users', event.user).country == 'NO'",
        "event.type == 'new_message' && has(event.payload.message.group_id)",
    ])]
    fn ask(bencher: Bencher<'_, '_>, condition: &str) {
        let mut fields = fields();
        let rule = Rule::compile(condition, &mut fields, &users()).expect("a condition");
        let event = decoded::<Document>(&fields, message());
        bencher.counter(ItemsCount::new(1usize)).bench(|| black_box(&rule).ask(black_box(&event)));
    }

    /// 10,000 users, of whom the message's sender is one.
    fn users() -> Lookups {
        let rows = (0..10_000).map(|id| format!("{id},{}\n", if id % 2 == 0 { "NO" } else { "SE" }));
        let file = std::env::temp_dir().join(format!("weir-micro-{}.csv", Uuid::new_v4()));
        std::fs::write(&file, format!("id,country\n{}", rows.collect::<String>())).expect("a file");
        let users = config::Lookup { file: Some(file.clone()), ..config::Lookup::default() };
        let lookups = Lookups::from_files(&[("users".to_owned(), users)].into()).expect("a table");
        std::fs::remove_file(file).expect("the file");
        lookups
    }
}

mod moderation {
    use super::*;

    const MESSAGES: usize = 500;
    const WORDS: u64 = 10_000;
    const PATTERNS: u64 = 100;

    /// Words of four to ten letters, the same each time.
    fn word(rng: &mut fastrand::Rng) -> String {
        (0..rng.usize(4..=10)).map(|_| rng.lowercase()).collect()
    }

    /// Chat messages of some words each: one in fifty has a listed word, one in ten has letters beyond ASCII.
    fn messages(fields: &Fields, banned: &[String], rng: &mut fastrand::Rng) -> Vec<Event<Document>> {
        let usual = "so when are you coming over tonight I thought that we could eat something and then watch it together \
                     if you like or go out the weather is fine let me know yes no maybe later ok see you haha";
        let usual: Vec<&str> = usual.split(' ').collect();
        let content = |n: usize, rng: &mut fastrand::Rng| {
            let mut words: Vec<&str> = (0..rng.usize(4..30)).map(|_| usual[rng.usize(..usual.len())]).collect();
            if n.is_multiple_of(50) {
                words.push(&banned[rng.usize(..banned.len())]);
            }
            if n.is_multiple_of(10) {
                words.push("så fint været på fjellet");
            }
            words.join(" ")
        };
        let event = |n: usize| {
            let content = content(n, rng);
            let json = format!(
                r#"{{"type":"new_message","message":{{"message_id":"{n}","from":1,"to":2,"content":"{content}","message_type":1,"timestamp":5}}}}"#
            );
            decoded(fields, Record::new(0, json))
        };
        (0..MESSAGES).map(event).collect()
    }

    /// The lists' part of `moderate`, as a pool does it: 10,000 words, 100 patterns, 500 messages a batch.
    #[divan::bench]
    fn lists(bencher: Bencher<'_, '_>) {
        let mut rng = fastrand::Rng::with_seed(7);
        let banned: Vec<String> = (0..WORDS).map(|_| word(&mut rng)).collect();
        let patterns: Vec<String> = (0..PATTERNS)
            .map(|n| match n % 4 {
                0 => format!("https?://\\S*{}\\.(com|net|example)", word(&mut rng)),
                1 => format!("\\b{}\\s+{}\\b", word(&mut rng), word(&mut rng)),
                2 => format!("(\\d{{4}}[ -]?){{3}}{n:04}"),
                _ => format!("{}+[!1i]+{}", word(&mut rng), word(&mut rng)),
            })
            .collect();
        let folder = std::env::temp_dir().join(format!("weir-micro-{}", Uuid::new_v4()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let write = |name: &str, lines: &[String]| {
            let file = folder.join(name);
            std::fs::write(&file, lines.join("\n")).expect("a file");
            file
        };
        let moderate = config::Moderate {
            words: vec![config::WordList { file: write("words", &banned), ..config::WordList::default() }],
            patterns: vec![config::PatternList {
                file: write("patterns", &patterns),
                ..config::PatternList::default()
            }],
            ..config::Moderate::default()
        };
        let mut fields = fields();
        let metrics = Metrics::new().pool("micro");
        let made = Moderate::local(("micro", "moderation"), &moderate, &mut fields, &Lookups::default(), &metrics);
        let made = made.unwrap_or_else(|error| panic!("{error}"));
        std::fs::remove_dir_all(folder).expect("the folder");
        let events = messages(&fields, &banned, &mut rng);
        let events: Vec<&Event<Document>> = events.iter().collect();
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        bencher
            .counter(ItemsCount::new(MESSAGES))
            .bench_local(|| runtime.block_on(made.prepare(black_box(&events))).map_or(0, |answers| answers.len()));
    }
}
