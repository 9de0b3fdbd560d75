//! The file at `store.url`, and whether it can be reached at all. The address is read as the driver reads it: `sqlite:x.db` and
//! `sqlite://x.db` are the same, and `%XX` in the name is a byte.

use std::path::Path;
use std::time::Duration;

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _};

use crate::config;
use crate::store::connection::bounded;
use crate::store::{Error, Fault, Result};

/// What an address ought to look like.
const EXPECTED: &str = "name a file, such as sqlite:///path/weir.db";

/// How to connect to the file that an address names.
///
/// # Errors
/// What is wrong with the address: it cannot be read, names no file, or leads to a database that weir cannot keep
/// anything in.
pub(super) fn of_url(url: &str) -> std::result::Result<SqliteConnectOptions, String> {
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

/// How to connect to the file, which must be there.
pub(super) fn options(store: &config::Store) -> Result<SqliteConnectOptions> {
    let options = of_url(store.url.expose());
    options.map_err(|message| Error { fault: Fault::Fatal, action: "read store.url", message })
}

/// The same address with the file's whole name, and every byte that could mean something else as %XX.
pub(super) fn plain_url(store: &config::Store) -> Result<String> {
    let options = options(store)?;
    let file = options.get_filename();
    let whole = file.canonicalize().or_else(|_| std::path::absolute(file)).unwrap_or_else(|_| file.to_owned());
    let plain = |byte: &u8| match byte {
        b'/' | b'.' | b'_' | b'-' => char::from(*byte).to_string(),
        byte if byte.is_ascii_alphanumeric() => char::from(*byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    let whole: String = whole.as_os_str().as_encoded_bytes().iter().map(plain).collect();
    let url = options.filename("name").to_url_lossy();
    Ok(format!("sqlite://{whole}?{}", url.query().unwrap_or_default()))
}

/// Whether the file can be read, or if it is not there yet, whether its folder is.
pub(super) async fn reach(options: &SqliteConnectOptions, deadline: Duration) -> Result<()> {
    const ACTION: &str = "open the database (store.url)";
    let file = options.get_filename();
    if !file.exists() {
        let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        if folder.is_dir() {
            return Ok(());
        }
        let message = format!("there is no folder {}: make it, or correct store.url", folder.display());
        return Err(Error { fault: Fault::Hold, action: ACTION, message });
    }
    let read = async {
        let mut connection = options.connect().await?;
        let read = sqlx::query("SELECT count(*) FROM sqlite_schema").execute(&mut connection).await;
        connection.close().await.ok();
        read.map(drop)
    };
    match bounded(deadline, ACTION, Box::pin(read)).await {
        // Somebody is at it: then it is there.
        Err(Error { fault: Fault::Busy, .. }) => Ok(()),
        answer => answer,
    }
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
            assert_eq!(of_url(url).unwrap().get_filename(), Path::new(file), "{url}");
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
            let refused = of_url(url).unwrap_err();
            assert!(refused.contains(part), "{url}: {refused}");
        }
    }
}
