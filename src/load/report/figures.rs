//! The few figures that a run is known by, and that runs are compared by.

use super::text::Unit;
use crate::load::result::{Interval, Percentiles, RunResult};

/// One of them.
#[derive(Debug, Clone, Copy)]
pub struct Figure {
    /// Its name for programs.
    pub key: &'static str,
    /// Its name for people.
    pub label: &'static str,
    /// What it counts.
    pub unit: Unit,
    /// Of a run; nothing where nothing was measured.
    pub of: fn(&RunResult) -> Option<f64>,
}

/// All of them.
pub const FIGURES: [Figure; 11] = [
    Figure { key: "throughput_per_s", label: "throughput, mean", unit: Unit::PerSecond, of: throughput },
    Figure {
        key: "throughput_max_per_s",
        label: "throughput, best interval",
        unit: Unit::PerSecond,
        of: best_interval,
    },
    Figure { key: "p50_ms", label: "latency, 50 %", unit: Unit::Millis, of: |run| latency(run, |l| l.p50_ms) },
    Figure { key: "p90_ms", label: "latency, 90 %", unit: Unit::Millis, of: |run| latency(run, |l| l.p90_ms) },
    Figure { key: "p99_ms", label: "latency, 99 %", unit: Unit::Millis, of: |run| latency(run, |l| l.p99_ms) },
    Figure { key: "p999_ms", label: "latency, 99.9 %", unit: Unit::Millis, of: |run| latency(run, |l| l.p999_ms) },
    Figure { key: "max_ms", label: "latency, highest", unit: Unit::Millis, of: |run| latency(run, |l| l.max_ms) },
    Figure {
        key: "drained_in_s",
        label: "drained in",
        unit: Unit::Seconds,
        of: |run| finite(run.totals.drained_in_s?),
    },
    Figure { key: "cpu_cores", label: "CPU, all workers, mean", unit: Unit::Cores, of: cpu_cores },
    Figure { key: "cpu_s_per_million", label: "CPU a million events", unit: Unit::Seconds, of: cpu_s_per_million },
    Figure { key: "memory_bytes", label: "memory, all workers, highest", unit: Unit::Bytes, of: memory_bytes },
];

fn finite(value: f64) -> Option<f64> {
    value.is_finite().then_some(value)
}

fn settled(run: &RunResult) -> f64 {
    run.intervals.iter().map(|interval| interval.settled as f64).sum()
}

/// Settled events over the time that was looked at.
fn throughput(run: &RunResult) -> Option<f64> {
    finite(settled(run) / run.intervals.iter().map(|interval| interval.length_s).sum::<f64>())
}

fn best_interval(run: &RunResult) -> Option<f64> {
    let rates = run.intervals.iter().map(|interval| interval.settled as f64 / interval.length_s);
    rates.filter(|rate| rate.is_finite()).reduce(f64::max)
}

fn latency(run: &RunResult, value: fn(&Percentiles) -> f64) -> Option<f64> {
    Some(&run.totals.latency).filter(|latency| latency.count > 0).map(value).and_then(finite)
}

fn interval_cores(interval: &Interval) -> f64 {
    interval.workers.iter().map(|worker| worker.cpu_cores).sum()
}

/// Processor seconds of all workers, and over how many seconds they were looked at.
fn cpu(run: &RunResult) -> (f64, f64) {
    let looked = run.intervals.iter().filter(|interval| !interval.workers.is_empty());
    looked.fold((0.0, 0.0), |(cpu_s, length_s), interval| {
        (cpu_s + interval_cores(interval) * interval.length_s, length_s + interval.length_s)
    })
}

fn cpu_cores(run: &RunResult) -> Option<f64> {
    let (cpu_s, length_s) = cpu(run);
    finite(cpu_s / length_s)
}

fn cpu_s_per_million(run: &RunResult) -> Option<f64> {
    let (cpu_s, length_s) = cpu(run);
    if length_s > 0.0 { finite(cpu_s / settled(run) * 1e6) } else { None }
}

fn memory_bytes(run: &RunResult) -> Option<f64> {
    let looked = run.intervals.iter().filter(|interval| !interval.workers.is_empty());
    looked.map(|interval| interval.workers.iter().map(|worker| worker.memory_bytes as f64).sum()).reduce(f64::max)
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;
    use crate::load::result::Worker;

    fn figure(run: &RunResult, key: &str) -> Option<f64> {
        (FIGURES.iter().find(|figure| figure.key == key).unwrap().of)(run)
    }

    #[test]
    fn nothing_measured_is_no_figure() {
        let run = samples::empty();
        assert!(FIGURES.iter().all(|figure| (figure.of)(&run).is_none()));
    }

    #[test]
    fn figures_are_weighed_by_time() {
        let worker = |cpu_cores, memory_bytes| Worker { cpu_cores, memory_bytes, ..Worker::default() };
        let mut run = samples::empty();
        run.intervals = vec![
            Interval {
                length_s: 1.0,
                settled: 1000,
                workers: vec![worker(1.0, 5), worker(1.0, 6)],
                ..Interval::default()
            },
            Interval { length_s: 3.0, settled: 1000, workers: vec![worker(0.4, 9)], ..Interval::default() },
            Interval { length_s: 0.0, settled: 0, ..Interval::default() },
        ];
        assert_eq!(figure(&run, "throughput_per_s"), Some(500.0));
        assert_eq!(figure(&run, "throughput_max_per_s"), Some(1000.0));
        assert!((figure(&run, "cpu_cores").unwrap() - 0.8).abs() < 1e-9);
        assert!((figure(&run, "cpu_s_per_million").unwrap() - 1600.0).abs() < 1e-6);
        assert_eq!(figure(&run, "memory_bytes"), Some(11.0));
    }
}
