//! Reading events from NDJSON: one JSON object a line, its bytes kept as they are.
//!
//! Lines are read in chunks, so that handing them to another thread costs little per line. A chunk ends
//! early when the reader has nothing more at hand: a line that trickles in is not kept waiting for others.

use std::io::{self, BufRead, BufReader, Read};
use std::ops::Range;

use serde::de::IgnoredAny;

use super::key::KeyRule;

/// A line may have this many bytes unless told otherwise.
pub const LINE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// A chunk is handed over when it has this many lines …
const CHUNK_LINES: usize = 256;
/// … or this many bytes (a single line may exceed it).
const CHUNK_BYTES: usize = 256 * 1024;
/// Bytes that are read at once.
const READ_BYTES: usize = 256 * 1024;

/// How lines are read.
#[derive(Debug, Clone)]
pub struct LineOptions {
    /// Where a line's key comes from.
    pub key: KeyRule,
    /// The longest line, in bytes without its terminator; a longer one is bad, and is not held in memory.
    pub line_bytes_max: usize,
}

/// What a line is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// An event.
    Event {
        /// The line's number in its file, from 1.
        number: u64,
        /// Its bytes without the line terminator, in [`Chunk::bytes`].
        value: Range<usize>,
        /// Its key in [`Chunk::bytes`], if it has one.
        key: Option<Range<usize>>,
    },
    /// A line that is not a JSON object.
    Bad {
        /// The line's number in its file, from 1.
        number: u64,
        /// What is wrong with it.
        reason: String,
    },
}

/// Some consecutive lines of a file.
#[derive(Debug, Default)]
pub struct Chunk {
    /// What the lines' ranges point into.
    pub bytes: Vec<u8>,
    /// The lines in order, blank ones left out.
    pub lines: Vec<Line>,
    /// How many blank lines were skipped.
    pub blank_lines: u64,
    /// How many bytes of the file these lines took, terminators included.
    pub read_bytes: u64,
}

impl Chunk {
    fn is_full(&self) -> bool {
        self.lines.len() >= CHUNK_LINES || self.bytes.len() >= CHUNK_BYTES
    }
}

/// Reads a file's lines.
pub struct Lines<R> {
    reader: BufReader<R>,
    options: LineOptions,
    number: u64,
}

impl<R: Read> Lines<R> {
    /// Reads from `source`, which need not be buffered.
    pub fn new(source: R, options: LineOptions) -> Self {
        Self { reader: BufReader::with_capacity(READ_BYTES, source), options, number: 0 }
    }

    /// The next lines; `None` at the end.
    ///
    /// # Errors
    /// What reading ends with, named with the line it happened in.
    pub fn next_chunk(&mut self) -> io::Result<Option<Chunk>> {
        let mut chunk = Chunk::default();
        loop {
            if !self.read_line(&mut chunk)? {
                return Ok((chunk.read_bytes > 0).then_some(chunk));
            }
            if chunk.is_full() || self.reader.buffer().is_empty() {
                return Ok(Some(chunk));
            }
        }
    }

    /// Adds a line to the chunk; `false` at the end of the file.
    fn read_line(&mut self, chunk: &mut Chunk) -> io::Result<bool> {
        let start = chunk.bytes.len();
        // One byte more for the terminator's '\n' and one for its '\r'.
        let limit = self.options.line_bytes_max.saturating_add(2) as u64;
        let read_bytes = (&mut self.reader).take(limit).read_until(b'\n', &mut chunk.bytes)?;
        if read_bytes == 0 {
            return Ok(false);
        }
        self.number += 1;
        chunk.read_bytes += read_bytes as u64;
        let line = &chunk.bytes[start..];
        let cut_off = read_bytes as u64 == limit && line.last() != Some(&b'\n');
        let end = start + without_terminator(line).len();
        if cut_off || end - start > self.options.line_bytes_max {
            chunk.bytes.truncate(start);
            let rest_bytes = if cut_off { self.reader.skip_until(b'\n')? as u64 } else { 0 };
            chunk.read_bytes += rest_bytes;
            self.push_bad(chunk, self.too_long());
            return Ok(true);
        }
        chunk.bytes.truncate(end);
        self.push(chunk, start);
        Ok(true)
    }

    /// Judges the line that the chunk's bytes end with.
    fn push(&self, chunk: &mut Chunk, start: usize) {
        if chunk.bytes[start..].iter().all(u8::is_ascii_whitespace) {
            chunk.blank_lines += 1;
            chunk.bytes.truncate(start);
            return;
        }
        match json_object(&chunk.bytes[start..]) {
            Ok(line) => {
                let key = self.options.key.key(line).map(|key| key.into_owned());
                let value = start..chunk.bytes.len();
                let key = key.map(|key| {
                    chunk.bytes.extend_from_slice(key.as_bytes());
                    value.end..chunk.bytes.len()
                });
                let number = self.number;
                chunk.lines.push(Line::Event { number, value, key });
            }
            Err(reason) => {
                chunk.bytes.truncate(start);
                self.push_bad(chunk, reason);
            }
        }
    }

    fn push_bad(&self, chunk: &mut Chunk, reason: String) {
        let number = self.number;
        chunk.lines.push(Line::Bad { number, reason });
    }

    fn too_long(&self) -> String {
        let limit = self.options.line_bytes_max;
        format!("longer than {limit} bytes (--line-bytes-max)")
    }
}

/// The line without `\n` or `\r\n`.
fn without_terminator(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// The line as text, if it is one JSON object.
fn json_object(line: &[u8]) -> Result<&str, String> {
    let text = std::str::from_utf8(line).map_err(|error| format!("not UTF-8 at byte {}", error.valid_up_to() + 1))?;
    serde_json::from_str::<IgnoredAny>(text).map_err(|error| not_json(&error))?;
    match text.trim_start().as_bytes().first() {
        Some(b'{') => Ok(text),
        Some(b'[') => Err("a JSON array, not an object".to_owned()),
        Some(b'"') => Err("a JSON string, not an object".to_owned()),
        _ => Err("a JSON number, boolean or null, not an object".to_owned()),
    }
}

/// serde's message with the byte alone: the line is already named.
fn not_json(error: &serde_json::Error) -> String {
    let message = error.to_string();
    let what = message.split(" at line ").next().unwrap_or(&message);
    format!("not JSON: {what} at byte {}", error.column())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(input: &[u8], line_bytes_max: usize) -> Vec<Chunk> {
        let options = LineOptions { key: KeyRule::Field("/k".parse().unwrap()), line_bytes_max };
        let mut lines = Lines::new(input, options);
        std::iter::from_fn(|| lines.next_chunk().unwrap()).collect()
    }

    /// Values and keys of the events, and `number: reason` of the bad lines.
    fn summary(chunks: &[Chunk]) -> (Vec<(String, Option<String>)>, Vec<String>) {
        let (mut events, mut bad) = (Vec::new(), Vec::new());
        for chunk in chunks {
            let text = |range: &Range<usize>| String::from_utf8(chunk.bytes[range.clone()].to_vec()).unwrap();
            for line in &chunk.lines {
                match line {
                    Line::Event { value, key, .. } => {
                        events.push((text(value), key.as_ref().map(text)));
                    }
                    Line::Bad { number, reason } => bad.push(format!("{number}: {reason}")),
                }
            }
        }
        (events, bad)
    }

    #[test]
    fn lines_keep_their_bytes_without_the_terminator() {
        let chunks = read(b"{\"k\":1}\n \t{ }  \r\n\n\r\n  \n{\"k\":\"x\"}", 100);
        let (events, bad) = summary(&chunks);
        let key = |key: &str| Some(key.to_owned());
        assert_eq!(
            events,
            [("{\"k\":1}".to_owned(), key("1")), (" \t{ }  ".to_owned(), None), ("{\"k\":\"x\"}".to_owned(), key("x")),]
        );
        assert!(bad.is_empty());
        let blank: u64 = chunks.iter().map(|chunk| chunk.blank_lines).sum();
        assert_eq!(blank, 3);
        let read_bytes: u64 = chunks.iter().map(|chunk| chunk.read_bytes).sum();
        assert_eq!(read_bytes, 32);
    }

    #[test]
    fn a_line_is_bad_only_when_it_is_not_a_json_object() {
        let input: &[u8] =
            b"{\"a\":1,}\n[1]\n\"s\"\n7\nnull\n{} {}\n{\"a\":\"\xff\"}\n{\"a\":\n{\"a\":1,\"a\":2}\n{\"a\":\"\\ud800\"}\n";
        let (events, bad) = summary(&read(input, 100));
        assert_eq!(
            bad,
            [
                "1: not JSON: key must be a string at byte 8",
                "2: a JSON array, not an object",
                "3: a JSON string, not an object",
                "4: a JSON number, boolean or null, not an object",
                "5: a JSON number, boolean or null, not an object",
                "6: not JSON: trailing characters at byte 4",
                "7: not UTF-8 at byte 7",
                "8: not JSON: EOF while parsing a value at byte 5",
            ]
        );
        assert_eq!(events.len(), 2);
    }

    #[test]
    fn deep_nesting_is_no_reason_to_refuse_a_line_nor_to_overflow() {
        let deep = format!("{{\"k\":1,\"d\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
        let (events, bad) = summary(&read(deep.as_bytes(), 1_000_000));
        assert_eq!((events.len(), bad.len()), (1, 0));
    }

    #[test]
    fn a_line_that_is_too_long_is_bad_and_the_next_is_read() {
        let fits = format!("{{\"k\":\"{}\"}}", "x".repeat(12));
        assert_eq!(fits.len(), 20);
        let over = format!("{{\"k\":\"{}\"}}", "x".repeat(13));
        let far_over = "y".repeat(1_000_000);
        for terminator in ["\n", "\r\n"] {
            let input = [&fits, &over, &far_over, &fits, &over].map(|line| format!("{line}{terminator}"));
            let chunks = read(input.concat().as_bytes(), 20);
            let (events, bad) = summary(&chunks);
            assert_eq!(events.len(), 2);
            let reason = "longer than 20 bytes (--line-bytes-max)";
            assert_eq!(bad, [2, 3, 5].map(|number| format!("{number}: {reason}")));
            let read_bytes: u64 = chunks.iter().map(|chunk| chunk.read_bytes).sum();
            assert_eq!(read_bytes as usize, input.concat().len());
        }
    }

    #[test]
    fn a_chunk_ends_where_the_reader_would_have_to_wait() {
        let two = b"{\"k\":1}\n".chain(&b"{\"k\":2}\n"[..]);
        let options = LineOptions { key: KeyRule::Conversation, line_bytes_max: 100 };
        let mut lines = Lines::new(two, options);
        assert_eq!(lines.next_chunk().unwrap().unwrap().lines.len(), 1);
        assert_eq!(lines.next_chunk().unwrap().unwrap().lines.len(), 1);
        assert!(lines.next_chunk().unwrap().is_none());
    }

    #[test]
    fn chunks_are_bounded() {
        let chunks = read(&b"{\"k\":1}\n".repeat(1000), 100);
        assert!(chunks.iter().all(|chunk| chunk.lines.len() <= CHUNK_LINES));
        assert_eq!(summary(&chunks).0.len(), 1000);
    }
}
