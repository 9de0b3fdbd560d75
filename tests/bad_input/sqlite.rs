//! A SQLite file that is missing, is no database, cannot be written, or is locked; and several that migrate one at once.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _};
use tokio::runtime::Runtime;

use crate::place::{Place, Ran, is_clear, until};

fn url(path: &Path) -> String {
    format!("store.url=sqlite://{}", path.display())
}

/// The setting that names a migrated file.
fn migrated(place: &Place, name: &str) -> String {
    let url = url(&place.path(name));
    let ran = place.weir(&["migrate", "--set", &url]);
    assert_eq!((ran.code, ran.out.as_str()), (Some(0), "the schema is up to date\n"), "{ran:?}");
    url
}

/// A user who is not root, to whom permissions mean something.
fn as_a_user(place: &Place, args: &[&str]) -> Ran {
    let weir = place.command(args);
    let is_root = fs::metadata("/proc/self").is_ok_and(|me| std::os::unix::fs::MetadataExt::uid(&me) == 0);
    let mut command = match is_root {
        true => Command::new("setpriv"),
        false => return Ran::of(Command::new(weir.get_program()).args(weir.get_args()).output().unwrap()),
    };
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(weir.get_program()).args(weir.get_args());
    Ran::of(command.env_remove("RUST_LOG").stdin(Stdio::null()).output().unwrap())
}

#[test]
fn a_missing_file_or_table_ends_run_and_verify_with_1_and_names_migrate() {
    let place = Place::new();
    let missing = url(&place.path("none.db"));
    for command in ["run", "verify"] {
        place
            .weir(&[command, "--set", &missing])
            .fails_with(1, &["SQLite error 14", "run `weir migrate`", "store.url"]);
        assert!(!place.path("none.db").exists(), "only `weir migrate` makes the file");
        // SQLite takes an empty file for an empty database.
        let empty = place.file("empty.db", "");
        let ran = place.weir(&[command, "--set", &url(Path::new(&empty))]);
        ran.fails_with(1, &["messages", "run `weir migrate`"]);
    }
}

#[test]
fn what_is_no_database_ends_every_command_with_2() {
    let place = Place::new();
    let text = "what was written here is the user's own, and no database at all\n".repeat(20);
    let file = place.file("text.db", &text);
    for command in ["migrate", "run", "verify"] {
        let ran = place.weir(&[command, "--set", &url(Path::new(&file))]);
        ran.fails_with(2, &["SQLite error 26", "the file in store.url is no SQLite database, or is damaged"]);
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), text);
}

#[test]
fn a_missing_folder_ends_every_command_with_1_and_is_named() {
    let place = Place::new();
    let folder = place.path("no/such");
    for command in ["migrate", "run", "verify"] {
        let ran = place.weir(&[command, "--set", &url(&folder.join("weir.db"))]);
        ran.fails_with(1, &[&format!("there is no folder {}: make it, or correct store.url", folder.display())]);
    }
}

#[test]
fn a_folder_that_cannot_be_written_ends_every_command_with_1() {
    let place = Place::new();
    fs::create_dir(place.path("read-only")).unwrap();
    let there = migrated(&place, "read-only/weir.db");
    let new = url(&place.path("read-only/new.db"));
    fs::set_permissions(place.path("read-only/weir.db"), Permissions::from_mode(0o666)).unwrap();
    fs::set_permissions(place.path("read-only"), Permissions::from_mode(0o555)).unwrap();
    let advice = "the file and its folder must be writable for the user that weir runs as";
    for command in ["migrate", "run", "verify"] {
        as_a_user(&place, &[command, "--set", &there]).fails_with(1, &["SQLite error 8", advice]);
    }
    as_a_user(&place, &["migrate", "--set", &new]).fails_with(1, &["SQLite error 14", advice]);
    fs::set_permissions(place.path("read-only"), Permissions::from_mode(0o755)).unwrap();
}

/// Runs something while another process would hold the database's lock.
fn while_locked(path: &Path, run: impl FnOnce()) {
    let runtime = Runtime::new().unwrap();
    let options = SqliteConnectOptions::new().filename(path);
    let mut other = runtime.block_on(options.connect()).unwrap();
    runtime.block_on(sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut other)).unwrap();
    run();
    runtime.block_on(async {
        sqlx::raw_sql("ROLLBACK").execute(&mut other).await.unwrap();
        other.close().await.unwrap();
    });
}

#[test]
fn a_locked_file_is_waited_for_by_run_and_ends_migrate_with_1_in_the_end() {
    let place = Place::new();
    let url = migrated(&place, "weir.db");
    place.publish();
    let mut worker = None;
    while_locked(&place.path("weir.db"), || {
        let sets = ["--set", &url, "--set", "store.lock_timeout=100ms", "--set", "store.statement_timeout=500ms"];
        let ran = place.weir(&[&["migrate"], &sets[..]].concat());
        ran.fails_with(1, &["SQLite error 5", "another process has locked it: try again"]);
        let started = worker.insert(place.worker(&[&url, "store.lock_timeout=100ms"]));
        started.is_ready();
        until("the lock to be met", || {
            let retries = started.get("/metrics");
            let met = retries.lines().any(|line| line.starts_with("weir_retries_total") && line.contains("\"busy\""));
            (met, started.log())
        });
    });
    let mut worker = worker.unwrap();
    until("the event to be settled", || {
        let settled = place.weir(&["verify", "--json", "--set", &url]);
        (settled.code == Some(0) && settled.out.contains("\"persisted\":1"), (settled, worker.log()))
    });
    is_clear(&worker.log());
    worker.stops();
}

#[test]
fn several_migrate_one_new_file_at_once() {
    let place = Place::new();
    for round in 0..5 {
        let url = url(&place.path(&format!("{round}.db")));
        let all: Vec<_> = (0..8)
            .map(|_| {
                let mut command = place.command(&["migrate", "--set", &url]);
                command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
            })
            .collect();
        for one in all {
            let ran = Ran::of(one.wait_with_output().unwrap());
            assert_eq!((ran.code, ran.out.as_str()), (Some(0), "the schema is up to date\n"), "{ran:?}");
        }
    }
}

#[test]
fn every_spelling_of_a_file_is_the_same_database() {
    let place = Place::new();
    let folder = place.path("a folder");
    fs::create_dir(&folder).unwrap();
    migrated(&place, "a%20folder/weir%5B1%5D.db");
    assert!(folder.join("weir[1].db").exists() && !place.path("a%20folder").exists());
    for spelled in
        ["sqlite:a folder/weir[1].db", "sqlite://a%20folder/weir[1].db?mode=rwc", "sqlite:./a folder/weir[1].db"]
    {
        let mut verify = place.command(&["verify", "--set", &format!("store.url={spelled}")]);
        let ran = Ran::of(verify.current_dir(place.path("")).output().unwrap());
        assert_eq!(ran.code, Some(0), "{spelled}: {ran:?}");
    }
}
