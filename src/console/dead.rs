//! Dead rows, read only: a page of them, and one with what its record brought. Texts are cut, so that an answer has a bound.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use super::model::{DeadBody, DeadPage, DeadSummary};
use crate::config::Config;
use crate::shown;
use crate::store::{DeadFilter, KeptDead, Store};

/// Rows of a page.
pub(super) const PAGE_ROWS: i64 = 50;
/// How far one can page back: what lies behind is found by `weir dead list`.
pub(super) const SKIP_MAX: i64 = 10_000;
/// Bytes of a value that are shown.
const VALUE_BYTES_MAX: usize = 64 << 10;
/// Characters of any other text.
const TEXT_CHARS_MAX: usize = 1_000;
/// Rows of one id: one a type.
const OF_ONE_ID: i64 = 100;
/// Requests at a time; further ones are told to come again.
const ASKERS_MAX: usize = 4;
/// How long one may take.
const PATIENCE: Duration = Duration::from_secs(8);

/// Why there is no answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// What was asked for is not there.
    Unknown(String),
    /// Not now.
    Unavailable(String),
}

/// Which rows of a pool.
#[derive(Debug, Clone, Default)]
pub(super) struct Asked {
    pub(super) pool: String,
    pub(super) reason: Option<String>,
    pub(super) pipeline: Option<String>,
    pub(super) id: Option<String>,
    pub(super) skip: i64,
}

/// The dead rows of a process' pools.
pub(super) struct DeadRows {
    /// Those that have any.
    pools: Vec<String>,
    store: Option<Arc<dyn Store>>,
    turns: Semaphore,
}

impl DeadRows {
    pub(super) fn new(config: &Config, pools: &[String], store: Option<Arc<dyn Store>>) -> Self {
        let is_stored = |name: &&String| config.pools.get(*name).is_some_and(|pool| pool.needs_store());
        let pools = pools.iter().filter(is_stored).cloned().collect();
        Self { pools, store, turns: Semaphore::new(ASKERS_MAX) }
    }

    /// A page, the newest first.
    pub(super) async fn page(&self, asked: Asked) -> Result<DeadPage, Refused> {
        let skip = asked.skip.clamp(0, SKIP_MAX);
        let filter = DeadFilter { limit: PAGE_ROWS + 1, skip, without_bodies: true, ..filter(&asked) };
        let mut rows = self.read(filter).await?;
        let more = rows.len() as i64 > PAGE_ROWS && skip < SKIP_MAX;
        rows.truncate(usize::try_from(PAGE_ROWS).unwrap_or_default());
        Ok(DeadPage { pool: asked.pool, skip, more, rows: rows.iter().map(summary).collect() })
    }

    /// One row with what its record brought.
    pub(super) async fn row(&self, pool: &str, id: &str, kind: &str) -> Result<DeadBody, Refused> {
        let asked = Asked { pool: pool.to_owned(), id: Some(id.to_owned()), ..Asked::default() };
        let without_bodies = DeadFilter { limit: OF_ONE_ID, without_bodies: true, ..filter(&asked) };
        let gone = || Refused::Unknown("there is no such dead row any more".to_owned());
        // An id may have rows of several types, each with a large value: only the one that is meant is read whole.
        let at = self.read(without_bodies).await?.iter().position(|row| row.kind == kind).ok_or_else(gone)?;
        let skip = i64::try_from(at).unwrap_or_default();
        let rows = self.read(DeadFilter { limit: 1, skip, ..filter(&asked) }).await?;
        rows.iter().find(|row| row.kind == kind).map(body).ok_or_else(gone)
    }

    async fn read(&self, filter: DeadFilter) -> Result<Vec<KeptDead>, Refused> {
        if !self.pools.contains(&filter.pool) {
            return Err(Refused::Unknown(format!("this worker has no pool {:?} with dead rows", filter.pool)));
        }
        let Some(store) = &self.store else {
            return Err(Refused::Unavailable("the database's address cannot be used".to_owned()));
        };
        let Ok(_turn) = self.turns.try_acquire() else {
            return Err(Refused::Unavailable("others are looking at dead rows: try again in a moment".to_owned()));
        };
        match tokio::time::timeout(PATIENCE, store.dead_rows(&filter)).await {
            Ok(Ok(rows)) => Ok(rows),
            Ok(Err(error)) => Err(Refused::Unavailable(error.to_string())),
            Err(_) => Err(Refused::Unavailable("read dead rows: the database did not answer in time".to_owned())),
        }
    }
}

fn filter(asked: &Asked) -> DeadFilter {
    DeadFilter {
        pool: asked.pool.clone(),
        ids: asked.id.clone().map(|id| vec![id]),
        pipeline: asked.pipeline.clone(),
        reason: asked.reason.clone(),
        newest_first: true,
        ..DeadFilter::default()
    }
}

fn summary(row: &KeptDead) -> DeadSummary {
    DeadSummary {
        id: row.event_id.clone(),
        kind: row.kind.clone(),
        reason: row.reason.clone(),
        pipeline: row.pipeline.clone(),
        message: cut(&shown::safe(&row.message)),
        topic: row.topic.clone(),
        partition: row.partition,
        offset: row.offset,
        key: row.key.as_deref().map(|key| cut(&shown::line(first(key)))),
        attempts: row.attempts,
        created_ms: row.created_ms,
        published_ms: row.published_ms,
        replay_ms: row.replay_ms,
        holds_key: row.holds_key,
    }
}

fn body(row: &KeptDead) -> DeadBody {
    let value = row.value.as_deref();
    let value_bytes = value.map_or(0, <[u8]>::len);
    DeadBody {
        row: summary(row),
        record_ms: row.record_ms,
        headers: row.headers.as_deref().map(|headers| cut(&shown::line(first(headers)))).filter(|text| text != "[]"),
        value: value.map(|value| shown::whole(first(value))),
        value_bytes,
        is_cut: value_bytes > VALUE_BYTES_MAX,
    }
}

/// The beginning of bytes, not cut in the middle of a character.
fn first(bytes: &[u8]) -> &[u8] {
    let Some(head) = bytes.get(..VALUE_BYTES_MAX) else { return bytes };
    let broken = head.utf8_chunks().last().map_or(0, |chunk| chunk.invalid().len());
    if broken < 4 { &head[..head.len() - broken] } else { head }
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(TEXT_CHARS_MAX) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn kept(value: Vec<u8>) -> KeptDead {
        KeptDead {
            kind: String::new(),
            event_id: "e".to_owned(),
            pipeline: "persist".to_owned(),
            reason: "refused".to_owned(),
            message: "m".repeat(5_000),
            topic: "t".to_owned(),
            topic_id: Uuid::nil(),
            partition: 0,
            offset: 3,
            record_ms: None,
            key: Some(vec![b'k'; 100_000]),
            value: Some(value),
            headers: Some(b"[]".to_vec()),
            attempts: 1,
            created_ms: 5,
            published_ms: None,
            holds_key: false,
            replay_ms: None,
        }
    }

    #[test]
    fn what_a_record_brings_is_cut_and_cannot_steer_anything() {
        let whole = body(&kept(b"<script>\x1b[2J</script>".to_vec()));
        assert!(!whole.is_cut && whole.headers.is_none());
        assert!(whole.value.unwrap().ends_with("(21 bytes, hex)"), "control characters are no text");
        assert_eq!(whole.row.message.chars().count(), TEXT_CHARS_MAX + 1);
        assert_eq!(whole.row.key.unwrap().chars().count(), TEXT_CHARS_MAX + 1);
        let large = body(&kept("é".repeat(VALUE_BYTES_MAX).into_bytes()));
        assert!(large.is_cut);
        assert_eq!((large.value_bytes, large.value.unwrap().len()), (2 * VALUE_BYTES_MAX, VALUE_BYTES_MAX));
    }

    #[test]
    fn a_cut_does_not_make_bytes_of_a_text() {
        let odd = "x".to_owned() + &"é".repeat(VALUE_BYTES_MAX);
        let shown = body(&kept(odd.into_bytes())).value.unwrap();
        assert!(shown.starts_with("xéé") && shown.len() == VALUE_BYTES_MAX - 1, "{}", shown.len());
        assert!(body(&kept(vec![0xff; VALUE_BYTES_MAX + 1])).value.unwrap().contains("hex"));
    }

    #[tokio::test]
    async fn pools_of_others_and_a_missing_database_are_said_so() {
        let rows = DeadRows { pools: vec!["p".to_owned()], store: None, turns: Semaphore::new(1) };
        let asked = |pool: &str| Asked { pool: pool.to_owned(), ..Asked::default() };
        assert!(matches!(rows.page(asked("q")).await, Err(Refused::Unknown(_))));
        assert!(matches!(rows.page(asked("p")).await, Err(Refused::Unavailable(_))));
    }
}
