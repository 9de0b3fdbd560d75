//! `weir demo` as a user meets it: in memory and on real services, on a terminal and off it, stopped early, and with a
//! disk that is full.

#[path = "common/services.rs"]
mod services;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// A command in a temporary folder of its own.
fn demo(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
    command.arg("demo").args(args).env("TMPDIR", folder).env_remove("RUST_LOG").stdin(Stdio::null());
    command
}

struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let folder = std::env::temp_dir().join(format!("weir-demo-test-{}", uuid::Uuid::new_v4().simple()));
        std::fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    /// What a run has left behind.
    fn left(&self) -> Vec<PathBuf> {
        std::fs::read_dir(&self.0).unwrap().map(|entry| entry.unwrap().path()).collect()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The one object on standard output, with all its keys.
fn report(output: &Output) -> Value {
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let of = |name: &str| report[name].as_u64().unwrap_or_else(|| panic!("{name} is missing in {report}"));
    assert_eq!((of("lost"), of("repeated_effects")), (0, 0), "{report}");
    assert_eq!(of("published"), of("unique_ids") + of("duplicates_published"));
    assert_eq!(of("unique_ids"), of("persisted") + of("dead_lettered"));
    assert_eq!(of("dead_lettered"), of("poison_published"));
    for name in ["events_per_s", "end_to_end_p50_ms", "end_to_end_p99_ms"] {
        assert!(report[name].as_f64().unwrap() > 0.0, "{name} in {report}");
    }
    report
}

#[test]
fn in_memory_every_event_has_one_effect_and_nothing_is_left_behind() {
    let folder = Folder::new();
    let output = demo(&folder.0, &["--for", "5s", "--json"]).output().unwrap();
    let report = report(&output);
    for name in ["persisted", "dead_lettered", "duplicates_published"] {
        assert!(report[name].as_u64().unwrap() > 0, "{name} in {report}");
    }
    let said = text(&output.stderr);
    assert!(said.contains("in memory") && said.contains("no Kafka"), "{said}");
    assert_eq!(said.lines().count(), 1, "nothing else to say: {said}");
    assert!(folder.left().is_empty(), "{:?}", folder.left());
}

#[test]
fn on_real_services_the_same_load_has_the_same_audit() {
    let folder = Folder::new();
    let (kafka, postgres) = (services::env("KAFKA_BROKERS"), services::env("POSTGRES_URL"));
    let redis = services::env("REDIS_URL");
    let args = ["--for", "4s", "--json", "--brokers", &kafka, "--store", &postgres, "--redis", &redis];
    let output = demo(&folder.0, &args).output().unwrap();
    assert!(report(&output)["persisted"].as_u64().unwrap() > 1_000);
    assert!(!text(&output.stderr).contains("in memory"));
    let left = schemas();
    assert!(left.is_empty(), "{left:?}");
}

/// The demo's schemas that are still there.
fn schemas() -> Vec<String> {
    use sqlx::Connection as _;
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
        let mut db = sqlx::PgConnection::connect(&services::env("POSTGRES_URL")).await.unwrap();
        let names = "SELECT nspname::text FROM pg_namespace WHERE nspname LIKE 'weir_demo%'";
        sqlx::query_scalar(names).fetch_all(&mut db).await.unwrap()
    })
}

#[test]
fn off_a_terminal_it_writes_plain_lines_and_ends_with_the_counts() {
    let folder = Folder::new();
    let output = demo(&folder.0, &["--for", "3s", "--rate", "2000"]).output().unwrap();
    let said = text(&output.stdout);
    assert!(output.status.success(), "{said}{}", text(&output.stderr));
    assert!(!said.contains('\u{1b}') && !said.contains('\r'), "control characters off a terminal: {said:?}");
    assert!(said.starts_with("weir demo: broker in memory"), "{said}");
    assert!(said.lines().filter(|line| line.contains("events/s")).count() >= 2, "{said}");
    assert!(said.contains("\nlost                    0\n"), "{said}");
    let rate = said.lines().find_map(|line| line.strip_prefix("rate")).unwrap();
    let rate: f64 = rate.trim().split(' ').next().unwrap().parse().unwrap();
    assert!((1_500.0..=2_400.0).contains(&rate), "a rate of 2000 a second and its repeats: {rate}");
}

#[test]
fn ctrl_c_settles_what_was_sent_and_audits_it() {
    let folder = Folder::new();
    let child =
        demo(&folder.0, &["--for", "10min", "--json"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let begun = Instant::now();
    while folder.left().is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(20), "it never began");
        std::thread::sleep(Duration::from_millis(50));
    }
    std::thread::sleep(Duration::from_secs(5));
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(60));
    report(&output);
    assert!(folder.left().is_empty(), "{:?}", folder.left());
}

/// Runs the demo on a terminal of so many columns and rows; says what was written to it.
fn on_a_terminal(folder: &Path, columns: u16, rows: u16) -> String {
    let weir = env!("CARGO_BIN_EXE_weir");
    let line = format!("stty cols {columns} rows {rows}; {weir} demo --for 3s; echo exit=$?");
    let output = Command::new("script")
        .args(["-qefc", &line, "/dev/null"])
        .env("TMPDIR", folder)
        .env("TERM", "xterm-256color")
        .env_remove("RUST_LOG")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    text(&output.stdout)
}

#[test]
fn a_terminal_gets_a_screen_of_its_own_and_is_given_back() {
    let folder = Folder::new();
    for (columns, rows) in [(120, 40), (40, 12)] {
        let written = on_a_terminal(&folder.0, columns, rows);
        let (enter, leave) = ("\u{1b}[?1049h", "\u{1b}[?1049l");
        assert!(written.contains(enter), "no screen of its own at {columns}: {written:?}");
        let (screen, after) =
            written.split_once(enter).unwrap().1.split_once(leave).expect("the screen is not given back");
        assert!(screen.contains("events/s") && screen.contains("memory"), "{screen:?}");
        assert!(after.contains("lost                    0") && after.contains("exit=0"), "{after:?}");
        assert!(written.contains("\u{1b}[?25h"), "the cursor is not given back");
    }
}

#[test]
fn what_cannot_work_is_said_in_one_line() {
    let folder = Folder::new();
    let existing = folder.0.join("mine.db");
    std::fs::write(&existing, "mine").unwrap();
    let existing_url = format!("sqlite://{}", existing.display());
    let postgres = services::env("POSTGRES_URL");
    let nowhere = format!("{}/no_such_database", postgres.rsplit_once('/').unwrap().0);
    let cases: [(&[&str], i32, &str); 7] = [
        (&["--for", "soon"], 2, "soon"),
        (&["--rate", "0"], 2, "--rate"),
        (&["--set", "pools.x.start=end"], 2, "leave --config and --set out"),
        (&["--store", &existing_url], 2, "is there already"),
        (&["--store", "sqlite:///no/such/folder/x.db"], 1, "check that its folder exists"),
        (&["--store", &nowhere], 1, "no_such_database"),
        (&["--brokers", "127.0.0.1:1"], 1, "127.0.0.1:1"),
    ];
    for (args, code, part) in cases {
        let output = demo(&folder.0, args).output().unwrap();
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
        assert!(said.contains(part), "{args:?}: {said}");
        assert!(!said.contains("panicked") && said.matches("error:").count() == 1, "{args:?}: {said}");
    }
    assert_eq!(std::fs::read(&existing).unwrap(), b"mine");
}

#[test]
fn a_closed_pipe_is_no_failure() {
    let folder = Folder::new();
    let mut child = demo(&folder.0, &["--for", "2s"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
}

#[test]
fn a_full_disk_ends_it_with_what_to_do() {
    let folder = Folder::new();
    let disk = folder.0.join("disk");
    std::fs::create_dir(&disk).unwrap();
    let mount = Command::new("mount").args(["-t", "tmpfs", "-o", "size=3m", "weir-test"]).arg(&disk).status().unwrap();
    assert!(mount.success(), "mounting a small file system needs root");
    let output = demo(&disk, &["--for", "60s"]).output();
    assert!(Command::new("umount").arg("-l").arg(&disk).status().unwrap().success());
    let output = output.unwrap();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("make room on the disk"), "{said}");
}
