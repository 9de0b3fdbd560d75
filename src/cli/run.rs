//! `weir run`: a worker.

use std::process::ExitCode;

use anyhow::Context as _;
use tokio_util::sync::CancellationToken;

use crate::admin::{self, Health};
use crate::config::Config;
use crate::event::Document;
use crate::metrics::Metrics;
use crate::pool::{BuildError, Pool, Process};
use crate::store::Fault;
use crate::telemetry::traces::Traces;

/// How often a database that does not answer yet is asked.
const ASK_AGAIN: std::time::Duration = std::time::Duration::from_secs(1);

#[derive(Debug, clap::Args)]
#[command(after_help = super::examples!(
    "weir run",
    "weir run --config weir.toml --pool storage",
    "weir run --set health.listen=0.0.0.0:9464",
))]
pub(super) struct Args {
    /// Run only these pools; may be given more than once. Without it, all.
    #[arg(long = "pool", value_name = "NAME")]
    pools: Vec<String>,
}

/// Runs until SIGINT or SIGTERM. A pool that cannot go on ends the process.
pub(super) async fn run(args: Args, config: Config) -> anyhow::Result<ExitCode> {
    let names = super::pool_names(&args.pools, &config)?;
    let process = Process { metrics: Metrics::new(), health: Health::new(names.iter().map(String::as_str)) };
    let traces = Traces::start(&config.traces, &process.metrics)?;
    let shutdown = super::stop_signal(|| {})?;
    let (metrics, health) = (process.metrics.clone(), process.health.clone());
    let (_, admin) = admin::serve(config.health.listen, metrics, health, shutdown.clone()).await?;
    // Until the pools have ended: how a stop goes is worth seeing.
    let shown = CancellationToken::new();
    #[cfg(feature = "console")]
    let console = crate::console::Console::new(&config, &names, &process.metrics, &process.health);
    #[cfg(feature = "console")]
    console.serve(shown.clone()).await?;
    let mut running = tokio::task::JoinSet::new();
    for name in names {
        let (config, process, shutdown) = (config.clone(), process.clone(), shutdown.clone());
        let tracer = traces.tracer();
        #[cfg(feature = "console")]
        let console = console.clone();
        running.spawn(async move {
            let Some(pool) = build(&config, &name, &process, &shutdown).await? else { return anyhow::Ok(()) };
            #[cfg(feature = "console")]
            console.watch(&name, pool.standings());
            Ok(pool.traced(&tracer).run(shutdown).await?)
        });
    }
    let mut failure = None;
    while let Some(ended) = running.join_next().await {
        if let Err(error) = ended.context("a pool panicked").flatten() {
            shutdown.cancel();
            failure.get_or_insert(error);
        }
    }
    shutdown.cancel();
    shown.cancel();
    admin.await.ok();
    traces.stop().await;
    failure.map_or(Ok(ExitCode::SUCCESS), Err)
}

/// Makes a pool, waiting for a database that does not answer yet. `None`: told to stop before it did.
async fn build(
    config: &Config,
    name: &str,
    process: &Process,
    shutdown: &CancellationToken,
) -> Result<Option<Pool<Document>>, BuildError> {
    let health = process.health.pool(name);
    let mut told = false;
    loop {
        let built = tokio::select! {
            () = shutdown.cancelled() => return Ok(None),
            built = Pool::from_config(config, name, process) => built,
        };
        match built {
            Ok(pool) => return Ok(Some(pool)),
            Err(BuildError::Store(error)) if matches!(error.fault, Fault::Outage | Fault::Busy | Fault::TooSlow) => {
                health.waiting_for(Some(error.to_string()));
                if !told {
                    tracing::warn!(pool = name, "waiting for the database: {error}");
                    told = true;
                }
            }
            Err(error) => return Err(error),
        }
        health.polled_now();
        tokio::select! {
            () = shutdown.cancelled() => return Ok(None),
            () = tokio::time::sleep(ASK_AGAIN) => {}
        }
    }
}
