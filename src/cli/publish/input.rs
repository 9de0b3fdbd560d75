//! The files that `weir publish` reads, and the thread that reads them.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::Context;
use tokio::sync::mpsc;

use crate::publish::lines::{Chunk, Line, LineOptions, Lines};

/// A file to read, or standard input.
pub(super) struct Input {
    /// What messages call it.
    pub(super) name: String,
    path: Option<PathBuf>,
    /// How long it is, where that is known beforehand.
    pub(super) size_bytes: Option<u64>,
}

impl Input {
    /// Checks that every file can be opened, before anything is sent.
    pub(super) fn open_all(files: &[PathBuf]) -> anyhow::Result<Vec<Self>> {
        if files.is_empty() {
            return Ok(vec![Self::stdin()]);
        }
        files.iter().map(|path| Self::new(path)).collect()
    }

    fn stdin() -> Self {
        Self { name: "stdin".to_owned(), path: None, size_bytes: None }
    }

    fn new(path: &Path) -> anyhow::Result<Self> {
        if path.as_os_str() == "-" {
            return Ok(Self::stdin());
        }
        let name = path.display().to_string();
        let metadata = std::fs::metadata(path).with_context(|| format!("read {name}"))?;
        anyhow::ensure!(!metadata.is_dir(), "read {name}: it is a directory");
        if metadata.is_file() {
            // Not for a pipe: opening and closing it would end its writer.
            File::open(path).with_context(|| format!("read {name}"))?;
        }
        Ok(Self { name, path: Some(path.to_owned()), size_bytes: metadata.is_file().then_some(metadata.len()) })
    }

    fn open(&self) -> io::Result<Box<dyn Read>> {
        Ok(match &self.path {
            Some(path) => Box::new(File::open(path)?),
            None => Box::new(io::stdin()),
        })
    }
}

/// What the reading thread hands over; `file` is the input's index.
pub(super) enum Piece {
    /// Some lines.
    Chunk { file: usize, chunk: Chunk },
    /// It could not be read further; nothing follows.
    Failed { file: usize, error: io::Error },
}

/// Reads the inputs one after the other, until nobody listens.
pub(super) fn read_all(inputs: &[Input], options: &LineOptions, fail_fast: bool, pieces: &mpsc::Sender<Piece>) {
    for (file, input) in inputs.iter().enumerate() {
        let mut lines = match input.open() {
            Ok(source) => Lines::new(source, options.clone()),
            Err(error) => return drop(pieces.blocking_send(Piece::Failed { file, error })),
        };
        loop {
            let chunk = match lines.next_chunk() {
                Ok(Some(chunk)) => chunk,
                Ok(None) => break,
                Err(error) => return drop(pieces.blocking_send(Piece::Failed { file, error })),
            };
            let is_last = fail_fast && chunk.lines.iter().any(|l| matches!(l, Line::Bad { .. }));
            if pieces.blocking_send(Piece::Chunk { file, chunk }).is_err() || is_last {
                return;
            }
        }
    }
}
