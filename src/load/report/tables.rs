//! The page's parts that are not plots.

use super::compare::setting_rows;
use super::figures::FIGURES;
use super::plot::warm_up_mark;
use super::text::{self, Unit, count, escape, length, number};
use crate::load::result::{Percentiles, RunResult, Totals};

/// What was asked for and what was found; what failed comes first.
pub(super) fn verdicts(run: &RunResult) -> String {
    if run.verdicts.is_empty() {
        return "<p>The plan asked for nothing.</p>\n".to_owned();
    }
    let mut html = String::from(
        "<div class=\"wide\"><table class=\"verdicts\">\n<thead><tr><th></th><th>what</th><th>asked</th><th>found</th></tr>\
         </thead>\n<tbody>\n",
    );
    let failed_first =
        [false, true].into_iter().flat_map(|passed| run.verdicts.iter().filter(move |v| v.passed == passed));
    for verdict in failed_first {
        html += &format!(
            "<tr><td>{}</td><th scope=\"row\">{}</th><td>{}</td><td>{}</td></tr>\n",
            mark(verdict.passed),
            escape(&verdict.name),
            escape(&verdict.asked),
            escape(&verdict.found)
        );
    }
    html + "</tbody></table></div>\n"
}

/// Passed or failed, by a sign, a word and a colour.
pub(super) fn mark(passed: bool) -> &'static str {
    match passed {
        true => "<span class=\"mark passed\">✓ passed</span>",
        false => "<span class=\"mark failed\">✗ failed</span>",
    }
}

pub(super) fn figures(run: &RunResult) -> String {
    let mut html = String::from("<dl class=\"figures\">\n");
    for figure in FIGURES {
        let value = (figure.of)(run).map_or_else(|| "–".to_owned(), |value| figure.unit.write(value));
        html += &card(figure.label, &value);
    }
    for (label, value) in totals(&run.totals) {
        html += &card(label, &value);
    }
    html + "</dl>\n"
}

fn card(label: &str, value: &str) -> String {
    format!("<div><dt>{label}</dt><dd>{value}</dd></div>\n")
}

fn totals(totals: &Totals) -> Vec<(&'static str, String)> {
    let looked = |found: Option<u64>| found.map_or_else(|| "not looked at".to_owned(), count);
    vec![
        ("slip, 99 %", percentile(&totals.slip, totals.slip.p99_ms)),
        ("events intended", count(totals.intended)),
        ("acknowledged", count(totals.acknowledged)),
        ("not acknowledged", count(totals.failed)),
        ("sent again on purpose", count(totals.duplicates)),
        ("sent to be refused", count(totals.poison)),
        ("ids with an effect", count(totals.effects)),
        ("ids with a dead row", count(totals.dead)),
        ("lost", looked(totals.lost)),
        ("repeated", looked(totals.repeated)),
        ("out of order", looked(totals.out_of_order)),
        ("rebalances", count(totals.rebalances)),
        ("longest pause", length(totals.longest_pause_s)),
    ]
}

fn percentile(of: &Percentiles, value_ms: f64) -> String {
    if of.count == 0 { "–".to_owned() } else { Unit::Millis.write(value_ms) }
}

pub(super) fn phases(run: &RunResult) -> String {
    let mut html = String::from(
        "<div class=\"wide\"><table class=\"numbers\">\n<thead><tr><th>phase</th><th>from</th><th>to</th><th>intended</th>\
         <th>sent</th><th>intended /s</th><th>latency 50 %</th><th>90 %</th><th>99 %</th><th>99.9 %</th><th>highest</th>\
         <th>slip 99 %</th></tr></thead>\n<tbody>\n",
    );
    for phase in &run.phases {
        let rate = phase.intended as f64 / (phase.end_s - phase.begin_s);
        let latency = &phase.latency;
        let name = escape(&phase.name);
        html += &format!("<tr><th scope=\"row\">{name}{}</th>", warm_up_mark(&phase.name, phase.warm_up));
        let values = [
            text::clock(phase.begin_s),
            text::clock(phase.end_s),
            count(phase.intended),
            count(phase.sent),
            number(rate),
            percentile(latency, latency.p50_ms),
            percentile(latency, latency.p90_ms),
            percentile(latency, latency.p99_ms),
            percentile(latency, latency.p999_ms),
            percentile(latency, latency.max_ms),
            percentile(&phase.slip, phase.slip.p99_ms),
        ];
        html += &format!("{}</tr>\n", values.map(|value| format!("<td>{value}</td>")).concat());
    }
    html + "</tbody></table></div>\n"
}

pub(super) fn setting(run: &RunResult) -> String {
    let rows = setting_rows(run)
        .into_iter()
        .map(|(what, value)| format!("<tr><th scope=\"row\">{}</th><td>{}</td></tr>\n", escape(&what), escape(&value)));
    format!("<div class=\"wide\"><table>\n<tbody>\n{}</tbody></table></div>\n", rows.collect::<String>())
}

pub(super) fn plan(run: &RunResult) -> String {
    let plan = serde_json::to_string_pretty(&run.plan).unwrap_or_else(|_| run.plan.to_string());
    format!("<details open><summary>as it was resolved</summary><pre>{}</pre></details>\n", escape(&plan))
}
