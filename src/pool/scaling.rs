//! How many workers a pool wants: the arithmetic, without clocks, Kafka or metrics. docs/scaling.md has it in words.
//!
//! Each worker asks for its own partitions, and the wanted number is the sum over the fleet: what arrives there and what
//! has to be cleared in time, over what a worker like it handles. No partition asks for more than one worker, since it is
//! handled by one task; so the sum is never above the number of partitions with work.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::config;

/// Over how long arrivals are averaged.
const ARRIVALS_OVER: Duration = Duration::from_secs(15);
/// What was handled is taken by windows of this length, and so many of them are kept.
const WINDOW: Duration = Duration::from_secs(5);
const WINDOWS_KEPT: usize = 24;
/// How long a worker whose partitions have changed asks for itself only: what it sees then is the rebalance.
const SETTLING: Duration = Duration::from_secs(15);
/// What is wanted may be off by this part before it is followed.
const TOLERANCE: f64 = 0.1;
/// Whether something limits the worker is looked at over so many samples.
const LIMITS_KEPT: usize = 10;

/// Where a partition stands: the ledger's offset and the log's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) next: i64,
    pub(super) end: i64,
}

impl Place {
    fn lag(self) -> f64 {
        events(self.end - self.next)
    }
}

/// By topic and partition.
pub(super) type Places = BTreeMap<(String, i32), Place>;

/// What a worker sees at a moment.
#[derive(Debug)]
pub(super) struct Sample<'a> {
    /// Since any beginning.
    pub(super) at: Duration,
    /// By the clock that the fleet shares: since 1970.
    pub(super) clock: Duration,
    /// Its partitions whose place is known.
    pub(super) places: &'a Places,
    /// The partitions of the pool's topics.
    pub(super) of_topics: usize,
    /// The database or the group's rate is what limits: more workers would handle no more.
    pub(super) is_limited: bool,
    pub(super) is_paused: bool,
}

/// What was handled in a window in which a backlog was there all the time.
#[derive(Debug, Clone, Copy)]
struct Window {
    /// The partitions with a backlog.
    lagging: usize,
    per_s: f64,
}

/// A window that is not over yet.
#[derive(Debug)]
struct Opened {
    at: Duration,
    places: Places,
    /// The least lag of each partition since.
    least: BTreeMap<(String, i32), f64>,
}

impl Opened {
    fn at(at: Duration, places: &Places) -> Self {
        let least = places.iter().map(|(name, place)| (name.clone(), place.lag())).collect();
        Self { at, places: places.clone(), least }
    }
}

/// What a worker asks for.
#[derive(Debug)]
pub(super) struct Scaling {
    settings: config::Scaling,
    last: Option<(Duration, Places)>,
    /// When its partitions changed last.
    changed_at: Duration,
    /// By partition, in events a second.
    arrivals: BTreeMap<(String, i32), f64>,
    opened: Option<Opened>,
    windows: VecDeque<Window>,
    limits: VecDeque<bool>,
    /// What is asked for, apart from limits and bounds.
    level: f64,
    /// Since when less is wanted, and the most of it since half of the time for which it must be.
    below: Option<(Duration, f64)>,
    /// The moment of the fleet's clock at which less could be asked for last.
    turn: u128,
    share: f64,
}

impl Scaling {
    pub(super) fn new(settings: config::Scaling) -> Self {
        Self {
            settings,
            last: None,
            changed_at: Duration::ZERO,
            arrivals: BTreeMap::new(),
            opened: None,
            windows: VecDeque::new(),
            limits: VecDeque::new(),
            level: 1.0,
            below: None,
            turn: 0,
            share: 0.0,
        }
    }

    /// Takes a sample: this worker's share of the wanted number.
    pub(super) fn note(&mut self, sample: &Sample<'_>) -> f64 {
        // A pause says nothing of what will be wanted after it.
        if sample.is_paused {
            (self.last, self.opened) = (None, None);
            return self.share;
        }
        keep(&mut self.limits, sample.is_limited, LIMITS_KEPT);
        let is_same = self.last.as_ref().is_some_and(|(_, last)| last.keys().eq(sample.places.keys()));
        if !is_same {
            self.begin_anew(sample);
        } else if let Some((at, last)) = self.last.take() {
            self.note_arrivals(sample, at, &last);
            self.note_window(sample);
        }
        self.last = Some((sample.at, sample.places.clone()));
        self.share = self.next_share(sample);
        self.share
    }

    fn begin_anew(&mut self, sample: &Sample<'_>) {
        self.changed_at = sample.at;
        self.arrivals.clear();
        self.opened = None;
        // As many as there are: fewer only once they have been too many for long enough.
        (self.level, self.below) = (1.0, None);
    }

    /// The mean from when the partitions changed, until that is long enough; then an average that forgets.
    fn note_arrivals(&mut self, sample: &Sample<'_>, at: Duration, last: &Places) {
        let step = (sample.at - at).as_secs_f64();
        let so_far = (sample.at - self.changed_at).as_secs_f64();
        if step <= 0.0 {
            return;
        }
        let weight = (step / ARRIVALS_OVER.as_secs_f64().min(so_far)).min(1.0);
        for (name, place) in sample.places {
            let Some(before) = last.get(name) else { continue };
            let per_s = events((place.end - before.end).max(0)) / step;
            let mean = self.arrivals.entry(name.clone()).or_default();
            *mean += (per_s - *mean) * weight;
        }
    }

    fn note_window(&mut self, sample: &Sample<'_>) {
        let Some(opened) = &mut self.opened else {
            self.opened = Some(Opened::at(sample.at, sample.places));
            return;
        };
        for (name, place) in sample.places {
            let least = opened.least.entry(name.clone()).or_default();
            *least = least.min(place.lag());
        }
        let took = sample.at - opened.at;
        if took < WINDOW {
            return;
        }
        let took = took.as_secs_f64();
        let (mut lagging, mut handled) = (0, 0.0);
        for (name, now) in sample.places {
            let Some(then) = opened.places.get(name) else { continue };
            // A place that went back was moved on purpose.
            let here = events((now.next - then.next).max(0));
            handled += here;
            // What is in hand is no backlog: as much must wait as is handled in a second.
            let second = (here / took).max(1.0);
            lagging += usize::from(opened.least.get(name).is_some_and(|least| *least > second));
        }
        if lagging > 0 && handled > 0.0 {
            keep(&mut self.windows, Window { lagging, per_s: handled / took }, WINDOWS_KEPT);
        }
        self.opened = Some(Opened::at(sample.at, sample.places));
    }

    /// Events a second that a worker like this handles, as far as it is known: the median of the windows in which at
    /// least half as many partitions had a backlog as in the one with the most.
    fn capacity(&self) -> Option<f64> {
        let most = self.windows.iter().map(|window| window.lagging).max()?;
        let full = self.windows.iter().filter(|window| window.lagging * 2 >= most);
        let mut rates: Vec<f64> = full.map(|window| window.per_s).collect();
        let middle = rates.len() / 2;
        Some(*rates.select_nth_unstable_by(middle, f64::total_cmp).1)
    }

    fn next_share(&mut self, sample: &Sample<'_>) -> f64 {
        if sample.places.is_empty() {
            return 0.0;
        }
        let is_turn = self.take_turn(sample.clock);
        let wanted = match self.wanted(sample) {
            Some(wanted) if sample.at - self.changed_at >= SETTLING => self.held(wanted, sample.at, is_turn),
            _ => self.level,
        };
        let limited = self.limits.iter().filter(|limited| **limited).count();
        let wanted = if limited * 2 > LIMITS_KEPT { wanted.min(1.0) } else { wanted };
        self.bounded(wanted, sample)
    }

    /// Workers for this worker's partitions. `None`: there is work, and it is not known how much of it one worker does.
    fn wanted(&self, sample: &Sample<'_>) -> Option<f64> {
        let clear_s = self.settings.clear_within.as_secs_f64();
        let arrivals = |name| self.arrivals.get(name).copied().unwrap_or_default();
        let loads = sample.places.iter().map(|(name, place)| arrivals(name) + place.lag() / clear_s);
        let Some(capacity) = self.capacity() else { return (loads.sum::<f64>() <= 0.0).then_some(0.0) };
        let wanted = loads.map(|load| (load / capacity).min(1.0)).sum::<f64>();
        // A worker that keeps up is enough for its partitions, whatever was measured when it had fewer.
        let is_behind = sample.places.iter().any(|(name, place)| place.lag() > arrivals(name).max(1.0));
        Some(if is_behind { wanted } else { wanted.min(1.0) })
    }

    /// Whether a moment has come at which less may be asked for: the workers of a fleet have them together, or the sum would
    /// come down worker by worker, and a scaler would follow it through rebalance after rebalance.
    fn take_turn(&mut self, clock: Duration) -> bool {
        let turn = clock.as_millis() / (self.settings.down_after / 2).as_millis().max(1);
        std::mem::replace(&mut self.turn, turn) != turn
    }

    /// Follows what is wanted upwards when it is clearly more, and downwards when it has been clearly less for long
    /// enough and it is the moment for that; then to the most since half of that time.
    fn held(&mut self, wanted: f64, at: Duration, is_turn: bool) -> f64 {
        let level = self.level;
        if wanted > level * (1.0 + TOLERANCE) {
            (self.level, self.below) = (wanted, None);
        } else if wanted < level * (1.0 - TOLERANCE) {
            let (since, most) = self.below.unwrap_or((at, wanted));
            // In the first half it may still be falling.
            let most = if at - since < self.settings.down_after / 2 { wanted } else { most.max(wanted) };
            self.below = Some((since, most));
            if is_turn && at - since >= self.settings.down_after {
                (self.level, self.below) = (most, None);
            }
        } else {
            self.below = None;
        }
        self.level
    }

    /// The bounds are the pool's, and a worker keeps to its partitions' part of them.
    #[expect(clippy::cast_precision_loss, reason = "partitions are far fewer than 2^52")]
    fn bounded(&self, wanted: f64, sample: &Sample<'_>) -> f64 {
        let own = sample.places.len();
        let part = own as f64 / sample.of_topics.max(own) as f64;
        let least = f64::from(self.settings.min) * part;
        let most = self.settings.max.map_or(f64::INFINITY, |max| f64::from(max) * part);
        wanted.max(least).min(most)
    }
}

fn keep<V>(values: &mut VecDeque<V>, value: V, most: usize) {
    if values.len() == most {
        values.pop_front();
    }
    values.push_back(value);
}

/// What lies behind the log's end, as after a restore, is none.
#[expect(clippy::cast_precision_loss, reason = "offsets are far below 2^52")]
fn events(offsets: i64) -> f64 {
    offsets.max(0) as f64
}

#[cfg(test)]
mod tests;
