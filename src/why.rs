//! One event's whole story: where it is in Kafka, where the ledger stands against it, what the database and the
//! processed set have of it. Changes nothing.
//!
//! Kafka has no index of ids, so topics are read: within bounds, which the story tells.

mod search;

use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

pub use search::Searched;
use search::{Found, Request};

use crate::config::{self, Config};
use crate::event::FieldsError;
use crate::kafka::resolved;
use crate::metrics::Metrics;
use crate::once::ProcessedSet;
use crate::source::LogError;
use crate::store::{self, DeadFilter, IdKey, KeptDead, KeyType, Reason, Store};

/// Dead rows looked at: an id has one a type.
const DEAD_MAX: i64 = 100;
/// Weir's own table of ids.
const SEEN: &str = "weir_seen";
/// How long the processed set's first answer is waited for: it connects only then.
const HINT_PATIENCE: Duration = Duration::from_secs(2);
const HINT_AGAIN: Duration = Duration::from_millis(100);

/// Why a story cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Kafka cannot be asked.
    #[error("{0}")]
    Kafka(String),
    /// The database's own error.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// A JSON pointer is wrong.
    #[error(transparent)]
    Fields(#[from] FieldsError),
    /// There is no such pool or topic.
    #[error("{0}")]
    Usage(String),
}

impl From<LogError> for Error {
    fn from(error: LogError) -> Self {
        Self::Kafka(error.to_string())
    }
}

/// How far Kafka is searched.
#[derive(Debug, Clone)]
pub struct Bounds {
    /// Only this topic.
    pub topic: Option<String>,
    /// Only records as young as this: milliseconds since 1970.
    pub since_ms: Option<i64>,
    /// At most so many records of a topic, the newest of each partition.
    pub records_max: u64,
}

/// One pool's part of the story.
#[derive(Debug, Serialize)]
pub struct Story {
    /// The pool.
    pub pool: String,
    /// Where the event's records are.
    pub places: Vec<Place>,
    /// What of Kafka was searched.
    pub searched: Vec<Searched>,
    /// What each pipeline left.
    pub effects: Vec<Effect>,
    /// Where it was set aside.
    #[serde(skip)]
    pub dead: Vec<KeptDead>,
    /// Whether the processed set knows it; `None`: there is none, or it does not answer.
    pub processed_set: Option<bool>,
    /// Whether it is a bitmap, which now and then knows what it was never told.
    pub processed_set_is_bitmap: bool,
    /// All of it in a sentence.
    pub verdict: String,
    /// Whether anything is known of it.
    pub is_known: bool,
}

/// One record of the event.
#[derive(Debug, Serialize)]
pub struct Place {
    /// The topic.
    pub topic: String,
    /// Its id.
    pub topic_id: Uuid,
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
    /// The record's time stamp, in milliseconds since 1970.
    pub record_ms: Option<i64>,
    /// Whether Kafka still has it: found there, not only named by a dead row.
    pub in_kafka: bool,
    /// Why it cannot be decoded.
    pub malformed: Option<String>,
    /// The first offset that the pool has not settled there.
    pub next_offset: Option<i64>,
}

impl Place {
    /// Whether the pool has passed it.
    #[must_use]
    pub fn is_passed(&self) -> bool {
        self.next_offset.is_some_and(|next| next > self.offset)
    }
}

/// What one pipeline left of the event.
#[derive(Debug, Serialize)]
pub struct Effect {
    /// The pipeline; empty for weir's own table of ids.
    pub pipeline: String,
    /// Where it was looked for.
    pub table: String,
    /// The row that is there.
    pub row: Option<Value>,
}

/// Tells what one pool knows of an id.
///
/// # Errors
/// A service does not answer, or the configuration does not fit.
pub async fn tell(config: &Config, pool: &str, store: &dyn Store, id: &str, bounds: &Bounds) -> Result<Story, Error> {
    let settings = config.pools.get(pool).ok_or_else(|| Error::Usage(format!("there is no pool {pool:?}")))?;
    let keys = keys(settings, store).await?;
    let id = keys.first().and_then(|(_, key)| key.kind.spelt(id)).map_or_else(|| id.to_owned(), Into::into);
    let mut effects = effects(pool, &keys, store, &id).await?;
    effects.extend(verdicts(pool, settings, store, &id).await?);
    let filter = DeadFilter {
        pool: pool.to_owned(),
        ids: Some(vec![id.clone()]),
        limit: DEAD_MAX,
        without_bodies: true,
        ..DeadFilter::default()
    };
    let dead = store.dead_rows(&filter).await?;
    let with_topics = resolved(&config.kafka, settings, config.startup_timeout).await.map_err(LogError::from)?;
    let request = Request::new(config, &with_topics, &id, keys.first().map(|(_, key)| key.kind), bounds)?;
    let searching = tokio::task::spawn_blocking(move || request.search()).await;
    let (found, searched) = searching.map_err(|error| Error::Kafka(format!("the search was cut off: {error}")))??;
    let places = places(settings.group_of(pool), store, found, &dead).await?;
    let processed_set = ask_processed_set(config, settings, pool, &id).await?;
    let is_bitmap = settings.processed_set == config::ProcessedSet::Bloom;
    let is_known = !places.is_empty()
        || !dead.is_empty()
        || processed_set == Some(true) && !is_bitmap
        || effects.iter().any(|effect| effect.row.is_some());
    let verdict = verdict(&places, &effects, &dead, is_known);
    Ok(Story {
        pool: pool.to_owned(),
        places,
        searched,
        effects,
        dead,
        processed_set,
        processed_set_is_bitmap: is_bitmap,
        verdict,
        is_known,
    })
}

/// The tables of the pool's `persist` pipelines, and the key of each.
async fn keys(settings: &config::Pool, store: &dyn Store) -> Result<Vec<(String, IdKey)>, Error> {
    let mut keys = Vec::new();
    for pipeline in settings.pipelines.iter().filter(|pipeline| pipeline.handler == "persist") {
        let table = pipeline.persist_table();
        let column = pipeline.persist_key();
        let described = store.describe(table).await?;
        let Some(known) = described.iter().find(|known| known.name == column) else {
            return Err(Error::Usage(format!("table {table} has no column {column}: correct the pipeline's key")));
        };
        let kind = KeyType::of(&known.kind).unwrap_or(KeyType::Text);
        let key = IdKey { table: table.to_owned(), column: column.to_owned(), kind };
        keys.push((pipeline.name.clone(), key));
    }
    Ok(keys)
}

async fn effects(pool: &str, keys: &[(String, IdKey)], store: &dyn Store, id: &str) -> Result<Vec<Effect>, Error> {
    let mut effects = Vec::new();
    for (pipeline, key) in keys {
        let row = store.row_of(key, id).await?;
        let row = row.map(|row| serde_json::from_str(&row).unwrap_or(Value::String(row)));
        effects.push(Effect { pipeline: pipeline.clone(), table: key.table.clone(), row });
    }
    if keys.is_empty() {
        let seen = store.seen_of(pool, id).await?;
        let row = |(kind, at): (String, i64)| serde_json::json!({"type": kind, "seen_at_ms": at});
        let rows: Vec<Value> = seen.into_iter().map(row).collect();
        let row = (!rows.is_empty()).then_some(Value::Array(rows));
        effects.push(Effect { pipeline: String::new(), table: SEEN.to_owned(), row });
    }
    Ok(effects)
}

/// What moderation keeps: nothing of what it allows.
async fn verdicts(pool: &str, settings: &config::Pool, store: &dyn Store, id: &str) -> Result<Vec<Effect>, Error> {
    let mut moderating = settings.pipelines.iter().filter(|pipeline| pipeline.handler == "moderate").peekable();
    if moderating.peek().is_none() {
        return Ok(Vec::new());
    }
    let found = store.verdicts_of(pool, id).await?;
    let effect = |pipeline: &config::Pipeline| {
        let row = found.iter().find(|found| found.pipeline == pipeline.name).map(|found| {
            serde_json::json!({
                "verdict": found.verdict,
                "reason": found.reason,
                "decided_at_ms": found.decided_ms,
                "status_event_sent": found.is_published,
            })
        });
        Effect { pipeline: pipeline.name.clone(), table: "weir_verdicts".to_owned(), row }
    };
    Ok(moderating.map(effect).collect())
}

/// Everything that is known of where the event is, and where the ledger stands there.
async fn places(group: &str, store: &dyn Store, found: Vec<Found>, dead: &[KeptDead]) -> Result<Vec<Place>, Error> {
    let ledger = store.ledger_of_group(group).await?;
    let next = |topic_id, partition| ledger.get(&(topic_id, partition)).map(|row| row.next_offset);
    let mut places: Vec<Place> = found
        .into_iter()
        .map(|found| Place {
            next_offset: next(found.topic_id, found.partition),
            topic: found.topic,
            topic_id: found.topic_id,
            partition: found.partition,
            offset: found.offset,
            record_ms: Some(found.record_ms),
            in_kafka: true,
            malformed: found.malformed,
        })
        .collect();
    for row in dead {
        let is_there = |place: &&mut Place| {
            (place.topic_id, place.partition, place.offset) == (row.topic_id, row.partition, row.offset)
        };
        // The pool reads more of a payload than its id, and may have met what does not decode only there.
        let malformed = (row.reason == Reason::Malformed.as_str()).then(|| row.message.clone());
        match places.iter_mut().find(is_there) {
            Some(place) => place.malformed = place.malformed.take().or(malformed),
            None => places.push(Place {
                topic: row.topic.clone(),
                topic_id: row.topic_id,
                partition: row.partition,
                offset: row.offset,
                record_ms: row.record_ms,
                in_kafka: false,
                malformed,
                next_offset: next(row.topic_id, row.partition),
            }),
        }
    }
    Ok(places)
}

async fn ask_processed_set(
    config: &Config,
    settings: &config::Pool,
    pool: &str,
    id: &str,
) -> Result<Option<bool>, Error> {
    let Some(redis) = &config.redis else { return Ok(None) };
    let set = ProcessedSet::configured(redis, settings, pool, Metrics::new().pool(pool)).map_err(Error::Usage)?;
    let Some(set) = set else { return Ok(None) };
    let asked = async {
        loop {
            if let Some(hits) = set.lookup(&[id]).await {
                return hits.first().copied();
            }
            tokio::time::sleep(HINT_AGAIN).await;
        }
    };
    Ok(tokio::time::timeout(HINT_PATIENCE, asked).await.ok().flatten())
}

fn verdict(places: &[Place], effects: &[Effect], dead: &[KeptDead], is_known: bool) -> String {
    let has_effect = effects.iter().any(|effect| effect.row.is_some());
    if let Some(row) = dead.first() {
        let waits = match (row.replay_ms, row.holds_key) {
            (Some(_), _) => "; its replay is asked for",
            (None, true) => "; later events of its key wait behind it",
            (None, false) => "",
        };
        let both = match has_effect {
            true if is_settled(row, effects) => ", and has an effect as well: run `weir verify`",
            true => "; an event of another type with this id is settled",
            false => "",
        };
        return format!("set aside by {:?}: {}{both}{waits}", row.pipeline, row.reason);
    }
    if has_effect {
        let kinds: Vec<String> = seen_kinds(effects).into_iter().flatten().map(|kind| format!("{kind:?}")).collect();
        let of = if kinds.is_empty() { String::new() } else { format!(", of type {}", kinds.join(" and of type ")) };
        return format!("settled: its effect is there{of}");
    }
    if let Some(place) = places.iter().find(|place| !place.is_passed()) {
        return match place.next_offset {
            Some(next) => format!("not handled yet: {} records come before it", place.offset - next),
            None => "not handled yet: the pool has not begun on its partition".to_owned(),
        };
    }
    if !places.is_empty() {
        return "passed without a row: no pipeline wants it, its id was forgotten (seen_horizon), it lies before the pool's \
                start, `weir seek` skipped it, or its row was removed since: `weir verify` tells whether it is lost"
            .to_owned();
    }
    if is_known {
        return "the processed set has handled it lately, and nothing else knows it: its row was removed since, or the \
                database is older than Redis"
            .to_owned();
    }
    "unknown: neither Kafka, as far as it was searched, nor the database has it".to_owned()
}

/// The types under which weir's own table has the id; `None` in a pool with a table, whose ids have no type.
fn seen_kinds(effects: &[Effect]) -> Option<Vec<&str>> {
    let seen = effects.iter().find(|effect| effect.table == SEEN)?.row.as_ref().and_then(Value::as_array);
    Some(seen.into_iter().flatten().filter_map(|row| row["type"].as_str()).collect())
}

/// Whether the event of a dead row has an effect. In weir's own table two types may share an id as two events, and a dead row
/// without a type may be any's.
fn is_settled(row: &KeptDead, effects: &[Effect]) -> bool {
    seen_kinds(effects).is_none_or(|kinds| row.kind.is_empty() || kinds.contains(&row.kind.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(offset: i64, next_offset: Option<i64>) -> Place {
        Place {
            topic: "t".to_owned(),
            topic_id: Uuid::nil(),
            partition: 0,
            offset,
            record_ms: None,
            in_kafka: true,
            malformed: None,
            next_offset,
        }
    }

    fn effect(row: Option<Value>) -> Effect {
        Effect { pipeline: "persist".to_owned(), table: "messages".to_owned(), row }
    }

    #[test]
    fn a_verdict_follows_from_what_is_there() {
        let row = || effect(Some(serde_json::json!({})));
        assert!(verdict(&[place(5, Some(6))], &[row()], &[], true).starts_with("settled"));
        assert!(verdict(&[place(5, Some(2))], &[effect(None)], &[], true).contains("3 records come before it"));
        assert!(verdict(&[place(5, None)], &[effect(None)], &[], true).contains("has not begun"));
        assert!(verdict(&[place(5, Some(6))], &[effect(None)], &[], true).starts_with("passed without a row"));
        assert!(verdict(&[], &[effect(None)], &[], true).starts_with("the processed set"));
        assert!(verdict(&[], &[effect(None)], &[], false).starts_with("unknown"));
    }

    #[test]
    fn an_effect_of_another_type_is_not_the_dead_events_own() {
        let seen = || {
            let row = serde_json::json!([{"type": "order_created", "seen_at_ms": 1}]);
            Effect { pipeline: String::new(), table: SEEN.to_owned(), row: Some(row) }
        };
        let told = |kind: &str, effect| verdict(&[], &[effect], &[dead(kind)], true);
        assert!(told("order_created", seen()).contains("has an effect as well"));
        assert!(told("", seen()).contains("has an effect as well"));
        let other = told("order_paid", seen());
        assert!(other.contains("of another type") && !other.contains("as well"), "{other}");
        assert!(told("", effect(Some(serde_json::json!({})))).contains("has an effect as well"));
        assert!(verdict(&[], &[seen()], &[], true).ends_with("of type \"order_created\""));
    }

    fn dead(kind: &str) -> KeptDead {
        KeptDead {
            kind: kind.to_owned(),
            event_id: "x".to_owned(),
            pipeline: "p".to_owned(),
            reason: "handler".to_owned(),
            message: String::new(),
            topic: "t".to_owned(),
            topic_id: Uuid::nil(),
            partition: 0,
            offset: 7,
            record_ms: None,
            key: None,
            value: None,
            headers: None,
            attempts: 1,
            created_ms: 0,
            published_ms: None,
            holds_key: false,
            replay_ms: None,
        }
    }
}
