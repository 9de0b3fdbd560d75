//! The run itself: a worker pool, the load it works on, the watch over both, and the audit.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::broker::{Broker, PARTITIONS};
use super::events::Events;
use super::flow::Flow;
use super::load::{Load, Published};
use super::{BYTES_MAX, Options, POOL, Report, Setting, View, audit};
use crate::admin::Health;
use crate::config::{self, Config, Start};
use crate::metrics::Metrics;
use crate::pool::{self, PartitionStanding, Phase, Pool, Process, Standings};
use crate::publish::{PublishOptions, Publisher};

/// How much of [`BYTES_MAX`] the load uses: more would only wait, and waiting is latency.
const BYTES_USED: usize = BYTES_MAX / 4;
/// How often the pool's standing is looked at; latencies are as fine as this.
const WATCH: Duration = Duration::from_millis(5);
/// How long what was published may take to be settled once the load has stopped.
const DRAIN: Duration = Duration::from_secs(60);
/// How long nothing may be settled before the demo gives up.
const STUCK: Duration = Duration::from_secs(10);
/// How long the group's first rebalance may take.
const JOINED: Duration = Duration::from_secs(60);
/// How long the topic may take to be known.
const TOPIC_KNOWN: Duration = Duration::from_secs(10);
/// How long a pool may take to stop that nobody waits for any more.
const STOPPED: Duration = Duration::from_secs(10);

/// What the pool runs on.
pub(super) struct Stage<'a> {
    pub(super) options: &'a Options,
    pub(super) setting: &'a Setting,
    pub(super) broker: &'a Broker,
    pub(super) store: &'a config::Store,
    pub(super) name: &'a str,
    pub(super) topic: &'a str,
}

type Worker = JoinHandle<Result<(), pool::Error>>;

/// What was settled, and since when.
struct Settled {
    published: Published,
    flow: Arc<Flow>,
    begun: Instant,
}

impl Stage<'_> {
    /// Runs it to the end. However it ends, neither the pool nor the load works on.
    pub(super) async fn play(&self, view: &mut View, stop: &CancellationToken) -> Result<Report> {
        let config = self.configuration();
        let process = Process { metrics: Metrics::new(), health: Health::new([POOL]) };
        let pool = Pool::from_config(&config, POOL, &process).await?;
        let standings = pool.standings();
        let stop_pool = CancellationToken::new();
        let mut pool = tokio::spawn(pool.run(stop_pool.clone()));
        let done = self.to_the_end(&config, &mut pool, &stop_pool, &standings, view, stop).await;
        view.close();
        stop_pool.cancel();
        if !pool.is_finished() {
            // What it still does would meet tables and topics that are being removed.
            tokio::time::timeout(STOPPED, &mut pool).await.ok();
        }
        done
    }

    async fn to_the_end(
        &self,
        config: &Config,
        pool: &mut Worker,
        stop_pool: &CancellationToken,
        standings: &Standings,
        view: &mut View,
        stop: &CancellationToken,
    ) -> Result<Report> {
        let publisher = Publisher::new(config.kafka.client(), PublishOptions::default())?;
        publisher.await_topic(self.topic, TOPIC_KNOWN).await?;
        joined(standings, pool, stop).await?;
        let events = Events::new(self.name);
        let settled = self.settle(publisher, &events, pool, standings, view, stop).await?;
        // The terminal is given back first, so that Ctrl-C is a signal again.
        view.close();
        view.audits()?;
        let was_told = stop.is_cancelled();
        let audit = async {
            stop_pool.cancel();
            pool.await.context("the pool panicked")??;
            let settings = (POOL, &config.pools[POOL]);
            audit::run(self.store, settings, &events, &settled.published).await.context("audit the demo")
        };
        tokio::select! {
            audited = audit => Ok(Report::new(&settled.published, &audited?, &settled.flow, settled.begun)),
            () = stop.cancelled(), if !was_told => bail!("stopped before the audit was done"),
        }
    }

    /// Publishes until the time is up or somebody has had enough, and waits until everything is settled.
    async fn settle(
        &self,
        publisher: Publisher,
        events: &Events,
        pool: &mut Worker,
        standings: &Standings,
        view: &mut View,
        stop: &CancellationToken,
    ) -> Result<Settled> {
        let flow = Arc::new(Flow::new(PARTITIONS, BYTES_USED));
        let stop_load = stop.child_token();
        let load = Load {
            publisher,
            topic: self.topic.to_owned(),
            events: events.clone(),
            flow: Arc::clone(&flow),
            rate: self.options.rate,
        };
        if !stop.is_cancelled() {
            view.open(self.setting)?;
        }
        let begun = Instant::now();
        // Dropped, it ends the load: on an error nobody waits for it.
        let mut loads = tokio::task::JoinSet::new();
        loads.spawn(load.run(stop_load.clone()));
        let mut published = None;
        let mut drain_until = None;
        let mut stuck = Stuck::new();
        let mut watch = tokio::time::interval(WATCH);
        loop {
            tokio::select! {
                ended = &mut *pool => bail!(why(ended)),
                Some(done) = loads.join_next(), if published.is_none() => {
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
                    if view.wants_to_stop() || begun.elapsed() >= self.options.duration {
                        stop_load.cancel();
                    }
                }
            }
            if flow.is_drained()
                && let Some(published) = published.take()
            {
                return Ok(Settled { published, flow, begun });
            }
            if drain_until.is_some_and(|until| Instant::now() > until) {
                bail!("{} events were not settled within {} s", flow.look().lag, DRAIN.as_secs());
            }
        }
    }

    fn configuration(&self) -> Config {
        let pipeline =
            |name: &str| config::Pipeline { name: name.to_owned(), handler: name.to_owned(), ..Default::default() };
        let dimensions = ["type", "user", "active_users"].map(str::to_owned).to_vec();
        let pool = config::Pool {
            group: Some(self.name.to_owned()),
            topics: vec![self.topic.to_owned()],
            start: Start::Beginning,
            pipelines: vec![
                pipeline("persist"),
                config::Pipeline { dimensions: Some(dimensions), ..pipeline("analyze") },
            ],
            ..config::Pool::default()
        };
        let mut config = Config { store: Some(self.store.clone()), ..Config::default() };
        config.kafka.brokers = self.broker.addresses();
        config.kafka.in_memory = self.broker.is_in_memory();
        config.redis = self.options.redis.clone().map(|url| config::Redis { url, ..config::Redis::default() });
        config.pools.insert(POOL.to_owned(), pool);
        config
    }
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
async fn joined(standings: &Standings, pool: &mut Worker, stop: &CancellationToken) -> Result<()> {
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
