//! The thread that commits offsets. It waits for each answer, because librdkafka gives the answer to an asynchronous
//! commit to nobody when it is used by events, as rdkafka does: a refusal, routine in a rebalance, would go unnoticed,
//! and a partition without further events would keep an old offset. The poll thread must not wait for a broker, so
//! this is another one. For the same reason it asks why a group does not take this worker.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Weak};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::error::KafkaError;

use super::joining::Joining;
use super::{Context, Subscription, Watermarks};

/// Dropped, it tells the thread to end; a commit on its way is not waited for.
pub(super) struct Committing(#[expect(dead_code, reason = "only its end means something")] Sender<()>);

/// What the thread needs. It does not keep the consumer alive: whoever closes it must be the last.
pub(super) struct Committer {
    consumer: Weak<BaseConsumer<Context>>,
    watermarks: Arc<Watermarks>,
    interval: Duration,
    ended: Receiver<()>,
    joining: Joining,
}

impl Committer {
    pub(super) fn start(
        subscription: &Subscription<'_>,
        consumer: &Arc<BaseConsumer<Context>>,
        watermarks: Arc<Watermarks>,
    ) -> Result<Committing, KafkaError> {
        let (sender, ended) = channel();
        let interval = subscription.kafka.commit_interval;
        let joining = Joining::new(subscription.group, subscription.kafka);
        let committer = Self { consumer: Arc::downgrade(consumer), watermarks, interval, ended, joining };
        std::thread::Builder::new()
            .name(format!("commit-{}", subscription.pool))
            .spawn(move || committer.run())
            .map_err(|error| KafkaError::ClientCreation(format!("cannot start the commit thread: {error}")))?;
        Ok(Committing(sender))
    }

    fn run(mut self) {
        while self.ended.recv_timeout(self.interval) == Err(RecvTimeoutError::Timeout) {
            let Some(consumer) = self.consumer.upgrade() else { return };
            self.joining.look(&consumer);
            self.commit(&consumer);
        }
    }

    fn commit(&self, consumer: &BaseConsumer<Context>) {
        let committed = self.watermarks.tell(|offsets| consumer.commit(offsets, CommitMode::Sync));
        if let Some(committed) = committed {
            consumer.context().note_commit(committed.as_ref().map(drop));
        }
    }
}
