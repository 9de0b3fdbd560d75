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
            let sent = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                sent = self.send(&made, &made.key, begun, &unanswered) => sent,
            };
            sent?;
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
        self.send(made, key, begun, unanswered).await
    }

    async fn send(&self, made: &Made, key: &str, begun: Instant, unanswered: &mpsc::Sender<Unanswered>) -> Result<()> {
        if let Some(rate) = self.rate {
            tokio::time::sleep_until((begun + Duration::from_secs_f64(made.number as f64 / f64::from(rate))).into())
                .await;
        }
        let bytes = key.len() + made.value.len() + RECORD_OVERHEAD;
        self.flow.take_room(bytes).await;
        let headers = [("weir-id", made.id.as_bytes())];
        let mut event = Outgoing::new(&self.topic, made.value.as_bytes()).key(key.as_bytes());
        if Events::kind(made.number) == Kind::Malformed {
            event = event.headers(&headers);
        }
        let sent_at = Instant::now();
        let handle = self.publisher.send(event).await.context("publish an event")?;
        let sent = unanswered.send(Unanswered { handle, bytes, sent_at }).await;
        sent.map_err(|_| anyhow::anyhow!("the broker no longer takes events"))
    }
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
