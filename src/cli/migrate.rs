//! `weir migrate`: the database schema.

use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context as _;

use crate::config::Config;
use crate::store::{self, Fault};

/// How often a database that does not answer yet is asked.
const ASK_AGAIN: std::time::Duration = std::time::Duration::from_secs(1);

#[derive(Debug, clap::Args)]
pub(super) struct Args {}

/// Brings the schema up to this release; safe to run again, and while workers of the previous release run.
pub(super) async fn run(_args: Args, config: Config) -> anyhow::Result<ExitCode> {
    let settings = config.store.as_ref().context("store.url is not set: say which database to migrate")?;
    let store = store::open(settings)?;
    let begun = Instant::now();
    let mut told = false;
    loop {
        match store.migrate().await {
            Ok(()) => break,
            Err(error) if error.fault == Fault::Outage && begun.elapsed() < config.startup_timeout => {
                if !told {
                    tracing::warn!(%error, "waiting for the database");
                    told = true;
                }
            }
            Err(error) => return Err(error).context("migrate the database"),
        }
        tokio::time::sleep(ASK_AGAIN).await;
    }
    super::print("the schema is up to date")?;
    Ok(ExitCode::SUCCESS)
}
