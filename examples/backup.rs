//! Copies every record into objects: of an S3 service, or of a folder.
//!
//! ```sh
//! cargo run --example backup -- weir.toml file:///var/backup/weir
//! cargo run --example backup -- weir.toml s3://bucket/prefix      # AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT, …
//! ```
//!
//! The file has `[kafka]`, perhaps `[redis]`, and the pool, which needs no database:
//!
//! ```toml
//! [pools.backup]
//! topics = ["order-events"]
//! start = "beginning"
//! on_tombstone = "skip"
//! ```
//!
//! A record's object is `TOPIC/TOPIC-ID/PARTITION/OFFSET`, so a record that is copied again, after a kill or a service that
//! did not answer, replaces itself.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use async_trait::async_trait;
use futures_util::{StreamExt as _, TryStreamExt as _};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt as _, PutPayload};
use tokio_util::sync::CancellationToken;
use weir::config::Config;
use weir::event::{Decode, Event, NotDecoded, Payload, Record};
use weir::handler::{Answer, Applied, Error, Handler, Item};
use weir::pool::Pool;
use weir::store::{self, Fault, Tx};

/// Objects written at a time, a partition.
const PUTS_MAX: usize = 16;
/// A put that hangs holds its partition up no longer than this, and is tried again.
const PUT_TIMEOUT: Duration = Duration::from_secs(10);

/// Any record, whatever is in it.
struct Raw;

impl Payload for Raw {
    fn kind(&self) -> &'static str {
        ""
    }
}

struct Anything;

impl Decode<Raw> for Anything {
    fn decode(&self, _record: &Record) -> Result<Raw, NotDecoded> {
        Ok(Raw)
    }
}

/// Writes each record into an object of its own.
struct Backup {
    objects: Arc<dyn ObjectStore>,
    prefix: Path,
}

impl Backup {
    fn path(&self, event: &Event<Raw>) -> Path {
        let (origin, offset) = (&event.origin, event.record.offset);
        [&*origin.topic, &origin.topic_id.to_string(), &origin.partition.to_string(), &format!("{offset:020}")]
            .into_iter()
            .fold(self.prefix.clone(), |path, part| path.join(part))
    }

    async fn put(&self, event: &Event<Raw>) -> Result<(), Error> {
        let path = self.path(event);
        let value = event.record.value.clone().unwrap_or_default();
        let put = self.objects.put(&path, PutPayload::from_bytes(value));
        match tokio::time::timeout(PUT_TIMEOUT, put).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(Error { fault: fault_of(&error), message: format!("write {path}: {error}") }),
            Err(_) => {
                let message = format!("write {path}: no answer within {PUT_TIMEOUT:?}");
                Err(Error { fault: Fault::Outage, message })
            }
        }
    }
}

/// A bucket that is missing or forbidden is for a person to mend; everything else may pass.
fn fault_of(error: &object_store::Error) -> Fault {
    match error {
        object_store::Error::NotFound { .. }
        | object_store::Error::PermissionDenied { .. }
        | object_store::Error::Unauthenticated { .. } => Fault::Hold,
        _ => Fault::Outage,
    }
}

/// In a pool without a store `prepare` is the effect. It may be called again for the same events, which is harmless, since an
/// object replaces itself; and Kafka's offset moves on only when all of a batch are there.
#[async_trait]
impl Handler<Raw> for Backup {
    type Work = ();

    async fn prepare(&self, events: &[&Event<Raw>]) -> Result<Vec<Answer<()>>, Error> {
        let mut puts = Vec::with_capacity(events.len());
        for event in events {
            puts.push(self.put(event));
        }
        futures_util::stream::iter(puts).buffer_unordered(PUTS_MAX).try_collect::<Vec<()>>().await?;
        Ok(events.iter().map(|_| Answer::Apply(())).collect())
    }

    async fn apply(&self, _tx: &mut dyn Tx, _items: &[Item<'_, Raw, ()>]) -> Result<Applied, store::Error> {
        Ok(Applied::Done)
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let usage = "usage: backup FILE file:///FOLDER | s3://BUCKET/PREFIX";
    let mut args = std::env::args().skip(1);
    let file = args.next().context(usage)?;
    let target = url::Url::parse(&args.next().context(usage)?).context(usage)?;
    let settings = std::env::vars().map(|(name, value)| (name.to_ascii_lowercase(), value));
    let (objects, prefix) = object_store::parse_url_opts(&target, settings).context("open the target")?;
    let config = Config::load(&[file.into()], &[])?;
    let pool = Pool::<Raw>::builder("backup")
        .without_store()
        .pipeline("backup", Backup { objects: objects.into(), prefix })
        .build_with(&config, Anything)?;
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
