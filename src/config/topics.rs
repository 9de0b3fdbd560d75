//! Which topics a pool reads: those that it names, and those whose names match its patterns.

use regex::{Regex, RegexBuilder};

use super::Pool;

/// What a pattern begins with, as in librdkafka. No topic's name can.
const MARK: char = '^';
/// The most that a pattern may take when it is compiled.
const PATTERN_BYTES_MAX: usize = 1 << 20;
/// What a name of a topic can have beside letters and digits.
const IN_NAMES: &str = "._-";
/// The longest name that Kafka takes for a topic.
const NAME_BYTES_MAX: usize = 249;

fn is_pattern(topic: &str) -> bool {
    topic.starts_with(MARK)
}

fn compiled(pattern: &str) -> Result<Regex, String> {
    let told = |error: regex::Error| {
        let why = error.to_string();
        why.lines().last().unwrap_or_default().trim_start_matches("error: ").trim().to_owned()
    };
    RegexBuilder::new(pattern).size_limit(PATTERN_BYTES_MAX).build().map_err(told)
}

/// Whether Kafka takes it for a topic's name.
pub(crate) fn is_topic(name: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&name.len()) && ![".", ".."].contains(&name) && is_plain(name)
}

/// Whether it has nothing that a name of a topic cannot have.
fn is_plain(name: &str) -> bool {
    name.chars().all(|c| c.is_ascii_alphanumeric() || IN_NAMES.contains(c))
}

/// What is wrong with an entry of `topics`.
pub(super) fn problem(topic: &str) -> Option<String> {
    if is_pattern(topic) {
        return compiled(topic).err().map(|why| format!("{topic:?} is no regular expression: {why}"));
    }
    (!is_plain(topic)).then(|| {
        format!(
            "{topic:?} is no name of a topic, which has letters, digits, '.', '_' and '-'; a pattern begins with '^'"
        )
    })
}

/// `TOPIC.POOL.dead`: dead letters, of this pool or of another one.
fn is_of_letters(topic: &str) -> bool {
    let parts = topic.strip_suffix(".dead").and_then(|rest| rest.rsplit_once('.'));
    parts.is_some_and(|(topic, pool)| !topic.is_empty() && super::validate::is_name(pool))
}

/// Whether a template could give this name: its places stand for anything.
fn may_make(template: &str, topic: &str) -> bool {
    let Some((begin, rest)) = template.split_once('{') else { return template == topic };
    let end = rest.rsplit_once('}').map_or("", |(_, end)| end);
    topic.len() >= begin.len() + end.len() && topic.starts_with(begin) && topic.ends_with(end)
}

impl Pool {
    /// A template without a fixed begin or end, of which no name can be told apart.
    pub(super) fn open_template(&self) -> Option<&str> {
        let templates = self.pipelines.iter().filter_map(|pipeline| pipeline.topic.as_deref());
        templates.into_iter().find(|template| may_make(template, ""))
    }

    /// Whether it reads topics that are found by a pattern.
    pub(crate) fn has_patterns(&self) -> bool {
        self.topics.iter().any(|topic| is_pattern(topic))
    }

    /// The topics that it names.
    pub(crate) fn named_topics(&self) -> impl Iterator<Item = &String> {
        self.topics.iter().filter(|topic| !is_pattern(topic))
    }

    /// Its patterns, for messages.
    pub(crate) fn patterns(&self) -> String {
        let patterns: Vec<&str> = self.topics.iter().map(String::as_str).filter(|topic| is_pattern(topic)).collect();
        patterns.join(", ")
    }

    /// Whether it reads a topic of this name.
    pub(crate) fn reads(&self, topic: &str) -> bool {
        self.names(topic) || self.finds(topic)
    }

    /// Whether a topic is read because a pattern matches its name, and for nothing else.
    pub(crate) fn finds(&self, topic: &str) -> bool {
        !self.names(topic) && self.is_findable(topic) && self.regexes().iter().any(|regex| regex.is_match(topic))
    }

    /// The topics that it reads, of a cluster that has these: what it names, there or not, and then what is found, by name.
    pub(crate) fn topics_among(&self, existing: &[String]) -> Vec<String> {
        let regexes = self.regexes();
        let is_found = |topic: &&String| {
            !self.names(topic) && self.is_findable(topic) && regexes.iter().any(|regex| regex.is_match(topic))
        };
        let mut found: Vec<String> = existing.iter().filter(is_found).cloned().collect();
        found.sort();
        found.dedup();
        self.named_topics().cloned().chain(found).collect()
    }

    fn names(&self, topic: &str) -> bool {
        self.named_topics().any(|named| named == topic)
    }

    /// Those that are wrong were refused when they were configured.
    fn regexes(&self) -> Vec<Regex> {
        self.topics.iter().filter(|topic| is_pattern(topic)).filter_map(|topic| compiled(topic).ok()).collect()
    }

    /// Neither Kafka's own, nor what a pool writes itself, which would never end.
    fn is_findable(&self, topic: &str) -> bool {
        let is_written = self.pipelines.iter().any(|pipeline| {
            pipeline.topic.as_deref().is_some_and(|template| may_make(template, topic))
                || pipeline.moderate.as_ref().is_some_and(|moderate| moderate.status_topic == topic)
        });
        !topic.starts_with("__") && !is_of_letters(topic) && !is_written
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(topics: &[&str]) -> Pool {
        Pool { topics: topics.iter().map(|topic| (*topic).to_owned()).collect(), ..Pool::default() }
    }

    fn among(topics: &[&str], existing: &[&str]) -> Vec<String> {
        pool(topics).topics_among(&existing.iter().map(|topic| (*topic).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn what_is_named_is_read_there_or_not_and_what_matches_is_found() {
        let existing = ["orders.b", "orders.a", "payments", "old.orders.c"];
        assert_eq!(among(&["^orders\\..*"], &existing), ["orders.a", "orders.b"]);
        assert_eq!(among(&["^pay", "orders.z"], &existing), ["orders.z", "payments"]);
        assert_eq!(among(&["^orders\\.", "orders.b", "^.*a$"], &existing), ["orders.b", "orders.a"]);
        assert_eq!(among(&["orders.a"], &existing), ["orders.a"]);
        let pool = pool(&["^orders\\.", "orders.b"]);
        assert!(pool.finds("orders.a") && !pool.finds("orders.b") && pool.reads("orders.b") && !pool.reads("payments"));
    }

    #[test]
    fn what_a_template_could_make_is_never_found() {
        for (template, makes, leaves) in [
            ("orders.{/country}", "orders.de", "others.de"),
            ("{/country}.orders", "de.orders", "de.others"),
            ("a.{type}.{/x}.z", "a.b.z", "a.b.y"),
            ("orders", "orders", "orders.de"),
        ] {
            assert!(may_make(template, makes) && !may_make(template, leaves), "{template}");
        }
        assert!(!may_make("aa{x}aa", "aaa") && may_make("{/topic}", "anything"));
    }

    #[test]
    fn topics_of_kafka_itself_and_of_dead_letters_are_never_found() {
        let existing =
            ["__consumer_offsets", "__transaction_state", "a", "a.storage.dead", "a.b.other_pool.dead", "a.dead"];
        assert_eq!(among(&["^.*"], &existing), ["a", "a.dead"]);
        assert_eq!(among(&["^.*", "a.storage.dead"], &existing), ["a.storage.dead", "a", "a.dead"]);
    }

    #[test]
    fn what_a_pool_writes_itself_is_never_found() {
        let forward = crate::config::Pipeline { topic: Some("a.out".to_owned()), ..Default::default() };
        let moderate = crate::config::Pipeline { moderate: Some(Default::default()), ..Default::default() };
        let pool = Pool { pipelines: vec![forward, moderate], ..pool(&["^.*"]) };
        let existing = ["a", "a.out", "moderation-events"].map(str::to_owned);
        assert_eq!(pool.topics_among(&existing), ["a"]);
    }

    #[test]
    fn names_of_topics_are_those_that_kafka_takes() {
        assert!(is_topic("orders-paid_2.x") && is_topic(&"a".repeat(249)));
        for bad in ["", ".", "..", "a b", "a/b", "ä", &"a".repeat(250)] {
            assert!(!is_topic(bad), "{bad}");
        }
    }

    #[test]
    fn a_wrong_pattern_is_told_in_one_line() {
        let told = problem("^orders(").unwrap();
        assert!(
            told.contains("\"^orders(\" is no regular expression: unclosed group") && !told.contains('\n'),
            "{told}"
        );
        assert!(problem("^a{1,1000}{1,1000}").is_some());
        assert!(problem("orders.*").unwrap().contains("a pattern begins with '^'"));
        assert_eq!((problem("orders.a"), problem("^orders\\..*")), (None, None));
    }
}
