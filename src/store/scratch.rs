//! A place of its own in a database, for trying weir out: a schema in PostgreSQL, a database in MariaDB, a file of SQLite. It holds nothing
//! but what was made in it, and is removed whole.

use super::{Error, Fault, Result};
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
    #[cfg(feature = "mysql")]
    Database { settings: config::Store, name: String },
    #[cfg(feature = "sqlite")]
    File(std::path::PathBuf),
}

impl Scratch {
    /// Whether a place can be made without touching what is somebody else's. Asks no service.
    ///
    /// # Errors
    /// The address is none, or the file is there already.
    pub fn check(store: &config::Store) -> Result<()> {
        match store.url.expose() {
            #[cfg(feature = "sqlite")]
            url if url.starts_with("sqlite:") => file::unused(store).map(drop),
            _ => Ok(()),
        }
    }

    /// Makes an empty place of this name in the database at `store.url`.
    ///
    /// # Errors
    /// The database does not answer or does not allow it, or the file is there already.
    #[cfg_attr(
        not(any(feature = "postgres", feature = "mysql")),
        expect(clippy::unused_async, reason = "other databases are asked")
    )]
    pub async fn make(store: &config::Store, name: &str) -> Result<Self> {
        match store.url.expose().split_once(':').map(|(scheme, _)| scheme) {
            #[cfg(feature = "sqlite")]
            Some("sqlite") => {
                let file = file::unused(store)?;
                Ok(Self { settings: store.clone(), place: Place::File(file) })
            }
            #[cfg(feature = "postgres")]
            Some("postgres" | "postgresql") => {
                let settings = schema::make(store, name).await?;
                Ok(Self { settings, place: Place::Schema { settings: store.clone(), name: name.to_owned() } })
            }
            #[cfg(feature = "mysql")]
            Some("mysql" | "mariadb") => {
                let settings = database::make(store, name).await?;
                Ok(Self { settings, place: Place::Database { settings: store.clone(), name: name.to_owned() } })
            }
            _ => Err(Error {
                fault: Fault::Fatal,
                action: "make a scratch database",
                message: format!("{name}: store.url names no database that this build of weir knows"),
            }),
        }
    }

    /// Removes it with all it holds.
    ///
    /// # Errors
    /// The database does not answer, or the file cannot be removed.
    #[cfg_attr(
        not(any(feature = "postgres", feature = "mysql")),
        expect(clippy::unused_async, reason = "other databases are asked")
    )]
    pub async fn remove(self) -> Result<()> {
        match self.place {
            #[cfg(feature = "postgres")]
            Place::Schema { settings, name } => schema::remove(&settings, &name).await,
            #[cfg(feature = "mysql")]
            Place::Database { settings, name } => database::remove(&settings, &name).await,
            #[cfg(feature = "sqlite")]
            Place::File(path) => file::remove(&path),
        }
    }
}

#[cfg(feature = "postgres")]
mod schema {
    use sqlx::Connection as _;

    use crate::config;
    use crate::store::{Result, fault};

    /// The settings that lead into the new schema.
    pub(super) async fn make(store: &config::Store, name: &str) -> Result<config::Store> {
        execute(store, &format!("CREATE SCHEMA \"{name}\"")).await?;
        let url = store.url.expose();
        let separator = if url.contains('?') { '&' } else { '?' };
        Ok(config::Store { url: format!("{url}{separator}options[search_path]={name}").into(), ..store.clone() })
    }

    pub(super) async fn remove(store: &config::Store, name: &str) -> Result<()> {
        execute(store, &format!("DROP SCHEMA \"{name}\" CASCADE")).await
    }

    async fn execute(store: &config::Store, sql: &str) -> Result<()> {
        const ACTION: &str = "make or remove a scratch schema";
        let failed = |error: sqlx::Error| fault::error(ACTION, &error);
        let mut connection = sqlx::PgConnection::connect(store.url.expose()).await.map_err(failed)?;
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut connection).await.map_err(failed)?;
        // It is done; how the database takes the goodbye changes nothing.
        connection.close().await.ok();
        Ok(())
    }
}

#[cfg(feature = "mysql")]
mod database {
    use sqlx::Connection as _;

    use crate::config;
    use crate::store::{Error, Fault, Result, fault};

    const ACTION: &str = "make or remove a scratch database";

    /// The settings that lead into the new database.
    pub(super) async fn make(store: &config::Store, name: &str) -> Result<config::Store> {
        let mut url = url::Url::parse(store.url.expose()).map_err(|error| Error {
            fault: Fault::Fatal,
            action: "read store.url",
            message: error.to_string(),
        })?;
        url.set_path(name);
        execute(store, &format!("CREATE DATABASE `{name}`")).await?;
        Ok(config::Store { url: String::from(url).into(), ..store.clone() })
    }

    pub(super) async fn remove(store: &config::Store, name: &str) -> Result<()> {
        execute(store, &format!("DROP DATABASE `{name}`")).await
    }

    async fn execute(store: &config::Store, sql: &str) -> Result<()> {
        let failed = |error: sqlx::Error| fault::error(ACTION, &error);
        let mut connection = sqlx::MySqlConnection::connect(store.url.expose()).await.map_err(failed)?;
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut connection).await.map_err(failed)?;
        // It is done; how the database takes the goodbye changes nothing.
        connection.close().await.ok();
        Ok(())
    }
}

#[cfg(feature = "sqlite")]
mod file {
    use std::io::ErrorKind;
    use std::path::{Path, PathBuf};

    use crate::config;
    use crate::store::{Error, Fault, Result, sqlite};

    /// What SQLite keeps beside a file, and the file.
    const SUFFIXES: [&str; 4] = ["", "-wal", "-shm", "-journal"];

    fn beside(file: &Path, suffix: &str) -> PathBuf {
        let mut name = file.as_os_str().to_owned();
        name.push(suffix);
        name.into()
    }

    /// The name of a file that is not there, nor anything that SQLite would take for its own.
    pub(super) fn unused(store: &config::Store) -> Result<PathBuf> {
        let options = sqlite::address::options(store)?;
        let file = options.get_filename();
        for path in SUFFIXES.map(|suffix| beside(file, suffix)) {
            if path.symlink_metadata().is_ok() {
                let message = format!("{} is there already: name a new file, which will be removed", path.display());
                return Err(Error { fault: Fault::Fatal, action: "make a scratch database", message });
            }
        }
        Ok(file.to_owned())
    }

    pub(super) fn remove(file: &Path) -> Result<()> {
        for path in SUFFIXES.map(|suffix| beside(file, suffix)) {
            match std::fs::remove_file(&path) {
                Err(told) if told.kind() != ErrorKind::NotFound => {
                    let message = format!("{}: {told}", path.display());
                    return Err(Error { fault: Fault::Hold, action: "remove the scratch database", message });
                }
                _ => {}
            }
        }
        Ok(())
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[tokio::test]
        async fn a_file_that_is_there_is_refused_however_its_address_is_spelled() {
            let folder = std::env::temp_dir().join(format!("weir-scratch-{}", uuid::Uuid::new_v4().simple()));
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join("my app.db"), "mine").unwrap();
            std::fs::write(folder.join("other.db-wal"), "mine").unwrap();
            let folder_name = folder.display();
            for url in [
                format!("sqlite://{folder_name}/my%20app.db"),
                format!("sqlite:{folder_name}/my app.db?mode=rwc"),
                format!("sqlite://{folder_name}/other.db"),
            ] {
                let store = config::Store { url: url.as_str().into(), ..config::Store::default() };
                let refused = crate::store::Scratch::make(&store, "unused").await.unwrap_err();
                assert!(refused.message.contains("is there already"), "{url}: {refused}");
                assert_eq!(refused.fault, Fault::Fatal);
            }
            std::fs::remove_dir_all(&folder).unwrap();
        }
    }
}
