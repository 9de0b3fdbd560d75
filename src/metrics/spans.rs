//! What became of the spans of traces.

use prometheus::{IntCounter, IntCounterVec};

use super::family::families;

families! {
    /// Spans of traces, by result: exported, failed (the receiver did not take them) or dropped (too many waited).
    spans: IntCounterVec = "weir_spans_total" ["result"];
}

/// The spans of a process. Clones count in the same series.
#[derive(Debug, Clone)]
pub struct SpanMetrics {
    /// The receiver has them.
    pub exported: IntCounter,
    /// The receiver did not take them.
    pub failed: IntCounter,
    /// Too many waited.
    pub dropped: IntCounter,
}

impl SpanMetrics {
    pub(super) fn new(families: &Families) -> Self {
        let of = |result: &str| families.spans.with_label_values(&[result]);
        Self { exported: of("exported"), failed: of("failed"), dropped: of("dropped") }
    }
}
