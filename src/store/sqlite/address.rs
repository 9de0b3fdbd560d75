//! The file at `store.url`, and whether it can be reached at all.

use std::path::Path;
use std::time::Duration;

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _};

use crate::config;
use crate::store::connection::bounded;
use crate::store::{Error, Fault, Result};

/// How to connect to the file, which must be there.
pub(in crate::store) fn options(store: &config::Store) -> Result<SqliteConnectOptions> {
    let options = config::sqlite_options(store.url.expose());
    options.map_err(|message| Error { fault: Fault::Fatal, action: "read store.url", message })
}

/// The same address with the file's whole name, and every byte that could mean something else as %XX.
pub(in crate::store) fn plain_url(store: &config::Store) -> Result<String> {
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
