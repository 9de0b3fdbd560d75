//! `weir load report`: a page of one run, or of several beside each other.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;

use crate::cli::shown::safe;
use crate::cli::{Usage, examples, print};
use crate::load::report::{self, Comparison, FIGURES};
use crate::load::result::RunResult;

/// More runs than these cannot be told apart in a plot.
const RUNS_MAX: usize = 8;
const PAGE_FILE: &str = "report.html";
const COMPARISON_FILE: &str = "comparison.html";

/// Makes a page of a run, or of several beside each other
///
/// One run: writes report.html beside its result.json, and prints a summary. Several: writes comparison.html into the
/// current folder, and prints the figures with their ratios to the first run, and what differs between plans, hosts and
/// versions. A page is one file that needs no network. The exit code tells whether there is a report, not whether the
/// run passed.
#[derive(Debug, clap::Args)]
#[command(after_help = examples!(
    "weir load report runs/burst",
    "weir load report runs/before runs/after --out before-after.html",
    "weir load report runs/before/result.json runs/after/result.json --json",
))]
pub(in crate::cli) struct Args {
    /// A result.json, or the folder that holds it
    #[arg(required = true, value_name = "RESULT")]
    results: Vec<PathBuf>,
    /// Where the page goes
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Print figures, ratios and differences as one JSON object; a page is written only with --out
    #[arg(long)]
    json: bool,
}

pub(in crate::cli) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    if args.results.len() > RUNS_MAX {
        let problem = format!("{} runs are too many for one comparison: name {RUNS_MAX} at most", args.results.len());
        return Err(Usage(problem).into());
    }
    let read = args.results.iter().map(|path| report::read(path)).collect::<Result<Vec<_>, _>>()?;
    let beside = match &read[..] {
        [(file, _)] => file.with_file_name(PAGE_FILE),
        _ => PathBuf::from(COMPARISON_FILE),
    };
    let out = args.out.clone().or_else(|| (!args.json).then_some(beside));
    if let Some(out) = out.as_deref().filter(|out| read.iter().any(|(file, _)| is_same(file, out))) {
        return Err(Usage(format!("--out {} is a result, which the page would overwrite", out.display())).into());
    }
    let comparison = Comparison::of(read.into_iter().map(|(file, run)| (file.display().to_string(), run)).collect());
    if let Some(out) = &out {
        write(out, &comparison)?;
    }
    let text = if args.json { comparison.json().to_string() } else { summary(&comparison, out.as_deref()) };
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn is_same(file: &Path, other: &Path) -> bool {
    file.canonicalize().ok().zip(other.canonicalize().ok()).is_some_and(|(file, other)| file == other)
}

fn write(out: &Path, comparison: &Comparison) -> anyhow::Result<()> {
    let page = match &comparison.runs[..] {
        [only] => report::html(&only.run),
        _ => comparison.html(),
    };
    std::fs::write(out, page)
        .with_context(|| format!("cannot write the page to {}; --out names another place", out.display()))
}

fn summary(comparison: &Comparison, out: Option<&Path>) -> String {
    let mut lines: Vec<String> = Vec::new();
    match &comparison.runs[..] {
        [only] => lines.extend(verdicts(&only.run)),
        several => {
            for run in several {
                let outcome = if run.run.is_passed() { "passed" } else { "failed" };
                lines.push(format!("{}, {outcome}, {}", safe(&run.label()), safe(&run.source)));
            }
        }
    }
    lines.push(String::new());
    lines.extend(table(comparison));
    if !comparison.differences.is_empty() {
        lines.push("\nnot comparable as they stand; what differs from the first:".to_owned());
    }
    for difference in &comparison.differences {
        let [what, run, first, there] =
            [&difference.what, &difference.run, &difference.first, &difference.there].map(|text| safe(text));
        lines.push(format!("  {what}: {there} in {run}, {first} in the first"));
    }
    lines.extend(out.map(|out| format!("\nreport: {}", out.display())));
    lines.join("\n")
}

fn verdicts(run: &RunResult) -> Vec<String> {
    let failed = run.verdicts.iter().filter(|verdict| !verdict.passed).count();
    let outcome = match (run.verdicts.len(), failed) {
        (0, _) => "nothing was asked for".to_owned(),
        (all, 0) => format!("passed, {all} verdicts"),
        (all, failed) => format!("failed, {failed} of {all} verdicts"),
    };
    let mut lines = vec![format!("{}: {outcome}", safe(&run.name))];
    for verdict in &run.verdicts {
        let word = if verdict.passed { "passed" } else { "FAILED" };
        let [name, asked, found] = [&verdict.name, &verdict.asked, &verdict.found].map(|text| safe(text));
        lines.push(format!("  {word}  {name}: asked {asked}, found {found}"));
    }
    lines
}

/// The figures, a column a run.
fn table(comparison: &Comparison) -> Vec<String> {
    let width = FIGURES.iter().map(|figure| figure.label.len()).max().unwrap_or(0);
    let row = |label: &str, cells: Vec<String>| {
        let cells: String = cells.iter().map(|cell| format!("  {cell:>20}")).collect();
        format!("{label:width$}{cells}")
    };
    let mut lines = Vec::new();
    if comparison.runs.len() > 1 {
        lines.push(row("", comparison.runs.iter().map(|run| run.letter.to_string()).collect()));
    }
    for figure in FIGURES {
        lines.push(row(figure.label, comparison.runs.iter().map(|run| run.cell(&figure)).collect()));
    }
    lines
}
