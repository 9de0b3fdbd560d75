//! Reading a result, and saying what is wrong where there is none.

use std::fs::File;
use std::io::{self, ErrorKind, Read as _};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::load::result::{RunResult, SCHEMA};

/// The file that a run leaves in its folder.
pub const RESULT_FILE: &str = "result.json";
/// A larger file is no result: a day of intervals of a second, with a hundred workers, is smaller.
const BYTES_MAX: u64 = 1 << 30;

/// Why there is no result to report.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Nothing has that name.
    #[error("there is no {0}: name a {RESULT_FILE} that `weir load run` wrote, or the folder that holds it")]
    Missing(PathBuf),
    /// A folder without a result.
    #[error("the folder {0} holds no {RESULT_FILE}: name the folder that `weir load run` wrote to")]
    EmptyFolder(PathBuf),
    /// It is there and cannot be read.
    #[error("cannot read {path}: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// More than any run writes.
    #[error("{0} is larger than 1 GiB, which no {RESULT_FILE} is: name what `weir load run` wrote")]
    TooLarge(PathBuf),
    /// No JSON, or a part of some.
    #[error("{path} is not JSON: {source}; if the run was cut off, run it again")]
    NotJson {
        /// The file.
        path: PathBuf,
        /// What and where.
        source: serde_json::Error,
    },
    /// JSON of something else.
    #[error("{path} is JSON and no result of `weir load run`: {source}; name the {RESULT_FILE} that it wrote")]
    NotAResult {
        /// The file.
        path: PathBuf,
        /// What and where.
        source: serde_json::Error,
    },
    /// A result of another release.
    #[error(
        "{path} has schema {schema}, and this weir reads schema {SCHEMA}: report it with the release that wrote it, \
             or run the plan again"
    )]
    OtherSchema {
        /// The file.
        path: PathBuf,
        /// Its schema.
        schema: u64,
    },
}

/// What every schema has.
#[derive(Deserialize)]
struct Head {
    schema: u64,
}

/// Reads the result at a path, which may be the folder that holds it. Returns its file, too.
pub fn read(path: &Path) -> Result<(PathBuf, RunResult), ReadError> {
    let file = if path.is_dir() { path.join(RESULT_FILE) } else { path.to_owned() };
    let bytes = match bytes(&file) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound && file != path => {
            return Err(ReadError::EmptyFolder(path.to_owned()));
        }
        Err(error) if error.kind() == ErrorKind::NotFound => return Err(ReadError::Missing(file)),
        Err(source) => return Err(ReadError::Unreadable { path: file, source }),
    };
    if bytes.len() as u64 > BYTES_MAX {
        return Err(ReadError::TooLarge(file));
    }
    let run = parse(&file, &bytes)?;
    Ok((file, run))
}

fn bytes(file: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(file)?.take(BYTES_MAX + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn parse(file: &Path, bytes: &[u8]) -> Result<RunResult, ReadError> {
    let path = || file.to_owned();
    let wrong = |source: serde_json::Error| {
        if source.is_data() {
            ReadError::NotAResult { path: path(), source }
        } else {
            ReadError::NotJson { path: path(), source }
        }
    };
    let Head { schema } = serde_json::from_slice(bytes).map_err(wrong)?;
    if schema != u64::from(SCHEMA) {
        return Err(ReadError::OtherSchema { path: path(), schema });
    }
    serde_json::from_slice(bytes).map_err(wrong)
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;

    fn told(text: &str) -> String {
        parse(Path::new("x/result.json"), text.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn a_result_is_read_as_it_was_written() {
        let run = samples::short();
        let bytes = serde_json::to_vec(&run).unwrap();
        assert_eq!(parse(Path::new("r"), &bytes).unwrap(), run);
    }

    #[test]
    fn what_is_no_result_is_named_with_its_place_and_what_to_do() {
        assert!(told("{\"schema\": 1, \"na").starts_with("x/result.json is not JSON: EOF"));
        assert!(told("hello").contains("line 1 column 1; if the run was cut off, run it again"));
        assert!(told("[1]").starts_with("x/result.json is JSON and no result of `weir load run`: invalid"));
        assert!(told("{}").contains("missing field `schema`"));
        assert!(
            told("{\"schema\": 1, \"name\": 3}").contains("invalid type: integer `3`, expected a string at line 1")
        );
    }

    #[test]
    fn another_schema_is_refused_before_anything_else_is_looked_at() {
        let text = told("{\"schema\": 7, \"name\": 3}");
        assert!(text.starts_with("x/result.json has schema 7, and this weir reads schema 1: report it with"), "{text}");
    }
}
