//! How large a pool's bitmap is, where its processed set is a Bloom filter (`processed_set = "bloom"`).
//!
//! Of an id, `bits_set` bits are set within one block of 512, so that one read of 64 bytes tells of it. Blocks are kept in
//! parts, a string of Redis each: 64 KiB at most, so that making or dropping one never holds Redis up. Two generations are
//! asked together, so each is made for half of the wanted false positives.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Pool, ProcessedSet, Rate, Redis};

/// The bits among which all bits of an id are.
pub(crate) const BLOCK_BITS: u64 = 512;
const BLOCK_BYTES: u64 = BLOCK_BITS / 8;
/// With Redis' header and the last byte, such a part takes 64 KiB; one block more would take 80.
pub(crate) const PART_BLOCKS_MAX: u64 = 1023;
/// 4 GiB a generation.
const PARTS_MAX: u64 = 65_536;
/// What Redis keeps of a key beside its string, about.
const KEY_BYTES: u64 = 200;
/// How many are asked together.
const GENERATIONS: u64 = 2;
const FALSE_POSITIVES_MIN: f64 = 1e-6;
const FALSE_POSITIVES_MAX: f64 = 0.5;
const BITS_SET_MAX: u32 = 16;
/// More than any of these rates needs.
const BITS_PER_ID_MAX: u32 = 256;
/// What the estimate leaves out: that blocks with the same number of ids differ in how many bits are set.
const MARGIN: f64 = 1.05;

/// What a pool's bitmap is made for.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Bloom {
    /// The ids of one `expiry`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ids: Option<u64>,
    /// The ids in a time, in place of `ids`; without both, the pool's `rate`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
    /// How long an id is known at least; without it, `redis.expiry`.
    #[serde(with = "super::duration::optional", skip_serializing_if = "Option::is_none")]
    pub expiry: Option<Duration>,
    /// The part of unknown ids that it may take for known, once it has as many as it is made for.
    pub false_positives: f64,
}

impl Default for Bloom {
    fn default() -> Self {
        Self { ids: None, rate: None, expiry: None, false_positives: 0.0001 }
    }
}

/// A bitmap's size. Workers of one pool must have the same, or they do not see each other's ids.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Bitmap {
    /// The ids that a generation is made for.
    pub ids: u64,
    /// How long a generation is written; an id is known for one to two of these.
    #[serde(with = "super::duration")]
    pub expiry: Duration,
    /// Of an unknown id, how often both generations together say that it is known, at most.
    pub false_positives: f64,
    /// How many bits a generation has for each id.
    pub bits_per_id: u32,
    /// How many of them an id sets.
    pub bits_set: u32,
    /// The strings of a generation.
    pub parts: u64,
    /// The blocks of a string.
    pub part_blocks: u64,
}

impl Bitmap {
    /// The bitmap of a pool; nothing where its processed set is none.
    ///
    /// # Errors
    /// It cannot be; says why and what to do.
    pub fn of(pool: &Pool, redis: Option<&Redis>) -> Result<Option<Self>, String> {
        if pool.processed_set != ProcessedSet::Bloom {
            return Ok(None);
        }
        let Bloom { ids, rate, expiry, false_positives } = pool.bloom;
        if !(FALSE_POSITIVES_MIN..=FALSE_POSITIVES_MAX).contains(&false_positives) {
            return Err(format!(
                "`false_positives` is {false_positives}, expected {FALSE_POSITIVES_MIN} to {FALSE_POSITIVES_MAX}"
            ));
        }
        let expiry = expiry.or(redis.map(|redis| redis.expiry)).unwrap_or(Redis::default().expiry);
        if expiry.is_zero() {
            return Err("`expiry` must be greater than 0".to_owned());
        }
        let shown = humantime::format_duration(expiry);
        let (ids, because) = match (ids, rate.or(pool.rate)) {
            (Some(_), Some(rate)) if pool.bloom.rate.is_some() => {
                return Err(format!("both `ids` and `rate` ({rate}) are given: leave out one of them"));
            }
            (Some(ids), _) => (ids, String::new()),
            (None, Some(rate)) => (ids_of(rate, expiry), format!(" ({rate} for {shown})")),
            (None, None) => {
                return Err(
                    "nothing says how many ids it is for: give `rate`, such as \"5000/s\", or `ids`, which are \
                            those of one `expiry`"
                        .to_owned(),
                );
            }
        };
        if ids == 0 {
            return Err("`ids` must be greater than 0".to_owned());
        }
        let (bits_per_id, bits_set) = bits(false_positives);
        let blocks = (u128::from(ids) * u128::from(bits_per_id)).div_ceil(u128::from(BLOCK_BITS));
        let parts = blocks.div_ceil(u128::from(PART_BLOCKS_MAX));
        let Some(parts) = u64::try_from(parts).ok().filter(|parts| *parts <= PARTS_MAX) else {
            let most = PARTS_MAX * PART_BLOCKS_MAX * BLOCK_BITS / u64::from(bits_per_id);
            return Err(format!(
                "{ids} ids{because} of {bits_per_id} bits are {}, and a generation can have {} at most, which is room for \
                 {most} ids: shorten `expiry`, allow more `false_positives`, or spread the topics over several pools",
                mebibytes(blocks.saturating_mul(u128::from(BLOCK_BYTES))),
                mebibytes(u128::from(PARTS_MAX) << 16),
            ));
        };
        // Several parts are whole ones; the rounding is less than one of them.
        let part_blocks = if parts == 1 { u64::try_from(blocks).unwrap_or(PART_BLOCKS_MAX) } else { PART_BLOCKS_MAX };
        Ok(Some(Self { ids, expiry, false_positives, bits_per_id, bits_set, parts, part_blocks }))
    }

    /// The blocks of a generation.
    pub(crate) fn blocks(&self) -> u64 {
        self.parts * self.part_blocks
    }

    /// The bytes of a part, with one more that is never set: writing it makes the part whole at once.
    pub(crate) fn part_bytes(&self) -> u64 {
        self.part_blocks * BLOCK_BYTES + 1
    }

    /// The memory of both generations in Redis, at most.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        // The allocator's sizes are a quarter apart at most; a whole part fits one of them.
        let string = if self.part_blocks == PART_BLOCKS_MAX { 1 << 16 } else { (self.part_bytes() + 10) * 5 / 4 };
        GENERATIONS * self.parts * (string + KEY_BYTES)
    }

    /// The part of batches of new events that have a false positive, at most.
    #[must_use]
    pub fn batches_with_false_positives(&self, batch_events: usize) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "a batch's events are far fewer than 2^52")]
        let events = batch_events as f64;
        1.0 - (1.0 - self.false_positives).powf(events)
    }
}

impl fmt::Display for Bitmap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { ids, bits_per_id, bits_set, parts, .. } = self;
        let [from, to] = [self.expiry, self.expiry.saturating_mul(2)].map(humantime::format_duration);
        let memory = mebibytes(u128::from(self.memory_bytes()));
        let strings = if *parts == 1 { "string" } else { "strings" };
        write!(
            f,
            "a bitmap for {ids} ids in {from}: {bits_per_id} bits an id, of which it sets {bits_set}, in 2 generations of \
             {parts} {strings}: {memory} of redis at most; an id is known for {from} to {to}"
        )
    }
}

fn mebibytes(bytes: u128) -> String {
    #[expect(clippy::cast_precision_loss, reason = "it is shown with one digit behind the point")]
    let mebibytes = bytes as f64 / f64::from(1 << 20);
    format!("{mebibytes:.1} MiB")
}

fn ids_of(rate: Rate, expiry: Duration) -> u64 {
    let ids = (rate.events_per_s() * expiry.as_secs_f64()).ceil();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is positive, and saturates")]
    let ids = ids as u64;
    ids.max(1)
}

/// How many bits an id has and how many of them it sets. Fewer set bits than would need the least memory are less work
/// for Redis with every event, so the fewest that need a fifth more are taken.
fn bits(false_positives: f64) -> (u32, u32) {
    #[expect(clippy::cast_precision_loss, reason = "it is 2")]
    let wanted = false_positives / GENERATIONS as f64 / MARGIN;
    let least = |bits_set| (1..=BITS_PER_ID_MAX).find(|per_id| false_positives_of(*per_id, bits_set) <= wanted);
    let all: Vec<(u32, u32)> = (1..=BITS_SET_MAX).filter_map(|set| Some((least(set)?, set))).collect();
    let best = all.iter().map(|(per_id, _)| *per_id).min().unwrap_or(BITS_PER_ID_MAX);
    all.into_iter().find(|(per_id, _)| per_id * 5 <= best * 6).unwrap_or((BITS_PER_ID_MAX, BITS_SET_MAX))
}

/// How often a full generation takes an unknown id for known: ids fall into blocks by Poisson's distribution, and each
/// sets its bits independently. F. Putze, P. Sanders, J. Singler: Cache-, Hash- and Space-Efficient Bloom Filters (2007).
fn false_positives_of(bits_per_id: u32, bits_set: u32) -> f64 {
    let mean = f64::from(u32::try_from(BLOCK_BITS).unwrap_or(u32::MAX)) / f64::from(bits_per_id);
    let unset = 1.0 - 1.0 / f64::from(u32::try_from(BLOCK_BITS).unwrap_or(u32::MAX));
    let most = mean + 12.0 * mean.sqrt() + 40.0;
    let (mut sum, mut ids, mut chance) = (0.0, 0.0, (-mean).exp());
    while ids < most {
        let set: f64 = 1.0 - unset.powf(ids * f64::from(bits_set));
        sum += chance * set.powf(f64::from(bits_set));
        ids += 1.0;
        chance *= mean / ids;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(bloom: Bloom) -> Pool {
        Pool { processed_set: ProcessedSet::Bloom, bloom, ..Pool::default() }
    }

    fn bitmap(bloom: Bloom) -> Bitmap {
        Bitmap::of(&pool(bloom), None).unwrap().unwrap()
    }

    fn refused(bloom: Bloom) -> String {
        Bitmap::of(&pool(bloom), None).unwrap_err()
    }

    #[test]
    fn the_bits_of_an_id_follow_from_the_wanted_false_positives() {
        let sizes =
            [(0.5, (3, 2)), (0.1, (7, 3)), (0.01, (14, 4)), (0.001, (20, 6)), (0.0001, (29, 7)), (1e-6, (49, 10))];
        for (wanted, expected) in sizes {
            assert_eq!(bits(wanted), expected, "{wanted}");
            let (per_id, set) = expected;
            assert!(false_positives_of(per_id, set) * 2.0 <= wanted);
            assert!(false_positives_of(per_id - 1, set) * 2.0 * MARGIN > wanted, "{wanted}: fewer would do");
        }
    }

    #[test]
    fn one_in_ten_thousand_of_5000_a_second_for_a_quarter_of_an_hour_takes_32_mib() {
        let rate = "5000/s".parse().ok();
        let bitmap = bitmap(Bloom { rate, ..Bloom::default() });
        assert_eq!((bitmap.ids, bitmap.parts, bitmap.part_blocks), (4_500_000, 250, 1023));
        assert_eq!(bitmap.memory_bytes(), 2 * 250 * (65_536 + 200));
        assert!(bitmap.blocks() * BLOCK_BITS >= bitmap.ids * u64::from(bitmap.bits_per_id));
        assert_eq!(
            bitmap.to_string(),
            "a bitmap for 4500000 ids in 15m: 29 bits an id, of which it sets 7, in 2 generations of 250 strings: 31.3 MiB of \
             redis at most; an id is known for 15m to 30m"
        );
        assert!((0.048..0.05).contains(&bitmap.batches_with_false_positives(500)));
    }

    #[test]
    fn the_ids_are_the_pools_rate_for_the_time_that_they_are_kept_unless_something_else_is_said() {
        let rate = |text: &str| text.parse().ok();
        let with_rate = |bloom| Pool { rate: rate("10/s"), ..pool(bloom) };
        let of = |bloom| Bitmap::of(&with_rate(bloom), None).unwrap().unwrap().ids;
        assert_eq!(of(Bloom::default()), 10 * 900);
        assert_eq!(of(Bloom { rate: rate("1/m"), ..Bloom::default() }), 15);
        assert_eq!(of(Bloom { expiry: Some(Duration::from_secs(86_400)), ..Bloom::default() }), 864_000);
        assert_eq!(of(Bloom { ids: Some(7), ..Bloom::default() }), 7);
        let redis = Redis { expiry: Duration::from_secs(60), ..Redis::default() };
        assert_eq!(Bitmap::of(&with_rate(Bloom::default()), Some(&redis)).unwrap().unwrap().ids, 600);
        assert_eq!(Bitmap::of(&Pool::default(), None), Ok(None), "a set has none");
    }

    #[test]
    fn the_least_bitmap_is_a_block() {
        let bitmap = bitmap(Bloom { ids: Some(1), ..Bloom::default() });
        assert_eq!((bitmap.parts, bitmap.part_blocks, bitmap.part_bytes()), (1, 1, 65));
    }

    #[test]
    fn what_cannot_be_is_refused_with_what_to_do() {
        assert!(refused(Bloom::default()).contains("give `rate`, such as \"5000/s\", or `ids`"));
        let both = Bloom { ids: Some(5), rate: "5/s".parse().ok(), ..Bloom::default() };
        assert!(refused(both).contains("both `ids` and `rate` (5/s)"));
        assert!(refused(Bloom { ids: Some(0), ..Bloom::default() }).contains("greater than 0"));
        for wrong in [0.0, -1.0, 1e-9, 0.9, f64::NAN] {
            let said = refused(Bloom { ids: Some(5), false_positives: wrong, ..Bloom::default() });
            assert!(said.contains("expected 0.000001 to 0.5"), "{said}");
        }
        assert!(refused(Bloom { ids: Some(5), expiry: Some(Duration::ZERO), ..Bloom::default() }).contains("`expiry`"));
    }

    #[test]
    fn more_than_4_gib_is_refused_with_the_arithmetic() {
        let day = Some(Duration::from_secs(86_400));
        let said = refused(Bloom { rate: "100000/s".parse().ok(), expiry: day, ..Bloom::default() });
        assert!(
            said.starts_with("8640000000 ids (100000/s for 1day) of 29 bits are 29869.1 MiB, and a generation"),
            "{said}"
        );
        assert!(said.contains("4096.0 MiB at most, which is room for 1183661515 ids"), "{said}");
        let most = Bloom { ids: Some(1_183_661_515), ..Bloom::default() };
        assert_eq!(bitmap(most).parts, PARTS_MAX);
        assert!(refused(Bloom { ids: Some(u64::MAX), ..Bloom::default() }).contains("at most"));
    }
}
