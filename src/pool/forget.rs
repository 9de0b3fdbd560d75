//! Forgetting claimed ids that are older than their horizon: a repeat that comes later than that counts as new, which
//! the pool's `seen_horizon` states. Pools whose ids are claimed by a table of their own forget nothing.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::Shared;
use crate::event::Payload;

/// How often old ids are looked for.
const INTERVAL: Duration = Duration::from_secs(60);
/// Ids removed in one statement, so that none holds the database up.
const IDS_MAX: i64 = 5_000;

/// Runs until it is told to stop.
pub(super) async fn run<T: Payload>(shared: Arc<Shared<T>>, stop: CancellationToken) {
    if shared.pipelines.id_key().is_some() {
        return;
    }
    let mut wait = INTERVAL;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
        let forgotten = shared.pipelines.store.forget_seen(&shared.name, shared.config.seen_horizon, IDS_MAX).await;
        wait = match forgotten {
            Ok(forgotten) if forgotten.cast_signed() == IDS_MAX => Duration::ZERO,
            Ok(_) => INTERVAL,
            Err(error) => {
                // The tasks tell of a database that is away; a statement that fails otherwise is for whoever looks.
                tracing::debug!(pool = &*shared.name, %error, "old ids are not forgotten yet");
                INTERVAL
            }
        };
    }
}
