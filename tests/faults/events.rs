//! The events of the load: good ones, repeats, and every kind that can never succeed.

use fastrand::Rng;
use uuid::Uuid;

/// 2026-01-01T00:00:00Z.
const EPOCH_MS: u64 = 1_767_225_600_000;

/// What must become of a record that was acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Its id has a row.
    Live,
    /// Its id has a dead row.
    Dead,
    /// It has no id of its own, and a dead row under its position.
    DeadByPosition,
    /// It is passed over.
    Passed,
}

/// A kind of event that is not the usual one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    Usual,
    CutOffJson,
    NotJson,
    NotUtf8,
    /// Nested 10,000 deep in a field that nobody asks for, which is no fault.
    Deep,
    /// Nested 10,000 deep where a text belongs.
    DeepContent,
    /// Nothing but 10,000 brackets.
    DeepOnly,
    /// A value of no bytes.
    Empty,
    /// No value at all.
    Tombstone,
    /// A text with a NUL, which no column holds.
    Nul,
    /// A number that its column cannot hold.
    Overflow,
    /// Refused by a constraint that only the database knows.
    OnlyTheDatabaseRefuses,
    /// 1.5 MB, and fine.
    Large,
    /// 1.5 MB, and refused: its letter does not fit the dead-letter topic.
    LargeAndRefused,
    /// Written by the next release of the producer: other types, more fields.
    NewSchema,
    /// Written by a release whose field has another name.
    BrokenSchema,
}

/// What a constraint of a row's table looks for.
pub(crate) const REFUSED_TEXT: &str = "only the database refuses";

impl Kind {
    pub(crate) fn fate(self) -> Fate {
        match self {
            Self::Usual | Self::Large | Self::NewSchema | Self::Deep => Fate::Live,
            Self::CutOffJson | Self::NotJson | Self::NotUtf8 | Self::DeepOnly | Self::Empty => Fate::DeadByPosition,
            Self::Nul
            | Self::Overflow
            | Self::OnlyTheDatabaseRefuses
            | Self::LargeAndRefused
            | Self::BrokenSchema
            | Self::DeepContent => Fate::Dead,
            Self::Tombstone => Fate::Passed,
        }
    }

    /// The reason that its dead row must name.
    pub(crate) fn reason(self) -> &'static str {
        match self.fate() {
            Fate::DeadByPosition => "malformed",
            _ => "refused",
        }
    }
}

/// A record to be sent.
#[derive(Debug, Clone)]
pub(crate) struct Made {
    pub(crate) id: String,
    pub(crate) kind: Kind,
    pub(crate) key: String,
    pub(crate) value: Option<Vec<u8>>,
}

/// Makes an event of a key's sequence. The time stamps of a key grow with its sequence.
pub(crate) fn make(rng: &mut Rng, kind: Kind, key: u64, sequence: u64, sent_ms: u128) -> Made {
    let id = Uuid::from_u128(rng.u128(..)).to_string();
    let at = EPOCH_MS + sequence * 137;
    let to = 1_000_000;
    let text = match kind {
        Kind::Nul => format!("{sent_ms} \\u0000"),
        Kind::OnlyTheDatabaseRefuses => format!("{sent_ms} {REFUSED_TEXT}"),
        Kind::Large => format!("{sent_ms} {}", "x".repeat(1_500_000)),
        Kind::LargeAndRefused => format!("{sent_ms} \\u0000{}", "x".repeat(1_500_000)),
        _ => format!("{sent_ms} number {sequence} of {key}"),
    };
    let message_type = if kind == Kind::Overflow { "3000000000" } else { "1" };
    let usual = || {
        format!(
            r#"{{"type":"new_message","message":{{"message_id":"{id}","from":{key},"to":"{to}","content":"{text}","message_type":{message_type},"timestamp":{at}}},"timestamp":{at}}}"#
        )
    };
    let value = match kind {
        Kind::CutOffJson => Some({
            let mut whole = usual().into_bytes();
            whole.truncate(rng.usize(1..whole.len()));
            whole
        }),
        Kind::NotJson => Some(b"hello \x01 world".to_vec()),
        Kind::NotUtf8 => Some(usual().replace("number", "\u{1}\u{1}").into_bytes().iter().map(|b| if *b == 1 { 0xff } else { *b }).collect()),
        Kind::Deep => Some(usual().replacen(r#"{"type""#, &format!(r#"{{"deep":{},"type""#, deep()), 1).into_bytes()),
        Kind::DeepContent => Some(usual().replace(&format!("\"{text}\""), &deep()).into_bytes()),
        Kind::DeepOnly => Some(deep().into_bytes()),
        Kind::Empty => Some(Vec::new()),
        Kind::Tombstone => None,
        Kind::NewSchema => Some(
            format!(
                r#"{{"schema":2,"trace":{{"ids":[1,2,3]}},"type":"new_message","message":{{"attachments":[],"message_id":"{id}","from":"{key}","to":{to},"content":"{text}","edited":null,"message_type":1,"timestamp":{at}}},"timestamp":{at}}}"#
            )
            .into_bytes(),
        ),
        Kind::BrokenSchema => Some(usual().replace(r#""content""#, r#""text""#).into_bytes()),
        _ => Some(usual().into_bytes()),
    };
    Made { id, kind, key: weir::payload::conversation_of_two(&key.to_string(), &to.to_string()), value }
}

/// Lists in lists.
fn deep() -> String {
    format!("{}1{}", "[".repeat(10_000), "]".repeat(10_000))
}
