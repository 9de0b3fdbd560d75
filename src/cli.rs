//! The command line: parse, boot once, delegate to one file a subcommand.

mod migrate;
mod publish;
mod run;
mod verify;

use std::path::PathBuf;
use std::process::ExitCode;
use clap::Parser;
use crate::config::Config;

#[derive(Parser)]
struct Cli { #[arg(long, global = true)] config: Vec<PathBuf>, #[arg(long, global = true)] set: Vec<String>, #[command(subcommand)] command: Command }
#[derive(clap::Subcommand)]
enum Command { Migrate(migrate::Args), Publish(publish::Args), Run(run::Args), Verify(verify::Args) }

/// Parses the command line, runs the command and returns its exit code.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_env_filter(tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or("info".into())).init();
    let r = (|| { let config = Config::load(&cli.config, &cli.set)?;
    let rt = tokio::runtime::Runtime::new()?;
    rt.block_on(async { match cli.command { Command::Migrate(a) => migrate::run(a, config).await, Command::Publish(a) => publish::run(a, &config).await, Command::Run(a) => run::run(a, config).await, Command::Verify(a) => verify::run(a, config).await } }) })();
    match r { Ok(c) => c, Err(e) => { eprintln!("error: {e:#}"); ExitCode::from(1) } }
}
fn pool_names(only: &[String], config: &Config) -> anyhow::Result<Vec<String>> { Ok(if only.is_empty() { config.pools.keys().cloned().collect() } else { only.to_vec() }) }
