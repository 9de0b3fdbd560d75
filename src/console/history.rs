//! What happened lately, a point a second: live charts begin with a past.

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use super::model::Point;
use crate::metrics::PoolFigures;
use crate::pool::PartitionStanding;

/// Points kept: a quarter of an hour.
pub(super) const POINTS_MAX: usize = 900;

/// A pool's points, and what the next one is reckoned from.
#[derive(Default)]
pub(super) struct History {
    points: VecDeque<Point>,
    before: Option<Before>,
}

struct Before {
    at: Instant,
    figures: PoolFigures,
    ends: HashMap<(String, i32), i64>,
}

impl History {
    /// Takes a look: the first one makes no point.
    pub(super) fn note(&mut self, at: Instant, at_ms: i64, figures: PoolFigures, standings: &[PartitionStanding]) {
        let end = |one: &PartitionStanding| Some(((one.topic.clone(), one.partition), one.behind?.end));
        let ends: HashMap<(String, i32), i64> = standings.iter().filter_map(end).collect();
        if let Some(before) = &self.before {
            self.points.push_back(point(before, at, at_ms, &figures, &ends, standings));
        }
        while self.points.len() > POINTS_MAX {
            self.points.pop_front();
        }
        self.before = Some(Before { at, figures, ends });
    }

    /// The points that are younger than a moment.
    pub(super) fn after(&self, ms: i64) -> Vec<Point> {
        let old = self.points.partition_point(|point| point.at_ms <= ms);
        self.points.range(old..).cloned().collect()
    }
}

fn point(
    before: &Before,
    at: Instant,
    at_ms: i64,
    now: &PoolFigures,
    ends: &HashMap<(String, i32), i64>,
    standings: &[PartitionStanding],
) -> Point {
    let seconds = at.duration_since(before.at).as_secs_f64().max(0.001);
    // Only of partitions that were there before: one that has just come brings its past along.
    let arrived = ends.iter().filter_map(|(name, end)| Some((end - before.ends.get(name)?).max(0))).sum::<i64>();
    let spent: Vec<f64> =
        now.loop_s.iter().zip(before.figures.loop_s).map(|(now, then)| (now - then).max(0.0)).collect();
    let whole: f64 = spent.iter().sum();
    let (lag, lag_ms) = behind(standings);
    let (events, batches) = (now.events - before.figures.events, now.batches.saturating_sub(before.figures.batches));
    #[expect(clippy::cast_precision_loss, reason = "what comes in a second is far below 2^52")]
    Point {
        at_ms,
        in_per_s: round(arrived as f64 / seconds),
        out_per_s: round(events / seconds),
        dead_per_s: round(now.dead.saturating_sub(before.figures.dead) as f64 / seconds),
        lag,
        lag_ms,
        batch: if batches == 0 { 0.0 } else { round(events / batches as f64) },
        loop_share: spent.iter().map(|spent| if whole > 0.0 { round(spent / whole) } else { 0.0 }).collect(),
    }
}

/// Events not settled, and the age of the oldest.
pub(super) fn behind(standings: &[PartitionStanding]) -> (i64, i64) {
    let all = standings.iter().filter_map(|one| one.behind);
    all.fold((0, 0), |(events, age_ms), one| (events + one.events, age_ms.max(one.age_ms)))
}

/// Three digits behind the point are enough for any plot.
fn round(value: f64) -> f64 {
    (value * 1_000.0).round() / 1_000.0
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::pool::{Behind, Phase};

    fn standing(partition: i32, end: i64, events: i64) -> PartitionStanding {
        PartitionStanding {
            topic: "t".to_owned(),
            partition,
            phase: Phase::Polling,
            next_offset: Some(end - events),
            batch_events_max: 500,
            owner: None,
            behind: Some(Behind { end, events, age_ms: events * 10 }),
            in_phase_for: Duration::ZERO,
            settled_ago: None,
        }
    }

    #[test]
    fn a_point_tells_what_came_and_went_since_the_one_before() {
        let (mut history, begun) = (History::default(), Instant::now());
        let mut figures = PoolFigures { events: 100.0, batches: 1, ..PoolFigures::default() };
        history.note(begun, 1_000, figures, &[standing(0, 500, 30)]);
        assert!(history.after(0).is_empty(), "a rate needs two looks");
        figures = PoolFigures { events: 300.0, batches: 3, dead: 4, ..figures };
        figures.loop_s[0] = 1.5;
        figures.loop_s[6] = 0.5;
        history.note(begun + Duration::from_secs(2), 3_000, figures, &[standing(0, 700, 40), standing(1, 9_000, 2)]);
        let points = history.after(0);
        let [point] = &points[..] else { panic!("{points:?}") };
        assert_eq!(
            (point.in_per_s, point.out_per_s, point.dead_per_s),
            (100.0, 100.0, 2.0),
            "partition 1 has just come"
        );
        assert_eq!((point.lag, point.lag_ms, point.batch), (42, 400, 100.0));
        assert_eq!((point.loop_share[0], point.loop_share[6], point.loop_share[1]), (0.75, 0.25, 0.0));
        assert!(history.after(3_000).is_empty());
    }

    #[test]
    fn the_past_has_an_end() {
        let (mut history, begun) = (History::default(), Instant::now());
        for second in 0..2 * POINTS_MAX as u64 {
            let at = begun + Duration::from_secs(second);
            history.note(at, second as i64 * 1_000, PoolFigures::default(), &[]);
        }
        let points = history.after(0);
        assert_eq!(points.len(), POINTS_MAX);
        assert_eq!(history.after(points[POINTS_MAX - 3].at_ms).len(), 2);
    }
}
