//! Who owns partitions, in the group and in the ledger.

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::PoolMetrics;
use super::family::families;
use super::pool::count;

families! {
    /// Rebalances of the consumer group that this worker took part in.
    rebalances: IntCounterVec = "weir_rebalances_total" ["pool"];
    /// Partitions assigned to this worker now.
    partitions_assigned: IntGaugeVec = "weir_partitions_assigned" ["pool"];
    /// Partitions claimed in the ledger.
    claims: IntCounterVec = "weir_claims_total" ["pool"];
    /// Batches refused by the ledger since another owner had claimed the partition.
    fences: IntCounterVec = "weir_fences_total" ["pool"];
    /// Size of the ledger's table, where the database tells it; a transaction that stays open makes it grow.
    ledger_bytes: IntGaugeVec = "weir_ledger_bytes" ["pool"];
    /// Offset commits to Kafka, by result: ok or error.
    commits: IntCounterVec = "weir_offset_commits_total" ["pool", "result"];
}

/// How an offset commit ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Commit {
    /// The broker took it.
    Ok,
    /// It was refused or never answered.
    Error,
}

#[derive(Debug)]
pub(super) struct Series {
    pub(super) rebalances: IntCounter,
    partitions_assigned: IntGauge,
    claims: IntCounter,
    pub(super) fences: IntCounter,
    ledger_bytes: IntGauge,
    commits_ok: IntCounter,
    commits_failed: IntCounter,
}

impl Series {
    pub(super) fn new(families: &Families, pool: &str) -> Self {
        Self {
            rebalances: families.rebalances.with_label_values(&[pool]),
            partitions_assigned: families.partitions_assigned.with_label_values(&[pool]),
            claims: families.claims.with_label_values(&[pool]),
            fences: families.fences.with_label_values(&[pool]),
            ledger_bytes: families.ledger_bytes.with_label_values(&[pool]),
            commits_ok: families.commits.with_label_values(&[pool, "ok"]),
            commits_failed: families.commits.with_label_values(&[pool, "error"]),
        }
    }
}

impl PoolMetrics {
    /// The group was rebalanced.
    pub fn rebalanced(&self) {
        self.series().ownership.rebalances.inc();
    }

    /// Partitions assigned now.
    pub fn set_partitions_assigned(&self, partitions: usize) {
        self.series().ownership.partitions_assigned.set(count(partitions));
    }

    /// A partition was claimed.
    pub fn claimed(&self) {
        self.series().ownership.claims.inc();
    }

    /// A batch was refused by the ledger.
    pub fn fenced(&self) {
        self.series().ownership.fences.inc();
    }

    /// The size of the ledger's table.
    pub fn set_ledger_bytes(&self, bytes: i64) {
        self.series().ownership.ledger_bytes.set(bytes);
    }

    /// An offset commit ended.
    pub fn committed(&self, result: Commit) {
        match result {
            Commit::Ok => self.series().ownership.commits_ok.inc(),
            Commit::Error => self.series().ownership.commits_failed.inc(),
        }
    }
}
