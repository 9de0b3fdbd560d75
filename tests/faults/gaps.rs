//! How long each partition was without an effect, from the times in its rows: when it was claimed anew, by another
//! worker or by the one that had it, and when it stayed.

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};

use super::case::Case;

/// A span of time, in seconds since 1970.
pub(crate) type Span = (f64, f64);

#[derive(Debug, Default)]
pub(crate) struct Gaps {
    /// Between the last effect of one claim and the first of the next.
    pub(crate) hand_overs: Vec<Duration>,
    /// The 99.9th percentile between effects of one claim in the calm.
    pub(crate) calm: Duration,
    /// The longest between effects of one claim while other partitions moved.
    pub(crate) unmoved: Duration,
    /// The partition of the longest, and when it began.
    pub(crate) longest: Option<(i32, f64)>,
}

/// Writes down every claim from now on, with its time.
const NOTE_CLAIMS: &str = "
    CREATE TABLE harness_claims (partition integer NOT NULL, at timestamptz NOT NULL);
    CREATE FUNCTION harness_note_claim() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO harness_claims VALUES (NEW.partition, clock_timestamp()); RETURN NEW;
    END $$;
    CREATE TRIGGER harness_claims AFTER UPDATE ON weir_ledger FOR EACH ROW
        WHEN (OLD.epoch IS DISTINCT FROM NEW.epoch) EXECUTE FUNCTION harness_note_claim()";

pub(crate) async fn note_claims(case: &Case<'_>) -> Result<()> {
    case.world.sql(NOTE_CLAIMS).await
}

pub(crate) fn now_s() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// Reads the rows; an event that was sent to several partitions says nothing of any.
pub(crate) async fn measure(case: &Case<'_>, calm: Span, moving: Span) -> Result<Gaps> {
    let rows: Vec<(String, f64)> =
        sqlx::query_as("SELECT message_id, extract(epoch FROM received_at)::float8 FROM messages ORDER BY received_at")
            .fetch_all(case.world.db.postgres())
            .await
            .context("read the rows' times")?;
    let mut claims: HashMap<i32, Vec<f64>> = HashMap::new();
    let claimed: Vec<(i32, f64)> =
        sqlx::query_as("SELECT partition, extract(epoch FROM at)::float8 FROM harness_claims ORDER BY at")
            .fetch_all(case.world.db.postgres())
            .await
            .context("read the claims")?;
    claimed.into_iter().for_each(|(partition, at)| claims.entry(partition).or_default().push(at));
    let moved = |partition, then: f64, at: f64| {
        let claims = claims.get(&partition).map_or(&[][..], Vec::as_slice);
        claims.get(claims.partition_point(|claim| *claim <= then)).is_some_and(|claim| *claim <= at)
    };
    let book = case.book();
    let mut last: HashMap<i32, f64> = HashMap::new();
    let (mut gaps, mut in_calm) = (Gaps::default(), Vec::new());
    for (id, at) in rows {
        let Some([(partition, _)]) = book.live.get(&id).map(|acked| acked.at.as_slice()) else { continue };
        let Some(then) = last.insert(*partition, at) else { continue };
        let gap = Duration::from_secs_f64((at - then).max(0.0));
        let within = |span: Span| then >= span.0 && at <= span.1;
        if moved(*partition, then, at) {
            gaps.hand_overs.push(gap);
        } else if within(calm) {
            in_calm.push(gap);
        } else if (moving.0..moving.1).contains(&then) && gap > gaps.unmoved {
            (gaps.unmoved, gaps.longest) = (gap, Some((*partition, then)));
        }
    }
    in_calm.sort_unstable();
    gaps.calm = in_calm.get(in_calm.len() * 999 / 1_000).copied().context("no gap in the calm")?;
    gaps.hand_overs.sort_unstable();
    Ok(gaps)
}
