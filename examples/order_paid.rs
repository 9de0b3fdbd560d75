//! Payments mark their orders paid: a step from one state to the next, in the transaction of the batch.
//!
//! ```sh
//! cargo run --example order_paid -- weir.toml
//! ```
//!
//! The file has `[kafka]`, `[store]` and the pool:
//!
//! ```toml
//! [pools.billing]
//! topics = ["order-events"]
//! start = "beginning"
//! on_unknown_type = "pass"       # other events of the topic are not this pool's
//! ```
//!
//! and the database, beside weir's own tables (`weir migrate`):
//!
//! ```sql
//! CREATE TABLE orders (id text PRIMARY KEY, status text NOT NULL DEFAULT 'UNPAID');
//! ```

use anyhow::Context as _;
use async_trait::async_trait;
use tokio_util::sync::CancellationToken;
use weir::config::Config;
use weir::event::{Event, Tagged};
use weir::handler::{Each, HandleEach};
use weir::payload::OrderPaid;
use weir::pool::Pool;
use weir::store::{self, Fault, Tx};

/// Marks orders paid. weir calls `apply` once for an event id; the condition on the old state makes the step harmless
/// beyond that, such as for a second payment of the same order, or one that another program has booked.
struct MarkPaid;

#[async_trait]
impl HandleEach<OrderPaid> for MarkPaid {
    async fn apply(&self, tx: &mut dyn Tx, event: &Event<OrderPaid>) -> Result<(), store::Error> {
        let connection = tx.postgres().ok_or_else(|| store::Error {
            fault: Fault::Fatal,
            action: "mark an order paid",
            message: "this example's SQL is PostgreSQL's: give store.url as postgres://…".to_owned(),
        })?;
        let order = event.payload.order_id.to_string();
        let updated = sqlx::query("UPDATE orders SET status = 'PAID' WHERE id = $1 AND status = 'UNPAID'")
            .bind(&order)
            .execute(connection)
            .await?;
        if updated.rows_affected() == 0 {
            // Done before, or no order of ours: nothing to do in either case.
            tracing::info!(order, "not unpaid; left as it is");
        }
        Ok(())
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let file = std::env::args().nth(1).context("usage: order_paid FILE")?;
    let config = Config::load(&[file.into()], &[])?;
    let pool = Pool::<OrderPaid>::builder("billing")
        .decoder(Tagged::by_field("type").variants(["order_paid"]))
        .pipeline("mark-paid", Each(MarkPaid))
        .build(&config)?;
    let shutdown = CancellationToken::new();
    let stop = shutdown.clone();
    tokio::spawn(async move {
        // Without a handler for the signal there is no clean stop; then the signal ends the process as it would anyway.
        if tokio::signal::ctrl_c().await.is_ok() {
            stop.cancel();
        }
    });
    pool.run(shutdown).await?;
    Ok(())
}
