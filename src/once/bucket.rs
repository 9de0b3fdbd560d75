//! The bucket of a group's rate: one for all its workers, in Redis under the key `weir:{GROUP}:rate`; a rate that was set by
//! `weir rate` has one of its own.
//!
//! It holds one number: when, by Redis' own clock, the next reservation begins (GCRA's theoretical arrival time, as in
//! ITU-T I.371, with a reservation in place of a refusal). Whoever reserves is told how long to wait, and moves it on by
//! what the reservation costs; so reservations are served in the order in which they were made, and nobody starves. A
//! group that has not used its rate has saved one allowance at most.
//!
//! What is lost or wrong in Redis (a restart, `FLUSHALL`, an expired key, a clock that was set) is healed by whoever asks
//! next: an asker tells how far ahead its own reservations reach, and the bucket never begins earlier than one allowance
//! before that. A clock that went back would have everybody wait for it: nothing begins later than the horizon.
//!
//! **What breaks it:** a Redis that does not answer, which is told, and where the asker has to do without.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use redis::{Pipeline, RedisError};
use tokio::runtime::Handle;

use super::link::{Away, Link, PATIENCE};
use crate::breaker::{Breaker, Permit};
use crate::config;

/// A reservation, all in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ask {
    /// What it takes of the bucket: its events over the rate.
    pub cost_us: i64,
    /// How far beyond now the asker's own latest reservation reaches; 0 or less: it has passed.
    pub ahead_us: i64,
    /// How much may be saved while nothing is reserved.
    pub allowance_us: i64,
    /// The latest that a reservation can begin, if nothing is wrong.
    pub horizon_us: i64,
}

impl Ask {
    /// When a reservation begins and the one after it, where the bucket has stood at `stored` and it is now `now_us`. The
    /// same as [`SCRIPT`], which `tests/bucket.rs` holds against this.
    #[must_use]
    pub fn slot(&self, stored: Option<i64>, now_us: i64) -> (i64, i64) {
        let earliest = now_us - self.allowance_us + self.ahead_us.clamp(0, self.horizon_us);
        let begins = stored.filter(|begins| (earliest..=now_us + self.horizon_us).contains(begins)).unwrap_or(earliest);
        (begins, begins + self.cost_us)
    }
}

/// The microseconds since 1970 are below 2^53, so Lua's numbers are exact; but `tostring` would round them. A bucket that
/// is not asked any more is forgotten once it is full again.
const SCRIPT: &str = "\
    local t = redis.call('TIME')
    local now = t[1] * 1000000 + t[2]
    local cost, ahead, allowance, horizon =
        tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
    local earliest = now - allowance + math.min(math.max(0, ahead), horizon)
    local begins = tonumber(redis.call('GET', KEYS[1]) or earliest)
    if not begins or begins < earliest or begins > now + horizon then begins = earliest end
    local after = begins + cost
    local kept_ms = math.ceil((math.max(0, after - now) + allowance) / 1000) + 1000
    redis.call('SET', KEYS[1], string.format('%.0f', after), 'PX', string.format('%.0f', kept_ms))
    return math.max(0, begins - now)";

/// The bucket of one group. Clones share its connections.
#[derive(Clone, Debug)]
pub struct Bucket(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    key: String,
    link: Option<Link>,
    deadline: Duration,
    /// Opens when Redis does not answer in time.
    away: Breaker,
    /// Open when Redis answers, but with a refusal, such as a write over its memory limit.
    refused: Breaker,
}

impl Bucket {
    /// A handle to the bucket of a group; connections are made when something is first reserved.
    #[must_use]
    pub fn connect(config: &config::Redis, group: &str) -> Self {
        Self::over(Link::open(config, group), config, Self::key(group))
    }

    /// The bucket under a key, over connections that the pool has.
    pub(crate) fn over(link: Option<Link>, config: &config::Redis, key: String) -> Self {
        Self(Arc::new(Inner {
            key,
            link,
            // Who waits for its turn can wait for an answer too: longer than who asks for a hint.
            deadline: config.deadline.max(PATIENCE),
            away: Breaker::default(),
            refused: Breaker::default(),
        }))
    }

    /// Where the bucket of a group is kept.
    #[must_use]
    pub fn key(group: &str) -> String {
        format!("weir:{{{group}}}:rate")
    }

    /// Where the bucket of a rate is kept that was set at a time, in milliseconds since 1970; without one, the
    /// configured rate's.
    pub(crate) fn key_of(group: &str, set_ms: Option<i64>) -> String {
        let key = Self::key(group);
        set_ms.map_or_else(|| key.clone(), |set_ms| format!("{key}:{set_ms}"))
    }

    /// Reserves: how long to wait before the work begins.
    ///
    /// # Errors
    /// Redis does not answer, or refuses; says why. Whether it has noted the reservation is not known then.
    pub async fn reserve(&self, ask: &Ask) -> Result<Duration, String> {
        let Inner { key, link, deadline, away, refused } = &*self.0;
        let link = link.as_ref().ok_or("redis.url cannot be used")?;
        let left_alone = |breaker: &Breaker| breaker.open().map_or_else(String::new, |(_, error)| error);
        let permit = refused.permit(Instant::now()).ok_or_else(|| left_alone(refused))?;
        match away.permit(Instant::now()) {
            Some(Permit::Regular) => {}
            Some(Permit::Trial) => {
                tokio::spawn(Arc::clone(&self.0).try_again(link.clone()));
                return Err(left_alone(away));
            }
            None => return Err(left_alone(away)),
        }
        let mut commands = Pipeline::new();
        commands.cmd("EVAL").arg(SCRIPT).arg(1).arg(key);
        for number in [ask.cost_us, ask.ahead_us, ask.allowance_us, ask.horizon_us] {
            commands.arg(number);
        }
        match link.answer::<(u64,)>(*deadline, &commands).await {
            Ok(Ok((wait_us,))) => {
                refused.succeeded(permit);
                Ok(Duration::from_micros(wait_us))
            }
            Ok(Err(refusal)) => Err(self.0.is_refused(permit, &refusal)),
            Err(error) => Err(self.0.is_away(Permit::Regular, &error)),
        }
    }

    /// Since when Redis is left alone and its last error, while it is. Looks whether it is back, at most once a second,
    /// which otherwise only a pool with events would.
    pub fn outage(&self) -> Option<(SystemTime, String)> {
        let Inner { link, away, refused, .. } = &*self.0;
        let outage = away.open();
        if let (Some(_), Some(link), Ok(runtime)) = (&outage, link, Handle::try_current())
            && away.permit(Instant::now()) == Some(Permit::Trial)
        {
            runtime.spawn(Arc::clone(&self.0).try_again(link.clone()));
        }
        outage.or_else(|| refused.open())
    }
}

impl Inner {
    /// The trial. What it comes to is told by whoever reserves next.
    async fn try_again(self: Arc<Self>, link: Link) {
        match link.prove(self.deadline).await {
            Ok(()) => drop(self.away.succeeded(Permit::Trial)),
            Err(error) => drop(self.is_away(Permit::Trial, &error)),
        }
    }

    fn is_away(&self, permit: Permit, error: &Away) -> String {
        self.away.failed(permit, Instant::now(), error);
        error.to_string()
    }

    fn is_refused(&self, permit: Permit, refusal: &RedisError) -> String {
        self.refused.failed(permit, Instant::now(), refusal);
        format!("redis refuses: {refusal}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_US: i64 = 1_700_000_000_000_000;
    /// 100 events at 2000/s, saved at most as many, and 8 partitions.
    const ASK: Ask = Ask { cost_us: 50_000, ahead_us: 0, allowance_us: 50_000, horizon_us: 1_000_000 };

    /// How long to wait, and where the bucket stands then, both from now.
    fn slot(ask: Ask, stored: Option<i64>) -> (i64, i64) {
        let (begins, after) = ask.slot(stored.map(|from_now| NOW_US + from_now), NOW_US);
        (begins - NOW_US, after - NOW_US)
    }

    #[test]
    fn reservations_follow_each_other_at_the_rate() {
        assert_eq!(slot(ASK, Some(0)), (0, 50_000));
        assert_eq!(slot(ASK, Some(50_000)), (50_000, 100_000));
        assert_eq!(slot(ASK, Some(990_000)), (990_000, 1_040_000));
    }

    #[test]
    fn what_was_not_used_is_saved_up_to_one_allowance() {
        assert_eq!(slot(ASK, Some(-20_000)), (-20_000, 30_000), "a little late, it catches up");
        for stored in [None, Some(-50_001), Some(-3_600_000_000)] {
            assert_eq!(slot(ASK, stored), (-50_000, 0), "{stored:?}");
        }
    }

    #[test]
    fn a_lost_bucket_begins_no_earlier_than_an_allowance_before_the_askers_own_reservations_end() {
        let ask = Ask { ahead_us: 300_000, ..ASK };
        for stored in [None, Some(-3_600_000_000), Some(0), Some(249_999)] {
            assert_eq!(slot(ask, stored), (250_000, 300_000), "{stored:?}");
        }
        assert_eq!(slot(ask, Some(350_000)), (350_000, 400_000), "others have reserved since");
    }

    #[test]
    fn a_clock_that_went_back_is_not_waited_for() {
        assert_eq!(slot(ASK, Some(3_600_000_000)), (-50_000, 0));
        let ask = Ask { ahead_us: 3_600_000_000, ..ASK };
        assert_eq!(slot(ask, Some(3_600_000_000)), (950_000, 1_000_000), "nor is an asker that is far ahead");
    }

    #[test]
    fn one_event_that_takes_longer_than_the_allowance_waits_for_the_whole_of_the_one_before() {
        let ask = Ask { cost_us: 60_000_000, horizon_us: 960_000_000, ..ASK };
        assert_eq!(slot(ask, None), (-50_000, 59_950_000));
        assert_eq!(slot(ask, Some(59_950_000)), (59_950_000, 119_950_000));
    }
}
