//! What is noted of a batch that has traced events, and the spans that it becomes at its end.
//!
//! `process TOPIC` with `prepare PIPELINE`, `apply PIPELINE` and `commit TOPIC` below it: once a batch, with links to its
//! events' contexts; or, where the relation is `parent`, for each traced event below its own context. Spans are made when
//! the batch is done with, so a batch costs nothing more while it is handled, and nothing is left open.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use opentelemetry::trace::{
    Event, Link, Span as _, SpanBuilder, SpanContext, SpanKind, Status, TraceContextExt as _, Tracer as _,
};
use opentelemetry::{Context, KeyValue, StringValue};

use super::{OfPool, Origin, PoolTracer};
use crate::config::Relation;

/// The most events of a batch that are linked or have spans of their own.
const TRACED_MAX: usize = 128;
/// The most rejected events that a batch's spans tell of.
const REJECTED_MAX: usize = 128;
/// The most steps that are kept, the latest ones: whatever is tried again for hours.
const STEPS_MAX: usize = 256;
/// What is wrong with a batch that was not settled: it was taken apart, or its partition given up.
const ABANDONED: &str = "abandoned";

/// The records of a batch that is to be traced.
pub(crate) struct Messages<'a> {
    pub(crate) topic: &'a Arc<str>,
    pub(crate) partition: i32,
    pub(crate) first_offset: i64,
    pub(crate) count: usize,
}

/// Notes what happens to a batch; nothing where no event of it is traced.
#[derive(Debug, Default)]
pub(crate) struct BatchTrace(Option<Box<Noted>>);

#[derive(Debug)]
struct Noted {
    of: Arc<OfPool>,
    topic: Arc<str>,
    partition: i32,
    first_offset: i64,
    count: usize,
    is_replay: bool,
    begun: SystemTime,
    /// The contexts of traced events, with their offsets.
    traced: Vec<(SpanContext, i64)>,
    rejected: Vec<Rejected>,
    steps: Mutex<VecDeque<Step>>,
}

#[derive(Debug)]
struct Rejected {
    offset: i64,
    pipeline: StringValue,
    reason: &'static str,
}

#[derive(Debug)]
struct Step {
    kind: Kind,
    begun: SystemTime,
    ended: SystemTime,
    error: Option<&'static str>,
}

#[derive(Debug)]
enum Kind {
    Prepare(Arc<str>),
    Apply(Arc<str>),
    Commit,
}

impl PoolTracer {
    /// Begins to note a batch if one of its events is traced, or if none has a trace and one begins by the ratio.
    pub(crate) fn batch(&self, messages: Messages<'_>, origins: impl Iterator<Item = (Origin, i64)>) -> BatchTrace {
        BatchTrace(self.0.as_ref().and_then(|of| Noted::begin(of, messages, origins)).map(Box::new))
    }

    /// Whether anything is traced at all.
    pub(crate) fn is_on(&self) -> bool {
        self.0.is_some()
    }
}

impl BatchTrace {
    /// The time at which a step begins, where it is noted.
    pub(crate) fn clock(&self) -> Option<SystemTime> {
        self.0.is_some().then(SystemTime::now)
    }

    /// A pipeline has prepared; with a fault, it has not.
    pub(crate) fn prepared(&self, begun: Option<SystemTime>, pipeline: &Arc<str>, error: Option<&'static str>) {
        self.note(begun, error, || Kind::Prepare(Arc::clone(pipeline)));
    }

    /// A pipeline has applied.
    pub(crate) fn applied(&self, begun: Option<SystemTime>, pipeline: &Arc<str>, error: Option<&'static str>) {
        self.note(begun, error, || Kind::Apply(Arc::clone(pipeline)));
    }

    /// The transaction is committed.
    pub(crate) fn committed(&self, begun: Option<SystemTime>, error: Option<&'static str>) {
        self.note(begun, error, || Kind::Commit);
    }

    fn note(&self, begun: Option<SystemTime>, error: Option<&'static str>, kind: impl FnOnce() -> Kind) {
        let (Some(noted), Some(begun)) = (&self.0, begun) else { return };
        let mut steps = noted.steps.lock().unwrap_or_else(PoisonError::into_inner);
        if steps.len() >= STEPS_MAX {
            steps.pop_front();
        }
        steps.push_back(Step { kind: kind(), begun, ended: SystemTime::now(), error });
    }

    /// It is a dead row that is tried again.
    pub(crate) fn is_replay(&mut self) {
        if let Some(noted) = &mut self.0 {
            noted.is_replay = true;
        }
    }

    /// The batch is settled. What was rejected, by offset, pipeline and reason, is asked for only where it is told.
    pub(crate) fn settled<'a>(&mut self, rejected: impl Iterator<Item = (i64, &'a str, &'static str)>) {
        let Some(mut noted) = self.0.take() else { return };
        let rejected = rejected.take(REJECTED_MAX);
        noted.rejected = rejected
            .map(|(offset, pipeline, reason)| Rejected { offset, pipeline: pipeline.to_owned().into(), reason })
            .collect();
        noted.tell(None);
    }
}

impl Drop for BatchTrace {
    fn drop(&mut self) {
        // One that was only decoded, and cut into smaller ones, was never in hand.
        if let Some(mut noted) = self.0.take()
            && !noted.steps.get_mut().unwrap_or_else(PoisonError::into_inner).is_empty()
        {
            noted.tell(Some(ABANDONED));
        }
    }
}

impl Noted {
    fn begin(of: &Arc<OfPool>, messages: Messages<'_>, origins: impl Iterator<Item = (Origin, i64)>) -> Option<Self> {
        let (mut traced, mut is_decided) = (Vec::new(), false);
        for (origin, offset) in origins {
            is_decided |= origin != Origin::None;
            if let Origin::Sampled(context) = origin {
                traced.push((context, offset));
                if traced.len() == TRACED_MAX {
                    break;
                }
            }
        }
        if traced.is_empty() && (is_decided || !of.live.begins_one()) {
            return None;
        }
        let Messages { topic, partition, first_offset, count } = messages;
        Some(Self {
            of: Arc::clone(of),
            topic: Arc::clone(topic),
            partition,
            first_offset,
            count,
            is_replay: false,
            begun: SystemTime::now(),
            traced,
            rejected: Vec::new(),
            steps: Mutex::default(),
        })
    }

    fn tell(mut self, error: Option<&'static str>) {
        let ended = SystemTime::now();
        let steps = std::mem::take(self.steps.get_mut().unwrap_or_else(PoisonError::into_inner));
        if self.of.live.relation == Relation::Link || self.traced.is_empty() {
            return self.tell_batch(&steps, error, ended);
        }
        for (context, offset) in &self.traced {
            let rejected = self.rejected.iter().find(|rejected| rejected.offset == *offset);
            let mut attributes = self.attributes();
            attributes.push(KeyValue::new("messaging.kafka.offset", *offset));
            if let Some(rejected) = rejected {
                attributes.push(KeyValue::new("weir.pipeline", rejected.pipeline.clone()));
            }
            let process = self.process().with_attributes(attributes);
            let parent = Context::new().with_remote_span_context(context.clone());
            self.tell_process(process, &parent, &steps, error.or(rejected.map(|rejected| rejected.reason)), ended);
        }
    }

    /// One trace of the whole batch.
    fn tell_batch(&mut self, steps: &VecDeque<Step>, error: Option<&'static str>, ended: SystemTime) {
        let mut attributes = self.attributes();
        attributes.push(KeyValue::new("messaging.batch.message_count", as_i64(self.count)));
        attributes.push(KeyValue::new("weir.first_offset", self.first_offset));
        let links = std::mem::take(&mut self.traced)
            .into_iter()
            .map(|(context, offset)| Link::new(context, vec![KeyValue::new("messaging.kafka.offset", offset)], 0));
        let links = links.collect();
        let rejected = self.rejected.drain(..).map(|rejected| {
            let attributes = vec![
                KeyValue::new("messaging.kafka.offset", rejected.offset),
                KeyValue::new("weir.pipeline", rejected.pipeline),
                KeyValue::new("error.type", rejected.reason),
            ];
            Event::new("event rejected", ended, attributes, 0)
        });
        let events = rejected.collect();
        let process = self.process().with_attributes(attributes).with_links(links).with_events(events);
        self.tell_process(process, &Context::new(), steps, error, ended);
    }

    fn process(&self) -> SpanBuilder {
        SpanBuilder::from_name(format!("process {}", self.topic))
            .with_kind(SpanKind::Consumer)
            .with_start_time(self.begun)
    }

    fn attributes(&self) -> Vec<KeyValue> {
        let mut attributes = self.operation("process", "process");
        attributes.push(KeyValue::new("messaging.consumer.group.name", Arc::clone(&self.of.group)));
        attributes.push(KeyValue::new("weir.pool", Arc::clone(&self.of.pool)));
        if self.is_replay {
            attributes.push(KeyValue::new("weir.replay", true));
        }
        attributes
    }

    /// What all spans of a topic's operations have.
    fn operation(&self, name: &'static str, kind: &'static str) -> Vec<KeyValue> {
        vec![
            KeyValue::new("messaging.system", "kafka"),
            KeyValue::new("messaging.operation.name", name),
            KeyValue::new("messaging.operation.type", kind),
            KeyValue::new("messaging.destination.name", Arc::clone(&self.topic)),
            KeyValue::new("messaging.destination.partition.id", self.partition.to_string()),
        ]
    }

    fn tell_process(
        &self,
        process: SpanBuilder,
        parent: &Context,
        steps: &VecDeque<Step>,
        error: Option<&'static str>,
        ended: SystemTime,
    ) {
        let mut process = self.of.live.spans.build_with_context(process, parent);
        fail(&mut process, error);
        let below = Context::new().with_remote_span_context(process.span_context().clone());
        for step in steps {
            let mut span = self.of.live.spans.build_with_context(self.step(step), &below);
            fail(&mut span, step.error);
            span.end_with_timestamp(step.ended);
        }
        process.end_with_timestamp(ended);
    }

    fn step(&self, step: &Step) -> SpanBuilder {
        let of_pipeline = |what: &str, pipeline: &Arc<str>| {
            SpanBuilder::from_name(format!("{what} {pipeline}"))
                .with_kind(SpanKind::Internal)
                .with_attributes([KeyValue::new("weir.pipeline", Arc::clone(pipeline))])
        };
        let builder = match &step.kind {
            Kind::Prepare(pipeline) => of_pipeline("prepare", pipeline),
            Kind::Apply(pipeline) => of_pipeline("apply", pipeline),
            Kind::Commit => SpanBuilder::from_name(format!("commit {}", self.topic))
                .with_kind(SpanKind::Client)
                .with_attributes(self.operation("commit", "settle")),
        };
        builder.with_start_time(step.begun)
    }
}

fn fail(span: &mut opentelemetry_sdk::trace::Span, error: Option<&'static str>) {
    if let Some(error) = error {
        span.set_status(Status::error(error));
        span.set_attribute(KeyValue::new("error.type", error));
    }
}

fn as_i64(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use opentelemetry_sdk::trace::SpanData;
    use tokio::sync::mpsc;

    use super::*;
    use crate::config;
    use crate::telemetry::traces::{Tracer, queue};

    /// A pool's tracer with this ratio, and the spans that it makes.
    fn tracer(sample_ratio: f64, relation: Relation) -> (PoolTracer, mpsc::UnboundedReceiver<SpanData>) {
        let (ended, spans) = mpsc::unbounded_channel();
        let config = config::Traces { sample_ratio, relation, ..config::Traces::default() };
        let tracer = Tracer::over(&config, queue::Caught(ended));
        (tracer.of_pool(&Arc::from("group"), &Arc::from("pool")), spans)
    }

    fn caught(spans: &mut mpsc::UnboundedReceiver<SpanData>) -> Vec<SpanData> {
        std::iter::from_fn(|| spans.try_recv().ok()).collect()
    }

    fn origin(number: u64, flags: &str) -> Origin {
        let header = format!("00-{:032x}-{number:016x}-{flags}", u128::from(number));
        Origin::of(Some(header.as_bytes()), || None)
    }

    fn batch(tracer: &PoolTracer, origins: Vec<Origin>) -> BatchTrace {
        let topic = Arc::from("t");
        let messages = Messages { topic: &topic, partition: 3, first_offset: 10, count: origins.len() };
        tracer.batch(messages, origins.into_iter().zip(10..))
    }

    fn settle(trace: &mut BatchTrace) {
        let pipeline = Arc::from("persist");
        trace.prepared(trace.clock(), &pipeline, None);
        trace.applied(trace.clock(), &pipeline, None);
        trace.committed(trace.clock(), None);
        trace.settled(std::iter::empty());
    }

    #[test]
    fn a_batch_is_traced_for_its_sampled_events_or_by_the_ratio_where_none_has_a_trace() {
        for (ratio, origins, expected) in [
            (0.0, vec![Origin::None], false),
            (1.0, vec![Origin::None], true),
            (1.0, vec![Origin::None, origin(1, "00")], false),
            (0.0, vec![origin(1, "00"), origin(2, "01")], true),
        ] {
            let (tracer, mut spans) = tracer(ratio, Relation::Link);
            settle(&mut batch(&tracer, origins.clone()));
            assert_eq!(!caught(&mut spans).is_empty(), expected, "{ratio} {origins:?}");
        }
    }

    #[test]
    fn links_have_a_bound_and_so_have_events_with_spans_of_their_own() {
        let many: Vec<Origin> = (1..=300).map(|number| origin(number, "01")).collect();
        let (link, mut spans) = tracer(0.0, Relation::Link);
        settle(&mut batch(&link, many.clone()));
        let linked = caught(&mut spans);
        let process = linked.iter().find(|span| span.name == "process t").unwrap();
        assert_eq!((linked.len(), process.links.len()), (4, TRACED_MAX));
        assert!(process.attributes.contains(&KeyValue::new("messaging.batch.message_count", 300)));
        let (parent, mut spans) = tracer(0.0, Relation::Parent);
        settle(&mut batch(&parent, many));
        assert_eq!(caught(&mut spans).len(), 4 * TRACED_MAX);
    }

    #[test]
    fn a_rejected_event_is_told_of_and_its_neighbour_is_well() {
        for relation in [Relation::Link, Relation::Parent] {
            let (tracer, mut spans) = tracer(0.0, relation);
            let mut trace = batch(&tracer, vec![origin(1, "01"), origin(2, "01")]);
            trace.settled([(11, "persist", "refused")].into_iter());
            let spans = caught(&mut spans);
            let error = KeyValue::new("error.type", "refused");
            if relation == Relation::Link {
                let told = &spans[0].events[0].attributes;
                assert!(told.contains(&error) && told.contains(&KeyValue::new("messaging.kafka.offset", 11)));
                assert_eq!((spans.len(), &spans[0].status), (1, &Status::Unset));
            } else {
                let failed: Vec<bool> = spans.iter().map(|span| span.attributes.contains(&error)).collect();
                assert_eq!(failed, [false, true]);
            }
        }
    }

    #[test]
    fn a_batch_that_was_begun_and_not_settled_says_so_and_one_that_was_only_decoded_says_nothing() {
        let (tracer, mut spans) = tracer(0.0, Relation::Link);
        drop(batch(&tracer, vec![origin(1, "01")]));
        assert!(caught(&mut spans).is_empty());
        let trace = batch(&tracer, vec![origin(1, "01")]);
        trace.applied(trace.clock(), &Arc::from("persist"), Some("outage"));
        drop(trace);
        let spans = caught(&mut spans);
        let of = |name: &str| spans.iter().find(|span| span.name == name).unwrap();
        assert!(of("process t").attributes.contains(&KeyValue::new("error.type", ABANDONED)));
        assert!(of("apply persist").attributes.contains(&KeyValue::new("error.type", "outage")));
    }

    #[test]
    fn of_endless_attempts_the_latest_are_kept() {
        let (tracer, mut spans) = tracer(0.0, Relation::Link);
        let mut trace = batch(&tracer, vec![origin(1, "01")]);
        for _ in 0..2 * STEPS_MAX {
            trace.applied(trace.clock(), &Arc::from("persist"), Some("outage"));
        }
        settle(&mut trace);
        let spans = caught(&mut spans);
        assert_eq!(spans.len(), STEPS_MAX + 1);
        assert!(spans.iter().any(|span| span.name == "commit t"));
    }
}
