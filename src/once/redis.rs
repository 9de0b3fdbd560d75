//! The processed set in Redis, as sets or as a bitmap.
//!
//! Time is divided into generations, each as long as the expiry. Ids are marked in the running generation, whose keys end
//! with the next one or a little later; look-ups ask the running generation and the one before. So an id is known for one
//! expiry at least, from its mark on, and for two at most. The clock is the machine's: one that jumps, or goes more
//! than half a minute before those of others, whose sets it takes for ended, costs hits. Where there is a store it costs nothing else.
//!
//! A batch is one pipeline, whatever its size. Whatever Redis does, a call returns by its deadline; after a
//! failure Redis is left alone and tried in the background, once a second, until it answers in time.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use redis::{FromRedisValue, Pipeline};
use tokio::runtime::Handle;

use super::bloom::Bits;
use super::link::{Away, Link};
use super::sets::Sets;
use crate::breaker::{Breaker, Change, Permit};
use crate::config::{self, Bitmap};
use crate::metrics::PoolMetrics;

/// The processed set of one pool. Clones share its connections.
#[derive(Clone, Debug)]
pub struct ProcessedSet(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    pool: String,
    /// `None` if the URL cannot be used, which has been logged.
    link: Option<Link>,
    deadline: Duration,
    layout: Layout,
    /// How long a generation is written.
    expiry_ms: u64,
    clock: fn() -> SystemTime,
    metrics: PoolMetrics,
    /// Opens when Redis does not answer in time.
    away: Breaker,
    /// Open when Redis answers, but with a refusal, such as a write over its memory limit.
    lookups_refused: Breaker,
    marks_refused: Breaker,
    unlinks_refused: Breaker,
}

/// How ids are kept.
#[derive(Debug)]
enum Layout {
    Sets(Sets),
    Bits(Bits),
}

impl ProcessedSet {
    /// A handle to the set of a pool. Neither waits for Redis nor needs it: connections are made when ids
    /// are first asked for. A URL that cannot be used is logged, and every answer is then unknown.
    #[must_use]
    pub fn connect(config: &config::Redis, pool: &str, metrics: PoolMetrics) -> Self {
        let layout = Layout::Sets(Sets::new(pool, millis(config.expiry)));
        Self::new(Link::open(config, pool), config, layout, config.expiry, pool, metrics)
    }

    /// The same as the pool's settings ask for it, which may be none.
    ///
    /// # Errors
    /// Its bitmap cannot be; says why and what to do.
    pub fn configured(
        config: &config::Redis,
        settings: &config::Pool,
        pool: &str,
        metrics: PoolMetrics,
    ) -> Result<Option<Self>, String> {
        Self::over(Link::open(config, pool), config, settings, pool, metrics)
    }

    /// The same over connections that the pool has.
    pub(crate) fn over(
        link: Option<Link>,
        config: &config::Redis,
        settings: &config::Pool,
        pool: &str,
        metrics: PoolMetrics,
    ) -> Result<Option<Self>, String> {
        let (layout, expiry) = match (settings.processed_set, Bitmap::of(settings, Some(config))?) {
            (config::ProcessedSet::Off, _) => return Ok(None),
            (_, None) => (Layout::Sets(Sets::new(pool, millis(config.expiry))), config.expiry),
            (_, Some(bitmap)) => {
                let expiry = bitmap.expiry;
                (Layout::Bits(Bits::new(pool, bitmap)), expiry)
            }
        };
        Ok(Some(Self::new(link, config, layout, expiry, pool, metrics)))
    }

    fn new(
        link: Option<Link>,
        config: &config::Redis,
        layout: Layout,
        expiry: Duration,
        pool: &str,
        metrics: PoolMetrics,
    ) -> Self {
        Self(Arc::new(Inner {
            pool: pool.to_owned(),
            link,
            deadline: config.deadline,
            layout,
            expiry_ms: millis(expiry),
            clock: SystemTime::now,
            metrics,
            away: Breaker::default(),
            lookups_refused: Breaker::default(),
            marks_refused: Breaker::default(),
            unlinks_refused: Breaker::default(),
        }))
    }

    /// Another clock than the machine's, for tests. Clones made before keep theirs.
    #[doc(hidden)]
    #[must_use]
    pub fn with_clock(mut self, clock: fn() -> SystemTime) -> Self {
        if let Some(inner) = Arc::get_mut(&mut self.0) {
            inner.clock = clock;
        }
        self
    }

    /// Since when Redis is left alone and its last error, while it is. Looks whether it is back, at most once a second,
    /// which otherwise only a pool with events would.
    pub fn outage(&self) -> Option<(SystemTime, String)> {
        let Inner { away, lookups_refused, marks_refused, link, .. } = &*self.0;
        let outage = away.open();
        if let (Some(_), Some(link), Ok(runtime)) = (&outage, link, Handle::try_current())
            && away.permit(Instant::now()) == Some(Permit::Trial)
        {
            runtime.spawn(Arc::clone(&self.0).try_again(link.clone()));
        }
        outage.or_else(|| lookups_refused.open()).or_else(|| marks_refused.open())
    }

    /// Which of the ids are known, in their order. `None`: not known in time, so nothing can be said.
    pub async fn lookup(&self, ids: &[&str]) -> Option<Vec<bool>> {
        let known = self.known(ids).await;
        let lookups = self.0.metrics.lookups();
        match &known {
            Some(known) => {
                let hits = known.iter().filter(|hit| **hit).count();
                lookups.hit.inc_by(hits as u64);
                lookups.miss.inc_by((known.len() - hits) as u64);
            }
            None => lookups.unknown.inc_by(ids.len() as u64),
        }
        known
    }

    async fn known(&self, ids: &[&str]) -> Option<Vec<bool>> {
        if ids.is_empty() {
            return Some(Vec::new());
        }
        let Inner { layout, lookups_refused, .. } = &*self.0;
        let now = self.generation();
        let generations = [now, now.saturating_sub(1)];
        match layout {
            Layout::Sets(sets) => {
                let commands = || sets.lookup(generations, ids);
                let replies: Vec<Vec<bool>> = self.send("lookup", lookups_refused, commands).await?;
                Some(Sets::known(ids.len(), &replies))
            }
            Layout::Bits(bits) => {
                let commands = || bits.lookup(generations, ids);
                let replies: Vec<Vec<u8>> = self.send("lookup", lookups_refused, commands).await?;
                Some(bits.known(ids, &replies))
            }
        }
    }

    /// Remembers ids as settled, if it can be done by the deadline.
    pub async fn mark(&self, ids: &[&str]) {
        if ids.is_empty() {
            return;
        }
        let Inner { layout, marks_refused, .. } = &*self.0;
        let now_ms = self.now_ms();
        let generation = now_ms / self.0.expiry_ms;
        let ends_at_ms = generation.saturating_add(2).saturating_mul(self.0.expiry_ms);
        self.unlink(now_ms).await;
        let commands = || match layout {
            Layout::Sets(sets) => sets.mark(generation, ends_at_ms, ids),
            Layout::Bits(bits) => bits.mark(generation, ends_at_ms, ids),
        };
        // `None` has been logged where it was noticed; a mark that is not made costs a hit.
        let marked: Option<()> = self.send("mark", marks_refused, commands).await;
        if marked.is_none() {
            self.0.metrics.lookups().unmarked.inc_by(ids.len() as u64);
        }
    }

    /// Has a generation's set go that has ended.
    async fn unlink(&self, now_ms: u64) {
        let Inner { layout: Layout::Sets(sets), unlinks_refused, .. } = &*self.0 else { return };
        let Some((generation, unlink)) = sets.unlink(now_ms) else { return };
        let answer: Option<()> = self.send("unlink", unlinks_refused, || unlink).await;
        if answer.is_some() {
            sets.has_unlinked(generation);
        }
    }

    /// Sends a pipeline unless Redis is left alone. `None`: no answer in time, or a refusal.
    async fn send<T: FromRedisValue>(
        &self,
        what: &str,
        refused: &Breaker,
        commands: impl FnOnce() -> Pipeline,
    ) -> Option<T> {
        let link = self.0.link.as_ref()?;
        let permit = refused.permit(Instant::now())?;
        match self.0.away.permit(Instant::now())? {
            Permit::Regular => {}
            Permit::Trial => {
                tokio::spawn(Arc::clone(&self.0).try_again(link.clone()));
                return None;
            }
        }
        match link.answer(self.0.deadline, &commands()).await {
            Ok(Ok(reply)) => {
                if refused.succeeded(permit) == Change::Closed {
                    tracing::info!(pool = self.0.pool, "redis accepts {what}s of the processed set again");
                }
                Some(reply)
            }
            Ok(Err(refusal)) => {
                if refused.failed(permit, Instant::now(), &refusal) == Change::Opened {
                    tracing::warn!(pool = self.0.pool, error = %refusal, "redis refuses a {what} of the processed \
                        set: look at its memory, version and permissions; events go on, duplicates are found by \
                        the database");
                }
                None
            }
            Err(away) => {
                self.0.is_away(Permit::Regular, &away);
                None
            }
        }
    }

    fn generation(&self) -> u64 {
        self.now_ms() / self.0.expiry_ms
    }

    fn now_ms(&self) -> u64 {
        let now = (self.0.clock)().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
    }
}

fn millis(expiry: Duration) -> u64 {
    u64::try_from(expiry.as_millis()).unwrap_or(u64::MAX).max(1)
}

impl Inner {
    /// The trial. So the first batches after an outage find connections that work.
    async fn try_again(self: Arc<Self>, link: Link) {
        match link.prove(self.deadline).await {
            Ok(()) => {
                if self.away.succeeded(Permit::Trial) == Change::Closed {
                    tracing::info!(pool = self.pool, "redis answers again: the processed set is back");
                }
            }
            Err(away) => self.is_away(Permit::Trial, &away),
        }
    }

    fn is_away(&self, permit: Permit, error: &Away) {
        match self.away.failed(permit, Instant::now(), error) {
            Change::Opened => {
                tracing::warn!(pool = self.pool, %error, "redis does not answer: the processed set is \
                left out and tried once a second; events go on, duplicates are found by the database");
            }
            Change::Closed | Change::None => {
                tracing::debug!(pool = self.pool, %error, "redis still does not answer");
            }
        }
    }
}
