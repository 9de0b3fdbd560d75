//! A place of its own in a database, for trying weir out: a schema in PostgreSQL, a database in MariaDB, a file of SQLite. It holds nothing
//! but what was made in it, and is removed whole.

use super::Result;
use super::driver::{self, Driver};
use crate::config;

/// A scratch place that was made.
#[derive(Debug)]
pub struct Scratch {
    /// The settings that lead to it.
    pub settings: config::Store,
    driver: &'static dyn Driver,
    /// The settings of the database in which it was made.
    made_in: config::Store,
    name: String,
}

impl Scratch {
    /// Whether a place can be made without touching what is somebody else's. Asks no service.
    ///
    /// # Errors
    /// The address is none, or the file is there already.
    pub fn check(store: &config::Store) -> Result<()> {
        driver::of_store(store)?.check_scratch(store)
    }

    /// Makes an empty place of this name in the database at `store.url`.
    ///
    /// # Errors
    /// The database does not answer or does not allow it, or the file is there already.
    pub async fn make(store: &config::Store, name: &str) -> Result<Self> {
        let driver = driver::of_store(store)?;
        let settings = driver.make_scratch(store, name).await?;
        Ok(Self { settings, driver, made_in: store.clone(), name: name.to_owned() })
    }

    /// Removes it with all it holds.
    ///
    /// # Errors
    /// The database does not answer, or the file cannot be removed.
    pub async fn remove(self) -> Result<()> {
        self.driver.remove_scratch(&self.made_in, &self.name).await
    }
}
