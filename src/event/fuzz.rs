//! Records that nobody thought of. `FUZZ_CASES` asks for more of them, `FUZZ_SEED` for others.

use std::fmt::Debug;
use std::sync::Arc;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};
use serde_json::{Map, Value as Json};
use uuid::Uuid;

use super::record::{headers_as_json, headers_from_json};
use super::{Decode, Event, Fields, Header, ID_BYTES_MAX, NotDecoded, Origin, Record, Value};
use crate::config::EventFields;
use crate::payload::{Decoded, SHIPPED, of_any_type};

/// A word that stands in payloads and nowhere else.
const SECRET: &str = "sEcReT";

fn fuzz<S: Strategy>(strategy: &S, test: impl Fn(S::Value) -> Result<(), TestCaseError>)
where
    S::Value: Debug,
{
    let cases = std::env::var("FUZZ_CASES").map_or(2_000, |cases| cases.parse().unwrap());
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&std::env::var("FUZZ_SEED").map_or(1_u64, |seed| seed.parse().unwrap()).to_le_bytes());
    TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &seed))
        .run(strategy, test)
        .unwrap_or_else(|found| panic!("{found}"));
}

fn name() -> impl Strategy<Value = String> {
    select(vec!["a", "b", "0", "1", "", "a/b", "~", "ä", "message", "type", "order"]).prop_map(str::to_owned)
}

fn json() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        any::<u64>().prop_map(Json::from),
        any::<f64>().prop_filter("JSON has no other numbers", |number| number.is_finite()).prop_map(Json::from),
        any::<String>().prop_map(Json::from),
        Just(Json::from(SECRET)),
    ];
    leaf.prop_recursive(4, 40, 5, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Json::from),
            vec((name(), inner), 0..5).prop_map(|fields| Json::from(Map::from_iter(fields))),
        ]
    })
}

fn object() -> impl Strategy<Value = Json> {
    vec((name(), json()), 0..6).prop_map(|fields| Json::from(Map::from_iter(fields)))
}

fn pointer() -> impl Strategy<Value = String> {
    let step = |name: String| format!("/{}", name.replace('~', "~0").replace('/', "~1"));
    vec(name().prop_map(step), 1..4).prop_map(|steps| steps.concat())
}

fn picked(found: Option<&Json>) -> Value {
    match found {
        None => Value::Absent,
        Some(Json::Null) => Value::Null,
        Some(Json::Bool(value)) => Value::Bool(*value),
        Some(Json::Number(number)) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(number), ..) => Value::Int(number),
            (_, Some(number), _) => Value::Uint(number),
            (.., number) => Value::Float(number.unwrap()),
        },
        Some(Json::String(text)) => Value::Text(text.as_str().into()),
        Some(Json::Array(_) | Json::Object(_)) => Value::Composite,
    }
}

#[test]
fn fields_picked_in_one_pass_are_those_that_a_tree_has() {
    fuzz(&(object(), vec((pointer(), any::<bool>()), 1..6)), |(object, pointers)| {
        let text = object.to_string();
        // As the parser reads it: what it wrote may be another number by a bit.
        let object: Json = serde_json::from_str(&text).unwrap();
        let mut fields = Fields::new(&EventFields::default()).unwrap();
        let slots: Vec<_> = pointers
            .iter()
            .map(|(pointer, raw)| if *raw { fields.json(pointer) } else { fields.value(pointer) }.unwrap())
            .collect();
        let document = fields.decode(&Record::new(0, &text)).unwrap();
        for ((pointer, raw), slot) in pointers.iter().zip(slots) {
            let (found, expected) = (document.get(slot), object.pointer(pointer));
            match found {
                Value::Json(text) if *raw => {
                    let again: Json = serde_json::from_str(text).unwrap();
                    prop_assert_eq!(Some(&again), expected, "{}", pointer);
                }
                found if *raw => prop_assert_eq!((found, expected), (&Value::Absent, None), "{}", pointer),
                found => prop_assert_eq!(found, &picked(expected), "{}", pointer),
            }
        }
        Ok(())
    });
}

/// A change to bytes.
#[derive(Debug, Clone)]
enum Damage {
    Cut(Index),
    Set(Index, u8),
    Insert(Index, Vec<u8>),
    Repeat(Index, Index),
    Nest(Index, u16),
}

fn damage() -> impl Strategy<Value = Damage> {
    let piece = prop_oneof![
        vec(any::<u8>(), 1..5),
        select(vec![
            &b"\"\\u0000\""[..],
            b"\"\\ud800\"",
            b"\xff\xfe",
            b"1e999",
            b"-",
            b"{",
            b"]",
            b",",
            b"\"",
            b"null",
            b"18446744073709551616",
        ])
        .prop_map(<[u8]>::to_vec),
    ];
    prop_oneof![
        any::<Index>().prop_map(Damage::Cut),
        (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Damage::Set(at, byte)),
        (any::<Index>(), piece).prop_map(|(at, piece)| Damage::Insert(at, piece)),
        (any::<Index>(), any::<Index>()).prop_map(|(from, to)| Damage::Repeat(from, to)),
        (any::<Index>(), any::<u16>()).prop_map(|(at, depth)| Damage::Nest(at, depth)),
    ]
}

fn damaged(mut bytes: Vec<u8>, damages: &[Damage]) -> Vec<u8> {
    for damage in damages {
        let at = |index: &Index| index.index(bytes.len() + 1);
        match damage {
            Damage::Cut(to) => bytes.truncate(at(to)),
            Damage::Set(to, byte) => {
                let to = at(to);
                if let Some(old) = bytes.get_mut(to) {
                    *old = *byte;
                }
            }
            Damage::Insert(to, piece) => {
                let to = at(to);
                bytes.splice(to..to, piece.iter().copied());
            }
            Damage::Repeat(from, to) => {
                let (from, to) = (at(from).min(at(to)), at(from).max(at(to)));
                let piece = bytes[from..to].to_vec();
                bytes.splice(to..to, piece);
            }
            Damage::Nest(to, depth) => {
                let to = at(to);
                bytes.splice(to..to, std::iter::repeat_n(b'[', usize::from(*depth)));
            }
        }
    }
    bytes
}

/// Damages a sound value again and again: decoded, each has to be fine.
pub(super) fn damage_to(sound: &[u8], is_fine: impl Fn(Vec<u8>) -> bool) {
    fuzz(&vec(damage(), 1..5), |damages| {
        prop_assert!(is_fine(damaged(sound.to_vec(), &damages)));
        Ok(())
    });
}

/// The same event with secret texts.
fn secretive(value: &mut Json) {
    match value {
        Json::String(text) => *text = SECRET.to_owned(),
        Json::Array(items) => items.iter_mut().for_each(secretive),
        Json::Object(fields) => fields.iter_mut().filter(|(name, _)| *name != "type").for_each(|(_, it)| secretive(it)),
        _ => {}
    }
}

/// Sound events of every shipped type, and objects of any shape.
fn sound() -> impl Strategy<Value = Vec<u8>> {
    let with_secrets = |json: &&str| {
        let mut event = serde_json::from_str(json).unwrap();
        secretive(&mut event);
        event.to_string().into_bytes()
    };
    let shipped: Vec<Vec<u8>> = SHIPPED.iter().flat_map(|shipped| shipped.samples).map(with_secrets).collect();
    prop_oneof![select(shipped), object().prop_map(|object| object.to_string().into_bytes())]
}

fn holds(decoded: Decoded, record: &Record) -> Result<(), TestCaseError> {
    match decoded {
        Ok(event) => {
            let id = event.id.as_str();
            prop_assert!(!id.is_empty() && id.len() <= ID_BYTES_MAX && !id.contains('\0'), "{:?}", id);
            // What other parts ask of it does not panic either.
            let payload = &event.payload;
            prop_assert!(payload.kind().len() <= ID_BYTES_MAX);
            let _ = (payload.timestamp_ms(), payload.user(), payload.conversation());
        }
        Err(refused) => {
            let (back, why) = *refused;
            prop_assert_eq!(&back, record, "the record comes back as it was");
            let begins_with_a_frame = record.value.as_deref().is_some_and(|value| value.len() >= 5 && value[0] == 0);
            prop_assert_eq!(matches!(why, NotDecoded::Hold(_)), begins_with_a_frame, "{:?}", why);
            let why = why.to_string();
            prop_assert!(!why.contains("panicked") && !why.contains(SECRET) && !why.is_empty(), "{}", why);
        }
    }
    Ok(())
}

#[test]
fn no_value_makes_a_decoder_panic_or_tell_what_is_in_it() {
    let fields = Fields::new(&EventFields::default()).unwrap();
    let origin = Arc::new(Origin { topic: "t".into(), topic_id: Uuid::nil(), partition: 0 });
    fuzz(&(sound(), vec(damage(), 0..4), vec(header(), 0..3)), |(sound, damages, headers)| {
        let record = Record { headers, ..Record::new(3, damaged(sound, &damages)) };
        holds(of_any_type(Event::decode(&fields, &origin, record.clone())), &record)?;
        for shipped in SHIPPED {
            holds((shipped.decode)(&origin, record.clone()), &record)?;
        }
        Ok(())
    });
}

fn header() -> impl Strategy<Value = Header> {
    let name = prop_oneof![Just("ce_id".to_owned()), Just("weir-id".to_owned()), any::<String>()];
    let value = prop_oneof![vec(any::<u8>(), 0..600), any::<String>().prop_map(String::into_bytes)];
    (name, proptest::option::of(value))
        .prop_map(|(name, value)| Header { name: name.into(), value: value.map(Bytes::from) })
}

#[test]
fn headers_come_back_from_a_dead_row_as_they_were() {
    fuzz(&vec(header(), 0..5), |headers| {
        let kept = headers_as_json(&headers);
        prop_assert_eq!(kept.is_none(), headers.is_empty());
        prop_assert_eq!(headers_from_json(kept.as_deref().unwrap_or(b"[]")), headers);
        Ok(())
    });
}

#[test]
fn what_is_no_headers_gives_none_without_a_panic() {
    let kept = br#"[{"name":"a","value":"b"},{"name":"c","hex":"00ff"}]"#.to_vec();
    fuzz(&vec(damage(), 0..4), |damages| {
        let headers = headers_from_json(&damaged(kept.clone(), &damages));
        prop_assert!(headers.len() <= 8, "{:?}", headers);
        Ok(())
    });
}
