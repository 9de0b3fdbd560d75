//! What a partition's task lets others see: where it stands and what it waits for.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use uuid::Uuid;

use crate::source::First;
use crate::store::Held;

/// What a partition's task is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// Becoming the partition's owner.
    TakingOver,
    /// Waiting for records.
    Polling,
    /// Waiting with a batch in hand for its turn, which the pool itself gives; says at what.
    Queued(&'static str),
    /// Waiting until the pool, which an operator has paused, is resumed.
    Paused,
    /// Handling a batch.
    Working,
    /// Waiting for something that is away, or for a person; says what.
    Waiting(String),
    /// Held until a person does something; says what.
    Held(String),
}

impl Phase {
    /// The word for views and logs.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::TakingOver => "taking over",
            Self::Polling => "polling",
            Self::Queued(_) => "queued",
            Self::Paused => "paused",
            Self::Working => "working",
            Self::Waiting(_) => "waiting",
            Self::Held(_) => "held",
        }
    }
}

/// Where one partition stands.
#[derive(Debug, Clone)]
pub struct PartitionStanding {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// What its task is doing.
    pub phase: Phase,
    /// The first offset that is not settled; `None` until the partition is claimed.
    pub next_offset: Option<i64>,
    /// The most events of its next batch; 0 until the first one is settled.
    pub batch_events_max: usize,
    /// The token it is claimed with; `None` until it is.
    pub owner: Option<Uuid>,
    /// How far it is behind, as it was looked at last; `None` while that is not known.
    pub behind: Option<Behind>,
    /// How long ago it began what it is doing.
    pub in_phase_for: Duration,
    /// How long ago it settled a batch; `None`: none since this process has the partition.
    pub settled_ago: Option<Duration>,
}

/// How far a partition is behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Behind {
    /// The log's end.
    pub end: i64,
    /// Events below it that are not settled.
    pub events: i64,
    /// The age of the oldest of them, in milliseconds; 0 where there is none.
    pub age_ms: i64,
}

/// Where a pool's partitions stand in this process, for whoever watches. Clones show the same pool.
#[derive(Debug, Clone, Default)]
pub struct Standings(Arc<Mutex<Progresses>>);

/// By topic and partition.
type Progresses = HashMap<(String, i32), Arc<Progress>>;

impl Standings {
    /// The partitions that this process has now, by topic and number.
    pub fn list(&self) -> Vec<PartitionStanding> {
        let mut list: Vec<_> = self
            .lock()
            .iter()
            .map(|((topic, partition), progress)| {
                let standing = progress.lock();
                PartitionStanding {
                    topic: topic.clone(),
                    partition: *partition,
                    phase: standing.phase.clone(),
                    next_offset: standing.next_offset,
                    batch_events_max: standing.batch_events_max,
                    owner: standing.token,
                    behind: standing.behind,
                    in_phase_for: standing.moved_at.elapsed(),
                    settled_ago: standing.settled_at.map(|at| at.elapsed()),
                }
            })
            .collect();
        list.sort_by(|a, b| (&a.topic, a.partition).cmp(&(&b.topic, b.partition)));
        list
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Progresses> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The first record of a partition that is not settled, as it was looked at in Kafka.
#[derive(Debug)]
pub(super) struct Front {
    pub(super) offset: i64,
    pub(super) seen_at: Instant,
    pub(super) record: First,
}

/// A task's standing.
#[derive(Debug)]
pub(super) struct Standing {
    pub(super) phase: Phase,
    /// When it last got on: settled a batch, or changed what it does.
    pub(super) moved_at: Instant,
    /// The topic's id, once the partition is claimed.
    pub(super) owned: Option<Uuid>,
    /// The token it is claimed with.
    pub(super) token: Option<Uuid>,
    /// The first offset that is not settled, once the partition is claimed.
    pub(super) next_offset: Option<i64>,
    /// The log's end that was reached, with nothing to read below it.
    pub(super) caught_up_to: i64,
    /// The time stamp of the oldest record in hand, in milliseconds since 1970.
    pub(super) oldest_in_hand_ms: Option<i64>,
    /// What is not settled is about as young as this, or younger: the record settled last, or when there was nothing to do.
    pub(super) since_ms: Option<i64>,
    /// The first record that is not settled, where none is in hand.
    pub(super) front: Option<Front>,
    /// The most events of its next batch.
    pub(super) batch_events_max: usize,
    /// How far it is behind, as it was looked at last.
    pub(super) behind: Option<Behind>,
    /// When it last settled a batch.
    pub(super) settled_at: Option<Instant>,
    /// Keys that are held back.
    pub(super) parked_keys: usize,
    /// How often in a row the watchdog has nudged it without effect.
    pub(super) nudges: u32,
}

impl Standing {
    /// The first record that is not settled, as it was looked at in Kafka and is still the first.
    pub(super) fn looked_at(&self) -> Option<First> {
        let front = self.front.as_ref().filter(|front| Some(front.offset) == self.next_offset)?;
        (front.record != First::Nothing).then_some(front.record)
    }

    /// The first record that is not settled, or one that is not younger.
    pub(super) fn oldest(&self) -> Option<First> {
        let in_hand = self.oldest_in_hand_ms.filter(|ms| *ms > 0).map(First::At);
        in_hand.or_else(|| self.looked_at()).or(self.since_ms.filter(|ms| *ms > 0).map(First::At))
    }
}

/// Shared between a task and its pool.
#[derive(Debug)]
pub(super) struct Progress {
    standing: Mutex<Standing>,
    /// Told when dead rows of the partition are to be replayed.
    pub(super) replay: Notify,
}

impl Progress {
    pub(super) fn new() -> Self {
        let standing = Mutex::new(Standing {
            phase: Phase::TakingOver,
            moved_at: Instant::now(),
            owned: None,
            token: None,
            next_offset: None,
            caught_up_to: 0,
            oldest_in_hand_ms: None,
            since_ms: None,
            front: None,
            batch_events_max: 0,
            behind: None,
            settled_at: None,
            parked_keys: 0,
            nudges: 0,
        });
        Self { standing, replay: Notify::new() }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn enter(&self, phase: Phase) {
        let mut standing = self.lock();
        if standing.phase != phase {
            standing.phase = phase;
            standing.moved_at = Instant::now();
        }
    }

    pub(super) fn claimed(&self, held: &Held) {
        let mut standing = self.lock();
        standing.owned = Some(held.place.origin.topic_id);
        standing.token = Some(held.token);
        standing.next_offset = Some(held.next_offset);
        standing.caught_up_to = 0;
        standing.since_ms = None;
        standing.moved_at = Instant::now();
    }

    /// The token and the offset that an idle partition's ledger row should have.
    pub(super) fn expected_row(&self) -> Option<(Uuid, i64)> {
        let standing = self.lock();
        matches!(standing.phase, Phase::Polling | Phase::Paused).then_some((standing.token?, standing.next_offset?))
    }

    /// Events between the first that is not settled and the log's end, as far as is known.
    pub(super) fn lag(&self, high: i64) -> Option<i64> {
        let standing = self.lock();
        let next_offset = standing.next_offset?;
        let is_idle = match standing.phase {
            Phase::Polling => true,
            Phase::Paused => standing.oldest_in_hand_ms.is_none(),
            _ => false,
        };
        let is_caught_up = high <= standing.caught_up_to && is_idle;
        Some(if is_caught_up { 0 } else { (high - next_offset).max(0) })
    }

    pub(super) fn settled(&self, next_offset: i64) {
        let mut standing = self.lock();
        standing.next_offset = Some(next_offset);
        standing.since_ms = standing.oldest_in_hand_ms.take().or(standing.since_ms);
        standing.moved_at = Instant::now();
        standing.settled_at = Some(standing.moved_at);
        standing.nudges = 0;
    }
}
