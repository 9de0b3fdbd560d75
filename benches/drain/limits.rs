//! What nobody can beat: the database's `COPY` of the same rows, and the broker's own consumer, which drops what it reads.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use futures_util::TryStreamExt as _;
use sqlx::postgres::PgPoolCopyExt as _;
use sqlx::{Connection as _, PgConnection, PgPool};
use tokio::io::AsyncWriteExt as _;

use crate::drain::{Left, Run, Workload, migrate};
use crate::load::Backlog;
use crate::services::{Services, sql};
use crate::side::Job;

/// As many as are usual for a bulk load on few cores; eight were not faster.
const CONNECTIONS: usize = 4;

/// The rows of a filled table, in one file a connection, each in the order of its ids as a partition has them.
pub(crate) struct Rows {
    files: Vec<PathBuf>,
}

impl Rows {
    /// Takes them from the table that a side has just filled.
    pub(crate) async fn dump(services: &Services) -> Result<Self> {
        let pool = PgPool::connect(&services.postgres).await?;
        let mut files = Vec::new();
        for at in 0..CONNECTIONS {
            let path = std::env::temp_dir().join(format!("{}-{at}.rows", services.name));
            let select = format!(
                "COPY (SELECT * FROM messages WHERE abs(hashtext(conversation)) % {CONNECTIONS} = {at} ORDER BY message_id)
                 TO STDOUT (FORMAT binary)"
            );
            let mut rows = pool.copy_out_raw(&select).await?;
            let mut file = tokio::fs::File::create(&path).await.with_context(|| format!("write {}", path.display()))?;
            while let Some(chunk) = rows.try_next().await? {
                file.write_all(&chunk).await?;
            }
            file.flush().await?;
            files.push(path);
        }
        Ok(Self { files })
    }

    /// Copies them into the empty table, over all connections at once.
    pub(crate) async fn copy(&self, services: &Services, backlog: &Backlog) -> Result<Run> {
        let mut db = services.empty().await?;
        let job = Job::new(services, backlog, Workload::Persist);
        migrate(&job)?;
        sql(&mut db, "CHECKPOINT").await?;
        let begun = Instant::now();
        let copies = self.files.iter().map(|path| copy_in(&services.postgres, path));
        futures_util::future::try_join_all(copies).await?;
        let seconds = begun.elapsed().as_secs_f64();
        let left = Left::count(&mut db).await?;
        left.check(Workload::Persist, backlog.events)?;
        Ok(Run { seconds, first_s: 0.0, cpu_seconds: f64::NAN, peak_mib: f64::NAN, left })
    }
}

impl Drop for Rows {
    fn drop(&mut self) {
        for file in &self.files {
            std::fs::remove_file(file).ok();
        }
    }
}

async fn copy_in(postgres: &str, path: &Path) -> Result<()> {
    let mut db = PgConnection::connect(postgres).await?;
    let mut copy = db.copy_in_raw("COPY messages FROM STDIN (FORMAT binary)").await?;
    copy.read_from(tokio::fs::File::open(path).await?).await?;
    copy.finish().await?;
    Ok(())
}

/// Events a second that Apache Kafka's own consumer fetches from the topic, its start left out.
pub(crate) fn consumer_perf(services: &Services, backlog: &Backlog) -> Result<f64> {
    let libs = Path::new(env!("CARGO_MANIFEST_DIR")).join(".services/kafka-libs");
    let output = Command::new("java")
        .arg("-cp")
        .arg(format!("{}/*", libs.display()))
        .arg("org.apache.kafka.tools.ConsumerPerformance")
        .args(["--bootstrap-server", &services.brokers, "--topic", &backlog.topic, "--hide-header"])
        .args(["--messages", &backlog.events.to_string(), "--timeout", "60000"])
        .stderr(File::open("/dev/null")?)
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "the consumer's performance tool: {text}");
    // start, end, MB, MB/s, messages, messages/s, rebalance ms, fetch ms, fetch MB/s, fetch messages/s
    let line = text.lines().rev().find(|line| line.matches(',').count() >= 9).context("no figures in its output")?;
    line.rsplit(',').next().and_then(|rate| rate.trim().parse().ok()).with_context(|| format!("no rate in {line:?}"))
}
