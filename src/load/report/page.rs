//! The page around tables and plots: one file that asks nobody for anything, and is told so by its policy.

use super::compare::Comparison;
use super::figures::FIGURES;
use super::plot::numbered;
use super::text::{escape, length, moment};
use super::{plots, tables};
use crate::load::result::RunResult;

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// The report of one run.
pub(super) fn of_run(run: &RunResult) -> String {
    let failed = run.verdicts.iter().filter(|verdict| !verdict.passed).count();
    let outcome = match (run.verdicts.len(), failed) {
        (0, _) => "<p class=\"outcome\">Nothing was asked for</p>".to_owned(),
        (all, 0) => format!("<p class=\"outcome passed\">✓ Passed: {}</p>", numbered(all, "verdict")),
        (all, failed) => format!("<p class=\"outcome failed\">✗ Failed: {failed} of {}</p>", numbered(all, "verdict")),
    };
    let mut body = format!(
        "<header>\n<h1>{}</h1>\n<p>Load run of {}, {} long, weir {}{}</p>\n{outcome}\n</header>\n",
        escape(&run.name),
        moment(run.started_at_ms),
        length(run.took_s),
        escape(&run.setting.weir),
        if run.setting.host.is_empty() { String::new() } else { format!(", on {}", escape(&run.setting.host)) }
    );
    body += &section("verdicts", "Verdicts", &tables::verdicts(run));
    body += &section("figures", "Key figures", &tables::figures(run));
    body += &section("plots", "Over time", &(plot_note(&[run]) + &grid(&plots::of_run(run))));
    body += &section("phases", "Phases", &tables::phases(run));
    body += &section("setting", "Setting", &tables::setting(run));
    body += &section("plan", "Plan", &tables::plan(run));
    page(&format!("{}: load report", run.name), &body)
}

/// The report that lays runs over each other.
pub(super) fn of_runs(comparison: &Comparison) -> String {
    let runs: Vec<_> = comparison.runs.iter().map(|compared| (compared.label(), &compared.run)).collect();
    let mut body = format!("<header>\n<h1>Comparison of {}</h1>\n<ol class=\"runs\">\n", numbered(runs.len(), "run"));
    for compared in &comparison.runs {
        body += &format!(
            "<li><strong>{}</strong>: {}, {} long, {} <code>{}</code></li>\n",
            escape(&compared.label()),
            moment(compared.run.started_at_ms),
            length(compared.run.took_s),
            tables::mark(compared.run.is_passed()),
            escape(&compared.source)
        );
    }
    body += "</ol>\n</header>\n";
    body += &section("differences", "Settings that differ", &differences(comparison));
    body += &section("figures", "Key figures", &ratios(comparison));
    let all: Vec<&RunResult> = runs.iter().map(|(_, run)| *run).collect();
    body += &section("plots", "Over time", &(plot_note(&all) + &grid(&plots::of_runs(&runs))));
    page("Load comparison", &body)
}

fn differences(comparison: &Comparison) -> String {
    if comparison.differences.is_empty() {
        return "<p>None: plan, host and versions are the same.</p>\n".to_owned();
    }
    let mut html = String::from(
        "<p class=\"warning\">⚠ The runs are not comparable as they stand: ratios show these differences too.</p>\n\
         <div class=\"wide\"><table>\n<thead><tr><th>what</th><th>of</th><th>there</th><th>in the first</th></tr></thead>\n\
         <tbody>\n",
    );
    for difference in &comparison.differences {
        html += &format!(
            "<tr><th scope=\"row\">{}</th><td>{}</td><td>{}</td><td>{}</td></tr>\n",
            escape(&difference.what),
            escape(&difference.run),
            escape(&difference.there),
            escape(&difference.first)
        );
    }
    html + "</tbody></table></div>\n"
}

fn ratios(comparison: &Comparison) -> String {
    let heads = comparison.runs.iter().map(|compared| format!("<th>{}</th>", escape(&compared.label())));
    let mut html = format!(
        "<p>In brackets the ratio to the first run.</p>\n<div class=\"wide\"><table class=\"numbers\">\n<thead><tr>\
         <th></th>{}</tr></thead>\n<tbody>\n",
        heads.collect::<String>()
    );
    for figure in FIGURES {
        html += &format!("<tr><th scope=\"row\">{}</th>", figure.label);
        for compared in &comparison.runs {
            html += &format!("<td>{}</td>", escape(&compared.cell(&figure)));
        }
        html += "</tr>\n";
    }
    html + "</tbody></table></div>\n"
}

/// What points are, where that is not plain.
fn plot_note(runs: &[&RunResult]) -> String {
    let most = runs.iter().map(|run| plots::intervals_a_point(run)).max().unwrap_or(1);
    let thinned = if most > 1 {
        format!(
            " A point stands for up to {most} intervals: rates, shares and cores are their mean, lag, latency, slip and \
             memory the highest of them."
        )
    } else {
        String::new()
    };
    let warm_up = match runs {
        [run] if run.phases.iter().any(|phase| phase.warm_up) => {
            " Phases are shaded, <span class=\"shade\">the warm-up</span> in a shade of its own."
        }
        _ => "",
    };
    format!(
        "<p>A point tells of the interval that ends there.{thinned}{warm_up} Values are shown under the pointer, or with \
         the arrow keys.</p>\n"
    )
}

fn grid(plots: &str) -> String {
    format!("<div class=\"plots\">\n{plots}</div>\n")
}

fn section(id: &str, title: &str, html: &str) -> String {
    format!(
        "<section aria-labelledby=\"{id}-title\" id=\"{id}\">\n<h2 id=\"{id}-title\">{title}</h2>\n{html}</section>\n"
    )
}

fn page(title: &str, body: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; \
         script-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<link rel=\"icon\" href=\"data:,\">\n\
         <title>{}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n{body}<script>\n{SCRIPT}</script>\n</body>\n</html>\n",
        escape(title)
    )
}
