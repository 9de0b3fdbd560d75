//! Ids in Redis' sets, a set a generation: `weir:{POOL}:ids:GENERATION`. Sets take about half of the memory of a key an id.
//!
//! Redis drops what has expired while everybody waits, which takes long for millions of ids. So once in a generation each worker
//! unlinks the set that nobody asks for any more, which is freed beside the work: half a minute after its end, or half an
//! expiry, so that clocks may differ by that. The expiry as much later is for pools at rest.

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
        pipeline.cmd("SADD").arg(&key).arg(ids).ignore();
        pipeline.cmd("PEXPIREAT").arg(&key).arg(ends_at_ms.saturating_add(self.left_ms())).ignore();
        pipeline
    }

    /// Unlinks the set that nobody asks for any more, with the generation in which it does, unless that was done; a while after
    /// its end, by which other workers' clocks may be behind. Not together with a mark: a full Redis takes none, and is the
    /// fuller for what is left.
    pub(super) fn unlink(&self, now_ms: u64) -> Option<(u64, Pipeline)> {
        let generation = now_ms.saturating_sub(self.left_ms() / 2) / self.expiry_ms;
        let ended = generation.checked_sub(2)?;
        (self.unlinked_in.load(Ordering::Relaxed) != generation).then(|| {
            let mut pipeline = Pipeline::with_capacity(1);
            pipeline.cmd("UNLINK").arg(self.key(ended)).ignore();
            (generation, pipeline)
        })
    }

    fn left_ms(&self) -> u64 {
        self.expiry_ms.min(LEFT_MS_MAX)
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
        assert!(sets.unlink(2_499).is_none(), "none has ended so long ago that every clock says so");
        let (generation, unlink) = sets.unlink(7_500).unwrap();
        let unlink = sent(&unlink);
        assert!(generation == 7 && unlink.contains("UNLINK\r\n$14\r\nweir:{p}:ids:5\r\n"), "{unlink}");
        assert!(sets.unlink(7_500).is_some(), "it was not answered");
        sets.has_unlinked(generation);
        assert_eq!([7_600, 8_499, 8_500].map(|now_ms| sets.unlink(now_ms).is_some()), [false, false, true]);
    }
}
