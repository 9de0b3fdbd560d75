//! Spans on their way to the receiver: a bounded queue, and one task that sends.

use std::time::Duration;

use opentelemetry::Context;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Span, SpanData, SpanExporter, SpanProcessor};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::export::Exporter;
use crate::metrics::SpanMetrics;

/// The most spans that wait. One with all its links takes about 20 KiB, one without 1 KiB.
const SPANS_MAX: usize = 4_096;
/// The most spans of one request.
const REQUEST_SPANS_MAX: usize = 512;
/// How long a request waits to be filled.
const LINGER: Duration = Duration::from_secs(1);

/// Takes the spans that end.
#[derive(Debug)]
pub(super) struct Ended {
    queue: mpsc::Sender<SpanData>,
    metrics: SpanMetrics,
}

/// The spans that have ended.
pub(super) struct Spans {
    queue: mpsc::Receiver<SpanData>,
    metrics: SpanMetrics,
}

pub(super) fn queue(metrics: SpanMetrics) -> (Ended, Spans) {
    let (sender, receiver) = mpsc::channel(SPANS_MAX);
    (Ended { queue: sender, metrics: metrics.clone() }, Spans { queue: receiver, metrics })
}

impl SpanProcessor for Ended {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        if span.span_context.is_sampled() && self.queue.try_send(span).is_err() {
            self.metrics.dropped.inc();
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

impl Spans {
    /// Sends until it is told to stop, and then what is left.
    pub(super) async fn send_all<E: SpanExporter>(mut self, exporter: Exporter<E>, stop: CancellationToken) {
        let mut is_told = false;
        loop {
            let mut request = Vec::new();
            self.fill(&mut request, &stop).await;
            if request.is_empty() {
                return;
            }
            let count = request.len() as u64;
            match exporter.spans.export(request).await {
                Ok(()) => {
                    self.metrics.exported.inc_by(count);
                    if std::mem::take(&mut is_told) {
                        tracing::info!("spans are taken again");
                    }
                }
                Err(error) => {
                    self.metrics.failed.inc_by(count);
                    if !std::mem::replace(&mut is_told, true) {
                        let (endpoint, why) = (&exporter.endpoint, exporter.why(&error));
                        tracing::warn!(endpoint, why, "spans are not taken, and left out until they are; events go on");
                    }
                }
            }
        }
    }

    /// Waits for spans and then for more of them. None: all are sent, and it was told to stop.
    async fn fill(&mut self, request: &mut Vec<SpanData>, stop: &CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            _ = self.queue.recv_many(request, REQUEST_SPANS_MAX) => {}
        }
        let linger = tokio::time::sleep(LINGER);
        tokio::pin!(linger);
        while request.len() < REQUEST_SPANS_MAX && !stop.is_cancelled() {
            let left = REQUEST_SPANS_MAX - request.len();
            tokio::select! {
                () = stop.cancelled() => {}
                () = &mut linger => return,
                taken = self.queue.recv_many(request, left) => if taken == 0 { return },
            }
        }
        while request.len() < REQUEST_SPANS_MAX
            && let Ok(span) = self.queue.try_recv()
        {
            request.push(span);
        }
    }
}

/// Hands spans to a test.
#[cfg(test)]
#[derive(Debug)]
pub(super) struct Caught(pub(super) mpsc::UnboundedSender<SpanData>);

#[cfg(test)]
impl SpanProcessor for Caught {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        // A test that has ended wants no more.
        self.0.send(span).ok();
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use opentelemetry_sdk::error::OTelSdkError;
    use tokio::sync::Semaphore;

    use super::*;
    use crate::config;
    use crate::metrics::Metrics;
    use crate::telemetry::traces::{Origin, Tracer};

    /// A receiver that takes requests as it is permitted to.
    #[derive(Debug, Clone)]
    struct Receiver {
        requests: Arc<Mutex<Vec<usize>>>,
        permits: Arc<Semaphore>,
        refuses: Arc<Mutex<bool>>,
    }

    impl SpanExporter for Receiver {
        async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
            self.permits.acquire().await.unwrap().forget();
            if *self.refuses.lock().unwrap() {
                return Err(OTelSdkError::InternalFailure("refused".to_owned()));
            }
            self.requests.lock().unwrap().push(batch.len());
            Ok(())
        }
    }

    struct Setting {
        receiver: Receiver,
        tracer: Tracer,
        metrics: Metrics,
        stop: CancellationToken,
        sending: tokio::task::JoinHandle<()>,
    }

    fn setting(permits: usize) -> Setting {
        let receiver =
            Receiver { requests: Arc::default(), permits: Arc::new(Semaphore::new(permits)), refuses: Arc::default() };
        let metrics = Metrics::new();
        let (ended, spans) = queue(metrics.spans());
        let stop = CancellationToken::new();
        let exporter = Exporter::over(receiver.clone(), "http://receiver");
        let sending = tokio::spawn(spans.send_all(exporter, stop.clone()));
        let config = config::Traces { sample_ratio: 1.0, ..config::Traces::default() };
        Setting { receiver, tracer: Tracer::over(&config, ended), metrics, stop, sending }
    }

    impl Setting {
        fn spans(&self, count: usize) {
            for _ in 0..count {
                self.tracer.sending("t", || Origin::None).unwrap().stored(0, 0);
            }
        }

        fn counted(&self) -> [u64; 3] {
            let spans = self.metrics.spans();
            [spans.exported.get(), spans.failed.get(), spans.dropped.get()]
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_left_is_sent_at_the_end_in_requests_of_a_bound() {
        let setting = setting(10);
        setting.spans(REQUEST_SPANS_MAX + 3);
        setting.stop.cancel();
        setting.sending.await.unwrap();
        assert_eq!(*setting.receiver.requests.lock().unwrap(), [REQUEST_SPANS_MAX, 3]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_receiver_that_is_late_makes_nobody_wait_and_what_does_not_fit_is_counted() {
        let setting = setting(0);
        setting.spans(1);
        tokio::time::sleep(2 * LINGER).await;
        setting.spans(SPANS_MAX + 7);
        assert_eq!(setting.counted(), [0, 0, 7]);
        setting.receiver.permits.add_permits(100);
        setting.stop.cancel();
        let Setting { ref metrics, .. } = setting;
        let metrics = metrics.spans();
        setting.sending.await.unwrap();
        assert_eq!(metrics.exported.get(), SPANS_MAX as u64 + 1);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_refused_is_counted_and_later_spans_are_sent() {
        let setting = setting(100);
        *setting.receiver.refuses.lock().unwrap() = true;
        setting.spans(2);
        tokio::time::sleep(2 * LINGER).await;
        assert_eq!(setting.counted(), [0, 2, 0]);
        *setting.receiver.refuses.lock().unwrap() = false;
        setting.spans(3);
        tokio::time::sleep(2 * LINGER).await;
        assert_eq!(setting.counted(), [3, 2, 0]);
    }
}
