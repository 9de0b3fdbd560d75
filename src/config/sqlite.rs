//! The address of a SQLite database, read as the driver reads it: `sqlite:x.db` and `sqlite://x.db` are the same, and
//! `%XX` in the name is a byte.

use std::path::Path;

use sqlx::ConnectOptions as _;
use sqlx::sqlite::SqliteConnectOptions;

/// What an address ought to look like.
const EXPECTED: &str = "name a file, such as sqlite:///path/weir.db";

/// How to connect to the file that an address names.
///
/// # Errors
/// What is wrong with the address: it cannot be read, names no file, or leads to a database that weir cannot keep
/// anything in.
pub(crate) fn sqlite_options(url: &str) -> Result<SqliteConnectOptions, String> {
    let options: SqliteConnectOptions = url.parse().map_err(|error| match error {
        sqlx::Error::Configuration(why) => format!("{why}; {EXPECTED}"),
        error => format!("{error}; {EXPECTED}"),
    })?;
    let options = options.create_if_missing(false);
    let file = options.get_filename();
    // The driver tells what it has read only as an address, and fails to write one of some names.
    let read = options.clone().filename("name").to_url_lossy();
    let has = |key: &str, value: &str| read.query_pairs().any(|(k, v)| k == key && v == value);
    if has("mode", "memory") || file == Path::new(":memory:") {
        return Err(format!("a database in memory is of one connection alone, and gone with it: {EXPECTED}"));
    }
    if has("mode", "ro") || has("immutable", "true") {
        return Err("weir writes to its database: leave `mode=ro` and `immutable` out".to_owned());
    }
    if file.as_os_str().is_empty() || file.as_os_str().as_encoded_bytes().starts_with(b"file:") {
        return Err(format!("it names no file: {EXPECTED}"));
    }
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_and_percent_encoding_name_the_file_that_the_driver_opens() {
        let cases = [
            ("sqlite:///data/weir.db", "/data/weir.db"),
            ("sqlite:/data/weir.db", "/data/weir.db"),
            ("sqlite://weir.db", "weir.db"),
            ("sqlite:weir.db?mode=rwc", "weir.db"),
            ("sqlite:///data/my%20app%3f.db?cache=private", "/data/my app?.db"),
            ("sqlite:[1] #.db", "[1] #.db"),
        ];
        for (url, file) in cases {
            assert_eq!(sqlite_options(url).unwrap().get_filename(), Path::new(file), "{url}");
        }
    }

    #[test]
    fn what_cannot_work_is_refused() {
        let cases = [
            ("sqlite::memory:", "in memory"),
            ("sqlite://:memory:", "in memory"),
            ("sqlite://%3Amemory%3A", "in memory"),
            ("sqlite:///data/weir.db?mode=memory", "in memory"),
            ("sqlite:file:weir.db", "no file"),
            ("sqlite:///data/weir.db?mode=ro", "mode=ro"),
            ("sqlite:///data/weir.db?immutable=1", "immutable"),
            ("sqlite://", "no file"),
            ("sqlite:", "no file"),
            ("sqlite://?mode=rwc", "no file"),
            ("sqlite:///data/weir.db?mode=x", "unknown value \"x\" for `mode`; name a file"),
            ("sqlite:///data/%ff.db", "name a file"),
        ];
        for (url, part) in cases {
            let refused = sqlite_options(url).unwrap_err();
            assert!(refused.contains(part), "{url}: {refused}");
        }
    }
}
