//! A store in memory, with one writer at a time as SQLite has it, and with the faults that a schedule asks for.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Notify;
use uuid::Uuid;

use super::Frozen;
use crate::store::{
    Claim, Claimant, Column, ColumnData, Count, DeadRow, Error, Fault, Fence, Held, IdKey, LedgerRow, Place, Result,
    Store, Table, Tx, UnpublishedLetter,
};

/// What is durable.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Data {
    pub(super) ledger: BTreeMap<i32, LedgerRow>,
    pub(super) seen: HashSet<String>,
    /// The ids in the order in which they were claimed.
    pub(super) order: Vec<String>,
    pub(super) dead: BTreeMap<String, (i32, i64)>,
    /// How often an effect is there, by pipeline and event id.
    pub(super) effects: HashMap<(String, String), i64>,
}

/// What a schedule makes of the beginning of a transaction, of a statement, of a commit or of what comes before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StoreFault {
    /// The transaction cannot begin.
    Away,
    /// The commit is refused, and nothing of it is there.
    Refused,
    /// The commit is done, and the answer to it is lost.
    Unanswered,
    /// Two transactions were in each other's way.
    Deadlock,
    /// The statement took too long.
    TooSlow,
    /// A service of a handler's does not answer.
    Unprepared,
}

/// Deliberate bugs, for the simulation to find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bug {
    /// The fence lets everybody pass.
    NoFence,
    /// Effects are durable before the commit.
    NoTransaction,
}

#[derive(Debug, Default)]
struct Inner {
    data: Data,
    writer: Option<u64>,
    transactions: u64,
    faults: VecDeque<StoreFault>,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Memory {
    inner: Arc<Mutex<Inner>>,
    freed: Arc<Notify>,
    bug: Option<Bug>,
}

impl Memory {
    pub(super) fn new(bug: Option<Bug>) -> Self {
        Self { bug, ..Self::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    pub(super) fn data(&self) -> Data {
        self.lock().data.clone()
    }

    /// A backup is put in place; transactions that were open end.
    pub(super) fn restore(&self, data: Data) {
        let mut inner = self.lock();
        inner.data = data;
        inner.writer = None;
        self.freed.notify_waiters();
    }

    pub(super) fn fail(&self, fault: StoreFault) {
        self.lock().faults.push_back(fault);
    }

    pub(super) fn calm(&self) {
        self.lock().faults.clear();
    }

    /// Ends the transaction of a client that does nothing, as the idle time-out does.
    pub(super) fn end_idle(&self) {
        self.lock().writer = None;
        self.freed.notify_waiters();
    }

    /// The next fault, if it is one of these.
    pub(super) fn fault(&self, of: &[StoreFault]) -> Option<StoreFault> {
        let mut inner = self.lock();
        let next = inner.faults.front().copied().filter(|fault| of.contains(fault))?;
        inner.faults.pop_front();
        Some(next)
    }
}

fn error(fault: Fault, message: &str) -> Error {
    Error { fault, action: "simulate", message: message.to_owned() }
}

/// A worker's connection to it.
#[derive(Clone)]
pub(super) struct Connection {
    pub(super) memory: Memory,
    pub(super) frozen: Frozen,
}

impl Connection {
    /// A worker that is stopped goes on when it is let go on; everything else may run meanwhile.
    async fn exchange(&self) {
        tokio::time::sleep(Duration::from_millis(1)).await;
        self.frozen.pass().await;
    }

    async fn open(&self) -> Result<Open> {
        self.exchange().await;
        let memory = self.memory.clone();
        loop {
            let freed = memory.freed.notified();
            {
                let mut inner = memory.lock();
                if inner.writer.is_none() {
                    inner.transactions += 1;
                    let id = inner.transactions;
                    inner.writer = Some(id);
                    let data = inner.data.clone();
                    drop(inner);
                    return Ok(Open { connection: self.clone(), id, data, assumes_new: false });
                }
            }
            freed.await;
        }
    }
}

/// An open transaction. Dropped, it leaves nothing.
pub(super) struct Open {
    connection: Connection,
    id: u64,
    data: Data,
    assumes_new: bool,
}

impl Open {
    async fn statement(&mut self) -> Result<()> {
        self.connection.exchange().await;
        match self.connection.memory.lock().writer == Some(self.id) {
            true => Ok(()),
            false => Err(error(Fault::Busy, "the transaction was ended for its idleness")),
        }
    }

    /// What the bug of having no transaction makes of a statement.
    fn leak(&self) {
        if self.connection.memory.bug == Some(Bug::NoTransaction) {
            self.connection.memory.lock().data = self.data.clone();
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let memory = &self.connection.memory;
        let mut inner = memory.lock();
        if inner.writer == Some(self.id) {
            inner.writer = None;
            memory.freed.notify_waiters();
        }
    }
}

#[async_trait]
impl Tx for Open {
    async fn fence(&mut self, held: &Held, next: i64, _: &str) -> Result<Fence> {
        self.statement().await?;
        let is_buggy = self.connection.memory.bug == Some(Bug::NoFence);
        let row = self.data.ledger.get_mut(&held.place.origin.partition);
        let owned =
            row.filter(|row| is_buggy || (row.owner == Some(held.token) && row.next_offset == held.next_offset));
        let Some(row) = owned else { return Ok(Fence::Fenced) };
        row.next_offset = next;
        self.leak();
        Ok(Fence::Passed { has_dead_rows: !self.data.dead.is_empty() })
    }

    fn assume_new(&mut self, _: usize) -> bool {
        self.assumes_new = true;
        true
    }

    async fn claim_seen(&mut self, _: &str, ids: &[(&str, &str)]) -> Result<Vec<bool>> {
        self.statement().await?;
        if self.assumes_new && ids.iter().any(|(_, id)| self.data.seen.contains(*id)) {
            return Err(error(Fault::Reject, "an id that was taken to be new is there"));
        }
        let fresh: Vec<bool> = ids.iter().map(|(_, id)| self.data.seen.insert((*id).to_owned())).collect();
        let claimed = ids.iter().zip(&fresh).filter(|(_, fresh)| **fresh).map(|((_, id), _)| (*id).to_owned());
        self.data.order.extend(claimed);
        self.leak();
        Ok(fresh)
    }

    async fn existing_seen(&mut self, _: &str, ids: &[(&str, &str)]) -> Result<HashSet<(String, String)>> {
        self.statement().await?;
        let known = ids.iter().filter(|(_, id)| self.data.seen.contains(*id));
        Ok(known.map(|(kind, id)| ((*kind).to_owned(), (*id).to_owned())).collect())
    }

    async fn count(&mut self, counts: &[Count]) -> Result<()> {
        self.statement().await?;
        for count in counts {
            *self.data.effects.entry((count.dimension.to_owned(), count.member.clone())).or_default() += 1;
        }
        self.leak();
        match self.connection.memory.fault(&[StoreFault::Deadlock, StoreFault::TooSlow]) {
            Some(StoreFault::Deadlock) => Err(error(Fault::Busy, "a deadlock")),
            Some(_) => Err(error(Fault::TooSlow, "a time-out")),
            None => Ok(()),
        }
    }

    async fn bury(&mut self, _: &str, rows: &[DeadRow]) -> Result<()> {
        self.statement().await?;
        for row in rows {
            self.data.dead.entry(row.event_id.clone()).or_insert((row.origin.partition, row.offset));
        }
        Ok(())
    }

    async fn unbury(&mut self, _: &str, ids: &[(&str, &str)]) -> Result<()> {
        self.statement().await?;
        for (_, id) in ids {
            self.data.dead.remove(*id);
        }
        Ok(())
    }

    async fn commit(mut self: Box<Self>) -> Result<()> {
        self.statement().await?;
        let fault = self.connection.memory.fault(&[StoreFault::Refused, StoreFault::Unanswered]);
        if fault == Some(StoreFault::Refused) {
            return Err(error(Fault::Outage, "the commit was refused"));
        }
        self.connection.memory.lock().data = self.data.clone();
        if fault == Some(StoreFault::Unanswered) {
            return Err(error(Fault::Outage, "the commit was not answered"));
        }
        Ok(())
    }

    async fn rollback(mut self: Box<Self>) -> Result<()> {
        self.statement().await
    }

    async fn existing(&mut self, _: &IdKey, _: &[&str]) -> Result<HashSet<String>> {
        Err(error(Fault::Fatal, "no pipeline of the simulation has a table"))
    }

    async fn insert(&mut self, _: &Table, _: &[&str], _: &[ColumnData<'_>]) -> Result<Vec<bool>> {
        Err(error(Fault::Fatal, "no pipeline of the simulation has a table"))
    }
}

#[async_trait]
impl Store for Connection {
    async fn migrate(&self) -> Result<()> {
        Ok(())
    }

    async fn check(&self) -> Result<()> {
        self.exchange().await;
        Ok(())
    }

    async fn describe(&self, _: &str) -> Result<Vec<Column>> {
        Ok(Vec::new())
    }

    async fn rows_as_json(&self, _: &str, _: &[&str], _: i64) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    async fn ledger(&self, place: &Place) -> Result<Option<LedgerRow>> {
        self.exchange().await;
        Ok(self.memory.lock().data.ledger.get(&place.origin.partition).copied())
    }

    async fn ledger_of_group(&self, _: &str) -> Result<HashMap<(Uuid, i32), LedgerRow>> {
        self.exchange().await;
        let rows = self.memory.lock().data.ledger.clone();
        Ok(rows.into_iter().map(|(partition, row)| ((super::TOPIC_ID, partition), row)).collect())
    }

    async fn knows_topic(&self, _: &str, _: &str) -> Result<bool> {
        self.exchange().await;
        Ok(!self.memory.lock().data.ledger.is_empty())
    }

    async fn begin_ledger(&self, rows: &[(Place, i64)]) -> Result<()> {
        let mut tx = self.open().await?;
        for (place, next_offset) in rows {
            let row = LedgerRow { owner: None, epoch: 0, next_offset: *next_offset, updated_ms: 0 };
            tx.data.ledger.entry(place.origin.partition).or_insert(row);
        }
        Box::new(tx).commit().await
    }

    async fn claim(&self, place: &Place, read: LedgerRow, _: Claimant<'_>, token: Uuid) -> Result<Claim> {
        let mut tx = self.open().await?;
        tx.statement().await?;
        let row = tx.data.ledger.get_mut(&place.origin.partition);
        let Some(row) = row.filter(|row| (row.epoch, row.next_offset) == (read.epoch, read.next_offset)) else {
            return Ok(Claim::Moved);
        };
        *row = LedgerRow { owner: Some(token), epoch: row.epoch + 1, ..*row };
        let next_offset = row.next_offset;
        Box::new(tx).commit().await?;
        Ok(Claim::Taken(Held::new(place.clone(), token, next_offset)))
    }

    async fn pipelines(&self, _: &str) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    async fn retire(&self, _: &str, _: &str) -> Result<u64> {
        Ok(0)
    }

    async fn begin(&self) -> Result<Box<dyn Tx>> {
        match self.memory.fault(&[StoreFault::Away]) {
            Some(_) => Err(error(Fault::Outage, "the database is away")),
            None => Ok(Box::new(self.open().await?)),
        }
    }

    async fn unpublished(
        &self,
        _: &str,
        _: Option<&IdKey>,
        _: &[(Uuid, i32)],
        _: i64,
    ) -> Result<Vec<UnpublishedLetter>> {
        Ok(Vec::new())
    }

    async fn published(&self, _: &str, _: &[(&str, &str)]) -> Result<()> {
        Ok(())
    }

    async fn forget_seen(&self, _: &str, _: Duration, _: i64) -> Result<u64> {
        Ok(0)
    }
}
