//! A harness that cannot fail proves nothing: each deliberate bug must fail the row that is there for it, by the finding
//! that names it, and the same row must pass without.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use weir::sabotage::{Bug, CHOICE};

use super::lab::Lab;
use super::report::Outcome;
use super::setting::Setting;
use super::{report, rows, run_row};

/// What a bug's row must say of it.
struct Caught {
    bug: Bug,
    row: u32,
    finding: &'static str,
}

const CAUGHT: [Caught; 8] = [
    Caught { bug: Bug::CommitBeforeWork, row: 27, finding: "is ahead of the ledger" },
    Caught { bug: Bug::MarkBeforeCommit, row: 28, finding: "the processed set knew what the database did not have" },
    Caught { bug: Bug::NoFence, row: 3, finding: "the zombie wrote" },
    Caught { bug: Bug::KafkaOverLedger, row: 26, finding: "acknowledged, and without a row" },
    Caught { bug: Bug::UnjoinedSplit, row: 20, finding: "fences were met" },
    Caught { bug: Bug::UnverifiedSkip, row: 26, finding: "acknowledged, and without a row" },
    Caught { bug: Bug::NoCommitProbe, row: 3, finding: "the zombie claimed" },
    Caught { bug: Bug::OwnTransaction, row: 9, finding: "counters differ from a recount" },
];

/// Runs each row that is needed without a bug, and each bug in its row; of these rows only, if there are any. Whether all
/// of it is as it must be.
pub(super) async fn run(lab: &Lab, only: &[u32], seed: u64, scale: f64) -> Result<bool> {
    ensure!(cfg!(feature = "sabotage"), "this build has no deliberate bugs: run `make faults-selftest`");
    let rows: BTreeMap<u32, rows::Row> = rows::all().into_iter().map(|row| (row.number, row)).collect();
    let mut is_sound = true;
    println!("without a bug");
    report::print_head();
    let chosen: Vec<&Caught> = CAUGHT.iter().filter(|caught| only.is_empty() || only.contains(&caught.row)).collect();
    for (_, row) in rows.iter().filter(|(number, _)| chosen.iter().any(|caught| caught.row == **number)) {
        let outcome = Box::pin(run_row(lab, (row, Setting::Classic), seed, scale, &[])).await;
        report::print(&outcome);
        is_sound &= outcome.is_passed();
    }
    let mut table = vec![format!("{:<20} {:>3}  {:<8} {}", "deliberate bug", "row", "caught", "by")];
    for Caught { bug, row, finding } in chosen {
        println!("with {}", bug.name());
        let env = [(CHOICE.to_owned(), bug.name().to_owned())];
        let outcome = Box::pin(run_row(lab, (&rows[row], Setting::Classic), seed, scale, &env)).await;
        report::print(&outcome);
        let by = found(&outcome, finding);
        is_sound &= by.is_some();
        let (caught, by) = by.map_or(("NO", format!("nothing that says {finding:?}")), |by| ("yes", by));
        table.push(format!("{:<20} {row:>3}  {caught:<8} {by}", bug.name()));
    }
    println!("\n{}", table.join("\n"));
    Ok(is_sound)
}

fn found(outcome: &Outcome, finding: &str) -> Option<String> {
    let found = outcome.findings.iter().find(|found| found.contains(finding))?;
    Some(found.lines().next().unwrap_or_default().to_owned())
}
