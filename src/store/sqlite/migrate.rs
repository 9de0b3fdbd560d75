//! Bringing the schema up to this release. All steps are one transaction that begins as a writer: sqlx's own lock over
//! migrations does nothing on SQLite. Whoever comes second waits, and then finds the steps recorded.

use std::time::{Duration, Instant};

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _};

use crate::store::connection::bounded;
use crate::store::migrations::Step;
use crate::store::{Error, Fault, Result, migrations};

/// The pause before a file is tried again that somebody else is writing to.
const AGAIN: Duration = Duration::from_millis(50);

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

/// Makes the file if it is not there, and applies what it lacks; waits so long for others.
pub(super) async fn run(options: &SqliteConnectOptions, deadline: Duration) -> Result<()> {
    let options = options.clone().create_if_missing(true);
    let until = Instant::now() + deadline;
    loop {
        match attempt(&options, deadline).await {
            // SQLite does not wait by itself while another process turns a new file into one with a log (WAL).
            Err(Error { fault: Fault::Busy, .. }) if Instant::now() < until => tokio::time::sleep(AGAIN).await,
            done => return done,
        }
    }
}

async fn attempt(options: &SqliteConnectOptions, deadline: Duration) -> Result<()> {
    let mut connection = bounded(deadline, "open the database", options.connect()).await?;
    let mut steps = bounded(deadline, "migrate the schema", connection.begin_with("BEGIN IMMEDIATE")).await?;
    migrations::apply(STEPS, &mut *steps, str::to_owned, false).await?;
    bounded(deadline, "migrate the schema", steps.commit()).await?;
    bounded(deadline, "close the database", connection.close()).await
}
