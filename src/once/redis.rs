//! The processed set in Redis: sets of ids by time and shard.
//!
//! An id is in the set `weir:{POOL}:ids:BUCKET:SHARD`. A bucket is as long as the expiry and its sets end
//! with the next bucket; look-ups ask the running bucket and the one before, so that an id is known for one
//! to two expiries. Sets take about half of the memory of a key an id. The shards keep each set small enough
//! that dropping it does not hold Redis up. The clock is the machine's: a jump, or two machines that differ,
//! cost hits and nothing else.
//!
//! A batch is one pipeline, whatever its size. Whatever Redis does, a call returns by its deadline; after a
//! failure Redis is left alone and tried in the background, once a second, until it answers in time.

use std::array;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use redis::{FromRedisValue, Pipeline};
use tokio::runtime::Handle;

use super::link::{Away, Link};
use crate::breaker::{Breaker, Change, Permit};
use crate::config;
use crate::metrics::PoolMetrics;

const SHARDS: usize = 16;

/// The processed set of one pool. Clones share its connections.
#[derive(Clone, Debug)]
pub struct ProcessedSet(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    pool: String,
    /// `None` if the URL cannot be used, which has been logged.
    link: Option<Link>,
    deadline: Duration,
    expiry_ms: u64,
    metrics: PoolMetrics,
    /// Opens when Redis does not answer in time.
    away: Breaker,
    /// Open when Redis answers, but with a refusal, such as a write over its memory limit.
    lookups_refused: Breaker,
    marks_refused: Breaker,
}

impl ProcessedSet {
    /// A handle to the set of a pool. Neither waits for Redis nor needs it: connections are made when ids
    /// are first asked for. A URL that cannot be used is logged, and every answer is then unknown.
    #[must_use]
    pub fn connect(config: &config::Redis, pool: &str, metrics: PoolMetrics) -> Self {
        Self::over(Link::open(config, pool), config, pool, metrics)
    }

    /// The same over connections that the pool has.
    pub(crate) fn over(link: Option<Link>, config: &config::Redis, pool: &str, metrics: PoolMetrics) -> Self {
        Self(Arc::new(Inner {
            pool: pool.to_owned(),
            link,
            deadline: config.deadline,
            expiry_ms: u64::try_from(config.expiry.as_millis()).unwrap_or(u64::MAX).max(1),
            metrics,
            away: Breaker::default(),
            lookups_refused: Breaker::default(),
            marks_refused: Breaker::default(),
        }))
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
        let shards = by_shard(ids);
        let bucket = self.bucket();
        let commands = || {
            let mut pipeline = Pipeline::new();
            for (shard, members) in filled(&shards) {
                for bucket in [bucket, bucket.saturating_sub(1)] {
                    let command = pipeline.cmd("SMISMEMBER").arg(self.key(bucket, shard));
                    members.iter().for_each(|index| _ = command.arg(ids[*index]));
                }
            }
            pipeline
        };
        let replies: Vec<Vec<bool>> = self.send("lookup", &self.0.lookups_refused, commands).await?;
        let mut known = vec![false; ids.len()];
        for ((_, members), answers) in filled(&shards).zip(replies.chunks(2)) {
            for answer in answers {
                for (index, hit) in members.iter().zip(answer) {
                    known[*index] |= hit;
                }
            }
        }
        Some(known)
    }

    /// Remembers ids as settled, if it can be done by the deadline.
    pub async fn mark(&self, ids: &[&str]) {
        if ids.is_empty() {
            return;
        }
        let bucket = self.bucket();
        let commands = || {
            let ends_at_ms = bucket.saturating_add(2).saturating_mul(self.0.expiry_ms);
            let mut pipeline = Pipeline::new();
            // All or nothing: a set without its expiry would stay for ever.
            pipeline.atomic();
            for (shard, members) in filled(&by_shard(ids)) {
                let key = self.key(bucket, shard);
                let command = pipeline.cmd("SADD").arg(&key);
                members.iter().for_each(|index| _ = command.arg(ids[*index]));
                command.ignore();
                pipeline.cmd("PEXPIREAT").arg(&key).arg(ends_at_ms).ignore();
            }
            pipeline
        };
        // `None` has been logged where it was noticed; a mark that is not made costs a hit.
        let marked: Option<()> = self.send("mark", &self.0.marks_refused, commands).await;
        if marked.is_none() {
            self.0.metrics.lookups().unmarked.inc_by(ids.len() as u64);
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

    fn key(&self, bucket: u64, shard: usize) -> String {
        format!("weir:{{{}}}:ids:{bucket}:{shard}", self.0.pool)
    }

    fn bucket(&self) -> u64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(now.as_millis()).unwrap_or(u64::MAX) / self.0.expiry_ms
    }
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

/// The indexes of the ids in each shard.
fn by_shard(ids: &[&str]) -> [Vec<usize>; SHARDS] {
    let mut shards = array::from_fn(|_| Vec::new());
    for (index, id) in ids.iter().enumerate() {
        shards[shard_of(id)].push(index);
    }
    shards
}

fn filled(shards: &[Vec<usize>; SHARDS]) -> impl Iterator<Item = (usize, &Vec<usize>)> {
    shards.iter().enumerate().filter(|(_, members)| !members.is_empty())
}

/// FNV-1a and a last mix, since its upper bits hardly move for ids that end in a number. Workers of different
/// builds must find the same shard, which std's hasher does not promise.
fn shard_of(id: &str) -> usize {
    let hash = id
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    let mixed = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    (mixed >> 60) as usize % SHARDS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_spread_over_the_shards() {
        let ids: Vec<String> = (0..16_000).map(|n| format!("message-{n}")).collect();
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        for (shard, members) in by_shard(&ids).iter().enumerate() {
            assert!((700..1_300).contains(&members.len()), "shard {shard}: {}", members.len());
        }
    }

    #[test]
    fn a_shard_is_the_same_in_every_build() {
        assert_eq!(["a", "message-1", ""].map(shard_of), [14, 9, 14]);
    }
}
