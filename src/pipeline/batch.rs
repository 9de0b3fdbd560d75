//! Consecutive events of one partition, handled together.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::Decoding;
use super::decoding::{Outcome, Unread};
use super::{ParkedKeys, Pipelines};
use crate::event::{Event, EventId, Origin, Payload, Record};
use crate::handler::{ErasedWork, Rejection};
use crate::store::{DeadRow, Fault, Reason};
use crate::telemetry::traces::{self, BatchTrace, Messages};

/// The name under which events that could not be decoded are set aside.
const DECODE: &str = "decode";
const UNKNOWN_TYPE: &str = "its type is none of those that the pool knows, and on_unknown_type is \"reject\"";

/// An event on its way through the pipelines.
pub(super) struct Entry<T> {
    pub(super) event: Event<T>,
    /// A bit for each pipeline that wants it.
    pub(super) wanted: u64,
    /// The processed set says that it is done; the transaction checks.
    pub(super) known: bool,
    /// Every pipeline that wants it has been asked about it.
    pub(super) prepared: bool,
    /// The pipeline that turned it down, and why.
    pub(super) rejected: Option<(Arc<str>, Rejection)>,
}

impl<T> Entry<T> {
    pub(super) fn is_wanted_by(&self, pipeline: usize) -> bool {
        self.wanted & (1 << pipeline) != 0
    }

    pub(super) fn is_open(&self) -> bool {
        self.wanted != 0 && !self.known && self.rejected.is_none()
    }
}

/// A record that could not be decoded.
struct Undecoded {
    id: EventId,
    record: Record,
    message: String,
}

/// Consecutive records of one partition, decoded and routed.
pub(crate) struct Batch<T> {
    pub(crate) origin: Arc<Origin>,
    pub(super) entries: Vec<Entry<T>>,
    undecoded: Vec<Undecoded>,
    /// Records passed over, kept in case the batch is taken apart again.
    skipped: Vec<Record>,
    /// What comes behind it and cannot be read for now.
    unread: Option<Unread>,
    /// Whether the type is part of an event's identity.
    is_typed: bool,
    /// What `prepare` made of the entries, by pipeline and entry.
    pub(super) work: Vec<Vec<Option<ErasedWork>>>,
    /// Where it begins.
    pub(crate) first_offset: i64,
    /// The ledger's offset when the batch is settled.
    pub(crate) next_offset: i64,
    pub(crate) tombstones: u64,
    /// Records of types that the pool does not know.
    pub(crate) unknown_types: u64,
    attempts: i32,
    /// Those of its keys that are held back, and how many rows they have.
    pub(super) parked_keys: ParkedKeys,
    /// How many keys of the partition are held back.
    pub(super) keys_held: usize,
    /// What becomes of it, where it has traced events.
    pub(super) trace: BatchTrace,
}

/// Which entries go where, once `prepare` has spoken.
pub(super) struct Plan {
    /// To the transaction: one entry an id, or all of them where repeats update.
    pub(super) open: Vec<usize>,
    /// To be checked: the processed set says that they are done.
    pub(super) known: Vec<usize>,
    /// To the dead rows, unless their id is live.
    pub(super) dead: Vec<DeadRow>,
}

/// What became of a batch's events, by pipeline.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) applied: Vec<u64>,
    pub(crate) duplicate: Vec<u64>,
    pub(crate) filtered: Vec<u64>,
    pub(crate) dead: Vec<u64>,
    /// Dead rows written, by reason.
    pub(crate) reasons: Vec<Reason>,
    /// The keys of those that hold them back, once a row.
    pub(crate) held_keys: Vec<Vec<u8>>,
    /// When those events were meant to be sent, in microseconds since 1970, that have an effect now and say so.
    pub(crate) intended_us: Vec<i64>,
}

impl<T: Payload> Batch<T> {
    /// Decodes and routes records, up to the first that cannot be read for now.
    pub(crate) fn decode(
        decoding: &Decoding<T>,
        pipelines: &Pipelines<T>,
        origin: &Arc<Origin>,
        records: Vec<Record>,
    ) -> Self {
        let first_offset = records.first().map_or(0, |record| record.offset);
        let next_offset = records.last().map_or(0, |record| record.offset + 1);
        let mut batch = Self {
            origin: Arc::clone(origin),
            entries: Vec::with_capacity(records.len()),
            undecoded: Vec::new(),
            skipped: Vec::new(),
            unread: None,
            is_typed: pipelines.claimer.is_none(),
            work: Vec::new(),
            first_offset,
            next_offset,
            tombstones: 0,
            unknown_types: 0,
            attempts: 0,
            parked_keys: ParkedKeys::new(),
            keys_held: 0,
            trace: trace(pipelines, origin, &records),
        };
        let mut records = records.into_iter();
        while let Some(record) = records.next() {
            batch.tombstones += u64::from(record.value.is_none());
            match decoding.decode(origin, record) {
                Outcome::Event(mut event) => {
                    pipelines.spell_as_the_key_does(&mut event.id);
                    batch.entries.push(pipelines.route(event));
                }
                Outcome::Skip(record) => batch.skipped.push(record),
                Outcome::UnknownType { id, record, skip } => {
                    batch.unknown_types += 1;
                    match skip {
                        true => batch.skipped.push(record),
                        false => batch.set_aside(pipelines, id, record, UNKNOWN_TYPE.to_owned()),
                    }
                }
                Outcome::Malformed { id, record, message } => batch.set_aside(pipelines, id, record, message),
                Outcome::NotYet { record, fault, why } => {
                    batch.next_offset = record.offset;
                    let records = std::iter::once(record).chain(records.by_ref()).collect();
                    batch.unread = Some(Unread { records, fault, why });
                }
            }
        }
        batch.forget_work(pipelines.list.len());
        batch
    }

    fn set_aside(&mut self, pipelines: &Pipelines<T>, mut id: EventId, record: Record, message: String) {
        pipelines.spell_as_the_key_does(&mut id);
        self.undecoded.push(Undecoded { id, record, message });
    }

    /// What the batch waits for, if none of it can be read for now.
    pub(crate) fn waits_for(&self) -> Option<(Fault, String)> {
        let unread = self.unread.as_ref().filter(|_| self.records() == 0)?;
        Some((unread.fault, unread.why.clone()))
    }

    /// Takes out what comes behind it and could not be read.
    pub(crate) fn take_unread(&mut self) -> Option<Vec<Record>> {
        self.unread.take().map(|unread| unread.records)
    }

    /// How many records it was decoded from, those that could not be read included.
    pub(crate) fn fetched(&self) -> usize {
        self.records() + self.unread.as_ref().map_or(0, |unread| unread.records.len())
    }

    /// The records it was made of, in their order.
    pub(crate) fn into_records(self) -> Vec<Record> {
        let mut records: Vec<Record> = self.entries.into_iter().map(|entry| entry.event.record).collect();
        records.extend(self.undecoded.into_iter().map(|undecoded| undecoded.record));
        records.extend(self.skipped);
        records.extend(self.unread.into_iter().flat_map(|unread| unread.records));
        records.sort_unstable_by_key(|record| record.offset);
        records
    }

    fn forget_work(&mut self, pipelines: usize) {
        self.work = (0..pipelines).map(|_| self.entries.iter().map(|_| None).collect()).collect();
    }

    /// The ids that `prepare` could be saved for, in the order [`note_known`](Self::note_known) takes answers.
    pub(crate) fn ids(&self) -> Vec<&str> {
        self.entries.iter().filter(|entry| entry.is_open()).map(|entry| entry.event.id.as_str()).collect()
    }

    /// Takes the processed set's answers for [`ids`](Self::ids).
    pub(crate) fn note_known(&mut self, hits: &[bool]) {
        let open = self.entries.iter_mut().filter(|entry| entry.is_open());
        for (entry, hit) in open.zip(hits) {
            entry.known = *hit;
        }
    }

    /// What the processed set says of these entries is wrong: they are prepared and applied.
    pub(crate) fn distrust(&mut self, entries: &[usize]) {
        for at in entries {
            self.entries[*at].known = false;
        }
    }

    /// Ids whose effects are there once the batch is settled.
    pub(crate) fn settled_ids(&self) -> Vec<&str> {
        let settled = self.entries.iter().filter(|entry| entry.is_open());
        settled.map(|entry| entry.event.id.as_str()).collect()
    }

    /// The keys of the events set aside so far, as hashes. A record without a key counts as a key of its own: who sent
    /// it is not known.
    pub(crate) fn rejected_keys(&self) -> Vec<u64> {
        let is_rejected = |entry: &&Entry<T>| {
            entry.rejected.as_ref().is_some_and(|(_, rejection)| rejection.reason != Reason::Parked)
        };
        let by_pipeline = self.entries.iter().filter(is_rejected).map(|entry| &entry.event.record);
        let records = by_pipeline.chain(self.undecoded.iter().map(|undecoded| &undecoded.record));
        records
            .map(|record| {
                let mut hasher = DefaultHasher::new();
                match &record.key {
                    Some(key) => key.hash(&mut hasher),
                    None => record.offset.hash(&mut hasher),
                }
                hasher.finish()
            })
            .collect()
    }

    /// How many records it was made of, tombstones left out.
    pub(crate) fn len(&self) -> usize {
        self.entries.len() + self.undecoded.len()
    }

    /// How many records it settles.
    pub(crate) fn records(&self) -> usize {
        self.len() + self.skipped.len()
    }

    /// The time stamps of its records, in milliseconds since 1970.
    pub(crate) fn timestamps_ms(&self) -> impl Iterator<Item = i64> {
        self.entries.iter().map(|entry| entry.event.record.timestamp_ms)
    }

    /// Says that it is settled, where it is traced.
    pub(crate) fn end_trace(&mut self) {
        let rejected = self.entries.iter().filter_map(|entry| {
            let (pipeline, rejection) = entry.rejected.as_ref()?;
            Some((entry.event.record.offset, &**pipeline, rejection.reason.as_str()))
        });
        let undecoded =
            self.undecoded.iter().map(|undecoded| (undecoded.record.offset, DECODE, Reason::Malformed.as_str()));
        self.trace.settled(rejected.chain(undecoded));
    }

    pub(crate) fn count_attempt(&mut self) {
        self.attempts = self.attempts.saturating_add(1);
    }

    /// Sorts the entries out: of several copies of one id a good one wins over a bad one, and the first over the
    /// others, unless repeats update.
    pub(super) fn plan(&self, takes_repeats: bool) -> Plan {
        let mut plan = Plan { open: Vec::new(), known: Vec::new(), dead: Vec::new() };
        let mut live: HashSet<(&str, &str)> = HashSet::with_capacity(self.entries.len());
        for (at, entry) in self.entries.iter().enumerate() {
            if entry.known {
                live.insert(self.identity(at));
                plan.known.push(at);
            } else if entry.is_open() && (live.insert(self.identity(at)) || takes_repeats) {
                plan.open.push(at);
            }
        }
        let mut dead: HashSet<(&str, &str)> = HashSet::new();
        // Of two copies of one id, the one that only waits behind its key may be the good one: it goes first.
        let rejected =
            self.entries.iter().enumerate().filter_map(|(at, entry)| Some((at, entry, entry.rejected.as_ref()?)));
        let (parked, turned_down): (Vec<_>, Vec<_>) =
            rejected.partition(|(.., (_, rejection))| rejection.reason == Reason::Parked);
        for (at, entry, (pipeline, rejection)) in parked.into_iter().chain(turned_down) {
            if !live.contains(&self.identity(at)) && dead.insert(self.identity(at)) {
                plan.dead.push(self.dead_row(self.identity(at), pipeline, rejection, &entry.event.record));
            }
        }
        if self.undecoded.is_empty() {
            return plan;
        }
        // What could not be decoded has no type; its id is any type's.
        let live_ids: HashSet<&str> = live.iter().map(|(_, id)| *id).collect();
        for Undecoded { id, record, message } in &self.undecoded {
            let identity = ("", id.as_str());
            if !live_ids.contains(identity.1) && dead.insert(identity) {
                let rejection = Rejection { reason: Reason::Malformed, message: message.clone() };
                plan.dead.push(self.dead_row(identity, DECODE, &rejection, record));
            }
        }
        plan
    }

    /// What makes an entry one and the same: its id, and its type where weir's own table claims ids.
    pub(super) fn identity(&self, at: usize) -> (&str, &str) {
        let event = &self.entries[at].event;
        (if self.is_typed { event.payload.kind() } else { "" }, event.id.as_str())
    }

    fn dead_row(&self, identity: (&str, &str), pipeline: &str, rejection: &Rejection, record: &Record) -> DeadRow {
        DeadRow {
            kind: identity.0.to_owned(),
            event_id: identity.1.to_owned(),
            pipeline: pipeline.to_owned(),
            reason: rejection.reason,
            message: rejection.message.clone(),
            origin: Arc::clone(&self.origin),
            offset: record.offset,
            key: record.key.as_deref().map(<[u8]>::to_vec),
            value: record.value.as_deref().map(<[u8]>::to_vec),
            headers: crate::event::headers_as_json(&record.headers),
            attempts: self.attempts.max(1),
            record_ms: record.timestamp_ms,
            holds_key: false,
        }
    }
}

/// Begins to note what becomes of records, where any of them is traced.
fn trace<T: Payload>(pipelines: &Pipelines<T>, origin: &Origin, records: &[Record]) -> BatchTrace {
    if !pipelines.tracer().is_on() {
        return BatchTrace::default();
    }
    let messages = Messages {
        topic: &origin.topic,
        partition: origin.partition,
        first_offset: records.first().map_or(0, |record| record.offset),
        count: records.len(),
    };
    let origins = records.iter().map(|record| {
        let tracestate = || record.header(traces::TRACESTATE);
        (traces::Origin::of(record.header(traces::TRACEPARENT), tracestate), record.offset)
    });
    pipelines.tracer().batch(messages, origins)
}

impl<T: Payload> Pipelines<T> {
    /// Two spellings of one UUID or number are one id.
    fn spell_as_the_key_does(&self, id: &mut EventId) {
        if let Some(spelt) = self.id_key().and_then(|key| key.kind.spelt(id.as_str()))
            && spelt != id.as_str()
        {
            *id = EventId::spelt(spelt.into_owned());
        }
    }

    fn route(&self, event: Event<T>) -> Entry<T> {
        let (mut wanted, mut rejected) = (0, None);
        for (at, pipeline) in self.list.iter().enumerate() {
            let asked_as = self.asked_as[at];
            if asked_as != at {
                wanted |= (wanted >> asked_as & 1) << at;
                continue;
            }
            let ask = || pipeline.when.as_ref().map_or(Ok(true), |when| (when.filter)(&event));
            let asked = catch_unwind(AssertUnwindSafe(ask));
            match asked.unwrap_or_else(|_| Err("the filter panicked".to_owned())) {
                Ok(true) => wanted |= 1 << at,
                Ok(false) => {}
                Err(message) => {
                    wanted |= 1 << at;
                    let rejection = Rejection { reason: Reason::WhenError, message };
                    rejected.get_or_insert((Arc::clone(&pipeline.name), rejection));
                }
            }
        }
        Entry { event, wanted, known: false, prepared: false, rejected }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Nothing;

    impl Payload for Nothing {
        fn kind(&self) -> &'static str {
            ""
        }
    }

    #[test]
    fn a_batch_taken_apart_gives_back_every_record_in_order() {
        let origin = Arc::new(Origin { topic: "t".into(), topic_id: uuid::Uuid::nil(), partition: 0 });
        let entry = |offset| {
            let record = Record::new(offset, "{}");
            let id = EventId::of_record(&origin, &record);
            let event = Event { id, origin: Arc::clone(&origin), record, payload: Nothing };
            Entry { event, wanted: 1, known: false, prepared: false, rejected: None }
        };
        let mut batch = Batch {
            origin: Arc::clone(&origin),
            entries: vec![entry(3), entry(7)],
            undecoded: Vec::new(),
            skipped: vec![Record { offset: 8, ..Record::default() }],
            unread: Some(Unread { records: vec![Record::new(9, "?")], fault: Fault::Hold, why: "a schema".to_owned() }),
            is_typed: false,
            work: Vec::new(),
            first_offset: 3,
            next_offset: 9,
            tombstones: 1,
            unknown_types: 0,
            attempts: 0,
            parked_keys: ParkedKeys::new(),
            keys_held: 0,
            trace: BatchTrace::default(),
        };
        assert_eq!((batch.records(), batch.fetched(), batch.waits_for()), (3, 4, None));
        let record = Record::new(5, "{");
        let id = EventId::of_record(&origin, &record);
        batch.undecoded.push(Undecoded { id, record, message: "no JSON".to_owned() });
        let offsets: Vec<i64> = batch.into_records().iter().map(|record| record.offset).collect();
        assert_eq!(offsets, [3, 5, 7, 8, 9]);
    }
}
