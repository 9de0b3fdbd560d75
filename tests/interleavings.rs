//! Every order in which threads can meet over the offsets that Kafka is told: the real [`Watermarks`], with locks that a
//! model checker schedules.

#[path = "../src/source/watermarks.rs"]
#[allow(unreachable_pub, reason = "public in its own crate")]
mod watermarks;

/// What `src/source/watermarks.rs` takes from its parent.
mod sync {
    pub(crate) use loom::sync::{Mutex, MutexGuard};
}

use loom::sync::{Arc, Mutex};
use loom::thread;
use rdkafka::{Offset, TopicPartitionList};

use self::watermarks::Watermarks;

const TOPIC: &str = "t";

/// The broker's committed offset and the ledger's, of one partition.
#[derive(Clone)]
struct World(Arc<Mutex<State>>);

struct State {
    committed: i64,
    ledger: i64,
}

impl World {
    fn new(ledger: i64) -> Self {
        Self(Arc::new(Mutex::new(State { committed: ledger, ledger })))
    }

    fn settle(&self, next_offset: i64) {
        self.0.lock().unwrap().ledger = next_offset;
    }

    fn commit(&self, offsets: &TopicPartitionList) -> Result<(), ()> {
        let offset = offsets.elements()[0].offset().to_raw().unwrap();
        let mut state = self.0.lock().unwrap();
        assert!(offset <= state.ledger, "Kafka {offset} is ahead of the ledger {}", state.ledger);
        assert!(offset >= state.committed, "Kafka goes back from {} to {offset}", state.committed);
        state.committed = offset;
        Ok(())
    }

    /// The one commit that may go back.
    fn probe(&self, next_offset: i64) {
        self.0.lock().unwrap().committed = next_offset;
    }

    fn committed(&self) -> i64 {
        self.0.lock().unwrap().committed
    }
}

fn partition() -> Vec<(String, i32)> {
    vec![(TOPIC.to_owned(), 0)]
}

/// A task that settles two batches.
fn works(watermarks: &Watermarks, world: &World, from: i64) {
    for next_offset in [from + 1, from + 2] {
        world.settle(next_offset);
        watermarks.advance(TOPIC, 0, next_offset);
    }
}

#[test]
fn a_revocations_commit_is_the_last_whatever_the_commit_thread_does() {
    loom::model(|| {
        let (watermarks, world) = (Arc::new(Watermarks::default()), World::new(0));
        watermarks.own(TOPIC, 0, 0);
        let committing = thread::spawn({
            let (watermarks, world) = (Arc::clone(&watermarks), world.clone());
            move || {
                for _ in 0..2 {
                    watermarks.tell(|offsets| world.commit(offsets));
                }
            }
        });
        let task = thread::spawn({
            let (watermarks, world) = (Arc::clone(&watermarks), world.clone());
            move || works(&watermarks, &world, 0)
        });
        // The callback waits for the task's end.
        task.join().unwrap();
        watermarks.tell_last(&partition(), |offsets| world.commit(offsets));
        assert_eq!(world.committed(), 2, "a clean hand-over commits all that is settled");
        committing.join().unwrap();
        assert_eq!(world.committed(), 2);
    });
}

#[test]
fn after_the_probe_of_a_ledger_that_went_back_no_offset_of_before_is_committed() {
    loom::model(|| {
        let (watermarks, world) = (Arc::new(Watermarks::default()), World::new(5));
        watermarks.own(TOPIC, 0, 5);
        world.settle(6);
        watermarks.advance(TOPIC, 0, 6);
        let committing = thread::spawn({
            let (watermarks, world) = (Arc::clone(&watermarks), world.clone());
            move || {
                for _ in 0..2 {
                    watermarks.tell(|offsets| world.commit(offsets));
                }
            }
        });
        // The database is restored, the task fenced: it takes over again. Until its probe Kafka may be ahead.
        watermarks.give_up(&partition());
        watermarks.in_turn(|| {
            world.settle(2);
            world.probe(2);
        });
        watermarks.own(TOPIC, 0, 2);
        works(&watermarks, &world, 2);
        committing.join().unwrap();
        assert!(world.committed() <= 4);
    });
}

#[test]
fn a_refused_commit_is_told_again_and_never_over_a_newer_one() {
    loom::model(|| {
        let (watermarks, world) = (Arc::new(Watermarks::default()), World::new(0));
        watermarks.own(TOPIC, 0, 0);
        let task = thread::spawn({
            let (watermarks, world) = (Arc::clone(&watermarks), world.clone());
            move || works(&watermarks, &world, 0)
        });
        watermarks.tell(|_| Err::<(), ()>(()));
        watermarks.tell(|offsets| world.commit(offsets));
        task.join().unwrap();
        watermarks.tell(|offsets| world.commit(offsets));
        assert_eq!(world.committed(), 2);
    });
}

fn offsets(list: &TopicPartitionList) -> Vec<(i32, Offset)> {
    let mut offsets: Vec<_> = list.elements().iter().map(|element| (element.partition(), element.offset())).collect();
    offsets.sort_by_key(|(partition, _)| *partition);
    offsets
}

#[test]
fn only_the_newest_watermark_is_told_and_only_once() {
    loom::model(|| {
        let watermarks = Watermarks::default();
        watermarks.own("t", 0, 0);
        watermarks.own("t", 1, 0);
        watermarks.advance("t", 0, 5);
        watermarks.advance("t", 0, 9);
        assert_eq!(offsets(&watermarks.untold()), [(0, Offset::Offset(9))]);
        assert_eq!(offsets(&watermarks.untold()), []);
        watermarks.advance("t", 1, 3);
        let given_up = watermarks.give_up(&[("t".to_owned(), 0), ("t".to_owned(), 1), ("u".to_owned(), 7)]);
        assert_eq!(offsets(&given_up), [(1, Offset::Offset(3))]);
    });
}

#[test]
fn a_refused_commit_is_told_again_unless_it_was_overtaken_or_given_up() {
    loom::model(|| {
        let watermarks = Watermarks::default();
        for partition in 0..3 {
            watermarks.own("t", partition, 0);
            watermarks.advance("t", partition, 5);
        }
        let refused = watermarks.untold();
        watermarks.advance("t", 1, 8);
        assert_eq!(offsets(&watermarks.untold()), [(1, Offset::Offset(8))]);
        watermarks.give_up(&[("t".to_owned(), 2)]);
        watermarks.refused(&refused);
        assert_eq!(offsets(&watermarks.untold()), [(0, Offset::Offset(5))]);
    });
}

#[test]
fn what_is_not_owned_is_never_told() {
    loom::model(|| {
        let watermarks = Watermarks::default();
        watermarks.advance("t", 0, 5);
        assert_eq!(offsets(&watermarks.untold()), []);
    });
}
