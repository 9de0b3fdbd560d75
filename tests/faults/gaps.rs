//! How long each partition was without an effect, from the times in its rows: when it moved, and when it did not.

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};

use super::case::Case;

/// A span of time, in seconds since 1970.
pub(crate) type Span = (f64, f64);

#[derive(Debug, Default)]
pub(crate) struct Gaps {
    /// Between the last effect of one owner and the first of the next.
    pub(crate) hand_overs: Vec<Duration>,
    /// The 99.9th percentile between effects of one owner in the calm.
    pub(crate) calm: Duration,
    /// The longest between effects of one owner while others' partitions moved.
    pub(crate) unmoved: Duration,
}

pub(crate) fn now_s() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// Reads the rows; an event that was sent to several partitions says nothing of any.
pub(crate) async fn measure(case: &Case<'_>, calm: Span, moving: Span) -> Result<Gaps> {
    let rows: Vec<(String, f64, String)> = sqlx::query_as(
        "SELECT message_id, extract(epoch FROM received_at)::float8, writer FROM messages ORDER BY received_at",
    )
    .fetch_all(&case.world.db)
    .await
    .context("read the rows' times")?;
    let book = case.book();
    let mut last: HashMap<i32, (f64, &str)> = HashMap::new();
    let (mut gaps, mut in_calm) = (Gaps::default(), Vec::new());
    for (id, at, writer) in &rows {
        let Some([(partition, _)]) = book.live.get(id).map(|acked| acked.at.as_slice()) else { continue };
        let Some((then, owner)) = last.insert(*partition, (*at, writer)) else { continue };
        let gap = Duration::from_secs_f64((at - then).max(0.0));
        let within = |span: Span| then >= span.0 && *at <= span.1;
        if owner != writer.as_str() {
            gaps.hand_overs.push(gap);
        } else if within(calm) {
            in_calm.push(gap);
        } else if within(moving) {
            gaps.unmoved = gaps.unmoved.max(gap);
        }
    }
    in_calm.sort_unstable();
    gaps.calm = in_calm.get(in_calm.len() * 999 / 1_000).copied().context("no gap in the calm")?;
    gaps.hand_overs.sort_unstable();
    Ok(gaps)
}
