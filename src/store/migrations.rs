//! Applies the schema's steps, which are compiled in. A step is a file in a database's folder `migrations`, and a line in its
//! `migrate.rs`.

use std::borrow::Cow;

use sqlx::migrate::{Migrate, MigrateError, Migration, MigrationType, Migrator};
use sqlx::{AssertSqlSafe, SqlSafeStr as _};

use super::{Error, Fault, Result, fault};

/// A file's name and its text.
pub(super) type Step = (&'static str, &'static str);

/// Applies the steps that a database lacks, each step's text made into what this database takes. Those of a newer release are
/// left alone. Others are kept out by sqlx's lock, or, since that is of the session or does nothing, by the caller's
/// transaction.
pub(super) async fn apply<C: Migrate>(
    steps: &[Step],
    connection: &mut C,
    made: impl Fn(&str) -> String,
    locks: bool,
) -> Result<()> {
    let steps = steps.iter().map(|(name, sql)| migration(name, made(sql))).collect();
    let mut migrator = Migrator::with_migrations(steps);
    migrator.set_ignore_missing(true).set_locking(locks);
    // `Migrator::run` would do, but its bounds do not let this future be sent between threads.
    migrator.run_direct(None, connection, false).await.map_err(failed)
}

/// What a step that failed asks for.
fn failed(error: MigrateError) -> Error {
    match error {
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => {
            fault::error("migrate the schema", &error)
        }
        error => Error { fault: Fault::Hold, action: "migrate the schema", message: error.to_string() },
    }
}

fn migration(name: &'static str, sql: String) -> Migration {
    let (version, description) = name.split_once('_').expect("a file is named by its number and what it does");
    let version = version.parse().expect("a file's name begins with its number");
    Migration::new(version, Cow::Borrowed(description), MigrationType::Simple, AssertSqlSafe(sql).into_sql_str(), false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(database: &str) -> Vec<String> {
        let folder =
            std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/store").join(database).join("migrations");
        let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.map(|name| name.trim_end_matches(".sql").to_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn every_file_is_a_step_and_every_step_has_its_file() {
        for driver in crate::store::DRIVERS {
            let (database, steps) = driver.steps();
            assert_eq!(steps.iter().map(|(name, _)| *name).collect::<Vec<_>>(), files(database), "{database}");
            assert!(
                steps
                    .iter()
                    .map(|(name, sql)| migration(name, (*sql).to_owned()))
                    .is_sorted_by_key(|step| step.version)
            );
        }
    }

    #[cfg(feature = "sqlite")]
    #[tokio::test]
    async fn dead_rows_of_the_previous_release_are_kept_and_it_can_write_on() {
        use sqlx::{Connection as _, Row as _};
        let mut all = crate::store::DRIVERS.iter().map(|driver| driver.steps());
        let (_, steps) = all.find(|(database, _)| *database == "sqlite").unwrap();
        let mut db = sqlx::SqliteConnection::connect("sqlite::memory:").await.unwrap();
        apply(&steps[..2], &mut db, str::to_owned, false).await.unwrap();
        let insert = "INSERT INTO weir_dead (pool, type, event_id, pipeline, reason, message, topic, topic_id, partition,
            \"offset\", key, value, headers, attempts, created_at) VALUES ('p', '', $1, 'x', 'refused', 'm', 't', 'i', 1, 2,
            x'00ff', x'7b', NULL, 3, 99)";
        sqlx::query(insert).bind("before").execute(&mut db).await.unwrap();
        apply(steps, &mut db, str::to_owned, false).await.unwrap();
        sqlx::query(insert).bind("after").execute(&mut db).await.unwrap();
        let rows = sqlx::query("SELECT * FROM weir_dead ORDER BY event_id DESC").fetch_all(&mut db).await.unwrap();
        for (row, id) in rows.iter().zip(["before", "after"]) {
            assert_eq!(row.get::<String, _>("event_id"), id);
            assert_eq!((row.get::<Vec<u8>, _>("key"), row.get::<i64, _>("attempts")), (vec![0, 255], 3));
            assert_eq!((row.get::<i64, _>("created_at"), row.get::<bool, _>("holds_key")), (99, false));
            assert_eq!(row.get::<Option<i64>, _>("replay_at"), None);
        }
        assert_eq!(rows.len(), 2);
    }
}
