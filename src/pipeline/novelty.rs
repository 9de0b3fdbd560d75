//! Whether a partition's next batch is taken to have no event that is there already.
//!
//! The database writes such a batch at about half the cost (`store/postgres/copy.rs`), and refuses it as a whole when one
//! is there after all; then it is written again the other way. Repeats seldom come alone, so each one found makes the
//! partition leave the assumption for a while, the longer the more of them came lately: with nothing but repeats one batch
//! in 64 is written twice, and at worst, with repeats in every fifth batch, one in ten.

const PAUSE_MIN: u32 = 4;
const PAUSE_MAX: u32 = 64;

/// What a partition's last batches say of the next.
#[derive(Debug, Default)]
pub(crate) struct Novelty {
    /// For how many batches the assumption was left the last time; less with each one that held since.
    pause: u32,
    /// For how many more it is left.
    left: u32,
    refuted: bool,
}

impl Novelty {
    /// Whether the next batch is taken to be new.
    pub(super) fn is_expected(&mut self) -> bool {
        let expected = self.left == 0;
        self.left = self.left.saturating_sub(1);
        expected
    }

    /// A batch was, as a whole.
    pub(super) fn confirmed(&mut self) {
        self.pause /= 2;
    }

    /// The next batches are not taken to be: the last one did not go through.
    pub(super) fn leave(&mut self) {
        self.pause = (self.pause * 2).clamp(PAUSE_MIN, PAUSE_MAX);
        self.left = self.pause;
    }

    /// A batch was refused, and is written again.
    pub(super) fn refuted(&mut self) {
        self.leave();
        self.refuted = true;
    }

    /// Whether a batch was refused since this was last asked.
    pub(crate) fn was_refuted(&mut self) -> bool {
        std::mem::take(&mut self.refuted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused_of(batches: usize, mut has_repeats: impl FnMut(usize) -> bool) -> usize {
        let mut novelty = Novelty::default();
        let mut refused = 0;
        for batch in 0..batches {
            match (novelty.is_expected(), has_repeats(batch)) {
                (true, true) => {
                    novelty.refuted();
                    assert!(!novelty.is_expected(), "it is written the other way at once");
                    refused += 1;
                }
                (true, false) => novelty.confirmed(),
                (false, _) => {}
            }
        }
        refused
    }

    #[test]
    fn where_everything_is_new_every_batch_is_taken_to_be() {
        assert_eq!(refused_of(1_000, |_| false), 0);
    }

    #[test]
    fn where_nothing_is_new_one_batch_in_64_finds_out() {
        assert!((16..=20).contains(&refused_of(1_000, |_| true)));
    }

    #[test]
    fn scattered_repeats_have_one_batch_in_ten_written_twice_at_worst() {
        for percent in [1, 5, 10, 20, 30, 40, 60, 80] {
            let mut rng = fastrand::Rng::with_seed(percent);
            let refused = refused_of(100_000, |_| rng.u64(0..100) < percent);
            assert!(refused <= 10_500, "{refused} of 100,000 with repeats in {percent} %");
        }
    }

    #[test]
    fn a_lone_repeat_costs_a_few_batches_and_not_those_long_after_it() {
        let mut novelty = Novelty::default();
        novelty.refuted();
        let until_next = std::iter::repeat_with(|| novelty.is_expected()).position(|expected| expected);
        assert_eq!(until_next, Some(PAUSE_MIN as usize));
        assert!(novelty.was_refuted() && !novelty.was_refuted());
        for _ in 0..PAUSE_MIN {
            novelty.confirmed();
        }
        novelty.refuted();
        assert_eq!(novelty.left, PAUSE_MIN);
    }
}
