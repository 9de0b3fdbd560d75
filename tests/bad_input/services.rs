//! A database that does not answer, refuses the login or lacks tables; a Redis that is away; a port that is taken.

use std::net::TcpListener;

use crate::forwarder::{Forwarder, closed_address};
use crate::place::{Place, Ran, host_of, is_clear, lines_with};

/// The setting that puts another address into a place's own store.url.
fn at(place: &Place, address: &str) -> String {
    let url = place.url();
    format!("store.url={}", url.replace(&host_of(&url), address))
}

#[test]
fn a_database_that_answers_later_is_waited_for_by_run_which_says_so_once() {
    let place = Place::migrated();
    place.publish();
    let address = closed_address();
    let mut worker = place.worker(&[&at(&place, &address)]);
    worker.waits_for(&format!("{address} does not answer: Connection refused"));
    std::thread::sleep(std::time::Duration::from_secs(3));
    let log = worker.log();
    assert_eq!(lines_with(&log, "waiting for the database: connect to the database (store.url)"), 1, "{log}");
    assert_eq!(lines_with(&log, "WARN") + lines_with(&log, "ERROR"), 1, "{log}");
    let _forwarder = Forwarder::start(&address, &host_of(&place.url()));
    worker.is_ready();
    place.settles(1, &worker);
    is_clear(&worker.log());
    worker.stops();
}

#[test]
fn a_database_that_answers_later_is_waited_for_by_migrate_as_long_as_startup_timeout() {
    let place = Place::new();
    let address = closed_address();
    let url = at(&place, &address);
    let command = |timeout: &str| {
        let mut command = place.command(&["migrate", "--set", &url, "--set", timeout]);
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        command.spawn().unwrap()
    };
    let waiting = command("startup_timeout=30s");
    std::thread::sleep(std::time::Duration::from_secs(1));
    let _forwarder = Forwarder::start(&address, &host_of(&place.url()));
    let ran = Ran::of(waiting.wait_with_output().unwrap());
    assert_eq!((ran.code, ran.out.as_str()), (Some(0), "the schema is up to date\n"), "{ran:?}");
    assert_eq!(ran.lines_with("waiting for the database, up to 30s"), 1, "{ran:?}");
}

#[test]
fn a_database_that_does_not_answer_ends_migrate_and_verify_with_1_without_its_password() {
    let place = Place::new();
    let address = closed_address();
    let told = format!("(store.url): {address} does not answer: Connection refused");
    for command in ["migrate", "verify"] {
        let ran = place.weir(&[command, "--set", &at(&place, &address)]);
        ran.fails_with(1, &[&told, "check store.url, and that the database is up"]);
        assert_eq!(ran.lines_with("waiting for the database, up to 2s"), 1, "{ran:?}");
        assert_eq!(ran.lines_with(""), 2, "{ran:?}");
    }
}

#[test]
fn a_wrong_password_or_database_ends_every_command_with_1() {
    let place = Place::migrated();
    let password = format!("store.url={}", place.url().replace("weir:weir@", "weir:hunter2@"));
    let user = format!("store.url={}", place.url().replace("weir:weir@", "nobody:hunter2@"));
    let database = format!("store.url={}", place.url().replace("weir_bad_", "no_such_"));
    for command in ["migrate", "verify", "run"] {
        let with = |set: &str| place.weir(&[command, "--set", set]);
        with(&password).fails_with(1, &["28P01", "check the user and the password in store.url"]);
        with(&user).fails_with(1, &["\"nobody\" (SQLSTATE 28P01)", "store.url"]);
        with(&database).fails_with(1, &["3D000", "create the database, or name another in store.url"]);
    }
}

#[test]
fn a_missing_table_ends_run_and_verify_with_1_and_names_migrate() {
    let place = Place::new();
    for command in ["run", "verify"] {
        place.weir(&[command]).fails_with(1, &["messages", "run `weir migrate`"]);
    }
    place.weir(&["migrate"]);
    let mapping = "[[pools.bad.pipelines]]\nname = \"persist\"\nhandler = \"persist\"\ntable = \"orders\"\n\
                   key = \"id\"\ncolumns = { id = \"$id\" }\n";
    let mapping = place.file("mapping.toml", mapping);
    for command in ["run", "verify"] {
        let ran = place.weir(&[command, "--config", &mapping]);
        ran.fails_with(1, &["orders", "run `weir migrate`, or"]);
    }
}

#[test]
fn a_redis_that_is_away_keeps_nothing_from_starting_and_is_told_once() {
    let place = Place::migrated();
    let address = closed_address();
    let mut worker = place.worker(&[&format!("redis.url=redis://{address}")]);
    worker.is_ready();
    for rows in 1..=3 {
        place.publish();
        place.settles(rows, &worker);
    }
    let log = worker.log();
    assert_eq!(lines_with(&log, "WARN") + lines_with(&log, "ERROR"), 1, "{log}");
    assert!(log.contains("Redis") || log.contains("redis"), "{log}");
    is_clear(&log);
    worker.stops();
}

#[test]
fn a_health_port_in_use_ends_run_with_1() {
    let place = Place::migrated();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let ran = place.weir(&["run", "--set", &format!("health.listen={address}")]);
    ran.fails_with(
        1,
        &[&format!("listen on {address}: Address already in use"), "set health.listen to a free address"],
    );
    assert_eq!(ran.lines_with(""), 1, "{ran:?}");
}
