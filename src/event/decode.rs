//! How records become payloads, and what it means when one does not.

use std::marker::PhantomData;

use serde::de::DeserializeOwned;

use super::{Record, confluent};

/// Makes a payload of a record. Shipped are JSON ([`Json`], [`Fields`](super::Fields)), many types in one topic
/// ([`Tagged`](super::Tagged)), and with the features of their names Protobuf and Avro. The trait sees the whole record.
pub trait Decode<T>: Send + Sync + 'static {
    /// Decodes the record's value. It is called on the runtime's own threads, so it must not wait for anything: what is not
    /// there yet is fetched elsewhere, and said to be [`NotDecoded::Busy`].
    ///
    /// # Errors
    /// The record is no `T`, or cannot be read for now. The text is kept and logged, so it must not quote the payload.
    fn decode(&self, record: &Record) -> Result<T, NotDecoded>;
}

/// Why a record was not decoded, which decides what becomes of it. The text says what was found and expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotDecoded {
    /// It is not what the decoder expects and never will be: it goes to the dead rows.
    #[error("{0}")]
    Malformed(String),
    /// It is of a type that the decoder does not know: counted, and passed or set aside as the pool's `on_unknown_type` says.
    #[error("its type is none of those that the pool knows")]
    UnknownType,
    /// No event is at fault, and a person must act (another format, a schema that is missing): the partition is held.
    #[error("{0}")]
    Hold(String),
    /// What it takes is on its way, or away for a while: it is tried again until it is there.
    #[error("{0}")]
    Busy(String),
}

impl NotDecoded {
    /// The record will never be decoded; says why without quoting it.
    pub fn malformed(why: impl Into<String>) -> Self {
        Self::Malformed(why.into())
    }
}

/// Decodes JSON straight into a Rust type, without a tree in between. Fields that the type does not have are ignored.
#[derive(Debug)]
pub struct Json<T>(PhantomData<fn() -> T>);

impl<T> Default for Json<T> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T: DeserializeOwned + 'static> Decode<T> for Json<T> {
    fn decode(&self, record: &Record) -> Result<T, NotDecoded> {
        let value = record.value.as_deref().unwrap_or_default();
        serde_json::from_slice(value).map_err(|error| not_json(value, &error))
    }
}

/// Why a value is not the JSON that was expected.
pub(super) fn not_json(value: &[u8], error: &serde_json::Error) -> NotDecoded {
    confluent::instead_of_json(value).unwrap_or_else(|| malformed_json(error))
}

/// serde_json's messages quote values ("invalid type: string \"…\""), and a payload must not reach a log or a
/// dead row's message: only the kind of fault and its place are kept.
pub(super) fn malformed_json(error: &serde_json::Error) -> NotDecoded {
    let what = match error.classify() {
        serde_json::error::Category::Syntax => "not valid JSON",
        serde_json::error::Category::Eof => "the JSON ends too early",
        serde_json::error::Category::Data => "the JSON does not have the expected shape",
        serde_json::error::Category::Io => "the JSON could not be read",
    };
    NotDecoded::Malformed(format!("{what} at line {} column {}", error.line(), error.column()))
}
