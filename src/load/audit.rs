//! What became of the run's events, by the auditor: Kafka and the database are read whole from the run's begin on, and
//! only this run's ids are looked at. Beyond what the auditor compares, every acknowledged id must be in Kafka.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::generator::Shared;
use crate::config::Config;
use crate::verify::{self, Scope};

/// Records may have an earlier time stamp than the run's begin where clocks differ a little.
const BEFORE: Duration = Duration::from_secs(5);

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Audited {
    pub(super) effects: u64,
    pub(super) dead: u64,
    /// Acknowledged ids that Kafka has not, and ids that were passed and left nothing.
    pub(super) lost: u64,
    pub(super) repeated: u64,
    /// `None`: the pool's table does not say when its rows came.
    pub(super) out_of_order: Option<u64>,
    /// `None`: the pool counts nothing.
    pub(super) counters_wrong: Option<u64>,
    /// Ids that the pool has not come to.
    pub(super) pending: u64,
    /// The first of each kind, with their places.
    pub(super) named: Vec<String>,
}

/// Audits a run whose sending is over.
pub(super) async fn run(config: &Config, pool: &str, shared: &Arc<Shared>) -> Result<Audited> {
    let begin = shared.clock.begun_at.checked_sub(BEFORE).unwrap_or(shared.clock.begun_at);
    let since = begin.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let asked = Arc::clone(shared);
    let wanted = move |id: &str| match asked.events.number(id) {
        Some(event) => {
            // It is in Kafka. What is left in the end is not.
            asked.flow.stored.clear(event);
            true
        }
        None => false,
    };
    let scope = Scope {
        pools: vec![pool.to_owned()],
        since_ms: i64::try_from(since.as_millis()).ok(),
        wanted: Some(Arc::new(wanted)),
    };
    let report = verify::run(config.clone(), scope, Box::new(|_| ())).await.context("audit the run")?;
    let found = report.pools.get(pool).context("audit the run: the pool is not in the report")?;
    let missing = shared.flow.stored.count();
    let kinds =
        [("lost", &found.lost_ids), ("repeated", &found.repeated_ids), ("out of order", &found.out_of_order_ids)];
    let mut named: Vec<String> =
        kinds.iter().flat_map(|(kind, ids)| ids.iter().map(move |id| format!("{kind}: {id}"))).collect();
    named.extend(found.wrong_counters.iter().map(|counter| format!("counter: {counter}")));
    if missing > 0 {
        named.push(format!("lost: {missing} acknowledged events are not in Kafka"));
    }
    Ok(Audited {
        effects: found.persisted,
        dead: found.dead_lettered,
        lost: found.lost + missing,
        repeated: found.repeated,
        out_of_order: (found.order_compared > 0).then_some(found.out_of_order),
        counters_wrong: (found.counters_compared > 0).then_some(found.counters_wrong),
        pending: found.pending,
        named,
    })
}
