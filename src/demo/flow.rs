//! What is on its way: published and not yet settled, by partition. It bounds the load, since an in-memory broker
//! drops what it has no room for, and measures from sending to settled.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use hdrhistogram::Histogram;
use tokio::sync::Notify;

use crate::pool::PartitionStanding;

/// An event that a broker has acknowledged.
#[derive(Debug, Clone, Copy)]
pub(super) struct Acknowledged {
    pub(super) offset: i64,
    pub(super) bytes: usize,
    pub(super) sent_at: Instant,
}

/// One partition's part.
#[derive(Debug, Default)]
struct Lane {
    waiting: VecDeque<Acknowledged>,
    waiting_bytes: usize,
    settled: u64,
    next_offset: i64,
    state: &'static str,
    batch_events_max: usize,
}

#[derive(Debug)]
struct State {
    lanes: Vec<Lane>,
    /// Sent, and not yet answered by the broker: their partition is not known.
    in_flight_bytes: usize,
    sent: u64,
    acknowledged: u64,
    /// Milliseconds from sending to settled, of the whole run.
    latency_us: Histogram<u64>,
    /// The same since the last look.
    recent_us: Histogram<u64>,
    last_settled_at: Option<Instant>,
}

/// Shared by the load, the acknowledgements, the watch over the pool, and the view.
#[derive(Debug)]
pub(super) struct Flow {
    state: Mutex<State>,
    /// Room was made.
    room: Notify,
    bytes_max: usize,
}

/// One look at everything.
#[derive(Debug, Clone, Default)]
pub(super) struct Look {
    pub(super) sent: u64,
    pub(super) settled: u64,
    pub(super) lag: u64,
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
    pub(super) lanes: Vec<LaneLook>,
}

/// One partition in a look.
#[derive(Debug, Clone, Default)]
pub(super) struct LaneLook {
    pub(super) settled: u64,
    pub(super) lag: u64,
    pub(super) state: &'static str,
    pub(super) batch_events_max: usize,
}

/// A histogram of microseconds up to an hour, to two digits.
fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 3_600_000_000, 2).expect("the bounds are constants that a histogram takes")
}

/// A percentile in milliseconds.
fn percentile_ms(histogram: &Histogram<u64>, percentile: f64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "an hour in microseconds is far below 2^52")]
    let us = histogram.value_at_percentile(percentile) as f64;
    us / 1_000.0
}

impl Flow {
    /// At most so many bytes of a partition are acknowledged and not settled.
    pub(super) fn new(partitions: usize, bytes_max: usize) -> Self {
        let state = State {
            lanes: (0..partitions).map(|_| Lane { state: "waiting", ..Lane::default() }).collect(),
            in_flight_bytes: 0,
            sent: 0,
            acknowledged: 0,
            latency_us: histogram(),
            recent_us: histogram(),
            last_settled_at: None,
        };
        Self { state: Mutex::new(state), room: Notify::new(), bytes_max }
    }

    /// Waits for room on every partition, since the broker decides on which one the event lands, and takes it.
    pub(super) async fn take_room(&self, bytes: usize) {
        loop {
            let room = self.room.notified();
            {
                let mut state = self.lock();
                let fullest = state.lanes.iter().map(|lane| lane.waiting_bytes).max().unwrap_or(0);
                if fullest + state.in_flight_bytes + bytes <= self.bytes_max {
                    state.in_flight_bytes += bytes;
                    state.sent += 1;
                    return;
                }
            }
            room.await;
        }
    }

    /// A broker has an event.
    pub(super) fn acknowledged(&self, partition: i32, event: Acknowledged) {
        let mut state = self.lock();
        state.in_flight_bytes = state.in_flight_bytes.saturating_sub(event.bytes);
        state.acknowledged += 1;
        if let Some(lane) = usize::try_from(partition).ok().and_then(|at| state.lanes.get_mut(at)) {
            lane.waiting_bytes += event.bytes;
            lane.waiting.push_back(event);
        }
    }

    /// The pool stands here: what lies below is settled.
    pub(super) fn stands(&self, standings: &[PartitionStanding]) {
        let now = Instant::now();
        let mut state = self.lock();
        let state = &mut *state;
        for standing in standings {
            let Some(lane) = usize::try_from(standing.partition).ok().and_then(|at| state.lanes.get_mut(at)) else {
                continue;
            };
            lane.state = standing.phase.as_str();
            lane.batch_events_max = standing.batch_events_max;
            lane.next_offset = standing.next_offset.unwrap_or(lane.next_offset);
            while let Some(event) = lane.waiting.pop_front_if(|event| event.offset < lane.next_offset) {
                lane.waiting_bytes -= event.bytes;
                lane.settled += 1;
                let us = u64::try_from(now.duration_since(event.sent_at).as_micros()).unwrap_or(u64::MAX);
                state.latency_us.saturating_record(us);
                state.recent_us.saturating_record(us);
                state.last_settled_at = Some(now);
            }
        }
        self.room.notify_waiters();
    }

    /// Whether everything sent is acknowledged and settled.
    pub(super) fn is_drained(&self) -> bool {
        let state = self.lock();
        state.acknowledged == state.sent && state.lanes.iter().all(|lane| lane.waiting.is_empty())
    }

    /// How many records are settled, and how many wait to be.
    pub(super) fn settled_and_lag(&self) -> (u64, u64) {
        let state = self.lock();
        let sums = state.lanes.iter().map(|lane| (lane.settled, lane.waiting.len() as u64));
        sums.fold((0, 0), |sum, lane| (sum.0 + lane.0, sum.1 + lane.1))
    }

    /// A look at everything; latencies are those since the last look.
    pub(super) fn look(&self) -> Look {
        let mut state = self.lock();
        let lanes: Vec<LaneLook> = state
            .lanes
            .iter()
            .map(|lane| LaneLook {
                settled: lane.settled,
                lag: lane.waiting.len() as u64,
                state: lane.state,
                batch_events_max: lane.batch_events_max,
            })
            .collect();
        let look = Look {
            sent: state.sent,
            settled: lanes.iter().map(|lane| lane.settled).sum(),
            lag: lanes.iter().map(|lane| lane.lag).sum(),
            p50_ms: percentile_ms(&state.recent_us, 50.0),
            p99_ms: percentile_ms(&state.recent_us, 99.0),
            lanes,
        };
        state.recent_us.reset();
        look
    }

    /// The whole run's latencies in milliseconds (50th and 99th percentile), and when the last event was settled.
    pub(super) fn whole(&self) -> (f64, f64, Option<Instant>) {
        let state = self.lock();
        let of = |percentile| percentile_ms(&state.latency_us, percentile);
        (of(50.0), of(99.0), state.last_settled_at)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::Phase;

    fn event(offset: i64, bytes: usize) -> Acknowledged {
        Acknowledged { offset, bytes, sent_at: Instant::now() }
    }

    fn at(partition: i32, next_offset: i64) -> PartitionStanding {
        let topic = "t".to_owned();
        PartitionStanding {
            topic,
            partition,
            phase: Phase::Polling,
            next_offset: Some(next_offset),
            batch_events_max: 9,
            owner: None,
            behind: None,
            in_phase_for: std::time::Duration::ZERO,
            settled_ago: None,
        }
    }

    #[tokio::test]
    async fn sending_waits_while_any_partition_could_overflow() {
        let flow = Flow::new(2, 1_000);
        flow.take_room(600).await;
        let second = tokio::time::timeout(std::time::Duration::from_millis(20), flow.take_room(600)).await;
        assert!(second.is_err(), "in flight it could land beside the first");
        flow.acknowledged(1, event(0, 600));
        let second = tokio::time::timeout(std::time::Duration::from_millis(20), flow.take_room(600)).await;
        assert!(second.is_err(), "acknowledged it still waits");
        flow.stands(&[at(1, 1)]);
        flow.take_room(600).await;
    }

    #[tokio::test]
    async fn an_event_is_settled_when_its_partition_stands_above_it() {
        let flow = Flow::new(2, 1 << 20);
        for offset in 0..4 {
            flow.take_room(10).await;
            flow.acknowledged((offset % 2) as i32, event(offset, 10));
        }
        flow.stands(&[at(0, 2), at(1, 2)]);
        let look = flow.look();
        assert_eq!((look.sent, look.settled, look.lag), (4, 2, 2));
        assert_eq!(look.lanes[0].batch_events_max, 9);
        assert!(!flow.is_drained());
        flow.stands(&[at(0, 4), at(1, 4), at(7, 4)]);
        assert!(flow.is_drained());
    }
}
