//! `messages` by days: a partition holds the ids of UUIDv7 that were made on one day, UTC, so that what is older than the
//! retention goes by dropping partitions. The unique key stays the id alone, over all days.
//!
//! The whole time in which such ids can lie, from [`FIRST`] to [`LAST`], is divided like this, in the order of ids:
//!
//! | part | holds |
//! |---|---|
//! | below | ids that sort before all of that time |
//! | before | what was there when the table was converted, up to the first day |
//! | a day each | its ids |
//! | ahead | ids of days that are not made yet, or dropped |
//! | above | ids that sort behind all of that time |
//!
//! Nothing is refused for its id's form. One that is no UUIDv7 can lie between two of a day, since only the beginning of a
//! text decides; it is a *stray*, and moved elsewhere before its day is dropped.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use uuid::Uuid;

use super::{Error, Fault, KeyType, Result};

const ACTION: &str = "partition messages";
/// Days that are made ahead of today.
pub(super) const AHEAD: i64 = 7;
/// So far back is looked for days that could not be made when they were due.
#[cfg(feature = "postgres")]
const BEHIND: i64 = 31;
/// So many strays of a day are moved; one with more is kept.
pub(super) const STRAYS_MAX: i64 = 10_000;
/// In the background so many rows are moved into a day that is made late; with more, writers would wait for too long.
pub(super) const ROWS_MAX: i64 = 50_000;

/// 1 January 2020: there were no such ids before.
pub(super) const FIRST: Day = Day(18_262);
/// 1 January 2100.
pub(super) const LAST: Day = Day(47_482);

const DAY_MS: i64 = 86_400_000;

/// A day, UTC, by its number since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Day(i64);

impl Day {
    pub(super) fn of_ms(ms: i64) -> Self {
        Self(ms.div_euclid(DAY_MS))
    }

    /// When it begins, in milliseconds since 1970.
    #[must_use]
    pub fn begin_ms(self) -> i64 {
        self.0 * DAY_MS
    }

    pub(super) fn plus(self, days: i64) -> Self {
        Self(self.0 + days)
    }

    /// The least UUIDv7 of the day, in the lower case in which texts are compared.
    pub(super) fn bound(self) -> String {
        let hex = format!("{:012x}", self.begin_ms());
        format!("{}-{}-7000-8000-000000000000", &hex[..8], &hex[8..])
    }

    /// The day that has this bound.
    pub(super) fn of_bound(bound: &str) -> Option<Self> {
        let day = Self::of_ms(uuid_ms(Uuid::try_parse(bound).ok()?));
        (day.bound() == bound).then_some(day)
    }

    /// As it stands in a partition's name: `20261122`.
    pub(super) fn digits(self) -> String {
        self.to_string().replace('-', "")
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let since_1970 = Duration::from_millis(self.begin_ms().unsigned_abs());
        let text = humantime::format_rfc3339_seconds(std::time::UNIX_EPOCH + since_1970).to_string();
        f.write_str(text.split('T').next().unwrap_or_default())
    }
}

/// When an id was made, in milliseconds since 1970, if it is a UUIDv7; as text, in lower case with hyphens.
pub(crate) fn made_ms(id: &str, kind: KeyType) -> Option<i64> {
    let uuid = Uuid::try_parse(id).ok().filter(|uuid| uuid.get_version_num() == 7)?;
    let is_spelt_so = || uuid.hyphenated().encode_lower(&mut Uuid::encode_buffer()) == id;
    match kind {
        KeyType::Text if !is_spelt_so() => None,
        KeyType::Text | KeyType::Uuid => Some(uuid_ms(uuid)),
        KeyType::Int => None,
    }
}

fn uuid_ms(uuid: Uuid) -> i64 {
    i64::try_from(uuid.as_u128() >> 80).expect("48 bits are left")
}

/// A partition between two days.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) name: String,
    pub(super) from: Day,
    pub(super) to: Day,
}

/// How `messages` is divided at some moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Parts {
    /// In order.
    pub(super) parts: Vec<Part>,
    /// The database's clock.
    pub(super) now_ms: i64,
}

impl Parts {
    pub(super) fn today(&self) -> Day {
        Day::of_ms(self.now_ms)
    }

    /// Those that ended longer ago than the retention, and a day: until then an id of theirs may just have been let pass.
    pub(super) fn expired(&self, retention: Option<Duration>) -> Vec<&Part> {
        let Some(kept_from_ms) = self.kept_from_ms(retention) else { return Vec::new() };
        self.parts.iter().filter(|part| part.to.begin_ms() <= kept_from_ms - DAY_MS).collect()
    }

    /// Ids that were made before this are refused, since nobody could tell whether they were there.
    pub(super) fn known_from_ms(&self, retention: Option<Duration>) -> i64 {
        let dropped = self.dropped_before().map_or(i64::MIN, Day::begin_ms);
        self.kept_from_ms(retention).map_or(dropped, |kept_from| kept_from.max(dropped))
    }

    fn kept_from_ms(&self, retention: Option<Duration>) -> Option<i64> {
        let retention_ms = i64::try_from(retention?.as_millis()).unwrap_or(i64::MAX);
        Some(self.now_ms.saturating_sub(retention_ms))
    }

    /// All days before it are dropped.
    pub(super) fn dropped_before(&self) -> Option<Day> {
        self.parts.first().map(|part| part.from).filter(|from| *from > FIRST)
    }

    /// Days that should have a partition and have none. MariaDB makes days only behind the last one.
    #[cfg(feature = "postgres")]
    pub(super) fn missing(&self, retention: Option<Duration>) -> Vec<Day> {
        let today = self.today();
        let lowest = self.parts.first().map_or(today, |part| part.to);
        let kept_from = self.kept_from_ms(retention).map_or(lowest, |kept_from| Day::of_ms(kept_from).plus(1));
        let from = today.plus(-BEHIND).max(lowest).max(kept_from);
        (from.0..=today.plus(AHEAD).0).map(Day).filter(|day| !self.has(*day)).collect()
    }

    fn has(&self, day: Day) -> bool {
        self.parts.iter().any(|part| (part.from..part.to).contains(&day))
    }

    /// How many days are made from tomorrow on, without a gap.
    fn ahead(&self) -> i64 {
        let today = self.today();
        (1..=AHEAD).take_while(|days| self.has(today.plus(*days))).count().try_into().unwrap_or(AHEAD)
    }
}

/// What was done for the days of `messages`, and how they stand.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Upkeep {
    /// How many days are made from tomorrow on.
    pub ahead: i64,
    /// How many partitions are older than the retention and there still.
    pub overdue: usize,
    /// Ids that were made before this, in milliseconds since 1970, are refused: their days are dropped, or may be at any time.
    pub known_from_ms: i64,
    /// Partitions that were made.
    pub made: Vec<String>,
    /// Partitions that were dropped.
    pub dropped: Vec<String>,
    /// Days that could not be made, and why.
    pub unmade: Vec<String>,
    /// Partitions that could not be dropped, and why.
    pub kept: Vec<String>,
}

impl Upkeep {
    pub(super) fn of(parts: &Parts, retention: Option<Duration>) -> Self {
        let mut upkeep = Self::default();
        upkeep.stands(parts, retention);
        upkeep
    }

    pub(super) fn stands(&mut self, parts: &Parts, retention: Option<Duration>) {
        self.ahead = parts.ahead();
        self.overdue = parts.expired(retention).len();
        self.known_from_ms = parts.known_from_ms(retention);
    }
}

/// How `messages` was made partitioned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Converted {
    /// Rows that were moved, since the part that was the table does not hold them.
    pub moved: u64,
    /// How long writers waited.
    pub locked: Duration,
}

/// What `weir migrate --partitioned` came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partitioned {
    /// `None`: it was so already.
    pub converted: Option<Converted>,
    /// Its days.
    pub upkeep: Upkeep,
}

/// How much may be done at once.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    pub(super) rows_max: i64,
    pub(super) deadline: Duration,
}

impl Effort {
    /// Somebody asked for it and waits.
    pub(super) const ASKED: Self = Self { rows_max: i64::MAX, deadline: Duration::from_secs(24 * 60 * 60) };
}

/// What a database with partitions does for the days of `messages`.
#[async_trait]
pub trait ByDay: Send + Sync {
    /// Divides the table. `None`: it is already.
    async fn divide(&self) -> Result<Option<Converted>>;

    /// Makes and drops the days that are due. `None`: the table is not divided.
    async fn keep(&self, effort: Effort) -> Result<Option<Upkeep>>;

    /// How they stand. `None`: the table is not divided.
    async fn look(&self) -> Result<Option<Upkeep>>;

    /// How much is done beside other work.
    fn background(&self) -> Effort;

    /// How long they are kept, by configuration.
    fn retention(&self) -> Option<Duration>;
}

/// Said where a database has no partitions.
pub(super) fn none() -> Error {
    let message =
        "this database has no partitions: delete old rows of `messages` by a statement of your own, or keep them in \
                   PostgreSQL or MariaDB"
            .to_owned();
    Error { fault: Fault::Fatal, action: ACTION, message }
}

/// Why something is not done, for an operator. A database that is away is an error of its own.
pub(super) fn reason(what: &str, error: Error) -> Result<String> {
    match error.fault {
        Fault::Outage => Err(error),
        _ => Ok(format!("{what}: {}", error.message)),
    }
}

/// What weir does not do by itself.
pub(super) fn refused(message: String) -> Error {
    Error { fault: Fault::Hold, action: ACTION, message }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn parts(days: &[(i64, i64)], today: i64) -> Parts {
        let part = |(from, to): &(i64, i64)| Part { name: from.to_string(), from: Day(*from), to: Day(*to) };
        Parts { parts: days.iter().map(part).collect(), now_ms: Day(today).begin_ms() + 1 }
    }

    #[test]
    fn a_days_bound_lies_before_its_first_id_and_behind_the_last_of_the_day_before() {
        let day = Day::of_ms(1_793_836_800_000);
        assert_eq!((day.to_string(), day.digits()), ("2026-11-05".to_owned(), "20261105".to_owned()));
        assert_eq!(day.bound(), "01a1a901-5800-7000-8000-000000000000");
        assert_eq!(Day::of_bound(&day.bound()), Some(day));
        assert_eq!(Day::of_bound("01a1a901-5800-7000-8000-000000000001"), None);
        let before = Uuid::from_u128((1_793_836_799_999_u128 << 80) | (0x7fff << 64) | u128::from(u64::MAX));
        assert!(before.to_string() < day.bound());
        assert_eq!((FIRST.to_string(), LAST.to_string()), ("2020-01-01".to_owned(), "2100-01-01".to_owned()));
    }

    #[test]
    fn only_a_uuid_of_version_7_has_a_day_and_as_text_only_as_it_is_compared() {
        let id = "01a1a901-5801-7abc-8000-00000000000f";
        for kind in [KeyType::Text, KeyType::Uuid] {
            assert_eq!(made_ms(id, kind), Some(1_793_836_800_001));
            assert_eq!(made_ms("01a1a901-5801-4abc-8000-00000000000f", kind), None);
            assert_eq!(made_ms("m-1", kind), None);
        }
        assert_eq!(made_ms(&id.to_uppercase(), KeyType::Text), None);
        assert_eq!(made_ms(&id.to_uppercase(), KeyType::Uuid), Some(1_793_836_800_001));
        assert_eq!(made_ms(&id.replace('-', ""), KeyType::Text), None);
        assert_eq!(made_ms("5", KeyType::Int), None);
    }

    #[cfg(feature = "postgres")]
    #[test]
    fn days_are_made_up_to_a_week_ahead_and_those_that_were_missed() {
        let missing = |parts: &Parts, retention| parts.missing(retention).iter().map(|day| day.0).collect::<Vec<_>>();
        let fresh = parts(&[(18_262, 20_001)], 20_000);
        assert_eq!(missing(&fresh, None), (20_001..=20_007).collect::<Vec<_>>());
        let gaps = parts(&[(18_262, 20_001), (20_001, 20_002), (20_003, 20_004)], 20_005);
        assert_eq!(
            missing(&gaps, None),
            [20_002, 20_004, 20_005, 20_006, 20_007, 20_008, 20_009, 20_010, 20_011, 20_012]
        );
        assert_eq!(missing(&gaps, Some(DAY))[0], 20_005, "what is dropped is not made again");
        assert_eq!(gaps.ahead(), 0);
        assert_eq!(fresh.ahead(), 0);
        assert_eq!(parts(&[(18_262, 20_001), (20_001, 20_003)], 20_000).ahead(), 2);
    }

    #[test]
    fn a_part_is_dropped_a_day_after_its_last_id_is_refused() {
        let three = parts(&[(18_262, 19_998), (19_998, 19_999), (19_999, 20_000)], 20_000);
        assert!(three.expired(None).is_empty());
        let names = |days| three.expired(Some(DAY * days)).iter().map(|part| part.name.clone()).collect::<Vec<_>>();
        assert_eq!(names(1), ["18262"]);
        assert!(names(2).is_empty());
        assert_eq!(three.known_from_ms(Some(DAY)), three.now_ms - DAY_MS);
        assert_eq!((three.known_from_ms(None), three.dropped_before()), (i64::MIN, None));
        let dropped = parts(&[(19_999, 20_000)], 20_000);
        assert_eq!(dropped.known_from_ms(None), Day(19_999).begin_ms());
        assert_eq!(dropped.known_from_ms(Some(DAY * 90)), Day(19_999).begin_ms());
    }
}
