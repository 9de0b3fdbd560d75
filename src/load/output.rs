//! A run's folder, and what is written there.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context as _, Result};
use hdrhistogram::Histogram;

use super::latency;
use super::result::RunResult;

/// Where folders of runs are made.
const FOLDER: &str = "load-results";

/// Makes the folder: the one that was asked for, or one of the run's name and time.
pub(super) fn folder(asked: Option<&Path>, name: &str) -> Result<PathBuf> {
    let time = humantime::format_rfc3339_seconds(SystemTime::now()).to_string().replace([':', '-'], "");
    let folder = asked.map_or_else(|| Path::new(FOLDER).join(format!("{name}-{time}")), Path::to_owned);
    std::fs::create_dir_all(&folder).with_context(|| format!("make the folder {}", folder.display()))?;
    Ok(folder)
}

/// Every file of a run with its content.
fn files(result: &RunResult, whole: &Histogram<u64>) -> Result<Vec<(&'static str, String)>> {
    Ok(vec![
        ("result.json", serde_json::to_string_pretty(result).context("write the result as JSON")? + "\n"),
        ("report.html", super::report::html(result)),
        ("latency.hgrm", latency::percentile_text(whole)),
    ])
}

pub(super) fn write(folder: &Path, result: &RunResult, whole: &Histogram<u64>) -> Result<()> {
    for (name, content) in files(result, whole)? {
        let file = folder.join(name);
        std::fs::write(&file, content).with_context(|| format!("write {}", file.display()))?;
    }
    Ok(())
}
