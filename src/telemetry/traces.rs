//! Traces by OpenTelemetry: from whoever published an event, by its headers, through its batch to the mirror of dead
//! rows. Sent by OTLP over HTTP.
//!
//! Promised: without an endpoint nothing is looked at and nothing allocated; with one, an event that is not sampled costs
//! a look at its headers. Spans wait in a bounded queue and are left out, counted, where it is full or the receiver does
//! not take them: nothing waits for them but the end of the process, for 2 s at most.

mod batch;
mod context;
mod export;
mod queue;
mod send;

pub(crate) use batch::{BatchTrace, Messages};
pub(crate) use context::Headers;
pub use context::{Origin, TRACEPARENT, TRACESTATE};
pub(crate) use send::Sending;

use std::sync::Arc;
use std::time::Duration;

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::trace::{
    IdGenerator as _, RandomIdGenerator, Sampler, SdkTracer, SdkTracerProvider, SpanProcessor,
};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::config;
use crate::metrics::Metrics;

/// How long the last spans may take at the end of the process.
const FLUSH_DEADLINE: Duration = Duration::from_secs(2);
/// The name of who makes the spans.
const SCOPE: &str = "weir";

/// Traces that cannot be set up.
#[derive(Debug, thiserror::Error)]
#[error("`traces`: {0}")]
pub struct Error(String);

/// The traces of a process: what makes spans, and what sends them.
#[derive(Debug, Default)]
pub struct Traces {
    tracer: Tracer,
    sending: Option<(CancellationToken, AbortOnDropHandle<()>)>,
}

impl Traces {
    /// Begins to send spans, if there is an endpoint. Must be called in a runtime.
    ///
    /// # Errors
    /// The exporter cannot be set up: its settings, or the variables `OTEL_…`, are wrong, or no certificates are found.
    pub fn start(config: &config::Traces, metrics: &Metrics) -> Result<Self, Error> {
        let Some(endpoint) = &config.endpoint else { return Ok(Self::default()) };
        let exporter = export::exporter(config, endpoint).map_err(Error)?;
        let (processor, spans) = queue::queue(metrics.spans());
        let stop = CancellationToken::new();
        let sending = AbortOnDropHandle::new(tokio::spawn(spans.send_all(exporter, stop.clone())));
        Ok(Self { tracer: Tracer::over(config, processor), sending: Some((stop, sending)) })
    }

    /// What makes spans, for pools and publishers.
    #[must_use]
    pub fn tracer(&self) -> Tracer {
        self.tracer.clone()
    }

    /// Sends what is left, for 2 s at most.
    pub async fn stop(self) {
        if let Some((stop, sending)) = self.sending {
            stop.cancel();
            if tokio::time::timeout(FLUSH_DEADLINE, sending).await.is_err() {
                tracing::warn!("the last spans were not taken in time and are lost");
            }
        }
    }
}

/// Makes spans, or none at all. Clones are one.
#[derive(Debug, Clone, Default)]
pub struct Tracer(Option<Arc<Live>>);

#[derive(Debug)]
struct Live {
    spans: SdkTracer,
    ids: RandomIdGenerator,
    sample_ratio: f64,
    relation: config::Relation,
}

impl Tracer {
    fn over(config: &config::Traces, processor: impl SpanProcessor + 'static) -> Self {
        // Whether a trace begins is decided before there is a span, so that one that does not begin costs none.
        let provider = SdkTracerProvider::builder()
            .with_sampler(Sampler::ParentBased(Box::new(Sampler::AlwaysOn)))
            .with_span_processor(processor)
            .build();
        let (spans, ids) = (provider.tracer(SCOPE), RandomIdGenerator::default());
        Self(Some(Arc::new(Live { spans, ids, sample_ratio: config.sample_ratio, relation: config.relation })))
    }

    /// The tracer of a pool's batches.
    pub(crate) fn of_pool(&self, group: &Arc<str>, pool: &Arc<str>) -> PoolTracer {
        let of = |live: &Arc<Live>| {
            Arc::new(OfPool { live: Arc::clone(live), group: Arc::clone(group), pool: Arc::clone(pool) })
        };
        PoolTracer(self.0.as_ref().map(of))
    }

    /// A span of sending an event: where its trace goes on, or one begins by the ratio.
    pub(crate) fn sending(&self, topic: &str, origin: impl FnOnce() -> Origin) -> Option<Box<Sending>> {
        let live = self.0.as_deref()?;
        match origin() {
            Origin::Sampled(context) => Some(Sending::begin(live, topic, Some(context))),
            Origin::Unsampled => None,
            Origin::None => live.begins_one().then(|| Sending::begin(live, topic, None)),
        }
    }
}

impl Live {
    /// Whether a trace begins where none is.
    fn begins_one(&self) -> bool {
        if self.sample_ratio >= 1.0 {
            return true;
        }
        if self.sample_ratio <= 0.0 {
            return false;
        }
        let bytes = self.ids.new_span_id().to_bytes();
        #[expect(clippy::cast_precision_loss, reason = "the lowest bits of a random number decide nothing")]
        let drawn = u64::from_be_bytes(bytes) as f64 / u64::MAX as f64;
        drawn < self.sample_ratio
    }
}

/// What a pool's batches are traced with; nothing by default.
#[derive(Debug, Clone, Default)]
pub(crate) struct PoolTracer(Option<Arc<OfPool>>);

#[derive(Debug)]
struct OfPool {
    live: Arc<Live>,
    group: Arc<str>,
    pool: Arc<str>,
}

impl PoolTracer {
    /// The mirror's span of a dead row whose event has a trace; none begins here.
    pub(crate) fn mirroring(&self, topic: &str, origin: Origin) -> Option<Box<Sending>> {
        let of = self.0.as_deref()?;
        let Origin::Sampled(context) = origin else { return None };
        Some(Sending::begin(&of.live, topic, Some(context)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tracer(sample_ratio: f64) -> Tracer {
        let config = config::Traces { sample_ratio, ..config::Traces::default() };
        Tracer::over(&config, queue::Caught(tokio::sync::mpsc::unbounded_channel().0))
    }

    fn begun_of_a_thousand(sample_ratio: f64) -> usize {
        let tracer = tracer(sample_ratio);
        (0..1_000).filter(|_| tracer.sending("t", || Origin::None).is_some()).count()
    }

    #[test]
    fn so_many_traces_begin_as_the_ratio_says() {
        assert_eq!((begun_of_a_thousand(0.0), begun_of_a_thousand(1.0)), (0, 1_000));
        let begun = begun_of_a_thousand(0.3);
        assert!((200..400).contains(&begun), "{begun}");
    }

    #[test]
    fn what_others_decided_is_followed_whatever_the_ratio() {
        let context = |flags: &str| {
            let text = format!("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-{flags}");
            Origin::of(Some(text.as_bytes()), || None)
        };
        let begins = |sample_ratio, flags| tracer(sample_ratio).sending("t", || context(flags)).is_some();
        assert!(begins(0.0, "01"));
        assert!(!begins(1.0, "00"));
    }

    #[test]
    fn without_an_endpoint_the_origin_is_not_even_asked_for() {
        let asked = Tracer::default().sending("t", || panic!("an event's headers were read"));
        assert!(asked.is_none());
    }
}
