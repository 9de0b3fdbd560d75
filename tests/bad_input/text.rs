//! What a user types and where the answer goes: addresses, files, the command line, closed and plain outputs.

use std::process::{Command, Stdio};

use crate::place::{Place, Ran, is_clear};

#[test]
fn addresses_are_checked_before_anything_is_asked() {
    let place = Place::new();
    for (set, parts) in [
        ("redis.url=http://x", &["`redis.url` must be an address such as redis://host:6379"][..]),
        ("redis.url=hunter2", &["`redis.url` must be an address"]),
        ("store.url=oracle://weir:hunter2@db/weir", &["`store.url` must be an address such as postgres://"]),
        ("store.url=postgres://weir:hunter2@db:port/weir", &["`store.url` is no address: invalid port number", "%XX"]),
        ("kafka.brokers=localhost:kafka", &["`kafka.brokers`: found \"localhost:kafka\", expected an address"]),
        ("kafka.brokers=a:1 b:2", &["`kafka.brokers`: found \"a:1 b:2\""]),
        ("pools.bad.max_poll=1", &["unknown key `pools.bad.max_poll` (--set): did you mean `max_poll_records`?"]),
        ("store.url_file=/", &["`store.url` and `store.url_file` are both set"]),
        ("redis.url=", &["`redis.url` is not set: give it, or `redis.url_file`"]),
    ] {
        for command in ["check", "run", "migrate"] {
            place.weir(&[command, "--set", set]).fails_with(2, parts);
        }
    }
}

#[test]
fn what_librdkafka_refuses_only_together_is_bad_configuration() {
    let place = Place::new();
    let with = |sets: &[&str]| {
        let sets: Vec<String> = sets.iter().map(|set| format!("kafka.options.{set}")).collect();
        let args: Vec<&str> = sets.iter().flat_map(|set| ["--set", set]).collect();
        place.weir(&[&["check"], &args[..]].concat())
    };
    with(&["security_protocol=sasl_plaintext", "sasl_mechanism=PLAIN"])
        .fails_with(2, &["`kafka.options`: librdkafka cannot use them together: sasl.username and sasl.password"]);
    with(&["security_protocol=ssl", "ssl_ca_location=/no/such/file"]).fails_with(2, &["ssl.ca.location failed"]);
}

#[test]
fn a_secrets_file_that_cannot_be_read_is_named() {
    let place = Place::new();
    let config = place.file("other.toml", "[store]\nurl_file = \"/\"\n");
    Ran::of(weir(&["check", "--config", &config]).output().unwrap())
        .fails_with(2, &["`store.url_file`: read /: Is a directory"]);
}

fn weir(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
    command.args(args).current_dir(std::env::temp_dir()).env_remove("RUST_LOG").stdin(Stdio::null());
    command
}

#[test]
fn the_command_line_helps() {
    let bare = Ran::of(weir(&[]).output().unwrap());
    assert_eq!(bare.code, Some(2), "{bare:?}");
    assert!(bare.err.contains("Usage: weir") && bare.err.contains("publish"), "{bare:?}");
    let dead: [&[&str]; 5] =
        [&["dead"], &["dead", "list"], &["dead", "show"], &["dead", "replay"], &["dead", "release"]];
    let others: [&[&str]; 8] =
        [&[], &["check"], &["migrate"], &["publish"], &["run"], &["seek"], &["verify"], &["why"]];
    for command in others.into_iter().chain(dead) {
        let help = Ran::of(weir(&[command, &["--help"]].concat()).output().unwrap());
        assert_eq!((help.code, help.err.as_str()), (Some(0), ""), "{help:?}");
        assert!(help.out.contains("\nExamples:\n  ") && help.out.contains("--config <FILE>"), "{}", help.out);
        is_clear(&help.out);
    }
    for (args, part) in [
        (&["rnu"][..], "unrecognized subcommand 'rnu'"),
        (&["run", "--pool"], "a value is required for '--pool <NAME>'"),
        (&["publish", "--compression", "zip"], "invalid value 'zip'"),
        (&["check", "--verbose"], "unexpected argument '--verbose'"),
    ] {
        let ran = Ran::of(weir(args).output().unwrap());
        assert_eq!(ran.code, Some(2), "{ran:?}");
        assert!(ran.err.contains(part), "{ran:?}");
    }
    let place = Place::new();
    for command in ["run", "verify"] {
        place.weir(&[command, "--pool", "x"]).fails_with(2, &["there is no pool \"x\": known are bad"]);
    }
}

/// Runs a command line in a shell, `$WEIR` being the binary with a place's configuration behind its arguments.
fn shell(place: &Place, line: &str) -> Ran {
    let mut command = place.command(&[]);
    let config = command.get_args().nth(1).unwrap().to_owned();
    command = Command::new("bash");
    command.args(["-o", "pipefail", "-c", line]).env("WEIR", env!("CARGO_BIN_EXE_weir")).env("CONFIG", config);
    command.env("TOPIC", &place.topic.0).env_remove("RUST_LOG").stdin(Stdio::null());
    Ran::of(command.output().unwrap())
}

#[test]
fn a_closed_output_is_no_failure_and_no_panic() {
    let place = Place::migrated();
    place.publish();
    for line in [
        "$WEIR check --config $CONFIG | head -1",
        "$WEIR --help | true",
        "echo '{}' | $WEIR publish --config $CONFIG --topic $TOPIC --json | true",
        "echo '{}' | $WEIR publish --config $CONFIG --topic $TOPIC >&-",
        "$WEIR migrate --config $CONFIG | true",
        "$WEIR verify --config $CONFIG --json | true",
        "$WEIR verify --config $CONFIG 2>&- >/dev/null",
    ] {
        let ran = shell(&place, line);
        assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""), "{line}: {ran:?}");
    }
    let bad = "printf '{}\\n[]\\n' | $WEIR publish --config $CONFIG --topic $TOPIC 2>&- >/dev/null";
    assert_eq!(shell(&place, bad).code, Some(1));
    let lost = "$WEIR publish --config $CONFIG --set kafka.brokers=127.0.0.1:1 </dev/null 2>&1 >/dev/null | true";
    assert_eq!(shell(&place, lost).code, Some(1));
}

#[test]
fn without_a_terminal_the_output_is_plain() {
    let place = Place::migrated();
    place.publish();
    let event = place.file("event.ndjson", "{}\n");
    for args in [&["publish", "--topic", &place.topic.0, &event][..], &["verify"]] {
        let ran = place.weir(args);
        assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""), "{ran:?}");
        is_clear(&ran.out);
        assert!(!ran.out.is_empty());
    }
}

/// `script` gives the command a terminal.
#[test]
fn logs_have_colours_on_a_terminal_unless_no_color_is_set() {
    let place = Place::new();
    let url = format!("store.url=postgres://weir:weir@127.0.0.1:1{}", "/weir");
    let line = |no_color: &str| {
        format!(
            "{no_color} script -qec '$WEIR migrate --config $CONFIG --set {url} --set startup_timeout=1s' /dev/null"
        )
    };
    let coloured = shell(&place, &line("TERM=xterm NO_COLOR="));
    assert!(coloured.out.contains("waiting for the database") && coloured.out.contains('\u{1b}'), "{coloured:?}");
    let plain = shell(&place, &line("TERM=xterm NO_COLOR=1"));
    assert!(plain.out.contains("waiting for the database") && !plain.out.contains('\u{1b}'), "{plain:?}");
}
