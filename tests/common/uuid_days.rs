//! Ids of version 7 that were made on some day, and how the days of `messages` are bounded.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use uuid::Uuid;

pub(crate) const DAY_MS: i64 = 86_400_000;

/// Today's number since 1970.
pub(crate) fn today() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(now.as_millis()).unwrap() / DAY_MS
}

/// An id of version 7 that was made on a day, in its second hour.
pub(crate) fn id(day: i64, number: u64) -> String {
    let ms = u128::try_from(day * DAY_MS + 3_600_000).unwrap();
    Uuid::from_u128(ms << 80 | 7 << 76 | 2 << 62 | u128::from(number)).to_string()
}

/// The least id of a day, quoted.
pub(crate) fn bound(day: i64) -> String {
    let hex = format!("{:012x}", day * DAY_MS);
    format!("'{}-{}-7000-8000-000000000000'", &hex[..8], &hex[8..])
}

/// A day as it stands in the name of its partition.
pub(crate) fn digits(day: i64) -> String {
    let at = UNIX_EPOCH + Duration::from_millis(u64::try_from(day * DAY_MS).unwrap());
    humantime::format_rfc3339_seconds(at).to_string()[..10].replace('-', "")
}

/// What makes PostgreSQL's `messages`, just divided by days, look as though it had been divided on this day: its store makes
/// the days from then on.
pub(crate) fn divided_on(day: i64) -> [String; 2] {
    let (first, to) = (bound(18_262), bound(day));
    [
        "ALTER TABLE messages DETACH PARTITION messages_before".to_owned(),
        format!("ALTER TABLE messages ATTACH PARTITION messages_before FOR VALUES FROM ({first}) TO ({to})"),
    ]
}
