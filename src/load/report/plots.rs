//! The plots of a run, and those that lay runs over each other.

use std::collections::BTreeSet;

use super::axis::Axis;
use super::plot::{Kind, Plot, Series, Span, numbered};
use super::text::Unit;
use crate::load::result::{Interval, Percentiles, RunResult, Worker};

/// So many points a line at most: more intervals are put together.
const POINTS: usize = 600;
/// So many workers at most have a line each.
const WORKER_LINES: usize = 6;
/// The order in which the phases of the workers' loop come; others follow by name.
const LOOP_ORDER: [&str; 9] = ["poll", "rate", "decode", "dedupe", "prepare", "queue", "apply", "commit", "wait"];

const ANSWERED: &str = "Of those that answered: it falls where one did not.";

type Points = Vec<(f64, Option<f64>)>;

/// All plots of one run.
pub(super) fn of_run(run: &RunResult) -> String {
    let view = View::of(run);
    let mut plots =
        vec![view.throughput(), view.by_percentile(), view.latency(), view.lag_events(), view.lag_seconds()];
    plots.extend([view.slip(), view.batches(), view.loop_share(), view.cpu(), view.memory()]);
    plots.concat()
}

/// All plots of several runs, under the names that they have there.
pub(super) fn of_runs(runs: &[(String, &RunResult)]) -> String {
    let views: Vec<(&str, View<'_>)> = runs.iter().map(|(name, run)| (name.as_str(), View::of(run))).collect();
    let end = views.iter().map(|(_, view)| view.end_s).fold(0.0, f64::max);
    let overlay = |id, title, note: &str, unit, pick: fn(&View<'_>) -> Points| {
        let series = views.iter().map(|(name, view)| Series { name: (*name).to_owned(), points: pick(view) });
        over_time(id, title, note, unit, end, series.collect(), &[])
    };
    let curves = views.iter().map(|(name, view)| Series { name: (*name).to_owned(), points: view.curve() });
    [
        overlay("throughput", "Settled", "", Unit::PerSecond, |view| view.rate(|interval| interval.settled)),
        percentile_plot(curves.collect()),
        overlay("latency", "Latency, 99th percentile", "", Unit::Millis, |view| {
            view.percentile(|interval| &interval.latency, |latency| latency.p99_ms)
        }),
        overlay("lag-events", "Lag", "", Unit::Events, |view| view.each(|interval| Some(interval.lag_events as f64))),
        overlay("lag-seconds", "Age of the oldest event", "", Unit::Seconds, |view| view.each(|i| Some(i.lag_s))),
        overlay("slip", "Slip, 99th percentile", "", Unit::Millis, |view| {
            view.percentile(|interval| &interval.slip, |slip| slip.p99_ms)
        }),
        overlay("batches", "Events of a batch", "", Unit::Events, |view| view.batch_points()),
        overlay("cpu", "CPU of all workers", ANSWERED, Unit::Cores, |view| view.all_workers(|worker| worker.cpu_cores)),
        overlay("memory", "Memory of all workers", ANSWERED, Unit::Bytes, |view| {
            view.all_workers(|worker| worker.memory_bytes as f64)
        }),
    ]
    .concat()
}

/// A run with no more intervals than can be told apart.
struct View<'a> {
    run: &'a RunResult,
    intervals: Vec<Interval>,
    spans: Vec<Span>,
    end_s: f64,
}

impl<'a> View<'a> {
    fn of(run: &'a RunResult) -> Self {
        let end = run.intervals.iter().map(|interval| interval.at_s);
        let end = end.chain(run.phases.iter().map(|phase| phase.end_s)).filter(|s| s.is_finite()).fold(0.0, f64::max);
        let spans = run.phases.iter().map(|phase| Span {
            name: phase.name.clone(),
            warm_up: phase.warm_up,
            begin: phase.begin_s,
            end: phase.end_s,
        });
        Self { run, intervals: thinned(&run.intervals), spans: spans.collect(), end_s: end }
    }

    fn plot(
        &self,
        id: &'static str,
        title: &'static str,
        note: &str,
        unit: Unit,
        series: Vec<(&str, Points)>,
    ) -> String {
        let series = series.into_iter().map(|(name, points)| Series { name: name.to_owned(), points }).collect();
        over_time(id, title, note, unit, self.end_s, series, &self.spans)
    }

    fn throughput(&self) -> String {
        let series = vec![
            ("settled", self.rate(|interval| interval.settled)),
            ("acknowledged", self.rate(|interval| interval.acknowledged)),
            ("sent", self.rate(|interval| interval.sent)),
            ("intended", self.rate(|interval| interval.intended)),
        ];
        let note = "What the plan asked for, what was handed to the producer, what the brokers acknowledged, and what the \
                    workers settled.";
        self.plot("throughput", "Throughput", note, Unit::PerSecond, series)
    }

    fn by_percentile(&self) -> String {
        percentile_plot(vec![Series { name: "latency".to_owned(), points: self.curve() }])
    }

    fn curve(&self) -> Points {
        let points = self.run.totals.latency_by_percentile.iter();
        points
            .filter(|point| point.percentile.is_finite())
            .map(|point| (point.percentile, Some(point.value_ms)))
            .collect()
    }

    fn latency(&self) -> String {
        let note = "From the intended send time to the effect, of the effects in each interval.";
        self.plot("latency", "Latency over time", note, Unit::Millis, self.percentiles(|interval| &interval.latency))
    }

    fn slip(&self) -> String {
        let note = "How much later than intended events were handed to the producer. Where it is long, the sender was the limit.";
        self.plot("slip", "Slip", note, Unit::Millis, self.percentiles(|interval| &interval.slip))
    }

    fn lag_events(&self) -> String {
        let points = self.each(|interval| Some(interval.lag_events as f64));
        self.plot(
            "lag-events",
            "Lag",
            "Published and not settled, over all partitions.",
            Unit::Events,
            vec![("lag", points)],
        )
    }

    fn lag_seconds(&self) -> String {
        let points = self.each(|interval| Some(interval.lag_s));
        self.plot(
            "lag-seconds",
            "Age of the oldest event",
            "Of those in the lag.",
            Unit::Seconds,
            vec![("age", points)],
        )
    }

    fn batches(&self) -> String {
        let note = "On average over the batches of each interval.";
        self.plot("batches", "Events of a batch", note, Unit::Events, vec![("events", self.batch_points())])
    }

    fn batch_points(&self) -> Points {
        self.each(|interval| (interval.batches > 0).then_some(interval.batch_events))
    }

    fn loop_share(&self) -> String {
        let shares = self.intervals.iter().flat_map(|interval| &interval.loop_share);
        let names: BTreeSet<&str> = shares.filter(|(_, share)| **share > 0.0).map(|(name, _)| name.as_str()).collect();
        let known = LOOP_ORDER.iter().copied().filter(|name| names.contains(name));
        let others = names.iter().copied().filter(|name| !LOOP_ORDER.contains(name));
        let series = known.chain(others).map(|name| Series {
            name: name.to_owned(),
            points: self.each(|interval| {
                (!interval.loop_share.is_empty()).then(|| interval.loop_share.get(name).copied().unwrap_or(0.0))
            }),
        });
        Plot {
            id: "loop",
            title: "Where the tasks' time goes",
            note: "The share of the time of all partitions' tasks.",
            kind: Kind::Stack,
            x: Axis::time(self.end_s),
            y: Axis::from_zero(1.0, Unit::Share),
            series: series.collect(),
            spans: &self.spans,
        }
        .html()
    }

    fn cpu(&self) -> String {
        self.worker_plot("cpu", "CPU of the workers", Unit::Cores, |worker| worker.cpu_cores)
    }

    fn memory(&self) -> String {
        self.worker_plot("memory", "Memory of the workers", Unit::Bytes, |worker| worker.memory_bytes as f64)
    }

    /// A line a worker; where there are many, the highest, the mean and the lowest.
    fn worker_plot(&self, id: &'static str, title: &'static str, unit: Unit, value: fn(&Worker) -> f64) -> String {
        let addresses: BTreeSet<&str> =
            self.intervals.iter().flat_map(|interval| interval.workers.iter().map(|w| w.address.as_str())).collect();
        if addresses.len() > WORKER_LINES {
            let values = |interval: &Interval| interval.workers.iter().map(value).collect::<Vec<f64>>();
            let highest = self.each(|interval| values(interval).into_iter().reduce(f64::max));
            let lowest = self.each(|interval| values(interval).into_iter().reduce(f64::min));
            let mean = self.each(|interval| {
                let values = values(interval);
                (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
            });
            let note = format!("Of {}.", numbered(addresses.len(), "worker"));
            return self.plot(id, title, &note, unit, vec![("highest", highest), ("mean", mean), ("lowest", lowest)]);
        }
        let line = |address: &str| {
            self.each(|interval| interval.workers.iter().find(|worker| worker.address == address).map(value))
        };
        let note = "A line a worker, by its health address; it breaks where the worker did not answer.";
        self.plot(id, title, note, unit, addresses.iter().map(|address| (*address, line(address))).collect())
    }

    fn percentiles(&self, of: fn(&Interval) -> &Percentiles) -> Vec<(&'static str, Points)> {
        vec![
            ("50 %", self.percentile(of, |values| values.p50_ms)),
            ("90 %", self.percentile(of, |values| values.p90_ms)),
            ("99 %", self.percentile(of, |values| values.p99_ms)),
            ("99.9 %", self.percentile(of, |values| values.p999_ms)),
            ("highest", self.percentile(of, |values| values.max_ms)),
        ]
    }

    fn percentile(&self, of: fn(&Interval) -> &Percentiles, value: fn(&Percentiles) -> f64) -> Points {
        self.each(|interval| Some(of(interval)).filter(|values| values.count > 0).map(value))
    }

    fn rate(&self, value: fn(&Interval) -> u64) -> Points {
        self.each(|interval| (interval.length_s > 0.0).then(|| value(interval) as f64 / interval.length_s))
    }

    fn all_workers(&self, value: fn(&Worker) -> f64) -> Points {
        self.each(|interval| (!interval.workers.is_empty()).then(|| interval.workers.iter().map(value).sum()))
    }

    fn each(&self, value: impl Fn(&Interval) -> Option<f64>) -> Points {
        let finite = self.intervals.iter().filter(|interval| interval.at_s.is_finite());
        finite.map(|interval| (interval.at_s, value(interval).filter(|value| value.is_finite()))).collect()
    }
}

fn over_time(
    id: &'static str,
    title: &'static str,
    note: &str,
    unit: Unit,
    end_s: f64,
    series: Vec<Series>,
    spans: &[Span],
) -> String {
    let y = value_axis(unit, &series);
    Plot { id, title, note, kind: Kind::Time, x: Axis::time(end_s), y, series, spans }.html()
}

fn percentile_plot(series: Vec<Series>) -> String {
    let percentiles = series.iter().flat_map(|series| series.points.iter().map(|(percentile, _)| *percentile));
    let x = Axis::percentile(percentiles.filter(|percentile| *percentile < 100.0).fold(0.0, f64::max));
    let y = value_axis(Unit::Millis, &series);
    let note = "So many of all values of the run, without the warm-up, are at or below the line.";
    Plot { id: "percentiles", title: "Latency by percentile", note, kind: Kind::Percentile, x, y, series, spans: &[] }
        .html()
}

fn value_axis(unit: Unit, series: &[Series]) -> Axis {
    let values =
        || series.iter().flat_map(|series| series.points.iter().filter_map(|(_, y)| *y)).filter(|y| y.is_finite());
    let max = values().fold(0.0, f64::max);
    match unit {
        Unit::Millis => Axis::log(values().filter(|value| *value > 0.0).fold(f64::INFINITY, f64::min), max, unit),
        _ => Axis::from_zero(max, unit),
    }
}

/// How many intervals a point stands for.
pub(super) fn intervals_a_point(run: &RunResult) -> usize {
    run.intervals.len().div_ceil(POINTS).max(1)
}

/// Intervals put together, so that there are no more than can be told apart: counts add up, shares and cores are
/// averages, and of lag, latency, slip and memory the highest stays.
fn thinned(intervals: &[Interval]) -> Vec<Interval> {
    let size = intervals.len().div_ceil(POINTS).max(1);
    intervals.chunks(size).map(|chunk| if let [one] = chunk { one.clone() } else { together(chunk) }).collect()
}

fn together(chunk: &[Interval]) -> Interval {
    let sum = |value: fn(&Interval) -> u64| chunk.iter().map(value).fold(0u64, u64::saturating_add);
    let mut all = Interval {
        at_s: chunk.last().map_or(0.0, |interval| interval.at_s),
        length_s: chunk.iter().map(|interval| interval.length_s).sum(),
        intended: sum(|i| i.intended),
        sent: sum(|i| i.sent),
        acknowledged: sum(|i| i.acknowledged),
        settled: sum(|i| i.settled),
        batches: sum(|i| i.batches),
        rebalances: sum(|i| i.rebalances),
        ..Interval::default()
    };
    let shared_s: f64 = chunk.iter().filter(|i| !i.loop_share.is_empty()).map(|i| i.length_s).sum();
    for interval in chunk {
        all.lag_events = all.lag_events.max(interval.lag_events);
        all.lag_s = all.lag_s.max(interval.lag_s);
        higher(&mut all.slip, &interval.slip);
        higher(&mut all.latency, &interval.latency);
        all.batch_events += interval.batch_events * interval.batches as f64 / all.batches.max(1) as f64;
        let part = interval.length_s / shared_s;
        for (name, share) in &interval.loop_share {
            *all.loop_share.entry(name.clone()).or_default() += share * part;
        }
        for worker in &interval.workers {
            add_worker(&mut all.workers, worker, chunk);
        }
    }
    all
}

fn add_worker(workers: &mut Vec<Worker>, worker: &Worker, chunk: &[Interval]) {
    if let Some(known) = workers.iter_mut().find(|known| known.address == worker.address) {
        known.memory_bytes = known.memory_bytes.max(worker.memory_bytes);
        return;
    }
    let of = chunk.iter().flat_map(|interval| &interval.workers).filter(|other| other.address == worker.address);
    let (sum, number_of) = of.fold((0.0, 0u32), |(sum, number_of), other| (sum + other.cpu_cores, number_of + 1));
    workers.push(Worker { cpu_cores: sum / f64::from(number_of.max(1)), ..worker.clone() });
}

fn higher(all: &mut Percentiles, one: &Percentiles) {
    if one.count == 0 {
        return;
    }
    all.count = all.count.saturating_add(one.count);
    all.p50_ms = all.p50_ms.max(one.p50_ms);
    all.p90_ms = all.p90_ms.max(one.p90_ms);
    all.p99_ms = all.p99_ms.max(one.p99_ms);
    all.p999_ms = all.p999_ms.max(one.p999_ms);
    all.max_ms = all.max_ms.max(one.max_ms);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_intervals_are_put_together_without_losing_a_peak() {
        let mut intervals: Vec<Interval> = (0..6000)
            .map(|at| Interval {
                at_s: f64::from(at + 1),
                length_s: 1.0,
                settled: 100,
                batches: 2,
                batch_events: 50.0,
                loop_share: [("poll".to_owned(), 0.25), ("apply".to_owned(), 0.75)].into(),
                workers: vec![Worker { address: "a".to_owned(), cpu_cores: 0.5, memory_bytes: 7, partitions: 1 }],
                ..Interval::default()
            })
            .collect();
        intervals[3003].lag_events = 9999;
        intervals[3003].latency = Percentiles { count: 3, p99_ms: 800.0, ..Percentiles::default() };
        let thin = thinned(&intervals);
        assert_eq!(thin.len(), 600);
        assert_eq!(thin.iter().map(|interval| interval.settled).sum::<u64>(), 600_000);
        assert_eq!(thin.iter().map(|interval| interval.lag_events).max(), Some(9999));
        assert_eq!(thin.iter().filter(|interval| interval.latency.count > 0).count(), 1);
        let one = &thin[10];
        assert!((one.batch_events - 50.0).abs() < 1e-9 && (one.loop_share["apply"] - 0.75).abs() < 1e-9, "{one:?}");
        assert!((one.workers[0].cpu_cores - 0.5).abs() < 1e-9, "{one:?}");
        assert_eq!((one.workers.len(), one.at_s), (1, 110.0));
    }
}
