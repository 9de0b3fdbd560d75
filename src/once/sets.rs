//! Ids in Redis' sets, a set a generation: `weir:{POOL}:ids:GENERATION`. Sets take about half of the memory of a key an id.
//!
//! Redis drops what has expired while everybody waits, which takes long for millions of ids. So before its first mark in a
//! generation each worker unlinks the set that nobody asks for any more, which is freed beside the work; the expiry a little
//! later is for pools at rest.

use std::sync::atomic::{AtomicU64, Ordering};

use redis::Pipeline;

/// How long a set that nobody asks for any more stays at most, for somebody to unlink it.
const LEFT_MS_MAX: u64 = 60_000;

#[derive(Debug)]
pub(super) struct Sets {
    pool: String,
    expiry_ms: u64,
    /// The last generation in which the set that had ended was unlinked.
    unlinked_in: AtomicU64,
}

impl Sets {
    pub(super) fn new(pool: &str, expiry_ms: u64) -> Self {
        Self { pool: pool.to_owned(), expiry_ms, unlinked_in: AtomicU64::new(0) }
    }

    /// Asks the generations for the ids.
    pub(super) fn lookup(&self, generations: [u64; 2], ids: &[&str]) -> Pipeline {
        let mut pipeline = Pipeline::with_capacity(generations.len());
        for generation in generations {
            pipeline.cmd("SMISMEMBER").arg(self.key(generation)).arg(ids);
        }
        pipeline
    }

    /// Which of so many ids are known by the replies to [`lookup`](Self::lookup).
    pub(super) fn known(ids: usize, replies: &[Vec<bool>]) -> Vec<bool> {
        let is_known = |id| replies.iter().any(|answers| answers.get(id).is_some_and(|hit| *hit));
        (0..ids).map(is_known).collect()
    }

    /// Adds the ids to a generation, which nobody asks for from a time on.
    pub(super) fn mark(&self, generation: u64, ends_at_ms: u64, ids: &[&str]) -> Pipeline {
        let mut pipeline = Pipeline::with_capacity(2);
        // All or nothing: a set without its expiry would stay for ever.
        pipeline.atomic();
        let key = self.key(generation);
        let left_ms = self.expiry_ms.min(LEFT_MS_MAX);
        pipeline.cmd("SADD").arg(&key).arg(ids).ignore();
        pipeline.cmd("PEXPIREAT").arg(&key).arg(ends_at_ms.saturating_add(left_ms)).ignore();
        pipeline
    }

    /// Unlinks the set that nobody asks for any more in this generation, unless that was done. Not together with a mark: a full
    /// Redis takes none, and is the fuller for what is left.
    pub(super) fn unlink(&self, generation: u64) -> Option<Pipeline> {
        let ended = generation.checked_sub(2)?;
        (self.unlinked_in.load(Ordering::Relaxed) != generation).then(|| {
            let mut pipeline = Pipeline::with_capacity(1);
            pipeline.cmd("UNLINK").arg(self.key(ended)).ignore();
            pipeline
        })
    }

    /// Redis has done it.
    pub(super) fn has_unlinked(&self, generation: u64) {
        self.unlinked_in.store(generation, Ordering::Relaxed);
    }

    fn key(&self, generation: u64) -> String {
        format!("weir:{{{}}}:ids:{generation}", self.pool)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(pipeline: &Pipeline) -> String {
        String::from_utf8(pipeline.get_packed_pipeline()).unwrap()
    }

    #[test]
    fn an_id_is_known_if_either_generation_has_it() {
        let replies = [vec![true, false, false], vec![false, false, true]];
        assert_eq!(Sets::known(3, &replies), [true, false, true]);
        assert_eq!(Sets::known(2, &[vec![true]]), [true, false], "what was not answered is not known");
    }

    #[test]
    fn a_set_ends_a_little_after_nobody_asks_for_it_any_more() {
        let first = sent(&Sets::new("p", 1_000).mark(7, 9_000, &["a"]));
        assert!(first.contains("PEXPIREAT\r\n$14\r\nweir:{p}:ids:7\r\n$5\r\n10000\r\n"), "{first}");
        let long = sent(&Sets::new("p", 900_000).mark(1, 2_700_000, &["a"]));
        assert!(long.contains("$7\r\n2760000\r\n"), "{long}");
    }

    #[test]
    fn in_each_generation_the_one_that_has_ended_is_unlinked_once() {
        let sets = Sets::new("p", 1_000);
        assert!(sets.unlink(1).is_none(), "none has ended");
        let unlink = sent(&sets.unlink(7).unwrap());
        assert!(unlink.contains("UNLINK\r\n$14\r\nweir:{p}:ids:5\r\n"), "{unlink}");
        assert!(sets.unlink(7).is_some(), "it was not answered");
        sets.has_unlinked(7);
        assert_eq!([7, 8].map(|generation| sets.unlink(generation).is_some()), [false, true]);
    }
}
