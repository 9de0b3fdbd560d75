//! Events of a time range as compressed lines of JSON, for batch use. A reader of no group: no pool's position is touched.
//!
//! What is exported is settled by offsets when an export begins, and kept in its folder; every part is one partition's
//! records from one offset to another, written under another name until it is whole. So an export that was interrupted goes
//! on after its last whole part, and two runs of the same export leave the same lines.

mod line;
mod manifest;
mod part;

use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;
use tokio_util::sync::CancellationToken;

use self::manifest::{Manifest, Range};
use self::part::{Part, Parts};
use crate::config;
use crate::source::{LogError, LogReader, Span};

/// What is exported, and where to.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The topics.
    pub topics: Vec<String>,
    /// Records from then on, in milliseconds since 1970; without it, all that Kafka has.
    pub from_ms: Option<i64>,
    /// Records before then; without it, all there are when the export begins.
    pub to_ms: Option<i64>,
    /// The range in the caller's words, by which an interrupted export is known again.
    pub asked: String,
    /// The folder.
    pub folder: PathBuf,
    /// The most records of a part.
    pub part_records: u64,
}

/// What an export has come to.
#[derive(Debug, Default, Serialize)]
pub struct Summary {
    /// Records written by this run.
    pub records: u64,
    /// Parts written by this run.
    pub parts: u64,
    /// Bytes of these parts.
    pub bytes: u64,
    /// Records that earlier runs had written.
    pub before: u64,
    /// Offsets that Kafka had deleted before they could be read.
    pub missing: u64,
    /// Whether everything is there.
    pub is_complete: bool,
}

/// Why an export cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Kafka does not give the records.
    #[error(transparent)]
    Kafka(#[from] LogReadError),
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The folder does not fit what is asked for.
    #[error("{folder}: {problem}", folder = folder.display())]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// What is wrong and what to do.
        problem: String,
    },
}

/// What Kafka said.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct LogReadError(String);

impl From<LogError> for Error {
    fn from(error: LogError) -> Self {
        Self::Kafka(LogReadError(error.to_string()))
    }
}

impl Error {
    fn file(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { path, source }
    }
}

/// What an export tells while it runs.
#[derive(Debug, Clone, Copy)]
pub enum Progress {
    /// So many records are ahead.
    Ahead(u64),
    /// So many more were passed.
    Done(u64),
}

/// Exports, until everything is there or it is told to stop. Blocks its thread.
///
/// # Errors
/// Kafka or the folder; what was written until then stays, and the same call goes on from there.
pub fn run(
    kafka: &config::Kafka,
    plan: &Plan,
    patience: Duration,
    stop: &CancellationToken,
    mut progress: impl FnMut(Progress),
) -> Result<Summary, Error> {
    std::fs::create_dir_all(&plan.folder).map_err(Error::file(&plan.folder))?;
    let reader = LogReader::open(kafka, &plan.topics, patience)?;
    let manifest = Manifest::of(plan, &reader)?;
    let parts = Parts::find(&plan.folder)?;
    let mut summary = Summary::default();
    let mut left = Vec::new();
    for range in manifest.ranges() {
        let next = parts.end_of(&range);
        summary.before += (next - range.from).cast_unsigned();
        left.push(Range { from: next, ..range });
    }
    left.retain(|range| range.from < range.to);
    progress(Progress::Ahead(left.iter().map(|range| (range.to - range.from).cast_unsigned()).sum()));
    for range in &left {
        export(&reader, plan, range, stop, &mut summary, &mut progress)?;
        if stop.is_cancelled() {
            return Ok(summary);
        }
    }
    summary.is_complete = true;
    Ok(summary)
}

/// One partition's records, part by part.
fn export(
    reader: &LogReader,
    plan: &Plan,
    range: &Range,
    stop: &CancellationToken,
    summary: &mut Summary,
    progress: &mut impl FnMut(Progress),
) -> Result<(), Error> {
    let log = reader.partitions(&range.topic)?.into_iter().find(|log| log.partition == range.partition);
    let low = log.map_or(range.from, |log| log.low).clamp(range.from, range.to);
    summary.missing += (low - range.from).cast_unsigned();
    let mut part = Part::begin(&plan.folder, range, range.from)?;
    let (mut passed, mut failed) = (range.from, None);
    let span = Span { partition: range.partition, from: low, to: range.to };
    reader.read(&range.topic, &[span], |_, record| {
        if stop.is_cancelled() {
            return false;
        }
        let next = record.offset + 1;
        let written = part.write(&record).and_then(|()| {
            if part.records() >= plan.part_records {
                let whole = std::mem::replace(&mut part, Part::begin(&plan.folder, range, next)?);
                whole.finish(next, summary)?;
            }
            Ok(())
        });
        progress(Progress::Done((next - passed).cast_unsigned()));
        passed = next;
        failed = written.err();
        failed.is_none()
    })?;
    if let Some(error) = failed {
        return Err(error);
    }
    if stop.is_cancelled() {
        return part.abandon();
    }
    progress(Progress::Done((range.to - passed).cast_unsigned()));
    // What lies behind the last record is nothing that can be read: marks of transactions, or compacted away.
    part.finish(range.to, summary)
}
