//! What a run does, as its file says: the events, the phases, the workers that are watched, and what is asked of them.

mod duration;
mod problem;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, de};

use self::problem::Problems;
use crate::config::Config;

/// The most events of a run: each takes a bit of memory.
const EVENTS_MAX: u64 = 1_000_000_000;

/// A plan that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The file cannot be read.
    #[error("read the plan {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// It can be read, but not be used: every problem that was found.
    #[error("the plan {} cannot be used:\n  {}", path.display(), problems.join("\n  "))]
    Invalid {
        /// The file.
        path: PathBuf,
        /// A line each.
        problems: Vec<String>,
    },
}

/// A run's plan.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// What the run is called; part of its folder's name.
    pub name: String,
    /// The pool of the configuration whose effects are looked at; the only one, if it is not named.
    pub pool: Option<String>,
    /// The topic that is written to; the pool's only one, if it is not named.
    pub topic: Option<String>,
    /// How often everything is looked at.
    #[serde(default = "second", with = "duration")]
    pub interval: Duration,
    /// How long after the last phase late events are still sent, and everything may take to be settled.
    #[serde(default = "minute", with = "duration")]
    pub drain_timeout: Duration,
    /// Clients that send, each on a thread of its own; a conversation's events are all sent by one.
    #[serde(default = "two")]
    pub producers: usize,
    /// Events of one producer that may wait for their acknowledgement. Beyond them sending waits, which is slip.
    #[serde(default = "in_flight")]
    pub in_flight: u32,
    /// How long a producer gathers events for a batch; as the configuration has it, else 10 ms.
    #[serde(default, with = "duration::optional", skip_serializing_if = "Option::is_none")]
    pub linger: Option<Duration>,
    /// What every choice follows from: the same seed makes the same events.
    #[serde(default = "one")]
    pub seed: u64,
    /// What is sent.
    #[serde(default)]
    pub events: Events,
    /// When.
    pub phases: Vec<Phase>,
    /// Which workers are watched.
    pub workers: Workers,
    /// What is asked of the run.
    #[serde(default)]
    pub thresholds: Thresholds,
}

/// What is sent: chat messages, keyed by conversation.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Events {
    /// Conversations, each of them a key.
    pub conversations: u32,
    /// How uneven they are: the one of rank k has a share in proportion to 1 / k^zipf; 0: all alike.
    pub zipf: f64,
    /// Bytes of an event's value; one below what the envelope takes has no text.
    pub size: Size,
    /// The share of events that are an earlier one sent again.
    pub duplicates: f64,
    /// The share of events that must end as dead rows.
    pub poison: f64,
    /// The events' types with their weights.
    pub types: BTreeMap<String, f64>,
}

impl Default for Events {
    fn default() -> Self {
        Self {
            conversations: 10_000,
            zipf: 1.0,
            size: Size { min: 330, max: 330 },
            duplicates: 0.0,
            poison: 0.0,
            types: [("new_message".to_owned(), 1.0)].into(),
        }
    }
}

/// From so many bytes to so many, all sizes alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Size {
    /// The least.
    pub min: usize,
    /// The most.
    pub max: usize,
}

/// A number, or a table with `min` and `max`.
impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Span {
            min: usize,
            max: usize,
        }
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Size;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a number of bytes, or { min = …, max = … }")
            }

            fn visit_i64<E: de::Error>(self, bytes: i64) -> Result<Size, E> {
                let bytes =
                    usize::try_from(bytes).map_err(|_| E::invalid_value(de::Unexpected::Signed(bytes), &self))?;
                Ok(Size { min: bytes, max: bytes })
            }

            fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<Size, E> {
                self.visit_i64(i64::try_from(bytes).unwrap_or(i64::MAX))
            }

            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Size, A::Error> {
                let Span { min, max } = Span::deserialize(de::value::MapAccessDeserializer::new(map))?;
                Ok(Size { min, max })
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// A stretch of time with a rate of its own.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Phase {
    /// What it is called.
    pub name: String,
    /// How long it lasts.
    #[serde(with = "duration")]
    pub duration: Duration,
    /// Events a second, all the time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<f64>,
    /// Events a second at its begin, in place of `rate` …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<f64>,
    /// … and at its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<f64>,
    /// So many events at once at its begin, beside the rate.
    #[serde(default)]
    pub burst: u64,
    /// Its latencies are left out of the totals.
    #[serde(default)]
    pub warm_up: bool,
}

/// The workers: one of the two.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Workers {
    /// So many processes are started here and ended at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start: Option<usize>,
    /// The health addresses of workers that run elsewhere.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub scrape: Vec<String>,
}

/// What is asked of the run; what is left out is not asked, but where a default is named.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Thresholds {
    /// The median of the latency, at most.
    #[serde(with = "duration::optional", skip_serializing_if = "Option::is_none")]
    pub latency_p50: Option<Duration>,
    /// Its 90th percentile.
    #[serde(with = "duration::optional", skip_serializing_if = "Option::is_none")]
    pub latency_p90: Option<Duration>,
    /// Its 99th percentile.
    #[serde(with = "duration::optional", skip_serializing_if = "Option::is_none")]
    pub latency_p99: Option<Duration>,
    /// Its 99.9th percentile.
    #[serde(with = "duration::optional", skip_serializing_if = "Option::is_none")]
    pub latency_p999: Option<Duration>,
    /// The longest.
    #[serde(with = "duration::optional", skip_serializing_if = "Option::is_none")]
    pub latency_max: Option<Duration>,
    /// The 99th percentile of how late events were handed to the producers (100 ms).
    #[serde(with = "duration")]
    pub slip_p99: Duration,
    /// Acknowledged ids without an effect or a dead row (0).
    pub lost: u64,
    /// Ids with more than one (0).
    pub repeated: u64,
    /// Effects before that of an earlier event of the key (0).
    pub out_of_order: u64,
    /// Counters of the database that are not those of a recount (0).
    pub counters_wrong: u64,
    /// Events that were not acknowledged (0).
    pub failed: u64,
    /// From the end of the last phase until everything is settled.
    #[serde(with = "duration::optional", skip_serializing_if = "Option::is_none")]
    pub drained_in: Option<Duration>,
    /// The longest time that a partition stood still in a rebalance.
    #[serde(with = "duration::optional", skip_serializing_if = "Option::is_none")]
    pub longest_pause: Option<Duration>,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            latency_p50: None,
            latency_p90: None,
            latency_p99: None,
            latency_p999: None,
            latency_max: None,
            slip_p99: Duration::from_millis(100),
            lost: 0,
            repeated: 0,
            out_of_order: 0,
            counters_wrong: 0,
            failed: 0,
            drained_in: None,
            longest_pause: None,
        }
    }
}

impl Plan {
    /// Reads and checks a plan.
    ///
    /// # Errors
    /// The file cannot be read, is no TOML, or says what cannot be done.
    pub fn load(path: &Path) -> Result<Self, PlanError> {
        let text = std::fs::read_to_string(path);
        let text = text.map_err(|source| PlanError::File { path: path.to_owned(), source })?;
        Self::parse(&text).map_err(|problems| PlanError::Invalid { path: path.to_owned(), problems })
    }

    /// The pool and the topic, by the configuration.
    ///
    /// # Errors
    /// They are not there, or there are several and none is named.
    pub(super) fn resolve(&mut self, path: &Path, config: &Config) -> Result<(String, String), PlanError> {
        let found = choose("pool", self.pool.as_deref(), config.pools.keys().map(String::as_str)).and_then(|pool| {
            let settings = config.pools.get(&pool).cloned().unwrap_or_default();
            if config.store.is_none() {
                return Err(format!("`pool`: the configuration has no store.url that {pool:?} writes to"));
            }
            // One that a pattern finds must be named: there is no saying which is meant.
            let found = self.topic.as_deref().filter(|topic| settings.finds(topic));
            let known = settings.named_topics().map(String::as_str).chain(found);
            let topic = choose("topic", self.topic.as_deref(), known)?;
            Ok((pool, topic))
        });
        let invalid = |problem| PlanError::Invalid { path: path.to_owned(), problems: vec![problem] };
        let (pool, topic) = found.map_err(invalid)?;
        (self.pool, self.topic) = (Some(pool.clone()), Some(topic.clone()));
        Ok((pool, topic))
    }

    /// Every problem is a line.
    fn parse(text: &str) -> Result<Self, Vec<String>> {
        let plan: Self = toml::from_str(text).map_err(|error| vec![problem::of_toml(text, &error)])?;
        let mut problems = Problems::new(text);
        plan.check(&mut problems);
        problems.into_result().map(|()| plan)
    }

    fn check(&self, problems: &mut Problems<'_>) {
        let top = |key| problem::Key::top(key);
        let is_name = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        problems.check(
            top("name"),
            !self.name.is_empty() && self.name.len() <= 100 && self.name.chars().all(is_name),
            "is part of a folder's name: give letters, digits, '-', '_' and '.', 100 at most",
        );
        let interval = Duration::from_millis(100)..=Duration::from_secs(60);
        problems.check(top("interval"), interval.contains(&self.interval), "must be from \"100ms\" to \"60s\"");
        let drain = Duration::from_secs(1)..=Duration::from_secs(24 * 60 * 60);
        problems.check(top("drain_timeout"), drain.contains(&self.drain_timeout), "must be from \"1s\" to \"1day\"");
        problems.check(top("producers"), (1..=64).contains(&self.producers), "must be from 1 to 64");
        problems.check(top("in_flight"), (1..=1_000_000).contains(&self.in_flight), "must be from 1 to 1000000");
        let lingers = self.linger.is_none_or(|linger| linger <= Duration::from_secs(60));
        problems.check(top("linger"), lingers, "must be \"60s\" at most");
        self.events.check(problems);
        problems.check(top("phases"), !self.phases.is_empty(), "has no phase: add a section [[phases]]");
        for (index, phase) in self.phases.iter().enumerate() {
            phase.check(index, problems);
        }
        let events = super::schedule::Schedule::new(&self.phases).events();
        problems.check(top("phases"), events <= EVENTS_MAX, "have more than 1000000000 events: make several plans");
        self.workers.check(problems);
    }
}

impl Events {
    fn check(&self, problems: &mut Problems<'_>) {
        let of = |key| problem::Key::of("events", key);
        let conversations = (1..=10_000_000).contains(&self.conversations);
        problems.check(of("conversations"), conversations, "must be from 1 to 10000000");
        problems.check(of("zipf"), (0.0..=10.0).contains(&self.zipf), "must be from 0 to 10");
        let Size { min, max } = self.size;
        problems.check(of("size"), min <= max, "has a min above its max");
        problems.check(of("size"), (1..=900_000).contains(&max), "must be from 1 to 900000 bytes");
        problems.check(of("duplicates"), (0.0..=0.9).contains(&self.duplicates), "is a share, from 0 to 0.9");
        problems.check(of("poison"), (0.0..=1.0).contains(&self.poison), "is a share, from 0 to 1");
        let both = self.duplicates + self.poison;
        problems.check(of("poison"), both <= 1.0, "and duplicates are more than all events");
        let weights = !self.types.is_empty() && self.types.values().all(|weight| *weight > 0.0 && weight.is_finite());
        problems.check(of("types"), weights, "needs types with weights above 0, such as { new_message = 1 }");
        let are_plain = self.types.keys().all(|name| {
            !name.is_empty() && name.len() <= 100 && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        });
        problems.check(of("types"), are_plain, "must have names of letters, digits and '_'");
    }
}

impl Phase {
    fn check(&self, index: usize, problems: &mut Problems<'_>) {
        let of = |key| problem::Key::nth("phases", index, key);
        let duration = Duration::from_millis(1)..=Duration::from_secs(7 * 24 * 60 * 60);
        problems.check(of("duration"), duration.contains(&self.duration), "must be from \"1ms\" to \"7days\"");
        for (key, rate) in [("rate", self.rate), ("from", self.from), ("to", self.to)] {
            let is_rate = rate.is_none_or(|rate| (0.0..=1e9).contains(&rate));
            problems.check(of(key), is_rate, "is events a second, from 0 to 1000000000");
        }
        let is_ramp = self.from.is_some() && self.to.is_some();
        match (self.rate, self.from.or(self.to)) {
            (Some(_), Some(_)) => problems.add(of("rate"), "goes with neither from nor to: they are a ramp"),
            (None, Some(_)) if !is_ramp => problems.add(of("from"), "and to are needed both for a ramp"),
            (None, None) if self.burst == 0 => problems.add(of("rate"), "is not set: give rate, from and to, or burst"),
            _ => {}
        }
    }

    /// Events a second at its begin and at its end.
    pub(super) fn rates(&self) -> (f64, f64) {
        let rate = self.rate.unwrap_or(0.0);
        (self.from.unwrap_or(rate), self.to.unwrap_or(rate))
    }
}

impl Workers {
    fn check(&self, problems: &mut Problems<'_>) {
        let of = |key| problem::Key::of("workers", key);
        match (self.start, self.scrape.as_slice()) {
            (None, []) => problems.add(of("start"), "is not set: give start = N, or scrape = [\"http://HOST:PORT\"]"),
            (Some(_), [_, ..]) => problems.add(of("scrape"), "and start exclude each other"),
            (Some(start), []) => problems.check(of("start"), (1..=256).contains(&start), "must be from 1 to 256"),
            (None, scrape) => {
                let are_addresses = scrape.iter().all(|url| crate::admin::ask::address_of(url).is_some());
                problems.check(of("scrape"), are_addresses, "has addresses such as \"http://127.0.0.1:9464\"");
            }
        }
    }
}

/// What is named if it is known, or else the only one that there is.
fn choose<'a>(key: &str, named: Option<&str>, known: impl Iterator<Item = &'a str>) -> Result<String, String> {
    let known: Vec<&str> = known.collect();
    let list = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
    match (named, known.as_slice()) {
        (Some(named), known) if known.contains(&named) => Ok(named.to_owned()),
        (Some(named), _) => Err(format!("`{key}`: the configuration has no {named:?}, but {list}")),
        (None, [only]) => Ok((*only).to_owned()),
        (None, _) => Err(format!("`{key}` is not set: the configuration has {list}")),
    }
}

fn second() -> Duration {
    Duration::from_secs(1)
}

fn minute() -> Duration {
    Duration::from_secs(60)
}

fn two() -> usize {
    2
}

fn one() -> u64 {
    1
}

fn in_flight() -> u32 {
    20_000
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAN: &str = "name = \"steady\"\n[[phases]]\nname = \"only\"\nduration = \"10s\"\nrate = 100\n\
                        [workers]\nstart = 1\n";

    fn problems(text: &str) -> String {
        Plan::parse(text).expect_err("the plan cannot be used").join("\n")
    }

    #[test]
    fn every_sample_can_be_used() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/load");
        let mut names = Vec::new();
        for entry in std::fs::read_dir(folder).unwrap() {
            let plan = Plan::load(&entry.unwrap().path()).unwrap_or_else(|error| panic!("{error}"));
            names.push(plan.name);
        }
        names.sort();
        assert_eq!(names, ["burst", "peak", "ramp", "smoke", "steady"]);
    }

    #[test]
    fn what_is_left_out_has_a_default() {
        let plan = Plan::parse(PLAN).unwrap();
        assert_eq!((plan.interval, plan.events.conversations, plan.thresholds.lost), (second(), 10_000, 0));
        assert_eq!(plan.phases[0].rates(), (100.0, 100.0));
    }

    #[test]
    fn a_resolved_plan_can_be_read_again() {
        let plan = Plan::parse(&PLAN.replace("rate = 100", "from = 1\nto = 5.5\nburst = 3\nwarm_up = true")).unwrap();
        let again: Plan = toml::from_str(&toml::to_string(&plan).unwrap()).unwrap();
        assert_eq!(again, plan);
    }

    #[test]
    fn an_unknown_key_is_told_with_its_line_and_the_nearest() {
        let told = problems(&PLAN.replace("rate = 100", "ratte = 100"));
        assert_eq!(told, "line 5: unknown key `ratte`: did you mean `rate`?");
        let told = problems(&format!("{PLAN}[events]\nxyz = 1\n"));
        assert!(told.starts_with("line 9: unknown key `xyz`: known are conversations, zipf,"), "{told}");
    }

    #[test]
    fn a_value_of_the_wrong_kind_is_told_with_its_line_and_key() {
        let told = problems(&PLAN.replace("\"10s\"", "\"ten\""));
        assert!(told.starts_with("line 4: `duration`: found \"ten\", expected a duration"), "{told}");
        let told = problems(&PLAN.replace("start = 1", "start = \"many\""));
        assert!(told.starts_with("line 7: `start`: invalid type: string \"many\""), "{told}");
        let told = problems(&format!("{PLAN}[events]\nsize = \"big\"\n"));
        assert!(told.starts_with("line 9: `size`:") && told.contains("{ min = …, max = … }"), "{told}");
        let told = problems("name = \"x\"\n[workers]\nstart = 1\n");
        assert!(told.contains("missing field `phases`"), "{told}");
    }

    #[test]
    fn everything_that_cannot_be_done_is_told_at_once() {
        let text = PLAN.replace("rate = 100", "rate = 100\nfrom = 1").replace("start = 1", "start = 0");
        let text = format!("interval = \"1ms\"\n{text}[events]\npoison = 2\nsize = {{ min = 9, max = 8 }}\n");
        let told = problems(&text);
        for line in [
            "line 1: `interval` must be",
            "line 6: `phases[0].rate` goes with neither",
            "line 9: `workers.start` must be",
            "line 11: `events.poison` is a share",
            "line 12: `events.size` has a min",
        ] {
            assert!(told.contains(line), "{line} in {told}");
        }
    }

    #[test]
    fn a_phase_says_when_its_events_come() {
        let told = problems(&PLAN.replace("rate = 100\n", ""));
        assert!(told.starts_with("line 2: `phases[0].rate` is not set"), "{told}");
        let told = problems(&PLAN.replace("rate = 100", "to = 100"));
        assert!(told.contains("`phases[0].from` and to are needed both"), "{told}");
        assert!(Plan::parse(&PLAN.replace("rate = 100", "burst = 100")).is_ok());
    }

    #[test]
    fn workers_are_started_or_scraped() {
        assert!(problems(&PLAN.replace("start = 1", "")).contains("`workers.start` is not set"));
        let both = "start = 1\nscrape = [\"http://127.0.0.1:1\"]";
        assert!(problems(&PLAN.replace("start = 1", both)).contains("exclude each other"));
        let wrong = "scrape = [\"127.0.0.1\"]";
        assert!(problems(&PLAN.replace("start = 1", wrong)).contains("has addresses such as"));
    }
}
