//! Looks at Kafka's committed offsets and then at the ledger, all the while: neither goes back within an epoch, Kafka
//! is never ahead, and no partition that has lag stands still.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use anyhow::Result;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::{Offset, TopicPartitionList};
use uuid::Uuid;

use super::database::{Database, LedgerRow};
use super::load::Book;
use super::world::World;

/// How often it looks.
const INTERVAL: Duration = Duration::from_millis(200);
/// How long a partition with lag may stand still while there is no fault.
pub(crate) const IDLE_MAX: Duration = Duration::from_secs(10);
/// Broken promises that are told; more of the same say no more.
const FINDINGS_MAX: usize = 20;

/// What was last seen of a partition.
#[derive(Debug, Clone, Copy)]
struct Place {
    epoch: i64,
    next_offset: i64,
    committed: i64,
    /// Since when it stands still with lag.
    still_since: Instant,
    /// Kafka's offset went back in this epoch; forgiven when the epoch has changed by the next look.
    went_back: Option<(i64, i64)>,
    is_told: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// How often Kafka's offsets were compared with the ledger.
    pub(crate) samples: u64,
    pub(crate) findings: Vec<String>,
    /// The longest that a partition with lag stood still, faults included.
    pub(crate) longest_gap: Duration,
    places: HashMap<i32, Place>,
    ledger: HashMap<i32, i64>,
    /// While a fault lasts partitions may stand still.
    in_fault: bool,
    calm_since: Option<Instant>,
    /// While a database is replaced by an older one both may go back.
    may_go_back: bool,
}

/// Runs until it is dropped.
pub(crate) struct Watch {
    pub(crate) seen: Arc<Mutex<Seen>>,
    looking: tokio::task::JoinHandle<()>,
}

impl Watch {
    pub(crate) fn start(client: &ClientConfig, world: &World, book: Arc<Mutex<Book>>) -> Result<Self> {
        let consumer: BaseConsumer = client.clone().set("group.id", &world.pool).create()?;
        let seen = Arc::new(Mutex::new(Seen::default()));
        let eye = Eye {
            consumer: Arc::new(consumer),
            db: world.db.clone(),
            group: world.pool.clone(),
            topic: world.topic.clone(),
            topic_id: world.topic_id,
            partitions: world.partitions,
            book,
            seen: Arc::clone(&seen),
        };
        Ok(Self { seen, looking: tokio::spawn(eye.run()) })
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap()
    }

    pub(crate) fn fault_begins(&self) {
        self.lock().in_fault = true;
    }

    pub(crate) fn fault_ends(&self) {
        let mut seen = self.lock();
        seen.in_fault = false;
        seen.calm_since = Some(Instant::now());
    }

    pub(crate) fn may_go_back(&self, may: bool) {
        self.lock().may_go_back = may;
    }

    /// Forgets where the ledger was: it is another one now.
    pub(crate) fn forget(&self) {
        let mut seen = self.lock();
        seen.ledger.clear();
        seen.places.clear();
    }

    /// The ledger's offsets as last seen.
    pub(crate) fn ledger(&self) -> HashMap<i32, i64> {
        self.lock().ledger.clone()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.looking.abort();
    }
}

struct Eye {
    consumer: Arc<BaseConsumer>,
    db: Database,
    group: String,
    topic: String,
    topic_id: Uuid,
    partitions: i32,
    book: Arc<Mutex<Book>>,
    seen: Arc<Mutex<Seen>>,
}

impl Eye {
    async fn run(self) {
        loop {
            tokio::time::sleep(INTERVAL).await;
            let consumer = Arc::clone(&self.consumer);
            let (topic, partitions) = (self.topic.clone(), self.partitions);
            let asked = tokio::task::spawn_blocking(move || committed(&consumer, &topic, partitions)).await;
            let rows = tokio::time::timeout(Duration::from_secs(3), self.db.ledger(&self.group, self.topic_id)).await;
            // While the broker or the database is away by the row's own doing there is nothing to compare.
            let (Ok(committed), Ok(Ok(rows))) = (asked, rows) else { continue };
            let ends = self.book.lock().unwrap().ends.clone();
            self.seen.lock().unwrap().look(&rows, committed.as_ref(), &ends);
        }
    }
}

impl Seen {
    fn tell(&mut self, what: String) {
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(what);
        }
    }

    fn look(&mut self, rows: &[LedgerRow], committed: Option<&HashMap<i32, i64>>, ends: &HashMap<i32, i64>) {
        let now = Instant::now();
        self.samples += u64::from(committed.is_some());
        // A partition that nobody has begun stands at its beginning.
        let is_begun = |partition: &i32| rows.iter().any(|row| row.partition == *partition);
        let begun_by_nobody = ends.keys().filter(|partition| !is_begun(partition));
        let absent = begun_by_nobody.map(|p| LedgerRow { partition: *p, owner: None, epoch: 0, next_offset: 0 });
        for row in rows.iter().copied().chain(absent).collect::<Vec<_>>() {
            let LedgerRow { partition, epoch, next_offset, .. } = row;
            self.ledger.insert(partition, next_offset);
            let fresh = Place { epoch, next_offset, committed: -1, still_since: now, went_back: None, is_told: false };
            let mut place = self.places.get(&partition).copied().unwrap_or(fresh);
            if let Some(committed) = committed.and_then(|committed| committed.get(&partition)) {
                self.compare_committed(&mut place, &row, *committed);
            }
            if next_offset < place.next_offset && !self.may_go_back {
                self.tell(format!(
                    "partition {partition}: the ledger went back from {} to {next_offset}",
                    place.next_offset
                ));
            }
            let is_behind = ends.get(&partition).is_some_and(|end| *end > next_offset);
            if next_offset != place.next_offset || !is_behind {
                place.still_since = now;
                place.is_told = false;
            }
            self.note_gap(&mut place, partition, now);
            (place.epoch, place.next_offset) = (epoch, next_offset);
            self.places.insert(partition, place);
        }
    }

    /// Kafka was asked first: it may not be ahead. It goes back only by a takeover's probe, which a claim follows.
    fn compare_committed(&mut self, place: &mut Place, row: &LedgerRow, committed: i64) {
        let (partition, epoch) = (row.partition, row.epoch);
        if committed > row.next_offset && !self.may_go_back {
            self.tell(format!("partition {partition}: Kafka {committed} is ahead of the ledger {}", row.next_offset));
        }
        if let Some((from, to)) = place.went_back.take()
            && epoch == place.epoch
            && !self.may_go_back
        {
            self.tell(format!("partition {partition}: Kafka went back from {from} to {to} within epoch {epoch}"));
        }
        if committed < place.committed && epoch == place.epoch {
            place.went_back = Some((place.committed, committed));
        }
        place.committed = committed;
    }

    fn note_gap(&mut self, place: &mut Place, partition: i32, now: Instant) {
        let gap = now - place.still_since;
        self.longest_gap = self.longest_gap.max(gap);
        if self.in_fault {
            return;
        }
        let calm = self.calm_since.map_or(gap, |since| gap.min(now - since));
        if calm > IDLE_MAX && !place.is_told {
            place.is_told = true;
            self.tell(format!("partition {partition} has lag and stood still for {IDLE_MAX:?} without a fault"));
        }
    }
}

/// The group's committed offsets; -1 where there is none.
fn committed(consumer: &BaseConsumer, topic: &str, partitions: i32) -> Option<HashMap<i32, i64>> {
    let mut list = TopicPartitionList::new();
    (0..partitions).for_each(|partition| _ = list.add_partition(topic, partition));
    let committed = consumer.committed_offsets(list, Duration::from_secs(2)).ok()?;
    let offset = |partition| match committed.find_partition(topic, partition).map(|element| element.offset()) {
        Some(Offset::Offset(offset)) => offset,
        _ => -1,
    };
    Some((0..partitions).map(|partition| (partition, offset(partition))).collect())
}
