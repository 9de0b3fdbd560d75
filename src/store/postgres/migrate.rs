//! Bringing the schema up to this release. All steps are one transaction, under a lock that ends with it: one of the session,
//! as sqlx takes it, would stay with a pooler's connection when its client is gone.

use std::time::Duration;

use sqlx::{Connection as _, PgConnection};

use super::session;
use crate::config::Pooler;
use crate::store::connection::bounded;
use crate::store::migrations::Step;
use crate::store::{Result, fault, migrations};

pub(super) const ACTION: &str = "migrate the schema";

/// Whoever comes second waits, and then finds the steps recorded. The number is of no meaning but that it is the same.
const LOCK: &str = "SELECT pg_advisory_xact_lock(8245648573092)";

/// That a table is there already is no news.
const QUIETLY: &str = "SET LOCAL client_min_messages = warning";

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

pub(super) async fn run(db: &mut PgConnection, pooler: Option<Pooler>, deadline: Duration) -> Result<()> {
    let begin = sqlx::AssertSqlSafe(session::begin(pooler, QUIETLY));
    let mut steps = bounded(deadline, ACTION, db.begin_with(begin)).await?;
    sqlx::raw_sql(LOCK).execute(&mut *steps).await.map_err(|error| fault::error(ACTION, &error))?;
    migrations::apply(STEPS, &mut *steps, str::to_owned, false).await?;
    bounded(deadline, ACTION, steps.commit()).await
}
