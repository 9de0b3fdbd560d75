//! The fault matrix: real services, the real binary, faults from a seed, and the promises held against what is found
//! from outside after each. `make faults` runs every row, `cargo test` a short loop of a few; docs/reliability.md.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "its report")]

mod audit;
mod case;
#[path = "../common/database.rs"]
mod database;
mod events;
mod gaps;
mod group;
mod lab;
mod load;
mod loops;
mod options;
mod proxy;
mod report;
mod rows;
mod selftest;
mod setting;
mod watch;
mod worker;
mod world;

use std::panic::AssertUnwindSafe;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use futures_util::FutureExt as _;

use self::case::Case;
use self::lab::Lab;
use self::options::Options;
use self::report::Outcome;
use self::rows::{Row, Run};
use self::setting::Setting;

/// Short, so that takeovers are quick.
pub(crate) const SESSION_TIMEOUT: Duration = Duration::from_secs(6);
/// How long one row may take before it is given up.
const ROW_MAX: Duration = Duration::from_secs(240);
/// The part of the usual waits in the short loop.
const SHORT: f64 = 0.4;

/// Waits until something is so.
pub(crate) async fn until(what: &str, patience: Duration, mut look: impl AsyncFnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + patience;
    loop {
        let looked = look().await;
        if matches!(looked, Ok(true)) {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(looked
                .err()
                .unwrap_or_else(|| anyhow!("it is not"))
                .context(format!("waited for {what}: not within {patience:.0?}")));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("faults: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run() -> Result<ExitCode> {
    let options = Options::parse(std::env::args().skip(1))?;
    if options.list {
        for row in rows::all() {
            println!("{:>3}  {}", row.number, row.fault);
        }
        return Ok(ExitCode::SUCCESS);
    }
    if options.filtered_out {
        return Ok(ExitCode::SUCCESS);
    }
    if !options.table.is_empty() {
        print!("{}", loops::table_of(&options.table)?);
        return Ok(ExitCode::SUCCESS);
    }
    let chosen = choose(&options)?;
    let scale = if options.all || !options.only.is_empty() { 1.0 } else { SHORT };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    if options.selftest {
        let sound = runtime.block_on(async {
            selftest::run(&Lab::start().await?, &options.only, options.seed.unwrap_or(1), SHORT).await
        });
        return Ok(if sound? { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    let outcomes = runtime.block_on(run_rows(&options, &chosen, scale))?;
    if options.loops > 1 {
        print!("{}", loops::table_in(report::json(&outcomes))?);
    }
    println!("{}", report::summary(&outcomes));
    Ok(if outcomes.iter().all(Outcome::is_passed) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The chosen rows, each under the settings that are asked for and that it says something under. Without a word about
/// them, rows run under the classic one, and in the whole matrix under all.
fn choose(options: &Options) -> Result<Vec<(Row, Setting)>> {
    let is_whole = options.all && options.only.is_empty();
    let asked = match &*options.settings {
        [] if is_whole => Setting::ALL.to_vec(),
        [] => vec![Setting::Classic],
        asked => asked.to_vec(),
    };
    let of = |row: Row| {
        let concerning: Vec<Setting> = asked.iter().copied().filter(|setting| setting.concerns(&row)).collect();
        concerning.into_iter().map(move |setting| (row, setting))
    };
    Ok(choose_rows(options)?.into_iter().flat_map(of).collect())
}

fn choose_rows(options: &Options) -> Result<Vec<Row>> {
    let mut rows = rows::all();
    for number in &options.only {
        ensure!(rows.iter().any(|row| row.number == *number), "there is no row {number}; --list tells");
    }
    if options.only.is_empty() {
        rows.retain(|row| options.all || row.is_quick);
    } else {
        rows.retain(|row| options.only.contains(&row.number));
    }
    Ok(rows)
}

async fn run_rows(options: &Options, rows: &[(Row, Setting)], scale: f64) -> Result<Vec<Outcome>> {
    let lab = Lab::start().await?;
    let first = options.seed.unwrap_or_else(|| if scale < 1.0 { 1 } else { fastrand::u64(1..10_000_000) });
    let mut outcomes = Vec::new();
    report::print_head();
    for round in 0..options.loops {
        for (row, setting) in rows {
            let outcome = Box::pin(run_row(&lab, (row, *setting), first + u64::from(round), scale, &[])).await;
            report::print(&outcome);
            outcomes.push(outcome);
            // After each, since ten loops take hours and may be stopped.
            if let Some(file) = &options.json {
                std::fs::write(file, format!("{:#}\n", report::json(&outcomes)))
                    .with_context(|| format!("cannot write {}", file.display()))?;
            }
        }
    }
    Ok(outcomes)
}

/// One run of one row under a setting; the workers have this in their environment.
async fn run_row(
    lab: &Lab,
    (row, setting): (&Row, Setting),
    seed: u64,
    scale: f64,
    env: &[(String, String)],
) -> Outcome {
    let begun = Instant::now();
    if let Some(why) = row.prevented.and_then(|prevented| prevented()) {
        return Outcome::not_run((row.number, setting), row.fault, seed, why);
    }
    let mut case = match Case::new(lab, row, setting, seed, scale).await {
        Ok(case) => case,
        Err(error) => return Outcome::not_run((row.number, setting), row.fault, seed, format!("{error:#}")),
    };
    case.worker_env.extend_from_slice(env);
    let run: Run = row.run;
    let ran = AssertUnwindSafe(tokio::time::timeout(ROW_MAX, run(&mut case))).catch_unwind().await;
    let ran = match ran {
        Ok(Ok(ran)) => ran,
        Ok(Err(_)) => Err(anyhow!("it was given up after {ROW_MAX:?}")),
        Err(_) => Err(anyhow!("the harness panicked; see above")),
    };
    // A row that failed may have left a service down.
    for name in ["kafka", setting.database(), "redis"] {
        if let Err(error) = lab.service("start", name).await {
            case.findings.push(format!("{error:#}"));
        }
    }
    Box::pin(case.finish(row, seed, ran, begun)).await
}
