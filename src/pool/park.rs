//! Which keys of a partition are held back, as its task knows them: read from the database when the partition is claimed,
//! and again whenever others may have changed them.

use std::sync::Arc;

use super::partition::{Halt, Task};
use crate::config::OnReject;
use crate::event::{Payload, Record};
use crate::pipeline::{Batch, Counts};
use crate::store::Held;

impl<T: Payload> Task<T> {
    /// Decodes and routes records; those whose key is held back are set aside.
    pub(super) fn decode(&self, held: &Held, records: Vec<Record>) -> Batch<T> {
        let shared = &self.shared;
        let mut batch = Batch::decode(&shared.decoding, &shared.pipelines, &held.place.origin, records);
        self.set_parked_aside(&mut batch);
        batch
    }

    pub(super) fn set_parked_aside(&self, batch: &mut Batch<T>) {
        if !self.parked.is_empty() {
            batch.park(&self.parked);
        }
    }

    /// Reads which keys are held back.
    pub(super) async fn read_parked(&mut self) -> Result<(), Halt> {
        if self.shared.config.on_reject != OnReject::Park {
            return Ok(());
        }
        let store = Arc::clone(&self.shared.pipelines.store);
        loop {
            let keys = store.parked_keys(&self.shared.name, &self.topic, self.partition);
            let keys = self.unless_stopped(keys).await?;
            if let Some(keys) = self.unless_failed(keys).await? {
                self.parked = keys.into_iter().collect();
                self.progress.lock().parked_keys = self.parked.len();
                return Ok(());
            }
        }
    }

    /// Notes the keys that a settled batch holds back.
    pub(super) fn note_parked(&mut self, counts: &Counts) {
        for key in &counts.held_keys {
            *self.parked.entry(key.clone()).or_default() += 1;
        }
        self.progress.lock().parked_keys = self.parked.len();
    }

    /// Waits until a key that has too many rows is released, and releases it.
    pub(super) async fn wait_for_room(&mut self, why: &str, held: &Held) -> Result<(), Halt> {
        self.hold(why).await?;
        while self.replay_some(held).await? {}
        self.read_parked().await
    }
}
