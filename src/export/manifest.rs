//! What an export consists of, settled when it begins and kept beside its parts.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Error, Plan};
use crate::source::LogReader;

const FILE: &str = "export.json";
const VERSION: u32 = 1;

/// Offsets of a partition: from one to before another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) topic: String,
    pub(super) partition: i32,
    pub(super) from: i64,
    pub(super) to: i64,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Manifest {
    version: u32,
    /// The range in the caller's words.
    asked: String,
    from_ms: Option<i64>,
    to_ms: Option<i64>,
    topics: Vec<Topic>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Topic {
    name: String,
    /// A topic made again under the name is another one.
    id: Uuid,
    partitions: Vec<Offsets>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Offsets {
    partition: i32,
    from: i64,
    /// The first offset that is left out.
    to: i64,
}

impl Manifest {
    /// The folder's own, or a new one.
    pub(super) fn of(plan: &Plan, reader: &LogReader) -> Result<Self, Error> {
        let file = plan.folder.join(FILE);
        match fs::read(&file) {
            Ok(bytes) => Self::kept(&bytes, plan, reader),
            Err(error) if error.kind() == ErrorKind::NotFound => Self::begin(plan, reader, &file),
            Err(error) => Err(Error::file(file)(error)),
        }
    }

    fn kept(bytes: &[u8], plan: &Plan, reader: &LogReader) -> Result<Self, Error> {
        let wrong = |problem: String| Error::Folder { folder: plan.folder.clone(), problem };
        let kept: Self = serde_json::from_slice(bytes)
            .map_err(|error| wrong(format!("{FILE} is not one of an export ({error}): name another folder")))?;
        let names: Vec<&str> = kept.topics.iter().map(|topic| topic.name.as_str()).collect();
        if kept.version != VERSION || kept.asked != plan.asked || names != plan.topics {
            let asked = format!("{} of {}", kept.asked, names.join(", "));
            return Err(wrong(format!("it holds another export ({asked}): ask for the same, or name another folder")));
        }
        for topic in &kept.topics {
            if reader.topic_id(&topic.name)? != topic.id {
                let problem = format!(
                    "topic {} was deleted and made again since the export began: begin anew in another folder",
                    topic.name
                );
                return Err(wrong(problem));
            }
        }
        Ok(kept)
    }

    fn begin(plan: &Plan, reader: &LogReader, file: &Path) -> Result<Self, Error> {
        let topics = plan.topics.iter().map(|name| Topic::begin(name, plan, reader)).collect::<Result<_, _>>()?;
        let Plan { asked, from_ms, to_ms, .. } = plan.clone();
        let manifest = Self { version: VERSION, asked, from_ms, to_ms, topics };
        let mut bytes = serde_json::to_vec_pretty(&manifest).expect("a manifest has a JSON form");
        bytes.push(b'\n');
        let unfinished = file.with_extension("json.part");
        fs::write(&unfinished, bytes).map_err(Error::file(&unfinished))?;
        fs::rename(&unfinished, file).map_err(Error::file(file))?;
        Ok(manifest)
    }

    pub(super) fn ranges(&self) -> impl Iterator<Item = Range> {
        self.topics.iter().flat_map(|topic| {
            topic.partitions.iter().map(|offsets| Range {
                topic: topic.name.clone(),
                partition: offsets.partition,
                from: offsets.from,
                to: offsets.to,
            })
        })
    }
}

impl Topic {
    fn begin(name: &str, plan: &Plan, reader: &LogReader) -> Result<Self, Error> {
        let logs = reader.partitions(name)?;
        if logs.is_empty() {
            let problem = format!("there is no topic {name}: correct its name, or create it");
            return Err(Error::Folder { folder: plan.folder.clone(), problem });
        }
        let at = |ms: Option<i64>| ms.map(|ms| reader.offsets_at(name, &logs, ms)).transpose();
        let (from, to) = (at(plan.from_ms)?, at(plan.to_ms)?);
        let offsets = logs.iter().enumerate().map(|(at, log)| {
            let from = from.as_ref().map_or(log.low, |from| from[at].clamp(log.low, log.high));
            let to = to.as_ref().map_or(log.high, |to| to[at].clamp(from, log.high));
            Offsets { partition: log.partition, from, to }
        });
        Ok(Self { name: name.to_owned(), id: reader.topic_id(name)?, partitions: offsets.collect() })
    }
}
