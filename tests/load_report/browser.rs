//! Pages in a real browser: what it shows, and what it says of them.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::picture::{Rect, Rgb, parse};

/// A browser that takes longer hangs. It takes seconds on an idle machine.
const DEADLINE: Duration = Duration::from_secs(300);
const PROBE: &str = include_str!("probe.js");
/// Stands before everything else, so that no problem goes unnoticed.
const NOTICE: &str = "<script>window.problems = []; \
    addEventListener('error', event => problems.push(String(event.message)), true); \
    addEventListener('securitypolicyviolation', event => problems.push('blocked: ' + event.blockedURI));</script>";

/// A folder that goes with the test.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        let folder = std::env::temp_dir().join(format!("weir-report-test-{}", uuid::Uuid::new_v4().simple()));
        fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

/// What is seen, and how.
#[derive(Debug, Clone, Copy)]
pub(crate) struct View {
    pub(crate) dark: bool,
    pub(crate) width: u32,
    pub(crate) height: u32,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Seen {
    pub(crate) dark: bool,
    pub(crate) problems: Vec<String>,
    pub(crate) requests: Vec<String>,
    pub(crate) width: f64,
    pub(crate) scroll_width: f64,
    pub(crate) height: f64,
    pub(crate) plots: Vec<Plot>,
    pub(crate) texts: Vec<Text>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Plot {
    pub(crate) id: String,
    #[serde(rename = "box")]
    pub(crate) rect: Rect,
    pub(crate) tip: String,
    pub(crate) tip_box: Rect,
    pub(crate) tip_left: bool,
    pub(crate) ticks_overlap: bool,
    pub(crate) texts_out: Vec<String>,
    pub(crate) series: Vec<Series>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Series {
    pub(crate) name: String,
    pub(crate) width: f64,
    pub(crate) height: f64,
    stroke: String,
    fill: String,
    fill_opacity: f64,
}

impl Series {
    /// What it looks like on a ground: a line's own colour, an area's lets the ground through.
    pub(crate) fn color(&self, ground: Rgb) -> Rgb {
        if self.fill == "none" {
            return parse(&self.stroke);
        }
        let mixed = |channel: usize| {
            let (own, ground) = (f64::from(parse(&self.fill)[channel]), f64::from(ground[channel]));
            (own * self.fill_opacity + ground * (1.0 - self.fill_opacity)).round() as u8
        };
        [mixed(0), mixed(1), mixed(2)]
    }
}

#[derive(Debug, Deserialize)]
pub(crate) struct Text {
    pub(crate) text: String,
    pub(crate) color: String,
    pub(crate) behind: String,
    #[serde(rename = "box")]
    pub(crate) rect: Rect,
    pub(crate) size: f64,
}

/// Has a page shown: what the browser says of it, and the picture as PNG.
pub(crate) fn show(html: &str, view: View) -> (Seen, Vec<u8>) {
    let folder = Folder::new();
    let html = html.replacen("<head>", &format!("<head>{NOTICE}"), 1);
    let (head, tail) = html.rsplit_once("</body>").expect("the page has a body");
    // Once everything is loaded, refused or failed: what is told of it later would be missed.
    let probed = format!("{head}<script>addEventListener('load', () => {{\n{PROBE}\n}});</script></body>{tail}");
    // A window is never as narrow as a phone, a frame can be.
    let framed = format!(
        "<!doctype html><meta charset=\"utf-8\"><body style=\"margin:0\"><iframe srcdoc=\"{}\" \
         style=\"display:block;border:0;width:{}px;height:{}px\"></iframe></body>",
        probed.replace('&', "&amp;").replace('"', "&quot;"),
        view.width,
        view.height
    );
    let page = folder.0.join("page.html");
    fs::write(&page, framed).unwrap();
    let picture = folder.0.join("page.png");
    let mut command = Command::new(chromium());
    command.args(["--headless", "--disable-gpu", "--hide-scrollbars", "--no-first-run", "--disable-dev-shm-usage"]);
    // Root has no sandbox, and the page is ours.
    command.args(["--no-sandbox", "--disable-background-networking", "--disable-component-update"]);
    command.arg("--host-resolver-rules=MAP * ~NOTFOUND").arg("--dump-dom");
    if view.dark {
        command.arg("--force-dark-mode");
    }
    command.arg(format!("--window-size={},{}", view.width.max(500), view.height));
    command.arg(format!("--screenshot={}", picture.display()));
    command.arg(format!("--user-data-dir={}", folder.0.join("profile").display())).env("HOME", &folder.0);
    let dom = output(command.arg(format!("file://{}", page.display())));
    let told = dom.rsplit_once("<pre id=\"probe\" hidden=\"\">").and_then(|(_, rest)| rest.split_once("</pre>"));
    let (told, _) = told.unwrap_or_else(|| panic!("the page's probe did not run: {dom}"));
    (serde_json::from_str(told).unwrap(), fs::read(&picture).expect("the browser made a picture"))
}

fn chromium() -> PathBuf {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let found = ["chromium", "chromium-browser", "google-chrome"]
        .iter()
        .find_map(|name| std::env::split_paths(&paths).map(|path| path.join(name)).find(|file| Path::is_file(file)));
    found.expect(
        "Chromium is missing: `scripts/require.sh browser` installs it on Debian as root and names it elsewhere",
    )
}

/// What a command prints, however much it is. Its own children end with it.
fn output(command: &mut Command) -> String {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        stdout.read_to_string(&mut text).map(|_| text)
    });
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            let text = reader.join().unwrap().unwrap();
            assert!(status.success(), "the browser ended with {status}");
            return text;
        }
        if begun.elapsed() > DEADLINE {
            child.kill().ok();
            child.wait().ok();
            panic!("the browser was not ready after {DEADLINE:?}");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}
