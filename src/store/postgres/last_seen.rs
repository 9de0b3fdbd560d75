//! Where a batch finds the ledger's row: at the place where the last batch left it.
//!
//! While some snapshot stays open, every version of a row is kept, and whoever looks for it by its key looks at each of them.
//! But only a look by the key clears a page of versions that nobody can see any more, which keeps the row in its page. So a
//! batch goes by the key where the page is nearly full, whichever rows have filled it; the more seldom, the less that was good
//! for.

/// After a look by the key that cleared nothing, so many batches go by the place whatever the page is like.
const TURN_MIN: u32 = 4;
const TURN_MAX: u32 = 4096;

/// What a page of the table has room for: eight KiB but for its header, a line pointer for each version.
const PAGE_BYTES: usize = 8168;
const LINE_BYTES: usize = 4;

/// How many shards a lane has: more than topics have partitions.
const SHARDS: i32 = 1 << 16;

/// A row of the ledger, as it was left.
#[derive(Debug, Default)]
pub(in crate::store) struct LastSeen {
    place: Option<Tid>,
    /// From this line on its page is nearly full. Lines that were given free are taken first.
    full_from: u16,
    /// How many batches go by the place after a look that cleared nothing.
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
        self.place.filter(|_| !self.is_due()).map(|Tid { block, line }| format!("({block},{line})"))
    }

    fn is_due(&self) -> bool {
        self.left == 0 && self.place.is_some_and(|place| place.line >= self.full_from)
    }

    /// The row was found at its place, and is where this `ctid` says.
    pub(super) fn found(&mut self, ctid: &str) {
        self.left = self.left.saturating_sub(1);
        self.is_at(ctid);
    }

    /// The same of one that was found by its key. A version of it takes so many bytes.
    pub(super) fn searched(&mut self, ctid: &str, bytes: usize) {
        let was_due = self.is_due();
        let versions = PAGE_BYTES / (bytes.next_multiple_of(8) + LINE_BYTES);
        self.full_from = u16::try_from(versions * 3 / 4).unwrap_or(u16::MAX);
        if !self.is_at(ctid) && was_due {
            self.turn = (self.turn * 2).clamp(TURN_MIN, TURN_MAX);
            self.left = self.turn;
        }
    }

    /// Whether its page has been cleared since the last batch, by whomever.
    fn is_at(&mut self, ctid: &str) -> bool {
        let (before, now) = (self.place, Tid::parse(ctid));
        self.place = now;
        let was_cleared =
            before.zip(now).is_some_and(|(before, now)| now.block == before.block && now.line <= before.line);
        if was_cleared {
            (self.turn, self.left) = (0, 0);
        }
        was_cleared
    }

    /// What a batch adds to a shard's number, by the row's block. As the versions of the ledger's row fill block after block while a
    /// snapshot stays open, so would those of a counter that every batch adds to. With the block the counter goes on in another
    /// row, which has no versions yet. Only once looks by the key have cleared nothing several times: rows of counters stay for
    /// good.
    pub(super) fn lane(&self) -> i32 {
        self.place
            .filter(|_| self.turn > TURN_MIN)
            .and_then(|place| i32::try_from(place.block % 0x8000).ok())
            .unwrap_or(0)
            * SHARDS
    }
}

/// The number of a shard in a lane.
pub(super) fn in_lane(shard: i32, lane: i32) -> i32 {
    if (0..SHARDS).contains(&shard) { lane + shard } else { shard }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of a row whose page has room for 70 versions: nearly full from the 52nd line on.
    const BYTES: usize = 112;

    /// The lines of a page as one batch after the other takes them, from one of them on, each a version of this row; how many
    /// go by the place before one goes by the key.
    fn by_place(seen: &mut LastSeen, block: u32, from: u32) -> u32 {
        (0..)
            .take_while(|batch| {
                let ctid = format!("({},{})", block + (from + batch) / 70, (from + batch) % 70 + 1);
                seen.place().is_some().then(|| seen.found(&ctid)).is_some()
            })
            .count() as u32
    }

    #[test]
    fn the_row_is_looked_for_where_it_was_left() {
        let mut seen = LastSeen::default();
        assert_eq!(seen.place(), None, "nothing is known of it");
        seen.searched("(0,1)", BYTES);
        assert_eq!(seen.place().as_deref(), Some("(0,1)"));
        seen.found("(4294967294,51)");
        assert_eq!(seen.place().as_deref(), Some("(4294967294,51)"));
        for not_one in ["", "0,1", "(0,1", "(1)", "(a,1)", "(-1,1)", "(1,65536)"] {
            seen.found(not_one);
            assert_eq!(seen.place(), None, "{not_one}");
            seen.searched("(0,1)", BYTES);
        }
    }

    #[test]
    fn while_looks_by_the_key_clear_the_page_they_are_as_seldom_as_it_is_full() {
        let mut seen = LastSeen::default();
        for _ in 0..5 {
            seen.searched("(0,2)", BYTES);
            assert_eq!(by_place(&mut seen, 0, 2), 50);
        }
        seen.searched("(0,2)", 4 * BYTES);
        assert_eq!(by_place(&mut seen, 0, 2), 11, "versions of four times the size");
    }

    #[test]
    fn a_page_that_other_rows_fill_is_full_too_and_what_they_clear_is_cleared() {
        let mut seen = LastSeen::default();
        seen.searched("(0,40)", BYTES);
        seen.found("(0,60)");
        assert_eq!(seen.place(), None);
        seen.searched("(0,61)", BYTES);
        assert!(seen.place().is_some(), "nothing was cleared");
        seen.found("(0,45)");
        seen.found("(0,65)");
        assert_eq!(seen.place(), None, "another has cleared it");
    }

    #[test]
    fn while_they_clear_nothing_they_become_seldom_and_often_again_once_they_do() {
        let mut seen = LastSeen::default();
        seen.searched("(0,1)", BYTES);
        let (mut line, mut turns) = (1, Vec::new());
        for _ in 0..14 {
            let turn = by_place(&mut seen, 0, line);
            line += turn;
            seen.searched(&format!("({},{})", line / 70, line % 70 + 1), BYTES);
            line += 1;
            turns.push(turn);
        }
        // From the end of a turn on to where the next page is nearly full.
        assert_eq!(turns[..4], [51, 4, 8, 55], "{turns:?}");
        assert!((TURN_MAX..TURN_MAX + 70).contains(&turns[13]), "{turns:?}");
        let block = (line - 1) / 70;
        seen.searched(&format!("({block},2)"), BYTES);
        assert_eq!(by_place(&mut seen, block, 2), 50);
    }

    #[test]
    fn a_row_that_was_not_at_its_place_says_nothing_of_what_can_be_cleared() {
        let mut seen = LastSeen::default();
        seen.searched("(0,2)", BYTES);
        for block in 1..30 {
            seen.searched(&format!("({block},30)"), BYTES);
        }
        seen.found("(29,52)");
        assert_eq!(seen.place(), None);
    }

    #[test]
    fn a_counter_goes_with_the_block_of_the_ledgers_row() {
        let mut seen = LastSeen::default();
        assert_eq!(in_lane(11, seen.lane()), 11, "where nothing is known of the row");
        seen.found("(1,1)");
        assert_eq!(in_lane(11, seen.lane()), 11, "the row has moved, and nothing says that versions stay");
        seen = LastSeen { turn: 2 * TURN_MIN, ..LastSeen::default() };
        let mut at = |ctid: &str, shard| {
            seen.found(ctid);
            in_lane(shard, seen.lane())
        };
        assert_eq!([at("(0,1)", 11), at("(0,68)", 11), at("(1,1)", 11)], [11, 11, 65_547]);
        assert_eq!([at("(32767,1)", 65_535), at("(32768,1)", 65_535)], [i32::MAX, 65_535]);
        assert_eq!([at("(9,1)", 65_536), at("(9,1)", i32::MAX), at("(9,1)", -1)], [65_536, i32::MAX, -1]);
    }
}
