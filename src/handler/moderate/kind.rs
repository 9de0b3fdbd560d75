//! What configuration knows of `moderate`.

use std::collections::BTreeSet;
use std::path::Path;

use crate::config::schema::{Key, Shape, key, required};
use crate::config::{self, Check, HandlerKind, Moderate, OnDuplicate, is_http, is_name, is_topic};

/// The most requests to a classifier at a time.
const CONCURRENCY_MAX: usize = 1000;
/// The most tries of a request.
const ATTEMPTS_MAX: u32 = 10;

const VERDICT: Shape = Shape::Choice(&["flag", "hide"]);

const KEYS: &[Key] = &[
    key("text", Shape::Text),
    key("reload", Shape::Duration),
    key("status_topic", Shape::Text),
    key(
        "words",
        Shape::List(&[
            required("file", Shape::Text),
            key("verdict", VERDICT),
            key("match", Shape::Choice(&["word", "substring"])),
        ]),
    ),
    key("patterns", Shape::List(&[required("file", Shape::Text), key("verdict", VERDICT)])),
    key("rules", Shape::List(&[required("name", Shape::Text), required("when", Shape::Text), key("verdict", VERDICT)])),
    key(
        "classifier",
        Shape::Table(&[
            required("url", Shape::Text),
            key("timeout", Shape::Duration),
            key("concurrency", Shape::Int),
            key("attempts", Shape::Int),
            key("on_unavailable", Shape::Choice(&["flag", "hold", "allow"])),
        ]),
    ),
];

pub(super) const KIND: HandlerKind = HandlerKind {
    name: "moderate",
    keys: &[key("moderate", Shape::Table(KEYS))],
    is_stored: true,
    example: r#"
moderate.words = [{ file = "words" }]
moderate.patterns = [{ file = "patterns" }]
moderate.rules = [{ name = "r", when = "true" }]
moderate.classifier.url = "http://classifier"
"#,
    check,
};

fn check(check: &mut Check<'_>) {
    // What replaces a row is not new, and only what is new is judged.
    if check.pool.pipelines.iter().any(|other| other.on_duplicate == Some(OnDuplicate::Update)) {
        check.problem(format!(
            "`{}` moderates where persist has on_duplicate = \"update\": what replaces a row would not be judged",
            check.at
        ));
    }
    match &check.pipeline.moderate {
        Some(moderate) => check_moderate(check, moderate),
        None => check.say("moderate", "is not set: give it `words`, `patterns`, `rules` or a `classifier`"),
    }
}

fn check_moderate(check: &mut Check<'_>, moderate: &Moderate) {
    let at = format!("{}.moderate", check.at);
    let Moderate { words, patterns, rules, classifier, .. } = moderate;
    if words.is_empty() && patterns.is_empty() && rules.is_empty() && classifier.is_none() {
        check.problem(format!("`{at}` judges by nothing: give it `words`, `patterns`, `rules` or a `classifier`"));
    }
    if !moderate.text.starts_with('/') {
        let found = &moderate.text;
        check.problem(format!("`{at}.text`: found {found:?}, expected a JSON pointer such as \"/message/content\""));
    }
    if !is_topic(&moderate.status_topic) {
        let found = &moderate.status_topic;
        check.problem(format!("`{at}.status_topic`: found {found:?}, which is no name of a topic"));
    }
    check.timeout("moderate.reload", moderate.reload);
    let files = words.iter().map(|list| ("words", &list.file));
    for (key, _) in
        files.chain(patterns.iter().map(|list| ("patterns", &list.file))).filter(|(_, file)| **file == Path::new(""))
    {
        check.problem(format!("`{at}.{key}` has a list without a `file`"));
    }
    let mut names = BTreeSet::new();
    for rule in rules {
        if !is_name(&rule.name) {
            let found = &rule.name;
            check.problem(format!("`{at}.rules`: found the name {found:?}, expected 1 to 64 of a-z, 0-9, '_' and '-'"));
        } else if !names.insert(&rule.name) {
            check.problem(format!("`{at}.rules` has two of the name {:?}", rule.name));
        }
    }
    if let Some(classifier) = classifier {
        check_classifier(check, classifier);
    }
}

fn check_classifier(check: &mut Check<'_>, classifier: &config::Classifier) {
    if !is_http(&classifier.url) {
        check.say("moderate.classifier.url", "must be an address such as http://127.0.0.1:8900/judge");
    }
    check.timeout("moderate.classifier.timeout", classifier.timeout);
    if classifier.concurrency == 0 || classifier.attempts == 0 {
        let at = check.at;
        check.problem(format!("`{at}.moderate.classifier`: `concurrency` and `attempts` must be greater than 0"));
    }
    check.at_most("moderate.classifier.concurrency", classifier.concurrency, CONCURRENCY_MAX);
    check.at_most("moderate.classifier.attempts", classifier.attempts, ATTEMPTS_MAX);
}
