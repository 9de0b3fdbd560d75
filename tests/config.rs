//! Configuration as a user meets it: files, variables and `--set` in, text and exit codes out.

use std::io::Read as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

const STORE: &str = "[store]\nurl = \"postgres://weir:hunter2@db/weir?sslpassword=hunter3\"\n";
const POOL: &str = "[pools.storage]\ntopics = [\"message-events\"]\nstart = \"beginning\"\n";
const PERSIST: &str = "[[pools.storage.pipelines]]\nname = \"persist\"\nhandler = \"persist\"\n";

/// A directory of one test, in which `weir` runs.
struct Place(PathBuf);

impl Place {
    fn new(config: &str) -> Self {
        let path = std::env::temp_dir().join(format!("weir-config-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir(&path).unwrap();
        let place = Self(path);
        place.write("weir.toml", config);
        place
    }

    /// One pool that persists, and what is added to its file.
    fn working(more: &str) -> Self {
        Self::new(&format!("{more}\n{STORE}{POOL}{PERSIST}"))
    }

    fn write(&self, name: &str, content: &str) -> String {
        let path = self.0.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        path.display().to_string()
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
        command.current_dir(&self.0).env_remove("RUST_LOG").args(args).stdin(Stdio::null());
        command
    }

    fn weir(&self, args: &[&str]) -> Ran {
        Ran::of(self.command(args).args(["--config", "weir.toml"]).output().unwrap())
    }

    fn check(&self, args: &[&str]) -> Ran {
        self.weir(&[&["check"], args].concat())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

#[derive(Debug)]
struct Ran {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Ran {
    fn of(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }

    #[track_caller]
    fn fails_with(&self, code: i32, parts: &[&str]) {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert!(self.err.starts_with("error: "), "{}", self.err);
        for part in parts {
            assert!(self.err.contains(part), "{part:?} is not in:\n{}", self.err);
        }
        self.keeps_secrets();
    }

    #[track_caller]
    fn shows(&self, parts: &[&str]) {
        assert_eq!(self.code, Some(0), "{self:?}");
        for part in parts {
            assert!(self.out.contains(part), "{part:?} is not in:\n{}", self.out);
        }
        self.keeps_secrets();
    }

    #[track_caller]
    fn keeps_secrets(&self) {
        assert!(!self.out.contains("hunter") && !self.err.contains("hunter"), "a secret is shown: {self:?}");
    }
}

#[track_caller]
fn refused(config: &str, parts: &[&str]) {
    Place::new(config).check(&[]).fails_with(2, parts);
}

/// A pool whose one pipeline consists of these lines.
fn with_pipeline(lines: &str) -> String {
    format!("{STORE}{POOL}[[pools.storage.pipelines]]\n{lines}")
}

#[test]
fn what_is_right_is_shown_whole_and_without_secrets() {
    let place = Place::working("[kafka.options]\nsasl_password = \"hunter4\"\nsasl_username = \"weir\"");
    let shown = place.check(&[]);
    shown.shows(&[
        "postgres://weir:***@db/weir?sslpassword=***",
        "sasl_password = \"***\"",
        "sasl_username = \"weir\"",
    ]);
    shown.shows(&["max_poll_records = 500", "time budget of pool storage: a batch may take 7500 ms"]);
    let json = place.check(&["--json"]);
    json.shows(&[]);
    let json: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!(json["config"]["pools"]["storage"]["batch_bytes"], "4MiB");
    assert_eq!(json["time_budgets"]["storage"]["batch_ms_max"], 7500.0);
}

#[test]
fn an_unknown_key_is_refused_with_its_path_its_file_and_the_nearest_known_one() {
    let typo = format!("{STORE}{POOL}max_pol_records = 5\n[kafka]\nbroker = [\"x:1\"]\n[colour]\nred = 1\n");
    refused(
        &typo,
        &[
            "unknown key `pools.storage.max_pol_records` (weir.toml): did you mean `max_poll_records`?",
            "unknown key `kafka.broker` (weir.toml): did you mean `brokers`?",
            "unknown key `colour` (weir.toml): known are startup_timeout, kafka",
        ],
    );
    let deep = with_pipeline("name = \"p\"\nhandler = \"persist\"\ncolumn = {}\n");
    refused(&deep, &["unknown key `pools.storage.pipelines[0].column` (weir.toml): did you mean `columns`?"]);
    Place::working("")
        .check(&["--set", "log.levle=debug"])
        .fails_with(2, &["`log.levle` (--set): did you mean `level`"]);
}

#[test]
fn a_wrong_type_is_refused_with_what_was_found_and_expected() {
    for (line, parts) in [
        (
            "max_poll_records = \"many\"",
            ["`pools.storage.max_poll_records` (weir.toml): found \"many\"", "a whole number"],
        ),
        ("max_poll_records = 1.5", ["found 1.5", "a whole number"]),
        ("max_poll_records = -1", ["found -1", "not negative"]),
        ("drain_deadline = 20", ["found 20", "expected a duration such as \"20s\""]),
        ("batch_bytes = \"4 bananas\"", ["found \"4 bananas\"", "\"4MiB\""]),
        ("processed_set = true", ["found true", "expected \"set\" or \"bloom\" or \"off\""]),
        ("event = 5", ["found 5", "expected a table"]),
        ("group = [\"a\"]", ["`pools.storage.group` (weir.toml): found a list", "expected text"]),
    ] {
        refused(&format!("{STORE}{POOL}{line}\n"), &parts);
    }
    refused("[store]\nurl = 5\n", &["`store.url` (weir.toml): found something else, expected text"]);
}

#[test]
fn a_bitmap_is_shown_with_its_memory_and_refused_where_it_cannot_be() {
    let bloom = |lines: &str| {
        format!(
            "{STORE}[redis]\nurl = \"redis://cache\"\n{POOL}processed_set = \"bloom\"\n{PERSIST}[pools.storage.bloom]\n{lines}\n"
        )
    };
    Place::new(&bloom("rate = \"5000/s\"")).check(&[]).shows(&[
        "processed_set = \"bloom\"",
        "# processed set of pool storage: a bitmap for 4500000 ids in 15m: 29 bits an id",
        "31.3 MiB of redis at most; an id is known for 15m to 30m",
        "of batches of 500 new events at most 4.9 % are written twice",
    ]);
    Place::new(&bloom("ids = 1000")).check(&["--json"]).shows(&["\"memory_bytes_max\": 9", "\"bits_per_id\": 29"]);
    let refused_as = |lines: &str, part: &str| refused(&bloom(lines), &["`pools.storage.bloom`", part]);
    refused_as("false_positives = 0.001", "give `rate`, such as \"5000/s\", or `ids`");
    refused_as("ids = 5\nrate = \"5/s\"", "both `ids` and `rate` (5/s) are given");
    refused_as("ids = 5\nfalse_positives = 0.9", "`false_positives` is 0.9, expected 0.000001 to 0.5");
    refused_as(
        "rate = \"100000/s\"\nexpiry = \"24h\"",
        "8640000000 ids (100000/s for 1day) of 29 bits are 29869.1 MiB",
    );
    let unused = bloom("ids = 5").replace("processed_set = \"bloom\"", "");
    refused(&unused, &["`pools.storage.bloom` has no use while `pools.storage.processed_set` is \"set\""]);
    let notify = PERSIST.replace("handler = \"persist\"", "handler = \"notify\"\nurl = \"http://hook\"");
    refused(
        &bloom("ids = 5").replace(PERSIST, &notify),
        &["`pools.storage.processed_set` is \"bloom\", and the pool has no store", "\"set\" or \"off\""],
    );
}

#[test]
fn a_file_that_is_no_toml_is_refused_by_its_line_and_without_quoting_it() {
    refused("[store]\nurl = \"postgres://weir:hunter2@db\n", &["weir.toml: line 2: "]);
    let missing = Place::new("").check(&["--config", "nowhere.toml"]);
    missing.fails_with(2, &["read nowhere.toml: No such file"]);
}

#[test]
fn a_pool_must_say_where_it_begins() {
    let silent = format!("{STORE}[pools.storage]\ntopics = [\"t\"]\n{PERSIST}");
    refused(
        &silent,
        &[
            "`pools.storage.start` is not set",
            "\"beginning\" (every record",
            "\"end\" (only",
            "\"committed\" (where",
            "or a point in time",
        ],
    );
    let wrong = format!("{STORE}[pools.storage]\ntopics = [\"t\"]\nstart = \"earliest\"\n");
    refused(&wrong, &["found \"earliest\"", "\"beginning\""]);
    for start in ["\"2026-01-31T08:00:00Z\"", "2026-01-31T08:00:00Z"] {
        let since = format!("{STORE}[pools.storage]\ntopics = [\"t\"]\nstart = {start}\n{PERSIST}");
        Place::new(&since).check(&[]).shows(&["start = \"2026-01-31T08:00:00Z\""]);
    }
}

#[test]
fn an_impossible_time_budget_is_refused_with_its_arithmetic() {
    refused(
        &format!("{STORE}{POOL}handle_ms = 20\n"),
        &["500 events x 20 ms = 10000 ms >= 7500 ms", "the largest max_poll_records that fits is 374"],
    );
    Place::working("").check(&["--set", "pools.storage.handle_ms=2"]).shows(&["500 events x 2 ms = 1000 ms < 7500 ms"]);
}

#[test]
fn a_rate_is_shown_with_how_it_is_shared_and_a_wrong_one_says_how_one_is_written() {
    let place = Place::working("");
    place.check(&["--set", "pools.storage.rate=300/m"]).shows(&[
        "rate = \"300/m\"",
        "rate of pool storage: 300/m for the whole group, shared by its workers by their partitions",
    ]);
    place
        .check(&["--set", "pools.storage.rate=5000", "--set", "redis.url=redis://cache"])
        .shows(&["rate = \"5000/s\"", "shared by its workers by need, in redis"]);
    let variable =
        place.command(&["check", "--config", "weir.toml"]).env("WEIR__POOLS__STORAGE__RATE", "5000/s").output();
    Ran::of(variable.unwrap()).shows(&["rate = \"5000/s\""]);
    for wrong in ["\"5000/h\"", "0", "-1", "\"fast\"", "1e9"] {
        refused(
            &format!("{STORE}{POOL}rate = {wrong}\n"),
            &["`pools.storage.rate`", "such as \"5000/s\" or \"300/m\""],
        );
    }
    refused(&format!("{STORE}{POOL}transactions_max = 0\n"), &["transactions_max` must be greater than 0"]);
    refused(&format!("{STORE}{POOL}transactions_max = 9\n"), &["is 9, and `store.connections` are 8"]);
}

#[test]
fn a_wanted_number_of_workers_needs_times_and_bounds_that_can_be() {
    refused(
        &format!("{STORE}{POOL}scaling = {{ clear_within = \"0s\", down_after = \"1ms\", min = 0 }}\n"),
        &[
            "`pools.storage.scaling.clear_within`",
            "`pools.storage.scaling.down_after`",
            "without a worker nobody tells",
        ],
    );
    refused(
        &format!("{STORE}{POOL}scaling = {{ min = 4, max = 3 }}\n"),
        &["max` is 3, and `pools.storage.scaling.min` is 4"],
    );
}

#[test]
fn pools_that_would_write_over_each_other_are_refused() {
    let other = POOL.replace("storage", "other");
    let pipelines = |pool: &str| {
        let persist = PERSIST.replace("storage", pool);
        format!("{persist}[[pools.{pool}.pipelines]]\nname = \"analyze\"\nhandler = \"analyze\"\n")
    };
    let both =
        format!("{STORE}{POOL}group = \"g\"\n{}{other}group = \"g\"\n{}", pipelines("storage"), pipelines("other"));
    refused(
        &both,
        &[
            "pools \"other\" and \"storage\" are both of group \"g\"",
            "pools \"other\" and \"storage\" both persist into table \"messages\"",
            "pools \"other\" and \"storage\" both analyze",
        ],
    );
}

#[test]
fn pools_need_a_database_topics_and_pipelines() {
    refused(&format!("{POOL}{PERSIST}"), &["pools need a database", "store.url"]);
    refused(&format!("[store]\n{POOL}{PERSIST}"), &["`store.url` is not set"]);
    refused(&format!("{STORE}[pools.x]\nstart = \"end\"\n"), &["`pools.x.topics` is empty"]);
    refused(&format!("{STORE}{POOL}"), &["`pools.storage.pipelines` is empty"]);
    let twice = POOL.replace("[\"message-events\"]", "[\"a\", \"a\"]");
    refused(&format!("{STORE}{twice}{PERSIST}"), &["names \"a\" twice"]);
}

#[test]
fn names_are_plain() {
    refused(&format!("{STORE}{}", POOL.replace("storage", "Storage")), &["`pools.Storage`: a pool's name consists of"]);
    let twice = format!("{STORE}{POOL}{PERSIST}{PERSIST}");
    refused(&twice, &["`pools.storage.pipelines[1].name`: \"persist\" is another pipeline's name", "as another does"]);
    refused(&with_pipeline("name = \"a b\"\nhandler = \"persist\"\n"), &["pipelines[0].name`: found \"a b\""]);
    refused(&with_pipeline("name = \"a\"\n"), &["`pools.storage.pipelines[0].handler` is not set"]);
    refused(
        &with_pipeline("name = \"a\"\nhandler = \"print\"\n"),
        &["no handler \"print\", expected one of persist, analyze, moderate, forward, notify"],
    );
}

#[test]
fn a_mapping_is_checked() {
    let persist = |lines: &str| with_pipeline(&format!("name = \"p\"\nhandler = \"persist\"\n{lines}\n"));
    for (lines, part) in [
        (
            "table = \"orders; drop\"\ncolumns = { message_id = \"$id\" }",
            "table` is \"orders; drop\", expected a letter",
        ),
        ("table = \"orders\"", "needs `columns`"),
        ("columns = { message_id = \"$id\" }", "needs `table`"),
        (
            "table = \"o\"\ncolumns = { message_id = \"$id\", x = \"order/id\" }",
            "columns.x` is \"order/id\", expected a JSON pointer",
        ),
        ("table = \"o\"\ncolumns = { message_id = \"$id\", X = \"/x\" }", "columns.X` is no column"),
        ("table = \"o\"\nkey = \"id\"\ncolumns = { x = \"$id\" }", "key` is \"id\", which is not one of the columns"),
        ("table = \"o\"\nkey = \"id\"\ncolumns = { id = \"/x\" }", "must be filled from the event's id"),
        ("on_duplicate = \"update\"", "newer_by` is not set"),
        ("newer_by = \"timestamp\"", "newer_by` has no use without"),
        ("on_duplicate = \"update\"\nnewer_by = \"age\"", "newer_by` is \"age\", which is not one of the columns"),
        ("dimensions = [\"type\"]", "dimensions` belongs to the handler analyze"),
    ] {
        refused(&persist(lines), &[part]);
    }
    Place::new(&persist("on_duplicate = \"update\"\nnewer_by = \"timestamp\"")).check(&[]).shows(&["newer_by"]);
    let mapped = "table = \"o\"\nkey = \"id\"\ncolumns = { id = \"/message/message_id\", at = \"$kafka_timestamp\" }";
    Place::new(&persist(mapped)).check(&[]).shows(&["id = \"/message/message_id\""]);
}

#[test]
fn what_is_counted_is_checked() {
    let analyze = |lines: &str| with_pipeline(&format!("name = \"a\"\nhandler = \"analyze\"\n{lines}\n"));
    refused(&analyze("dimensions = [\"colour\"]"), &["no dimension \"colour\", known are type, user"]);
    refused(&analyze("dimensions = [\"type\", \"type\"]"), &["names \"type\" twice"]);
    refused(&analyze("table = \"t\""), &["`pools.storage.pipelines[0].table` belongs to the handler persist"]);
}

#[test]
fn numbers_and_pointers_of_a_pool_are_checked_together() {
    let pool =
        "max_poll_records = 100001\nreject_hold_ratio = 1.5\nqueue_bytes = 0\nhandle_ms = 0\ndrain_deadline = \"0s\"\n";
    refused(
        &format!("{STORE}{POOL}{pool}[pools.storage.event]\nid = \"id\"\n"),
        &[
            "`pools.storage.max_poll_records` is 100001, at most 100000",
            "`pools.storage.reject_hold_ratio` must be",
            "`pools.storage.queue_bytes` must be greater than 0",
            "`pools.storage.handle_ms` must be greater than 0",
            "`pools.storage.drain_deadline` must be greater than 0",
            "`pools.storage.event.id`: found \"id\", expected a JSON pointer",
        ],
    );
}

#[test]
fn settings_of_kafka_that_weir_governs_are_refused_by_name() {
    refused(
        "[kafka]\nheartbeat_interval_ms = 5000\n",
        &["heartbeat_interval_ms` is 5000: it must be less than a third"],
    );
    refused(
        "[kafka]\nmax_poll_interval_ms = 9000\n",
        &["max_poll_interval_ms` is 9000", "session_timeout_ms` (15000)"],
    );
    refused(
        "[kafka.options]\ngroup_id = \"x\"\n\"auto.offset.reset\" = \"latest\"\nqueued_max_messages_kbytes = 5\n",
        &[
            "`kafka.options.group_id` cannot be set: use `pools.<name>.group`",
            "`kafka.options.auto.offset.reset` cannot be set: use `pools.<name>.start`",
            "use `pools.<name>.queue_bytes`",
        ],
    );
}

#[test]
fn what_the_brokers_have_under_the_consumer_protocol_is_refused_by_name() {
    let kafka = "[kafka]\ngroup_protocol = \"consumer\"\n";
    refused(
        &format!("{kafka}session_timeout_ms = 15000\nheartbeat_interval_ms = 500\n{STORE}{POOL}{PERSIST}"),
        &[
            "`kafka.session_timeout_ms` cannot be set with `kafka.group_protocol` = \"consumer\": leave it out, and set \
             consumer.session.timeout.ms of the group, or the brokers' group.consumer.session.timeout.ms",
            "`kafka.heartbeat_interval_ms` cannot be set with",
        ],
    );
    refused(
        &format!(
            "{kafka}[kafka.options]\nsession_timeout_ms = 15000\n\"heartbeat.interval.ms\" = 500\n\
             partition_assignment_strategy = \"range\"\ngroup_instance_id = \"a\"\n{STORE}{POOL}{PERSIST}"
        ),
        &[
            "`kafka.options.session_timeout_ms` cannot be set with",
            "`kafka.options.heartbeat.interval.ms` cannot be set with",
            "`kafka.options.partition_assignment_strategy` cannot be set with",
            "`kafka.options.group_instance_id` cannot be set: use `kafka.group_instance_id`",
        ],
    );
    refused("[kafka]\ngroup_protocol = \"static\"\n", &["`kafka.group_protocol`", "\"classic\" or \"consumer\""]);
    refused("[kafka]\ngroup_instance_id = \"a b\"\n", &["`kafka.group_instance_id`: found \"a b\"", "pod name"]);
}

#[test]
fn the_consumer_protocols_settings_are_shown_with_whose_session_timeout_counts() {
    let place = Place::new(&format!("[kafka]\ngroup_protocol = \"consumer\"\n{STORE}{POOL}{PERSIST}"));
    let shown = ["group_protocol = \"consumer\"", "consumer.session.timeout.ms is taken for 45000 ms, their default"];
    place.check(&[]).shows(&shown);
    let mut command = place.command(&["check", "--config", "weir.toml"]);
    let ran = Ran::of(command.env("WEIR__KAFKA__GROUP_INSTANCE_ID", "0123").output().unwrap());
    ran.shows(&["group_instance_id = \"0123\""]);
    assert!(!ran.out.contains("session_timeout_ms ="), "what it does not have: {}", ran.out);
}

#[test]
fn options_that_librdkafka_does_not_take_are_refused_before_anything_runs() {
    let options = |lines: &str| format!("[kafka.options]\n{lines}\n{STORE}{POOL}{PERSIST}");
    refused(&options("no_such_setting = 1"), &["`kafka.options.no_such_setting`: librdkafka refuses no.such.setting"]);
    refused(&options("linger_ms = \"soon\""), &["`kafka.options.linger_ms`: librdkafka refuses linger.ms"]);
    refused(&options("group_protocol = \"consumer\""), &["`kafka.options.group_protocol` cannot be set"]);
    let place = Place::new(&options("security_protocol = \"ssl\"\nlinger_ms = 3"));
    place.check(&[]).shows(&["security_protocol = \"ssl\""]);
}

#[test]
fn numbers_that_a_service_would_refuse_or_take_for_none_are_refused() {
    for (set, part) in [
        ("store.lock_timeout=500us", "`store.lock_timeout` is 500us, expected 1ms to 1h"),
        ("store.statement_timeout=1000days", "`store.statement_timeout` is"),
        ("store.pooler=statement", "found \"statement\", expected \"session\" or \"transaction\""),
        ("store.connections=1001", "`store.connections` is 1001, at most 1000 can be"),
        ("store.url=oracle://weir:hunter2@db/weir", "`store.url` must be an address such as postgres://"),
        ("store.url=sqlite::memory:", "`store.url`: a database in memory is of one connection alone"),
        ("store.url=sqlite:///weir.db?mode=memory", "name a file, such as sqlite:///path/weir.db"),
        ("store.url=sqlite:weir.db?mode=ro", "`store.url`: weir writes to its database: leave `mode=ro`"),
        ("store.url=sqlite:///weir.db?mode=x", "unknown value \"x\" for `mode`"),
        ("store.url=sqlite://", "`store.url`: it names no file"),
        ("kafka.metadata_refresh_ms=3600001", "at most 3600000 can be"),
        ("pools.storage.max_partition_fetch_bytes=1GiB", "at most 1000000000 can be"),
        ("pools.storage.queue_bytes=2GiB", "`pools.storage.queue_bytes` is"),
        ("pools.storage.handle_ms=-1", "found -1, expected a number that is not negative"),
    ] {
        Place::working("").check(&["--set", set]).fails_with(2, &[part]);
    }
}

#[test]
fn patterns_of_topics_are_checked() {
    let with = |topics: &str| format!("{STORE}{}{PERSIST}", POOL.replace("[\"message-events\"]", topics));
    refused(&with("['^orders(']"), &["`pools.storage.topics`: \"^orders(\" is no regular expression: unclosed group"]);
    refused(&with("['orders.*']"), &["`pools.storage.topics`: \"orders.*\" is no name of a topic", "begins with '^'"]);
    Place::new(&with("['^orders\\..*']")).check(&[]).shows(&["those that match are looked for every 30s"]);
}

#[test]
fn a_pooler_is_of_postgresql() {
    let place = Place::working("");
    let set = ["--set", "store.pooler=transaction"];
    place.check(&set).shows(&["pooler = \"transaction\""]);
    place
        .check(&[&set[..], &["--set", "store.url=sqlite:///tmp/weir.db"]].concat())
        .fails_with(2, &["`store.pooler` is of PostgreSQL", "leave it out"]);
}

#[test]
fn a_pool_with_a_dash_in_its_name_is_reached_by_a_variable() {
    let place = Place::new(&format!("{STORE}{POOL}{PERSIST}").replace("pools.storage", "pools.chat-archive"));
    for name in ["WEIR__POOLS__CHAT_ARCHIVE__MAX_POLL_RECORDS", "WEIR__POOLS__CHAT-ARCHIVE__MAX_POLL_RECORDS"] {
        let mut command = place.command(&["check", "--config", "weir.toml"]);
        Ran::of(command.env(name, "77").output().unwrap()).shows(&["[pools.chat-archive]", "max_poll_records = 77"]);
    }
}

#[cfg(unix)]
#[test]
fn a_variable_that_is_no_text_is_refused_not_ignored() {
    use std::os::unix::ffi::OsStrExt as _;
    let place = Place::working("");
    let mut command = place.command(&["check", "--config", "weir.toml"]);
    command.env("WEIR__STORE__URL", std::ffi::OsStr::from_bytes(b"postgres://\xff"));
    Ran::of(command.output().unwrap()).fails_with(2, &["the variable WEIR__STORE__URL: its value is not UTF-8"]);
}

#[test]
fn a_secret_can_lie_in_a_file() {
    let place = Place::new(&format!("[store]\nurl_file = \"url\"\n{POOL}{PERSIST}"));
    place.check(&[]).fails_with(2, &["`store.url_file`: read url: No such file"]);
    place.write("url", "\n");
    place.check(&[]).fails_with(2, &["`store.url_file`: url is empty"]);
    place.write("url", "postgres://weir:hunter2@db/weir\n");
    place.check(&[]).shows(&["url = \"postgres://weir:***@db/weir\"", "url_file = \"url\""]);
    place.check(&["--set", "store.url=postgres://x"]).fails_with(2, &["`store.url` and `store.url_file` are both set"]);
    place.write("password", "hunter5\n");
    let options = ["--set", "kafka.options.sasl_password_file=password"];
    place.check(&options).shows(&["sasl_password = \"***\""]);
    let both = [&options[..], &["--set", "kafka.options.sasl_password=hunter6"]].concat();
    place.check(&both).fails_with(2, &["`kafka.options.sasl_password` and `kafka.options.sasl_password_file`"]);
    place.check(&["--set", "redis.url_file=gone"]).fails_with(2, &["`redis.url_file`: read gone"]);
}

#[test]
fn what_a_handler_outside_of_the_database_needs_is_checked_and_its_secrets_stay_hidden() {
    let hook =
        |lines: &str| format!("{POOL}[[pools.storage.pipelines]]\nname = \"hook\"\nhandler = \"notify\"\n{lines}\n");
    let at = "`pools.storage.pipelines[0]";
    for (lines, part) in [
        ("", format!("{at}.url` is not set: give the address to post to, or {at}.url_file`")),
        ("url = \"ftp://u:hunter2@x\"", format!("{at}.url` must be an address such as https://host/path")),
        ("url = [\"hunter2\"]", format!("{at}.url` (weir.toml): found a list, expected text")),
        ("url = \"http://x\"\nsecret = \"\"", format!("{at}.secret` is empty: leave it out")),
        ("url = \"http://x\"\ntimeout = \"0s\"", format!("{at}.timeout` must be greater than 0")),
        ("url_file = \"gone\"", format!("{at}.url_file`: read gone: No such file")),
        ("url = \"http://x\"\nurl_file = \"x\"", format!("{at}.url` and {at}.url_file` are both set: give one")),
        ("url = \"http://x\"\nrecord_key = \"k\"", format!("{at}.record_key` belongs to the handler forward")),
        ("url = \"http://x\"\nsecrt = \"hunter2\"", "did you mean `secret`?".to_owned()),
    ] {
        refused(&hook(lines), &[&part]);
    }
    let place = Place::new(&hook("url = \"https://u:hunter2@host/x\"\nsecret_file = \"key\"\ntimeout = \"2s\""));
    place.write("key", "hunter5\n");
    place.check(&[]).shows(&["url = \"https://u:***@host/x\"", "secret = \"***\"", "timeout = \"2s\""]);
    place.check(&["--json"]).shows(&["https://u:***@host/x", "\"secret\": \"***\""]);
    let forward = hook("topic = \"t\"\nrecord_key = \"{kee}\"").replace("notify", "forward");
    refused(&forward, &[&format!("{at}.record_key`: there is no \"kee\": known are a JSON pointer")]);
}

#[test]
fn a_later_layer_goes_over_an_earlier_one() {
    let place = Place::working("[log]\nlevel = \"warn\"");
    let other = place.write("other.toml", "[pools.storage]\nmax_poll_records = 20\nbatch_linger = \"6ms\"\n");
    let mut command = place.command(&["check", "--config", "weir.toml", "--config", &other]);
    command
        .env("WEIR__POOLS__STORAGE__BATCH_LINGER", "7ms")
        .env("weir__pools__storage__topics", "a, b")
        .env("WEIR__KAFKA__BROKERS", "x:1,y:2")
        .env("WEIR__KAFKA__OPTIONS__LINGER_MS", "5")
        .env("WEIR__POOLS__STORAGE__REJECT_HOLD_RATIO", "0.25")
        .env("WEIR__STORE__CONNECTIONS", "9")
        .args([
            "--set",
            "store.connections=10",
            "--set",
            "pools.storage.batch_bytes=2MiB",
            "--set",
            "redis.url=\"redis://r\"",
        ]);
    Ran::of(command.output().unwrap()).shows(&[
        "level = \"warn\"",
        "max_poll_records = 20",
        "batch_linger = \"7ms\"",
        "topics = [\"a\", \"b\"]",
        "brokers = [\"x:1\", \"y:2\"]",
        "linger_ms = \"5\"",
        "reject_hold_ratio = 0.25",
        "connections = 10",
        "batch_bytes = \"2MiB\"",
        "url = \"redis://r\"",
    ]);
}

#[test]
fn a_variable_is_checked_like_a_file() {
    let place = Place::working("");
    let with = |name: &str, value: &str| {
        Ran::of(place.command(&["check", "--config", "weir.toml"]).env(name, value).output().unwrap())
    };
    with("WEIR__POOLS__STORAGE__MAX_POLL_RECORDS", "many")
        .fails_with(2, &["(the variable WEIR__POOLS__STORAGE__MAX_POLL_RECORDS): found \"many\""]);
    with("WEIR__STORE__URLL", "hunter2").fails_with(2, &["unknown key `store.urll`", "did you mean `url`?"]);
}

#[test]
fn the_file_of_the_working_directory_is_taken_when_none_is_named() {
    let place = Place::new("");
    place.write("config/weir.toml", &format!("{STORE}{POOL}max_poll_records = 77\n{PERSIST}"));
    Ran::of(place.command(&["check"]).output().unwrap()).shows(&["max_poll_records = 77"]);
}

#[test]
fn a_pool_that_is_not_there_is_bad_usage() {
    Place::working("").weir(&["run", "--pool", "x"]).fails_with(2, &["there is no pool \"x\": known are storage"]);
    Place::new("").weir(&["run"]).fails_with(2, &["no pool is configured"]);
    let unknown = Ran::of(Place::new("").command(&["rnu"]).output().unwrap());
    assert_eq!(unknown.code, Some(2));
    Place::working("").check(&["--set", "log"]).fails_with(2, &["expected KEY=VALUE"]);
    Place::working("").check(&["--set", "log.level=a=b=c"]).fails_with(2, &["`log.level`: found \"a=b=c\""]);
}

#[test]
fn a_reader_that_closes_the_pipe_is_no_failure() {
    let place = Place::working("");
    let mut command = place.command(&["check", "--config", "weir.toml"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let mut err = String::new();
    child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
    assert_eq!((child.wait().unwrap().code(), err.as_str()), (Some(0), ""));
}

#[test]
fn a_condition_that_is_none_is_refused_with_pool_pipeline_place_and_reason() {
    let stats = |when: &str| {
        format!(
            "{STORE}{POOL}{PERSIST}[[pools.storage.pipelines]]\nname = \"stats\"\nhandler = \"analyze\"\nwhen = \"{when}\"\n"
        )
    };
    for (when, reason) in [
        ("event.typ == 'x'", "line 1, column 1: there is no event.typ"),
        ("event.type == 'x' && evnt.user == 'y'", "line 1, column 22: there is no \"evnt\""),
        ("event.type == ", "line 1, column 15: it is no CEL"),
        ("lookup('users', event.user).country == 'NO'", "there is no lookup \"users\": none is configured"),
        ("event.type.startswith('x')", "column 12: there is no function \"startswith\": did you mean startsWith?"),
    ] {
        refused(&stats(when), &["`pools.storage.pipelines[1].when` of \"stats\"", reason]);
    }
    let lookup = |lines: &str| format!("{STORE}{POOL}[pools.storage.lookups.users]\n{lines}{PERSIST}");
    refused(&lookup("key = \"id\"\n"), &["`pools.storage.lookups.users` has neither `file` nor `table`"]);
    refused(&lookup("table = \"us;ers\"\n"), &["`pools.storage.lookups.users.table` is \"us;ers\""]);
    refused(&lookup("file = \"nowhere.csv\"\n"), &["pool \"storage\": lookup \"users\": nowhere.csv: No such file"]);
    let persist = "[[pools.storage.pipelines]]\nname = \"p\"\nhandler = \"persist\"\nwhen = \"event.type == 'x'\"\n";
    let other = format!("{persist}[[pools.storage.pipelines]]\nname = \"a\"\nhandler = \"analyze\"\n");
    refused(&format!("{STORE}{POOL}{other}"), &["`pools.storage.pipelines[0].when`", "the same `when`"]);
    let same = format!("{STORE}{POOL}{other}when = \"event.type == 'x'\"\n");
    Place::new(&same).check(&[]).shows(&["when = \"event.type == 'x'\""]);
}

#[test]
fn moderation_without_what_it_needs_is_refused() {
    let moderate = |lines: &str| {
        format!("{STORE}{POOL}{PERSIST}[[pools.storage.pipelines]]\nname = \"m\"\nhandler = \"moderate\"\n{lines}")
    };
    refused(&moderate(""), &["`pools.storage.pipelines[1].moderate` is not set"]);
    let below = "[pools.storage.pipelines.moderate";
    refused(&moderate(&format!("{below}]\n")), &["judges by nothing"]);
    refused(&moderate(&format!("{below}.classifier]\nurl = \"ftp://x\"\n")), &["classifier.url` must be an address"]);
    refused(
        &moderate(&format!("[{below}.rules]]\nname = \"r\"\nwhen = \"event.tpe == 'x'\"\n")),
        &["moderate.rules` \"r\": line 1, column 1: there is no event.tpe"],
    );
    refused(&moderate(&format!("[{below}.words]]\nfil = \"x\"\n")), &["did you mean `file`?"]);
    std::fs::write(std::env::temp_dir().join("weir-config-patterns.txt"), "fine\n(never closed\n").unwrap();
    let list = std::env::temp_dir().join("weir-config-patterns.txt");
    refused(
        &moderate(&format!("[{below}.patterns]]\nfile = \"{}\"\n", list.display())),
        &["`pools.storage.pipelines[1].moderate` of \"m\"", "weir-config-patterns.txt: line 2: error: unclosed group"],
    );
    let updating = PERSIST.trim_end().to_owned() + "\non_duplicate = \"update\"\nnewer_by = \"timestamp\"\n";
    let rule = format!("[{below}.rules]]\nname = \"r\"\nwhen = \"true\"\n");
    let both =
        format!("{STORE}{POOL}{updating}[[pools.storage.pipelines]]\nname = \"m\"\nhandler = \"moderate\"\n{rule}");
    refused(&both, &["would not be judged"]);
}

#[test]
fn traces_are_checked_and_shown_without_their_headers() {
    let place = Place::working(
        "[traces]\nendpoint = \"http://collector:4318\"\nheaders_file = \"otlp\"\nrelation = \"parent\"\n",
    );
    place.write("otlp", "authorization: Bearer hunter9\n");
    place.check(&[]).shows(&[
        "[traces]",
        "endpoint = \"http://collector:4318\"",
        "sample_ratio = 0.01",
        "headers_file",
    ]);
    place.write("otlp", "a: b\nhunter9\n");
    place.check(&[]).fails_with(2, &["`traces.headers_file`: otlp: line 2 is no header"]);
    for (lines, problem) in [
        ("endpoint = \"collector:4318\"", "`traces.endpoint` must be an address such as http://collector:4318"),
        ("endpoint = \"hunter9\"", "`traces.endpoint` is no address"),
        ("endpoint = \"https://weir:hunter9@host\"", "give a header by `traces.headers_file`"),
        ("endpoint = \"https://host/?key=hunter9\"", "`traces.endpoint` has a '?'"),
        ("sample_ratio = 1.5", "`traces.sample_ratio` must be from 0 to 1"),
        ("service_name = \"\"", "`traces.service_name` is empty"),
        ("relation = \"child\"", "\"link\" or \"parent\""),
        ("headers_file = \"missing\"", "`traces.headers_file`: read missing"),
        ("header = \"x\"", "unknown key `traces.header`"),
    ] {
        Place::working(&format!("[traces]\n{lines}\n")).check(&[]).fails_with(2, &[problem]);
    }
}

#[test]
fn what_the_pools_need_at_a_rate_grows_with_it_and_what_was_not_measured_has_no_figure() {
    let place = Place::working("[redis]\nurl = \"redis://cache\"");
    let needs = |args: &[&str]| {
        let told = place.check(&[&["--json"], args].concat());
        told.shows(&[]);
        serde_json::from_str::<serde_json::Value>(&told.out).unwrap()
    };
    let [less, more] = ["20000/s", "200000/s"].map(|rate| needs(&["--at", rate]));
    for name in
        ["database_bytes_a_day", "dead_bytes_a_day", "redis_bytes", "worker_cores", "database_cores", "events_a_day"]
    {
        let [less, more] = [&less, &more].map(|needs| needs["pools"][0][name].as_f64().unwrap());
        assert!(less > 0.0 && (more / less - 10.0).abs() < 1e-6, "{name}: {less} and {more}");
    }
    assert!(more["pools"][0]["workers"].as_f64() > less["pools"][0]["workers"].as_f64(), "{more:#}");
    assert_eq!(more["pools"][0]["database"], "postgres");
    assert!(more["kafka_bytes_a_day"].as_f64().unwrap() > 0.0);
    let longer = needs(&["--at", "20000/s", "--event-bytes", "1000"]);
    assert!(longer["pools"][0]["database_bytes_a_day"].as_f64() > less["pools"][0]["database_bytes_a_day"].as_f64());
    place.check(&["--at", "20000/s"]).shows(&[
        "pool storage on PostgreSQL",
        "transactions",
        "connections",
        "a day, all replicas",
    ]);

    let unstored = Place::new(&format!(
        "{POOL}[[pools.storage.pipelines]]\nname = \"hook\"\nhandler = \"notify\"\nurl = \"http://127.0.0.1:9/\"\n"
    ));
    let told = unstored.check(&["--json", "--at", "100/s"]);
    told.shows(&["measure it by `weir load run`"]);
    let told: serde_json::Value = serde_json::from_str(&told.out).unwrap();
    for name in ["workers", "database_bytes_a_day", "connections", "database"] {
        assert!(told["pools"][0][name].is_null(), "{name}: {told:#}");
    }
    let sqlite = needs(&["--set", "store.url=sqlite:///tmp/weir.db", "--at", "100/s"]);
    assert!(
        sqlite["pools"][0]["workers"].is_null() && sqlite["pools"][0]["database_bytes_a_day"].is_number(),
        "{sqlite:#}"
    );

    place.check(&["--at", "fast"]).fails_with(2, &["a rate such as"]);
    place.check(&["--event-bytes", "10"]).fails_with(2, &["--at"]);
    place.check(&["--at", "100/s", "--rejected", "2"]).fails_with(2, &["a part of 1"]);
}
