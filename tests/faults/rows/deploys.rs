//! Releases side by side.

use std::time::Duration;

use anyhow::Result;

use crate::case::{Case, RECOVERY_MAX};
use crate::load::Mix;
use crate::until;

/// A deploy that adds a pipeline: new workers come and go, so that partitions go back and forth between old and new
/// ones, before all are new. What is counted from each partition's begin on is held by the audit. An event has one place
/// here, so that it is on one side of the begin.
pub(super) async fn pipeline_added(case: &mut Case<'_>) -> Result<()> {
    case.is_old_release = true;
    case.begin(2, Mix { repeats_per_mille: 0, ..Mix::default() }).await?;
    case.is_old_release = false;
    case.fault_begins()?;
    let visits = if case.scale < 1.0 { 1 } else { 3 };
    for _ in 0..visits {
        case.start_worker(2).await?;
        until("the pipeline to have begun", RECOVERY_MAX, async || Ok(begun(case).await? > 0)).await?;
        let pause = Duration::from_millis(case.rng.u64(500..4_000));
        case.sleep(pause).await;
        case.stop_worker(2).await?;
        until(
            "an old worker to leave partitions alone",
            RECOVERY_MAX,
            async || Ok(case.metric("weir_holds", "") > 0.0),
        )
        .await?;
    }
    let left_alone = case.metric("weir_holds", "");
    case.start_worker(2).await?;
    for _ in 0..2 {
        let slot = case.workers[0].slot;
        case.stop_worker(0).await?;
        case.start_worker(slot).await?;
    }
    case.fault_ends()?;
    case.recover().await?;
    let (begun, partitions) = (begun(case).await?, i64::from(case.world.partitions));
    case.check(begun == partitions, || {
        format!("the pipeline began in the middle of {begun} of {partitions} partitions")
    });
    case.note(format!("{visits} visits; old workers left up to {left_alone} partitions alone"));
    Ok(())
}

/// On how many partitions the pipeline has begun behind the first offset.
async fn begun(case: &Case<'_>) -> Result<i64> {
    case.world.count("SELECT count(*) FROM weir_pipelines WHERE pipeline = 'stats' AND begin_offset > 0").await
}
