//! A fleet that follows `weir_desired_replicas`: a small scaler that adds up what the workers ask for, and starts and stops
//! processes. It takes four minutes: `make test-scaling`.

use std::time::{Duration, Instant};

use super::audit::audit;
use super::load::{Plan, Published, publish};
use super::until;
use super::worker::Worker;
use super::world::World;

/// How often a horizontal autoscaler looks.
const LOOK: Duration = Duration::from_secs(15);
const CLEAR_WITHIN: Duration = Duration::from_secs(30);

/// Two transactions at a time, and rows that take 4 ms each: nearly 500 events a second a worker, whatever its partitions.
async fn slow_world() -> (World, String) {
    let world = World::alone(8).await;
    world
        .sql(
            "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.004); RETURN NEW; END $$;
             CREATE TRIGGER slow BEFORE INSERT ON messages FOR EACH ROW EXECUTE FUNCTION slow()",
        )
        .await;
    let scaling =
        format!("max_poll_records = 100\nscaling = {{ clear_within = \"{CLEAR_WITHIN:?}\", down_after = \"40s\" }}");
    let config = world.config(&scaling).replace("[redis]", "connections = 2\n[redis]");
    (world, config)
}

struct Fleet<'a> {
    world: &'a World,
    config: &'a str,
    workers: Vec<Worker>,
}

impl Fleet<'_> {
    fn wanted(&self) -> f64 {
        self.workers.iter().map(|worker| worker.metric("weir_desired_replicas", "")).sum()
    }

    fn lag(&self) -> f64 {
        self.workers.iter().map(|worker| worker.metric("weir_lag_events", "")).sum()
    }

    async fn scale(&mut self, workers: usize) {
        while self.workers.len() > workers {
            let (status, _) = self.workers.pop().unwrap().terminate();
            assert!(status.success(), "{status}");
        }
        while self.workers.len() < workers {
            self.workers.push(Worker::start_configured(self.world, self.config).await);
        }
    }

    /// Follows for a while: the numbers of workers that there were.
    async fn follow(&mut self, time: Duration) -> Vec<usize> {
        let (begun, mut counts) = (Instant::now(), vec![self.workers.len()]);
        while begun.elapsed() < time {
            tokio::time::sleep(LOOK).await;
            let wanted = self.wanted();
            println!("{:?}: {} workers, {wanted:.2} wanted, lag {}", begun.elapsed(), self.workers.len(), self.lag());
            // What is a twentieth above a number is that number.
            let workers = (wanted - 0.05).ceil().max(1.0) as usize;
            if workers != self.workers.len() {
                self.scale(workers).await;
                counts.push(workers);
            }
        }
        counts
    }
}

fn load(seed: u64, per_second: u64, seconds: u64) -> Plan {
    let events = per_second * seconds;
    Plan { per_second, repeats_per_mille: 0, poison_per_mille: 0, ..Plan::new(seed, events) }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "four minutes: make test-scaling"]
async fn a_fleet_that_follows_clears_its_backlog_in_time_and_does_not_flap() {
    let (world, config) = slow_world().await;
    let mut fleet = Fleet { world: &world, config: &config, workers: Vec::new() };
    fleet.scale(1).await;
    fleet.workers[0].owns(8).await;
    let mut all = Published::default();
    for (seed, per_second, seconds, at_least, at_most) in
        [(100, 250, 30, 1, 1), (101, 1_300, 100, 3, 6), (102, 250, 100, 1, 2)]
    {
        let time = Duration::from_secs(seconds);
        let (published, counts) = tokio::join!(publish(&world, load(seed, per_second, seconds)), fleet.follow(time));
        println!("{per_second} a second: {counts:?} workers");
        assert!(counts.len() <= 3, "more than two changes: {counts:?}");
        let now = *counts.last().unwrap();
        assert!((at_least..=at_most).contains(&now), "{per_second} a second: {counts:?}");
        until("the backlog to be cleared", CLEAR_WITHIN, async || {
            let lag = fleet.lag();
            (lag < per_second as f64 * 2.0, lag)
        })
        .await;
        all.live.extend(published.live);
        all.records += published.records;
    }
    world.drained(CLEAR_WITHIN * 2).await;
    drop(fleet);
    audit(&world, &all).await;
}
