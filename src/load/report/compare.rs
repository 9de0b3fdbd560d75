//! Several runs beside each other: figures, ratios to the first, and what makes them not comparable.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::{Value, json};

use super::figures::{FIGURES, Figure};
use super::text::{Unit, count, number};
use crate::load::result::RunResult;

/// More differences than these between two plans are only counted.
const PLAN_DIFFERENCES: usize = 20;
/// So many characters of a plan's value are quoted.
const QUOTED: usize = 60;

/// Runs beside each other.
#[derive(Debug)]
pub struct Comparison {
    /// In the order in which they were given.
    pub runs: Vec<Compared>,
    /// Wherever a run's plan or setting is not the first one's.
    pub differences: Vec<Difference>,
}

/// One run of a comparison.
#[derive(Debug)]
pub struct Compared {
    /// A letter, since runs of one plan have one name.
    pub letter: char,
    /// Where it was read.
    pub source: String,
    /// What it found.
    pub run: RunResult,
    /// Each figure's ratio to the first run's, in their order.
    pub ratios: [Option<f64>; FIGURES.len()],
}

/// Something that is not as in the first run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// `host`, `version of kafka`, `plan: rate`.
    pub what: String,
    /// The other run's label.
    pub run: String,
    /// What it is in the first run.
    pub first: String,
    /// What it is in the other.
    pub there: String,
}

impl Comparison {
    /// Compares runs with the first of them. Each comes with where it was read.
    #[must_use]
    pub fn of(runs: Vec<(String, RunResult)>) -> Self {
        let first = runs.first().map(|(_, run)| run.clone());
        let compared: Vec<Compared> = ('A'..)
            .zip(runs)
            .map(|(letter, (source, run))| {
                let ratios = FIGURES.map(|figure| ratio((figure.of)(&run), first.as_ref().and_then(figure.of)));
                Compared { letter, source, run, ratios }
            })
            .collect();
        let differences = compared.iter().flat_map(|other| first.iter().flat_map(|first| differences(first, other)));
        Self { differences: differences.collect(), runs: compared }
    }

    /// The page that lays them over each other.
    #[must_use]
    pub fn html(&self) -> String {
        super::page::of_runs(self)
    }

    /// The figures, ratios and differences for programs.
    #[must_use]
    pub fn json(&self) -> Value {
        let runs = self.runs.iter().map(|compared| {
            let figures = FIGURES.map(|figure| (figure.key, json!((figure.of)(&compared.run))));
            let ratios = FIGURES.iter().zip(compared.ratios).map(|(figure, ratio)| (figure.key, json!(ratio)));
            json!({
                "label": compared.label(),
                "source": compared.source,
                "name": compared.run.name,
                "started_at_ms": compared.run.started_at_ms,
                "passed": compared.run.is_passed(),
                "figures": BTreeMap::from(figures),
                "ratios": ratios.collect::<BTreeMap<_, _>>(),
            })
        });
        json!({ "runs": runs.collect::<Vec<_>>(), "differences": self.differences })
    }
}

impl Compared {
    /// `A: burst`.
    #[must_use]
    pub fn label(&self) -> String {
        format!("{}: {}", self.letter, self.run.name)
    }

    /// A figure with its ratio, as it stands in a table: `812 ms (1.05×)`.
    #[must_use]
    pub fn cell(&self, figure: &Figure) -> String {
        let Some(value) = (figure.of)(&self.run) else { return "–".to_owned() };
        let value = figure.unit.write(value);
        let at = FIGURES.iter().position(|known| known.key == figure.key);
        match at.and_then(|at| self.ratios[at]) {
            Some(ratio) if self.letter != 'A' => format!("{value} ({}×)", number(ratio)),
            _ => value,
        }
    }
}

/// How many times a figure is the first one's. None where either is missing, or the first is 0.
fn ratio(value: Option<f64>, first: Option<f64>) -> Option<f64> {
    Some(value? / first?).filter(|ratio| ratio.is_finite())
}

fn differences(first: &RunResult, other: &Compared) -> Vec<Difference> {
    let mut found = Vec::new();
    let mut note = |what: String, here: &str, there: &str| {
        if here != there {
            let run = other.label();
            found.push(Difference { what, run, first: here.to_owned(), there: there.to_owned() });
        }
    };
    let (here, there): (BTreeMap<_, _>, BTreeMap<_, _>) =
        (setting_rows(first).into_iter().collect(), setting_rows(&other.run).into_iter().collect());
    for what in here.keys().chain(there.keys()).collect::<BTreeSet<_>>() {
        let of = |rows: &BTreeMap<String, String>| rows.get(what).cloned().unwrap_or_else(|| "none".to_owned());
        note(what.clone(), &of(&here), &of(&there));
    }
    let (mut here, mut there) = (BTreeMap::new(), BTreeMap::new());
    flatten(String::new(), &first.plan, &mut here);
    flatten(String::new(), &other.run.plan, &mut there);
    let keys = here.keys().chain(there.keys()).collect::<BTreeSet<_>>();
    let differing: Vec<&String> = keys.into_iter().filter(|key| here.get(*key) != there.get(*key)).collect();
    for key in differing.iter().take(PLAN_DIFFERENCES) {
        let of = |plan: &BTreeMap<String, String>| plan.get(*key).cloned().unwrap_or_else(|| "none".to_owned());
        let (here, there) = quoted(&of(&here), &of(&there));
        note(format!("plan: {}", if key.is_empty() { "all of it" } else { key }), &here, &there);
    }
    let more = differing.len().saturating_sub(PLAN_DIFFERENCES);
    if more > 0 {
        note("plan".to_owned(), "", &format!("{more} more keys differ"));
    }
    found
}

/// A plan's values by their dotted keys.
fn flatten(key: String, value: &Value, rows: &mut BTreeMap<String, String>) {
    let below = |name: &str| if key.is_empty() { name.to_owned() } else { format!("{key}.{name}") };
    match value {
        Value::Object(object) if !object.is_empty() => {
            object.iter().for_each(|(name, value)| flatten(below(name), value, rows));
        }
        Value::Array(array) if !array.is_empty() => {
            array.iter().enumerate().for_each(|(at, value)| flatten(below(&at.to_string()), value, rows));
        }
        _ => {
            rows.insert(key, value.to_string());
        }
    }
}

/// Two texts that differ; of long ones the part where they do.
fn quoted(first: &str, other: &str) -> (String, String) {
    let alike = first.chars().zip(other.chars()).take_while(|(first, other)| first == other).count();
    let part = |text: &str| {
        let left_out = if text.chars().count() > QUOTED { alike.saturating_sub(QUOTED / 2) } else { 0 };
        let mut rest = text.chars().skip(left_out);
        let part: String = rest.by_ref().take(QUOTED).collect();
        let (before, after) = (if left_out > 0 { "…" } else { "" }, if rest.next().is_some() { "…" } else { "" });
        format!("{before}{part}{after}")
    };
    (part(first), part(other))
}

/// What a result says of where it was made.
pub(super) fn setting_rows(run: &RunResult) -> Vec<(String, String)> {
    let setting = &run.setting;
    let memory = if setting.memory_bytes == 0 { String::new() } else { Unit::Bytes.write(setting.memory_bytes as f64) };
    let mut rows = vec![
        ("host".to_owned(), setting.host.clone()),
        ("system".to_owned(), setting.system.clone()),
        ("processor".to_owned(), setting.processor.clone()),
        ("cores".to_owned(), count(setting.cores as u64)),
        ("memory".to_owned(), memory),
        ("workers".to_owned(), count(setting.workers as u64)),
        ("partitions".to_owned(), count(setting.partitions as u64)),
        ("version of weir".to_owned(), setting.weir.clone()),
    ];
    rows.extend(setting.versions.iter().map(|(of, version)| (format!("version of {of}"), version.clone())));
    rows
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;

    fn compare(change: impl Fn(&mut RunResult)) -> Comparison {
        let mut other = samples::short();
        change(&mut other);
        Comparison::of(vec![("a".to_owned(), samples::short()), ("b".to_owned(), other)])
    }

    #[test]
    fn ratios_are_to_the_first() {
        assert_eq!(ratio(Some(3.0), Some(2.0)), Some(1.5));
        for (value, first) in [(None, Some(1.0)), (Some(1.0), None), (Some(1.0), Some(0.0)), (Some(0.0), Some(0.0))] {
            assert_eq!(ratio(value, first), None);
        }
        let compared = compare(|run| {
            run.totals.latency.p99_ms = 30.0;
            run.intervals[0].settled = 450;
            run.intervals[0].workers.clear();
        });
        let of = |key| FIGURES.iter().position(|figure| figure.key == key).and_then(|at| compared.runs[1].ratios[at]);
        assert_eq!((of("p99_ms"), of("throughput_per_s")), (Some(1.5), Some(0.5)));
        assert_eq!((of("cpu_cores"), of("drained_in_s")), (None, None));
        let p99 = FIGURES.iter().find(|figure| figure.key == "p99_ms").unwrap();
        assert_eq!(compared.runs.iter().map(|run| run.cell(p99)).collect::<Vec<_>>(), ["20 ms", "30 ms (1.5×)"]);
        let json = compared.json();
        assert_eq!(
            (&json["runs"][1]["ratios"]["p99_ms"], &json["runs"][1]["figures"]["p99_ms"]),
            (&json!(1.5), &json!(30.0))
        );
        assert_eq!(json["runs"][1]["ratios"]["cpu_cores"], Value::Null);
    }

    #[test]
    fn equal_settings_raise_no_warning() {
        let compared = compare(|run| run.started_at_ms += 1);
        assert_eq!(compared.differences, []);
        assert!(compared.html().contains("None: plan, host and versions are the same"));
    }

    #[test]
    fn another_plan_host_or_version_is_named() {
        let compared = compare(|run| {
            run.setting.host = "two".to_owned();
            run.setting.versions.insert("kafka".to_owned(), "4.1".to_owned());
            run.plan["payload"]["bytes"] = json!(3000);
            run.plan["seed"] = json!("<7>");
        });
        let told: Vec<String> =
            compared.differences.iter().map(|d| format!("{} {} {} {}", d.run, d.what, d.first, d.there)).collect();
        assert_eq!(
            told,
            [
                "B: short host one two",
                "B: short version of kafka none 4.1",
                "B: short plan: payload.bytes 300 3000",
                "B: short plan: seed none \"<7>\""
            ]
        );
        let html = compared.html();
        assert!(html.contains("not comparable as they stand") && html.contains("&lt;7&gt;"), "{html}");
    }

    #[test]
    fn many_differences_of_a_plan_are_counted_and_long_ones_shortened() {
        let compared = compare(|run| {
            let keys = (0..50).map(|key| (format!("k{key:02}"), json!("é".repeat(100))));
            run.plan = Value::Object(keys.collect());
        });
        assert_eq!(compared.differences.len(), PLAN_DIFFERENCES + 1);
        assert!(compared.differences[0].there.ends_with("é…"), "{:?}", compared.differences[0]);
        assert_eq!(compared.differences[PLAN_DIFFERENCES].there, "32 more keys differ");
    }

    #[test]
    fn long_texts_that_begin_alike_still_differ() {
        let mut first = samples::short();
        first.plan = json!("x".repeat(100) + "1");
        let mut other = samples::short();
        other.plan = json!("x".repeat(100) + "2");
        let compared = Comparison::of(vec![("a".to_owned(), first), ("b".to_owned(), other)]);
        let [Difference { first, there, .. }] = &compared.differences[..] else { panic!("{:?}", compared.differences) };
        assert!(first.starts_with("…x") && first.ends_with("x1\"") && there.ends_with("x2\""), "{first} {there}");
    }
}
