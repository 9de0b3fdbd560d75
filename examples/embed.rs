//! A pool inside a web service of one's own: it counts logins, and the service answers with the counts.
//!
//! ```sh
//! cargo run --example embed -- weir.toml 127.0.0.1:8080
//! curl 127.0.0.1:8080/logins/1001
//! ```
//!
//! The file has `[kafka]`, `[store]` and the pool:
//!
//! ```toml
//! [pools.logins]
//! topics = ["user-events"]
//! start = "beginning"
//! on_unknown_type = "pass"
//! ```
//!
//! and the database, beside weir's own tables (`weir migrate`):
//!
//! ```sql
//! CREATE TABLE logins (user_id text PRIMARY KEY, count bigint NOT NULL);
//! ```

use anyhow::Context as _;
use async_trait::async_trait;
use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::get;
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;
use weir::admin::Health;
use weir::config::Config;
use weir::event::{Event, Tagged};
use weir::handler::{Each, HandleEach};
use weir::metrics::Metrics;
use weir::payload::UserLogin;
use weir::pool::{Pool, Process};
use weir::store::{self, Fault, Tx};

const NAME: &str = "logins";

struct CountLogin;

#[async_trait]
impl HandleEach<UserLogin> for CountLogin {
    async fn apply(&self, tx: &mut dyn Tx, event: &Event<UserLogin>) -> Result<(), store::Error> {
        let connection = tx.postgres().ok_or_else(|| store::Error {
            fault: Fault::Fatal,
            action: "count a login",
            message: "this example's SQL is PostgreSQL's: give store.url as postgres://…".to_owned(),
        })?;
        sqlx::query("INSERT INTO logins VALUES ($1, 1) ON CONFLICT (user_id) DO UPDATE SET count = logins.count + 1")
            .bind(event.payload.user_id.to_string())
            .execute(connection)
            .await?;
        Ok(())
    }
}

#[derive(Clone)]
struct Service {
    db: PgPool,
    metrics: Metrics,
}

async fn logins(State(service): State<Service>, Path(user): Path<String>) -> Result<String, StatusCode> {
    let found =
        sqlx::query_scalar("SELECT count FROM logins WHERE user_id = $1").bind(user).fetch_optional(&service.db);
    let count: Option<i64> = found.await.map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
    Ok(count.unwrap_or(0).to_string())
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let usage = "usage: embed FILE ADDRESS:PORT";
    let mut args = std::env::args().skip(1);
    let config = Config::load(&[args.next().context(usage)?.into()], &[])?;
    let listener = tokio::net::TcpListener::bind(args.next().context(usage)?).await?;
    let url = config.store.as_ref().context("store.url is not set")?.url.expose();
    let service = Service { db: PgPool::connect_lazy(url)?, metrics: Metrics::new() };
    // The service has metrics and health of its own, and shows weir's beside them.
    let process = Process { metrics: service.metrics.clone(), health: Health::new([NAME]) };
    let pool = Pool::<UserLogin>::builder(NAME)
        .decoder(Tagged::by_field("type").variants(["user_login"]))
        .pipeline("count", Each(CountLogin))
        .process(process)
        .build(&config)?;
    let app = Router::new()
        .route("/logins/{user}", get(logins))
        .route("/metrics", get(|State(service): State<Service>| async move { service.metrics.render() }))
        .with_state(service);

    // One token stops both: a signal, the server's end and the pool's end each cancel it.
    let shutdown = CancellationToken::new();
    let stop = shutdown.clone();
    tokio::spawn(async move {
        // Without a handler for the signal there is no clean stop; then the signal ends the process as it would anyway.
        if tokio::signal::ctrl_c().await.is_ok() {
            stop.cancel();
        }
    });
    tracing::info!(address = %listener.local_addr()?, "listening");
    let serving = async {
        let _stop = shutdown.clone().drop_guard();
        axum::serve(listener, app).with_graceful_shutdown(shutdown.clone().cancelled_owned()).await
    };
    let consuming = async {
        let _stop = shutdown.clone().drop_guard();
        pool.run(shutdown.clone()).await
    };
    let (served, consumed) = tokio::join!(serving, consuming);
    consumed?;
    served?;
    Ok(())
}
