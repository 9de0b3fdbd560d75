//! A place of its own in a database, for trying weir out: a schema in PostgreSQL, a file of SQLite. It holds nothing
//! but what was made in it, and is removed whole.

use std::path::{Path, PathBuf};

use sqlx::Connection as _;

use super::{Error, Fault, Result, fault};
use crate::config;

/// A scratch place that was made.
#[derive(Debug)]
pub struct Scratch {
    /// The settings that lead to it.
    pub settings: config::Store,
    place: Place,
}

#[derive(Debug)]
enum Place {
    #[cfg(feature = "postgres")]
    Schema { settings: config::Store, name: String },
    #[cfg(feature = "sqlite")]
    File(PathBuf),
}

impl Scratch {
    /// Makes an empty place of this name in the database at `store.url`.
    ///
    /// # Errors
    /// The database does not answer or does not allow it, or the file is there already.
    pub async fn make(store: &config::Store, name: &str) -> Result<Self> {
        let url = store.url.expose();
        #[cfg(feature = "sqlite")]
        if let Some(path) = url.strip_prefix("sqlite://") {
            let path = PathBuf::from(path.split('?').next().unwrap_or(path));
            if path.exists() {
                let message = format!("{} is there already: name a new file, which will be removed", path.display());
                return Err(Error { fault: Fault::Fatal, action: "make a scratch database", message });
            }
            return Ok(Self { settings: store.clone(), place: Place::File(path) });
        }
        #[cfg(feature = "postgres")]
        {
            execute(store, &format!("CREATE SCHEMA \"{name}\"")).await?;
            let separator = if url.contains('?') { '&' } else { '?' };
            let inside = format!("{url}{separator}options[search_path]={name}");
            let settings = config::Store { url: inside.into(), ..store.clone() };
            Ok(Self { settings, place: Place::Schema { settings: store.clone(), name: name.to_owned() } })
        }
        #[cfg(not(feature = "postgres"))]
        Err(Error {
            fault: Fault::Fatal,
            action: "make a scratch database",
            message: format!("{name}: no such database"),
        })
    }

    /// Removes it with all it holds.
    ///
    /// # Errors
    /// The database does not answer, or the file cannot be removed.
    pub async fn remove(self) -> Result<()> {
        match self.place {
            #[cfg(feature = "postgres")]
            Place::Schema { settings, name } => execute(&settings, &format!("DROP SCHEMA \"{name}\" CASCADE")).await,
            #[cfg(feature = "sqlite")]
            Place::File(path) => remove_file(&path),
        }
    }
}

#[cfg(feature = "postgres")]
async fn execute(store: &config::Store, sql: &str) -> Result<()> {
    const ACTION: &str = "make or remove a scratch schema";
    let failed = |error: sqlx::Error| fault::error(ACTION, &error);
    let mut connection = sqlx::PgConnection::connect(store.url.expose()).await.map_err(failed)?;
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut connection).await.map_err(failed)?;
    connection.close().await.map_err(failed)
}

#[cfg(feature = "sqlite")]
fn remove_file(path: &Path) -> Result<()> {
    for suffix in ["", "-wal", "-shm"] {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        match std::fs::remove_file(&name) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                let message = format!("{}: {error}", Path::new(&name).display());
                return Err(Error { fault: Fault::Fatal, action: "remove the scratch database", message });
            }
            _ => {}
        }
    }
    Ok(())
}
