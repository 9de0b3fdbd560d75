//! The schema's steps. A statement that changes a table commits by itself, so a step that fails half way leaves what it
//! has done; every statement can be run again, so the step is.

use std::time::Duration;

use sqlx::MySqlConnection;

use crate::store::connection::bounded;
use crate::store::migrations::Step;
use crate::store::{Result, migrations};

/// Compares text byte by byte, spaces at its end included.
const BYTEWISE_MARIADB: &str = "utf8mb4_nopad_bin";
const BYTEWISE_MYSQL: &str = "utf8mb4_0900_bin";

/// The schema's steps: the files of the folder.
pub(super) const STEPS: &[Step] = &[
    ("0001_core", include_str!("migrations/0001_core.sql")),
    ("0002_messages", include_str!("migrations/0002_messages.sql")),
    ("0003_dead", include_str!("migrations/0003_dead.sql")),
    ("0004_pipelines", include_str!("migrations/0004_pipelines.sql")),
    ("0005_replays", include_str!("migrations/0005_replays.sql")),
    ("0006_verdicts", include_str!("migrations/0006_verdicts.sql")),
    ("0007_control", include_str!("migrations/0007_control.sql")),
];

pub(super) async fn run(db: &mut MySqlConnection, is_mariadb: bool, deadline: Duration) -> Result<()> {
    bounded(deadline, "migrate the schema", forget_unfinished(db)).await?;
    let bytewise = if is_mariadb { BYTEWISE_MARIADB } else { BYTEWISE_MYSQL };
    migrations::apply(STEPS, db, |sql| sql.replace("{bytewise}", bytewise), true).await
}

/// A step that was begun and not finished is begun anew.
async fn forget_unfinished(db: &mut MySqlConnection) -> sqlx::Result<()> {
    let table = "SELECT EXISTS (SELECT 1 FROM information_schema.tables
                                 WHERE table_schema = DATABASE() AND table_name = '_sqlx_migrations')";
    if sqlx::query_scalar::<_, bool>(table).fetch_one(&mut *db).await? {
        sqlx::query("DELETE FROM _sqlx_migrations WHERE success = FALSE").execute(db).await?;
    }
    Ok(())
}
