//! Parts of an export: files named by the offsets that they hold.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use super::line::line;
use super::manifest::Range;
use super::{Error, Summary};
use crate::event::Record;

const SUFFIX: &str = ".ndjson.zst";
const UNFINISHED: &str = ".part";
/// zstd's own default: a good balance for text.
const LEVEL: i32 = 3;

/// A part that is being written.
pub(super) struct Part {
    folder: PathBuf,
    range: Range,
    from: i64,
    records: u64,
    unfinished: PathBuf,
    /// Made with the first record: a partition without any leaves no file.
    encoder: Option<zstd::Encoder<'static, File>>,
}

impl Part {
    pub(super) fn begin(folder: &Path, range: &Range, from: i64) -> Result<Self, Error> {
        let unfinished = folder.join(format!("{}-{:05}{UNFINISHED}", range.topic, range.partition));
        Ok(Self { folder: folder.to_owned(), range: range.clone(), from, records: 0, unfinished, encoder: None })
    }

    pub(super) fn records(&self) -> u64 {
        self.records
    }

    pub(super) fn write(&mut self, record: &Record) -> Result<(), Error> {
        let encoder = match &mut self.encoder {
            Some(encoder) => encoder,
            none => {
                let made = File::create(&self.unfinished).and_then(|file| zstd::Encoder::new(file, LEVEL));
                none.insert(made.map_err(Error::file(&self.unfinished))?)
            }
        };
        let bytes = line(&self.range.topic, self.range.partition, record);
        encoder.write_all(&bytes).map_err(Error::file(&self.unfinished))?;
        self.records += 1;
        Ok(())
    }

    /// The part is whole: all up to an offset are in it. It is on the disk before it has its name.
    pub(super) fn finish(self, to: i64, summary: &mut Summary) -> Result<(), Error> {
        let Some(encoder) = self.encoder else { return Ok(()) };
        let written = encoder.finish().and_then(|file| {
            file.sync_all()?;
            file.metadata()
        });
        let bytes = written.map_err(Error::file(&self.unfinished))?.len();
        let Range { topic, partition, .. } = &self.range;
        let name = format!("{topic}-{partition:05}-{:020}-{to:020}{SUFFIX}", self.from);
        let file = self.folder.join(name);
        fs::rename(&self.unfinished, &file).map_err(Error::file(&file))?;
        summary.records += self.records;
        summary.parts += 1;
        summary.bytes += bytes;
        Ok(())
    }

    pub(super) fn abandon(self) -> Result<(), Error> {
        match self.encoder {
            None => Ok(()),
            Some(_) => fs::remove_file(&self.unfinished).map_err(Error::file(&self.unfinished)),
        }
    }
}

/// The whole parts in a folder: where each ends, by topic, partition and first offset.
pub(super) struct Parts(HashMap<(String, i32, i64), i64>);

impl Parts {
    pub(super) fn find(folder: &Path) -> Result<Self, Error> {
        let mut found = HashMap::new();
        for entry in fs::read_dir(folder).map_err(Error::file(folder))? {
            let name = entry.map_err(Error::file(folder))?.file_name();
            if let Some((place, to)) = name.to_str().and_then(parsed) {
                found.insert(place, to);
            }
        }
        Ok(Self(found))
    }

    /// How far the parts reach without a gap from a range's beginning.
    pub(super) fn end_of(&self, range: &Range) -> i64 {
        let mut end = range.from;
        // Every step goes forward.
        while let Some(to) = self.0.get(&(range.topic.clone(), range.partition, end)).filter(|to| **to > end) {
            end = *to;
        }
        end.min(range.to)
    }
}

fn parsed(name: &str) -> Option<((String, i32, i64), i64)> {
    let mut parts = name.strip_suffix(SUFFIX)?.rsplitn(4, '-');
    let (to, from) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    let partition = parts.next()?.parse().ok()?;
    Some(((parts.next()?.to_owned(), partition, from), to))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_reach_as_far_as_they_follow_each_other() {
        let names = [
            "a-b-00003-00000000000000000010-00000000000000000020.ndjson.zst",
            "a-b-00003-00000000000000000020-00000000000000000025.ndjson.zst",
            "a-b-00003-00000000000000000030-00000000000000000040.ndjson.zst",
            "a-b-00004-00000000000000000025-00000000000000000030.ndjson.zst",
        ];
        let parts = Parts(names.iter().filter_map(|name| parsed(name)).collect());
        assert_eq!(parts.0.len(), 4);
        let range = |from, to| Range { topic: "a-b".to_owned(), partition: 3, from, to };
        assert_eq!(parts.end_of(&range(10, 100)), 25);
        assert_eq!(parts.end_of(&range(11, 100)), 11);
        assert_eq!(parts.end_of(&range(10, 22)), 22);
        assert!(parsed("a-b-00003.part").is_none() && parsed("export.json").is_none());
    }
}
