//! Workers that stood still while they sent rows. PostgreSQL applies no time-out to a `COPY` whose rows do not come: whoever
//! is frozen or cut off there would keep the ledger's row from its heir. So every worker looks for such, and ends them.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::Shared;
use crate::event::Payload;

/// How often they are looked for.
const INTERVAL: Duration = Duration::from_secs(2);

/// Runs until it is told to stop.
pub(super) async fn watch<T: Payload>(shared: Arc<Shared<T>>, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(INTERVAL) => {}
        }
        match shared.pipelines.store.end_silent().await {
            Ok(0) => {}
            Ok(ended) => {
                let pool = &*shared.name;
                tracing::warn!(
                    pool,
                    ended,
                    "a worker stood still while it sent rows, for longer than store.idle_in_transaction_timeout; its \
                     transaction was ended, so that its partition can go on elsewhere"
                );
            }
            // The tasks tell of a database that is away.
            Err(error) => {
                tracing::debug!(pool = &*shared.name, %error, "workers that stand still are not looked for yet");
            }
        }
    }
}
