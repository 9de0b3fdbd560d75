//! When each event is meant to be sent. It follows from the plan alone: nothing that the brokers or the machine do
//! shifts it.
//!
//! Within a phase whose rate goes from a to b in D seconds, the events before time t are a·t + (b − a)·t² / 2D; the k-th
//! (from 0) is meant for the time at which that is k.

use std::time::Duration;

use super::plan::Phase;

/// All events of a run, by number, in order of time.
#[derive(Debug, Clone)]
pub(super) struct Schedule {
    phases: Vec<Timed>,
}

/// A phase with its place in time and among the events.
#[derive(Debug, Clone)]
pub(super) struct Timed {
    pub(super) name: String,
    pub(super) warm_up: bool,
    pub(super) begin_us: u64,
    pub(super) end_us: u64,
    /// The number of its first event.
    first: u64,
    /// Its events, those of its burst first.
    pub(super) events: u64,
    burst: u64,
    from: f64,
    to: f64,
}

impl Schedule {
    pub(super) fn new(phases: &[Phase]) -> Self {
        let (mut begin_us, mut first) = (0, 0);
        let timed = phases.iter().map(|phase| {
            let length_us = micros(phase.duration);
            let (from, to) = phase.rates();
            let at_rate = (from + to) / 2.0 * phase.duration.as_secs_f64();
            let events = phase.burst.saturating_add(events_of(at_rate));
            let timed = Timed {
                name: phase.name.clone(),
                warm_up: phase.warm_up,
                begin_us,
                end_us: begin_us + length_us,
                first,
                events,
                burst: phase.burst,
                from,
                to,
            };
            (begin_us, first) = (timed.end_us, first.saturating_add(events));
            timed
        });
        Self { phases: timed.collect() }
    }

    pub(super) fn phases(&self) -> &[Timed] {
        &self.phases
    }

    /// All events.
    pub(super) fn events(&self) -> u64 {
        self.phases.last().map_or(0, |last| last.first.saturating_add(last.events))
    }

    /// When the last phase ends, in microseconds since the run's start.
    pub(super) fn end_us(&self) -> u64 {
        self.phases.last().map_or(0, |last| last.end_us)
    }

    /// When an event is meant to be sent, in microseconds since the run's start.
    pub(super) fn at_us(&self, event: u64) -> u64 {
        let index = self.phases.partition_point(|phase| phase.first <= event);
        match index.checked_sub(1).and_then(|index| self.phases.get(index)) {
            Some(phase) => phase.at_us(event - phase.first),
            None => 0,
        }
    }

    /// How many events are meant to be sent before a time.
    pub(super) fn events_before(&self, us: u64) -> u64 {
        let (mut low, mut high) = (0, self.events());
        while low < high {
            let middle = low + (high - low) / 2;
            if self.at_us(middle) < us {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }
}

impl Timed {
    #[expect(clippy::cast_precision_loss, reason = "numbers of events and microseconds are far below 2^52")]
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is from 0 to the phase's length")]
    fn at_us(&self, of_phase: u64) -> u64 {
        let Some(k) = of_phase.checked_sub(self.burst).filter(|k| *k > 0) else { return self.begin_us };
        let (k, length_s) = (k as f64, (self.end_us - self.begin_us) as f64 / 1e6);
        // The root in the form that divides by nothing small, also where the rate stays as it is.
        let root = (self.from * self.from + 2.0 * (self.to - self.from) * k / length_s).max(0.0).sqrt();
        let seconds = 2.0 * k / (self.from + root);
        (self.begin_us + (seconds * 1e6).round() as u64).min(self.end_us - 1)
    }
}

/// How many events have their time before the end; what rounding adds is no event.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is a number of events, not negative")]
fn events_of(at_rate: f64) -> u64 {
    (at_rate - 1e-6).ceil().max(0.0) as u64
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn phase(duration_ms: u64, from: f64, to: f64, burst: u64) -> Phase {
        Phase {
            name: "p".to_owned(),
            duration: Duration::from_millis(duration_ms),
            rate: None,
            from: Some(from),
            to: Some(to),
            burst,
            warm_up: false,
        }
    }

    fn times(phases: &[Phase]) -> Vec<u64> {
        let schedule = Schedule::new(phases);
        (0..schedule.events()).map(|event| schedule.at_us(event)).collect()
    }

    #[test]
    fn a_rate_is_even_from_the_first_microsecond() {
        let times = times(&[phase(2_000, 4.0, 4.0, 0)]);
        assert_eq!(times, [0, 250_000, 500_000, 750_000, 1_000_000, 1_250_000, 1_500_000, 1_750_000]);
    }

    #[test]
    fn a_ramp_follows_its_integral() {
        // 0 to 8 a second in 2 s: 2t² events before t, so the k-th at √(k/2).
        let expected: Vec<u64> = (0..8).map(|k| ((f64::from(k) / 2.0).sqrt() * 1e6).round() as u64).collect();
        assert_eq!(times(&[phase(2_000, 0.0, 8.0, 0)]), expected);
        // And down again: the same seen from the end, where the k-th from the last has k + 1 behind it.
        let down = times(&[phase(2_000, 8.0, 0.0, 0)]);
        let mirrored: Vec<u64> =
            (1..=8).rev().map(|k| 2_000_000 - ((f64::from(k) / 2.0).sqrt() * 1e6).round() as u64).collect();
        assert_eq!(down, mirrored);
    }

    #[test]
    fn a_burst_comes_at_once_at_its_phases_begin_beside_the_rate() {
        let times = times(&[phase(1_000, 2.0, 2.0, 0), phase(1_000, 2.0, 2.0, 3)]);
        assert_eq!(times, [0, 500_000, 1_000_000, 1_000_000, 1_000_000, 1_000_000, 1_500_000]);
    }

    #[test]
    fn phases_follow_each_other_without_a_gap() {
        let schedule = Schedule::new(&[phase(500, 0.0, 0.0, 5), phase(1_500, 1_000.0, 2_000.0, 0)]);
        let of =
            |at: usize| (schedule.phases()[at].begin_us, schedule.phases()[at].end_us, schedule.phases()[at].events);
        assert_eq!((of(0), of(1)), ((0, 500_000, 5), (500_000, 2_000_000, 2_250)));
        assert_eq!((schedule.events(), schedule.end_us()), (2_255, 2_000_000));
    }

    #[test]
    fn a_fraction_of_an_event_at_the_end_has_its_time_before_it() {
        assert_eq!(times(&[phase(1_000, 2.5, 2.5, 0)]), [0, 400_000, 800_000]);
        assert_eq!(times(&[phase(30_000, 0.1, 0.1, 0)]).len(), 3, "0.1 · 30 is three");
    }

    proptest! {
        #[test]
        fn events_are_in_order_within_their_phases_and_counted_by_time(
            lengths in prop::collection::vec((1u64..3_000, 0.0..500.0_f64, 0.0..500.0_f64, 0u64..20), 1..5),
            moment in 0u64..15_000_000,
        ) {
            let phases: Vec<Phase> = lengths.iter().map(|(ms, from, to, burst)| phase(*ms, *from, *to, *burst)).collect();
            let schedule = Schedule::new(&phases);
            let times = times(&phases);
            prop_assert!(times.is_sorted());
            for timed in schedule.phases() {
                let range = timed.first..timed.first + timed.events;
                prop_assert!(range.clone().all(|event| (timed.begin_us..timed.end_us).contains(&times[event as usize])));
            }
            prop_assert_eq!(schedule.events_before(moment), times.iter().filter(|at| **at < moment).count() as u64);
        }
    }
}
