//! The command line: parse, boot once, delegate to one file a subcommand.
//!
//! Exit codes: 0 on success, 1 on failure, 2 on bad usage or configuration.

mod check;
mod completions;
mod control;
mod dead;
#[cfg(feature = "demo")]
mod demo;
mod export;
mod lag;
#[cfg(feature = "load")]
mod load;
mod man;
mod metrics;
mod migrate;
mod pause;
mod publish;
mod rate;
mod reference;
mod resume;
mod retire;
mod run;
mod seek;
#[cfg(feature = "console")]
mod top;
mod verify;
mod version;
mod why;

use std::ffi::OsString;
use std::io::{ErrorKind, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use tokio_util::sync::CancellationToken;

use crate::config::{self, Config};
use crate::handler::moderation_problems;
use crate::pool::BuildError;
use crate::rules;
use crate::shown;
use crate::store::{self, Fault};
use crate::telemetry;

/// Examples for the end of a help text.
macro_rules! examples {
    ($($example:literal),+ $(,)?) => {
        concat!("Examples:", $("\n  ", $example),+)
    };
}
use examples;

/// How long what still runs may take once a command has ended.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(2);
/// The exit code of bad usage and bad configuration; clap's own is the same.
const BAD_USAGE: u8 = 2;

/// A worker pool for Kafka: events in order, one effect each, whatever dies on the way.
#[derive(Debug, Parser)]
#[command(name = "weir", version, long_version = version::FACTS.as_str())]
#[command(after_help = examples!(
    "weir check --config weir.toml",
    "weir migrate && weir run",
    "weir publish --topic message-events events.ndjson",
    "weir <COMMAND> --help shows more",
))]
struct Cli {
    /// A configuration file; a later one goes over an earlier one [default: config/weir.toml, if it exists]
    #[arg(long, global = true, value_name = "FILE")]
    config: Vec<PathBuf>,
    /// A setting, such as pools.storage.max_poll_records=200; goes over files and WEIR__… variables
    #[arg(long, global = true, value_name = "KEY=VALUE")]
    set: Vec<String>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Check(check::Args),
    Completions(completions::Args),
    Config(reference::Args),
    Dead(dead::Args),
    #[cfg(feature = "demo")]
    Demo(demo::Args),
    Export(export::Args),
    Lag(lag::Args),
    #[cfg(feature = "load")]
    Load(load::Args),
    Man(man::Args),
    Metrics(metrics::Args),
    /// Brings the database's schema up to this release
    Migrate(migrate::Args),
    Pause(pause::Args),
    Publish(publish::Args),
    Rate(rate::Args),
    Resume(resume::Args),
    Retire(retire::Args),
    /// Runs pools until it is told to stop
    Run(run::Args),
    Seek(seek::Args),
    #[cfg(feature = "console")]
    Top(top::Args),
    Verify(verify::Args),
    Why(why::Args),
}

/// A command that was asked for what does not exist: the message says what does.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Usage(pub(crate) String);

/// Parses the command line, runs the command and returns its exit code.
pub fn main() -> ExitCode {
    let cli = Cli::parse_from(in_order(std::env::args_os().collect()));
    boot(cli).unwrap_or_else(|error| {
        // A closed standard error leaves nobody to tell.
        writeln!(std::io::stderr(), "error: {}", told(&error)).ok();
        exit_code(&error)
    })
}

/// Puts `--config` and `--set` behind the command that they stand before: clap forgets those before it when there are
/// more behind it.
fn in_order(args: Vec<OsString>) -> Vec<OsString> {
    let mut at = 1;
    while let Some(arg) = args.get(at).and_then(|arg| arg.to_str()) {
        match arg.split_once('=').map_or((arg, false), |(name, _)| (name, true)) {
            ("--config" | "--set", true) => at += 1,
            ("--config" | "--set", false) => at += 2,
            _ => break,
        }
    }
    match args.get(at) {
        Some(command) if !command.to_string_lossy().starts_with('-') && command != "help" => {
            [&args[..1], &args[at..=at], &args[1..at], &args[at + 1..]].concat()
        }
        _ => args,
    }
}

fn boot(cli: Cli) -> anyhow::Result<ExitCode> {
    #[cfg(feature = "demo")]
    if let Command::Demo(args) = cli.command {
        return show(args, &cli.config, &cli.set);
    }
    // A report is made of files alone: a configuration that is wrong, or missing, is none of its business.
    #[cfg(feature = "load")]
    if let Command::Load(args) = &cli.command
        && let Some(args) = args.report()
    {
        if !cli.config.is_empty() || !cli.set.is_empty() {
            let problem = "a report is made of results alone: leave --config and --set out";
            return Err(Usage(problem.to_owned()).into());
        }
        return load::report(args);
    }
    // The same for all configurations, and needed where there is none.
    match &cli.command {
        Command::Metrics(args) => return metrics::run(args),
        Command::Config(args) => return reference::run(args),
        Command::Completions(args) => return completions::run(args),
        Command::Man(args) => return man::run(args),
        _ => {}
    }
    let config = Config::load(&cli.config, &cli.set)?;
    let problems = store::problems(config.store.as_ref());
    if !problems.is_empty() {
        return Err(config::Error::Invalid(problems).into());
    }
    telemetry::init(&config.log, None)?;
    with_runtime(async {
        match cli.command {
            #[cfg(feature = "demo")]
            Command::Demo(_) => unreachable!("it has run"),
            Command::Check(args) => check::run(&args, &with_rules(config)?),
            Command::Completions(_) | Command::Config(_) | Command::Man(_) | Command::Metrics(_) => {
                unreachable!("it has run")
            }
            Command::Dead(args) => dead::run(args, config).await,
            Command::Export(args) => export::run(args, config).await,
            Command::Lag(args) => lag::run(args, config).await,
            #[cfg(feature = "load")]
            Command::Load(args) => {
                load::run(args, config, crate::load::Called { config: cli.config, set: cli.set }).await
            }
            Command::Migrate(args) => migrate::run(args, config).await,
            Command::Pause(args) => pause::run(args, config).await,
            Command::Publish(args) => publish::run(args, &config).await,
            Command::Rate(args) => rate::run(args, config).await,
            Command::Resume(args) => resume::run(args, config).await,
            Command::Retire(args) => retire::run(args, config).await,
            Command::Run(args) => run::run(args, with_rules(config)?).await,
            Command::Seek(args) => seek::run(args, config).await,
            #[cfg(feature = "console")]
            Command::Top(args) => top::run(args, &config).await,
            Command::Verify(args) => verify::run(args, config).await,
            Command::Why(args) => why::run(args, config).await,
        }
    })
}

/// Conditions, what they ask, and the lists of moderation are looked at before any service is.
fn with_rules(config: Config) -> Result<Config, config::Error> {
    let mut problems = rules::problems(&config);
    problems.extend(moderation_problems(&config));
    if problems.is_empty() { Ok(config) } else { Err(config::Error::Invalid(problems)) }
}

/// The demo makes its own configuration. While it has the terminal, the log is held back.
#[cfg(feature = "demo")]
fn show(args: demo::Args, files: &[PathBuf], sets: &[String]) -> anyhow::Result<ExitCode> {
    if !files.is_empty() || !sets.is_empty() {
        let problem = "the demo makes its own configuration: leave --config and --set out; see `weir demo --help`";
        return Err(Usage(problem.to_owned()).into());
    }
    let view = args.view();
    let held = view.is_live().then(telemetry::HeldLog::default);
    let log = config::Log { level: "warn".to_owned(), ..config::Log::default() };
    telemetry::init(&log, held.clone())?;
    let done = with_runtime(demo::run(args, view, held.clone()));
    if let Some(held) = held {
        held.release();
    }
    done
}

fn with_runtime(command: impl Future<Output = anyhow::Result<ExitCode>>) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Runtime::new().context("start the runtime")?;
    let done = runtime.block_on(command);
    // A call that blocks its thread, such as one to a broker that is away, is not waited for.
    runtime.shutdown_timeout(SHUTDOWN_TIMEOUT);
    done
}

/// An error and its causes, without what the error itself has told of them.
fn told(error: &anyhow::Error) -> String {
    error.chain().skip(1).fold(error.to_string(), |told, cause| {
        let cause = cause.to_string();
        if told.contains(&cause) { told } else { format!("{told}: {cause}") }
    })
}

fn exit_code(error: &anyhow::Error) -> ExitCode {
    let is_bad_usage = error.chain().any(|cause| {
        let build = cause.downcast_ref::<BuildError>();
        let store = cause.downcast_ref::<store::Error>().or(match build {
            Some(BuildError::Store(error)) => Some(error),
            _ => match cause.downcast_ref() {
                Some(crate::verify::Error::Store(error)) => Some(error),
                _ => None,
            },
        });
        cause.is::<Usage>()
            || store.is_some_and(|error| error.fault == Fault::Fatal)
            || is_bad_plan(cause)
            || cause.is::<config::Error>()
            || cause.is::<telemetry::Error>()
            || cause.is::<telemetry::traces::Error>()
            || build.is_some_and(|error| !matches!(error, BuildError::Store(_)))
    });
    if is_bad_usage { ExitCode::from(BAD_USAGE) } else { ExitCode::FAILURE }
}

#[cfg(feature = "load")]
fn is_bad_plan(cause: &(dyn std::error::Error + 'static)) -> bool {
    cause.is::<crate::load::PlanError>()
}

#[cfg(not(feature = "load"))]
fn is_bad_plan(_: &(dyn std::error::Error + 'static)) -> bool {
    false
}

/// The pools to work on: all that are configured, or those that were asked for.
fn pool_names(only: &[String], config: &Config) -> anyhow::Result<Vec<String>> {
    if config.pools.is_empty() {
        let problem = "no pool is configured: name a file with a section [pools.<name>] by --config";
        return Err(Usage(problem.to_owned()).into());
    }
    if only.is_empty() {
        return Ok(config.pools.keys().cloned().collect());
    }
    let mut names: Vec<String> = Vec::with_capacity(only.len());
    for name in only {
        if !config.pools.contains_key(name) {
            let known: Vec<&str> = config.pools.keys().map(String::as_str).collect();
            let advice = match config::nearest(name, known.iter().copied()) {
                Some(nearest) => format!("did you mean {nearest:?}? Known are {}", known.join(", ")),
                None => format!("known are {}", known.join(", ")),
            };
            return Err(Usage(format!("there is no pool {name:?}: {advice}")).into());
        }
        if !names.contains(name) {
            names.push(name.clone());
        }
    }
    Ok(names)
}

/// The same, for what looks into the database: pools without a store are left out, and refused where they are named.
fn stored_pool_names(only: &[String], config: &Config) -> anyhow::Result<Vec<String>> {
    let (stored, unstored): (Vec<_>, Vec<_>) =
        pool_names(only, config)?.into_iter().partition(|name| config.pools[name].needs_store());
    if stored.is_empty() || (!only.is_empty() && !unstored.is_empty()) {
        let problem = "has no store, and so no rows, dead rows or ledger: its position is the group's in Kafka, and rejected \
                       events are on its dead-letter topic";
        return Err(Usage(format!("pool {:?} {problem}", unstored.join(", "))).into());
    }
    Ok(stored)
}

/// The pool to work on: the one that is named, or the only one there is.
fn one_pool(name: Option<&str>, config: &Config) -> anyhow::Result<String> {
    let named: Vec<String> = name.map(str::to_owned).into_iter().collect();
    match <[String; 1]>::try_from(stored_pool_names(&named, config)?) {
        Ok([pool]) => Ok(pool),
        Err(pools) => Err(Usage(format!("there are several pools: name one of {}", pools.join(", "))).into()),
    }
}

/// The database of the pools, once it answers and has weir's tables.
async fn open_store(config: &Config) -> anyhow::Result<std::sync::Arc<dyn store::Store>> {
    let Some(settings) = config.store.as_ref() else {
        return Err(Usage("`store.url` is not set: say which database the pools write to".to_owned()).into());
    };
    let store = store::open(settings)?;
    store::await_answer(&*store, config.startup_timeout).await?;
    store.check().await?;
    Ok(store)
}

/// Cancelled by the first SIGINT or SIGTERM; a second one ends the process at once, after what must be done even then.
fn stop_signal(even_then: fn()) -> anyhow::Result<CancellationToken> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let shutdown = CancellationToken::new();
    let token = shutdown.clone();
    tokio::spawn(async move {
        for first in [true, false] {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if first {
                tracing::info!("stopping: finishing the batches in hand; a second signal ends at once");
                token.cancel();
            }
        }
        even_then();
        std::process::exit(1);
    });
    Ok(shutdown)
}

/// Prints a command's answer. A reader that has seen enough and closed the pipe is no failure.
fn print(text: &str) -> anyhow::Result<()> {
    match writeln!(std::io::stdout(), "{text}") {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error).context("write to standard output"),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_before_the_command_are_kept_beside_those_behind_it() {
        let parsed = |line: &str| {
            let cli = Cli::try_parse_from(in_order(line.split(' ').map(OsString::from).collect())).unwrap();
            (cli.config, cli.set)
        };
        let (config, set) = parsed("weir --config a --set=x=1 check --config b --set y=2");
        assert_eq!(config, [PathBuf::from("a"), PathBuf::from("b")]);
        assert_eq!(set, ["x=1", "y=2"]);
        assert_eq!(parsed("weir --set x=1 run").1, ["x=1"]);
        for line in ["weir", "weir --set", "weir --config a --help"] {
            let args: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            assert_eq!(in_order(args.clone()), args);
        }
    }
}
