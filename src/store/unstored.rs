//! The store of a pool that has none: there is nothing in it, and nothing can be put into it.

use std::collections::HashMap;
use std::time::Duration;

use async_trait::async_trait;
use uuid::Uuid;

use super::{
    Asked, Change, Claim, Claimant, Column, Control, Controls, DeadFilter, DeadRows, Error, Fault, Finds, FoundVerdict,
    IdKey, KeptDead, LedgerRow, Move, Place, Release, RequestStanding, Result, Seeks, Store, Tx, UnpublishedLetter,
    UnpublishedVerdict, Verdicts,
};

/// No store.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Unstored;

fn none<T>(action: &'static str) -> Result<T> {
    Err(Error { fault: Fault::Fatal, action, message: "the pool has no store".to_owned() })
}

#[async_trait]
impl Store for Unstored {
    async fn migrate(&self) -> Result<()> {
        Ok(())
    }

    async fn check(&self) -> Result<()> {
        Ok(())
    }

    async fn describe(&self, _table: &str) -> Result<Vec<Column>> {
        none("describe a table")
    }

    async fn rows_as_json(&self, _table: &str, _columns: &[&str], _limit: i64) -> Result<Vec<String>> {
        none("read a lookup table")
    }

    async fn ledger(&self, _place: &Place) -> Result<Option<LedgerRow>> {
        Ok(None)
    }

    async fn ledger_of_group(&self, _group: &str) -> Result<HashMap<(Uuid, i32), LedgerRow>> {
        Ok(HashMap::new())
    }

    async fn knows_topic(&self, _group: &str, _topic: &str) -> Result<bool> {
        Ok(false)
    }

    async fn begin_ledger(&self, _rows: &[(Place, i64)]) -> Result<()> {
        none("begin a ledger")
    }

    async fn claim(&self, _place: &Place, _read: LedgerRow, _by: Claimant<'_>, _token: Uuid) -> Result<Claim> {
        none("claim a partition")
    }

    async fn pipelines(&self, _group: &str) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    async fn retire(&self, _group: &str, _pipeline: &str) -> Result<u64> {
        none("retire a pipeline")
    }

    async fn begin(&self) -> Result<Box<dyn Tx>> {
        none("begin a transaction")
    }

    async fn unpublished(
        &self,
        _pool: &str,
        _key: Option<&IdKey>,
        _partitions: &[(Uuid, i32)],
        _limit: i64,
    ) -> Result<Vec<UnpublishedLetter>> {
        Ok(Vec::new())
    }

    async fn published(&self, _pool: &str, _ids: &[(&str, &str)]) -> Result<()> {
        none("note published letters")
    }

    async fn forget_seen(&self, _pool: &str, _horizon: Duration, _limit: i64) -> Result<u64> {
        Ok(0)
    }
}

#[async_trait]
impl DeadRows for Unstored {
    async fn dead_rows(&self, _filter: &DeadFilter) -> Result<Vec<KeptDead>> {
        Ok(Vec::new())
    }

    async fn count_dead(&self, _filter: &DeadFilter) -> Result<i64> {
        Ok(0)
    }

    async fn request_replay(&self, _filter: &DeadFilter, _request: Uuid, _per_second: Option<f64>) -> Result<Asked> {
        none("ask for a replay")
    }

    async fn request_release(&self, _release: &Release, _request: Uuid, _per_second: Option<f64>) -> Result<Asked> {
        none("ask for a release")
    }

    async fn parked_keys(&self, _pool: &str, _topic: &str, _partition: i32) -> Result<Vec<(Vec<u8>, i64)>> {
        Ok(Vec::new())
    }

    async fn request_standing(&self, _request: Uuid) -> Result<RequestStanding> {
        Ok(RequestStanding::default())
    }

    async fn due_replays(&self, _pool: &str, _partitions: &[(String, i32)]) -> Result<Vec<(String, i32)>> {
        Ok(Vec::new())
    }

    async fn next_replays(&self, _pool: &str, _topic: &str, _partition: i32, _limit: i64) -> Result<Vec<KeptDead>> {
        Ok(Vec::new())
    }
}

#[async_trait]
impl Verdicts for Unstored {
    async fn unpublished_verdicts(
        &self,
        _pool: &str,
        _partitions: &[(Uuid, i32)],
        _limit: i64,
    ) -> Result<Vec<UnpublishedVerdict>> {
        Ok(Vec::new())
    }

    async fn published_verdicts(&self, _pool: &str, _verdicts: &[UnpublishedVerdict]) -> Result<()> {
        Ok(())
    }
}

#[async_trait]
impl Controls for Unstored {
    async fn control(&self, _group: &str) -> Result<Control> {
        Ok(Control::default())
    }

    async fn change_control(
        &self,
        _group: &str,
        _pool: &str,
        _change: &Change,
        _by: &str,
    ) -> Result<(Control, Control)> {
        none("steer a pool")
    }
}

#[async_trait]
impl Finds for Unstored {
    async fn row_of(&self, _key: &IdKey, _id: &str) -> Result<Option<String>> {
        Ok(None)
    }

    async fn seen_of(&self, _pool: &str, _id: &str) -> Result<Vec<(String, i64)>> {
        Ok(Vec::new())
    }

    async fn verdicts_of(&self, _pool: &str, _id: &str) -> Result<Vec<FoundVerdict>> {
        Ok(Vec::new())
    }
}

#[async_trait]
impl Seeks for Unstored {
    async fn seek(&self, _moves: &[Move], _moved_by: &str) -> Result<Option<Vec<i64>>> {
        none("move a ledger")
    }
}
