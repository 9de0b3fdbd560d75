//! A plot as SVG in HTML.
//!
//! A module of our own rather than a plotting library. plotters, the one that is kept well, draws on a canvas of fixed
//! size: on a phone the page would have to shrink it, text included, or be scrolled. Its SVG has neither classes, so
//! that light and dark would be found by replacing colours, nor titles, nor dashes other than as single segments; the
//! axis of percentiles would be ours in any case. Here text keeps its size and stands at percentages of the width, and
//! only the marks are stretched (`preserveAspectRatio="none"`, with strokes that do not scale). The style sheet has all
//! colours and dashes, by the series' number.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::axis::Axis;
use super::text::{escape, number, script_json};

/// The height of what is plotted, in pixels.
const HEIGHT: f64 = 220.0;
/// The width of the marks' own measure.
const WIDTH: f64 = 1000.0;
/// The style sheet's looks for series; more series begin anew.
pub(super) const LOOKS: usize = 9;
/// A band of a stack that is at least so high, in pixels, has its name written into it.
const NAMED_BAND: f64 = 16.0;
/// And that over so much of the width.
const NAMED_STRETCH: f64 = 0.1 * WIDTH;

pub(super) struct Plot<'a> {
    /// The element's, and the file's if it were saved.
    pub(super) id: &'static str,
    pub(super) title: &'static str,
    /// A sentence below the title.
    pub(super) note: &'a str,
    pub(super) kind: Kind,
    pub(super) x: Axis,
    pub(super) y: Axis,
    pub(super) series: Vec<Series>,
    /// What is shaded behind the marks of a plot over time.
    pub(super) spans: &'a [Span],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Lines over time.
    Time,
    /// Areas on each other over time.
    Stack,
    /// Lines by percentile.
    Percentile,
}

pub(super) struct Series {
    pub(super) name: String,
    /// By x. `None` breaks the line.
    pub(super) points: Vec<(f64, Option<f64>)>,
}

/// A part of the time that has a name.
pub(super) struct Span {
    pub(super) name: String,
    pub(super) warm_up: bool,
    pub(super) begin: f64,
    pub(super) end: f64,
}

impl Plot<'_> {
    pub(super) fn html(&self) -> String {
        let (id, title, note) = (self.id, self.title, self.note);
        let unit = self.y.unit.title();
        let mut html = format!(
            "<figure class=\"plot\" id=\"{id}\">\n<figcaption><h3>{title}</h3> <span class=\"unit\">{unit}</span>\
             <p>{note}</p></figcaption>\n"
        );
        html += &self.legend();
        html += "<div class=\"frame\">\n";
        html += &self.span_names();
        html += &format!(
            "<svg class=\"area\" width=\"100%\" height=\"{HEIGHT}\" role=\"img\" tabindex=\"0\" aria-label=\"{title}, \
             {unit}: {}\">\n",
            escape(&self.series.iter().map(|series| series.name.as_str()).collect::<Vec<_>>().join(", "))
        );
        html += &self.shades();
        html += &self.grid();
        html += &self.marks();
        html += &self.band_names();
        if self.series.iter().all(|series| series.points.iter().all(|(_, y)| y.is_none())) {
            html += "<text class=\"none\" x=\"50%\" y=\"50%\">nothing was measured</text>\n";
        }
        html += "</svg>\n<div class=\"tip\" hidden></div>\n</div>\n";
        html += &format!("<script type=\"application/json\">{}</script>\n</figure>\n", script_json(&self.data()));
        html
    }

    /// A sample of each line, in the order of a stack from its top.
    fn legend(&self) -> String {
        let mut entries: Vec<String> =
            self.series.iter().enumerate().map(|(at, series)| self.entry(at, series)).collect();
        if self.kind == Kind::Stack {
            entries.reverse();
        }
        format!("<ul class=\"legend\">{}</ul>\n", entries.concat())
    }

    fn entry(&self, at: usize, series: &Series) -> String {
        let look = at % LOOKS;
        let sample = match self.kind {
            Kind::Stack => format!("<rect class=\"band s{look}\" width=\"26\" height=\"10\"/>"),
            _ => format!("<path class=\"line s{look}\" d=\"M0 5H26\"/>"),
        };
        format!("<li><svg width=\"26\" height=\"10\" aria-hidden=\"true\">{sample}</svg>{}</li>", escape(&series.name))
    }

    fn span_names(&self) -> String {
        let mut html = String::from("<div class=\"spans\">");
        for (at, span) in self.spans.iter().enumerate() {
            let (left, right) = (self.x.place(span.begin), self.x.place(span.end));
            let name = escape(&span.name);
            let warm_up = if span.warm_up { " warm-up" } else { "" };
            let said = name + warm_up_mark(&span.name, span.warm_up);
            write!(
                html,
                "<span class=\"span{}{warm_up}\" style=\"left:{:.2}%;width:{:.2}%\" title=\"{said}\">{said}</span>",
                at % 2,
                left * 100.0,
                (right - left).max(0.0) * 100.0
            )
            .expect("writing to a String cannot fail");
        }
        html + "</div>\n"
    }

    fn grid(&self) -> String {
        let mut html = String::from("<g class=\"grid\">");
        for tick in &self.y.ticks {
            let y = HEIGHT - self.y.place(tick.value) * HEIGHT;
            html += &format!("<line x1=\"0\" x2=\"100%\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>");
            html += &format!("<text class=\"y\" x=\"-8\" y=\"{:.1}\">{}</text>", y + 4.0, escape(&tick.text));
        }
        for (at, tick) in self.x.ticks.iter().enumerate() {
            let x = self.x.place(tick.value) * 100.0;
            let odd = if at % 2 == 1 { " odd" } else { "" };
            html += &format!("<line x1=\"{x:.2}%\" x2=\"{x:.2}%\" y1=\"{HEIGHT}\" y2=\"{}\"/>", HEIGHT + 5.0);
            html +=
                &format!("<text class=\"x{odd}\" x=\"{x:.2}%\" y=\"{}\">{}</text>", HEIGHT + 19.0, escape(&tick.text));
        }
        let name = match self.kind {
            Kind::Percentile => "percentile",
            _ => "time since the start",
        };
        html + &format!("<text class=\"x\" x=\"50%\" y=\"{}\">{name}</text></g>\n", HEIGHT + 36.0)
    }

    /// The shades of the phases, below everything else.
    fn shades(&self) -> String {
        let mut html = stretched("shades");
        for (at, span) in self.spans.iter().enumerate() {
            let (left, right) = (self.x.place(span.begin) * WIDTH, self.x.place(span.end) * WIDTH);
            let class = if span.warm_up { "warm-up".to_owned() } else { format!("span{}", at % 2) };
            let width = (right - left).max(0.0);
            html += &format!("<rect class=\"{class}\" x=\"{left:.1}\" width=\"{width:.1}\" height=\"{HEIGHT}\"/>\n");
        }
        html + "</svg>\n"
    }

    fn marks(&self) -> String {
        let mut html = stretched("marks");
        let mut below: Vec<f64> = Vec::new();
        for (at, series) in self.series.iter().enumerate() {
            let (class, path) = match self.kind {
                Kind::Stack => ("band", self.band(series, &mut below)),
                _ => ("line", self.line(series)),
            };
            let look = at % LOOKS;
            let name = escape(&series.name);
            html += &format!("<path class=\"{class} s{look}\" d=\"{path}\"><title>{name}</title></path>\n");
        }
        html + "<line class=\"cursor\" y2=\"100%\" hidden=\"\"/></svg>\n"
    }

    fn at(&self, x: f64, y: f64) -> (f64, f64) {
        (self.x.place(x) * WIDTH, HEIGHT - self.y.place(y) * HEIGHT)
    }

    /// A line through the points; one that stands alone is a dot.
    fn line(&self, series: &Series) -> String {
        let mut path = String::new();
        for run in runs(series) {
            for (at, (x, y)) in run.iter().enumerate() {
                let (x, y) = self.at(*x, *y);
                path += &format!("{}{x:.1} {y:.1}", if at == 0 { 'M' } else { 'L' });
            }
            if run.len() == 1 {
                path += "h.01";
            }
        }
        path
    }

    /// The area between what lies below and that with this series on it. A point without a value ends the area.
    fn band(&self, series: &Series, below: &mut Vec<f64>) -> String {
        below.resize(series.points.len().max(below.len()), 0.0);
        let mut path = String::new();
        let mut edge: Vec<(f64, f64, f64)> = Vec::new();
        for (at, (x, y)) in series.points.iter().enumerate() {
            match y.filter(|y| y.is_finite()) {
                Some(y) => {
                    let top = below[at] + y.max(0.0);
                    let (px, bottom_y) = self.at(*x, below[at]);
                    edge.push((px, self.at(*x, top).1, bottom_y));
                    below[at] = top;
                }
                None => close(&mut path, &mut edge),
            }
        }
        close(&mut path, &mut edge);
        path
    }

    /// The names of the bands, where there is room for them.
    fn band_names(&self) -> String {
        if self.kind != Kind::Stack {
            return String::new();
        }
        let mut html = String::new();
        let mut below: Vec<f64> = vec![0.0; self.series.iter().map(|series| series.points.len()).max().unwrap_or(0)];
        for series in &self.series {
            // Of every point its place, its band's top and height, in the marks' measure.
            let mut bands: Vec<(f64, f64, f64)> = Vec::with_capacity(series.points.len());
            for ((x, y), below) in series.points.iter().zip(&mut below) {
                let bottom = self.at(*x, *below).1;
                *below += y.filter(|y| y.is_finite()).unwrap_or(0.0).max(0.0);
                let (place, top) = self.at(*x, *below);
                bands.push((place, top, bottom - top));
            }
            if let Some((x, y)) = room_for_name(&bands) {
                let name = escape(&series.name);
                html += &format!(
                    "<text class=\"band-name\" x=\"{:.2}%\" y=\"{:.1}\">{name}</text>\n",
                    x / WIDTH * 100.0,
                    y + 4.0
                );
            }
        }
        html
    }

    /// What the script shows of the points under the pointer: their places along the axis in thousandths, their x, and
    /// their values. Series with the same x share it.
    fn data(&self) -> Value {
        let mut shared: Vec<Vec<f64>> = Vec::new();
        let mut series_data = Vec::with_capacity(self.series.len());
        for series in &self.series {
            let xs: Vec<f64> = series.points.iter().map(|(x, _)| rounded(*x)).collect();
            let of = shared.iter().position(|known| *known == xs).unwrap_or_else(|| {
                shared.push(xs);
                shared.len() - 1
            });
            let values: Vec<Value> = series.points.iter().map(|(_, y)| self.value(*y)).collect();
            series_data.push(json!({ "n": series.name, "x": of, "v": values }));
        }
        let places: Vec<Vec<f64>> =
            shared.iter().map(|xs| xs.iter().map(|x| (self.x.place(*x) * 1e4).round() / 10.0).collect()).collect();
        let kind = if self.kind == Kind::Percentile { "percentile" } else { "time" };
        json!({ "kind": kind, "unit": self.y.unit.key(), "x": shared, "at": places, "series": series_data })
    }

    fn value(&self, value: Option<f64>) -> Value {
        value.filter(|value| value.is_finite()).map_or(Value::Null, |value| json!(rounded(value / self.y.unit.scale())))
    }
}

/// The beginning of a part that is stretched to the plot's width.
fn stretched(class: &str) -> String {
    format!(
        "<svg class=\"{class}\" width=\"100%\" height=\"{HEIGHT}\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         preserveAspectRatio=\"none\">\n"
    )
}

/// The stretches of a line that have values.
fn runs(series: &Series) -> Vec<Vec<(f64, f64)>> {
    let mut runs = vec![Vec::new()];
    for (x, y) in &series.points {
        match (y.filter(|y| y.is_finite()), runs.last_mut()) {
            (Some(y), Some(run)) => run.push((*x, y)),
            _ => runs.push(Vec::new()),
        }
    }
    runs.retain(|run| !run.is_empty());
    runs
}

/// The middle of the longest stretch in which a band is nearly as high as anywhere, if it is high and long enough.
fn room_for_name(bands: &[(f64, f64, f64)]) -> Option<(f64, f64)> {
    let highest = bands.iter().map(|(.., height)| *height).fold(0.0, f64::max);
    let enough = NAMED_BAND.max(highest * 0.8);
    let stretches = bands.split(|(.., height)| *height < enough).filter(|stretch| !stretch.is_empty());
    let length = |stretch: &[(f64, f64, f64)]| stretch[stretch.len() - 1].0 - stretch[0].0;
    let longest = stretches.max_by(|a, b| length(a).total_cmp(&length(b)))?;
    let (x, top, height) = longest[longest.len() / 2];
    (length(longest) >= NAMED_STRETCH).then_some((x, top + height / 2.0))
}

/// Makes an area of the edges of a band: along its top, and back along its bottom.
fn close(path: &mut String, edge: &mut Vec<(f64, f64, f64)>) {
    if let [(x, top, bottom)] = edge[..] {
        *path += &format!("M{:.1} {top:.1}H{:.1}V{bottom:.1}H{:.1}Z", x - 1.0, x + 1.0, x - 1.0);
    } else if !edge.is_empty() {
        let tops = edge.iter().map(|(x, top, _)| (x, top));
        let bottoms = edge.iter().rev().map(|(x, _, bottom)| (x, bottom));
        for (at, (x, y)) in tops.chain(bottoms).enumerate() {
            *path += &format!("{}{x:.1} {y:.1}", if at == 0 { 'M' } else { 'L' });
        }
        path.push('Z');
    }
    edge.clear();
}

/// Five figures are enough for reading, and keep the page small.
fn rounded(value: f64) -> f64 {
    if value.is_finite() { format!("{value:.4e}").parse().unwrap_or(value) } else { 0.0 }
}

/// What tells that a phase is the warm-up, where its name does not.
pub(super) fn warm_up_mark(name: &str, warm_up: bool) -> &'static str {
    if warm_up && !name.to_lowercase().contains("warm") { " (warm-up)" } else { "" }
}

/// A number of something: `1 interval`, `20 intervals`.
pub(super) fn numbered(number_of: usize, what: &str) -> String {
    format!("{} {what}{}", number(number_of as f64), if number_of == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::super::text::Unit;
    use super::*;

    fn plot(kind: Kind, series: Vec<Series>) -> String {
        let (x, y) = (Axis::time(10.0), Axis::from_zero(1.0, Unit::Share));
        Plot { id: "p", title: "T", note: "", kind, x, y, series, spans: &[] }.html()
    }

    fn series(name: &str, values: &[Option<f64>]) -> Series {
        Series { name: name.to_owned(), points: values.iter().enumerate().map(|(x, y)| (x as f64, *y)).collect() }
    }

    #[test]
    fn a_missing_value_breaks_the_line_and_a_lone_one_is_a_dot() {
        let html = plot(Kind::Time, vec![series("a", &[Some(0.0), Some(1.0), None, Some(0.5), Some(f64::NAN)])]);
        assert!(html.contains("d=\"M0.0 220.0L100.0 0.0M300.0 110.0h.01\""), "{html}");
    }

    #[test]
    fn bands_lie_on_each_other() {
        let html = plot(Kind::Stack, vec![series("a", &[Some(0.25); 2]), series("b", &[Some(0.75), Some(0.75)])]);
        assert!(html.contains("d=\"M0.0 165.0L100.0 165.0L100.0 220.0L0.0 220.0Z\""), "{html}");
        assert!(html.contains("d=\"M0.0 0.0L100.0 0.0L100.0 165.0L0.0 165.0Z\""), "{html}");
        assert!(html.contains("class=\"band-name\""), "{html}");
    }

    #[test]
    fn names_cannot_leave_their_place() {
        let html = plot(Kind::Time, vec![series("</script><b>\"", &[Some(1.0)])]);
        assert_eq!(html.matches("<b>").count(), 0, "{html}");
        assert_eq!(html.matches("</script>").count(), 1, "{html}");
    }

    #[test]
    fn a_plot_of_nothing_says_so() {
        for kind in [Kind::Time, Kind::Stack, Kind::Percentile] {
            assert!(plot(kind, vec![series("a", &[])]).contains("nothing was measured"));
            assert!(plot(kind, vec![]).contains("nothing was measured"));
            assert!(!plot(kind, vec![series("a", &[Some(0.0)])]).contains("nothing was measured"));
        }
    }

    #[test]
    fn series_with_the_same_times_share_them_for_the_script() {
        let html =
            plot(Kind::Time, vec![series("a", &[Some(1.0), None]), series("b", &[Some(0.5), Some(0.123_456_7)])]);
        assert!(html.contains("\"x\":[[0.0,1.0]]"), "{html}");
        assert!(html.contains("\"v\":[100.0,null]") && html.contains("\"v\":[50.0,12.346]"), "{html}");
    }
}
