//! Dead rows that somebody asked to have replayed: carried out by the partition's own task, between its batches.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::Shared;
use super::ahead::{Next, Reading};
use super::partition::{Halt, Task};
use super::progress::{Phase, Progress, Standings};
use crate::event::Payload;
use crate::pipeline::{Batch, Replayed};
use crate::store::{Fault, Held, KeptDead};

/// How often requests are looked for.
const INTERVAL: Duration = Duration::from_secs(1);
/// How often, in looks, partitions with keys that are held back read them again: a good copy elsewhere may have settled
/// the event that holds one.
const LOOKS_A_READING: u64 = 5;
/// Rows read at once; a row can be as large as a record.
const ROWS_MAX: i64 = 16;
/// How long a task replays before records come first again.
const TURN: Duration = Duration::from_millis(500);
/// How long records may take to come first.
const RECORDS_FIRST: Duration = Duration::from_millis(10);

/// How a turn of replaying went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// Nothing is asked for any more.
    Done,
    /// As many rows as are read at once.
    Full,
    /// Records come first now.
    Over,
}

/// Looks for requests of the partitions that this process owns, until it is told to stop. The tasks themselves ask the
/// database nothing for as long as there are none.
pub(super) async fn watch<T: Payload>(shared: Arc<Shared<T>>, standings: Standings, stop: CancellationToken) {
    for look in 1_u64.. {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(INTERVAL) => {}
        }
        let owned: Vec<((String, i32), Arc<Progress>)> = standings
            .lock()
            .iter()
            .filter(|(_, progress)| progress.lock().owned.is_some())
            .map(|(name, progress)| (name.clone(), Arc::clone(progress)))
            .collect();
        let mut parked = 0;
        for (_, progress) in &owned {
            let keys = progress.lock().parked_keys;
            parked += keys;
            if keys > 0 && look % LOOKS_A_READING == 0 {
                progress.replay.notify_one();
            }
        }
        shared.metrics.set_parked_keys(parked);
        if owned.is_empty() {
            continue;
        }
        let names: Vec<(String, i32)> = owned.iter().map(|(name, _)| name.clone()).collect();
        match shared.pipelines.store.due_replays(&shared.name, &names).await {
            Ok(due) => {
                let asked = owned.iter().filter(|(name, _)| due.contains(name));
                asked.for_each(|(_, progress)| progress.replay.notify_one());
            }
            // The tasks tell of a database that is away; a statement that fails otherwise is for whoever looks.
            Err(error) => tracing::debug!(pool = &*shared.name, %error, "replays are not looked for yet"),
        }
    }
}

/// Ends when there are rows to replay; a moment later when the last turn was theirs.
async fn asked_to_replay(progress: &Progress, replayed_last: bool) {
    if replayed_last {
        tokio::time::sleep(RECORDS_FIRST).await;
    }
    progress.replay.notified().await;
}

impl<T: Payload> Task<T> {
    /// Waits for records, and replays dead rows meanwhile.
    pub(super) async fn next_or_replay(&mut self, reading: &mut Reading<T>, held: &Held) -> Result<Next<T>, Halt> {
        let progress = Arc::clone(&self.progress);
        loop {
            self.await_resumed().await?;
            self.progress.enter(Phase::Polling);
            let next = tokio::select! {
                biased;
                () = asked_to_replay(&progress, self.replayed_last) => None,
                next = self.next(reading) => Some(next?),
            };
            self.replayed_last = next.is_none();
            match next {
                Some(next) => return Ok(next),
                None => {
                    self.await_resumed().await?;
                    self.replay_some(held).await?;
                }
            }
        }
    }

    /// Replays the partition's dead rows that are asked for, in order, for a turn. `true`: there may be more.
    pub(super) async fn replay_some(&mut self, held: &Held) -> Result<bool, Halt> {
        let begun = Instant::now();
        self.progress.enter(Phase::Working);
        let mut turn = Turn::Full;
        let mut holds_keys = !self.parked.is_empty();
        while turn == Turn::Full && begun.elapsed() < TURN {
            let store = Arc::clone(&self.shared.pipelines.store);
            let rows = store.next_replays(&self.shared.name, &self.topic, self.partition, ROWS_MAX);
            let rows = self.unless_stopped(rows).await?;
            let Some(rows) = self.unless_failed(rows).await? else { break };
            holds_keys |= rows.iter().any(|row| row.holds_key);
            turn = self.replay_all(&rows, begun, held).await?;
        }
        if turn != Turn::Done {
            self.progress.replay.notify_one();
        }
        if holds_keys {
            self.read_parked().await?;
        }
        Ok(turn != Turn::Done)
    }

    async fn replay_all(&mut self, rows: &[KeptDead], begun: Instant, held: &Held) -> Result<Turn, Halt> {
        for row in rows {
            if self.stop.is_cancelled() {
                return Err(Halt::Stop);
            }
            if begun.elapsed() >= TURN || !self.replay_one(row, held).await? {
                return Ok(Turn::Over);
            }
        }
        let is_full = i64::try_from(rows.len()).unwrap_or(i64::MAX) >= ROWS_MAX;
        Ok(if is_full { Turn::Full } else { Turn::Done })
    }

    /// Replays a row. `false`: it could not be told what became of it, and the rows are to be read again. Other than a
    /// batch, a row is not tried for ever: live events come between.
    async fn replay_one(&mut self, row: &KeptDead, held: &Held) -> Result<bool, Halt> {
        let shared = Arc::clone(&self.shared);
        let mut batch = Batch::of_dead(&shared.decoding, &shared.pipelines, row);
        if let Some((fault, why)) = batch.waits_for() {
            self.after(fault, &why).await?;
            return Ok(false);
        }
        if let Err(error) = shared.pipelines.prepare(&mut batch).await {
            let fault = if error.fault == Fault::Outage { Fault::Busy } else { error.fault };
            self.after(fault, &error.message).await?;
            return Ok(false);
        }
        let turn = self.turn().await?;
        let mut replayed = shared.pipelines.replay(&batch, row, held).await;
        if let Err(failure) = replayed {
            if failure.error.fault != Fault::Reject {
                self.after(failure.error.fault, &failure.error.to_string()).await?;
                return Ok(false);
            }
            batch.reject(failure);
            replayed = shared.pipelines.replay(&batch, row, held).await;
        }
        drop(turn);
        match replayed {
            Ok(Replayed::Fenced) => {
                shared.metrics.fenced();
                tracing::warn!(place = %held.place, offset = held.next_offset, "fenced: the ledger has another owner or offset; nothing was replayed");
                Err(Halt::Retake)
            }
            Ok(replayed) => {
                batch.end_trace();
                self.note_replayed(&batch, row, &replayed).await;
                Ok(true)
            }
            Err(failure) => {
                self.after(failure.error.fault, &failure.error.to_string()).await?;
                Ok(false)
            }
        }
    }

    async fn note_replayed(&mut self, batch: &Batch<T>, row: &KeptDead, replayed: &Replayed) {
        let shared = &self.shared;
        self.progress.lock().moved_at = Instant::now();
        self.backoff = super::partition::backoff();
        let (metrics, outcome) = (
            shared.metrics.replayed(),
            match replayed {
                Replayed::Applied(_) => "applied",
                Replayed::Settled => "settled without an effect",
                Replayed::Rejected => "rejected again",
                Replayed::Gone | Replayed::Fenced => return,
            },
        );
        match replayed {
            Replayed::Applied(counts) => {
                metrics.applied.inc();
                shared.note_outcomes(counts);
                if let Some(processed) = shared.processed_set() {
                    processed.mark(&batch.settled_ids()).await;
                }
            }
            Replayed::Settled => metrics.settled.inc(),
            _ => metrics.rejected.inc(),
        }
        tracing::info!(
            pool = &*shared.name,
            topic = row.topic,
            partition = row.partition,
            offset = row.offset,
            outcome,
            "dead row replayed"
        );
    }
}
