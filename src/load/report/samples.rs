//! Results for tests.

use crate::load::result::{Interval, Percentiles, Phase, Point, RunResult, SCHEMA, Setting, Totals, Verdict, Worker};

/// A run in which nothing was measured.
pub(super) fn empty() -> RunResult {
    RunResult {
        schema: SCHEMA,
        name: "empty".to_owned(),
        started_at_ms: 1_769_846_400_000,
        took_s: 0.0,
        setting: Setting::default(),
        plan: serde_json::Value::Null,
        totals: Totals::default(),
        phases: Vec::new(),
        intervals: Vec::new(),
        verdicts: Vec::new(),
    }
}

/// A run of one interval.
pub(super) fn short() -> RunResult {
    let latency = Percentiles { count: 900, p50_ms: 4.0, p90_ms: 9.0, p99_ms: 20.0, p999_ms: 30.0, max_ms: 31.0 };
    let mut run = empty();
    run.name = "short".to_owned();
    run.took_s = 1.0;
    run.setting.host = "one".to_owned();
    run.plan = serde_json::json!({"rate": 1000, "payload": {"bytes": 300}});
    run.totals.latency = latency;
    run.totals.latency_by_percentile =
        vec![Point { percentile: 50.0, value_ms: 4.0 }, Point { percentile: 100.0, value_ms: 31.0 }];
    run.phases = vec![Phase { name: "steady".to_owned(), end_s: 1.0, latency, ..Phase::default() }];
    run.intervals = vec![Interval {
        at_s: 1.0,
        length_s: 1.0,
        intended: 1000,
        sent: 1000,
        acknowledged: 1000,
        settled: 900,
        latency,
        batches: 9,
        batch_events: 100.0,
        loop_share: [("poll".to_owned(), 0.5), ("apply".to_owned(), 0.5)].into(),
        workers: vec![Worker {
            address: "127.0.0.1:1".to_owned(),
            cpu_cores: 0.5,
            memory_bytes: 1 << 27,
            partitions: 8,
        }],
        ..Interval::default()
    }];
    run.verdicts =
        vec![Verdict { name: "lost".to_owned(), asked: "0".to_owned(), found: "0".to_owned(), passed: true }];
    run
}
