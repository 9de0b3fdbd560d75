//! Ids in Redis' sets, by time and shard.
//!
//! An id is in the set `weir:{POOL}:ids:GENERATION:SHARD`. Sets take about half of the memory of a key an id. The shards keep
//! each set small enough that dropping it does not hold Redis up.

use std::array;

use redis::Pipeline;

const SHARDS: usize = 16;

/// The indexes of ids in each shard.
pub(super) struct Shards([Vec<usize>; SHARDS]);

impl Shards {
    pub(super) fn of(ids: &[&str]) -> Self {
        let mut shards = array::from_fn(|_| Vec::new());
        for (index, id) in ids.iter().enumerate() {
            shards[shard_of(id)].push(index);
        }
        Self(shards)
    }

    fn filled(&self) -> impl Iterator<Item = (usize, &Vec<usize>)> {
        self.0.iter().enumerate().filter(|(_, members)| !members.is_empty())
    }

    /// Asks the generations for the ids.
    pub(super) fn lookup(&self, pool: &str, generations: [u64; 2], ids: &[&str]) -> Pipeline {
        let mut pipeline = Pipeline::new();
        for (shard, members) in self.filled() {
            for generation in generations {
                let command = pipeline.cmd("SMISMEMBER").arg(key(pool, generation, shard));
                members.iter().for_each(|index| _ = command.arg(ids[*index]));
            }
        }
        pipeline
    }

    /// Which of so many ids are known by the replies to [`lookup`](Self::lookup).
    pub(super) fn known(&self, ids: usize, replies: &[Vec<bool>]) -> Vec<bool> {
        let mut known = vec![false; ids];
        for ((_, members), answers) in self.filled().zip(replies.chunks(2)) {
            for answer in answers {
                for (index, hit) in members.iter().zip(answer) {
                    known[*index] |= hit;
                }
            }
        }
        known
    }

    /// Adds the ids to a generation, which ends at a time.
    pub(super) fn mark(&self, pool: &str, generation: u64, ends_at_ms: u64, ids: &[&str]) -> Pipeline {
        let mut pipeline = Pipeline::new();
        // All or nothing: a set without its expiry would stay for ever.
        pipeline.atomic();
        for (shard, members) in self.filled() {
            let key = key(pool, generation, shard);
            let command = pipeline.cmd("SADD").arg(&key);
            members.iter().for_each(|index| _ = command.arg(ids[*index]));
            command.ignore();
            pipeline.cmd("PEXPIREAT").arg(&key).arg(ends_at_ms).ignore();
        }
        pipeline
    }
}

fn key(pool: &str, generation: u64, shard: usize) -> String {
    format!("weir:{{{pool}}}:ids:{generation}:{shard}")
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
        for (shard, members) in Shards::of(&ids).filled() {
            assert!((700..1_300).contains(&members.len()), "shard {shard}: {}", members.len());
        }
        assert_eq!(Shards::of(&ids).filled().count(), SHARDS);
    }

    #[test]
    fn a_shard_is_the_same_in_every_build() {
        assert_eq!(["a", "message-1", ""].map(shard_of), [14, 9, 14]);
    }
}
