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
mod report;
mod view;

pub use report::Report;
pub use view::View;

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use self::broker::{Broker, PARTITIONS};
use self::events::Events;
use self::flow::Flow;
use self::load::Load;
use crate::admin::Health;
use crate::config::{self, Config, Start};
use crate::dead_letter::mirror_topic;
use crate::metrics::Metrics;
use crate::pool::{self, PartitionStanding, Phase, Pool, Process, Standings};
use crate::publish::{PublishOptions, Publisher};
use crate::store::{self, Scratch};

/// The most bytes of a partition that are acknowledged and not settled.
pub const BYTES_MAX: usize = 2 << 20;
/// How many of them the load uses: more would only wait, and waiting is latency.
const BYTES_USED: usize = BYTES_MAX / 4;
/// How often the pool's standing is looked at; latencies are as fine as this.
const WATCH: Duration = Duration::from_millis(5);
/// How long what was published may take to be settled once the load has stopped.
const DRAIN: Duration = Duration::from_secs(60);
/// How long nothing may be settled before the demo gives up.
const STUCK: Duration = Duration::from_secs(10);
/// How long the group's first rebalance may take.
const JOINED: Duration = Duration::from_secs(60);
/// How long a real broker and a real database may take to answer.
const ANSWERED: Duration = Duration::from_secs(10);
/// How long the topic may take to be known.
const TOPIC_KNOWN: Duration = Duration::from_secs(10);
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

/// Runs the demo: until its time is up or it is told to stop, then until everything is settled, then the audit.
///
/// # Errors
/// A service cannot be used, an event is not acknowledged, or what was published is not settled in time.
pub async fn run(options: Options, mut view: View, stop: CancellationToken) -> Result<Report> {
    let run = format!("weir_demo_{:08x}", uuid::Uuid::new_v4().as_fields().0);
    let topic = run.replace('_', "-");
    let topics = [topic.clone(), mirror_topic(&topic, POOL)];
    let broker = match &options.brokers {
        None => Broker::in_memory(&topics)?,
        Some(brokers) => Broker::real(brokers.clone(), &topics).await?,
    };
    let scratch = scratch(&options, &run).await?;
    let setting = Setting {
        broker: match &options.brokers {
            None => "in memory (librdkafka's mock cluster, no Kafka)".to_owned(),
            Some(brokers) => format!("Kafka at {}", brokers.join(",")),
        },
        store: scratch.settings.url.to_string(),
        duration: options.duration,
    };
    view.open(&setting)?;
    let done = demonstrate(&options, &broker, &scratch, &run, &topic, &mut view, stop).await;
    view.close();
    let (removed, left) = (scratch.remove().await, broker.remove().await);
    let report = done?;
    removed.context("remove the demo's tables")?;
    left?;
    Ok(report)
}

async fn scratch(options: &Options, run: &str) -> Result<Scratch> {
    let temporary = || {
        let path = std::env::temp_dir().join(format!("{run}.db"));
        config::Secret::from(format!("sqlite://{}", path.display()))
    };
    let settings = config::Store {
        url: options.store.clone().unwrap_or_else(temporary),
        // All partitions of a SQLite pool wait for one writer.
        statement_timeout: Duration::from_secs(10),
        ..config::Store::default()
    };
    store::await_answer(&*store::open(&settings)?, ANSWERED).await?;
    let scratch = Scratch::make(&settings, run).await.context("make a scratch database for the demo")?;
    store::open(&scratch.settings)?.migrate().await.context("make the demo's tables")?;
    Ok(scratch)
}

fn configuration(options: &Options, broker: &Broker, scratch: &Scratch, run: &str, topic: &str) -> Config {
    let pipeline =
        |name: &str| config::Pipeline { name: name.to_owned(), handler: name.to_owned(), ..Default::default() };
    let dimensions = ["type", "user", "active_users"].map(str::to_owned).to_vec();
    let pool = config::Pool {
        group: Some(run.to_owned()),
        topics: vec![topic.to_owned()],
        start: Start::Beginning,
        pipelines: vec![pipeline("persist"), config::Pipeline { dimensions: Some(dimensions), ..pipeline("analyze") }],
        ..config::Pool::default()
    };
    let mut config = Config { store: Some(scratch.settings.clone()), ..Config::default() };
    config.kafka.brokers = broker.addresses();
    config.kafka.in_memory = broker.is_in_memory();
    config.redis = options.redis.clone().map(|url| config::Redis { url, ..config::Redis::default() });
    config.pools.insert(POOL.to_owned(), pool);
    config
}

/// Notices a pool that cannot go on: a worker would wait for ever, and nobody waits so long for a demo.
struct Stuck {
    settled: u64,
    since: Instant,
    why: Option<String>,
}

impl Stuck {
    fn new() -> Self {
        Self { settled: 0, since: Instant::now(), why: None }
    }

    /// What the pool waits for, once nothing has been settled for long although something is there to be.
    fn look(&mut self, settled: u64, lag: u64, standings: &[PartitionStanding]) -> Option<&str> {
        if settled != self.settled || lag == 0 {
            *self = Self { settled, ..Self::new() };
        }
        for standing in standings {
            if let Phase::Waiting(why) | Phase::Held(why) = &standing.phase {
                self.why = Some(why.clone());
            }
        }
        (self.since.elapsed() > STUCK).then(|| self.why.as_deref().unwrap_or("its partitions do not move"))
    }
}

/// Waits until the pool has every partition: a group's first rebalance takes its time, which is not the load's.
async fn joined(
    standings: &Standings,
    pool: &mut JoinHandle<Result<(), pool::Error>>,
    stop: &CancellationToken,
) -> Result<()> {
    let until = Instant::now() + JOINED;
    while standings.list().iter().filter(|standing| standing.next_offset.is_some()).count() < PARTITIONS {
        if Instant::now() > until {
            bail!("the pool did not get its partitions within {} s", JOINED.as_secs());
        }
        tokio::select! {
            ended = &mut *pool => bail!(why(ended)),
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(WATCH) => {}
        }
    }
    Ok(())
}

fn why(ended: Result<Result<(), pool::Error>, tokio::task::JoinError>) -> String {
    match ended {
        Ok(Ok(())) => "the pool ended by itself".to_owned(),
        Ok(Err(error)) => error.to_string(),
        Err(panic) => format!("the pool panicked: {panic}"),
    }
}

async fn demonstrate(
    options: &Options,
    broker: &Broker,
    scratch: &Scratch,
    run: &str,
    topic: &str,
    view: &mut View,
    stop: CancellationToken,
) -> Result<Report> {
    let config = configuration(options, broker, scratch, run, topic);
    let process = Process { metrics: Metrics::new(), health: Health::new([POOL]) };
    let pool = Pool::from_config(&config, POOL, &process).await?;
    let standings = pool.standings();
    let publisher = Publisher::new(config.kafka.client(), PublishOptions::default())?;
    publisher.await_topic(topic, TOPIC_KNOWN).await?;

    let flow = Arc::new(Flow::new(PARTITIONS, BYTES_USED));
    let (stop_pool, events) = (CancellationToken::new(), Events::new(run));
    let mut pool = tokio::spawn(pool.run(stop_pool.clone()));
    joined(&standings, &mut pool, &stop).await?;
    let stop_load = stop.child_token();
    let load = Load {
        publisher,
        topic: topic.to_owned(),
        events: events.clone(),
        flow: Arc::clone(&flow),
        rate: options.rate,
    };
    let begun = Instant::now();
    let mut load: JoinHandle<Result<load::Published>> = tokio::spawn(load.run(stop_load.clone()));

    let mut published = None;
    let mut drain_until = None;
    let mut stuck = Stuck::new();
    let mut watch = tokio::time::interval(WATCH);
    loop {
        tokio::select! {
            ended = &mut pool => bail!(why(ended)),
            done = &mut load, if published.is_none() => {
                published = Some(done.context("the load panicked")??);
                drain_until = Some(Instant::now() + DRAIN);
            }
            _ = watch.tick() => {
                let standings = standings.list();
                flow.stands(&standings);
                let (settled, lag) = flow.settled_and_lag();
                if let Some(why) = stuck.look(settled, lag, &standings) {
                    bail!("nothing has been settled for {} s: {why}", STUCK.as_secs());
                }
                view.show(&flow, begun.elapsed())?;
                if view.wants_to_stop() || begun.elapsed() >= options.duration {
                    stop_load.cancel();
                }
            }
        }
        if published.is_some() && flow.is_drained() {
            break;
        }
        if drain_until.is_some_and(|until| Instant::now() > until) {
            bail!("{} events were not settled within {} s", flow.look().lag, DRAIN.as_secs());
        }
    }
    stop_pool.cancel();
    pool.await.context("the pool panicked")??;
    let published = published.unwrap_or_default();
    let settings = (POOL, &config.pools[POOL]);
    let audited = audit::run(&scratch.settings, settings, &events, &published).await.context("audit the demo")?;
    Ok(Report::new(&published, &audited, &flow, begun))
}
