//! All at once: repeats, poison, workers that come, go and are killed, Redis and PostgreSQL away for a while.

use std::time::{Duration, Instant};

use fastrand::Rng;
use rdkafka::consumer::BaseConsumer;
use uuid::Uuid;

use super::audit::{Sampler, audit, committed};
use super::load::{Plan, publish};
use super::worker::Worker;
use super::world::{World, kafka, service};
use super::zombie::is_inside_transaction;
use super::{PATIENCE, until};

const SEED: u64 = 42;
const EVENTS: u64 = 500_000;
/// Slow enough that everything below happens under load.
const PER_SECOND: u64 = 5_500;
const WORKERS: usize = 4;
/// How long PostgreSQL is away.
const OUTAGE: Duration = Duration::from_secs(15);

/// Where a kill can land.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Between BEGIN and COMMIT.
    InsideTransaction,
    /// Between COMMIT and the commit of the offset in Kafka.
    BeforeOffsetCommit,
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_repeated_or_out_of_order_whatever_dies() {
    let world = World::new(8).await;
    let begun = Instant::now();
    let sampler = Sampler::start(&world);
    let plan = Plan { per_second: PER_SECOND, ..Plan::new(SEED, EVENTS) };
    let (published, mut story) = tokio::join!(publish(&world, plan), chaos(&world));
    println!("published {} records, {} repeats, in {:?}", published.records, published.repeats, begun.elapsed());
    world.drained(PATIENCE * 2).await;
    until("every letter to be sent", PATIENCE, async || {
        let waiting = world.count("SELECT count(*) FROM weir_dead WHERE published_at IS NULL").await;
        (waiting == 0, waiting)
    })
    .await;
    let samples = sampler.finish().await;
    for worker in &mut story.workers {
        let (status, took) = worker.terminate();
        assert!(status.success(), "{status:?} after {took:?}\n{}", worker.log());
    }
    audit(&world, &published).await;
    let consumed = story.workers.len();
    println!(
        "{EVENTS} events, {} live, {} dead; {} kills inside a transaction, {} before the offset commit, {} stops, {} starts; \
         {samples} samples; {consumed} workers left; {:?}",
        published.live.len(),
        published.dead.len(),
        story.killed_inside,
        story.killed_before_commit,
        story.stops,
        story.starts,
        begun.elapsed()
    );
    assert!(story.killed_inside >= 2 && story.killed_before_commit >= 2, "the kills did not land where they should");
    assert!(samples > 100, "only {samples} samples");
}

/// What was done to the workers.
#[derive(Default)]
struct Story {
    workers: Vec<Worker>,
    killed_inside: u32,
    killed_before_commit: u32,
    stops: u32,
    starts: u32,
}

impl Story {
    async fn fill(&mut self, world: &World) {
        while self.workers.len() < WORKERS {
            self.workers.push(Worker::start(world).await);
            self.starts += 1;
        }
    }

    async fn kill(&mut self, world: &World, at: usize, place: Place) {
        let mut worker = self.workers.swap_remove(at);
        worker.owns(1).await;
        let pid = worker.pid();
        super::zombie::freeze_when(&worker, &format!("{place:?}"), async || match place {
            Place::InsideTransaction => is_inside_transaction(world, pid).await,
            Place::BeforeOffsetCommit => {
                !is_inside_transaction(world, pid).await && ledger_is_ahead(world, &worker).await
            }
        })
        .await;
        worker.kill();
        match place {
            Place::InsideTransaction => self.killed_inside += 1,
            Place::BeforeOffsetCommit => self.killed_before_commit += 1,
        }
    }
}

/// Whether a worker that is frozen, and in no transaction, has committed a batch that Kafka has no offset for. The
/// ledger's owners tell which partitions are its own: others may be ahead by somebody else's doing.
async fn ledger_is_ahead(world: &World, frozen: &Worker) -> bool {
    let claims = frozen.claims();
    let ledger = world.owners().await;
    let consumer: BaseConsumer = kafka().set("group.id", &world.pool).create().unwrap();
    let Some(offsets) = committed(&consumer, &world.topic, world.partitions) else { return false };
    let is_own = |owner: &Option<Uuid>| owner.is_some_and(|owner| claims.contains(&owner));
    let offset_of = |partition: i32| offsets[usize::try_from(partition).unwrap()];
    ledger.iter().any(|(partition, owner, next_offset)| is_own(owner) && offset_of(*partition) < *next_offset)
}

async fn chaos(world: &World) -> Story {
    let mut rng = Rng::with_seed(SEED);
    let mut story = Story::default();
    story.fill(world).await;
    for place in [Place::InsideTransaction, Place::BeforeOffsetCommit] {
        let at = rng.usize(0..WORKERS);
        story.kill(world, at, place).await;
        story.fill(world).await;
    }
    let mut leaver = story.workers.swap_remove(rng.usize(0..WORKERS));
    let (status, _) = leaver.terminate();
    assert!(status.success(), "{}", leaver.log());
    story.stops += 1;

    service("stop", "redis");
    story.fill(world).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    service("start", "redis");
    flush().await;
    story.kill(world, rng.usize(0..WORKERS), Place::InsideTransaction).await;
    story.fill(world).await;
    database_away(world, &story).await;
    story.kill(world, rng.usize(0..WORKERS), Place::BeforeOffsetCommit).await;
    story.fill(world).await;
    story
}

async fn flush() {
    let client = redis::Client::open(super::services::env("REDIS_URL")).unwrap();
    let mut redis = client.get_multiplexed_async_connection().await.unwrap();
    redis::cmd("FLUSHALL").exec_async(&mut redis).await.unwrap();
}

/// The database stops under load: no rebalance, no dead row for it, and it is caught up with.
async fn database_away(world: &World, story: &Story) {
    until("the group to have settled", PATIENCE, async || {
        let owned: f64 = story.workers.iter().map(|worker| worker.metric("weir_partitions_assigned", "")).sum();
        let holders = story.workers.iter().filter(|worker| worker.metric("weir_partitions_assigned", "") > 0.0).count();
        (owned == f64::from(world.partitions) && holders == WORKERS, owned)
    })
    .await;
    let rebalances = || -> f64 { story.workers.iter().map(|worker| worker.metric("weir_rebalances_total", "")).sum() };
    let before = rebalances();
    service("stop", "postgres");
    tokio::time::sleep(OUTAGE).await;
    for worker in &story.workers {
        assert!(worker.get("/readyz").starts_with("HTTP/1.1 200"), "an outage after the start made it unready");
    }
    service("start", "postgres");
    let behind = world.ledger().await;
    until("the database to be written again", PATIENCE, async || {
        let now = world.ledger().await;
        (now.iter().zip(&behind).all(|(now, then)| now > then), now)
    })
    .await;
    assert_eq!(rebalances(), before, "the outage made the group rebalance");
}
