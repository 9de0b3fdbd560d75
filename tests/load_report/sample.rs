//! A run by arithmetic: ten minutes, three phases, a burst that the workers fall behind in.

use std::collections::BTreeMap;

use weir::load::result::{Interval, Percentiles, Phase, Point, RunResult, SCHEMA, Setting, Totals, Verdict, Worker};

/// What the workers settle at most in a second.
const CAPACITY: u64 = 4_500;
const END_S: u64 = 600;
/// A name that would be an element, a script and a request, if it were taken for HTML.
pub(crate) const EVIL: &str = "<img src=//evil.invalid/x onerror=alert(1)>";

/// Name, warm-up, begin, end, events a second.
const PHASES: [(&str, bool, u64, u64, u64); 3] = [
    ("warm-up", true, 0, 60, 1_000),
    ("steady", false, 60, 360, 2_500),
    ("burst of three times the rate", false, 360, 500, 6_000),
];

pub(crate) fn run() -> RunResult {
    let mut lag = 0u64;
    let mut intervals = Vec::new();
    for second in 0..END_S {
        let intended =
            PHASES.iter().find(|(_, _, from, to, _)| (*from..*to).contains(&second)).map_or(0, |phase| phase.4);
        let waiting = lag + intended;
        let settled = waiting.min(CAPACITY - wobble(second, 40));
        lag = waiting - settled;
        intervals.push(interval(second, intended, settled, lag));
    }
    let sum = |value: fn(&Interval) -> u64| intervals.iter().map(value).sum::<u64>();
    let (intended, settled) = (sum(|i| i.intended), sum(|i| i.settled));
    let latency = Percentiles {
        count: settled,
        p50_ms: 21.0,
        p90_ms: 14_800.0,
        p99_ms: 44_100.0,
        p999_ms: 47_300.0,
        max_ms: 48_211.0,
    };
    let slip = Percentiles { count: intended, p50_ms: 0.2, p90_ms: 0.6, p99_ms: 2.1, p999_ms: 6.5, max_ms: 14.0 };
    RunResult {
        schema: SCHEMA,
        name: "burst".to_owned(),
        started_at_ms: 1_794_300_000_000,
        took_s: END_S as f64,
        setting: setting(),
        plan: plan(),
        totals: Totals {
            intended,
            acknowledged: intended,
            effects: settled - 1_200,
            dead: 1_200,
            duplicates: 4_800,
            poison: 1_200,
            lost: Some(0),
            repeated: Some(0),
            out_of_order: None,
            slip,
            latency,
            latency_by_percentile: curve(),
            drained_in_s: Some(46.7),
            rebalances: 2,
            longest_pause_s: 1.4,
            failed: 0,
        },
        phases: phases(&intervals),
        intervals,
        verdicts: verdicts(),
    }
}

/// Something that looks like chance, and is none.
fn wobble(second: u64, most: u64) -> u64 {
    second.wrapping_mul(2_654_435_761) % 1_000_003 % (most + 1)
}

fn interval(second: u64, intended: u64, settled: u64, lag: u64) -> Interval {
    let lag_s = lag as f64 / CAPACITY as f64;
    let base = 12.0 + wobble(second, 9) as f64 + lag_s * 1000.0;
    let spread = |factor: f64| base * factor + wobble(second + 7, 20) as f64 * factor;
    let latency = Percentiles {
        count: settled,
        p50_ms: spread(1.0),
        p90_ms: spread(1.5),
        p99_ms: spread(2.4),
        p999_ms: spread(3.6),
        max_ms: spread(5.0),
    };
    let slip_ms = 0.2 + wobble(second, 5) as f64 * 0.05 + intended as f64 / 20_000.0;
    let slip = Percentiles {
        count: intended,
        p50_ms: slip_ms,
        p90_ms: slip_ms * 2.0,
        p99_ms: slip_ms * 5.0,
        p999_ms: slip_ms * 12.0,
        max_ms: slip_ms * 20.0,
    };
    let busy = settled as f64 / CAPACITY as f64;
    let share = |part: f64| busy * part * (1.0 + wobble(second, 10) as f64 / 200.0);
    let mut loop_share: BTreeMap<String, f64> = [
        ("decode", share(0.12)),
        ("dedupe", share(0.08)),
        ("prepare", share(0.1)),
        ("apply", share(0.45)),
        ("commit", share(0.05)),
        ("wait", 0.02),
    ]
    .map(|(name, share)| (name.to_owned(), share))
    .into();
    loop_share.insert("poll".to_owned(), 1.0 - loop_share.values().sum::<f64>());
    Interval {
        at_s: (second + 1) as f64,
        length_s: 1.0,
        intended,
        sent: intended,
        acknowledged: intended,
        settled,
        lag_events: lag,
        lag_s,
        slip,
        latency,
        batches: 8 + settled / 200,
        batch_events: settled as f64 / (8 + settled / 200) as f64,
        loop_share,
        rebalances: u64::from(second == 300) * 2,
        workers: workers(second, busy),
    }
}

/// Two workers; one of them does not answer for ten seconds.
fn workers(second: u64, busy: f64) -> Vec<Worker> {
    let worker = |port: u64, share: f64| Worker {
        address: format!("127.0.0.1:{port}"),
        cpu_cores: 0.06 + busy * share + wobble(second + port, 10) as f64 * 0.004,
        memory_bytes: (96 + port % 10 * 14 + (busy * 60.0) as u64 + second / 30) << 20,
        partitions: 4,
    };
    let all = [worker(9464, 0.42), worker(9465, 0.36)];
    all.into_iter().filter(|worker| worker.address.ends_with('4') || !(300..310).contains(&second)).collect()
}

fn curve() -> Vec<Point> {
    let points = (0..=50).map(|at| {
        let nines = f64::from(at) / 10.0;
        let value_ms = 12.0 + 48_190.0 / (1.0 + (-(nines - 1.6) * 6.0).exp());
        Point { percentile: 100.0 - 100.0 / 10f64.powf(nines), value_ms }
    });
    points.chain([Point { percentile: 100.0, value_ms: 48_211.0 }]).collect()
}

fn phases(intervals: &[Interval]) -> Vec<Phase> {
    let phase = |(name, warm_up, from, to, rate): (&str, bool, u64, u64, u64)| {
        let middle = &intervals[((from + to) / 2) as usize];
        Phase {
            name: if name == "steady" { format!("steady {EVIL}") } else { name.to_owned() },
            warm_up,
            begin_s: from as f64,
            end_s: to as f64,
            intended: rate * (to - from),
            sent: rate * (to - from),
            slip: middle.slip,
            latency: middle.latency,
        }
    };
    PHASES.map(phase).into()
}

fn setting() -> Setting {
    Setting {
        weir: "0.1.0".to_owned(),
        versions: [
            ("kafka", "4.1.0"),
            ("librdkafka", "2.12.1"),
            ("database", "PostgreSQL 15.14 on x86_64-pc-linux-gnu, compiled by gcc 12.2.0, 64-bit"),
            ("redis", "7.0.15"),
        ]
        .map(|(of, version)| (of.to_owned(), version.to_owned()))
        .into(),
        host: "bench-1".to_owned(),
        system: "Linux 6.1 x86_64".to_owned(),
        processor: "Intel Xeon Processor (Skylake)".to_owned(),
        cores: 2,
        memory_bytes: 24 << 30,
        partitions: 8,
        workers: 2,
    }
}

fn plan() -> serde_json::Value {
    let phases = PHASES.map(|(name, warm_up, from, to, rate)| {
        serde_json::json!({ "name": name, "warm_up": warm_up, "for_s": to - from, "rate_per_s": rate })
    });
    serde_json::json!({
        "name": "burst", "topic": "message-events", "seed": 7, "phases": phases,
        "payload": { "bytes": 330, "conversations": 10_000 }, "thresholds": { "p99_ms": 250, "drained_in_s": 60 },
    })
}

fn verdicts() -> Vec<Verdict> {
    let rows = [
        ("nothing lost", "0 ids", "0 ids", true),
        ("nothing repeated", "0 ids", "0 ids", true),
        ("slip_p99_ms", "at most 10 ms", "2.1 ms", true),
        ("drained_in_s", "at most 60 s", "46.7 s", true),
        ("p99_ms", "at most 250 ms", "44,100 ms", false),
    ];
    rows.map(|(name, asked, found, passed)| {
        let [name, asked, found] = [name, asked, found].map(str::to_owned);
        Verdict { name, asked, found, passed }
    })
    .into()
}
