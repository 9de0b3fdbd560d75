//! What pipelines that moderate count.

use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, IntGaugeVec};

use super::PoolMetrics;
use super::family::families;
use super::pool::count;

families! {
    /// Verdicts that a pipeline reached, by outcome: allow, flag or hide; those of repeated attempts included.
    verdicts: IntCounterVec = "weir_verdicts_total" ["pool", "pipeline", "outcome"];
    /// Requests to a classifier, by outcome: ok, error, timeout, or skipped (not sent: it is left alone).
    requests: IntCounterVec = "weir_classifier_requests_total" ["pool", "pipeline", "outcome"];
    /// Time a classifier took to answer a request, or not to.
    request_seconds: HistogramVec = "weir_classifier_duration_seconds" ["pool", "pipeline"] WORK_BUCKETS;
    /// Verdicts of which no status event was sent yet.
    status_unpublished: IntGaugeVec = "weir_status_unpublished" ["pool"];
}

/// The outcomes, from the mildest to the gravest.
const OUTCOMES: [&str; 3] = ["allow", "flag", "hide"];

/// A moderating pipeline's verdicts.
#[derive(Clone, Debug)]
pub struct ModerationMetrics([IntCounter; OUTCOMES.len()]);

impl ModerationMetrics {
    /// A verdict was reached: 0 allow, 1 flag, 2 hide.
    pub fn judged(&self, gravity: usize) {
        self.0[gravity.min(OUTCOMES.len() - 1)].inc();
    }
}

/// A moderating pipeline's requests to its classifier.
#[derive(Clone, Debug)]
pub struct ClassifierMetrics {
    /// Answered.
    pub ok: IntCounter,
    /// Refused, or answered with something else.
    pub error: IntCounter,
    /// Not answered in time.
    pub timeout: IntCounter,
    /// Not sent.
    pub skipped: IntCounter,
    /// Of those that were sent.
    pub duration: Histogram,
}

impl PoolMetrics {
    /// The verdicts of one of the pool's pipelines: ask once, keep it.
    #[must_use]
    pub fn moderation(&self, pipeline: &str) -> ModerationMetrics {
        let verdicts = &self.families().moderation.verdicts;
        ModerationMetrics(OUTCOMES.map(|outcome| verdicts.with_label_values(&[self.name(), pipeline, outcome])))
    }

    /// The classifier's requests of one of the pool's pipelines: ask once, keep it.
    #[must_use]
    pub fn classifier(&self, pipeline: &str) -> ClassifierMetrics {
        let families = &self.families().moderation;
        let requests = |outcome| families.requests.with_label_values(&[self.name(), pipeline, outcome]);
        ClassifierMetrics {
            ok: requests("ok"),
            error: requests("error"),
            timeout: requests("timeout"),
            skipped: requests("skipped"),
            duration: families.request_seconds.with_label_values(&[self.name(), pipeline]),
        }
    }

    /// Verdicts of which no status event was sent yet.
    pub fn set_status_unpublished(&self, verdicts: usize) {
        self.families().moderation.status_unpublished.with_label_values(&[self.name()]).set(count(verdicts));
    }
}
