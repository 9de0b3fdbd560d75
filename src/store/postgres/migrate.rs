//! Bringing the schema up to this release. All steps are one transaction, under a lock that ends with it: one of the session,
//! as sqlx takes it, would stay with a pooler's connection when its client is gone.

use std::time::Duration;

use sqlx::{Connection as _, PgConnection};

use super::session;
use crate::config::Pooler;
use crate::store::connection::bounded;
use crate::store::{Result, fault, migrations};

pub(super) const ACTION: &str = "migrate the schema";

/// Whoever comes second waits, and then finds the steps recorded. The number is of no meaning but that it is the same.
pub(super) const LOCK: &str = "SELECT pg_advisory_xact_lock(8245648573092)";

/// That a table is there already is no news.
const QUIETLY: &str = "SET LOCAL client_min_messages = warning";

pub(super) async fn run(db: &mut PgConnection, pooler: Option<Pooler>, deadline: Duration) -> Result<()> {
    let begin = sqlx::AssertSqlSafe(session::begin(pooler, QUIETLY));
    let mut steps = bounded(deadline, ACTION, db.begin_with(begin)).await?;
    sqlx::raw_sql(LOCK).execute(&mut *steps).await.map_err(|error| fault::error(ACTION, &error))?;
    migrations::run_locked(migrations::POSTGRES, &mut *steps).await?;
    bounded(deadline, ACTION, steps.commit()).await
}
