//! `weir migrate`: the database schema.

use std::process::ExitCode;

use super::Usage;
use crate::config::Config;
use crate::store;

#[derive(Debug, clap::Args)]
#[command(after_help = super::examples!("weir migrate", "weir migrate --set store.url_file=/run/secrets/postgres"))]
pub(super) struct Args {}

/// Brings the schema up to this release; safe to run again, and while workers of the previous release run.
pub(super) async fn run(_args: Args, config: Config) -> anyhow::Result<ExitCode> {
    let Some(settings) = config.store.as_ref() else {
        return Err(Usage("`store.url` is not set: say which database to migrate".to_owned()).into());
    };
    let store = store::open(settings)?;
    store::await_answer(&*store, config.startup_timeout).await?;
    store.migrate().await?;
    super::print("the schema is up to date")?;
    Ok(ExitCode::SUCCESS)
}
