//! The audit of a demo: what was published against what the database holds, by the auditor's own SQL.
//!
//! It goes by the load's own count and not by Kafka's log, since an in-memory broker forgets.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::Result;

use super::events::{Events, Kind};
use super::load::Published;
use crate::config;
use crate::verify::{Counter, Database};

/// How long the database may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the database holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Audited {
    pub(super) persisted: u64,
    pub(super) dead_lettered: u64,
    /// Events with neither a row nor a dead row, rows that are neither, and counts that are missing.
    pub(super) lost: u64,
    /// Events with both, with an effect that they must not have, and counts that are too many.
    pub(super) repeated_effects: u64,
}

/// A bit an event.
struct Bits(Vec<u64>);

impl Bits {
    fn new(bits: u64) -> Self {
        Self(vec![0; usize::try_from(bits / 64 + 1).unwrap_or(0)])
    }

    /// Sets a bit; says whether it was set before. Beyond the end nothing is kept.
    fn set(&mut self, bit: u64) -> Option<bool> {
        let word = self.0.get_mut(usize::try_from(bit / 64).ok()?)?;
        let was_set = *word & (1 << (bit % 64)) != 0;
        *word |= 1 << (bit % 64);
        Some(was_set)
    }

    fn has(&self, bit: u64) -> bool {
        usize::try_from(bit / 64).ok().and_then(|at| self.0.get(at)).is_some_and(|word| word & (1 << (bit % 64)) != 0)
    }
}

/// Reads the database whole, at one moment.
pub(super) async fn run(
    store: &config::Store,
    pool: (&str, &config::Pool),
    events: &Events,
    published: &Published,
) -> Result<Audited> {
    let mut database = Database::connect(store, PATIENCE).await?;
    let tables = database.tables(pool.1).await?;
    database.hold_still().await?;
    let (mut live, mut dead) = (Bits::new(published.unique_ids), Bits::new(published.unique_ids));
    let mut audited = Audited::default();
    let mut mark = |bits: &mut Bits, id: &str| {
        match events.number(id).filter(|number| *number < published.unique_ids) {
            // A row that nobody published, or a second row of one id, is an effect too many.
            None => audited.repeated_effects += 1,
            Some(number) => audited.repeated_effects += u64::from(bits.set(number) != Some(false)),
        }
        Ok(())
    };
    for table in &tables {
        database.ids(table, |id, _| mark(&mut live, id)).await?;
    }
    database.dead(pool.0, |_, id| mark(&mut dead, id)).await?;
    let mut counters: HashMap<Counter, i64> = HashMap::new();
    let count_in = |counter, count| {
        *counters.entry(counter).or_default() += count;
        Ok(())
    };
    database.stats(count_in).await?;
    database.release().await?;
    compare_events(&mut audited, published.unique_ids, &live, &dead);
    compare_counters(&mut audited, published, counters);
    Ok(audited)
}

fn compare_events(audited: &mut Audited, unique_ids: u64, live: &Bits, dead: &Bits) {
    for number in 0..unique_ids {
        let is_good = Events::kind(number) == Kind::Good;
        match (live.has(number), dead.has(number)) {
            (false, false) => audited.lost += 1,
            (true, true) => audited.repeated_effects += 1,
            (true, false) if is_good => audited.persisted += 1,
            (false, true) if !is_good => audited.dead_lettered += 1,
            // A good event that ended as a dead row has lost its effect; poison that has a row has one too many.
            (false, true) => audited.lost += 1,
            (true, false) => audited.repeated_effects += 1,
        }
    }
}

/// The counters must be those of exactly the good events, each once.
fn compare_counters(audited: &mut Audited, published: &Published, mut counters: HashMap<Counter, i64>) {
    let mut expected: HashMap<Counter, i64> = HashMap::new();
    for ((minute, user), count) in &published.by_user {
        let counter =
            |dimension: &str, member: String| Counter { minute: *minute, dimension: dimension.to_owned(), member };
        *expected.entry(counter("type", "new_message".to_owned())).or_default() += count;
        *expected.entry(counter("user", user.to_string())).or_default() += count;
        *expected.entry(counter("active_users", String::new())).or_default() += 1;
    }
    for (counter, expected) in expected {
        let difference = counters.remove(&counter).unwrap_or(0) - expected;
        match difference {
            ..0 => audited.lost += difference.unsigned_abs(),
            _ => audited.repeated_effects += difference.unsigned_abs(),
        }
    }
    audited.repeated_effects += counters.into_values().map(i64::unsigned_abs).sum::<u64>();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bits(numbers: impl Iterator<Item = u64>) -> Bits {
        let mut bits = Bits::new(2_000);
        numbers.for_each(|number| assert_eq!(bits.set(number), Some(false)));
        bits
    }

    fn is_good(number: &u64) -> bool {
        Events::kind(*number) == Kind::Good
    }

    #[test]
    fn every_event_is_settled_once_or_found() {
        let good = || (0..2_000).filter(is_good);
        let poison = || (0..2_000).filter(|number| !is_good(number));
        let audit = |live: Bits, dead: Bits| {
            let mut audited = Audited::default();
            compare_events(&mut audited, 2_000, &live, &dead);
            audited
        };
        let poisoned = poison().count() as u64;
        assert!(poisoned > 0);
        let fine = audit(bits(good()), bits(poison()));
        assert_eq!((fine.lost, fine.repeated_effects), (0, 0));
        assert_eq!((fine.persisted, fine.dead_lettered), (2_000 - poisoned, poisoned));
        assert_eq!(audit(bits(good().skip(3)), bits(poison())).lost, 3);
        assert_eq!(audit(bits(good()), bits(poison().skip(1))).lost, 1);
        assert_eq!(audit(bits(good()), bits(poison().chain(good().take(2)))).repeated_effects, 2);
        assert_eq!(audit(bits(0..2_000), bits(std::iter::empty())).repeated_effects, poisoned);
    }

    #[test]
    fn counters_are_exact_or_found() {
        let published = Published { by_user: [((1, 7), 3), ((1, 8), 1), ((2, 7), 5)].into(), ..Published::default() };
        let counter = |minute, dimension: &str, member: &str| Counter {
            minute,
            dimension: dimension.to_owned(),
            member: member.to_owned(),
        };
        let exact: HashMap<Counter, i64> = [
            (counter(1, "type", "new_message"), 4),
            (counter(2, "type", "new_message"), 5),
            (counter(1, "user", "7"), 3),
            (counter(1, "user", "8"), 1),
            (counter(2, "user", "7"), 5),
            (counter(1, "active_users", ""), 2),
            (counter(2, "active_users", ""), 1),
        ]
        .into();
        let audit = |change: &dyn Fn(&mut HashMap<Counter, i64>)| {
            let mut counters = exact.clone();
            change(&mut counters);
            let mut audited = Audited::default();
            compare_counters(&mut audited, &published, counters);
            (audited.lost, audited.repeated_effects)
        };
        assert_eq!(audit(&|_| ()), (0, 0));
        assert_eq!(audit(&|counters| assert_eq!(counters.remove(&counter(1, "user", "7")), Some(3))), (3, 0));
        assert_eq!(audit(&|counters| *counters.get_mut(&counter(1, "user", "7")).unwrap() = 5), (0, 2));
        assert_eq!(audit(&|counters| *counters.entry(counter(9, "user", "7")).or_default() = 1), (0, 1));
    }
}
