//! Workers with more partitions than connections: a batch in hand for some of them, in turns, and nobody waits for one that
//! waits for something of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use rdkafka::producer::{FutureProducer, FutureRecord};
use tokio::sync::Barrier;
use weir::config::Start;
use weir::event::Event;
use weir::handler::{Answer, Each, Error, HandleEach};
use weir::payload::OrderPaid;
use weir::pool::{Phase, Pool, Standings};
use weir::store::{self, Fault, Tx};

use super::library::{Running, config};
use super::world::{World, kafka};
use super::{PATIENCE, until};

const PARTITIONS: i32 = 12;
/// Partitions of which the handler takes no event until it is mended.
const HELD: i32 = 8;
const CONNECTIONS: u32 = 2;
/// As many as may have a batch in hand: two a connection.
const PLACES: usize = 4;

/// Writes a row for each payment, and is as slow or as broken as its test asks.
struct Pay {
    /// All partitions must be in `prepare` before one leaves it.
    meeting: Option<Barrier>,
    is_broken: Arc<AtomicBool>,
}

#[async_trait]
impl HandleEach<OrderPaid> for Pay {
    async fn prepare(&self, event: &Event<OrderPaid>) -> Result<Answer<()>, Error> {
        if let Some(meeting) = &self.meeting {
            meeting.wait().await;
        }
        if event.origin.partition < HELD && self.is_broken.load(Ordering::SeqCst) {
            return Err(Error { fault: Fault::Hold, message: "this handler wants mending".to_owned() });
        }
        Ok(Answer::Apply(()))
    }

    async fn apply(&self, tx: &mut dyn Tx, event: &Event<OrderPaid>) -> Result<(), store::Error> {
        let connection = tx.postgres().expect("the store is PostgreSQL");
        sqlx::query("INSERT INTO paid VALUES ($1)").bind(event.id.as_str()).execute(connection).await?;
        Ok(())
    }
}

/// A world, and its pool with every partition claimed.
async fn start(handler: Pay) -> (World, Running, Standings) {
    let world = World::new(PARTITIONS).await;
    world.sql("CREATE TABLE paid (event_id text PRIMARY KEY)").await;
    let mut config = config(&world);
    config.store.as_mut().unwrap().connections = CONNECTIONS;
    let pool = Pool::<OrderPaid>::builder(&world.pool)
        .topics([&world.topic])
        .start(Start::Beginning)
        .pipeline("pay", Each(handler))
        .build(&config)
        .unwrap();
    let standings = pool.standings();
    let running = Running::start(pool);
    until("every partition to wait for events", PATIENCE, async || {
        let list = standings.list();
        let idle = list.iter().filter(|one| one.phase == Phase::Polling && one.next_offset.is_some()).count();
        (idle == PARTITIONS as usize, list)
    })
    .await;
    (world, running, standings)
}

/// A payment into each of these partitions.
async fn pay(world: &World, partitions: std::ops::Range<i32>) {
    let producer: FutureProducer = kafka().create().unwrap();
    for partition in partitions {
        let value = format!(
            r#"{{"type":"order_paid","event_id":"e{partition}","order_id":1,"user_id":7,"amount_minor":1,"currency":"EUR","timestamp":1767225600000}}"#
        );
        let record = FutureRecord::<(), _>::to(&world.topic).partition(partition).payload(&value);
        producer.send(record, PATIENCE).await.unwrap();
    }
}

async fn all_are_paid(world: &World, running: Running) {
    world.drained(PATIENCE).await;
    running.stop().await;
    assert_eq!(world.count("SELECT count(*) FROM paid").await, i64::from(PARTITIONS));
}

async fn until_so_many(standings: &Standings, what: &str, count: usize, is_so: impl Fn(&Phase) -> bool) {
    until(what, PATIENCE, async || {
        let list = standings.list();
        (list.iter().filter(|one| is_so(&one.phase)).count() == count, list)
    })
    .await;
}

fn has_no_room(phase: &Phase) -> bool {
    matches!(phase, Phase::Queued(at) if at.contains("room"))
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_database_writes_nothing_only_some_partitions_have_a_batch_in_hand() {
    let (world, running, standings) = start(Pay { meeting: None, is_broken: Arc::default() }).await;
    let mut locked = world.db.postgres().begin().await.unwrap();
    sqlx::query("LOCK TABLE paid").execute(&mut *locked).await.unwrap();
    pay(&world, 0..PARTITIONS).await;
    let waiting = PARTITIONS as usize - PLACES;
    until_so_many(&standings, "the others to wait for room", waiting, has_no_room).await;
    locked.rollback().await.unwrap();
    all_are_paid(&world, running).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn held_partitions_leave_room_for_the_others() {
    let is_broken = Arc::new(AtomicBool::new(true));
    let (world, running, standings) = start(Pay { meeting: None, is_broken: Arc::clone(&is_broken) }).await;
    pay(&world, 0..HELD).await;
    let is_held = |phase: &Phase| matches!(phase, Phase::Held(_));
    until_so_many(&standings, "more partitions to be held than have room", HELD as usize, is_held).await;
    pay(&world, HELD..PARTITIONS).await;
    until("the others' payments", PATIENCE, async || {
        let paid = world.count("SELECT count(*) FROM paid").await;
        (paid == i64::from(PARTITIONS - HELD), paid)
    })
    .await;
    is_broken.store(false, Ordering::SeqCst);
    all_are_paid(&world, running).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn handlers_that_take_long_work_for_all_partitions_at_once() {
    let meeting = Some(Barrier::new(PARTITIONS as usize));
    let (world, running, _) = start(Pay { meeting, is_broken: Arc::default() }).await;
    pay(&world, 0..PARTITIONS).await;
    all_are_paid(&world, running).await;
}
