//! From a record to what becomes of it: an event, something to pass, to set aside, or to wait for.

use std::sync::Arc;

use crate::config::{self, OnTombstone, OnUnknownType};
use crate::event::{Decode, Event, EventId, NotDecoded, Origin, Payload, Record};
use crate::store::Fault;

/// How a pool reads records.
pub(crate) struct Decoding<T> {
    decoder: Box<dyn Decode<T>>,
    on_tombstone: OnTombstone,
    /// The types that the pool knows; empty: all that the decoder reads.
    types: Vec<String>,
    on_unknown_type: OnUnknownType,
}

/// What becomes of a record.
pub(super) enum Outcome<T> {
    Event(Event<T>),
    /// It is passed.
    Skip(Record),
    /// Of a type that the pool does not know.
    UnknownType {
        id: EventId,
        record: Record,
        skip: bool,
    },
    /// It is set aside.
    Malformed {
        id: EventId,
        record: Record,
        message: String,
    },
    /// It cannot be read for now, and nothing behind it may go before it.
    NotYet {
        record: Record,
        fault: Fault,
        why: String,
    },
}

/// Records that wait, and for what.
pub(super) struct Unread {
    pub(super) records: Vec<Record>,
    pub(super) fault: Fault,
    pub(super) why: String,
}

impl<T: Payload> Decoding<T> {
    pub(crate) fn new(decoder: Box<dyn Decode<T>>, pool: &config::Pool) -> Self {
        let config::Pool { on_tombstone, on_unknown_type, .. } = *pool;
        Self { decoder, on_tombstone, types: pool.types.clone(), on_unknown_type }
    }

    pub(super) fn decode(&self, origin: &Arc<Origin>, record: Record) -> Outcome<T> {
        if record.value.is_none() {
            return match self.on_tombstone {
                OnTombstone::Skip => Outcome::Skip(record),
                OnTombstone::Reject => malformed(origin, record, "a tombstone: the record has no value".to_owned()),
            };
        }
        let skip = self.on_unknown_type == OnUnknownType::Pass;
        match Event::decode(&*self.decoder, origin, record) {
            Ok(event) if self.knows(event.payload.kind()) => Outcome::Event(event),
            Ok(Event { id, record, .. }) => Outcome::UnknownType { id, record, skip },
            Err(refused) => {
                let (record, why) = *refused;
                match why {
                    NotDecoded::Malformed(message) => malformed(origin, record, message),
                    NotDecoded::UnknownType => {
                        Outcome::UnknownType { id: EventId::of_record(origin, &record), record, skip }
                    }
                    NotDecoded::Hold(why) => Outcome::NotYet { record, fault: Fault::Hold, why },
                    NotDecoded::Busy(why) => Outcome::NotYet { record, fault: Fault::Busy, why },
                }
            }
        }
    }

    fn knows(&self, kind: &str) -> bool {
        self.types.is_empty() || self.types.iter().any(|known| known == kind)
    }
}

fn malformed<T>(origin: &Origin, record: Record, message: String) -> Outcome<T> {
    Outcome::Malformed { id: EventId::of_record(origin, &record), record, message }
}
