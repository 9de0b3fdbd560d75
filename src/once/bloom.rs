//! Ids as bits of a Bloom filter in Redis, by time.
//!
//! An id is a few bits of one block of 64 bytes in the string `weir:{POOL}:bits:1:BLOCKS:BITS:GENERATION:PART`. The name has
//! the filter's shape (the blocks of a generation, the bits that an id sets) and the version of the rule below, so that
//! workers that disagree do not read each other's bits as something else; they only miss hits.
//!
//! The rule, version 1: `h` is XXH3's 128 bits of the id's bytes under the seed 0. The block is `(h >> 64) × blocks >> 64`.
//! SplitMix64, begun with the lower half of `h`, gives words; each word, from its lowest bits on, seven places of 9 bits
//! among the block's 512, until there are as many as an id sets. Neither the machine nor the build matters.
//!
//! A look-up reads the blocks and tests them here: of several ways (docs/processed-set.md) that costs Redis the least.
//! A mark must not lose another worker's bits, so it is Redis that sets them, by one `BITFIELD` a part; its first member
//! writes the part's last byte, so that a new part is allocated once and as large as it gets.

use redis::Pipeline;
use xxhash_rust::xxh3::xxh3_128;

use crate::config::{BLOCK_BITS, Bitmap};

const VERSION: u32 = 1;
const BLOCK_BYTES: u64 = BLOCK_BITS / 8;
/// A place in a block.
const PLACE_BITS: u32 = BLOCK_BITS.trailing_zeros();
const PLACES_A_WORD: u32 = u64::BITS / PLACE_BITS;
/// Ids marked in one go, and so the most parts: what Redis does in between for nobody else, 8 MiB of new parts included, is
/// a few milliseconds.
const IDS_AT_ONCE: usize = 128;

/// The filter of one pool.
#[derive(Debug)]
pub(super) struct Bits {
    bitmap: Bitmap,
    /// What names of keys begin with.
    prefix: String,
}

/// Where an id's bits are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Spot {
    part: u64,
    /// In the part.
    block: u64,
    /// What its places are made of.
    seed: u64,
}

impl Bits {
    pub(super) fn new(pool: &str, bitmap: Bitmap) -> Self {
        let prefix = format!("weir:{{{pool}}}:bits:{VERSION}:{}:{}", bitmap.blocks(), bitmap.bits_set);
        Self { bitmap, prefix }
    }

    /// Asks the generations for the blocks of ids.
    pub(super) fn lookup(&self, generations: [u64; 2], ids: &[&str]) -> Pipeline {
        let mut pipeline = Pipeline::with_capacity(ids.len() * 2);
        for Spot { part, block, .. } in ids.iter().map(|id| self.spot(id)) {
            let from = block * BLOCK_BYTES;
            for generation in generations {
                let key = self.key(generation, part);
                pipeline.cmd("GETRANGE").arg(key).arg(from).arg(from + BLOCK_BYTES - 1);
            }
        }
        pipeline
    }

    /// Which ids are known by the replies to [`lookup`](Self::lookup). A part that is not there has empty blocks.
    pub(super) fn known(&self, ids: &[&str], replies: &[Vec<u8>]) -> Vec<bool> {
        let answered = ids.iter().zip(replies.chunks(2));
        answered.map(|(id, blocks)| blocks.iter().any(|block| self.is_in(self.spot(id), block))).collect()
    }

    /// Sets the bits of ids in a generation, which ends at a time.
    pub(super) fn mark(&self, generation: u64, ends_at_ms: u64, ids: &[&str]) -> Pipeline {
        let mut spots: Vec<Spot> = ids.iter().map(|id| self.spot(id)).collect();
        spots.sort_unstable_by_key(|spot| spot.part);
        let mut pipeline = Pipeline::with_capacity(ids.len() * 2 + 2);
        for spots in spots.chunks(IDS_AT_ONCE) {
            // All or nothing: a part without its expiry would stay for ever.
            pipeline.cmd("MULTI").ignore();
            for spots in spots.chunk_by(|one, next| one.part == next.part) {
                let key = self.key(generation, spots[0].part);
                let whole = (self.bitmap.part_bytes() - 1) * 8;
                let command = pipeline.cmd("BITFIELD").arg(&key).arg("SET").arg("u1").arg(whole).arg(0);
                for spot in spots {
                    for place in self.places(spot.seed) {
                        command.arg("SET").arg("u1").arg(spot.block * BLOCK_BITS + place).arg(1);
                    }
                }
                command.ignore();
                pipeline.cmd("PEXPIREAT").arg(&key).arg(ends_at_ms).ignore();
            }
            // Its reply is read, for what Redis refuses only then.
            pipeline.cmd("EXEC");
        }
        pipeline
    }

    fn spot(&self, id: &str) -> Spot {
        let hash = xxh3_128(id.as_bytes());
        let [block, seed] = [hash >> 64, hash & u128::from(u64::MAX)];
        let block = low((block * u128::from(self.bitmap.blocks())) >> 64);
        Spot { part: block / self.bitmap.part_blocks, block: block % self.bitmap.part_blocks, seed: low(seed) }
    }

    /// The places of an id's bits in its block. Two may be the same.
    fn places(&self, seed: u64) -> impl Iterator<Item = u64> {
        let words = (1..).map(move |nth| split_mix(seed, nth));
        let places = |word| (0..PLACES_A_WORD).map(move |nth| (word >> (nth * PLACE_BITS)) & (BLOCK_BITS - 1));
        words.flat_map(places).take(self.bitmap.bits_set as usize)
    }

    /// Redis counts bits from each byte's highest.
    fn is_in(&self, spot: Spot, block: &[u8]) -> bool {
        self.places(spot.seed).all(|place| {
            let byte = usize::try_from(place / 8).ok().and_then(|byte| block.get(byte));
            byte.is_some_and(|byte| byte & (0x80 >> (place % 8)) != 0)
        })
    }

    fn key(&self, generation: u64, part: u64) -> String {
        format!("{}:{generation}:{part}", self.prefix)
    }
}

/// The lower half.
fn low(wide: u128) -> u64 {
    u64::try_from(wide & u128::from(u64::MAX)).unwrap_or(u64::MAX)
}

/// A word of SplitMix64, the first of which is the 1st.
fn split_mix(seed: u64, nth: u64) -> u64 {
    let state = seed.wrapping_add(nth.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::config::{Bloom, Pool, ProcessedSet};

    fn bits(ids: u64, false_positives: f64) -> Bits {
        let bloom = Bloom { ids: Some(ids), false_positives, ..Bloom::default() };
        let pool = Pool { processed_set: ProcessedSet::Bloom, bloom, ..Pool::default() };
        Bits::new("storage", Bitmap::of(&pool, None).unwrap().unwrap())
    }

    /// The commands as they are sent, a line each.
    fn sent(pipeline: &Pipeline) -> Vec<String> {
        let text = |command: &redis::Cmd| {
            let words = command.args_iter().map(|arg| match arg {
                redis::Arg::Simple(bytes) => String::from_utf8(bytes.to_vec()).unwrap(),
                _ => unreachable!("no cursor is used"),
            });
            words.collect::<Vec<_>>().join(" ")
        };
        pipeline.cmd_iter().map(text).collect()
    }

    /// A filter in memory: the marks are done as Redis does them.
    #[derive(Default)]
    struct Memory(HashMap<String, Vec<u8>>);

    impl Memory {
        fn apply(&mut self, pipeline: &Pipeline) {
            for line in sent(pipeline) {
                let words: Vec<&str> = line.split(' ').collect();
                let ["BITFIELD", key, sets @ ..] = &*words else { continue };
                let part = self.0.entry((*key).to_owned()).or_default();
                for set in sets.chunks(4) {
                    let (at, bit): (usize, u8) = (set[2].parse().unwrap(), set[3].parse().unwrap());
                    part.resize(part.len().max(at / 8 + 1), 0);
                    part[at / 8] |= bit << (7 - at % 8);
                }
            }
        }

        fn answer(&self, pipeline: &Pipeline) -> Vec<Vec<u8>> {
            let block = |line: String| {
                let words: Vec<&str> = line.split(' ').collect();
                let [from, to]: [usize; 2] = [words[2].parse().unwrap(), words[3].parse().unwrap()];
                self.0.get(words[1]).map_or_else(Vec::new, |part| part[from..=to].to_vec())
            };
            sent(pipeline).into_iter().map(block).collect()
        }
    }

    #[test]
    fn an_ids_bits_are_the_same_in_every_build_and_on_every_machine() {
        // XXH3's own test vector of nothing.
        assert_eq!(xxh3_128(b""), 0x99aa_06d3_0147_98d8_6001_c324_468d_497f);
        assert_eq!(split_mix(1_234_567, 1), 6_457_827_717_110_365_317);
        let bits = bits(1_000_000, 0.0001);
        let spots: Vec<(u64, u64, Vec<u64>)> = ["a", "message-1", "5f0c6b1e-1d0a-4b57-9a2e-0d8a4f6f3a11"]
            .map(|id| bits.spot(id))
            .map(|spot| (spot.part, spot.block, bits.places(spot.seed).collect()))
            .to_vec();
        let expected = [
            (37, 65, vec![320, 129, 467, 235, 488, 352, 366]),
            (4, 564, vec![75, 427, 195, 23, 171, 167, 267]),
            (44, 500, vec![95, 40, 382, 213, 506, 244, 162]),
        ];
        assert_eq!(spots, expected);
        let more = self::bits(1_000_000, 1e-6);
        assert_eq!(more.places(more.spot("a").seed).skip(7).collect::<Vec<u64>>(), [250, 39, 378]);
    }

    #[test]
    fn a_mark_makes_its_part_whole_and_gives_it_its_end() {
        let bits = bits(1, 0.5);
        let sent = sent(&bits.mark(7, 900, &["a"]));
        assert_eq!((&*sent[0], &*sent[3], sent.len()), ("MULTI", "EXEC", 4));
        assert!(sent[1].starts_with("BITFIELD weir:{storage}:bits:1:1:2:7:0 SET u1 512 0 SET u1 "), "{}", sent[1]);
        assert_eq!(sent[2], "PEXPIREAT weir:{storage}:bits:1:1:2:7:0 900");
    }

    #[test]
    fn no_more_than_so_many_ids_are_marked_in_one_go() {
        let bits = bits(10_000_000, 0.0001);
        let ids: Vec<String> = (0..500).map(|n| format!("id-{n}")).collect();
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        let sent = sent(&bits.mark(7, 900, &ids));
        let parts: Vec<usize> = sent
            .split(|line| line == "EXEC")
            .map(|group| group.iter().filter(|line| line.starts_with("BITFIELD")).count())
            .collect();
        assert_eq!(parts.len(), 5, "four groups, and nothing behind the last");
        assert!(parts.iter().all(|parts| *parts <= IDS_AT_ONCE) && parts[0] > 64, "{parts:?}");
    }

    #[test]
    fn what_was_marked_is_known_in_its_generations_and_false_positives_are_as_few_as_said() {
        for (count, wanted) in [(18_000, 0.01), (18_000, 0.001), (18_000, 0.0001)] {
            let bits = bits(count, wanted);
            let mut memory = Memory::default();
            let name = |n: u64| format!("message-{n}");
            // Both generations are full, which is the worst.
            for generation in [7, 8] {
                let ids: Vec<String> = (0..count).map(|n| name(generation * count + n)).collect();
                for ids in ids.chunks(500) {
                    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
                    memory.apply(&bits.mark(generation, 900, &ids));
                    let known = bits.known(&ids, &memory.answer(&bits.lookup([generation, generation - 1], &ids)));
                    assert!(known.iter().all(|known| *known));
                    let later = bits.lookup([generation + 1, generation], &ids);
                    assert!(bits.known(&ids, &memory.answer(&later)).iter().all(|known| *known));
                }
            }
            let others: Vec<String> = (0..100_000).map(|n| name(1_000_000 + n)).collect();
            let others: Vec<&str> = others.iter().map(String::as_str).collect();
            let known = bits.known(&others, &memory.answer(&bits.lookup([8, 7], &others)));
            #[expect(clippy::cast_precision_loss, reason = "at most 100,000")]
            let found = known.iter().filter(|known| **known).count() as f64 / 100_000.0;
            assert!(found <= wanted * 1.3, "{found} instead of {wanted}");
            assert!(found >= wanted * 0.3, "{found}: more bits than {wanted} needs");
            let forgotten = bits.known(&others, &memory.answer(&bits.lookup([10, 9], &others)));
            assert!(forgotten.iter().all(|known| !known));
        }
    }
}
