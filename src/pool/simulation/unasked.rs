//! What operators ask of a store: in the simulation nobody does.

use async_trait::async_trait;
use uuid::Uuid;

use super::memory::{Connection, Open};
use crate::store::{
    Asked, Change, Control, Controls, DeadFilter, DeadRows, Finds, FoundVerdict, IdKey, KeptDead, Move, Rejected,
    Release, ReplayTx, RequestStanding, Result, Seeks, StoredVerdict, UnpublishedVerdict, VerdictTx, Verdicts,
};

#[async_trait]
impl DeadRows for Connection {
    async fn dead_rows(&self, _: &DeadFilter) -> Result<Vec<KeptDead>> {
        Ok(Vec::new())
    }

    async fn count_dead(&self, _: &DeadFilter) -> Result<i64> {
        Ok(0)
    }

    async fn request_replay(&self, _: &DeadFilter, _: Uuid, _: Option<f64>) -> Result<Asked> {
        Ok(Asked::default())
    }

    async fn request_release(&self, _: &Release, _: Uuid, _: Option<f64>) -> Result<Asked> {
        Ok(Asked::default())
    }

    async fn request_standing(&self, _: Uuid) -> Result<RequestStanding> {
        Ok(RequestStanding::default())
    }

    async fn due_replays(&self, _: &str, _: &[(String, i32)]) -> Result<Vec<(String, i32)>> {
        Ok(Vec::new())
    }

    async fn next_replays(&self, _: &str, _: &str, _: i32, _: i64) -> Result<Vec<KeptDead>> {
        Ok(Vec::new())
    }

    async fn parked_keys(&self, _: &str, _: &str, _: i32) -> Result<Vec<(Vec<u8>, i64)>> {
        Ok(Vec::new())
    }
}

#[async_trait]
impl ReplayTx for Open {
    async fn exhume(&mut self, _: &str, _: &KeptDead) -> Result<bool> {
        Ok(false)
    }

    async fn note_replayed(&mut self, _: &str, _: &[(&str, &str)]) -> Result<()> {
        Ok(())
    }

    async fn rebury(&mut self, _: &str, _: &KeptDead, _: &Rejected) -> Result<bool> {
        Ok(false)
    }

    async fn stop_key(&mut self, _: &str, _: &KeptDead) -> Result<()> {
        Ok(())
    }
}

#[async_trait]
impl Finds for Connection {
    async fn row_of(&self, _: &IdKey, _: &str) -> Result<Option<String>> {
        Ok(None)
    }

    async fn seen_of(&self, _: &str, _: &str) -> Result<Vec<(String, i64)>> {
        Ok(Vec::new())
    }

    async fn verdicts_of(&self, _: &str, _: &str) -> Result<Vec<FoundVerdict>> {
        Ok(Vec::new())
    }
}

#[async_trait]
impl Seeks for Connection {
    async fn seek(&self, _: &[Move], _: &str) -> Result<Option<Vec<i64>>> {
        Ok(None)
    }
}

#[async_trait]
impl Verdicts for Connection {
    async fn unpublished_verdicts(&self, _: &str, _: &[(Uuid, i32)], _: i64) -> Result<Vec<UnpublishedVerdict>> {
        Ok(Vec::new())
    }

    async fn published_verdicts(&self, _: &str, _: &[UnpublishedVerdict]) -> Result<()> {
        Ok(())
    }
}

#[async_trait]
impl VerdictTx for Open {
    async fn keep_verdicts(&mut self, _: &str, _: &str, _: &[StoredVerdict]) -> Result<()> {
        Ok(())
    }

    async fn set_status(&mut self, _: &IdKey, _: &[StoredVerdict]) -> Result<()> {
        Ok(())
    }
}

#[async_trait]
impl Controls for Connection {
    async fn control(&self, _: &str) -> Result<Control> {
        Ok(Control::default())
    }

    async fn change_control(&self, _: &str, _: &str, _: &Change, _: &str) -> Result<(Control, Control)> {
        Ok((Control::default(), Control::default()))
    }
}
