//! The load: publishes as fast as there is room, repeats some events, and keeps count of what must come of it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::events::{Events, Kind, Made};
use super::flow::{Acknowledged, Flow};
use crate::publish::{Handle, Outgoing, Publisher, Receipt};

/// Events whose acknowledgement is waited for at once.
const UNANSWERED_MAX: usize = 20_000;
/// What a record costs a broker beside key and value.
const RECORD_OVERHEAD: usize = 64;

/// What was published, and so must have come of it.
#[derive(Debug, Default)]
pub(super) struct Published {
    /// Different events, poison included; their numbers are 0 to here.
    pub(super) unique_ids: u64,
    pub(super) duplicates: u64,
    pub(super) poison: u64,
    /// Good events by minute and user.
    pub(super) by_user: HashMap<(i64, u64), i64>,
}

impl Published {
    fn note(&mut self, made: &Made) {
        self.unique_ids += 1;
        match Events::kind(made.number) {
            Kind::Good => *self.by_user.entry((made.minute, made.user)).or_default() += 1,
            Kind::Malformed | Kind::Unfit => self.poison += 1,
        }
    }
}

/// Sends events until it is told to stop.
pub(super) struct Load {
    pub(super) publisher: Publisher,
    pub(super) topic: String,
    pub(super) events: Events,
    pub(super) flow: Arc<Flow>,
    /// At most so many events a second; without it as many as there is room for.
    pub(super) rate: Option<u32>,
}

/// A sent event on its way to its acknowledgement.
struct Unanswered {
    handle: Handle,
    bytes: usize,
    sent_at: Instant,
}

impl Load {
    /// Runs until it is told to stop, then waits for the last acknowledgement.
    pub(super) async fn run(self, stop: CancellationToken) -> Result<Published> {
        let (unanswered, answers) = mpsc::channel(UNANSWERED_MAX);
        let answering = tokio::spawn(answer(answers, Arc::clone(&self.flow)));
        let published = self.send_all(&stop, unanswered).await;
        answering.await.context("the load's acknowledgements panicked")??;
        published
    }

    async fn send_all(&self, stop: &CancellationToken, unanswered: mpsc::Sender<Unanswered>) -> Result<Published> {
        let mut published = Published::default();
        let mut repeats: BTreeMap<(u64, u64), Made> = BTreeMap::new();
        let begun = Instant::now();
        for number in 0.. {
            let made = self.events.make(number);
            // Only waiting is given up. Once there is room the event counts, and is sent to the end.
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = self.await_room(&made, &made.key, begun) => {}
            }
            self.send(&made, &made.key, &unanswered).await?;
            published.note(&made);
            if let Some(after) = Events::repeated_after(number) {
                repeats.insert((number + after, number), made);
            }
            while let Some(due) = repeats.first_entry().filter(|due| due.key().0 <= number) {
                self.repeat(&due.remove(), begun, &unanswered).await?;
                published.duplicates += 1;
            }
        }
        for made in repeats.into_values() {
            self.repeat(&made, begun, &unanswered).await?;
            published.duplicates += 1;
        }
        Ok(published)
    }

    /// Sends an event again: half of them under another key, which is mostly another partition.
    async fn repeat(&self, made: &Made, begun: Instant, unanswered: &mpsc::Sender<Unanswered>) -> Result<()> {
        let elsewhere = format!("again:{}", made.number);
        let key = if made.number.is_multiple_of(2) { &made.key } else { &elsewhere };
        self.await_room(made, key, begun).await;
        self.send(made, key, unanswered).await
    }

    /// Waits until the event's time has come and there is room for it, and takes that.
    async fn await_room(&self, made: &Made, key: &str, begun: Instant) {
        if let Some(rate) = self.rate {
            tokio::time::sleep_until((begun + Duration::from_secs_f64(made.number as f64 / f64::from(rate))).into())
                .await;
        }
        self.flow.take_room(bytes(made, key)).await;
    }

    async fn send(&self, made: &Made, key: &str, unanswered: &mpsc::Sender<Unanswered>) -> Result<()> {
        let headers = [("weir-id", made.id.as_bytes())];
        let mut event = Outgoing::new(&self.topic, made.value.as_bytes()).key(key.as_bytes());
        if Events::kind(made.number) == Kind::Malformed {
            event = event.headers(&headers);
        }
        let sent_at = Instant::now();
        let handle = self.publisher.send(event).await.context("publish an event")?;
        let sent = unanswered.send(Unanswered { handle, bytes: bytes(made, key), sent_at }).await;
        sent.map_err(|_| anyhow::anyhow!("the broker no longer takes events"))
    }
}

/// What an event takes up in a broker.
fn bytes(made: &Made, key: &str) -> usize {
    key.len() + made.value.len() + RECORD_OVERHEAD
}

/// Waits for each acknowledgement, in the order of sending.
async fn answer(mut unanswered: mpsc::Receiver<Unanswered>, flow: Arc<Flow>) -> Result<()> {
    while let Some(Unanswered { handle, bytes, sent_at }) = unanswered.recv().await {
        let receipt = handle.await.context("an event was not acknowledged")?;
        if let Receipt::Acknowledged { partition, offset } = receipt {
            flow.acknowledged(partition, Acknowledged { offset, bytes, sent_at });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use rdkafka::ClientConfig;
    use rdkafka::mocking::MockCluster;

    use super::*;
    use crate::publish::PublishOptions;

    /// Waits until no more events are taken on: the broker answers nothing, and the publisher has no place left.
    async fn until_it_stands_still(flow: &Flow, at: u64) {
        let begun = Instant::now();
        while flow.look().sent < at {
            assert!(begun.elapsed() < Duration::from_secs(30), "{} sent", flow.look().sent);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    #[tokio::test]
    async fn an_event_that_is_being_sent_when_the_load_is_stopped_counts() {
        const IN_FLIGHT: u32 = 5;
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic("load", 1, 1).unwrap();
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", cluster.bootstrap_servers());
        let options = PublishOptions { in_flight_events_max: IN_FLIGHT, ..PublishOptions::default() };
        let publisher = Publisher::new(client, options).unwrap();
        publisher.await_topic("load", Duration::from_secs(30)).await.unwrap();
        cluster.broker_down(1).unwrap();

        let flow = Arc::new(Flow::new(1, 1 << 20));
        let load = Load {
            publisher,
            topic: "load".to_owned(),
            events: Events::new("run"),
            flow: Arc::clone(&flow),
            rate: None,
        };
        let stop = CancellationToken::new();
        let load = tokio::spawn(load.run(stop.clone()));
        // One more than have a place: it has taken its room, and waits to be sent.
        until_it_stands_still(&flow, u64::from(IN_FLIGHT) + 1).await;
        stop.cancel();
        tokio::task::yield_now().await;
        cluster.broker_up(1).unwrap();
        let published = load.await.unwrap().unwrap();
        assert_eq!(published.unique_ids + published.duplicates, flow.look().sent);
        flow.stands(&[crate::pool::PartitionStanding {
            topic: "load".to_owned(),
            partition: 0,
            phase: crate::pool::Phase::Polling,
            next_offset: Some(i64::MAX),
            batch_events_max: 1,
            owner: None,
            behind: None,
            in_phase_for: std::time::Duration::ZERO,
            settled_ago: None,
        }]);
        assert!(flow.is_drained(), "{:?}", flow.look());
    }
}
