//! What was asked of a run, and whether it was found.

use std::time::Duration;

use super::plan::{Plan, Thresholds};
use super::result::{Percentiles, Totals, Verdict};

/// What is known of a run beside its totals.
#[derive(Debug, Clone, Default)]
pub(super) struct Found {
    /// Events that were meant to be sent and were not handed to a producer.
    pub(super) unsent: u64,
    /// Not settled in time.
    pub(super) pending: u64,
    pub(super) counters_wrong: Option<u64>,
    /// Why nobody looked at the effects.
    pub(super) unaudited: Option<String>,
    /// The first reason of a failed event.
    pub(super) first_error: Option<String>,
    /// What went wrong with workers that the run has started.
    pub(super) workers: Vec<String>,
    pub(super) was_interrupted: bool,
}

pub(super) fn of(plan: &Plan, totals: &Totals, found: &Found) -> Vec<Verdict> {
    let asked = &plan.thresholds;
    let mut verdicts = vec![generator(asked.slip_p99, totals), sent(totals, found)];
    let reason = found.first_error.as_deref().map(|why| format!(": {why}")).unwrap_or_default();
    verdicts.push(at_most("failed", asked.failed, totals.failed, &reason));
    let within = humantime::format_duration(plan.drain_timeout);
    verdicts.push(Verdict {
        name: "drained".to_owned(),
        asked: format!("everything settled within {within}"),
        found: match totals.drained_in_s {
            Some(seconds) => format!("after {seconds:.2} s"),
            None => format!("{} ids were not settled in time", found.pending),
        },
        passed: totals.drained_in_s.is_some(),
    });
    let audited = |name: &str, limit: u64, count: Option<u64>| match (count, &found.unaudited) {
        (Some(count), _) => Some(at_most(name, limit, count, "")),
        (None, Some(why)) => Some(unknown(name, limit, why)),
        (None, None) => None,
    };
    verdicts.extend(audited("lost", asked.lost, totals.lost));
    verdicts.extend(audited("repeated", asked.repeated, totals.repeated));
    verdicts.extend(audited("out_of_order", asked.out_of_order, totals.out_of_order));
    verdicts.extend(audited("counters_wrong", asked.counters_wrong, found.counters_wrong));
    verdicts.extend(latencies(asked, &totals.latency));
    if let Some(limit) = asked.drained_in {
        verdicts.push(seconds("drained_in", limit, totals.drained_in_s));
    }
    if let Some(limit) = asked.longest_pause {
        verdicts.push(seconds("longest_pause", limit, Some(totals.longest_pause_s)));
    }
    if plan.workers.start.is_some() {
        verdicts.push(Verdict {
            name: "workers".to_owned(),
            asked: "all run until they are told to stop, and end well".to_owned(),
            found: if found.workers.is_empty() { "they did".to_owned() } else { found.workers.join("; ") },
            passed: found.workers.is_empty(),
        });
    }
    if found.was_interrupted {
        verdicts.push(Verdict {
            name: "whole".to_owned(),
            asked: "every phase to its end".to_owned(),
            found: "stopped early".to_owned(),
            passed: false,
        });
    }
    verdicts
}

fn latencies(asked: &Thresholds, found: &Percentiles) -> impl Iterator<Item = Verdict> {
    let limits = [
        ("latency_p50", asked.latency_p50, found.p50_ms),
        ("latency_p90", asked.latency_p90, found.p90_ms),
        ("latency_p99", asked.latency_p99, found.p99_ms),
        ("latency_p999", asked.latency_p999, found.p999_ms),
        ("latency_max", asked.latency_max, found.max_ms),
    ];
    let is_measured = found.count > 0;
    limits
        .into_iter()
        .filter_map(move |(name, limit, found_ms)| Some(millis(name, limit?, Some(found_ms).filter(|_| is_measured))))
}

/// A generator that fell behind has sent another load than the plan's.
fn generator(limit: Duration, totals: &Totals) -> Verdict {
    let is_measured = totals.slip.count > 0;
    let mut verdict = millis("slip_p99", limit, Some(totals.slip.p99_ms).filter(|_| is_measured));
    if !verdict.passed && is_measured {
        verdict.found += ": the generator fell behind, so this is not the plan's load; lower the rate, or give it more \
                          producers, in_flight or processor";
    }
    verdict
}

fn sent(totals: &Totals, found: &Found) -> Verdict {
    Verdict {
        name: "sent".to_owned(),
        asked: "every intended event".to_owned(),
        found: match found.unsent {
            0 => format!("all {}", totals.intended),
            unsent => format!(
                "{unsent} of {} events were never sent: the generator fell behind, so this is not the plan's load",
                totals.intended
            ),
        },
        passed: found.unsent == 0,
    }
}

fn at_most(name: &str, limit: u64, found: u64, remark: &str) -> Verdict {
    Verdict {
        name: name.to_owned(),
        asked: format!("at most {limit}"),
        found: if found == 0 { found.to_string() } else { format!("{found}{remark}") },
        passed: found <= limit,
    }
}

fn unknown(name: &str, limit: u64, why: &str) -> Verdict {
    Verdict { found: format!("nobody looked: {why}"), passed: false, ..at_most(name, limit, 0, "") }
}

fn millis(name: &str, limit: Duration, found_ms: Option<f64>) -> Verdict {
    let limit_ms = limit.as_secs_f64() * 1_000.0;
    Verdict {
        name: name.to_owned(),
        asked: format!("at most {}", humantime::format_duration(limit)),
        found: found_ms.map_or_else(|| "nothing was measured".to_owned(), |found_ms| format!("{found_ms:.1} ms")),
        passed: found_ms.is_some_and(|found_ms| found_ms <= limit_ms),
    }
}

fn seconds(name: &str, limit: Duration, found: Option<f64>) -> Verdict {
    Verdict {
        name: name.to_owned(),
        asked: format!("at most {}", humantime::format_duration(limit)),
        found: found.map_or_else(|| "not at all".to_owned(), |found| format!("{found:.2} s")),
        passed: found.is_some_and(|found| found <= limit.as_secs_f64()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAN: &str = "name = \"x\"\n[[phases]]\nname = \"a\"\nduration = \"1s\"\nrate = 1\n[workers]\nstart = 1\n\
                        [thresholds]\nlatency_p99 = \"250ms\"\ndrained_in = \"2s\"\n";

    fn plan(more: &str) -> Plan {
        toml::from_str(&format!("{PLAN}{more}")).unwrap()
    }

    fn totals() -> Totals {
        let few = Percentiles { count: 100, p99_ms: 20.0, max_ms: 30.0, ..Percentiles::default() };
        Totals {
            lost: Some(0),
            repeated: Some(0),
            out_of_order: Some(0),
            slip: few,
            latency: few,
            drained_in_s: Some(0.5),
            ..Totals::default()
        }
    }

    fn failing(plan: &Plan, totals: &Totals, found: &Found) -> Vec<String> {
        of(plan, totals, found).into_iter().filter(|verdict| !verdict.passed).map(|verdict| verdict.name).collect()
    }

    #[test]
    fn a_run_in_which_all_is_well_passes() {
        let verdicts = of(&plan(""), &totals(), &Found::default());
        assert!(verdicts.iter().all(|verdict| verdict.passed), "{verdicts:?}");
        let names: Vec<&str> = verdicts.iter().map(|verdict| verdict.name.as_str()).collect();
        let expected = ["slip_p99", "sent", "failed", "drained", "lost", "repeated", "out_of_order"];
        assert_eq!(names[..7], expected);
        assert_eq!(names[7..], ["latency_p99", "drained_in", "workers"]);
    }

    #[test]
    fn each_fault_fails_its_own_verdict() {
        let fine = || (totals(), Found::default());
        type Change = fn(&mut Totals, &mut Found);
        let cases: [(&str, Change); 11] = [
            ("slip_p99", |totals, _| totals.slip.p99_ms = 100.1),
            ("sent", |_, found| found.unsent = 1),
            ("failed", |totals, _| totals.failed = 1),
            ("lost", |totals, _| totals.lost = Some(1)),
            ("repeated", |totals, _| totals.repeated = Some(1)),
            ("out_of_order", |totals, _| totals.out_of_order = Some(1)),
            ("counters_wrong", |_, found| found.counters_wrong = Some(1)),
            ("latency_p99", |totals, _| totals.latency.p99_ms = 250.1),
            ("drained_in", |totals, _| totals.drained_in_s = Some(2.1)),
            ("workers", |_, found| found.workers.push("a worker has ended".to_owned())),
            ("whole", |_, found| found.was_interrupted = true),
        ];
        for (name, change) in cases {
            let (mut totals, mut found) = fine();
            change(&mut totals, &mut found);
            assert_eq!(failing(&plan(""), &totals, &found), [name]);
        }
    }

    #[test]
    fn what_was_not_looked_at_has_not_passed() {
        let totals = Totals { lost: None, repeated: None, out_of_order: None, ..totals() };
        let found = Found { unaudited: Some("the database is away".to_owned()), ..Found::default() };
        let failing_now = failing(&plan(""), &totals, &found);
        assert_eq!(failing_now, ["lost", "repeated", "out_of_order", "counters_wrong"]);
        let unmeasured = Totals { latency: Percentiles::default(), ..self::totals() };
        assert_eq!(failing(&plan(""), &unmeasured, &Found::default()), ["latency_p99"]);
        // A pool whose table does not say when its rows came is not asked for their order.
        let no_order = Totals { out_of_order: None, ..self::totals() };
        assert!(failing(&plan(""), &no_order, &Found::default()).is_empty());
    }

    #[test]
    fn a_threshold_can_allow_what_is_asked_by_default() {
        let totals = Totals { lost: Some(3), ..totals() };
        assert!(failing(&plan("lost = 3\n"), &totals, &Found::default()).is_empty());
    }

    #[test]
    fn a_generator_that_fell_behind_says_so() {
        let (mut totals, found) = (totals(), Found { unsent: 7, ..Found::default() });
        totals.slip.p99_ms = 5_000.0;
        for verdict in &of(&plan(""), &totals, &found)[..2] {
            assert!(!verdict.passed && verdict.found.contains("the generator fell behind"), "{verdict:?}");
        }
    }
}
