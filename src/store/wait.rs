//! Waiting for a database that does not answer yet.

use std::time::{Duration, Instant};

use super::{Fault, Result, Store};

/// How often it is asked.
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// Waits until the database answers, and says so once.
///
/// # Errors
/// It does not answer in time, or it refuses weir.
pub(crate) async fn await_answer(store: &dyn Store, patience: Duration) -> Result<()> {
    let begun = Instant::now();
    let mut told = false;
    loop {
        match store.reach().await {
            Err(error) if error.fault == Fault::Outage && begun.elapsed() + ASK_AGAIN < patience => {
                if !told {
                    let limit = humantime::format_duration(patience);
                    tracing::warn!("waiting for the database, up to {limit}: {error}");
                    told = true;
                }
            }
            answer => return answer,
        }
        tokio::time::sleep(ASK_AGAIN).await;
    }
}
