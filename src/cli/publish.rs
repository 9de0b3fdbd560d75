//! `weir publish`: NDJSON to Kafka.

mod input;
mod report;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use tokio::sync::mpsc;

use crate::config::Config;
use crate::kafka::Unanswered;
use crate::metrics::Metrics;
use crate::publish::key::{KeyRule, Pointer};
use crate::publish::lines::{Chunk, LINE_BYTES_MAX, Line, LineOptions};
use crate::publish::{Compression, Delivery, Handle, Outgoing, PublishError, PublishOptions, Publisher, Receipt};
use crate::telemetry::traces::Traces;

use input::{Input, Piece, read_all};
use report::{Place, Report};

/// Chunks of lines that are read ahead.
const CHUNKS_AHEAD_MAX: usize = 4;
/// Events whose outcome has not been looked at; more than may be in flight, so that one slow partition
/// does not stop the others at once.
const UNSETTLED_EVENTS_MAX: usize = 40_000;
/// The exit code when Kafka's client refuses a setting.
const BAD_CONFIGURATION: u8 = 2;
/// How long to wait for a broker before saying so.
const SAY_WAITING_AFTER: Duration = Duration::from_secs(1);
/// What the last acknowledgements get beyond the delivery timeout, which ends every event by itself.
const FLUSH_MARGIN: Duration = Duration::from_secs(5);
/// What they get when the command is interrupted.
const FLUSH_INTERRUPTED: Duration = Duration::from_secs(10);

/// Sends each line of NDJSON files, byte for byte, as one event to Kafka
///
/// A line that is not a JSON object is bad: it is named and left out, the others are sent, and the exit
/// code is 1. Blank lines are skipped.
#[derive(Debug, clap::Args)]
#[command(after_help = super::examples!(
    "weir publish samples/messages.ndjson",
    "weir publish --topic orders --key-field /customer orders.ndjson",
    "zcat events.ndjson.gz | weir publish --json",
))]
pub(super) struct Args {
    /// Files to read; '-', or none, is standard input
    files: Vec<PathBuf>,
    /// Topic to send to; it must exist
    #[arg(long, default_value = "message-events")]
    topic: String,
    /// JSON pointer to the field whose value is the key, such as /user_id; a line without it has no key
    /// [default: the chat conversation, /message/group_id or else /message/from and /message/to]
    #[arg(long, value_name = "POINTER", conflicts_with = "key")]
    key_field: Option<Pointer>,
    /// The same key for every event
    #[arg(long, value_name = "VALUE")]
    key: Option<String>,
    /// Compression of batches [default: snappy, unless kafka.options says otherwise]
    #[arg(long)]
    compression: Option<Compression>,
    /// When an event counts as sent
    #[arg(long, default_value = "acknowledged")]
    delivery: Delivery,
    /// Stop at the first bad line or undelivered event
    #[arg(long)]
    fail_fast: bool,
    /// Longest line, in bytes; a longer one is bad
    #[arg(long, value_name = "BYTES", default_value_t = LINE_BYTES_MAX)]
    line_bytes_max: usize,
    /// Print the summary as JSON
    #[arg(long)]
    json: bool,
}

impl Args {
    fn key_rule(&self) -> KeyRule {
        match (&self.key, &self.key_field) {
            (Some(key), _) => KeyRule::Fixed(key.clone()),
            (None, Some(pointer)) => KeyRule::Field(pointer.clone()),
            (None, None) => KeyRule::Conversation,
        }
    }
}

/// Publishes and returns the exit code: 1 when a line was bad or an event was not delivered, 2 when
/// a Kafka setting is wrong.
///
/// # Errors
/// An input that cannot be opened, a broker that does not answer, a topic that does not exist.
pub(super) async fn run(args: Args, config: &Config) -> anyhow::Result<ExitCode> {
    let inputs = Input::open_all(&args.files)?;
    let options =
        PublishOptions { delivery: args.delivery, compression: args.compression, ..PublishOptions::default() };
    let delivery_timeout = options.delivery_timeout;
    let traces = Traces::start(&config.traces, &Metrics::new())?;
    let publisher = match Publisher::new(config.kafka.client(), options) {
        Ok(publisher) => publisher.traced(&traces.tracer()),
        Err(error) => {
            report::say(&format!("error: {error}"));
            return Ok(ExitCode::from(BAD_CONFIGURATION));
        }
    };
    await_topic(&publisher, &args.topic, config).await?;

    let report = Report::new(&inputs);
    let pieces = start_reading(inputs, &args)?;
    let mut session = Session { args, publisher, unsettled: VecDeque::new(), report };
    let end = tokio::select! {
        end = session.publish_all(pieces) => end,
        () = interrupted() => End::Interrupted,
    };
    let deadline = match end {
        End::Interrupted => FLUSH_INTERRUPTED,
        _ => delivery_timeout + FLUSH_MARGIN,
    };
    session.settle_all(deadline).await;
    let Session { args, report, publisher, .. } = session;
    drop(publisher);
    traces.stop().await;
    let is_clean = report.is_clean() && matches!(end, End::Complete);
    report.finish(&end, &args.topic, args.json)?;
    Ok(if is_clean { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Reads on a thread of its own, which nobody joins: it may wait for standard input for ever.
fn start_reading(inputs: Vec<Input>, args: &Args) -> anyhow::Result<mpsc::Receiver<Piece>> {
    let (sender, pieces) = mpsc::channel(CHUNKS_AHEAD_MAX);
    let options = LineOptions { key: args.key_rule(), line_bytes_max: args.line_bytes_max };
    let fail_fast = args.fail_fast;
    std::thread::Builder::new()
        .name("read-lines".to_owned())
        .spawn(move || read_all(&inputs, &options, fail_fast, &sender))
        .context("start the thread that reads lines")?;
    Ok(pieces)
}

/// Waits for the cluster to show the topic, and says so when that takes a while.
async fn await_topic(publisher: &Publisher, topic: &str, config: &Config) -> anyhow::Result<()> {
    let found = publisher.await_topic(topic, config.startup_timeout);
    tokio::pin!(found);
    tokio::select! {
        found = &mut found => return Ok(found.map(drop)?),
        () = tokio::time::sleep(SAY_WAITING_AFTER) => {}
    }
    let limit = humantime::format_duration(config.startup_timeout);
    match publisher.unanswered() {
        error @ Unanswered::Login { .. } => return Err(error.into()),
        error => report::say(&format!("waiting for Kafka, up to {limit}: {error}")),
    }
    Ok(found.await.map(drop)?)
}

/// Resolves at SIGINT or SIGTERM; never, when they cannot be listened for.
async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}

/// How the work ended.
pub(super) enum End {
    /// All inputs were read.
    Complete,
    /// `--fail-fast` found something.
    FailedFast,
    /// An input could not be read further.
    Unreadable(String),
    /// A signal came.
    Interrupted,
}

/// Events on their way to Kafka.
struct Session {
    args: Args,
    publisher: Publisher,
    /// Events sent whose outcome is not known yet, in order. Empty when delivery is buffered.
    unsettled: VecDeque<Unsettled>,
    report: Report,
}

struct Unsettled {
    place: Place,
    value_bytes: u64,
    handle: Handle,
}

impl Session {
    async fn publish_all(&mut self, mut pieces: mpsc::Receiver<Piece>) -> End {
        loop {
            // While no line comes, outcomes are looked at as they come.
            let piece = tokio::select! {
                biased;
                piece = pieces.recv() => piece,
                outcome = first_outcome(&mut self.unsettled) => {
                    self.settle(outcome);
                    if self.must_stop() {
                        return End::FailedFast;
                    }
                    continue;
                }
            };
            match piece {
                Some(Piece::Chunk { file, chunk }) => self.publish_chunk(file, &chunk).await,
                Some(Piece::Failed { file, error }) => {
                    let name = self.report.file_name(file);
                    return End::Unreadable(format!("read {name}: {error}"));
                }
                None => return End::Complete,
            }
            if self.must_stop() {
                return End::FailedFast;
            }
        }
    }

    async fn publish_chunk(&mut self, file: usize, chunk: &Chunk) {
        self.report.read(chunk.read_bytes, chunk.blank_lines);
        for line in &chunk.lines {
            match line {
                Line::Bad { number, reason } => {
                    let number = *number;
                    self.report.bad_line(Place { file, number }, reason);
                }
                Line::Event { number, value, key } => {
                    let number = *number;
                    let value = &chunk.bytes[value.clone()];
                    let key = key.clone().map(|key| &chunk.bytes[key]);
                    self.publish(Place { file, number }, key, value).await;
                }
            }
            if self.must_stop() {
                return;
            }
        }
    }

    async fn publish(&mut self, place: Place, key: Option<&[u8]>, value: &[u8]) {
        let event = Outgoing::new(&self.args.topic, value);
        let event = match key {
            Some(key) => event.key(key),
            None => event,
        };
        let value_bytes = value.len() as u64;
        match self.publisher.send(event).await {
            Ok(handle) => match self.args.delivery {
                Delivery::Buffered => self.report.delivered(value_bytes),
                Delivery::Acknowledged => self.unsettled.push_back(Unsettled { place, value_bytes, handle }),
            },
            Err(error) => self.report.undelivered(place, &error),
        }
        self.settle_ready();
        if self.unsettled.len() >= UNSETTLED_EVENTS_MAX {
            let outcome = first_outcome(&mut self.unsettled).await;
            self.settle(outcome);
        }
    }

    /// Settles the events at the front whose outcome is known.
    fn settle_ready(&mut self) {
        while let Some(first) = self.unsettled.front_mut() {
            let Some(outcome) = first.handle.try_outcome() else {
                return;
            };
            let (place, value_bytes) = (first.place, first.value_bytes);
            self.unsettled.pop_front();
            self.settle((place, value_bytes, outcome));
        }
    }

    /// Waits for what is in flight and settles everything.
    async fn settle_all(&mut self, deadline: Duration) {
        let left = self.publisher.flush(deadline).await;
        match self.args.delivery {
            Delivery::Buffered => self.report.lost_from_buffer(&left),
            Delivery::Acknowledged => self.settle_or_give_up(),
        }
    }

    /// Settles every event; one whose outcome is not known by now is undelivered.
    fn settle_or_give_up(&mut self) {
        while let Some(mut first) = self.unsettled.pop_front() {
            let outcome = first.handle.try_outcome();
            let outcome = outcome.unwrap_or(Err(PublishError::Interrupted));
            self.settle((first.place, first.value_bytes, outcome));
        }
    }

    fn settle(&mut self, (place, value_bytes, outcome): Outcome) {
        match outcome {
            Ok(_) => self.report.delivered(value_bytes),
            Err(error) => self.report.undelivered(place, &error),
        }
    }

    fn must_stop(&self) -> bool {
        self.args.fail_fast && !self.report.is_clean()
    }
}

type Outcome = (Place, u64, Result<Receipt, PublishError>);

/// Takes the first event as soon as its outcome is known; waits for ever when there is none. Nothing is
/// lost when it is dropped before.
async fn first_outcome(unsettled: &mut VecDeque<Unsettled>) -> Outcome {
    let Some(first) = unsettled.front_mut() else {
        return std::future::pending().await;
    };
    let outcome = (&mut first.handle).await;
    let (place, value_bytes) = (first.place, first.value_bytes);
    unsettled.pop_front();
    (place, value_bytes, outcome)
}
