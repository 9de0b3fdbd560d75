//! Looks at Kafka and the database from outside and holds them against what was sent.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::{Offset, TopicPartitionList};

use super::database::LedgerRow;
use super::load::Published;
use super::world::{World, kafka};

/// Every id is where it belongs, once; counters are exact; order was kept.
pub(crate) async fn audit(world: &World, published: &Published) {
    complete(world, published).await;
    order(world, published).await;
}

/// Every id is where it belongs, once; counters are exact.
pub(crate) async fn complete(world: &World, published: &Published) {
    let rows = world.db.live().await.unwrap();
    let dead: Vec<String> = world.db.dead().await.unwrap().into_iter().map(|(id, ..)| id).collect();
    let row_set: HashSet<&str> = rows.iter().map(String::as_str).collect();
    let dead_set: HashSet<&str> = dead.iter().map(String::as_str).collect();
    assert_eq!(row_set.len(), rows.len(), "an id has two rows");
    let missing = |expected: &HashSet<String>, found: &HashSet<&str>| {
        expected.iter().filter(|id| !found.contains(id.as_str())).take(5).cloned().collect::<Vec<_>>()
    };
    assert!(row_set.is_disjoint(&dead_set), "an id is both live and dead");
    assert_eq!(missing(&published.live, &row_set), Vec::<String>::new(), "lost");
    assert_eq!(missing(&published.dead, &dead_set), Vec::<String>::new(), "poison without a dead row");
    assert_eq!((row_set.len(), dead_set.len()), (published.live.len(), published.dead.len()), "more than was sent");
    counters(world).await;
}

/// The view holds what a recount of the rows gives, in every dimension.
pub(crate) async fn counters(world: &World) {
    assert_eq!(world.db.wrong_counters(&[]).await.unwrap(), 0, "counters differ from a recount");
}

/// Along a conversation's sequence the transactions that wrote its rows are in order. A repeat on another partition
/// may come first and takes its row along, so these ids are left out.
async fn order(world: &World, published: &Published) {
    let elsewhere: Vec<&str> = published.elsewhere.iter().map(String::as_str).collect();
    let overtaken = world.db.overtaken(&elsewhere).await.unwrap();
    assert_eq!(overtaken, 0, "events of a key took effect out of order");
}

/// Samples Kafka's committed offsets and then the ledger, all the while.
pub(crate) struct Sampler {
    stop: Arc<AtomicBool>,
    done: tokio::task::JoinHandle<u64>,
}

impl Sampler {
    pub(crate) fn start(world: &World) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, db, topic, group, partitions) =
            (Arc::clone(&stop), world.db.clone(), world.topic.clone(), world.pool.clone(), world.partitions);
        let topic_id = world.topic_id();
        let done = tokio::spawn(async move {
            let consumer: Arc<BaseConsumer> = Arc::new(kafka().set("group.id", &group).create().unwrap());
            let (mut samples, mut last) = (0, vec![0; usize::try_from(partitions).unwrap()]);
            while !stopped.load(Ordering::Relaxed) {
                tokio::time::sleep(Duration::from_millis(100)).await;
                let (asking, asked) = (Arc::clone(&consumer), topic.clone());
                let committed =
                    tokio::task::spawn_blocking(move || committed(&asking, &asked, partitions)).await.unwrap();
                let rows = db.ledger(&group, topic_id).await;
                // While the broker or the database is away by the test's own doing there is nothing to compare.
                let (Some(committed), Ok(rows)) = (committed, rows) else { continue };
                for LedgerRow { partition, next_offset, .. } in rows {
                    let at = usize::try_from(partition).unwrap();
                    assert!(
                        committed[at] <= next_offset,
                        "partition {partition}: Kafka {} is ahead of the ledger {next_offset}",
                        committed[at]
                    );
                    assert!(
                        last[at] <= next_offset,
                        "partition {partition}: the ledger went from {} back to {next_offset}",
                        last[at]
                    );
                    last[at] = next_offset;
                }
                samples += 1;
            }
            samples
        });
        Self { stop, done }
    }

    /// How often it looked; panics if it ever saw a promise broken.
    pub(crate) async fn finish(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.done.await.unwrap()
    }
}

/// The group's committed offsets; -1 where there is none.
pub(crate) fn committed(consumer: &BaseConsumer, topic: &str, partitions: i32) -> Option<Vec<i64>> {
    let mut list = TopicPartitionList::new();
    for partition in 0..partitions {
        list.add_partition(topic, partition);
    }
    let committed = consumer.committed_offsets(list, Duration::from_secs(5)).ok()?;
    let offset = |partition| match committed.find_partition(topic, partition).map(|element| element.offset()) {
        Some(Offset::Offset(offset)) => offset,
        _ => -1,
    };
    Some((0..partitions).map(offset).collect())
}
