//! Where a batch finds the ledger's row: at the place where the last batch left it.
//!
//! While some snapshot stays open, every version of a row is kept, and whoever looks for it by its key looks at each of them.
//! But only a look by the key clears a page of versions that nobody can see any more, which keeps the row in its page. So every
//! few batches one goes by the key; the more seldom, the less that was good for.

/// So many batches after one that went by the key, the next one does: fewer than the versions that a page has room for.
const TURN_MIN: u32 = 16;
const TURN_MAX: u32 = 4096;

/// How many shards a lane has: more than topics have partitions.
const SHARDS: i32 = 1 << 16;

/// A row of the ledger, as it was left.
#[derive(Debug, Default)]
pub(in crate::store) struct LastSeen {
    place: Option<Tid>,
    /// How many batches go by the place before one goes by the key.
    turn: u32,
    left: u32,
}

/// A `ctid`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Tid {
    block: u32,
    line: u16,
}

impl Tid {
    fn parse(text: &str) -> Option<Self> {
        let (block, line) = text.strip_prefix('(')?.strip_suffix(')')?.split_once(',')?;
        Some(Self { block: block.parse().ok()?, line: line.parse().ok()? })
    }
}

impl LastSeen {
    /// Where the next batch looks, as PostgreSQL writes it; nowhere if it is to go by the key.
    pub(super) fn place(&self) -> Option<String> {
        self.place.filter(|_| self.left > 0).map(|Tid { block, line }| format!("({block},{line})"))
    }

    /// The row was found at its place, and is where this `ctid` says.
    pub(super) fn found(&mut self, ctid: &str) {
        self.left = self.left.saturating_sub(1);
        self.place = Tid::parse(ctid);
    }

    /// The same of one that was found by its key.
    pub(super) fn searched(&mut self, ctid: &str) {
        let (before, now) = (self.place, Tid::parse(ctid));
        // A line before the last one is one that was given free.
        let has_cleared =
            before.zip(now).is_none_or(|(before, now)| now.block == before.block && now.line <= before.line);
        if has_cleared {
            self.turn = TURN_MIN;
        } else if self.left == 0 {
            self.turn = (self.turn * 2).clamp(TURN_MIN, TURN_MAX);
        }
        self.left = self.turn;
        self.place = now;
    }

    /// What a batch adds to a shard's number, by the row's block. As the versions of the ledger's row fill block after block while a
    /// snapshot stays open, so would those of a counter that every batch adds to. With the block the counter goes on in another
    /// row, which has no versions yet.
    pub(super) fn lane(&self) -> i32 {
        self.place.and_then(|place| i32::try_from(place.block % 0x8000).ok()).unwrap_or(0) * SHARDS
    }
}

/// The number of a shard in a lane.
pub(super) fn in_lane(shard: i32, lane: i32) -> i32 {
    if (0..SHARDS).contains(&shard) { lane + shard } else { shard }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So many batches go by the place before one goes by the key.
    fn by_place(seen: &mut LastSeen, mut ctid: impl FnMut(u32) -> String) -> u32 {
        (0..).take_while(|batch| seen.place().is_some().then(|| seen.found(&ctid(*batch))).is_some()).count() as u32
    }

    #[test]
    fn the_row_is_looked_for_where_it_was_left() {
        let mut seen = LastSeen::default();
        assert_eq!(seen.place(), None, "nothing is known of it");
        seen.searched("(0,1)");
        assert_eq!(seen.place().as_deref(), Some("(0,1)"));
        seen.found("(4294967294,65535)");
        assert_eq!(seen.place().as_deref(), Some("(4294967294,65535)"));
        for not_one in ["", "0,1", "(0,1", "(1)", "(a,1)", "(-1,1)", "(1,65536)"] {
            seen.found(not_one);
            assert_eq!(seen.place(), None, "{not_one}");
            seen.searched("(0,1)");
        }
    }

    #[test]
    fn while_looks_by_the_key_clear_the_page_they_are_every_few_batches() {
        let mut seen = LastSeen::default();
        for _ in 0..5 {
            seen.searched("(0,2)");
            assert_eq!(by_place(&mut seen, |batch| format!("(0,{})", batch + 3)), TURN_MIN);
        }
    }

    #[test]
    fn while_they_clear_nothing_they_become_seldom_and_often_again_once_they_do() {
        let mut seen = LastSeen::default();
        let mut turns = Vec::new();
        for block in 0..12 {
            seen.searched(&format!("({block},1)"));
            turns.push(by_place(&mut seen, |_| format!("({block},60)")));
        }
        assert_eq!(turns, [16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 4096, 4096, 4096]);
        seen.searched("(11,61)");
        assert_eq!(
            by_place(&mut seen, |_| "(11,62)".to_owned()),
            TURN_MAX,
            "the next line of the page is none that was given free"
        );
        seen.searched("(11,3)");
        assert_eq!(by_place(&mut seen, |_| "(11,4)".to_owned()), TURN_MIN);
    }

    #[test]
    fn a_row_that_was_not_at_its_place_says_nothing_of_what_can_be_cleared() {
        let mut seen = LastSeen::default();
        seen.searched("(0,2)");
        for line in 3..30 {
            seen.found(&format!("(0,{line})"));
            seen.searched(&format!("(0,{})", line + 1));
        }
        assert_eq!(by_place(&mut seen, |_| "(0,31)".to_owned()), TURN_MIN);
    }

    #[test]
    fn a_counter_goes_with_the_block_of_the_ledgers_row() {
        let mut seen = LastSeen::default();
        assert_eq!(in_lane(11, seen.lane()), 11, "where nothing is known of the row");
        let mut at = |ctid: &str, shard| {
            seen.found(ctid);
            in_lane(shard, seen.lane())
        };
        assert_eq!([at("(0,1)", 11), at("(0,68)", 11), at("(1,1)", 11)], [11, 11, 65_547]);
        assert_eq!([at("(32767,1)", 65_535), at("(32768,1)", 65_535)], [i32::MAX, 65_535]);
        assert_eq!([at("(9,1)", 65_536), at("(9,1)", i32::MAX), at("(9,1)", -1)], [65_536, i32::MAX, -1]);
    }
}
