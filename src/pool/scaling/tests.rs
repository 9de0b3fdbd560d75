//! Fleets on a clock of their own: steps, noise, a busy database, one partition with all the load.

use super::*;

/// Workers that share partitions evenly, each of which handles so much, on one clock; second by second.
struct Fleet {
    workers: Vec<(Scaling, Places)>,
    /// Arrivals a second of each partition.
    arrivals: Vec<f64>,
    capacity: f64,
    /// What all workers together may handle.
    database: f64,
    noise: f64,
    rng: fastrand::Rng,
    at: u64,
    settings: config::Scaling,
    ends: Vec<f64>,
    nexts: Vec<f64>,
}

impl Fleet {
    fn new(workers: usize, partitions: usize, capacity: f64) -> Self {
        let settings = config::Scaling {
            clear_within: Duration::from_secs(60),
            down_after: Duration::from_secs(60),
            min: 1,
            max: None,
        };
        let mut fleet = Self {
            workers: Vec::new(),
            arrivals: vec![0.0; partitions],
            capacity,
            database: f64::INFINITY,
            noise: 0.0,
            rng: fastrand::Rng::with_seed(7),
            at: 0,
            settings,
            ends: vec![0.0; partitions],
            nexts: vec![0.0; partitions],
        };
        fleet.scale(workers);
        fleet
    }

    fn scale(&mut self, workers: usize) {
        self.workers.resize_with(workers, || (Scaling::new(self.settings.clone()), Places::new()));
    }

    fn load(&mut self, per_s: f64) {
        let each = per_s / self.arrivals.len() as f64;
        self.arrivals.fill(each);
    }

    fn lag(&self) -> f64 {
        self.ends.iter().zip(&self.nexts).map(|(end, next)| end - next).sum()
    }

    /// A worker's capacity goes to its partitions with lag, evenly; none takes more than half of it.
    fn work(&mut self, worker: usize) {
        let count = self.workers.len();
        let own: Vec<usize> = (worker..self.ends.len()).step_by(count).collect();
        let behind = own.iter().filter(|p| self.ends[**p] - self.nexts[**p] >= 1.0).count().max(1);
        let capacity = self.capacity.min(self.database / count as f64);
        let each = (capacity / behind as f64).min(capacity / 2.0);
        for p in own {
            self.nexts[p] += each.min(self.ends[p] - self.nexts[p]);
        }
    }

    /// A second; the wanted number.
    fn second(&mut self) -> f64 {
        self.at += 1;
        for p in 0..self.ends.len() {
            let noise = 1.0 + self.noise * (self.rng.f64() * 2.0 - 1.0);
            self.ends[p] += self.arrivals[p] * noise;
        }
        let mut wanted = 0.0;
        let (count, partitions) = (self.workers.len(), self.ends.len());
        for worker in 0..count {
            self.work(worker);
            let place = |p: usize| Place { next: self.nexts[p] as i64, end: self.ends[p] as i64 };
            let places = (worker..partitions).step_by(count).map(|p| (("t".to_owned(), p as i32), place(p)));
            self.workers[worker].1 = places.collect();
            let is_limited = self.capacity * count as f64 > self.database && self.lag() > 0.0;
            let (scaling, places) = &mut self.workers[worker];
            let at = Duration::from_secs(self.at);
            wanted +=
                scaling.note(&Sample { at, clock: at, places, of_topics: partitions, is_limited, is_paused: false });
        }
        wanted
    }

    /// The wanted number after a while without anybody following it.
    fn after(&mut self, seconds: u64) -> f64 {
        (0..seconds).map(|_| self.second()).last().unwrap()
    }

    /// The numbers of workers that there were, by a scaler that follows every 15 s.
    fn followed(&mut self, seconds: u64) -> Vec<usize> {
        let mut counts = vec![self.workers.len()];
        for second in 1..=seconds {
            let wanted = (self.second() - 0.001).ceil() as usize;
            if second % 15 == 0 && wanted != self.workers.len() {
                self.scale(wanted);
                counts.push(wanted);
            }
        }
        counts
    }
}

#[test]
fn a_step_up_is_followed_at_once_and_clears_in_time() {
    let mut fleet = Fleet::new(1, 12, 1_000.0);
    fleet.load(500.0);
    assert_eq!(fleet.followed(120), [1]);
    fleet.load(3_500.0);
    let counts = fleet.followed(120);
    assert!(counts.len() <= 4 && counts.is_sorted(), "{counts:?}");
    assert!((4..=6).contains(counts.last().unwrap()), "{counts:?}");
    let lag = fleet.lag();
    fleet.followed(120);
    assert!(fleet.lag() < 1_000.0, "{lag} was left, and then {}", fleet.lag());
}

#[test]
fn a_step_down_is_followed_only_when_it_stays() {
    let mut fleet = Fleet::new(4, 12, 1_000.0);
    fleet.load(5_000.0);
    fleet.after(60);
    fleet.load(3_300.0);
    fleet.after(300);
    let before = fleet.after(1).ceil() as usize;
    assert_eq!(before, 4);
    fleet.load(800.0);
    assert_eq!(fleet.after(40).ceil() as usize, before, "less for a moment");
    fleet.load(3_300.0);
    assert_eq!(fleet.after(120).ceil() as usize, before);
    fleet.load(800.0);
    let counts = fleet.followed(600);
    assert!(counts.len() <= 3 && *counts.last().unwrap() == 1, "{counts:?}");
}

#[test]
fn noise_changes_nothing() {
    let mut fleet = Fleet::new(3, 12, 1_000.0);
    fleet.noise = 0.8;
    fleet.load(4_000.0);
    fleet.after(60);
    fleet.load(2_500.0);
    fleet.after(200);
    let counts = fleet.followed(1_800);
    assert!(counts.len() <= 2, "{counts:?}");
}

#[test]
fn a_saturated_database_is_not_asked_for_more() {
    let mut fleet = Fleet::new(3, 12, 1_000.0);
    fleet.database = 2_000.0;
    fleet.load(5_000.0);
    let counts = fleet.followed(600);
    assert_eq!(counts, [3], "more workers would handle no more");
}

#[test]
fn an_idle_pool_wants_its_least() {
    let mut fleet = Fleet::new(4, 12, 1_000.0);
    assert!((fleet.after(120) - 1.0).abs() < 1e-9);
    let mut fleet = Fleet::new(4, 12, 1_000.0);
    fleet.settings.min = 2;
    fleet.workers.clear();
    fleet.scale(4);
    assert!((fleet.after(120) - 2.0).abs() < 1e-9);
}

#[test]
fn partitions_with_lag_are_the_most_that_is_wanted() {
    let mut fleet = Fleet::new(1, 12, 1_000.0);
    fleet.arrivals[5] = 20_000.0;
    let counts = fleet.followed(300);
    assert!(counts.iter().all(|count| *count <= 2), "one partition is handled by one worker: {counts:?}");
    let mut fleet = Fleet::new(2, 3, 1_000.0);
    fleet.load(50_000.0);
    let wanted = fleet.after(120);
    assert!((wanted - 3.0).abs() < 1e-9, "{wanted}");
}

#[test]
fn the_sum_is_right_where_workers_see_different_partitions() {
    let wanted = |workers: usize| {
        let mut fleet = Fleet::new(workers, 12, 1_000.0);
        fleet.load(8_000.0);
        fleet.after(60);
        fleet.load(2_600.0);
        // The backlog goes, and what arrives is what is wanted.
        for p in 0..12 {
            fleet.nexts[p] = fleet.ends[p];
        }
        fleet.after(300)
    };
    for workers in [3, 4, 5] {
        let wanted = wanted(workers);
        assert!((2.4..=2.9).contains(&wanted), "{workers} workers want {wanted}");
    }
}

#[test]
fn the_most_is_kept_to() {
    let mut fleet = Fleet::new(2, 12, 1_000.0);
    fleet.settings.max = Some(3);
    fleet.workers.clear();
    fleet.scale(2);
    fleet.load(50_000.0);
    assert!((fleet.after(120) - 3.0).abs() < 1e-9);
}

#[test]
fn a_worker_asks_for_itself_until_it_knows_what_it_can_do() {
    let mut fleet = Fleet::new(3, 12, 1_000.0);
    fleet.load(100.0);
    let wanted = fleet.after(120);
    assert!((wanted - 3.0).abs() < 1e-9, "it keeps up, and nobody has seen it at its limit: {wanted}");
    fleet.load(10_000.0);
    fleet.after(30);
    fleet.scale(4);
    assert!((fleet.after(2) - 4.0).abs() < 1e-9, "right after a rebalance as many as there are");
}

#[test]
fn what_is_a_tenth_off_is_not_followed() {
    let mut scaling = Fleet::new(1, 1, 1.0).workers.remove(0).0;
    let second = Duration::from_secs;
    assert_eq!(scaling.held(1.09, second(0), true), 1.0);
    for at in 1..600 {
        assert_eq!(scaling.held(0.91, second(at), true), 1.0);
    }
    assert_eq!(scaling.held(1.2, second(600), true), 1.2);
}

#[test]
fn a_backlog_is_wanted_to_be_cleared_in_time() {
    let mut fleet = Fleet::new(1, 12, 1_000.0);
    fleet.load(500.0);
    fleet.ends.fill(120_000.0 / 12.0);
    let wanted = fleet.after(30);
    assert!((2.0..=2.6).contains(&wanted), "500 arrive a second, and 120,000 wait for a minute: {wanted}");
}

#[test]
fn what_is_in_hand_is_no_backlog() {
    let mut scaling = Fleet::new(1, 1, 1.0).workers.remove(0).0;
    for second in 0..120 {
        let place = Place { next: 100 * second, end: 100 * second + 60 };
        let places = Places::from([(("t".to_owned(), 0), place)]);
        let at = Duration::from_secs(second.unsigned_abs());
        scaling.note(&Sample { at, clock: at, places: &places, of_topics: 1, is_limited: false, is_paused: false });
    }
    assert_eq!(scaling.capacity(), None, "it keeps up, which says nothing of what it could do");
}

#[test]
fn a_step_down_takes_few_changes_however_slowly_its_arrivals_are_seen_to_fall() {
    let mut fleet = Fleet::new(1, 8, 480.0);
    fleet.settings.clear_within = Duration::from_secs(30);
    fleet.settings.down_after = Duration::from_secs(40);
    fleet.workers.clear();
    fleet.scale(1);
    fleet.load(1_300.0);
    fleet.followed(200);
    fleet.load(250.0);
    let counts = fleet.followed(300);
    assert!(counts[0] >= 3 && counts.len() <= 3 && *counts.last().unwrap() == 1, "{counts:?}");
}

#[test]
fn a_step_down_goes_to_what_was_wanted_once_it_had_settled() {
    let mut scaling = Fleet::new(1, 1, 1.0).workers.remove(0).0;
    let level = (0..=60_u32).map(|at| {
        let wanted = (0.8 - f64::from(at) / 40.0).max(0.2);
        scaling.held(wanted, Duration::from_secs(at.into()), true)
    });
    assert_eq!(level.last(), Some(0.2));
}

#[test]
fn a_capacity_is_that_of_times_when_most_partitions_had_a_backlog() {
    let mut scaling = Fleet::new(1, 1, 1.0).workers.remove(0).0;
    scaling.windows.extend([Window { lagging: 1, per_s: 250.0 }; 10]);
    assert_eq!(scaling.capacity(), Some(250.0));
    scaling.windows.extend([Window { lagging: 4, per_s: 1_000.0 }; 3]);
    assert_eq!(scaling.capacity(), Some(1_000.0));
}

#[test]
fn bursts_that_are_handled_are_no_backlog() {
    let mut scaling = Fleet::new(1, 1, 1.0).workers.remove(0).0;
    for second in 0..120_i64 {
        // 500 at once every fifth second, at which a window ends, handled within four.
        let (bursts, since) = (second / 5 + 1, second % 5);
        let next = (bursts - 1) * 500 + (since * 125).min(500);
        let places = Places::from([(("t".to_owned(), 0), Place { next, end: bursts * 500 })]);
        let at = Duration::from_secs(second.unsigned_abs());
        scaling.note(&Sample { at, clock: at, places: &places, of_topics: 1, is_limited: false, is_paused: false });
    }
    assert_eq!(scaling.capacity(), None, "100 a second were all that there was");
}

#[test]
fn a_fleet_comes_down_together_whenever_each_worker_saw_its_backlog_go() {
    let mut fleet = Fleet::new(5, 10, 1_000.0);
    fleet.load(6_000.0);
    fleet.after(60);
    fleet.load(1_500.0);
    // Each worker's backlog goes three seconds after the one before it.
    let cleared = fleet.after(1);
    assert!(cleared > 4.5, "{cleared}");
    let mut sums = vec![cleared];
    for second in 0..200 {
        for worker in 0..5 {
            for p in (worker..10).step_by(5) {
                let waits = if second < worker * 3 { 60_000.0 } else { 0.0 };
                fleet.nexts[p] = fleet.nexts[p].max(fleet.ends[p] - waits);
            }
        }
        let sum = fleet.second();
        if (sum - sums.last().unwrap()).abs() > 0.3 {
            sums.push(sum);
        }
    }
    assert!(sums.len() <= 3 && *sums.last().unwrap() < 2.0, "it came down by steps: {sums:?}");
}
