//! The span of sending one event.

use opentelemetry::trace::{Span as _, SpanBuilder, SpanContext, SpanKind, Status, TraceContextExt as _, Tracer as _};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::Span;

use super::{Headers, Live};

/// What is wrong with an event whose sending nobody saw the end of.
const UNANSWERED: &str = "unanswered";

/// An event on its way to Kafka. Dropped without an answer, it counts as failed.
pub(crate) struct Sending {
    span: Option<Span>,
}

impl Sending {
    pub(super) fn begin(live: &Live, topic: &str, parent: Option<SpanContext>) -> Box<Self> {
        let parent = parent.map_or_else(Context::new, |parent| Context::new().with_remote_span_context(parent));
        let builder = SpanBuilder::from_name(format!("send {topic}")).with_kind(SpanKind::Producer).with_attributes([
            KeyValue::new("messaging.system", "kafka"),
            KeyValue::new("messaging.operation.name", "send"),
            KeyValue::new("messaging.operation.type", "send"),
            KeyValue::new("messaging.destination.name", topic.to_owned()),
        ]);
        Box::new(Self { span: Some(live.spans.build_with_context(builder, &parent)) })
    }

    /// What tells whoever consumes the event of this span.
    pub(crate) fn headers(&self) -> Option<Headers> {
        self.span.as_ref().map(|span| Headers::of(span.span_context()))
    }

    /// The broker has it.
    pub(crate) fn stored(mut self: Box<Self>, partition: i32, offset: i64) {
        if let Some(mut span) = self.span.take() {
            span.set_attribute(KeyValue::new("messaging.destination.partition.id", partition.to_string()));
            span.set_attribute(KeyValue::new("messaging.kafka.offset", offset));
            span.end();
        }
    }

    /// It was refused or given up.
    pub(crate) fn failed(mut self: Box<Self>, error: String) {
        self.fail(error);
    }

    fn fail(&mut self, error: String) {
        if let Some(mut span) = self.span.take() {
            span.set_status(Status::error(error.clone()));
            span.set_attribute(KeyValue::new("error.type", error));
            span.end();
        }
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        if self.span.is_some() {
            self.fail(UNANSWERED.to_owned());
        }
    }
}
