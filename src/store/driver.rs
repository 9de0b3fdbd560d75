//! What makes a database one of weir's. Each has a [`Driver`] in its folder and a line in [`DRIVERS`]; nothing else in the
//! crate asks which database it is.

use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use sqlx::error::DatabaseError;

#[cfg(test)]
use super::migrations::Step;
use super::{DRIVERS, Error, Fault, Result, Store, days};
use crate::config;

/// A database.
#[async_trait]
pub(super) trait Driver: Debug + Sync {
    /// What its addresses begin with, before the colon.
    fn schemes(&self) -> &'static [&'static str];

    /// An address of it, as people write it.
    fn example(&self) -> &'static str;

    /// What is wrong with the settings beyond what is wrong for any database: a line each. Asks no service.
    fn problems(&self, store: &config::Store) -> Vec<String> {
        let url = store.url.expose();
        match url.contains("://") {
            true => config::address_problem("store.url", url).into_iter().collect(),
            false => vec![format!("`store.url` must be an address such as {}", self.example())],
        }
    }

    /// Whether a pooler may stand before it (`store.pooler`).
    fn has_poolers(&self) -> bool {
        false
    }

    /// Whether `messages` can be kept by days (`store.messages_retention`, `weir migrate --partitioned`).
    fn has_days(&self) -> bool {
        false
    }

    /// Prepares the connections; makes none yet.
    fn open(&self, store: &config::Store) -> Result<Arc<dyn Store>>;

    /// The steps of its schema.
    #[cfg(test)]
    fn steps(&self) -> (&'static str, &'static [Step]);

    /// What an error asks for, and what is told of it, without the payload; `None`: it is another database's.
    fn fault(&self, error: &(dyn DatabaseError + 'static)) -> Option<(Fault, String)>;

    /// How the auditor reads it.
    fn audit(&self, store: &config::Store) -> Result<Audit>;

    /// Whether a scratch place could be made without touching what is somebody else's. Asks no service.
    fn check_scratch(&self, _store: &config::Store) -> Result<()> {
        Ok(())
    }

    /// Makes an empty place of this name; the settings that lead to it.
    async fn make_scratch(&self, store: &config::Store, name: &str) -> Result<config::Store>;

    /// Removes it with all it holds. The settings are those with which it was made.
    async fn remove_scratch(&self, store: &config::Store, name: &str) -> Result<()>;
}

/// What the auditor says to a database, by sqlx's driver of any database, where databases differ.
#[derive(Debug)]
pub(crate) struct Audit {
    /// The address as that driver reads it, which would take some spellings for something else.
    pub(crate) url: String,
    /// Begins a transaction of any kind.
    pub(crate) begin: String,
    /// Begins one in which everything is seen as it is now, however long reading takes.
    pub(crate) hold_still: String,
    /// The type of column $2 of table $1.
    pub(crate) column_type: &'static str,
    /// Every counter: minutes since 1970, dimension, member, count.
    pub(crate) stats: &'static str,
    /// When a row of `messages` took effect, in microseconds since 1970.
    pub(crate) effect_us: &'static str,
    /// The word for text in a cast.
    pub(crate) text: &'static str,
    /// The word for a large whole number in a cast.
    pub(crate) bigint: &'static str,
    /// What stands for the first value of a statement.
    pub(crate) first: &'static str,
    /// The database's name, and what asks it for its version.
    #[cfg(feature = "load")]
    pub(crate) version: (&'static str, &'static str),
}

/// The driver of an address.
fn of(url: &str) -> Option<&'static dyn Driver> {
    let (scheme, _) = url.split_once(':')?;
    DRIVERS.iter().copied().find(|driver| driver.schemes().contains(&scheme))
}

/// The driver of the database at `store.url`.
pub(super) fn of_store(store: &config::Store) -> Result<&'static dyn Driver> {
    let unknown = || Error {
        fault: Fault::Fatal,
        action: "read store.url",
        message: format!("it names no database that this build of weir knows: give {}", examples()),
    };
    of(store.url.expose()).ok_or_else(unknown)
}

fn examples() -> String {
    let all: Vec<&str> = DRIVERS.iter().map(|driver| driver.example()).collect();
    match all.as_slice() {
        [others @ .., last] if !others.is_empty() => format!("{} or {last}", others.join(", ")),
        one => one.concat(),
    }
}

/// What is wrong with the settings of the database, where there is one: a line each. Asks no service.
#[must_use]
pub fn problems(store: Option<&config::Store>) -> Vec<String> {
    // That it is missing is told with what needs it.
    let Some(store) = store.filter(|store| !store.url.expose().is_empty()) else { return Vec::new() };
    let Some(driver) = of(store.url.expose()) else {
        return vec![format!("`store.url` must be an address such as {}", examples())];
    };
    let mut problems = driver.problems(store);
    if store.pooler.is_some() && !driver.has_poolers() {
        problems.push(
            "`store.pooler` is of PostgreSQL, and `store.url` names another kind of database: leave it out".to_owned(),
        );
    }
    if store.messages_retention.is_some() && !driver.has_days() {
        problems.push(
            "`store.messages_retention` is of PostgreSQL and MariaDB, and `store.url` names a database without partitions to drop: \
             leave it out"
                .to_owned(),
        );
    }
    problems
}

/// Whether `messages` can be kept by days in the database at `store.url`. Asks no service.
///
/// # Errors
/// The address is none, or the database has no partitions.
pub fn check_days(store: &config::Store) -> Result<()> {
    match of_store(store)?.has_days() {
        true => Ok(()),
        false => Err(days::none()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn no_two_databases_have_the_same_scheme_and_each_takes_its_example() {
        let mut schemes: Vec<&str> = DRIVERS.iter().flat_map(|driver| driver.schemes()).copied().collect();
        schemes.sort_unstable();
        assert!(schemes.windows(2).all(|two| two[0] != two[1]), "{schemes:?}");
        for driver in DRIVERS {
            let store = config::Store { url: driver.example().into(), ..config::Store::default() };
            assert_eq!(problems(Some(&store)), Vec::<String>::new(), "{driver:?}");
            assert_eq!(of_store(&store).unwrap().schemes(), driver.schemes());
        }
    }

    #[test]
    fn what_only_some_databases_have_is_refused_for_the_others() {
        for driver in DRIVERS {
            let of_all = config::Store { url: driver.example().into(), ..config::Store::default() };
            let refused = |store: &config::Store, key: &str| problems(Some(store)).concat().contains(key);
            let days = config::Store { messages_retention: Some(Duration::from_secs(86_400 * 90)), ..of_all.clone() };
            assert_eq!(refused(&days, "`store.messages_retention`"), !driver.has_days(), "{driver:?}");
            assert_eq!(check_days(&of_all).is_err(), !driver.has_days(), "{driver:?}");
            let pooled = config::Store { pooler: Some(config::Pooler::Transaction), ..of_all };
            assert_eq!(refused(&pooled, "`store.pooler`"), !driver.has_poolers(), "{driver:?}");
        }
    }
}
