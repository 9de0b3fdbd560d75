//! All at once: repeats, poison, workers that come, go and are killed, Redis and the database away for a while.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use fastrand::Rng;
use rdkafka::consumer::BaseConsumer;
use uuid::Uuid;

use super::audit::{Sampler, audit, committed};
use super::load::{Plan, publish};
use super::worker::Worker;
use super::world::{World, kafka};
use super::zombie::try_freeze;
use super::{PATIENCE, until};

const EVENTS: u64 = 500_000;
/// Slow enough that everything below happens under load.
const PER_SECOND: u64 = 5_500;
const WORKERS: usize = 4;
/// How long the database is away.
const OUTAGE: Duration = Duration::from_secs(15);

/// How long a place is looked for that need not be found.
const A_WHILE: Duration = Duration::from_secs(3);

/// Where a kill can land.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    InsideTransaction,
    BeforeOffsetCommit,
    /// It was not looked at.
    Anywhere,
}

impl Place {
    const KNOWN: [Self; 2] = [Self::InsideTransaction, Self::BeforeOffsetCommit];
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::InsideTransaction => "between BEGIN and COMMIT",
            Self::BeforeOffsetCommit => "between COMMIT and the offset commit",
            Self::Anywhere => "anywhere",
        })
    }
}

/// The schedule's seed; `WEIR_TEST_SEED` gives another, or that of a run that failed.
fn seed() -> u64 {
    std::env::var("WEIR_TEST_SEED").map_or(42, |seed| seed.parse().expect("WEIR_TEST_SEED is a number"))
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_repeated_or_out_of_order_whatever_dies() {
    Box::pin(everything_dies(World::alone(8).await)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_mariadb_nothing_is_lost_repeated_or_out_of_order_whatever_dies() {
    Box::pin(everything_dies(World::alone_on("mariadb", 8).await)).await;
}

async fn everything_dies(world: World) {
    let sampler = Sampler::start(&world);
    let mut story = Story::new(&world);
    let plan = Plan { per_second: PER_SECOND, ..Plan::new(seed(), EVENTS) };
    let is_published = AtomicBool::new(false);
    let publishing = async {
        let published = publish(&world, plan).await;
        is_published.store(true, Ordering::Relaxed);
        published
    };
    let (published, ()) = tokio::join!(publishing, chaos(&mut story, &is_published));
    story.tell(format!("all {} records published, {} of them repeats", published.records, published.repeats));
    world.drained(PATIENCE * 2).await;
    story.tell("every partition at its log's end, in the ledger and in Kafka");
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
    story.tell(format!(
        "audited: {} rows, {} dead rows; {samples} samples of offsets",
        published.live.len(),
        published.dead.len()
    ));
    println!("{story}");
    for place in Place::KNOWN {
        assert!(story.kills(place) >= 2, "too few kills {place}:\n{story}");
    }
    assert!(samples > 100, "only {samples} samples");
}

/// What is done to the workers, and when.
struct Story<'a> {
    world: &'a World,
    begun: Instant,
    workers: Vec<Worker>,
    kills: Vec<Place>,
    stops: u32,
    starts: u32,
    lines: Vec<(Duration, String)>,
}

impl<'a> Story<'a> {
    fn new(world: &'a World) -> Self {
        let (workers, kills, lines) = (Vec::new(), Vec::new(), Vec::new());
        Self { world, begun: Instant::now(), workers, kills, stops: 0, starts: 0, lines }
    }

    fn tell(&mut self, what: impl Into<String>) {
        self.lines.push((self.begun.elapsed(), what.into()));
    }

    fn kills(&self, place: Place) -> usize {
        self.kills.iter().filter(|killed_at| **killed_at == place).count()
    }

    async fn fill(&mut self, workers: usize) {
        while self.workers.len() < workers {
            self.workers.push(Worker::start(self.world).await);
            self.starts += 1;
            self.tell(format!("started, now {}", self.workers.len()));
        }
    }

    fn stop(&mut self, at: usize) {
        let (status, took) = self.workers[at].terminate();
        assert!(status.success(), "{status:?} after {took:?}\n{}", self.workers[at].log());
        drop(self.workers.swap_remove(at));
        self.stops += 1;
        self.tell(format!("stopped by SIGTERM in {took:.1?}, now {}", self.workers.len()));
    }

    /// Kills a worker at a place, or anywhere when it is not found there in time.
    async fn kill(&mut self, at: usize, place: Place, patience: Duration) {
        let mut worker = self.workers.swap_remove(at);
        if place != Place::Anywhere {
            worker.owns(1).await;
        }
        let is_there = try_freeze(&worker, patience, async || match place {
            Place::InsideTransaction => self.world.is_inside_transaction(worker.pid()).await,
            Place::BeforeOffsetCommit => {
                !self.world.is_inside_transaction(worker.pid()).await && ledger_is_ahead(self.world, &worker).await
            }
            Place::Anywhere => true,
        })
        .await;
        worker.kill();
        let place = if is_there { place } else { Place::Anywhere };
        self.kills.push(place);
        self.tell(format!("killed {place}, now {}", self.workers.len()));
    }
}

impl fmt::Display for Story<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{EVENTS} events, seed {}", seed())?;
        for (at, what) in &self.lines {
            writeln!(f, "{:>7.1} s  {what}", at.as_secs_f64())?;
        }
        for place in Place::KNOWN.into_iter().chain([Place::Anywhere]) {
            writeln!(f, "{:>7} kills {place}", self.kills(place))?;
        }
        write!(f, "{:>7} stops\n{:>7} starts", self.stops, self.starts)
    }
}

/// Whether a worker that is frozen, and in no transaction, has committed a batch that Kafka has no offset for. The
/// ledger's owners tell which partitions are its own: others may be ahead by somebody else's doing.
pub(crate) async fn ledger_is_ahead(world: &World, frozen: &Worker) -> bool {
    let claims = frozen.claims();
    let ledger = world.owners().await;
    let consumer: BaseConsumer = kafka().set("group.id", &world.pool).create().unwrap();
    let Some(offsets) = committed(&consumer, &world.topic, world.partitions) else { return false };
    let is_own = |owner: &Option<Uuid>| owner.is_some_and(|owner| claims.contains(&owner));
    let offset_of = |partition: i32| offsets[usize::try_from(partition).unwrap()];
    ledger.iter().any(|row| is_own(&row.owner) && offset_of(row.partition) < row.next_offset)
}

/// First what must happen, then, for as long as events come, what the seed says.
async fn chaos(story: &mut Story<'_>, is_published: &AtomicBool) {
    let mut rng = Rng::with_seed(seed());
    story.fill(WORKERS).await;
    for place in Place::KNOWN {
        let at = rng.usize(0..WORKERS);
        story.kill(at, place, PATIENCE).await;
        story.fill(WORKERS).await;
    }
    story.stop(rng.usize(0..WORKERS));
    redis_away(story).await;
    story.kill(rng.usize(0..WORKERS), Place::InsideTransaction, PATIENCE).await;
    story.fill(WORKERS).await;
    database_away(story).await;
    story.kill(rng.usize(0..WORKERS), Place::BeforeOffsetCommit, PATIENCE).await;
    let mut rounds = 0;
    while !is_published.load(Ordering::Relaxed) {
        story.fill(rng.usize(1..=WORKERS)).await;
        let at = rng.usize(0..story.workers.len());
        match rng.u32(0..4) {
            0 => story.kill(at, Place::InsideTransaction, A_WHILE).await,
            1 => story.kill(at, Place::BeforeOffsetCommit, A_WHILE).await,
            2 => story.kill(at, Place::Anywhere, A_WHILE).await,
            _ => story.stop(at),
        }
        tokio::time::sleep(Duration::from_millis(rng.u64(0..2_000))).await;
        rounds += 1;
    }
    assert!(rounds > 0, "the load was over before the workers were:\n{story}");
    story.fill(WORKERS).await;
}

async fn redis_away(story: &mut Story<'_>) {
    story.world.service("stop", "redis");
    story.tell("Redis stopped");
    story.fill(WORKERS).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    story.world.service("start", "redis");
    flush().await;
    story.tell("Redis back, and empty");
}

async fn flush() {
    let client = redis::Client::open(super::services::env("REDIS_URL")).unwrap();
    let mut redis = client.get_multiplexed_async_connection().await.unwrap();
    redis::cmd("FLUSHALL").exec_async(&mut redis).await.unwrap();
}

/// The database stops under load: no rebalance, no dead row for it, and it is caught up with.
async fn database_away(story: &mut Story<'_>) {
    let world = story.world;
    until("the group to have settled", PATIENCE, async || {
        let owned: f64 = story.workers.iter().map(|worker| worker.metric("weir_partitions_assigned", "")).sum();
        let holders = story.workers.iter().filter(|worker| worker.metric("weir_partitions_assigned", "") > 0.0).count();
        (owned == f64::from(world.partitions) && holders == WORKERS, owned)
    })
    .await;
    let before = rebalances(story);
    world.service("stop", world.service);
    story.tell("the database stopped");
    tokio::time::sleep(OUTAGE).await;
    for worker in &story.workers {
        assert!(worker.get("/readyz").starts_with("HTTP/1.1 200"), "an outage after the start made it unready");
    }
    world.service("start", world.service);
    story.tell("the database back");
    let behind = world.ledger().await;
    until("the database to be written again", PATIENCE, async || {
        let now = world.ledger().await;
        (now.iter().zip(&behind).all(|(now, then)| now > then), now)
    })
    .await;
    assert_eq!(rebalances(story), before, "the outage made the group rebalance");
    story.tell("every partition written again, no rebalance since the outage began");
}

fn rebalances(story: &Story<'_>) -> f64 {
    story.workers.iter().map(|worker| worker.metric("weir_rebalances_total", "")).sum()
}
