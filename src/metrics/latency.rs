//! How long events took from the time they were meant to be sent until their effect, where they say that time
//! (`weir-intended-us`): one histogram a pool, made when the first such event comes, and never set back.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Serializer as _, V2Serializer};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The longest time that is told apart from longer ones.
const LONGEST_US: u64 = 3_600_000_000;

/// An empty histogram: microseconds up to an hour, three digits.
#[must_use]
pub fn latency_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LONGEST_US, 3).expect("the bounds are constants that a unit test uses")
}

/// The histograms of all pools.
#[derive(Debug)]
pub(super) struct Latencies {
    /// Tells a process from the one that had its address before.
    instance: Uuid,
    pools: Mutex<BTreeMap<String, Latency>>,
}

/// One pool's.
#[derive(Clone, Debug, Default)]
pub(super) struct Latency(Arc<OnceLock<Mutex<Histogram<u64>>>>);

impl Latency {
    /// Adds a batch's effects at this moment: when they were meant to be sent, and now, in microseconds since 1970.
    pub(super) fn note(&self, intended_us: &[i64], now_us: i64) {
        if intended_us.is_empty() {
            return;
        }
        let mut histogram = lock(self.0.get_or_init(|| Mutex::new(latency_histogram())));
        for intended_us in intended_us {
            histogram.saturating_record(u64::try_from(now_us.saturating_sub(*intended_us)).unwrap_or(0));
        }
    }
}

/// The body of `/latency`.
#[derive(Serialize)]
struct Report {
    instance: Uuid,
    pools: BTreeMap<String, PoolReport>,
}

#[derive(Serialize)]
struct PoolReport {
    #[serde(flatten)]
    figures: Percentiles,
    /// HdrHistogram's format V2 in base64; its unit is the microsecond.
    histogram: String,
}

/// A distribution in a few figures.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Percentiles {
    /// Values; 0: the rest means nothing.
    pub count: u64,
    /// The median.
    pub p50_ms: f64,
    /// 90 % are at or below.
    pub p90_ms: f64,
    /// 99 %.
    pub p99_ms: f64,
    /// 99.9 %.
    pub p999_ms: f64,
    /// All.
    pub max_ms: f64,
}

impl Percentiles {
    /// Those of a histogram whose unit is the microsecond.
    #[expect(clippy::cast_precision_loss, reason = "microseconds of an hour are far below 2^52")]
    #[must_use]
    pub fn of(histogram: &Histogram<u64>) -> Self {
        let ms = |us: u64| us as f64 / 1_000.0;
        let at = |quantile| ms(histogram.value_at_quantile(quantile));
        Self {
            count: histogram.len(),
            p50_ms: at(0.5),
            p90_ms: at(0.9),
            p99_ms: at(0.99),
            p999_ms: at(0.999),
            max_ms: ms(histogram.max()),
        }
    }
}

impl Latencies {
    pub(super) fn new() -> Self {
        Self { instance: Uuid::new_v4(), pools: Mutex::default() }
    }

    pub(super) fn pool(&self, name: &str) -> Latency {
        lock(&self.pools).entry(name.to_owned()).or_default().clone()
    }

    /// Everything measured so far, as JSON.
    pub(super) fn render(&self) -> String {
        let pools = lock(&self.pools).clone();
        let measured = |(name, latency): (String, Latency)| {
            let histogram = lock(latency.0.get()?).clone();
            Some((name, PoolReport::of(&histogram)))
        };
        let report = Report { instance: self.instance, pools: pools.into_iter().filter_map(measured).collect() };
        serde_json::to_string(&report).expect("strings and numbers are always valid JSON")
    }
}

impl PoolReport {
    fn of(histogram: &Histogram<u64>) -> Self {
        let mut bytes = Vec::new();
        V2Serializer::new()
            .serialize(histogram, &mut bytes)
            .expect("writing to memory fails only for counts over 2^63");
        Self { figures: Percentiles::of(histogram), histogram: STANDARD.encode(bytes) }
    }
}

/// A holder that panicked leaves a whole value behind: every write is one count.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use hdrhistogram::serialization::Deserializer;

    use super::*;

    #[test]
    fn nothing_is_told_before_an_event_says_when_it_was_meant_to_be_sent() {
        let latencies = Latencies::new();
        latencies.pool("storage").note(&[], 7);
        let told: serde_json::Value = serde_json::from_str(&latencies.render()).unwrap();
        assert_eq!(told["pools"], serde_json::json!({}));
    }

    #[test]
    fn two_handles_of_a_pool_add_to_one_histogram_that_can_be_read_back() {
        let latencies = Latencies::new();
        latencies.pool("storage").note(&[1_000_000, 1_500_000], 2_000_000);
        // A sender whose clock is ahead took no time rather than a negative one.
        latencies.pool("storage").note(&[3_000_000], 2_000_000);
        let told: serde_json::Value = serde_json::from_str(&latencies.render()).unwrap();
        let pool = &told["pools"]["storage"];
        assert_eq!(pool["count"], 3);
        assert!((pool["p50_ms"].as_f64().unwrap() - 500.0).abs() < 1.0, "{pool}");
        let bytes = STANDARD.decode(pool["histogram"].as_str().unwrap()).unwrap();
        let read: Histogram<u64> = Deserializer::new().deserialize(&mut bytes.as_slice()).unwrap();
        assert_eq!((read.len(), read.min()), (3, 0));
        assert!(read.equivalent(read.max(), 1_000_000));
    }
}
