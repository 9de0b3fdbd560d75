//! The one transaction of a batch.
//!
//! A good and a bad copy of one id can be handled at the same moment, each in a transaction that does not see the other.
//! The good one looks for dead rows after it has written ([`Tx::unbury`]), and who sends a dead row's letter asks for its
//! id under a lock, which waits for whoever has written it ([`BatchTx::drop_live`]): one of the two meets the other.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::{AssertSqlSafe, MySqlConnection};

use super::NOW_MS;
use super::rows::{AT_ONCE, filled, pieces, size_for, tuples};
use super::session::Session;
use super::write::Rows;
use crate::store::connection::{OpenTx, bounded};
use crate::store::{
    ColumnData, Count, DeadRow, Fence, Held, IdKey, KeyType, Reason, Result, Table, Tx, UnpublishedLetter,
};

/// Waits for whoever has written a row, and keeps the row from being removed.
pub(super) const SHARED: &str = "LOCK IN SHARE MODE";
/// What a statement takes beside its largest value.
const STATEMENT_BYTES: usize = 64 << 10;

/// A transaction, and what its server takes at once.
pub(super) struct BatchTx {
    tx: OpenTx<sqlx::MySql>,
    pub(super) session: Arc<Session>,
    pub(super) packet_bytes: usize,
    /// No id that is claimed is expected to be there.
    pub(super) expects_new: bool,
}

impl BatchTx {
    pub(super) fn new(tx: OpenTx<sqlx::MySql>, session: Arc<Session>) -> Self {
        let packet_bytes = session.packet_bytes();
        Self { tx, session, packet_bytes, expects_new: false }
    }

    pub(super) fn connection(&mut self) -> &mut MySqlConnection {
        self.tx.connection()
    }

    pub(super) fn deadline(&self) -> Duration {
        self.tx.deadline
    }

    /// Those of the ids that a table holds, in the spelling they are asked for. `lock` is added to each statement.
    pub(super) async fn ids_in(&mut self, key: &IdKey, ids: &[&str], lock: &str) -> Result<HashSet<String>> {
        let IdKey { table, column, kind } = key;
        let known: Vec<(String, &str)> =
            ids.iter().filter_map(|id| Some((kind.spelt(id)?.into_owned(), *id))).collect();
        let mut found: HashSet<String> = HashSet::new();
        for asked in known.chunks(AT_ONCE) {
            let size = size_for(asked.len());
            let sql = format!(
                "SELECT CAST(\"{column}\" AS CHAR) FROM \"{table}\" WHERE \"{column}\" IN ({}) {lock}",
                tuples("?", size)
            );
            let mut select = sqlx::query_scalar::<_, String>(AssertSqlSafe(sql));
            for (spelt, _) in filled(asked, size) {
                select = match kind {
                    KeyType::Int => select.bind(spelt.parse::<i64>().ok()),
                    KeyType::Text | KeyType::Uuid => select.bind(spelt.as_str()),
                };
            }
            let deadline = self.deadline();
            found.extend(bounded(deadline, "look for ids", select.fetch_all(self.connection())).await?);
        }
        Ok(known.into_iter().filter(|(spelt, _)| found.contains(spelt)).map(|(_, id)| id.to_owned()).collect())
    }

    /// The types and ids of a pool that weir's own table holds, of these ids. `lock` is added to each statement.
    pub(super) async fn seen_in(&mut self, pool: &str, ids: &[&str], lock: &str) -> Result<HashSet<(String, String)>> {
        self.identities_in("weir_seen", "look for ids", pool, ids, lock).await
    }

    /// The types and ids of a pool that one of weir's tables holds, of these ids.
    async fn identities_in(
        &mut self,
        table: &str,
        action: &'static str,
        pool: &str,
        ids: &[&str],
        lock: &str,
    ) -> Result<HashSet<(String, String)>> {
        let mut found = HashSet::new();
        for asked in ids.chunks(AT_ONCE) {
            let size = size_for(asked.len());
            let sql = format!(
                "SELECT CONVERT(type USING utf8mb4), CONVERT(event_id USING utf8mb4) FROM {table}
                  WHERE pool = ? AND event_id IN ({}) {lock}",
                tuples("?", size)
            );
            let mut select = sqlx::query_as::<_, (String, String)>(AssertSqlSafe(sql)).bind(pool.as_bytes());
            for id in filled(asked, size) {
                select = select.bind(id.as_bytes());
            }
            let deadline = self.deadline();
            found.extend(bounded(deadline, action, select.fetch_all(self.connection())).await?);
        }
        Ok(found)
    }

    /// Removes those of the dead rows whose ids are live, and gives the others back.
    pub(super) async fn drop_live(
        &mut self,
        pool: &str,
        key: Option<&IdKey>,
        letters: Vec<UnpublishedLetter>,
    ) -> Result<Vec<UnpublishedLetter>> {
        let ids: Vec<&str> = letters.iter().map(|letter| letter.event_id.as_str()).collect();
        let live: Vec<bool> = match key {
            Some(key) => {
                let live = self.ids_in(key, &ids, SHARED).await?;
                ids.iter().map(|id| live.contains(*id)).collect()
            }
            None => {
                let live = self.seen_in(pool, &ids, SHARED).await?;
                let is_live = |letter: &UnpublishedLetter| is_among(&live, &letter.kind, &letter.event_id);
                letters.iter().map(is_live).collect()
            }
        };
        let mut left = Vec::with_capacity(letters.len());
        for (letter, is_live) in letters.into_iter().zip(live) {
            match is_live {
                true => self.remove_dead(pool, &letter.kind, &letter.event_id).await?,
                false => left.push(letter),
            }
        }
        Ok(left)
    }

    pub(super) async fn remove_dead(&mut self, pool: &str, kind: &str, event_id: &str) -> Result<()> {
        let delete = sqlx::query("DELETE FROM weir_dead WHERE pool = ? AND event_id = ? AND type = ?")
            .bind(pool.as_bytes())
            .bind(event_id.as_bytes())
            .bind(kind.as_bytes());
        let deadline = self.deadline();
        bounded(deadline, "remove dead rows", delete.execute(self.connection())).await.map(drop)
    }

    /// When a key is being released, what arrives of it is asked for like those before it.
    async fn release_of(&mut self, pool: &str, row: &DeadRow) -> Result<Option<i64>> {
        if !row.holds_key {
            return Ok(None);
        }
        let select = sqlx::query_scalar::<_, Option<i64>>(
            "SELECT max(replay_at) FROM weir_dead
              WHERE pool = ? AND holds_key AND topic = ? AND \"partition\" = ? AND \"key\" = ?",
        )
        .bind(pool.as_bytes())
        .bind(row.origin.topic.as_bytes())
        .bind(row.origin.partition)
        .bind(row.key.as_deref());
        let deadline = self.deadline();
        bounded(deadline, "keep a rejected event", select.fetch_one(self.connection())).await
    }

    /// The row's value, unless the server does not take so much: then it is left where it came from, and the message says so.
    fn keepable<'a>(&self, row: &'a DeadRow) -> (Option<&'a [u8]>, Option<&'a [u8]>, String) {
        let message = row.message.replace('\0', "\u{fffd}");
        let bytes = [&row.key, &row.value, &row.headers].into_iter().flatten().map(Vec::len).sum::<usize>();
        if bytes + STATEMENT_BYTES <= self.packet_bytes {
            return (row.value.as_deref(), row.headers.as_deref(), message);
        }
        let note = format!(
            "{message} (its {bytes} bytes are left in Kafka: more than the server's max_allowed_packet of {})",
            self.packet_bytes
        );
        (None, None, note)
    }
}

fn is_among(found: &HashSet<(String, String)>, kind: &str, event_id: &str) -> bool {
    match kind {
        "" => found.iter().any(|(_, id)| id == event_id),
        _ => found.contains(&(kind.to_owned(), event_id.to_owned())),
    }
}

#[async_trait]
impl Tx for BatchTx {
    /// Dead rows are looked for later, by what settles them: so there may be some.
    async fn fence(&mut self, held: &Held, next: i64, _pool: &str) -> Result<Fence> {
        let place = &held.place;
        let update = sqlx::query(AssertSqlSafe(format!(
            "UPDATE weir_ledger SET next_offset = ?, updated_at = {NOW_MS}
              WHERE group_name = ? AND topic_id = ? AND \"partition\" = ? AND owner = ? AND next_offset = ?"
        )))
        .bind(next)
        .bind(place.group.as_bytes())
        .bind(place.origin.topic_id.to_string())
        .bind(place.origin.partition)
        .bind(held.token.to_string())
        .bind(held.next_offset);
        let deadline = self.deadline();
        let done = bounded(deadline, "fence the batch", update.execute(self.connection())).await?;
        // The driver has rows counted that were found, changed or not.
        Ok(if done.rows_affected() == 1 { Fence::Passed { has_dead_rows: true } } else { Fence::Fenced })
    }

    async fn existing(&mut self, key: &IdKey, ids: &[&str]) -> Result<HashSet<String>> {
        self.ids_in(key, ids, "").await
    }

    fn assume_new(&mut self, _rows: usize) -> bool {
        self.expects_new = true;
        true
    }

    async fn claim_seen(&mut self, pool: &str, ids: &[(&str, &str)]) -> Result<Vec<bool>> {
        // In the key's order: unsorted batches of two partitions would deadlock on each other's ids.
        let mut order: Vec<usize> = (0..ids.len()).collect();
        order.sort_unstable_by_key(|at| (ids[*at].1, ids[*at].0));
        let new = self.insert_new(Rows::Seen { pool, ids }, order).await?;
        Ok((0..ids.len()).map(|at| new.contains(&at)).collect())
    }

    async fn existing_seen(&mut self, pool: &str, ids: &[(&str, &str)]) -> Result<HashSet<(String, String)>> {
        let event_ids: Vec<&str> = ids.iter().map(|(_, id)| *id).collect();
        let found = self.seen_in(pool, &event_ids, "").await?;
        let is_there = |(kind, id): &&(&str, &str)| is_among(&found, kind, id);
        Ok(ids.iter().filter(is_there).map(|(kind, id)| ((*kind).to_owned(), (*id).to_owned())).collect())
    }

    async fn insert(&mut self, table: &Table, ids: &[&str], columns: &[ColumnData<'_>]) -> Result<Vec<bool>> {
        self.write(table, ids, columns).await
    }

    /// The table has no other unique key than the one that is meant.
    async fn count(&mut self, counts: &[Count]) -> Result<()> {
        let mut sorted: Vec<&Count> = counts.iter().collect();
        sorted.sort_unstable();
        let (noted, added): (Vec<&Count>, Vec<&Count>) = sorted.into_iter().partition(|count| count.by.is_none());
        for (counts, on_duplicate) in [(added, "count = count + VALUES(count)"), (noted, "count = count")] {
            for counts in pieces(&counts) {
                let sql = format!(
                    "INSERT INTO weir_counts (minute, dimension, member, shard, count) VALUES {}
                     ON DUPLICATE KEY UPDATE {on_duplicate}",
                    tuples("(?, ?, ?, ?, ?)", counts.len())
                );
                let mut upsert = sqlx::query(AssertSqlSafe(sql));
                for count in counts {
                    upsert = upsert
                        .bind(count.minute)
                        .bind(count.dimension.as_bytes())
                        .bind(count.member.as_bytes())
                        .bind(count.shard)
                        .bind(count.by.unwrap_or(0));
                }
                let deadline = self.deadline();
                bounded(deadline, "add to counters", upsert.execute(self.connection())).await?;
            }
        }
        Ok(())
    }

    /// Of what is there already, `reason` is changed last: what is assigned before it still sees the old one.
    async fn bury(&mut self, pool: &str, rows: &[DeadRow]) -> Result<()> {
        const REPLACED: [&str; 15] = [
            "pipeline",
            "message",
            "topic",
            "topic_id",
            "partition",
            "offset",
            "key",
            "value",
            "headers",
            "attempts",
            "record_ms",
            "holds_key",
            "replay_at",
            "replay_request",
            "reason",
        ];
        let waits = format!("VALUES(reason) = '{0}' AND reason <> '{0}'", Reason::Parked.as_str());
        let replaced = REPLACED.map(|name| format!("\"{name}\" = IF({waits}, VALUES(\"{name}\"), \"{name}\")"));
        let sql = format!(
            "INSERT INTO weir_dead (pool, type, event_id, pipeline, reason, message, topic, topic_id, \"partition\", \"offset\",
                                    \"key\", value, headers, attempts, record_ms, holds_key, replay_at, created_at)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, {NOW_MS})
             ON DUPLICATE KEY UPDATE {}",
            replaced.join(", ")
        );
        for row in rows {
            let replay_at = self.release_of(pool, row).await?;
            let (value, headers, message) = self.keepable(row);
            let insert = sqlx::query(AssertSqlSafe(sql.as_str()))
                .bind(pool.as_bytes())
                .bind(row.kind.as_bytes())
                .bind(row.event_id.as_bytes())
                .bind(row.pipeline.as_bytes())
                .bind(row.reason.as_str())
                .bind(message)
                .bind(row.origin.topic.as_bytes())
                .bind(row.origin.topic_id.to_string())
                .bind(row.origin.partition)
                .bind(row.offset)
                .bind(row.key.as_deref())
                .bind(value)
                .bind(headers)
                .bind(row.attempts)
                .bind(row.record_ms)
                .bind(row.holds_key)
                .bind(replay_at);
            let deadline = self.deadline();
            bounded(deadline, "keep a rejected event", insert.execute(self.connection())).await?;
        }
        Ok(())
    }

    async fn unbury(&mut self, pool: &str, ids: &[(&str, &str)]) -> Result<()> {
        const ACTION: &str = "look for dead rows";
        let deadline = self.deadline();
        let any = sqlx::query_scalar::<_, bool>("SELECT EXISTS (SELECT 1 FROM weir_dead WHERE pool = ?)");
        if !bounded(deadline, ACTION, any.bind(pool.as_bytes()).fetch_one(self.connection())).await? {
            return Ok(());
        }
        let live: HashSet<(&str, &str)> = ids.iter().copied().collect();
        let event_ids: Vec<&str> = ids.iter().map(|(_, id)| *id).collect();
        let mut found = Vec::from_iter(self.identities_in("weir_dead", ACTION, pool, &event_ids, "").await?);
        // In the key's order, as others remove them.
        found.sort_unstable_by(|(kind, id), (other_kind, other_id)| (id, kind).cmp(&(other_id, other_kind)));
        for (kind, id) in found {
            if kind.is_empty() || live.contains(&(kind.as_str(), id.as_str())) {
                self.remove_dead(pool, &kind, &id).await?;
            }
        }
        Ok(())
    }

    async fn commit(self: Box<Self>) -> Result<()> {
        self.tx.end("commit the batch", "COMMIT").await
    }

    async fn rollback(self: Box<Self>) -> Result<()> {
        self.tx.end("roll the batch back", "ROLLBACK").await
    }

    fn any_connection(&mut self) -> Option<&mut (dyn std::any::Any + Send)> {
        Some(self.connection())
    }
}
