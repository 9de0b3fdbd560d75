//! The producers: each sends its conversations' events at their intended times, late ones at once, whatever becomes of
//! those before. What holds one up is measured as slip and shifts no intended time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use tokio::runtime::Handle as Runtime;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::events::{Events, Kind};
use super::flow::Flow;
use super::plan::Plan;
use super::schedule::Schedule;
use crate::config;
use crate::event::INTENDED_HEADER;
use crate::publish::{Handle, Outgoing, PublishOptions, Publisher, Receipt};

/// How soon a producer that waits for an event's time hears that it is to stop.
const HEAR_WITHIN: Duration = Duration::from_millis(20);
/// Never.
const NEVER: u64 = u64::MAX;

/// The run's time: when it began, by the clock that only goes forward and by the one that others have too.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    pub(super) begun: Instant,
    pub(super) begun_at: SystemTime,
}

impl Clock {
    /// Begins after a moment in which everything gets ready.
    pub(super) fn begin_in(moment: Duration) -> Self {
        Self { begun: Instant::now() + moment, begun_at: SystemTime::now() + moment }
    }

    pub(super) fn now_us(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// A time of the run since 1970.
    fn since_1970(&self, us: u64) -> Duration {
        self.begun_at.duration_since(UNIX_EPOCH).unwrap_or_default() + Duration::from_micros(us)
    }
}

/// What all producers share.
pub(super) struct Shared {
    pub(super) schedule: Schedule,
    pub(super) events: Events,
    pub(super) flow: Flow,
    pub(super) clock: Clock,
    /// Events meant for this time or later are not sent any more.
    stop_at_us: AtomicU64,
}

impl Shared {
    pub(super) fn new(schedule: Schedule, events: Events, flow: Flow, clock: Clock) -> Self {
        Self { schedule, events, flow, clock, stop_at_us: AtomicU64::new(NEVER) }
    }

    /// Ends the phases now. What is sent at this very moment still counts.
    pub(super) fn stop_now(&self) {
        self.stop_at_us.fetch_min(self.clock.now_us() + 1, Ordering::Relaxed);
    }

    /// When the phases end.
    pub(super) fn end_us(&self) -> u64 {
        self.schedule.end_us().min(self.stop_at_us.load(Ordering::Relaxed))
    }

    /// Events meant to be sent before a time.
    pub(super) fn intended_before(&self, us: u64) -> u64 {
        self.schedule.events_before(us.min(self.end_us()))
    }
}

/// The running producers.
pub(super) struct Generator {
    /// A task for each producer; it ends when the producer has, and every answer is there.
    answering: tokio::task::JoinSet<()>,
    /// Late events are given up too.
    give_up: CancellationToken,
}

/// An event on its way to its acknowledgement.
struct Unanswered {
    handle: Handle,
    original: u64,
    kind: Kind,
}

/// Clients for all producers, which know the topic already: that the first events wait for it would be measured.
///
/// # Errors
/// The topic is not there, or no broker answers in time.
pub(super) async fn connect(
    plan: &Plan,
    kafka: &config::Kafka,
    topic: &str,
    patience: Duration,
) -> Result<Vec<Publisher>> {
    let mut client = kafka.client();
    client.set("client.id", "weir-load");
    if let Some(linger) = plan.linger {
        client.remove("queue.buffering.max.ms");
        client.set("linger.ms", linger.as_millis().to_string());
    }
    let options = PublishOptions { in_flight_events_max: plan.in_flight, ..PublishOptions::default() };
    let mut clients = Vec::with_capacity(plan.producers);
    for _ in 0..plan.producers {
        let publisher = Publisher::new(client.clone(), options.clone())?;
        publisher.await_topic(topic, patience).await?;
        clients.push(publisher);
    }
    Ok(clients)
}

impl Generator {
    /// Starts a producer for each client. Nothing is sent before the clock's begin.
    pub(super) fn start(plan: &Plan, clients: Vec<Publisher>, topic: &str, shared: &Arc<Shared>) -> Result<Self> {
        let mut generator = Self { answering: tokio::task::JoinSet::new(), give_up: CancellationToken::new() };
        let producers = clients.len();
        for (index, publisher) in clients.into_iter().enumerate() {
            let (unanswered, answers) = mpsc::channel(plan.in_flight as usize + 1);
            generator.answering.spawn(answer(answers, publisher.clone(), Arc::clone(shared)));
            let producer = Producer {
                index,
                producers,
                publisher,
                topic: topic.to_owned(),
                shared: Arc::clone(shared),
                unanswered,
                give_up: generator.give_up.clone(),
                runtime: Runtime::current(),
            };
            let thread = std::thread::Builder::new().name(format!("load-{index}"));
            // It ends by itself once it is through, or told to give up.
            thread.spawn(move || producer.run()).context("start a producer's thread")?;
        }
        Ok(generator)
    }

    /// Whether nothing is sent any more, and every answer is there.
    pub(super) fn is_done(&mut self) -> bool {
        while self.answering.try_join_next().is_some() {}
        self.answering.is_empty()
    }

    /// Gives up what has not been sent. Answers still come.
    pub(super) fn give_up_late(&self) {
        self.give_up.cancel();
    }

    /// Waits for nothing more.
    pub(super) async fn end(mut self) {
        self.give_up.cancel();
        self.answering.shutdown().await;
    }
}

/// One client on a thread of its own: sleeping there is exact to some tens of microseconds.
struct Producer {
    index: usize,
    producers: usize,
    publisher: Publisher,
    topic: String,
    shared: Arc<Shared>,
    unanswered: mpsc::Sender<Unanswered>,
    give_up: CancellationToken,
    runtime: Runtime,
}

impl Producer {
    fn run(self) {
        let shared = Arc::clone(&self.shared);
        for event in 0..shared.schedule.events() {
            if shared.events.producer(event, self.producers) != self.index {
                continue;
            }
            let at_us = shared.schedule.at_us(event);
            if !self.wait_until(at_us) || !self.send(event, at_us) {
                break;
            }
        }
        // The answers end with what is on its way; the client is kept until then.
        drop(self.unanswered);
    }

    /// `false`: the event is not to be sent any more.
    fn wait_until(&self, at_us: u64) -> bool {
        let at = self.shared.clock.begun + Duration::from_micros(at_us);
        loop {
            if at_us >= self.shared.stop_at_us.load(Ordering::Relaxed) || self.give_up.is_cancelled() {
                return false;
            }
            match at.saturating_duration_since(Instant::now()) {
                Duration::ZERO => return true,
                left => std::thread::sleep(left.min(HEAR_WITHIN)),
            }
        }
    }

    /// `false`: given up before there was room for it.
    fn send(&self, event: u64, at_us: u64) -> bool {
        let Shared { schedule, events, flow, clock, .. } = &*self.shared;
        let (kind, original) = (events.kind(event), events.original(event));
        let made = events.make(original, clock.since_1970(schedule.at_us(original)));
        let intended_us = clock.since_1970(at_us).as_micros().to_string();
        let headers = [(INTENDED_HEADER, intended_us.as_bytes()), ("weir-id", made.id.as_bytes())];
        // The id stands in the value, where it can be read.
        let headers = &headers[..if kind == Kind::Malformed { 2 } else { 1 }];
        let outgoing = Outgoing::new(&self.topic, made.value.as_bytes()).key(made.key.as_bytes()).headers(headers);
        self.runtime.block_on(async {
            let handed = tokio::select! {
                biased;
                handed = self.publisher.send(outgoing) => handed,
                () = self.give_up.cancelled() => return false,
            };
            match handed {
                Ok(handle) => {
                    flow.handed_over(self.index, clock.now_us().saturating_sub(at_us));
                    // Whoever hears the answers goes away with the run only.
                    self.unanswered.send(Unanswered { handle, original, kind }).await.ok();
                }
                Err(error) => flow.refused(&error.to_string()),
            }
            true
        })
    }
}

/// Waits for each acknowledgement, in the order of sending.
async fn answer(mut answers: mpsc::Receiver<Unanswered>, publisher: Publisher, shared: Arc<Shared>) {
    while let Some(Unanswered { handle, original, kind }) = answers.recv().await {
        match handle.await {
            Ok(Receipt::Acknowledged { partition, offset }) => {
                shared.flow.acknowledged(original, kind, partition, offset);
            }
            Ok(Receipt::Buffered) => {}
            Err(error) => shared.flow.failed(&error.to_string()),
        }
    }
    // Closing a client blocks.
    drop(tokio::task::spawn_blocking(move || drop(publisher)));
}
