//! Looks at everything in intervals: what was sent, what was settled, and what each worker tells of itself.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use hdrhistogram::Histogram;

use super::flow::Sent;
use super::generator::Shared;
use super::latency;
use super::result::{Interval, Percentiles, Phase, Worker};
use super::scrape::{self, Told};
use super::standing::{Stand, Standing, Standstill};

/// How long a worker has to answer, at most; what it does not tell now, it tells with its next answer.
const ANSWER_MAX: Duration = Duration::from_secs(2);
const ANSWER_MIN: Duration = Duration::from_millis(250);

/// A worker that is looked at.
struct Watched {
    address: String,
    /// Its last answer, and when it came.
    last: Option<(Told, Instant)>,
}

/// What the workers told since the last interval's end.
#[derive(Default)]
struct Pending {
    latency: Option<Histogram<u64>>,
    batches: f64,
    batched_events: f64,
    loop_s: BTreeMap<String, f64>,
    rebalances: f64,
    lag_s: f64,
    workers: Vec<Worker>,
}

/// What an interval began with.
#[derive(Default)]
struct Before {
    at_us: u64,
    intended: u64,
    sent: Sent,
    settled: u64,
}

/// Sums of a phase.
struct PhaseSums {
    sent: u64,
    slip: Histogram<u64>,
    latency: Histogram<u64>,
}

pub(super) struct Observer {
    shared: Arc<Shared>,
    standing: Arc<Standing>,
    pool: String,
    within: Duration,
    workers: Vec<Watched>,
    pending: Pending,
    before: Before,
    /// What the ledger had passed before the run.
    settled_before: u64,
    batched_events: f64,
    phases: Vec<PhaseSums>,
    standstills: Vec<Standstill>,
    pub(super) intervals: Vec<Interval>,
    /// Over the whole run, warm-up left out.
    pub(super) latency: Histogram<u64>,
    pub(super) slip: Histogram<u64>,
}

/// What is there before a run, which counts as nothing.
pub(super) struct Baseline {
    workers: Vec<Watched>,
    settled: u64,
}

impl Baseline {
    /// # Errors
    /// A worker or the database does not answer.
    pub(super) async fn look(addresses: Vec<String>, pool: &str, standing: &Standing) -> Result<Self> {
        let mut workers = Vec::with_capacity(addresses.len());
        for address in addresses {
            let told = scrape::ask(&address, pool, ANSWER_MAX * 5).await?;
            workers.push(Watched { address, last: Some((told, Instant::now())) });
        }
        let settled = standing.ledger().await?.iter().flatten().map(|next| next.unsigned_abs()).sum();
        Ok(Self { workers, settled })
    }
}

impl Observer {
    pub(super) fn new(
        shared: Arc<Shared>,
        standing: Arc<Standing>,
        pool: &str,
        baseline: Baseline,
        interval: Duration,
    ) -> Self {
        let empty = || PhaseSums { sent: 0, slip: latency::histogram(), latency: latency::histogram() };
        Self {
            pool: pool.to_owned(),
            within: (interval / 2).clamp(ANSWER_MIN, ANSWER_MAX),
            workers: baseline.workers,
            pending: Pending::default(),
            before: Before::default(),
            settled_before: baseline.settled,
            batched_events: 0.0,
            phases: shared.schedule.phases().iter().map(|_| empty()).collect(),
            standstills: Vec::new(),
            intervals: Vec::new(),
            latency: latency::histogram(),
            slip: latency::histogram(),
            shared,
            standing,
        }
    }

    /// Asks all workers at once, and adds what is new.
    async fn ask(&mut self) {
        let asked = self.workers.iter().map(|worker| scrape::ask(&worker.address, &self.pool, self.within));
        let answers = futures_util::future::join_all(asked).await;
        for (worker, told) in self.workers.iter_mut().zip(answers) {
            let Ok(told) = told else { continue };
            self.batched_events += self.pending.add(worker, told, Instant::now());
        }
    }

    /// Ends an interval at this moment.
    pub(super) async fn look(&mut self) {
        let (shared, standing) = (Arc::clone(&self.shared), Arc::clone(&self.standing));
        let ((), stand) = tokio::join!(self.ask(), standing.look(&shared));
        self.cut(&stand);
    }

    /// Ends the last interval, once the workers have told of everything that the ledger has passed, or were given the
    /// time to.
    pub(super) async fn finish(&mut self, within: Duration) {
        let until = Instant::now() + within;
        let stand = loop {
            self.ask().await;
            let stand = self.standing.look(&self.shared).await;
            #[expect(clippy::cast_precision_loss, reason = "a number of events is far below 2^52")]
            let settled = stand.settled.saturating_sub(self.settled_before) as f64;
            if self.batched_events >= settled || Instant::now() > until {
                break stand;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        };
        self.cut(&stand);
    }

    fn cut(&mut self, stand: &Stand) {
        let shared = Arc::clone(&self.shared);
        let at_us = shared.clock.now_us().max(self.before.at_us + 1);
        let (sent, slip) = (shared.flow.look(), shared.flow.take_slips());
        let intended = shared.intended_before(at_us);
        let settled = stand.settled.saturating_sub(self.settled_before);
        let pending = std::mem::take(&mut self.pending);
        let latency = pending.latency.unwrap_or_else(latency::histogram);
        let before = std::mem::replace(&mut self.before, Before { at_us, intended, sent, settled });
        let loop_s: f64 = pending.loop_s.values().sum();
        let share = |(phase, seconds): (String, f64)| (phase, if loop_s > 0.0 { seconds / loop_s } else { 0.0 });
        self.intervals.push(Interval {
            at_s: seconds(at_us),
            length_s: seconds(at_us - before.at_us),
            intended: intended - before.intended,
            sent: sent.sent - before.sent.sent,
            acknowledged: sent.acknowledged - before.sent.acknowledged,
            settled: settled.saturating_sub(before.settled),
            lag_events: stand.lag_events,
            lag_s: if stand.lag_events > 0 { stand.lag_s.max(pending.lag_s) } else { 0.0 },
            slip: Percentiles::of(&slip),
            latency: Percentiles::of(&latency),
            batches: whole(pending.batches),
            batch_events: if pending.batches > 0.0 { pending.batched_events / pending.batches } else { 0.0 },
            loop_share: pending.loop_s.into_iter().map(share).filter(|(_, share)| *share > 0.0).collect(),
            rebalances: whole(pending.rebalances),
            workers: pending.workers,
        });
        self.standstills.extend(self.standing.take_longest());
        latency::add(&mut self.slip, &slip);
        let phases = shared.schedule.phases();
        let index = phases.iter().position(|phase| (phase.begin_us..phase.end_us).contains(&before.at_us));
        if let Some(sums) = index.map(|index| &mut self.phases[index]) {
            sums.sent += sent.sent - before.sent.sent;
            latency::add(&mut sums.slip, &slip);
            latency::add(&mut sums.latency, &latency);
        }
        if index.is_none_or(|index| !phases[index].warm_up) {
            latency::add(&mut self.latency, &latency);
        }
    }

    /// When the running interval began.
    pub(super) fn interval_begun_us(&self) -> u64 {
        self.before.at_us
    }

    /// When the next interval ends: at a whole number of intervals, or with a phase.
    pub(super) fn next_look_us(&self, interval: Duration) -> u64 {
        let interval_us = u64::try_from(interval.as_micros()).unwrap_or(u64::MAX);
        let regular = (self.before.at_us / interval_us + 1) * interval_us;
        let ends = self.shared.schedule.phases().iter().map(|phase| phase.end_us);
        ends.filter(|end| *end > self.before.at_us).chain([regular]).min().unwrap_or(regular)
    }

    /// The phases with what was found in them.
    pub(super) fn phases(&self) -> Vec<Phase> {
        let of = |(timed, sums): (&super::schedule::Timed, &PhaseSums)| Phase {
            name: timed.name.clone(),
            warm_up: timed.warm_up,
            begin_s: seconds(timed.begin_us),
            end_s: seconds(timed.end_us),
            intended: self.shared.intended_before(timed.end_us) - self.shared.intended_before(timed.begin_us),
            sent: sums.sent,
            slip: Percentiles::of(&sums.slip),
            latency: Percentiles::of(&sums.latency),
        };
        self.shared.schedule.phases().iter().zip(&self.phases).map(of).collect()
    }

    /// The longest standstill that a rebalance was part of. One is noticed with the interval in which it ends, and a frozen
    /// worker tells of it later, so intervals beside it count.
    pub(super) fn longest_pause(&self) -> Duration {
        let begun = self.shared.clock.begun;
        let at = |seconds: f64| begun + Duration::from_secs_f64(seconds.max(0.0));
        let under_way = |still: &&Standstill| {
            let rebalanced = self.intervals.iter().filter(|interval| interval.rebalances > 0);
            rebalanced.into_iter().any(|interval| {
                let margin = interval.length_s;
                let span = (at(interval.at_s - interval.length_s - margin), at(interval.at_s + margin));
                still.begin <= span.1 && still.end >= span.0
            })
        };
        self.standstills.iter().filter(under_way).map(Standstill::length).max().unwrap_or_default()
    }
}

impl Pending {
    /// Adds what a worker told beyond its last answer; says how many events it has batched since.
    fn add(&mut self, worker: &mut Watched, told: Told, now: Instant) -> f64 {
        let (last, since) = match worker.last.take() {
            // A worker that was started anew begins at nothing.
            Some((last, since)) if last.instance == told.instance => (last, Some(since)),
            _ => (Told::default(), None),
        };
        let more = |now: f64, before: f64| (now - before).max(0.0);
        let batched = more(told.batched_events, last.batched_events);
        self.batches += more(told.batches, last.batches);
        self.batched_events += batched;
        self.rebalances += more(told.rebalances, last.rebalances);
        self.lag_s = self.lag_s.max(told.lag_s);
        for (phase, seconds) in &told.loop_s {
            let before = last.loop_s.get(phase).copied().unwrap_or(0.0);
            *self.loop_s.entry(phase.clone()).or_default() += more(*seconds, before);
        }
        if let Some(latency) = &told.latency {
            let earlier = last.latency.unwrap_or_else(latency::histogram);
            let added = latency::since(&earlier, latency);
            let sum = self.latency.get_or_insert_with(latency::histogram);
            latency::add(sum, added.as_ref().unwrap_or(latency));
        }
        let elapsed_s = since.map_or(0.0, |since| (now - since).as_secs_f64());
        let used = Worker {
            address: worker.address.clone(),
            cpu_cores: if elapsed_s > 0.0 { more(told.cpu_s, last.cpu_s) / elapsed_s } else { 0.0 },
            memory_bytes: whole(told.memory_bytes),
            partitions: whole(told.partitions),
        };
        match self.workers.iter_mut().find(|worker| worker.address == used.address) {
            Some(there) => *there = used,
            None => self.workers.push(used),
        }
        worker.last = Some((told, now));
        batched
    }
}

#[expect(clippy::cast_precision_loss, reason = "microseconds of a run are far below 2^52")]
fn seconds(us: u64) -> f64 {
    us as f64 / 1e6
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count or bytes, and as saturates")]
fn whole(number: f64) -> u64 {
    number.round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(instance: &str, latencies: &[u64], batched_events: f64, cpu_s: f64) -> Told {
        let mut histogram = latency::histogram();
        latencies.iter().for_each(|us| histogram.saturating_record(*us));
        let latency = Some(histogram);
        Told { instance: instance.to_owned(), latency, batched_events, cpu_s, ..Told::default() }
    }

    #[test]
    fn a_worker_that_was_started_anew_begins_at_nothing() {
        let (mut pending, begun) = (Pending::default(), Instant::now());
        let mut worker = Watched { address: "w".to_owned(), last: Some((told("a", &[10, 20], 2.0, 5.0), begun)) };
        let second = begun + Duration::from_secs(1);
        assert_eq!(pending.add(&mut worker, told("a", &[10, 20, 30], 3.0, 5.5), second), 1.0);
        assert_eq!((pending.latency.as_ref().unwrap().len(), pending.workers[0].cpu_cores), (1, 0.5));
        // Another process at the same address has counted more by now than the first had: all of it is new.
        let third = begun + Duration::from_secs(2);
        assert_eq!(pending.add(&mut worker, told("b", &[10, 20, 30, 40], 4.0, 9.0), third), 4.0);
        let latency = pending.latency.unwrap();
        assert_eq!((latency.len(), latency.count_at(40), latency.count_at(30)), (5, 1, 2));
        assert_eq!(pending.workers.len(), 1);
    }
}
