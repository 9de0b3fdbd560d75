//! The dashboards and alerts hold to the rules of Grafana's linter, and name the metrics and labels that there are.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

#[path = "common/panels.rs"]
mod panels;

use panels::{Query, Selector, dashboards, panels, queries, read, selectors, text};

/// Metrics that no dashboard shows, each with its reason.
const LEFT_OUT: [(&str, &str); 11] = [
    ("weir_classifier_duration_seconds", "only pools that moderate by a service have it"),
    ("weir_classifier_requests_total", "only pools that moderate by a service have it"),
    ("weir_message_days_ahead", "only where messages is partitioned; an alert and the log tell when it is not well"),
    ("weir_message_days_overdue", "only where messages is partitioned; an alert and the log tell when it is not well"),
    ("weir_paused", "an operator's own doing, which `/readyz` and the log tell"),
    ("weir_reloads_total", "only pools with lookup tables or lists have it"),
    ("weir_spans_total", "only where traces are sent"),
    ("weir_status_unpublished", "only pools that moderate have it"),
    ("weir_unknown_types_total", "only pools that pass unknown types have it"),
    ("weir_verdicts_total", "only pools that moderate have it"),
    ("weir_when_missing_total", "only pools with conditions have it"),
];

/// What Prometheus adds to every series.
const TARGET: [&str; 2] = ["job", "instance"];

#[derive(Debug, PartialEq)]
struct Metric {
    labels: BTreeSet<String>,
    is_histogram: bool,
}

/// What `src/metrics.rs` declares, by name: a name, its help and its labels follow each other in each declaration.
fn declared() -> BTreeMap<String, Metric> {
    let source = read("src/metrics.rs");
    let code = source.split("#[cfg(test)]\nmod tests {").next().unwrap();
    let mut metrics = BTreeMap::new();
    for (at, _) in code.match_indices("\"weir_") {
        let (name, rest) = code[at + 1..].split_once('"').unwrap();
        let labels = rest.split_once("&[").unwrap().1.split_once(']').unwrap().0;
        let labels = labels.split(',').map(|label| label.trim().trim_matches('"').to_owned());
        let kinds = ["histograms(", "counters(", "gauges(", "Opts::new("];
        let kind = kinds.iter().max_by_key(|kind| code[..at].rfind(*kind)).unwrap();
        let metric = Metric { labels: labels.collect(), is_histogram: *kind == "histograms(" };
        metrics.insert(name.to_owned(), metric);
    }
    let process = read("src/metrics/process.rs");
    for name in ["process_cpu_seconds_total", "process_resident_memory_bytes"] {
        assert!(process.contains(&format!("{name:?}")), "{name} is not told any more");
        metrics.insert(name.to_owned(), Metric { labels: BTreeSet::new(), is_histogram: false });
    }
    metrics
}

/// The declared name behind a series of a histogram, and the metric.
fn metric<'a>(declared: &'a BTreeMap<String, Metric>, series: &str) -> Option<(&'a str, &'a Metric)> {
    let base = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| series.strip_suffix(suffix));
    let of_histogram = base.and_then(|base| declared.get_key_value(base)).filter(|(_, metric)| metric.is_histogram);
    let plain = declared.get_key_value(series).filter(|(_, metric)| !metric.is_histogram);
    of_histogram.or(plain).map(|(name, metric)| (name.as_str(), metric))
}

/// The labels that an expression's `by (…)` names.
fn grouped_by(expr: &str) -> BTreeSet<&str> {
    let groups = expr.split("by (").skip(1).map(|rest| rest.split_once(')').expect("parentheses are closed").0);
    groups.flat_map(|labels| labels.split(',')).map(str::trim).collect()
}

/// The names of the labels in braces.
fn matched(matchers: &str) -> impl Iterator<Item = &str> {
    matchers.split(',').filter_map(|matcher| Some(matcher.split_once(['=', '!'])?.0.trim()))
}

/// Every series is declared, and every label is one that it has.
fn check_names(place: &str, expr: &str, declared: &BTreeMap<String, Metric>) {
    let found = selectors(expr);
    assert!(!found.is_empty(), "{place}: no metric of weir's in {expr}");
    let mut labels: BTreeSet<&str> = TARGET.into();
    for selector in &found {
        let (_, metric) = metric(declared, selector.name)
            .unwrap_or_else(|| panic!("{place}: src/metrics.rs declares no {}", selector.name));
        labels.extend(metric.labels.iter().map(String::as_str));
        labels.extend(metric.is_histogram.then_some("le"));
        for label in matched(selector.matchers) {
            let is_known = TARGET.contains(&label) || metric.labels.contains(label);
            assert!(is_known, "{place}: {} has no label {label}", selector.name);
        }
    }
    for label in grouped_by(expr) {
        assert!(labels.contains(label), "{place}: no metric of {expr} has the label {label}");
    }
}

#[test]
fn every_query_names_metrics_and_labels_that_there_are() {
    let declared = declared();
    assert!(declared.len() > 25, "{} metrics found: are they declared otherwise now?", declared.len());
    for Query { place, expr, legend } in queries() {
        check_names(&place, &expr, &declared);
        let by = grouped_by(&expr);
        for label in legend.split("{{").skip(1).map(|rest| rest.split_once("}}").unwrap().0) {
            assert!(by.contains(label), "{place}: the legend has {label}, which is summed away");
        }
    }
}

#[test]
fn every_alert_names_metrics_and_labels_that_there_are() {
    let (declared, rules) = (declared(), read("alerts/weir.yaml"));
    let mut count = 0;
    for rule in rules.split("- alert: ").skip(1) {
        let name = rule.lines().next().unwrap();
        let expr = rule.split_once("expr:").unwrap().1.split_once("\n        labels:").unwrap().0;
        check_names(name, expr.split("\n        for:").next().unwrap(), &declared);
        count += 1;
    }
    assert!(count >= 9, "{count} alerts found");
}

#[test]
fn every_metric_is_shown_or_left_out_on_purpose() {
    let (declared, queries) = (declared(), queries());
    let named = queries.iter().flat_map(|query| selectors(&query.expr));
    let shown: BTreeSet<&str> = named.filter_map(|series| Some(metric(&declared, series.name)?.0)).collect();
    for name in declared.keys().map(String::as_str) {
        let is_left_out = LEFT_OUT.iter().any(|(left_out, _)| *left_out == name);
        assert_ne!(
            shown.contains(name),
            is_left_out,
            "{name}: show it in scripts/dashboards.py, or list it as left out"
        );
    }
}

#[test]
fn counters_are_shown_as_rates_over_the_interval_that_grafana_chooses() {
    for Query { place, expr, .. } in queries() {
        for Selector { name, before, behind, .. } in selectors(&expr) {
            let is_counter = ["_total", "_bucket", "_sum", "_count"].iter().any(|suffix| name.ends_with(suffix));
            let is_rate = before.ends_with("rate(") && behind.starts_with("[$__rate_interval]");
            let is_increase = before.ends_with("increase(")
                && ["[$__rate_interval]", "[$__range]"].iter().any(|range| behind.starts_with(range));
            assert_eq!(is_counter, is_rate || is_increase, "{place}: {expr}");
        }
    }
}

#[test]
fn every_query_is_about_the_chosen_jobs_and_instances() {
    for Query { place, expr, .. } in queries() {
        let is_of_a_pool = place.starts_with("weir / Pool");
        for Selector { name, matchers, .. } in selectors(&expr) {
            for label in TARGET {
                assert!(
                    matchers.contains(&format!("{label}=~\"${label}\"")),
                    "{place}: {name} has no matcher of {label}"
                );
            }
            assert_eq!(matchers.contains("pool=~\"$pool\""), is_of_a_pool, "{place}: {name}");
        }
    }
}

#[test]
fn every_panel_says_what_it_shows_and_in_which_unit() {
    for dashboard in &dashboards() {
        let mut titles = BTreeSet::new();
        for panel in panels(dashboard) {
            let title = text(panel, "title");
            assert!(!title.is_empty() && titles.insert(title), "{}: two panels {title:?}", dashboard["title"]);
            assert!(text(panel, "description").ends_with('.'), "{title}: description");
            assert!(!text(&panel["fieldConfig"]["defaults"], "unit").is_empty(), "{title}: unit");
            assert_eq!(panel["datasource"]["uid"], "${datasource}", "{title}");
            let targets = panel["targets"].as_array().unwrap();
            assert!(!targets.is_empty(), "{title}: no query");
            assert!(targets.iter().all(|target| target["datasource"]["uid"] == "${datasource}"), "{title}");
        }
    }
}

#[test]
fn every_dashboard_has_the_usual_variables_and_is_not_edited_by_hand() {
    let mut ids = BTreeSet::new();
    for dashboard in dashboards() {
        let title = text(&dashboard, "title");
        assert_eq!(dashboard["editable"], false, "{title}");
        assert!(ids.insert(text(&dashboard, "uid").to_owned()), "{title}: its uid is another's");
        let variables = dashboard["templating"]["list"].as_array().unwrap();
        let sources: Vec<&Value> = variables.iter().filter(|variable| variable["type"] == "datasource").collect();
        assert_eq!(sources.len(), 1, "{title}: data sources");
        assert_eq!((text(sources[0], "name"), text(sources[0], "query")), ("datasource", "prometheus"), "{title}");
        for name in TARGET {
            let variable = variables.iter().find(|variable| variable["name"] == name);
            let variable = variable.unwrap_or_else(|| panic!("{title}: no variable {name}"));
            assert!(!text(variable, "label").is_empty(), "{title}: {name} has no label");
            assert_eq!((&variable["multi"], text(variable, "allValue")), (&Value::Bool(true), ".+"), "{title}: {name}");
            assert_eq!(variable["datasource"]["uid"], "${datasource}", "{title}: {name}");
        }
    }
}

#[test]
fn panels_do_not_overlap() {
    for dashboard in dashboards() {
        let place = |panel: &Value, name: &str| panel["gridPos"][name].as_u64().unwrap();
        let mut taken = BTreeSet::new();
        for panel in dashboard["panels"].as_array().unwrap() {
            let (x, y) = (place(panel, "x"), place(panel, "y"));
            assert!(x + place(panel, "w") <= 24, "{}: beyond the edge", panel["title"]);
            let cells = (x..x + place(panel, "w")).flat_map(|x| (y..y + place(panel, "h")).map(move |y| (x, y)));
            for cell in cells {
                assert!(taken.insert(cell), "{}: over another at {cell:?}", panel["title"]);
            }
        }
    }
}
