//! Health and metrics over HTTP: `/metrics`, `/healthz`, `/readyz`, and `/latency` for the load harness.
//!
//! `/healthz` says whether the process should be restarted: 503 when a pool's poll loop has stood still for
//! longer than a restart would take. `/readyz` says whether it has started: 503 until every pool has joined
//! its group once. A pool stays ready without partitions, with held ones, and in outages after its start:
//! taking the worker away would help in none of these. The body, JSON, says what each pool waits for, which partitions
//! are held and why, and which dependencies are away, since when and with what error.

#[cfg(any(feature = "console", feature = "load"))]
pub(crate) mod ask;
mod limited;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub(crate) use limited::Limited;

use crate::metrics::{Dependency, Metrics};

/// How long a poll loop may stand still: as long as Kafka lets a member by default (max.poll.interval).
const STALL_MAX: Duration = Duration::from_secs(60);
/// Never polled yet: a pool that still waits for its database is not stalled.
const NEVER: u64 = u64::MAX;

/// Why the endpoint could not be served.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is taken, not this machine's, or not allowed.
    #[error(
        "listen on {address}: {source}; another process may have it: set health.listen to a free address, or to port 0"
    )]
    Listen {
        /// The configured address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
}

/// The state of a process's pools, as they report it. Clones share it.
#[derive(Clone, Debug)]
pub struct Health {
    pools: Arc<Mutex<BTreeMap<String, PoolHealth>>>,
    stall_max: Duration,
    started: Instant,
}

impl Health {
    /// The pools of this process, none of which has joined yet.
    pub fn new<'a>(pools: impl IntoIterator<Item = &'a str>) -> Self {
        let health = Self { pools: Arc::default(), stall_max: STALL_MAX, started: Instant::now() };
        for pool in pools {
            health.pool(pool);
        }
        health
    }

    /// Sets how long a poll loop may stand still before `/healthz` says so; 60 s otherwise.
    #[must_use]
    pub fn with_stall_max(self, stall_max: Duration) -> Self {
        Self { stall_max, ..self }
    }

    /// The handle through which a pool reports.
    pub fn pool(&self, name: &str) -> PoolHealth {
        let new = || PoolHealth { started: self.started, report: Arc::default() };
        lock(&self.pools).entry(name.to_owned()).or_insert_with(new).clone()
    }

    pub(crate) fn report(&self) -> Report {
        let pools: BTreeMap<String, PoolReport> =
            lock(&self.pools).iter().map(|(name, pool)| (name.clone(), pool.view(self.stall_max))).collect();
        Report {
            ready: pools.values().all(|pool| pool.joined),
            healthy: pools.values().all(|pool| !pool.stalled),
            pools,
        }
    }
}

/// A dependency that a pool leaves alone for now, but for a probe.
#[derive(Clone, Debug)]
pub struct OpenBreaker {
    /// Which.
    pub dependency: Dependency,
    /// When it first failed.
    pub since: SystemTime,
    /// What it failed with last.
    pub error: String,
}

/// How one pool reports its state. Clones report for the same pool.
#[derive(Clone, Debug)]
pub struct PoolHealth {
    started: Instant,
    report: Arc<Reported>,
}

#[derive(Debug)]
struct Reported {
    /// Milliseconds from the start of [`Health`], or [`NEVER`].
    polled_at_ms: AtomicU64,
    joined: AtomicBool,
    partitions: AtomicUsize,
    waiting_for: Mutex<Option<String>>,
    held: Mutex<Vec<(String, i32, String)>>,
    paused: Mutex<Option<PausedReport>>,
    breakers: Mutex<Vec<OpenBreaker>>,
}

impl Default for Reported {
    fn default() -> Self {
        Self {
            polled_at_ms: AtomicU64::new(NEVER),
            joined: AtomicBool::new(false),
            partitions: AtomicUsize::new(0),
            waiting_for: Mutex::default(),
            held: Mutex::default(),
            paused: Mutex::default(),
            breakers: Mutex::default(),
        }
    }
}

impl PoolHealth {
    /// The poll loop has come round.
    pub fn polled_now(&self) {
        self.report.polled_at_ms.store(self.now_ms(), Ordering::Relaxed);
    }

    /// The pool has joined its group, which it need do only once.
    pub fn joined(&self) {
        self.report.joined.store(true, Ordering::Relaxed);
    }

    /// Partitions assigned now.
    pub fn partitions(&self, assigned: usize) {
        self.report.partitions.store(assigned, Ordering::Relaxed);
    }

    /// What the pool waits for, such as `database`; `None` when for nothing.
    pub fn waiting_for(&self, dependency: Option<String>) {
        *lock(&self.report.waiting_for) = dependency;
    }

    /// The partitions held now: topic, number and reason of each.
    pub fn held(&self, partitions: Vec<(String, i32, String)>) {
        *lock(&self.report.held) = partitions;
    }

    /// The pause by an operator, while there is one.
    pub fn paused(&self, pause: Option<PausedReport>) {
        *lock(&self.report.paused) = pause;
    }

    /// The dependencies that are left alone now, since they do not answer.
    pub fn breakers(&self, open: Vec<OpenBreaker>) {
        *lock(&self.report.breakers) = open;
    }

    fn view(&self, stall_max: Duration) -> PoolReport {
        let polled_at_ms = self.report.polled_at_ms.load(Ordering::Relaxed);
        let polled_ms_ago = (polled_at_ms != NEVER).then(|| self.now_ms().saturating_sub(polled_at_ms));
        PoolReport {
            joined: self.report.joined.load(Ordering::Relaxed),
            stalled: polled_ms_ago.is_some_and(|ms| Duration::from_millis(ms) > stall_max),
            polled_ms_ago,
            partitions: self.report.partitions.load(Ordering::Relaxed),
            waiting_for: lock(&self.report.waiting_for).clone(),
            paused: lock(&self.report.paused).clone(),
            holds: holds(&lock(&self.report.held)),
            breakers: lock(&self.report.breakers).iter().map(BreakerReport::of).collect(),
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(NEVER - 1)
    }
}

/// The body of `/healthz` and `/readyz`.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) ready: bool,
    pub(crate) healthy: bool,
    pub(crate) pools: BTreeMap<String, PoolReport>,
}

/// What a pool has reported of itself.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct PoolReport {
    /// Whether it has joined its group once.
    pub(crate) joined: bool,
    /// Whether its poll loop stands still.
    pub(crate) stalled: bool,
    pub(crate) polled_ms_ago: Option<u64>,
    pub(crate) partitions: usize,
    pub(crate) waiting_for: Option<String>,
    pub(crate) paused: Option<PausedReport>,
    pub(crate) holds: Vec<HoldReport>,
    pub(crate) breakers: Vec<BreakerReport>,
}

/// A pool that an operator has paused: since when and until when, in RFC 3339, by whom and why.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PausedReport {
    /// Since when.
    pub since: String,
    /// Until when; without it, until it is resumed.
    pub until: Option<String>,
    /// By whom.
    pub by: String,
    /// Why, if that was said.
    pub reason: Option<String>,
}

/// Partitions of a topic that are held for one reason.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct HoldReport {
    topic: String,
    pub(crate) held: usize,
    partitions: Vec<i32>,
    reason: String,
}

fn holds(partitions: &[(String, i32, String)]) -> Vec<HoldReport> {
    let mut by_reason: BTreeMap<(&str, &str), Vec<i32>> = BTreeMap::new();
    for (topic, partition, reason) in partitions {
        by_reason.entry((topic, reason)).or_default().push(*partition);
    }
    let report = |((topic, reason), mut partitions): ((&str, &str), Vec<i32>)| {
        partitions.sort_unstable();
        HoldReport { topic: topic.to_owned(), held: partitions.len(), partitions, reason: reason.to_owned() }
    };
    by_reason.into_iter().map(report).collect()
}

/// A dependency that is away.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct BreakerReport {
    pub(crate) dependency: String,
    pub(crate) since: String,
    pub(crate) error: String,
}

impl BreakerReport {
    fn of(open: &OpenBreaker) -> Self {
        Self {
            dependency: open.dependency.to_string(),
            since: humantime::format_rfc3339_seconds(open.since).to_string(),
            error: open.error.clone(),
        }
    }
}

/// Serves health and metrics until the shutdown, and returns the address that was bound.
///
/// # Errors
///
/// If the address cannot be listened on.
pub async fn serve(
    listen: SocketAddr,
    metrics: Metrics,
    health: Health,
    shutdown: CancellationToken,
) -> Result<(SocketAddr, JoinHandle<()>), Error> {
    let failed = |source| Error::Listen { address: listen, source };
    let listener = TcpListener::bind(listen).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    tracing::info!(%address, "health and metrics listening");
    let routes = Router::new().route("/metrics", get(render));
    #[cfg(feature = "load")]
    let routes = routes.route("/latency", get(latency));
    let routes = routes
        .with_state(metrics)
        .merge(Router::new().route("/healthz", get(healthz)).route("/readyz", get(readyz)).with_state(health));
    let task = tokio::spawn(async move {
        let served =
            axum::serve(Limited::new(listener), routes).with_graceful_shutdown(shutdown.cancelled_owned()).await;
        if let Err(error) = served {
            tracing::error!(%error, "health and metrics are no longer served: restart the worker");
        }
    });
    Ok((address, task))
}

async fn render(State(metrics): State<Metrics>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], metrics.render())
}

#[cfg(feature = "load")]
async fn latency(State(metrics): State<Metrics>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], metrics.render_latency())
}

async fn healthz(State(health): State<Health>) -> impl IntoResponse {
    let report = health.report();
    answer(report.healthy, &report)
}

async fn readyz(State(health): State<Health>) -> impl IntoResponse {
    let report = health.report();
    answer(report.ready, &report)
}

fn answer(good: bool, report: &Report) -> impl IntoResponse + use<> {
    let status = if good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = serde_json::to_string(report).expect("strings, numbers and booleans are always valid JSON");
    (status, [(header::CONTENT_TYPE, "application/json")], body)
}

/// A reporter that panicked leaves a whole value behind: every write is one assignment.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
