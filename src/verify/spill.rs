//! More records than memory should hold, in order: sorted a chunk at a time, kept in a file without a name, and merged
//! when they are read. The file is gone with the process, however that ends.
//!
//! **Memory:** [`CHUNK_BYTES`] while records are collected and about as much while they are read, however many there
//! are: beyond 16 GiB of them, 4 KiB more for each further chunk on disk.

use std::cell::Cell;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use uuid::Uuid;

use super::Error;

/// What is sorted in memory at once, and what all the chunks together are read through.
const CHUNK_BYTES: usize = 8 << 20;
/// What one chunk is read through at least.
const READ_BYTES_MIN: usize = 4 << 10;

/// Where chunks go. Clones are of one audit, and count together.
#[derive(Clone, Debug)]
pub(super) struct Disk {
    folder: PathBuf,
    written: Rc<Cell<u64>>,
    chunk_bytes: usize,
}

impl Disk {
    /// In `TMPDIR`; without it in `/var/tmp`, since `/tmp` is memory on many machines.
    pub(super) fn new() -> Self {
        let var_tmp = Path::new("/var/tmp");
        let folder = match std::env::var_os("TMPDIR") {
            Some(folder) if !folder.is_empty() => PathBuf::from(folder),
            _ if var_tmp.is_dir() => var_tmp.to_owned(),
            _ => std::env::temp_dir(),
        };
        Self { folder, written: Rc::default(), chunk_bytes: CHUNK_BYTES }
    }

    /// A file without a name: nobody else can open it, and nothing is left to remove.
    fn file(&self) -> Result<File, Error> {
        let path = self.folder.join(format!("weir-verify-{}", Uuid::new_v4().simple()));
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path);
        let file = file.map_err(|source| self.failed(source))?;
        fs::remove_file(&path).map_err(|source| self.failed(source))?;
        Ok(file)
    }

    fn failed(&self, source: io::Error) -> Error {
        Error::Spill { folder: self.folder.display().to_string(), written_mib: self.written.get() >> 20, source }
    }
}

/// Collects records of `N` bytes, and gives them back in the order of their bytes, as often as they are asked for.
#[derive(Debug)]
pub(super) struct Sorter<const N: usize> {
    disk: Disk,
    /// What is not in the file.
    chunk: Vec<[u8; N]>,
    file: Option<File>,
    /// Where each sorted chunk lies in the file.
    runs: Vec<Range<u64>>,
}

impl<const N: usize> Sorter<N> {
    pub(super) fn new(disk: &Disk) -> Self {
        Self { disk: disk.clone(), chunk: Vec::new(), file: None, runs: Vec::new() }
    }

    pub(super) fn push(&mut self, record: [u8; N]) -> Result<(), Error> {
        if self.chunk.len() >= self.disk.chunk_bytes / N {
            self.spill()?;
        }
        self.chunk.push(record);
        Ok(())
    }

    fn spill(&mut self) -> Result<(), Error> {
        self.chunk.sort_unstable();
        if self.file.is_none() {
            self.file = Some(self.disk.file()?);
        }
        let file = self.file.as_ref().expect("it was made just now");
        let bytes = self.chunk.as_flattened();
        let start = self.runs.last().map_or(0, |run| run.end);
        file.write_all_at(bytes, start).map_err(|source| self.disk.failed(source))?;
        self.disk.written.set(self.disk.written.get() + bytes.len() as u64);
        self.runs.push(start..start + bytes.len() as u64);
        self.chunk.clear();
        Ok(())
    }

    /// All records in order. Nothing is kept in memory of what is in the file.
    pub(super) fn sorted(&mut self) -> Result<Sorted<'_, N>, Error> {
        if self.file.is_some() && !self.chunk.is_empty() {
            self.spill()?;
        }
        if self.file.is_some() {
            self.chunk = Vec::new();
        }
        self.chunk.sort_unstable();
        let read_bytes = (self.disk.chunk_bytes / self.runs.len().max(1)).max(READ_BYTES_MIN);
        let capacity = (read_bytes / N).max(1) * N;
        let mut sorted =
            Sorted { sorter: self, at: 0, runs: Vec::new(), heads: BinaryHeap::with_capacity(self.runs.len()) };
        for (index, left) in self.runs.iter().cloned().enumerate() {
            let mut run = Run { left, buffer: Vec::new(), at: 0, capacity };
            if let Some(first) = run.next::<N>(self)? {
                sorted.heads.push(Reverse((first, index)));
            }
            sorted.runs.push(run);
        }
        Ok(sorted)
    }
}

/// Records in order.
pub(super) struct Sorted<'a, const N: usize> {
    sorter: &'a Sorter<N>,
    /// The next record of those in memory.
    at: usize,
    runs: Vec<Run>,
    /// The next record of each chunk in the file.
    heads: BinaryHeap<Reverse<([u8; N], usize)>>,
}

impl<const N: usize> Sorted<'_, N> {
    pub(super) fn next(&mut self) -> Result<Option<[u8; N]>, Error> {
        let Some(mut head) = self.heads.peek_mut() else {
            let record = self.sorter.chunk.get(self.at).copied();
            self.at += 1;
            return Ok(record);
        };
        let Reverse((record, index)) = *head;
        match self.runs[index].next::<N>(self.sorter)? {
            Some(next) => *head = Reverse((next, index)),
            None => drop(PeekMut::pop(head)),
        }
        Ok(Some(record))
    }
}

/// A sorted chunk that is being read.
struct Run {
    /// What of it has not been read from the file yet.
    left: Range<u64>,
    buffer: Vec<u8>,
    at: usize,
    capacity: usize,
}

impl Run {
    fn next<const N: usize>(&mut self, sorter: &Sorter<N>) -> Result<Option<[u8; N]>, Error> {
        if self.at == self.buffer.len() {
            let Some(file) = sorter.file.as_ref().filter(|_| !self.left.is_empty()) else { return Ok(None) };
            let length = (self.left.end - self.left.start).min(self.capacity as u64);
            self.buffer.resize(usize::try_from(length).expect("it is at most the capacity"), 0);
            file.read_exact_at(&mut self.buffer, self.left.start).map_err(|source| sorter.disk.failed(source))?;
            self.left.start += length;
            self.at = 0;
        }
        let record = self.buffer[self.at..self.at + N].try_into().expect("the slice has N bytes");
        self.at += N;
        Ok(Some(record))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    impl Disk {
        /// One whose chunks are so small that a few records make many.
        pub(in crate::verify) fn tiny() -> Self {
            Self { chunk_bytes: 16, ..Self::new() }
        }
    }

    fn all<const N: usize>(sorter: &mut Sorter<N>) -> Vec<[u8; N]> {
        let mut sorted = sorter.sorted().unwrap();
        std::iter::from_fn(|| sorted.next().unwrap()).collect()
    }

    proptest! {
        #[test]
        fn records_come_in_order_and_as_often_as_they_were_given(
            first in prop::collection::vec(any::<[u8; 3]>(), 0..200),
            then in prop::collection::vec(any::<[u8; 3]>(), 0..20),
            is_tiny in any::<bool>(),
        ) {
            let mut sorter = Sorter::new(&if is_tiny { Disk::tiny() } else { Disk::new() });
            let mut expected = first.clone();
            expected.sort_unstable();
            first.into_iter().for_each(|record| sorter.push(record).unwrap());
            prop_assert_eq!(all(&mut sorter), expected.clone());
            prop_assert_eq!(all(&mut sorter), expected.clone());
            expected.extend(&then);
            expected.sort_unstable();
            then.into_iter().for_each(|record| sorter.push(record).unwrap());
            prop_assert_eq!(all(&mut sorter), expected);
        }
    }

    #[test]
    fn a_folder_that_takes_nothing_is_named_with_what_to_do() {
        let disk = Disk { folder: "/nowhere/at/all".into(), ..Disk::tiny() };
        let mut sorter = Sorter::new(&disk);
        let error = (0..9_u64).try_for_each(|n| sorter.push(n.to_be_bytes())).unwrap_err().to_string();
        assert!(error.contains("/nowhere/at/all") && error.contains("TMPDIR"), "{error}");
    }
}
