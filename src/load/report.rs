//! The report of a run, and of several beside each other.
//!
//! What it promises: one file that makes no request, readable in light and dark, on a phone and on paper; and that no
//! text of a plan, a host or a version is taken for anything but text.

mod axis;
mod compare;
mod figures;
mod page;
mod plot;
mod plots;
mod read;
#[cfg(test)]
mod samples;
mod tables;
mod text;

pub use compare::{Compared, Comparison, Difference};
pub use figures::{FIGURES, Figure};
pub use read::{RESULT_FILE, ReadError, read};
pub use text::Unit;

use super::result::RunResult;

/// The report of one run as an HTML page.
#[must_use]
pub fn html(run: &RunResult) -> String {
    page::of_run(run)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::result::{Interval, Percentiles, Phase, Point, Verdict};

    #[test]
    fn a_run_without_intervals_and_one_with_a_single_one_have_pages() {
        let html = super::html(&samples::empty());
        assert!(html.contains("Nothing was asked for") && html.contains("nothing was measured"), "{html}");
        let html = super::html(&samples::short());
        assert!(html.contains("✓ Passed: 1 verdict") && !html.contains("NaN"), "{html}");
        let both = Comparison::of(vec![("a".to_owned(), samples::short()), ("b".to_owned(), samples::empty())]);
        assert!(both.html().contains("<h1>Comparison of 2 runs</h1>"));
        assert!(Comparison::of(Vec::new()).html().contains("<h1>Comparison of 0 runs</h1>"));
    }

    #[test]
    fn what_is_no_number_is_no_panic_and_reaches_no_plot() {
        for wrong in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -1.0, 0.0, f64::MAX] {
            let values =
                Percentiles { count: 1, p50_ms: wrong, p90_ms: wrong, p99_ms: wrong, p999_ms: wrong, max_ms: wrong };
            let mut run = samples::short();
            run.took_s = wrong;
            run.totals.latency = values;
            run.totals.drained_in_s = Some(wrong);
            run.totals.latency_by_percentile.push(Point { percentile: wrong, value_ms: wrong });
            run.phases.push(Phase { begin_s: wrong, end_s: wrong, latency: values, ..Phase::default() });
            run.intervals.push(Interval {
                at_s: wrong,
                length_s: wrong,
                lag_s: wrong,
                latency: values,
                slip: values,
                batches: u64::MAX,
                batch_events: wrong,
                loop_share: [("poll".to_owned(), wrong)].into(),
                ..run.intervals[0].clone()
            });
            let html =
                super::html(&run) + &Comparison::of(vec![("a".to_owned(), run.clone()), ("b".to_owned(), run)]).html();
            assert!(!html.contains("NaN") && !html.contains("inf\"") && !html.contains("inf "), "{wrong}: {html}");
        }
    }

    #[test]
    fn every_text_of_a_result_stays_text() {
        let evil = "</script></title></style><script src=http://evil.invalid>\"'&";
        let mut run = samples::short();
        run.name = evil.to_owned();
        run.phases[0].name = evil.to_owned();
        run.setting.host = evil.to_owned();
        run.setting.versions.insert(evil.to_owned(), evil.to_owned());
        run.plan = serde_json::json!({ evil: evil });
        run.intervals[0].workers[0].address = evil.to_owned();
        run.intervals[0].loop_share.insert(evil.to_owned(), 0.1);
        run.verdicts[0] =
            Verdict { name: evil.to_owned(), asked: evil.to_owned(), found: evil.to_owned(), passed: false };
        let plain = samples::short();
        let elements = |html: &str, tag: &str| html.matches(tag).count();
        let pages = [
            (super::html(&run), super::html(&plain)),
            (
                Comparison::of(vec![(evil.to_owned(), run.clone()), (evil.to_owned(), run)]).html(),
                Comparison::of(vec![("a".to_owned(), plain.clone()), ("b".to_owned(), plain)]).html(),
            ),
        ];
        for (evil, plain) in pages {
            for tag in ["<script", "</script", "</title>\n", "</style"] {
                assert_eq!(elements(&evil, tag), elements(&plain, tag), "{tag}");
            }
            assert!(!evil.contains("<script src"));
        }
    }
}
