//! Searches for schedules of faults that break a promise. The real partition tasks, takeover and settling run against a
//! group, a log and a store in memory and a clock that stands still while anybody works; a schedule of what befalls them
//! is drawn at random, every promise is looked at after each step, and a schedule that breaks one is made as short as it
//! can be.
//!
//! That the search can find anything is shown by deliberate bugs, each of which it must find.

mod group;
mod memory;
mod series;
mod unasked;
mod world;

use async_trait::async_trait;
use proptest::prelude::*;
use proptest::test_runner::{Config as Search, TestCaseError, TestRunner};
use tokio::sync::watch;
use uuid::Uuid;

use self::memory::{Bug, Memory, StoreFault};
use self::world::World;
use crate::event::{Decode, Event, NotDecoded, Payload, Record};
use crate::handler::{Answer, Applied, Error, Handler, Item, Rejection};
use crate::store::{self, Count, Fault, Tx};

const TOPIC_ID: Uuid = Uuid::from_u128(7);
const TOPIC: &str = "t";
const PARTITIONS: i32 = 2;
const WORKERS: usize = 3;
const PIPELINES: [&str; 2] = ["first", "second"];

/// Whether a process is stopped as SIGSTOP does it: whatever it exchanges with others waits.
#[derive(Debug, Clone)]
struct Frozen(watch::Sender<bool>);

impl Frozen {
    fn new() -> Self {
        Self(watch::Sender::new(false))
    }

    async fn pass(&self) {
        self.0.subscribe().wait_for(|frozen| !frozen).await.unwrap();
    }
}

/// An event whose value is its id; `x…` can never succeed, `!…` cannot be decoded.
struct Simulated(String);

impl Payload for Simulated {
    fn id(&self) -> Option<std::borrow::Cow<'_, str>> {
        Some(self.0.as_str().into())
    }

    fn kind(&self) -> &str {
        ""
    }
}

struct Plain;

impl Decode<Simulated> for Plain {
    fn decode(&self, record: &Record) -> Result<Simulated, NotDecoded> {
        let text = std::str::from_utf8(record.value.as_deref().unwrap_or_default()).unwrap();
        match text.starts_with('!') {
            true => Err(NotDecoded::malformed("it begins with !")),
            false => Ok(Simulated(text.to_owned())),
        }
    }
}

/// Leaves one effect an event.
struct Effect {
    pipeline: &'static str,
    memory: Memory,
}

#[async_trait]
impl Handler<Simulated> for Effect {
    type Work = ();

    async fn prepare(&self, events: &[&Event<Simulated>]) -> Result<Vec<Answer<()>>, Error> {
        if self.memory.fault(&[StoreFault::Unprepared]).is_some() {
            return Err(Error { fault: Fault::Busy, message: "a service does not answer".to_owned() });
        }
        let answer = |event: &&Event<Simulated>| match event.payload.0.starts_with('x') {
            true => Answer::Reject(Rejection::by_handler("it begins with x")),
            false => Answer::Apply(()),
        };
        Ok(events.iter().map(answer).collect())
    }

    async fn apply(&self, tx: &mut dyn Tx, items: &[Item<'_, Simulated, ()>]) -> Result<Applied, store::Error> {
        let count = |item: &Item<'_, Simulated, ()>| Count {
            minute: 0,
            dimension: self.pipeline,
            member: item.event.id.as_str().to_owned(),
            shard: 0,
            by: Some(1),
        };
        tx.count(&items.iter().map(count).collect::<Vec<_>>()).await?;
        Ok(Applied::Done)
    }
}

/// What befalls the world next. Numbers are taken modulo what there is.
#[derive(Debug, Clone)]
enum Step {
    /// So many events come to a partition; the kinds are drawn with them.
    Publish(i32, Vec<(u8, u8)>),
    Start(usize),
    /// A clean stop.
    Stop(usize),
    Kill(usize),
    Freeze(usize),
    Thaw(usize),
    /// The coordinator gives a member up that it has not heard of: one that is gone or frozen.
    Expire(usize),
    /// A partition moves to another member.
    Move(i32, usize),
    /// A worker tells Kafka its watermarks.
    Commit(usize),
    /// A worker looks whether the ledger is as its idle partitions left it.
    Look(usize),
    Fault(StoreFault),
    EndIdle,
    Backup,
    Restore,
    Wait(u16),
}

fn step() -> impl Strategy<Value = Step> {
    let worker = 0..WORKERS;
    let fault = prop_oneof![
        Just(StoreFault::Away),
        Just(StoreFault::Refused),
        Just(StoreFault::Unanswered),
        Just(StoreFault::Deadlock),
        Just(StoreFault::TooSlow),
        Just(StoreFault::Unprepared),
    ];
    prop_oneof![
        4 => (0..PARTITIONS, proptest::collection::vec((0..40_u8, 0..20_u8), 1..12)).prop_map(|(p, e)| Step::Publish(p, e)),
        3 => worker.clone().prop_map(Step::Start),
        1 => worker.clone().prop_map(Step::Stop),
        2 => worker.clone().prop_map(Step::Kill),
        2 => worker.clone().prop_map(Step::Freeze),
        2 => worker.clone().prop_map(Step::Thaw),
        2 => worker.clone().prop_map(Step::Expire),
        2 => (0..PARTITIONS, worker.clone()).prop_map(|(p, w)| Step::Move(p, w)),
        2 => worker.clone().prop_map(Step::Commit),
        1 => worker.prop_map(Step::Look),
        2 => fault.prop_map(Step::Fault),
        1 => Just(Step::EndIdle),
        1 => Just(Step::Backup),
        1 => Just(Step::Restore),
        // A few milliseconds are a few exchanges: what befalls a worker befalls it in the middle of something.
        8 => prop_oneof![0..12_u16, 0..2_000_u16].prop_map(Step::Wait),
    ]
}

/// Runs a schedule; says which promise it breaks.
fn run(steps: &[Step], bug: Option<Bug>) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let mut world = World::new(bug);
        for (at, step) in steps.iter().enumerate() {
            world.take(step).await;
            world.check().map_err(|broken| format!("after step {at}, {step:?}: {broken}"))?;
        }
        world.settle().await.map_err(|broken| format!("at the end: {broken}"))
    })
}

fn search(cases: u32, bug: Option<Bug>) -> Result<(), String> {
    let config = Search { cases, failure_persistence: None, max_shrink_iters: 3_000, ..Search::default() };
    let schedule = proptest::collection::vec(step(), 10..80);
    TestRunner::new(config)
        .run(&schedule, |steps| run(&steps, bug).map_err(TestCaseError::fail))
        .map_err(|found| found.to_string())
}

/// `SIMULATION_CASES` asks for another number of schedules.
#[test]
fn no_schedule_of_faults_breaks_a_promise() {
    let cases = std::env::var("SIMULATION_CASES").map_or(2_000, |cases| cases.parse().unwrap());
    search(cases, None).unwrap_or_else(|found| panic!("{found}"));
}

#[test]
fn the_search_finds_a_store_without_a_fence() {
    assert!(search(2_000, Some(Bug::NoFence)).is_err());
}

#[test]
fn the_search_finds_effects_outside_the_transaction() {
    assert!(search(2_000, Some(Bug::NoTransaction)).is_err());
}
