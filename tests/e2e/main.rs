//! The promises, against real Kafka, PostgreSQL and Redis, with the real binary, looked at from outside the workers.
//!
//! The tests disturb the services that all of them use, so they run one after the other whatever the runner does.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a test's story, shown when it fails or is asked for")]

#[path = "../common/database.rs"]
#[expect(dead_code, reason = "the fault matrix asks more")]
mod database;
#[path = "../common/devtools.rs"]
mod devtools;
#[path = "../common/panels.rs"]
mod panels;
#[path = "../common/pgbouncer.rs"]
mod pgbouncer;
#[path = "../common/picture.rs"]
#[expect(dead_code, reason = "the reports of load ask more")]
mod picture;
#[path = "../faults/proxy.rs"]
#[expect(dead_code, reason = "the fault matrix has more weather")]
mod proxy;
#[path = "../common/services.rs"]
mod services;

mod audit;
mod batches;
mod bloom;
mod capacity;
mod console;
mod control;
mod crowd;
mod dashboards;
mod days;
mod dead;
#[cfg(feature = "avro")]
mod decoders;
mod examples;
mod fence;
mod first_start;
mod flow;
mod fuzz;
mod lag;
mod library;
mod load;
mod mapping;
mod membership;
mod metrics;
mod moderation;
mod outages;
mod park;
mod patterns;
mod pooled;
mod promises;
mod rate;
mod rebalances;
mod repeats;
mod restore;
mod retention;
mod routing;
mod scaling;
mod seek;
mod sqlite;
mod starts;
mod stop;
mod traces;
mod types;
mod unstored;
mod versions;
mod why;
mod worker;
mod world;
mod zombie;

use std::time::{Duration, Instant};

/// How long anything may take that should happen soon.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until something is so; panics with what it is when it never becomes so.
pub(crate) async fn until<T: std::fmt::Debug>(
    what: &str,
    patience: Duration,
    mut look: impl AsyncFnMut() -> (bool, T),
) {
    let deadline = Instant::now() + patience;
    loop {
        let (is_so, seen) = look().await;
        if is_so {
            return;
        }
        assert!(Instant::now() < deadline, "{what}: not within {patience:?}; last seen: {seen:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
