//! Rules: conditions over events, written in CEL and compiled once, when a pool is made.
//!
//! The crate `cel` parses; weir evaluates the tree itself, so that a rule has a bound on its work, borrows what it compares,
//! picks only the fields that it names, tells a missing attribute from an error, and quotes no payload in its errors.
//!
//! Promised: a rule that is made cannot panic, take more than [`STEPS_MAX`] steps, or change anything. What breaks it:
//! nothing that an event holds.

mod compile;
mod eval;
mod functions;
mod lookup;
mod node;
mod source;
mod value;

pub use lookup::{LookupError, Lookups};

use self::node::Node;
use crate::config;
use crate::event::{Document, Event, Fields};

/// The most steps of one evaluation: a node of the expression is one, and so are some bytes of a text it looks through.
pub const STEPS_MAX: u32 = 100_000;

/// Why an expression is no rule, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {problem}")]
pub struct RuleError {
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// What is wrong and what to do.
    pub problem: String,
}

/// What a rule says of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ruling {
    /// The condition holds.
    Yes,
    /// It does not.
    No,
    /// It asks for something that the event lacks, and so does not hold.
    Missing,
}

/// A compiled condition. It reads documents of the decoder that it was compiled with.
#[derive(Debug)]
pub struct Rule(Node);

impl Rule {
    /// Compiles an expression; the fields of the payload that it names are added to the decoder.
    ///
    /// # Errors
    /// It is no CEL, too large, or names something that there is not.
    pub fn compile(expression: &str, fields: &mut Fields, lookups: &Lookups) -> Result<Self, RuleError> {
        source::in_bounds(expression, || compile::compile(expression, fields, lookups)).map(Self)
    }

    /// Asks it about an event.
    ///
    /// # Errors
    /// The expression cannot be evaluated for this event; the text does not quote the event.
    pub fn ask(&self, event: &Event<Document>) -> Result<Ruling, String> {
        eval::ask(&self.0, event)
    }
}

/// What is wrong with the conditions of a configuration, as far as files tell. A line each.
pub fn problems(config: &config::Config) -> Vec<String> {
    let mut problems = Vec::new();
    for (name, pool) in &config.pools {
        let lookups = match Lookups::from_files(&pool.lookups) {
            Ok(lookups) => lookups,
            Err(error) => {
                problems.push(format!("pool {name:?}: {error}"));
                continue;
            }
        };
        let Ok(mut fields) = Fields::new(&pool.event) else { continue };
        for (index, pipeline) in pool.pipelines.iter().enumerate() {
            if let Some(when) = &pipeline.when
                && let Err(error) = Rule::compile(when, &mut fields, &lookups)
            {
                problems.push(format!("`pools.{name}.pipelines[{index}].when` of {:?}: {error}", pipeline.name));
            }
            for rule in pipeline.moderate.iter().flat_map(|moderate| &moderate.rules) {
                if let Err(error) = Rule::compile(&rule.when, &mut fields, &lookups) {
                    let at = format!("pools.{name}.pipelines[{index}].moderate.rules");
                    problems.push(format!("`{at}` {:?}: {error}", rule.name));
                }
            }
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::config::EventFields;
    use crate::event::{Origin, Record};

    fn lookups() -> Lookups {
        let folder = std::env::temp_dir().join(format!("weir-rules-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.join("users.csv");
        std::fs::write(&file, "id,country,note\nann,NO,\nbob,SE,\"a, b\"\n").unwrap();
        let users = config::Lookup { file: Some(file), key: "id".to_owned(), ..config::Lookup::default() };
        let lookups = Lookups::from_files(&[("users".to_owned(), users)].into()).unwrap();
        std::fs::remove_dir_all(folder).unwrap();
        lookups
    }

    fn event(fields: &Fields, record: Record) -> Event<Document> {
        let origin = Arc::new(Origin { topic: "t".into(), topic_id: uuid::Uuid::nil(), partition: 3 });
        Event::decode(fields, &origin, record).map_err(|refused| refused.1).unwrap()
    }

    const PAYLOAD: &str = r#"{"type":"new_message","message":{"message_id":"m-1","from":"ann","to":7,"content":"Hei på deg",
        "message_type":2,"timestamp":1760000000001},"score":0.5,"big":18446744073709551615,"nothing":null,
        "tags":["a","b"],"items":[{"name":"x","price":3},{"name":"y","price":12}],"odd key":{"n":1}}"#;

    fn ask(expression: &str) -> Result<Ruling, String> {
        let mut fields = Fields::new(&EventFields::default()).unwrap();
        let rule =
            Rule::compile(expression, &mut fields, &lookups()).unwrap_or_else(|why| panic!("{expression}: {why}"));
        let record = Record { key: Some("k-1".into()), timestamp_ms: 5, ..Record::new(7, PAYLOAD) };
        let record = record.with_header("source", b"app").with_header("raw", &[0xff]);
        rule.ask(&event(&fields, record))
    }

    fn refused(expression: &str) -> RuleError {
        let mut fields = Fields::new(&EventFields::default()).unwrap();
        match Rule::compile(expression, &mut fields, &lookups()) {
            Ok(_) => panic!("{expression} was taken"),
            Err(error) => error,
        }
    }

    #[test]
    fn conditions_that_hold() {
        for expression in [
            "event.type == 'new_message'",
            "event.type in ['new_group', 'new_message']",
            "event.id == 'm-1' && event.user == 'ann' && event.conversation == '7:ann'",
            "event.topic == 't' && event.partition == 3 && event.offset == 7 && event.key.startsWith('k-')",
            "event.timestamp_ms == 1760000000001",
            "event.headers.source == 'app' && event.headers['source'].endsWith('pp')",
            "event.payload.message.content.contains('på') && size(event.payload.message.content) == 10",
            "event.payload.message.content.matches('(?i)^HEI')",
            "event.payload.message.to == 7 && event.payload.message.to != '7'",
            "event.payload.message.to > 6.5 && event.payload.big > 1 && event.payload.score < 1",
            "event.payload.nothing == null",
            "event.payload['odd key'].n == 1",
            "'b' in event.payload.tags && size(event.payload.tags) == 2",
            "event.payload.tags == ['a', 'b'] && ['a', 'c'] != event.payload.tags",
            "event.payload.items.exists(i, i.price > 10) && !event.payload.items.all(i, i.price > 10)",
            "event.payload.items.exists_one(i, i.name == 'x')",
            "event.payload.items.filter(i, i.price > 5).map(i, i.name) == ['y']",
            "event.payload.items[1].name == 'y' && event.payload.items[0]['name'] == 'x'",
            "has(event.payload.score) && !has(event.payload.nowhere) && !has(event.payload.score.deeper)",
            "has(event.headers.source) && !has(event.headers.none)",
            "has(lookup('users', event.user).country) && !has(lookup('users', 'carl').country)",
            "lookup('users', event.user).country == 'NO' && lookup('users', 'bob').note == 'a, b'",
            "event.type.lowerAscii() == 'new_message' && int('4') + 1 == 5 && string(7) == '7' && double('0.5') == 0.5",
            "(event.payload.score > 0.4 ? 'high' : 'low') == 'high' && 7 % 4 * 2 - 1 == 5 && -(3) / 2 == -1",
            "event.payload.nowhere == 1 || event.type == 'new_message'",
            "event.type == 'new_message' || event.payload.nowhere == 1",
            "!(event.payload.nowhere == 1 && event.type == 'other')",
            "true",
        ] {
            assert_eq!(ask(expression), Ok(Ruling::Yes), "{expression}");
        }
    }

    #[test]
    fn what_an_event_lacks_makes_the_whole_condition_not_hold_and_is_told_apart() {
        for expression in [
            "event.payload.nowhere == 1",
            "event.payload.nowhere != 1",
            "!(event.payload.nowhere == 1)",
            "event.headers.none == 'x'",
            "event.payload.score.deeper == 1",
            "lookup('users', 'carl').country == 'NO'",
            "event.payload.items[7].name == 'x'",
            "event.payload.items.exists(i, i.colour == 'red')",
            "event.payload.nowhere == 1 || event.type == 'other'",
        ] {
            assert_eq!(ask(expression), Ok(Ruling::Missing), "{expression}");
        }
        assert_eq!(ask("event.type == 'other' && event.payload.nowhere == 1"), Ok(Ruling::No));
    }

    #[test]
    fn any_other_failure_is_an_error_that_does_not_quote_the_event() {
        for (expression, part) in [
            ("event.payload.message.content > 1", "a text with a whole number"),
            ("event.payload.score / 0 > 1.0", "whole number"),
            ("7 / (event.payload.message.to - 7) == 1", "zero"),
            ("9223372036854775807 + event.payload.message.to > 0", "64 bits"),
            ("int(event.payload.message.content) == 1", "no whole number"),
            ("event.payload.message.to.contains('7')", "contains"),
            ("event.payload.message.content && true", "true or false"),
            ("event.payload.nothing < 3", "null"),
            ("event.headers.raw == 'x'", "UTF-8"),
            ("event.payload.items.exists(i, i.name > 3)", "a text with a whole number"),
            ("event.payload.message.content", "true or false"),
        ] {
            let error = ask(expression).unwrap_err();
            assert!(error.contains(part), "{expression}: {error}");
            assert!(!error.contains("Hei"), "{expression}: {error}");
        }
    }

    #[test]
    fn what_is_no_rule_is_refused_with_its_place() {
        for (expression, line, column, part) in [
            ("event.typ == 'x'", 1, 1, "event.type"),
            ("event.type == 'x' &&\n  evnt.type == 'y'", 2, 3, "evnt"),
            ("event.type == 'event.user' && event.usr == 'a'", 1, 31, "event.user"),
            ("event.payload == 1", 1, 1, "field"),
            ("sizeof(event.type) == 1", 1, 1, "sizeof"),
            ("event.type.startswith('x')", 1, 12, "startsWith"),
            ("lookup('people', event.user).country == 'NO'", 1, 1, "users"),
            ("lookup('users', event.user).contry == 'NO'", 1, 1, "country"),
            ("lookup('users', event.user) == 'NO'", 1, 1, "column"),
            ("event.type.matches('(')", 1, 12, "regular expression"),
            ("event.type.matches(event.user)", 1, 12, "written out"),
            ("event.payload.tags.exists(t, x == 1)", 1, 30, "\"x\""),
            ("{'a': 1} == event.payload.items", 1, 1, "map"),
            ("'x'", 1, 1, "true or false"),
            ("1 + 1", 1, 1, "true or false"),
            ("", 1, 1, "empty"),
        ] {
            let error = refused(expression);
            assert_eq!((error.line, error.column), (line, column), "{expression}: {error}");
            assert!(error.problem.contains(part), "{expression}: {error}");
        }
        let error = refused("event.type == ");
        assert!(error.line == 1 && error.column > 1, "{error}");
    }

    #[test]
    fn an_expression_has_a_bound_in_length_nesting_and_size() {
        assert!(refused(&format!("event.type == '{}'", "x".repeat(5_000))).problem.contains("4096"));
        assert!(refused(&format!("{}true{}", "(".repeat(200), ")".repeat(200))).problem.contains("nested"));
        assert!(refused(&format!("{}true", "!".repeat(1_000))).problem.contains("nested"));
        assert!(refused(&["1"; 2_000].join("+")).problem.contains("nested"));
        let long = vec!["event.type == 'x'"; 150].join(" || ");
        assert_eq!(ask(&long), Ok(Ruling::No));
    }

    #[test]
    fn an_evaluation_has_a_bound_whatever_a_sender_puts_into_a_list() {
        let mut fields = Fields::new(&EventFields::default()).unwrap();
        let expression = "event.payload.l.all(a, event.payload.l.exists(b, a != b))";
        let rule = Rule::compile(expression, &mut fields, &Lookups::default()).unwrap();
        let list = vec!["1"; 50_000].join(",");
        let begun = std::time::Instant::now();
        let error = rule.ask(&event(&fields, Record::new(0, format!("{{\"l\":[{list}]}}")))).unwrap_err();
        assert!(error.contains("steps"), "{error}");
        assert!(begun.elapsed() < std::time::Duration::from_secs(20), "{:?}", begun.elapsed());
        let deep = format!("{{\"l\":{}{}}}", "[".repeat(100), "]".repeat(100));
        assert_eq!(rule.ask(&event(&fields, Record::new(0, deep))), Ok(Ruling::No));
    }

    #[test]
    fn only_what_is_named_is_picked() {
        let plain = format!("{:?}", Fields::new(&EventFields::default()).unwrap());
        let mut fields = Fields::new(&EventFields::default()).unwrap();
        Rule::compile("event.type == 'x' && event.headers.a == 'b'", &mut fields, &Lookups::default()).unwrap();
        assert_eq!(format!("{fields:?}"), plain, "nothing of the payload is named");
        Rule::compile("event.payload.a.b == 1", &mut fields, &Lookups::default()).unwrap();
        assert_ne!(format!("{fields:?}"), plain);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn no_expression_makes_it_panic(tokens in prop::collection::vec(prop::sample::select(vec![
            "event", ".", "type", "payload", "tags", "(", ")", "[", "]", "{", "}", "==", "&&", "||", "!", "-", "+", "*", "%",
            "1", "2.5", "'x'", "\"", "?", ":", ",", "in", "has", "lookup", "'users'", "exists", "map", "matches", "i", " ",
            "9223372036854775808", "0u", "null", "true", "\\", "\u{0}", "é", "size",
        ]), 0..14)) {
            let mut fields = Fields::new(&EventFields::default()).unwrap();
            if let Ok(rule) = Rule::compile(&tokens.concat(), &mut fields, &Lookups::default()) {
                drop(rule.ask(&event(&fields, Record::new(7, PAYLOAD))));
            }
        }
    }
}
