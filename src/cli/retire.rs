//! `weir retire`: a pipeline that no worker has any more.

use std::process::ExitCode;

use super::Usage;
use crate::config::Config;

/// Lets partitions go to workers without a pipeline that has begun on them
///
/// A worker does not take a partition on which a pipeline has begun that it lacks: in a deploy under way, what it settled
/// would be missing in that pipeline. Once the pipeline is taken out for good, and no worker has it any more, retire it.
/// Should it come back later, it begins where the ledger stands then.
#[derive(Debug, clap::Args)]
#[command(after_help = super::examples!("weir retire storage moderation", "weir retire storage   lists what has begun"))]
pub(super) struct Args {
    /// The pool that had it
    pool: String,
    /// The pipeline; without one, those that have begun are listed
    pipeline: Option<String>,
}

pub(super) async fn run(args: Args, config: Config) -> anyhow::Result<ExitCode> {
    let Args { pool, pipeline } = args;
    super::stored_pool_names(std::slice::from_ref(&pool), &config)?;
    let settings = &config.pools[&pool];
    let store = super::open_store(&config).await?;
    let group = settings.group_of(&pool);
    let begun = store.pipelines(group).await?;
    let listed = if begun.is_empty() { "none".to_owned() } else { begun.join(", ") };
    let Some(pipeline) = pipeline else {
        super::print(&format!("begun in pool {pool}: {listed}"))?;
        return Ok(ExitCode::SUCCESS);
    };
    if settings.pipelines.iter().any(|configured| configured.name == pipeline) {
        let problem =
            format!("pipeline {pipeline:?} is configured in pool {pool:?}: take it out, and deploy that, first");
        return Err(Usage(problem).into());
    }
    if !begun.contains(&pipeline) {
        return Err(Usage(format!("no pipeline {pipeline:?} has begun in pool {pool:?}; these have: {listed}")).into());
    }
    let partitions = store.retire(group, &pipeline).await?;
    super::print(&format!("pipeline {pipeline} of pool {pool} is retired on {partitions} partitions"))?;
    Ok(ExitCode::SUCCESS)
}
