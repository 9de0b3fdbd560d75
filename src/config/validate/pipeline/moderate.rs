//! A pipeline that moderates.

use std::collections::BTreeSet;
use std::path::Path;

use super::is_name;
use crate::config::validate::{at_most, timeout};
use crate::config::{Classifier, Moderate, OnDuplicate, Pipeline, Pool};

/// The most requests to a classifier at a time.
const CONCURRENCY_MAX: usize = 1000;
/// The most tries of a request.
const ATTEMPTS_MAX: u32 = 10;
/// The longest name that Kafka gives a topic.
const TOPIC_BYTES_MAX: usize = 249;

pub(super) fn check(at: &str, pool: &Pool, pipeline: &Pipeline, problems: &mut Vec<String>) {
    let foreign = [
        ("table", pipeline.table.is_some()),
        ("key", pipeline.key.is_some()),
        ("columns", pipeline.columns.is_some()),
        ("on_duplicate", pipeline.on_duplicate.is_some()),
        ("newer_by", pipeline.newer_by.is_some()),
        ("dimensions", pipeline.dimensions.is_some()),
    ];
    for (key, _) in foreign.into_iter().filter(|(_, is_set)| *is_set) {
        problems.push(format!("`{at}.{key}` belongs to another handler, not to moderate"));
    }
    // What replaces a row is not new, and only what is new is judged.
    if pool.pipelines.iter().any(|other| other.on_duplicate == Some(OnDuplicate::Update)) {
        problems.push(format!(
            "`{at}` moderates where persist has on_duplicate = \"update\": what replaces a row would not be judged"
        ));
    }
    match &pipeline.moderate {
        Some(moderate) => check_moderate(&format!("{at}.moderate"), moderate, problems),
        None => {
            let needed = "`words`, `patterns`, `rules` or a `classifier`";
            problems.push(format!("`{at}.moderate` is not set: give it {needed}"));
        }
    }
}

fn check_moderate(at: &str, moderate: &Moderate, problems: &mut Vec<String>) {
    let Moderate { words, patterns, rules, classifier, .. } = moderate;
    if words.is_empty() && patterns.is_empty() && rules.is_empty() && classifier.is_none() {
        problems.push(format!("`{at}` judges by nothing: give it `words`, `patterns`, `rules` or a `classifier`"));
    }
    if !moderate.text.starts_with('/') {
        let found = &moderate.text;
        problems.push(format!("`{at}.text`: found {found:?}, expected a JSON pointer such as \"/message/content\""));
    }
    if !is_topic(&moderate.status_topic) {
        let found = &moderate.status_topic;
        problems.push(format!("`{at}.status_topic`: found {found:?}, which is no name of a topic"));
    }
    timeout(&format!("{at}.reload"), moderate.reload, problems);
    let files = words.iter().map(|list| ("words", &list.file));
    for (key, _) in
        files.chain(patterns.iter().map(|list| ("patterns", &list.file))).filter(|(_, file)| **file == Path::new(""))
    {
        problems.push(format!("`{at}.{key}` has a list without a `file`"));
    }
    let mut names = BTreeSet::new();
    for rule in rules {
        if !is_name(&rule.name) {
            problems.push(format!(
                "`{at}.rules`: found the name {:?}, expected 1 to 64 of a-z, 0-9, '_' and '-'",
                rule.name
            ));
        } else if !names.insert(&rule.name) {
            problems.push(format!("`{at}.rules` has two of the name {:?}", rule.name));
        }
    }
    if let Some(classifier) = classifier {
        check_classifier(&format!("{at}.classifier"), classifier, problems);
    }
}

fn check_classifier(at: &str, classifier: &Classifier, problems: &mut Vec<String>) {
    let is_http = |url: &url::Url| matches!(url.scheme(), "http" | "https") && url.has_host();
    if !url::Url::parse(&classifier.url).is_ok_and(|url| is_http(&url)) {
        problems.push(format!("`{at}.url` must be an address such as http://127.0.0.1:8900/judge"));
    }
    timeout(&format!("{at}.timeout"), classifier.timeout, problems);
    if classifier.concurrency == 0 || classifier.attempts == 0 {
        problems.push(format!("`{at}`: `concurrency` and `attempts` must be greater than 0"));
    }
    at_most(&format!("{at}.concurrency"), classifier.concurrency, CONCURRENCY_MAX, problems);
    at_most(&format!("{at}.attempts"), classifier.attempts, ATTEMPTS_MAX, problems);
}

fn is_topic(name: &str) -> bool {
    (1..=TOPIC_BYTES_MAX).contains(&name.len())
        && name != "."
        && name != ".."
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
}
