//! Everything in one process: a broker in memory, SQLite, a load with repeats and poison, two pipelines, a live view,
//! and at the end the audit. The same runs against a real broker and a real database.
//!
//! What it shows of weir is real: the consumer, the batches, the fence, the dead rows. The broker in memory is
//! librdkafka's mock cluster, which keeps 5 MiB a partition and forgets what is older, so the load never lets more than
//! [`BYTES_MAX`] of a partition wait.

mod audit;
mod broker;
mod events;
mod flow;
mod load;
mod place;
mod report;
mod stage;
mod view;

pub use report::Report;
pub use view::View;

use std::time::Duration;

use anyhow::{Result, bail};
use tokio_util::sync::CancellationToken;

use self::place::Place;
use self::stage::Stage;
use crate::config;
use crate::dead_letter::mirror_topic;

/// The most bytes of a partition that are acknowledged and not settled.
pub const BYTES_MAX: usize = 2 << 20;
/// How long a real broker and a real database may take to answer.
const ANSWERED: Duration = Duration::from_secs(10);
const POOL: &str = "demo";

/// What to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// For how long events are published.
    pub duration: Duration,
    /// At most so many events a second.
    pub rate: Option<u32>,
    /// A real broker's addresses; without them, the broker is in memory.
    pub brokers: Option<Vec<String>>,
    /// A real database, in which a scratch schema is made; without it, SQLite in a temporary file.
    pub store: Option<config::Secret>,
    /// Redis for the processed set.
    pub redis: Option<config::Secret>,
}

/// What the demo runs on, in words.
#[derive(Debug, Clone)]
pub struct Setting {
    /// The broker.
    pub broker: String,
    /// The database.
    pub store: String,
    /// For how long it publishes.
    pub duration: Duration,
}

/// Runs the demo: until its time is up or it is told to stop, then until everything is settled, then the audit. Told to
/// stop again, it gives the audit up. Says beside the report whether everything that it made is removed.
///
/// # Errors
/// A service cannot be used, an event is not acknowledged, or what was published is not settled in time. What was made
/// until then is removed.
pub async fn run(options: Options, mut view: View, stop: CancellationToken) -> Result<(Report, Result<()>)> {
    let name = format!("weir_demo_{:08x}", uuid::Uuid::new_v4().as_fields().0);
    let mut place = Place::default();
    let done = demonstrate(&options, &name, &mut place, &mut view, stop).await;
    view.close();
    let removed = place.remove().await;
    match done {
        Ok(report) => Ok((report, removed)),
        Err(error) => {
            if let Err(left) = removed {
                tracing::warn!("{left:#}");
            }
            Err(error)
        }
    }
}

async fn demonstrate(
    options: &Options,
    name: &str,
    place: &mut Place,
    view: &mut View,
    stop: CancellationToken,
) -> Result<Report> {
    let topic = name.replace('_', "-");
    let topics = [topic.clone(), mirror_topic(&topic, POOL)];
    // Until both have answered, nothing is made, so that this can be given up anywhere.
    let answered = tokio::select! {
        answered = place::answered(options, name) => answered?,
        () = stop.cancelled() => bail!("stopped before the services had answered"),
    };
    place.make(options, answered, name, &topics).await?;
    let (Some(broker), Some(scratch)) = (&place.broker, &place.scratch) else { bail!("nothing to run on was made") };
    let setting = Setting {
        broker: match &options.brokers {
            None => "in memory (librdkafka's mock cluster, no Kafka)".to_owned(),
            Some(brokers) => format!("Kafka at {}", brokers.join(",")),
        },
        store: scratch.settings.url.to_string(),
        duration: options.duration,
    };
    view.announce(&setting)?;
    let stage = Stage { options, setting: &setting, broker, store: &scratch.settings, name, topic: &topic };
    stage.play(view, &stop).await
}
