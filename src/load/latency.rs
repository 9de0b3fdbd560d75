//! Distributions: what came between two looks at a histogram that only grows, and its points by percentile.

use hdrhistogram::Histogram;

use super::result::Point;
pub(super) use crate::metrics::latency_histogram as histogram;

/// Points a halving of the distance to 100 %, as HdrHistogram's own tools have them.
const TICKS_PER_HALF: u32 = 5;

/// What was added since an earlier look. `None`: it is none of the same histogram, since counts have gone.
pub(super) fn since(earlier: &Histogram<u64>, now: &Histogram<u64>) -> Option<Histogram<u64>> {
    let mut added = now.clone();
    for step in earlier.iter_recorded() {
        let value = step.value_iterated_to();
        if step.count_at_value() > now.count_at(value) {
            return None;
        }
    }
    added.subtract(earlier).ok()?;
    // Subtracting leaves the extremes as they were; adding what is left works them out.
    let mut whole = histogram();
    add(&mut whole, &added);
    Some(whole)
}

/// Adds one to another. Values beyond an hour count as an hour, as they do when they are recorded.
pub(super) fn add(to: &mut Histogram<u64>, other: &Histogram<u64>) {
    for step in other.iter_recorded() {
        to.saturating_record_n(step.value_iterated_to(), step.count_at_value());
    }
}

/// For plotting by percentile: denser towards 100 %.
pub(super) fn by_percentile(histogram: &Histogram<u64>) -> Vec<Point> {
    let steps = histogram.iter_quantiles(TICKS_PER_HALF);
    steps
        .map(|step| Point { percentile: step.quantile_iterated_to() * 100.0, value_ms: ms(step.value_iterated_to()) })
        .collect()
}

/// HdrHistogram's text form, values in milliseconds.
pub(super) fn percentile_text(histogram: &Histogram<u64>) -> String {
    let mut text = format!("{:>12} {:>14} {:>10} {:>14}\n\n", "Value", "Percentile", "TotalCount", "1/(1-Percentile)");
    for step in histogram.iter_quantiles(TICKS_PER_HALF) {
        let (value, quantile) = (ms(step.value_iterated_to()), step.quantile_iterated_to());
        let up_to = histogram.count_between(0, step.value_iterated_to());
        text += &format!("{value:12.3} {quantile:2.12} {up_to:10}");
        if quantile < 1.0 {
            text += &format!(" {:14.2}", 1.0 / (1.0 - quantile));
        }
        text.push('\n');
    }
    let (mean, deviation) = (histogram.mean() / 1_000.0, histogram.stdev() / 1_000.0);
    text += &format!("#[Mean    = {mean:12.3}, StdDeviation   = {deviation:12.3}]\n");
    text += &format!("#[Max     = {:12.3}, Total count    = {:12}]\n", ms(histogram.max()), histogram.len());
    text += &format!("#[Buckets = {:12}, SubBuckets     = {:12}]\n", histogram.buckets(), 2_048);
    text
}

#[expect(clippy::cast_precision_loss, reason = "microseconds of an hour are far below 2^52")]
fn ms(us: u64) -> f64 {
    us as f64 / 1_000.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Percentiles;

    fn of(values: &[u64]) -> Histogram<u64> {
        let mut histogram = histogram();
        values.iter().for_each(|value| histogram.saturating_record(*value));
        histogram
    }

    #[test]
    fn what_came_since_is_the_difference_with_extremes_of_its_own() {
        let (earlier, now) = (of(&[5, 900_000, 20]), of(&[5, 900_000, 20, 5, 300]));
        let added = since(&earlier, &now).unwrap();
        assert_eq!((added.len(), added.min(), added.max()), (2, 5, 300));
        assert_eq!(since(&now, &now).unwrap().len(), 0);
    }

    #[test]
    fn a_histogram_that_lost_counts_is_another() {
        assert!(since(&of(&[5, 5]), &of(&[5, 7, 8, 9])).is_none());
        assert!(since(&of(&[5]), &of(&[])).is_none());
    }

    #[test]
    fn looks_add_up_to_the_whole() {
        let (mut whole, mut earlier) = (histogram(), histogram());
        let mut now = histogram();
        for round in 1..50_u64 {
            (0..round * 3).for_each(|n| now.saturating_record(n * n * round));
            add(&mut whole, &since(&earlier, &now).unwrap());
            earlier = now.clone();
        }
        assert_eq!(Percentiles::of(&whole), Percentiles::of(&now));
        assert!(whole == now);
    }

    #[test]
    fn points_go_from_the_least_to_all_values() {
        let points = by_percentile(&of(&[1_000, 2_000, 3_000, 4_000]));
        let (first, last) = (points.first().unwrap(), points.last().unwrap());
        assert_eq!((first.percentile, last.percentile), (0.0, 100.0));
        assert!((first.value_ms - 1.0).abs() < 0.01 && (last.value_ms - 4.0).abs() < 0.01, "{points:?}");
        assert!(points.is_sorted_by(|a, b| a.percentile < b.percentile && a.value_ms <= b.value_ms), "{points:?}");
    }

    #[test]
    fn nothing_has_no_figures() {
        assert_eq!(Percentiles::of(&histogram()), Percentiles::default());
    }

    #[test]
    fn the_text_form_ends_at_all_values() {
        let text = percentile_text(&of(&(1..=1_000).map(|n| n * 1_000).collect::<Vec<_>>()));
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[0], ["Value", "Percentile", "TotalCount", "1/(1-Percentile)"]);
        let half = lines.iter().find(|line| line.len() == 4 && line[1] == "0.500000000000").unwrap();
        assert_eq!((half[2], half[3]), ("500", "2.00"));
        assert!(text.contains("1.000000000000       1000\n#[Mean"), "{text}");
        assert_eq!(lines[2][1], "0.000000000000");
        assert!(text.contains("Total count    =         1000]"), "{text}");
    }
}
