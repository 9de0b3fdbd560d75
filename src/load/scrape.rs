//! Asking a worker's health address: `/metrics` and `/latency`.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::Deserializer;
use serde::Deserialize;

use crate::admin::ask;

/// What one worker told of one pool.
#[derive(Debug, Clone, Default)]
pub(super) struct Told {
    /// Tells a process from the one that had its address before.
    pub(super) instance: String,
    pub(super) latency: Option<Histogram<u64>>,
    pub(super) batches: f64,
    pub(super) batched_events: f64,
    /// Seconds of the partition tasks, by phase.
    pub(super) loop_s: BTreeMap<String, f64>,
    pub(super) rebalances: f64,
    pub(super) partitions: f64,
    pub(super) lag_s: f64,
    pub(super) cpu_s: f64,
    pub(super) memory_bytes: f64,
}

/// Asks for everything at once, within a time.
pub(super) async fn ask(address: &str, pool: &str, within: Duration) -> Result<Told> {
    let both = async { tokio::try_join!(ask::get(address, "/metrics", within), ask::get(address, "/latency", within)) };
    let (metrics, latency) = both.await?;
    let mut told = read_metrics(&metrics, pool);
    (told.instance, told.latency) = read_latency(&latency, pool).with_context(|| format!("{address}: /latency"))?;
    Ok(told)
}

/// Sums up what concerns the pool, in Prometheus' text format.
fn read_metrics(text: &str, pool: &str) -> Told {
    let mut told = Told::default();
    let of_pool = format!("pool=\"{pool}\"");
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some((series, value)) = line.rsplit_once(' ') else { continue };
        let Ok(value) = value.parse::<f64>() else { continue };
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        match name {
            "process_cpu_seconds_total" => told.cpu_s = value,
            "process_resident_memory_bytes" => told.memory_bytes = value,
            _ if !labels.contains(&of_pool) => {}
            "weir_batch_events_count" => told.batches += value,
            "weir_batch_events_sum" => told.batched_events += value,
            "weir_rebalances_total" => told.rebalances += value,
            "weir_partitions_assigned" => told.partitions += value,
            "weir_lag_seconds" => told.lag_s = told.lag_s.max(value),
            "weir_loop_seconds_total" => {
                let phase = labels.split_once("phase=\"").and_then(|(_, rest)| rest.split('"').next());
                *told.loop_s.entry(phase.unwrap_or_default().to_owned()).or_default() += value;
            }
            _ => {}
        }
    }
    told
}

#[derive(Deserialize)]
struct Latencies {
    instance: String,
    pools: BTreeMap<String, Latency>,
}

#[derive(Deserialize)]
struct Latency {
    histogram: String,
}

fn read_latency(body: &str, pool: &str) -> Result<(String, Option<Histogram<u64>>)> {
    let Latencies { instance, pools } = serde_json::from_str(body).context("read the answer")?;
    let Some(Latency { histogram }) = pools.get(pool) else { return Ok((instance, None)) };
    let bytes = STANDARD.decode(histogram).context("read the histogram's base64")?;
    let read = Deserializer::new().deserialize(&mut bytes.as_slice());
    Ok((instance, Some(read.map_err(|error| anyhow::anyhow!("read the histogram: {error:?}"))?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{Metrics, Phase};

    #[test]
    fn a_workers_own_words_are_understood() {
        let metrics = Metrics::new();
        let pool = metrics.pool("storage");
        pool.batch(30);
        pool.batch(12);
        pool.rebalanced();
        pool.set_partitions_assigned(5);
        pool.spent(Phase::Apply, Duration::from_millis(1_500));
        pool.topic("t").set_lag(Some(3), Some(0.25));
        pool.settled_since(&[1_000, 2_000], 3_000);
        metrics.pool("other").batch(7);
        let told = read_metrics(&metrics.render(), "storage");
        assert_eq!((told.batches, told.batched_events, told.rebalances), (2.0, 42.0, 1.0));
        assert_eq!((told.partitions, told.lag_s, told.loop_s["apply"]), (5.0, 0.25, 1.5));
        assert!(told.memory_bytes > 1e6, "{told:?}");
        let (instance, latency) = read_latency(&metrics.render_latency(), "storage").unwrap();
        let latency = latency.unwrap();
        assert_eq!((latency.len(), latency.min(), latency.max()), (2, 1_000, 2_000));
        let again = read_latency(&Metrics::new().render_latency(), "storage").unwrap();
        assert!(again.1.is_none() && again.0 != instance, "another process");
    }
}
