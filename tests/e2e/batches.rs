//! Batches that fit their time, whatever handling takes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use rdkafka::producer::{FutureProducer, FutureRecord};
use tokio_util::sync::CancellationToken;
use weir::admin::Health;
use weir::config::{self, Config, Start};
use weir::event::Event;
use weir::handler::{Answer, Applied, Error, Handler, Item};
use weir::metrics::Metrics;
use weir::payload::OrderPaid;
use weir::pool::{Pool, Process};
use weir::store::{self, Tx};

use super::world::{World, kafka};
use super::{PATIENCE, until};

const FAST_MS: u64 = 1;
const SLOW_MS: u64 = 10 * FAST_MS;
const MAX_POLL_RECORDS: usize = 200;
/// Half of it is the budget: at the slow pace 50 events fit, and a full batch takes four times as much.
const DRAIN_DEADLINE: Duration = Duration::from_secs(1);
const FIT: usize = 50;

/// Takes its time with every event, and notes each batch: its events and the milliseconds an event took.
#[derive(Clone)]
struct Slow {
    event_ms: Arc<AtomicU64>,
    batches: Arc<Mutex<Vec<(usize, u64)>>>,
}

#[async_trait]
impl Handler<OrderPaid> for Slow {
    type Work = ();

    async fn prepare(&self, events: &[&Event<OrderPaid>]) -> Result<Vec<Answer<()>>, Error> {
        let event_ms = self.event_ms.load(Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(event_ms * events.len() as u64)).await;
        self.batches.lock().unwrap().push((events.len(), event_ms));
        Ok(events.iter().map(|_| Answer::Apply(())).collect())
    }

    async fn apply(&self, _: &mut dyn Tx, _: &[Item<'_, OrderPaid, ()>]) -> Result<Applied, store::Error> {
        Ok(Applied::Done)
    }
}

impl Slow {
    /// Waits for so many more batches at this pace; says their sizes.
    async fn next(&self, event_ms: u64, count: usize) -> Vec<usize> {
        let begun = self.batches.lock().unwrap().len();
        self.event_ms.store(event_ms, Ordering::Relaxed);
        let sizes = || {
            let batches = self.batches.lock().unwrap();
            batches[begun..].iter().filter(|(_, ms)| *ms == event_ms).map(|(events, _)| *events).collect::<Vec<_>>()
        };
        until("batches at this pace", PATIENCE, async || (sizes().len() >= count, sizes())).await;
        sizes()
    }
}

async fn publish(world: &World, events: usize) {
    let producer: FutureProducer = kafka().create().unwrap();
    let value = |n| {
        format!(
            r#"{{"type":"order_paid","event_id":"e{n}","order_id":{n},"user_id":7,"amount_minor":1,"currency":"EUR","timestamp":1}}"#
        )
    };
    let values: Vec<String> = (0..events).map(value).collect();
    let sent = values.iter().map(|value| {
        producer
            .send_result(FutureRecord::<str, str>::to(&world.topic).payload(value))
            .unwrap_or_else(|(error, _)| panic!("{error}"))
    });
    for acknowledged in sent.collect::<Vec<_>>() {
        acknowledged.await.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_slowed_tenfold_shrinks_its_batches_nobody_is_evicted_and_they_grow_back() {
    let world = World::new(1).await;
    publish(&world, 12_000).await;
    let file = world.dir.join("batches.toml");
    std::fs::write(&file, world.config("")).unwrap();
    let mut config = Config::load(&[file], &[]).unwrap();
    let settings =
        config::Pool { max_poll_records: MAX_POLL_RECORDS, drain_deadline: DRAIN_DEADLINE, ..config::Pool::default() };
    config.pools = [(world.pool.clone(), settings)].into();
    let slow = Slow { event_ms: Arc::new(AtomicU64::new(FAST_MS)), batches: Arc::default() };
    let process = Process { metrics: Metrics::new(), health: Health::new([world.pool.as_str()]) };
    let pool = Pool::<OrderPaid>::builder(&world.pool)
        .topics([&world.topic])
        .start(Start::Beginning)
        .process(process.clone())
        .pipeline("slow", slow.clone())
        .build(&config)
        .unwrap();
    let (standings, stop) = (pool.standings(), CancellationToken::new());
    let running = tokio::spawn(pool.run(stop.clone()));

    let begun = slow.next(FAST_MS, 5).await;
    assert!(begun[0] < MAX_POLL_RECORDS, "nothing was known of the first batch: {begun:?}");
    assert_eq!(begun[4], MAX_POLL_RECORDS, "{begun:?}");

    let slowed = slow.next(SLOW_MS, 4).await;
    assert!(slowed[3] <= FIT, "shrunk within three batches: {slowed:?}");
    assert!(slowed[3] >= FIT / 2, "no smaller than the budget asks for: {slowed:?}");
    until("the standing to show it", PATIENCE, async || {
        let limit = standings.list().first().map(|standing| standing.batch_events_max);
        (limit.is_some_and(|limit| limit <= FIT), limit)
    })
    .await;

    // After as many batches as are remembered; a machine that stands still for a moment makes it some more.
    let grown = slow.next(FAST_MS, 17).await;
    assert!(grown[..15].iter().all(|events| *events <= FIT), "what was slow is remembered: {grown:?}");
    until("batches to have grown back", PATIENCE, async || {
        let last = slow.batches.lock().unwrap().last().copied();
        (last == Some((MAX_POLL_RECORDS, FAST_MS)), last)
    })
    .await;

    let metrics = process.metrics.render();
    let value =
        |name: &str| metrics.lines().find(|line| line.starts_with(name)).and_then(|line| line.rsplit(' ').next());
    assert_eq!(value("weir_claims_total"), Some("1"), "evicted in between:\n{metrics}");
    assert_eq!(value("weir_fences_total"), Some("0"));
    // Slow again, and stopped: the batch in hand is a small one by then, and ends within the deadline.
    slow.next(SLOW_MS, 4).await;
    stop.cancel();
    running.await.unwrap().expect("a full batch at this pace would overrun the drain deadline");
    let seen: usize = slow.batches.lock().unwrap().iter().map(|(events, _)| events).sum();
    assert_eq!(world.count("SELECT count(*) FROM weir_seen").await, i64::try_from(seen).unwrap(), "each once");
}
