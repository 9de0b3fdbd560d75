//! Redis away, emptied, slow and full: it saves work and is never believed.

use std::time::Duration;

use anyhow::Result;
use sqlx::AssertSqlSafe;

use crate::case::Case;
use crate::load::Mix;
use crate::proxy::Weather;
use crate::until;
use crate::worker::Worker;

use super::rates::rates;

const RATE_MIN: f64 = 0.7;
/// How much later the slowest hundredth may be settled while Redis is slow.
const P99_GROWTH_MAX_MS: f64 = 50.0;
const BREAKER_MAX: Duration = Duration::from_secs(1);

pub(super) async fn down(case: &mut Case<'_>) -> Result<()> {
    let rates = rates(case, 800_000, async |case, on| {
        let action = if on { "stop" } else { "start" };
        case.lab.service(action, "redis").await
    })
    .await?;
    case.check(rates.ratio() >= RATE_MIN, || format!("the rate fell to {rates}"));
    case.note(format!("the rate: {rates}"));
    case.recover().await
}

pub(super) async fn flushed(case: &mut Case<'_>) -> Result<()> {
    case.begin(2, Mix { repeats_per_mille: 200, ..Mix::default() }).await?;
    for _ in 0..20 {
        case.lab.redis(&["FLUSHALL"]).await?;
        let pause = case.rng.u64(200..800);
        case.sleep(Duration::from_millis(pause)).await;
    }
    case.fault_ends()?;
    case.recover().await
}

/// Left alone within a second; what is settled is hardly later.
pub(super) async fn slow(case: &mut Case<'_>) -> Result<()> {
    case.begin(2, Mix { per_second: 1_500, ..Mix::default() }).await?;
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        without.push(p99_ms(case).await?);
        case.lab.slots.iter().for_each(|slot| slot.redis.set(Weather::Slow(Duration::from_millis(500))));
        let opened =
            until("Redis to be left alone", BREAKER_MAX, async || Ok(case.workers.iter().all(is_left_alone))).await;
        with.push(p99_ms(case).await?);
        case.lab.clear();
        opened?;
        until("Redis to be asked again", Duration::from_secs(20), async || Ok(!case.workers.iter().any(is_left_alone)))
            .await?;
    }
    case.fault_ends()?;
    let median = |values: &mut Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let (without, with) = (median(&mut without), median(&mut with));
    case.check(with <= without + P99_GROWTH_MAX_MS, || {
        format!("the 99th percentile grew from {without:.0} to {with:.0} ms")
    });
    case.note(format!("99th percentile, medians of three windows: {without:.0} ms without, {with:.0} ms with"));
    case.recover().await
}

/// Whether a worker's log last said that Redis does not answer.
fn is_left_alone(worker: &Worker) -> bool {
    let log = worker.log();
    log.rfind("redis does not answer") > log.rfind("redis answers again")
}

/// From an event's sending to its transaction, over the events of the next seconds.
async fn p99_ms(case: &Case<'_>) -> Result<f64> {
    let now = "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint";
    let from = case.world.count(now).await?;
    case.sleep(Duration::from_secs(4)).await;
    let to = case.world.count(now).await?;
    let sql = format!(
        "SELECT percentile_cont(0.99) WITHIN GROUP (ORDER BY (extract(epoch FROM received_at) * 1000)::float8 - sent)
           FROM (SELECT received_at, split_part(content, ' ', 1)::bigint AS sent FROM messages) m
          WHERE sent >= {from} AND sent < {to}"
    );
    Ok(sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(case.world.db.postgres()).await?)
}

/// Writes are refused, look-ups are not.
pub(super) async fn full(case: &mut Case<'_>) -> Result<()> {
    case.begin(2, Mix::default()).await?;
    case.lab.redis(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]).await?;
    case.lab.redis(&["CONFIG", "SET", "maxmemory", "1"]).await?;
    case.sleep(Duration::from_secs(10)).await;
    let is_said = case.workers.iter().all(|worker| worker.log().contains("redis refuses a mark"));
    let unmarked = case.metric("weir_processed_set_unmarked_total", "");
    case.lab.redis(&["CONFIG", "SET", "maxmemory", "0"]).await?;
    case.fault_ends()?;
    case.check(is_said, || "a worker does not say that Redis refuses".to_owned());
    case.check(unmarked > 0.0, || "what Redis refused is not counted".to_owned());
    case.note(format!("{unmarked} ids that Redis did not take"));
    case.recover().await
}
