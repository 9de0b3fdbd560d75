//! A release of weir with one handler more: the whole command line, and `receipts` for configuration to name. The tests
//! deploy it worker by worker beside the binary, which lacks that handler, and take it back (`tests/e2e/versions.rs`).
//!
//! ```sh
//! cargo run --example newer_release -- run --config weir.toml
//! ```
//!
//! In the file, beside the pool's other pipelines:
//!
//! ```toml
//! [[pools.storage.pipelines]]
//! name = "receipts"
//! handler = "receipts"
//! ```
//!
//! and the database, beside weir's own tables (`weir migrate`):
//!
//! ```sql
//! CREATE TABLE receipts (partition integer NOT NULL, "offset" bigint NOT NULL, event_id text NOT NULL);
//! ```

use std::process::ExitCode;

use async_trait::async_trait;
use weir::event::{Document, Event};
use weir::handler::{Answer, Applied, Error, Handler, Item, register};
use weir::store::{self, Fault, Tx};

/// Notes where each event was when it took effect. The table has no key: an event that took effect twice would be there
/// twice, for whoever looks.
#[derive(Default)]
struct Receipts;

#[async_trait]
impl Handler<Document> for Receipts {
    type Work = ();

    async fn prepare(&self, events: &[&Event<Document>]) -> Result<Vec<Answer<()>>, Error> {
        Ok(vec![Answer::Apply(()); events.len()])
    }

    async fn apply(&self, tx: &mut dyn Tx, items: &[Item<'_, Document, ()>]) -> Result<Applied, store::Error> {
        let connection = tx.postgres().ok_or_else(|| store::Error {
            fault: Fault::Fatal,
            action: "write receipts",
            message: "this example's SQL is PostgreSQL's: give store.url as postgres://…".to_owned(),
        })?;
        let partitions: Vec<i32> = items.iter().map(|item| item.event.origin.partition).collect();
        let offsets: Vec<i64> = items.iter().map(|item| item.event.record.offset).collect();
        let ids: Vec<&str> = items.iter().map(|item| item.event.id.as_str()).collect();
        sqlx::query("INSERT INTO receipts SELECT * FROM unnest($1::integer[], $2::bigint[], $3::text[])")
            .bind(partitions)
            .bind(offsets)
            .bind(ids)
            .execute(connection)
            .await?;
        Ok(Applied::Done)
    }
}

fn main() -> ExitCode {
    register::<Receipts>("receipts");
    weir::cli::main()
}
