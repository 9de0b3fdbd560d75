//! `weir load report`: its page in a real browser, in light and dark, wide and narrow; and the command.
#![cfg(feature = "load")]

mod browser;
#[path = "../common/picture.rs"]
mod picture;
mod sample;

use std::path::Path;
use std::process::{Command, Output};

use browser::{Folder, Seen, View, show};
use picture::{Picture, contrast, contrast_within, distinct, has, luminance, parse};
use serde_json::Value;
use weir::load::report::{self, Comparison};
use weir::load::result::RunResult;

const DESKTOP: (u32, u32) = (1280, 4800);
const PHONE: (u32, u32) = (390, 9000);
/// The plots of one run, and of several.
const PLOTS: [&str; 10] =
    ["throughput", "percentiles", "latency", "lag-events", "lag-seconds", "slip", "batches", "loop", "cpu", "memory"];
/// What WCAG 2 asks of text.
const READABLE: f64 = 4.5;

fn view(dark: bool, (width, height): (u32, u32)) -> View {
    View { dark, width, height }
}

/// Shows a page and holds against it what every page promises.
fn hold(html: &str, view: View, name: &str) -> (Seen, Picture) {
    let (seen, png) = show(html, view);
    // For whoever wants to look at it.
    if let Some(folder) = std::env::var_os("WEIR_KEEP_PICTURES") {
        std::fs::write(Path::new(&folder).join(format!("{name}.png")), &png).unwrap();
    }
    let picture = Picture::of(&png);
    assert_eq!(seen.problems, Vec::<String>::new());
    assert_eq!(seen.requests, Vec::<String>::new());
    assert_eq!((seen.dark, seen.width), (view.dark, f64::from(view.width)));
    assert!(seen.scroll_width <= seen.width, "the page is {} wide in {}", seen.scroll_width, seen.width);
    assert!(seen.height <= f64::from(view.height), "the picture ends before the page, which is {} high", seen.height);
    let ground = luminance(picture.at(2, 2));
    assert!(if view.dark { ground < 0.03 } else { ground > 0.9 }, "the ground's luminance is {ground}");
    texts_are_readable(&seen, &picture);
    plots_are_drawn(&seen, &picture);
    (seen, picture)
}

fn texts_are_readable(seen: &Seen, picture: &Picture) {
    assert!(seen.texts.len() > 100, "{} texts", seen.texts.len());
    for text in &seen.texts {
        let ratio = contrast(parse(&text.color), parse(&text.behind));
        assert!(ratio >= READABLE, "{:?}: {} on {}: {ratio:.1}", text.text, text.color, text.behind);
        assert!(text.size >= 12.0, "{:?} is {} high", text.text, text.size);
    }
    // The same as drawn, of texts whose strokes are wide enough to be met by a pixel.
    let drawn: Vec<_> = seen.texts.iter().filter(|text| text.size >= 18.0 && text.rect[2] <= seen.width).collect();
    assert!(drawn.len() >= 4, "{} large texts", drawn.len());
    for text in drawn {
        let ratio = contrast_within(&picture.inside(text.rect));
        assert!(ratio >= READABLE, "{:?} is drawn with a contrast of {ratio:.1}", text.text);
    }
}

fn plots_are_drawn(seen: &Seen, picture: &Picture) {
    for plot in &seen.plots {
        let id = &plot.id;
        assert!(!plot.ticks_overlap, "ticks of {id} overlap");
        assert_eq!(plot.texts_out, Vec::<String>::new(), "texts of {id} leave the page");
        assert!(!plot.series.is_empty(), "{id} has no series");
        assert!(!plot.tip_left && plot.tip_box[0] >= 0.0 && plot.tip_box[2] <= seen.width, "{id}: {:?}", plot.tip_box);
        let pixels = picture.inside(plot.rect);
        assert!(distinct(&pixels) >= 16, "{id} has {} colours", distinct(&pixels));
        for series in &plot.series {
            let name = &series.name;
            assert!(series.width > 100.0 && series.height > 0.0, "{id}: {name} is {}×{}", series.width, series.height);
            let color = series.color(picture.at(2, 2));
            assert!(has(&pixels, color), "{id}: no pixel has the colour of {name}, {color:?}");
            assert!(plot.tip.contains(&format!("{name}: ")), "{id}: the values under the pointer are {:?}", plot.tip);
        }
    }
}

fn ids(seen: &Seen) -> Vec<&str> {
    seen.plots.iter().map(|plot| plot.id.as_str()).collect()
}

fn text_of<'a>(seen: &'a Seen, begin: &str) -> Option<&'a str> {
    seen.texts.iter().map(|text| text.text.as_str()).find(|text| text.starts_with(begin))
}

#[test]
fn the_report_is_readable_in_light_and_dark() {
    let html = report::html(&sample::run());
    for (dark, name) in [(false, "report-light"), (true, "report-dark")] {
        let (seen, _) = hold(&html, view(dark, DESKTOP), name);
        assert_eq!(ids(&seen), PLOTS);
        assert_eq!(text_of(&seen, "✗ Failed"), Some("✗ Failed: 1 of 5 verdicts"));
        assert!(seen.texts.iter().any(|text| text.text.contains("<img src=")), "the phase's name is text");
        let tip = &seen.plots.iter().find(|plot| plot.id == "latency").unwrap().tip;
        assert!(tip.starts_with("5:00") && tip.contains("99.9 %: ") && tip.contains(" ms"), "{tip}");
    }
}

#[test]
fn the_report_is_readable_on_a_phone() {
    let html = report::html(&sample::run());
    for (dark, name) in [(false, "phone-light"), (true, "phone-dark")] {
        let (seen, _) = hold(&html, view(dark, PHONE), name);
        assert_eq!(ids(&seen), PLOTS);
    }
}

#[test]
fn a_comparison_is_readable() {
    let html = Comparison::of(runs().into()).html();
    let (seen, _) = hold(&html, view(false, DESKTOP), "comparison");
    assert_eq!(ids(&seen).len(), 9);
    assert!(text_of(&seen, "⚠ The runs are not comparable").is_some());
    hold(&html, view(true, PHONE), "comparison-phone");
}

#[test]
fn a_plot_without_its_lines_is_noticed() {
    let html = report::html(&sample::run()).replace("<path class=\"line ", "<path visibility=\"hidden\" class=\"line ");
    let (seen, png) = show(&html, view(false, DESKTOP));
    let found = std::panic::catch_unwind(|| plots_are_drawn(&seen, &Picture::of(&png)));
    assert!(found.is_err());
}

#[test]
fn a_request_and_a_broken_script_are_noticed() {
    let html = report::html(&sample::run());
    let (head, tail) = html.rsplit_once("</body>").unwrap();
    let broken = format!("{head}<img src=\"http://evil.invalid/x\"><script>nobody.knows</script></body>{tail}");
    let (seen, _) = show(&broken, view(false, DESKTOP));
    for problem in ["nobody", "blocked: http://evil.invalid/x"] {
        assert!(seen.problems.iter().any(|told| told.contains(problem)), "{problem} is not in {:?}", seen.problems);
    }
    let open = html.replace("Content-Security-Policy", "X-No-Policy");
    let (head, tail) = open.rsplit_once("</body>").unwrap();
    let asking = format!("{head}<link rel=\"stylesheet\" href=\"http://evil.invalid/x\"></body>{tail}");
    let (seen, _) = show(&asking, view(false, DESKTOP));
    assert_eq!(seen.requests, ["http://evil.invalid/x"]);
}

/// Two runs of one plan on two machines, the second somewhat faster.
fn runs() -> [(String, RunResult); 2] {
    let mut other = sample::run();
    other.setting.host = "bench-2".to_owned();
    other.totals.latency.p99_ms /= 2.0;
    for interval in &mut other.intervals {
        interval.lag_events /= 2;
        interval.lag_s /= 2.0;
        interval.latency.p99_ms /= 2.0;
        interval.slip.p99_ms /= 2.0;
        interval.batch_events *= 1.3;
        interval.settled = interval.settled * 9 / 10;
        interval.workers.iter_mut().for_each(|worker| worker.cpu_cores *= 0.8);
        interval.workers.iter_mut().for_each(|worker| worker.memory_bytes = worker.memory_bytes * 3 / 4);
    }
    for point in &mut other.totals.latency_by_percentile {
        point.value_ms *= 0.6;
    }
    [("before/result.json".to_owned(), sample::run()), ("after/result.json".to_owned(), other)]
}

/// Folders `before` and `after` with results.
fn results() -> Folder {
    let folder = Folder::new();
    for (file, run) in runs() {
        let file = folder.0.join(file);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, serde_json::to_vec(&run).unwrap()).unwrap();
    }
    folder
}

fn weir(folder: &Folder, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
    command.args(["load", "report"]).args(args).current_dir(&folder.0).env_remove("RUST_LOG").output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn the_command_writes_a_page_beside_the_result_and_says_what_was_found() {
    let folder = results();
    let output = weir(&folder, &["before"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let said = text(&output.stdout);
    for line in [
        "burst: failed, 1 of 5 verdicts",
        "FAILED  p99_ms: asked at most 250 ms, found 44,100 ms",
        "report: before/report.html",
    ] {
        assert!(said.contains(line), "{line:?} is missing in {said}");
    }
    let page = std::fs::read_to_string(folder.0.join("before/report.html")).unwrap();
    let (_, read) = report::read(&folder.0.join("before")).unwrap();
    assert_eq!(page, report::html(&read));
    let output = weir(&folder, &["before/result.json", "--out", "elsewhere.html"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(std::fs::read_to_string(folder.0.join("elsewhere.html")).unwrap(), page);
}

#[test]
fn the_command_compares_runs_with_the_first() {
    let folder = results();
    let output = weir(&folder, &["before", "after"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let said = text(&output.stdout);
    for part in ["22.1 s (0.5×)", "host: bench-2 in B: burst, bench-1 in the first", "report: comparison.html"] {
        assert!(said.contains(part), "{part:?} is missing in {said}");
    }
    assert!(std::fs::read_to_string(folder.0.join("comparison.html")).unwrap().contains("Comparison of 2 runs"));
    std::fs::remove_file(folder.0.join("comparison.html")).unwrap();
    let output = weir(&folder, &["before", "after", "--json"]);
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["runs"][1]["ratios"]["p99_ms"], 0.5);
    assert_eq!(json["differences"][0]["what"], "host");
    assert!(!folder.0.join("comparison.html").exists(), "--json alone writes no page");
}

#[test]
fn what_cannot_be_reported_is_named_with_what_to_do() {
    let folder = results();
    std::fs::create_dir(folder.0.join("empty")).unwrap();
    std::fs::write(folder.0.join("cut.json"), "{\"schema\": 1, \"name").unwrap();
    std::fs::write(folder.0.join("newer.json"), "{\"schema\": 99}").unwrap();
    let wrong = [
        ("nowhere", 1, "there is no nowhere: name a result.json that `weir load run` wrote"),
        ("empty", 1, "the folder empty holds no result.json"),
        ("cut.json", 1, "cut.json is not JSON: EOF while parsing"),
        ("newer.json", 1, "newer.json has schema 99, and this weir reads schema 1"),
        ("--nonsense", 2, "unexpected argument"),
    ];
    for (name, code, told) in wrong {
        let output = weir(&folder, &["before", name]);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{name}: {said}");
        assert!(said.contains(told), "{name}: {said}");
        assert!(output.stdout.is_empty() && !folder.0.join("comparison.html").exists(), "{name}");
    }
    assert_eq!(weir(&folder, &[]).status.code(), Some(2));
    assert_eq!(weir(&folder, &["before", "--set", "log.level=debug"]).status.code(), Some(2));
    assert_eq!(weir(&folder, &["before"; 9]).status.code(), Some(2));
    let output = weir(&folder, &["before", "--out", "./before/result.json"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("is a result, which the page would overwrite"), "{}", text(&output.stderr));
    let output = weir(&folder, &["before", "--out", "nowhere/page.html"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("cannot write the page to nowhere/page.html; --out names another place"));
}
