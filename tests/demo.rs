//! `weir demo` as a user meets it: in memory and on real services, on a terminal and off it, stopped early, and with a
//! disk that is full.

#[path = "common/services.rs"]
mod services;

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::Value;

/// What opens a screen of its own on a terminal, and what gives it back.
const ENTER: &str = "\u{1b}[?1049h";
const LEAVE: &str = "\u{1b}[?1049l";

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
    let left = schemas(&postgres);
    assert!(left.is_empty(), "{left:?}");
}

/// The demo's schemas that are still there.
fn schemas(url: &str) -> Vec<String> {
    use sqlx::Connection as _;
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
        let mut db = sqlx::PgConnection::connect(url).await.unwrap();
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
        assert!(written.contains(ENTER), "no screen of its own at {columns}: {written:?}");
        let (screen, after) =
            written.split_once(ENTER).unwrap().1.split_once(LEAVE).expect("the screen is not given back");
        assert!(screen.contains("events/s") && screen.contains("memory"), "{screen:?}");
        assert!(after.contains("lost                    0") && after.contains("exit=0"), "{after:?}");
        assert!(written.contains("\u{1b}[?25h"), "the cursor is not given back");
    }
}

/// A demo on a terminal that is typed at.
struct Typed {
    script: std::process::Child,
    written: Receiver<Vec<u8>>,
    text: String,
}

impl Typed {
    fn start(folder: &Path, after: &str) -> Self {
        let weir = env!("CARGO_BIN_EXE_weir");
        // Ctrl-C reaches the shell too; one that lets it pass still says how the demo ended.
        let line =
            format!("trap : INT; stty cols 100 rows 30; sh -c 'echo pid=$$; exec {weir} demo --for 10min'; {after}");
        let mut script = Command::new("script")
            .args(["-qefc", &line, "/dev/null"])
            .env("TMPDIR", folder)
            .env("SHELL", "/bin/sh")
            .env("TERM", "xterm-256color")
            .env_remove("RUST_LOG")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = script.stdout.take().unwrap();
        let (send, written) = channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(read @ 1..) = stdout.read(&mut buffer) {
                if send.send(buffer[..read].to_vec()).is_err() {
                    break;
                }
            }
        });
        Self { script, written, text: String::new() }
    }

    /// Waits until this was written.
    fn until(&mut self, part: &str) {
        while !self.text.contains(part) {
            let more = self.written.recv_timeout(Duration::from_secs(60));
            let more = more.unwrap_or_else(|error| panic!("{part:?} is not written ({error}): {:?}", self.text));
            self.text.push_str(&text(&more));
        }
    }

    fn types(&mut self, keys: &str) {
        self.script.stdin.as_mut().unwrap().write_all(keys.as_bytes()).unwrap();
    }

    /// Waits until it ends; all that was written.
    fn ends(&mut self) -> String {
        while let Ok(more) = self.written.recv_timeout(Duration::from_secs(60)) {
            self.text.push_str(&text(&more));
        }
        self.script.wait().unwrap();
        std::mem::take(&mut self.text)
    }
}

impl Drop for Typed {
    fn drop(&mut self) {
        // One that has ended cannot be killed.
        self.script.kill().ok();
        self.script.wait().ok();
    }
}

#[test]
fn ctrl_c_is_heard_while_the_group_is_joined() {
    let folder = Folder::new();
    let mut demo = Typed::start(&folder.0, "echo exit=$?");
    demo.until("first rebalance");
    demo.types("\u{3}");
    let written = demo.ends();
    assert!(!written.contains(ENTER), "the screen is opened for nothing: {written:?}");
    assert!(written.contains("lost                    0") && written.contains("exit=0"), "{written:?}");
    assert!(folder.left().is_empty(), "{:?}", folder.left());
}

#[test]
fn q_gives_the_terminal_back_before_the_audit() {
    let folder = Folder::new();
    let mut demo = Typed::start(&folder.0, "echo exit=$?");
    demo.until("events/s");
    demo.types("q");
    let written = demo.ends();
    let after = written.split_once(LEAVE).unwrap().1;
    assert!(after.contains("auditing the database") && after.contains("exit=0"), "{after:?}");
    assert!(folder.left().is_empty(), "{:?}", folder.left());
}

#[test]
fn two_signals_end_it_at_once_and_give_the_terminal_back() {
    let folder = Folder::new();
    let mut demo = Typed::start(&folder.0, "echo exit=$?; stty -a");
    demo.until("events/s");
    let pid = demo.text.split_once("pid=").unwrap().1.lines().next().unwrap().trim().to_owned();
    // Of two kinds: two of one kind at the same moment are one.
    let both = format!("kill -TERM {pid}; kill -INT {pid}");
    assert!(Command::new("sh").args(["-c", &both]).status().unwrap().success());
    let written = demo.ends();
    let after = written.split_once(LEAVE).expect("the screen is not given back").1;
    assert!(after.contains("\u{1b}[?25h"), "the cursor is not given back: {after:?}");
    assert!(after.contains("exit=1") && !after.contains("auditing"), "{after:?}");
    let settings = after.split_once("exit=1").unwrap().1;
    for setting in ["icanon", "echo", "isig"] {
        assert!(settings.split_whitespace().any(|word| word == setting), "the terminal is left raw: {settings}");
    }
}

/// The demo's topics on the broker.
fn topics() -> BTreeSet<String> {
    use rdkafka::consumer::{BaseConsumer, Consumer as _};
    let mut client = rdkafka::ClientConfig::new();
    client.set("bootstrap.servers", services::env("KAFKA_BROKERS"));
    let client: BaseConsumer = client.create().unwrap();
    let all = client.fetch_metadata(None, Duration::from_secs(30)).unwrap();
    let names = all.topics().iter().map(|topic| topic.name());
    names.filter(|name| name.starts_with("weir-demo-")).map(str::to_owned).collect()
}

/// Runs statements one after the other, on a connection of their own.
fn execute(url: &str, statements: &[String]) {
    use sqlx::Connection as _;
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
        let mut db = sqlx::PgConnection::connect(url).await.unwrap();
        for statement in statements {
            let statement = sqlx::AssertSqlSafe(statement.clone());
            sqlx::raw_sql(statement).execute(&mut db).await.unwrap();
        }
    });
}

#[test]
fn a_store_that_refuses_leaves_no_topic_and_no_schema_behind() {
    let folder = Folder::new();
    let (kafka, postgres) = (services::env("KAFKA_BROKERS"), services::env("POSTGRES_URL"));
    let database = format!("weir_refuses_{}", uuid::Uuid::new_v4().simple());
    let url = format!("{}/{database}", postgres.rsplit_once('/').unwrap().0);
    let before = topics();
    execute(&postgres, &[format!("CREATE DATABASE {database}")]);
    // A schema may be made in it, a table may not; without the second one nothing at all.
    let refuse = |what: &str| {
        [
            format!(
                "CREATE OR REPLACE FUNCTION refuse_{what}() RETURNS event_trigger LANGUAGE plpgsql AS \
                 $$ BEGIN RAISE EXCEPTION 'no {what} here'; END $$"
            ),
            format!(
                "CREATE EVENT TRIGGER no_{what} ON ddl_command_start WHEN TAG IN ('CREATE {what}') \
                 EXECUTE FUNCTION refuse_{what}()"
            ),
        ]
    };
    for what in ["TABLE", "SCHEMA"] {
        execute(&url, &refuse(what));
        let output = demo(&folder.0, &["--brokers", &kafka, "--store", &url]).output().unwrap();
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(&format!("no {what} here")) && !said.contains("left behind"), "{said}");
        assert_eq!(schemas(&url), [""; 0]);
        // Other demos come and go beside this one, and a broker forgets a topic in its own time.
        let begun = Instant::now();
        let mut left = &topics() - &before;
        while !left.is_empty() {
            assert!(begun.elapsed() < Duration::from_secs(60), "{left:?}");
            std::thread::sleep(Duration::from_millis(200));
            left = &left & &topics();
        }
    }
    execute(&postgres, &[format!("DROP DATABASE {database} WITH (FORCE)")]);
}

#[test]
fn what_cannot_work_is_said_in_one_line() {
    let folder = Folder::new();
    let existing = folder.0.join("mine.db");
    std::fs::write(&existing, "mine").unwrap();
    let existing_url = format!("sqlite://{}", existing.display());
    let postgres = services::env("POSTGRES_URL");
    let nowhere = format!("{}/no_such_database", postgres.rsplit_once('/').unwrap().0);
    let cases: [(&[&str], i32, &str); 9] = [
        (&["--for", "soon"], 2, "soon"),
        (&["--rate", "0"], 2, "--rate"),
        (&["--set", "pools.x.start=end"], 2, "leave --config and --set out"),
        (&["--store", &existing_url], 2, "is there already"),
        (&["--store", "sqlite:///no/such/folder/x.db"], 1, "there is no folder /no/such/folder"),
        (&["--store", "sqlite::memory:"], 2, "in memory"),
        (&["--store", "sqlite:x.db?mode=ro"], 2, "mode=ro"),
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
