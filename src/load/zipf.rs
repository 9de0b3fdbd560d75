//! Which conversation an event belongs to: the one of rank k is chosen with a probability in proportion to 1 / k^s, by
//! an exact alias table (A. J. Walker; built as M. D. Vose, "A Linear Algorithm for Generating Random Numbers with a Given
//! Distribution", 1991). A choice costs one multiplication and one look whatever the number of conversations.

/// The ranks 0 to n − 1 with their weights.
#[derive(Debug, Clone)]
pub(super) struct Zipf {
    /// With which probability the column's own rank is taken, as a part of 2^32.
    keep: Vec<u32>,
    /// The rank that is taken otherwise.
    alias: Vec<u32>,
}

impl Zipf {
    /// `exponent` 0 is uniform.
    pub(super) fn new(ranks: u32, exponent: f64) -> Self {
        let count = f64::from(ranks);
        let weights: Vec<f64> = (1..=ranks).map(|rank| f64::from(rank).powf(-exponent)).collect();
        // The small ones first, so that they are not lost beside the large.
        let total: f64 = weights.iter().rev().sum();
        let mut share: Vec<f64> = weights.iter().map(|weight| weight * count / total).collect();
        let (mut small, mut large): (Vec<u32>, Vec<u32>) = (0..ranks).partition(|rank| share[*rank as usize] < 1.0);
        let mut zipf = Self { keep: vec![u32::MAX; share.len()], alias: (0..ranks).collect() };
        while let (Some(less), Some(more)) = (small.pop(), large.last().copied()) {
            let (of_less, of_more) = (less as usize, more as usize);
            zipf.keep[of_less] = part_of_u32(share[of_less]);
            zipf.alias[of_less] = more;
            share[of_more] -= 1.0 - share[of_less];
            if share[of_more] < 1.0 {
                large.pop();
                small.push(more);
            }
        }
        zipf
    }

    /// The rank that a random number stands for.
    pub(super) fn rank(&self, random: u64) -> u32 {
        let product = u128::from(random) * self.keep.len() as u128;
        let column = usize::try_from(product >> 64).unwrap_or(0);
        // What is left of the column says where in it.
        let dice = u32::try_from((product >> 32) & u128::from(u32::MAX)).unwrap_or(0);
        if dice <= self.keep[column] { u32::try_from(column).unwrap_or(0) } else { self.alias[column] }
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the share is from 0 to 1")]
fn part_of_u32(share: f64) -> u32 {
    (share.clamp(0.0, 1.0) * f64::from(u32::MAX)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::events::mix;

    fn counts(zipf: &Zipf, draws: u64) -> Vec<f64> {
        let mut counts = vec![0_u64; zipf.keep.len()];
        (0..draws).for_each(|n| counts[zipf.rank(mix(n)) as usize] += 1);
        counts.iter().map(|count| *count as f64 / draws as f64).collect()
    }

    #[test]
    fn ranks_come_in_proportion_to_their_weights() {
        for exponent in [0.0, 0.8, 1.0, 1.5] {
            let found = counts(&Zipf::new(50, exponent), 2_000_000);
            let total: f64 = (1..=50).map(|rank| f64::from(rank).powf(-exponent)).sum();
            for (rank, share) in found.iter().enumerate() {
                let expected = (rank as f64 + 1.0).powf(-exponent) / total;
                let five_sigma = 5.0 * (expected / 2_000_000.0).sqrt();
                assert!((share - expected).abs() < five_sigma, "{exponent}: rank {rank}: {share} for {expected}");
            }
        }
    }

    #[test]
    fn the_table_itself_holds_the_exact_shares() {
        let zipf = Zipf::new(1_000, 1.0);
        let mut share = vec![0.0; 1_000];
        for (column, (keep, alias)) in zipf.keep.iter().zip(&zipf.alias).enumerate() {
            let kept = f64::from(*keep) / f64::from(u32::MAX);
            share[column] += kept / 1_000.0;
            share[*alias as usize] += (1.0 - kept) / 1_000.0;
        }
        let total: f64 = (1..=1_000).map(|rank| 1.0 / f64::from(rank)).sum();
        for (rank, share) in share.iter().enumerate() {
            assert!((share - 1.0 / (rank as f64 + 1.0) / total).abs() < 1e-9, "rank {rank}");
        }
    }

    #[test]
    fn one_conversation_takes_everything() {
        assert_eq!(counts(&Zipf::new(1, 1.0), 100), [1.0]);
    }
}
