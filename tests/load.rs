//! `weir load run` against real services: its figures are those of the database, it sees what a closed loop would miss,
//! and it fails where it should.

mod common {
    pub(crate) mod kafka;
    pub(crate) mod services;
}

use std::fs::File;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use common::kafka::Topic;
use common::services;
use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use uuid::Uuid;
use weir::load::result::{Interval, RunResult, Verdict};

/// How long anything may take that should happen soon; the machine may be a slow one.
const PATIENCE: Duration = Duration::from_secs(120);
const POOL: &str = "storage";

/// A topic, a database and a folder of one test.
struct World {
    /// Dropped first: the mirror's name is made of the topic's.
    _mirror: Topic,
    topic: Topic,
    database: String,
    dir: PathBuf,
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

fn server_sql(sql: String) {
    block_on(async {
        let mut server = PgConnection::connect(&services::env("POSTGRES_URL")).await.unwrap();
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut server).await.unwrap();
    });
}

impl World {
    fn new(partitions: i32) -> Self {
        let database = format!("weir_load_{}", Uuid::new_v4().simple());
        server_sql(format!("CREATE DATABASE {database}"));
        let topic = Topic::new(partitions);
        let dir = std::env::temp_dir().join(&database);
        std::fs::create_dir_all(&dir).unwrap();
        let mirror = Topic::named(&format!("{}.{POOL}.dead", topic.0), 1);
        let world = Self { _mirror: mirror, topic, database, dir };
        // An address that is given, as a user may: only one worker of a run can have it.
        let console = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let config = format!(
            "startup_timeout = \"120s\"\n[console]\nlisten = \"{}\"\n[kafka]\nbrokers = [\"{}\"]\nsession_timeout_ms = 10000\n[store]\nurl = \"{}\"\n\
             [redis]\nurl = \"{}\"\n[health]\nlisten = \"127.0.0.1:0\"\n[log]\nlevel = \"warn\"\n[pools.{POOL}]\ngroup = \"{}\"\n\
             topics = [\"{}\"]\nstart = \"beginning\"\n[[pools.{POOL}.pipelines]]\nname = \"persist\"\n\
             handler = \"persist\"\n[[pools.{POOL}.pipelines]]\nname = \"stats\"\nhandler = \"analyze\"\n",
            console,
            services::env("KAFKA_BROKERS"),
            world.url(),
            services::env("REDIS_URL"),
            world.database,
            world.topic.0,
        );
        std::fs::write(world.dir.join("weir.toml"), config).unwrap();
        let migrated = world.weir(&["migrate"]).output().unwrap();
        assert!(migrated.status.success(), "{}", text(&migrated.stderr));
        world
    }

    fn url(&self) -> String {
        let url = services::env("POSTGRES_URL");
        format!("{}/{}", url.rsplit_once('/').unwrap().0, self.database)
    }

    fn weir(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
        command.args(args).arg("--config").arg(self.dir.join("weir.toml"));
        command.env_remove("RUST_LOG").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Begins a run of this plan.
    fn load(&self, plan: &str) -> Child {
        std::fs::write(self.dir.join("plan.toml"), plan).unwrap();
        let (plan, out) = (self.dir.join("plan.toml"), self.out());
        self.weir(&["load", "run", plan.to_str().unwrap(), "--json", "--out", out.to_str().unwrap()]).spawn().unwrap()
    }

    fn out(&self) -> PathBuf {
        self.dir.join("out")
    }

    fn count(&self, sql: &str) -> u64 {
        block_on(async {
            let mut database = PgConnection::connect(&self.url()).await.unwrap();
            let count: i64 = sqlx::query_scalar(AssertSqlSafe(sql.to_owned())).fetch_one(&mut database).await.unwrap();
            count.unsigned_abs()
        })
    }
}

impl Drop for World {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.dir).ok();
        let sql = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.database);
        let dropped = std::thread::spawn(move || server_sql(sql)).join();
        assert!(dropped.is_ok() || std::thread::panicking(), "database {} is left behind", self.database);
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A run's result from its standard output, which is also what its file has.
fn result(world: &World, output: &Output) -> RunResult {
    let printed = serde_json::from_slice(&output.stdout);
    let printed: RunResult = printed.unwrap_or_else(|error| panic!("{error}: {}", text(&output.stderr)));
    let file = std::fs::read_to_string(world.out().join("result.json")).unwrap();
    assert_eq!(serde_json::from_str::<RunResult>(&file).unwrap(), printed);
    printed
}

fn verdict<'a>(result: &'a RunResult, name: &str) -> &'a Verdict {
    let found = result.verdicts.iter().find(|verdict| verdict.name == name);
    found.unwrap_or_else(|| panic!("no verdict {name}: {:?}", result.verdicts))
}

fn sum(result: &RunResult, of: impl Fn(&Interval) -> u64) -> u64 {
    result.intervals.iter().map(of).sum()
}

/// A worker of the test's own.
struct Worker(Child, String);

impl Worker {
    fn start(world: &World) -> Self {
        let log = world.dir.join("worker.log");
        let mut command = world.weir(&["run", "--set", "log.level=info"]);
        let child = command.stdout(Stdio::null()).stderr(File::create(&log).unwrap()).spawn().unwrap();
        let mut worker = Self(child, String::new());
        let deadline = Instant::now() + PATIENCE;
        while worker.1.is_empty() {
            let said = std::fs::read_to_string(&log).unwrap();
            if let Some((_, address)) = said.split_once("health and metrics listening address=") {
                worker.1 = address.lines().next().unwrap().trim().to_owned();
            }
            assert!(Instant::now() < deadline, "{said}");
            std::thread::sleep(Duration::from_millis(50));
        }
        worker
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill").arg(format!("-{name}")).arg(self.0.id().to_string()).status().unwrap();
        assert!(sent.success());
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[test]
fn the_figures_are_those_of_the_database() {
    let world = World::new(6);
    let plan = "name = \"exact\"\ninterval = \"500ms\"\ndrain_timeout = \"120s\"\n\
                [events]\nconversations = 200\nduplicates = 0.1\npoison = 0.02\nsize = { min = 250, max = 500 }\n\
                [[phases]]\nname = \"ramp\"\nduration = \"3s\"\nfrom = 50\nto = 350\n\
                [[phases]]\nname = \"burst\"\nduration = \"2s\"\nrate = 100\nburst = 200\n\
                [workers]\nstart = 2\n[thresholds]\nslip_p99 = \"20s\"\nlatency_max = \"10min\"\n";
    let output = world.load(plan).wait_with_output().unwrap();
    let result = result(&world, &output);
    assert!(output.status.success() && result.is_passed(), "{:#?}\n{}", result.verdicts, text(&output.stderr));

    let versions: Vec<_> =
        result.setting.versions.iter().map(|(name, version)| (&**name, !version.is_empty())).collect();
    assert_eq!(versions, [("PostgreSQL", true), ("Redis", true), ("librdkafka", true)]);
    let totals = &result.totals;
    assert_eq!((totals.intended, totals.acknowledged, totals.failed), (1_000, 1_000, 0));
    assert!(totals.duplicates > 30 && totals.poison > 3, "{totals:?}");
    assert_eq!(totals.effects, world.count("SELECT count(*) FROM messages"));
    assert_eq!(totals.dead, world.count("SELECT count(*) FROM weir_dead"));
    assert_eq!(totals.dead, totals.poison);
    assert_eq!(totals.effects + totals.dead + totals.duplicates, totals.acknowledged);
    assert_eq!((totals.lost, totals.repeated, totals.out_of_order), (Some(0), Some(0), Some(0)));
    assert!(verdict(&result, "counters_wrong").passed && totals.drained_in_s.is_some());

    assert_eq!(totals.latency.count, totals.effects, "each effect once, a duplicate never");
    assert_eq!(totals.slip.count, totals.intended);
    let whole = [totals.intended; 4];
    let sums = [
        sum(&result, |interval| interval.intended),
        sum(&result, |interval| interval.sent),
        sum(&result, |interval| interval.acknowledged),
        sum(&result, |interval| interval.settled),
    ];
    assert_eq!(sums, whole, "{:#?}", result.intervals);
    assert_eq!(sum(&result, |interval| interval.latency.count), totals.effects);
    assert_eq!(sum(&result, |interval| interval.slip.count), totals.intended);
    let phases: Vec<(&str, u64)> = result.phases.iter().map(|phase| (phase.name.as_str(), phase.intended)).collect();
    assert_eq!(phases, [("ramp", 600), ("burst", 400)]);
    let last = result.intervals.last().unwrap();
    assert_eq!((last.lag_events, last.workers.len()), (0, 2));
    assert_eq!(last.workers.iter().map(|worker| worker.partitions).sum::<u64>(), 6);
    assert!(last.workers.iter().all(|worker| worker.memory_bytes > 1 << 20));
    let shares: f64 = result
        .intervals
        .iter()
        .find_map(|at| (!at.loop_share.is_empty()).then(|| at.loop_share.values().sum()))
        .unwrap();
    assert!((shares - 1.0).abs() < 1e-6, "{shares}");
    let percentiles = std::fs::read_to_string(world.out().join("latency.hgrm")).unwrap();
    assert!(percentiles.contains(&format!("Total count    = {:12}]", totals.effects)), "{percentiles}");
}

#[test]
fn a_pause_of_the_workers_is_in_the_latency_of_every_event_that_was_meant_for_it() {
    let world = World::new(2);
    let worker = Worker::start(&world);
    let plan = format!(
        "name = \"pause\"\ninterval = \"500ms\"\ndrain_timeout = \"120s\"\n[events]\nconversations = 50\n\
         [[phases]]\nname = \"only\"\nduration = \"12s\"\nrate = 100\n[workers]\nscrape = [\"http://{}\"]\n\
         [thresholds]\nslip_p99 = \"20s\"\n",
        worker.1
    );
    let run = world.load(&plan);
    let deadline = Instant::now() + PATIENCE;
    while world.count("SELECT count(*) FROM messages") < 200 {
        assert!(Instant::now() < deadline, "nothing is settled");
        std::thread::sleep(Duration::from_millis(50));
    }
    worker.signal("STOP");
    let stopped = Instant::now();
    std::thread::sleep(Duration::from_secs(2));
    let paused = stopped.elapsed();
    worker.signal("CONT");
    let output = run.wait_with_output().unwrap();
    let result = result(&world, &output);
    assert!(output.status.success(), "{:#?}\n{}", result.verdicts, text(&output.stderr));
    // A closed loop would have sent nothing meanwhile, and so measured one slow batch. A sixth of all events was meant
    // for the pause: the 99th percentile is among the first of them.
    let (p99_ms, paused_ms) = (result.totals.latency.p99_ms, paused.as_secs_f64() * 1_000.0);
    assert!(p99_ms > 0.8 * paused_ms, "p99 {p99_ms} ms for a pause of {paused_ms} ms");
    assert_eq!(result.totals.latency.count, 1_200);
    let lag_max = result.intervals.iter().map(|interval| interval.lag_events).max().unwrap();
    assert!(lag_max >= 100, "the load went on: {lag_max} events waited");
}

#[test]
fn a_generator_that_cannot_keep_up_fails_its_run_and_says_why() {
    let world = World::new(1);
    let plan = "name = \"absurd\"\ndrain_timeout = \"2s\"\nproducers = 1\nin_flight = 5\n\
                [[phases]]\nname = \"only\"\nduration = \"1s\"\nrate = 3000000\n[workers]\nstart = 1\n";
    let output = world.load(plan).wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    let result = result(&world, &output);
    for name in ["slip_p99", "sent"] {
        let verdict = verdict(&result, name);
        assert!(!verdict.passed && verdict.found.contains("the generator fell behind"), "{verdict:?}");
    }
    assert_eq!(result.totals.intended, 3_000_000);
    assert!(result.totals.acknowledged < 3_000_000);
    assert_eq!(result.totals.lost, Some(0), "what was acknowledged is there or still to come: {:?}", result.verdicts);
}

#[test]
fn a_threshold_that_is_not_met_fails_the_run() {
    let world = World::new(1);
    let plan = "name = \"strict\"\ndrain_timeout = \"120s\"\n[[phases]]\nname = \"only\"\nduration = \"1s\"\nrate = 50\n\
                [workers]\nstart = 1\n[thresholds]\nslip_p99 = \"20s\"\nlatency_p50 = \"1us\"\n";
    let output = world.load(plan).wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    let result = result(&world, &output);
    let failed: Vec<&str> =
        result.verdicts.iter().filter(|verdict| !verdict.passed).map(|verdict| verdict.name.as_str()).collect();
    assert_eq!(failed, ["latency_p50"]);
}

#[test]
fn ctrl_c_ends_the_phases_and_what_was_sent_is_audited_all_the_same() {
    let world = World::new(1);
    let plan = "name = \"long\"\ndrain_timeout = \"120s\"\n[[phases]]\nname = \"only\"\nduration = \"1h\"\nrate = 50\n\
                [workers]\nstart = 1\n[thresholds]\nslip_p99 = \"20s\"\n";
    let run = world.load(plan);
    let deadline = Instant::now() + PATIENCE;
    while world.count("SELECT count(*) FROM messages") < 20 {
        assert!(Instant::now() < deadline, "nothing is settled");
        std::thread::sleep(Duration::from_millis(50));
    }
    let sent = Command::new("kill").arg("-INT").arg(run.id().to_string()).status().unwrap();
    assert!(sent.success());
    let output = run.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    let result = result(&world, &output);
    assert!(!verdict(&result, "whole").passed && verdict(&result, "drained").passed, "{:?}", result.verdicts);
    assert!(result.totals.intended < 50 * 600, "{:?}", result.totals);
    assert_eq!(result.totals.effects, world.count("SELECT count(*) FROM messages"));
    assert_eq!((result.totals.lost, result.totals.latency.count), (Some(0), result.totals.effects));
}

#[test]
fn a_bad_plan_is_told_with_its_line_before_anything_is_done() {
    let dir = std::env::temp_dir().join(format!("weir-load-{}", Uuid::new_v4().simple()));
    std::fs::create_dir_all(&dir).unwrap();
    let (plan, config) = (dir.join("plan.toml"), dir.join("weir.toml"));
    std::fs::write(
        &plan,
        "name = \"x\"\n[[phases]]\nname = \"a\"\nduration = \"1s\"\nraet = 1\n[workers]\nstart = 1\n",
    )
    .unwrap();
    std::fs::write(&config, "[kafka]\nbrokers = [\"127.0.0.1:1\"]\n").unwrap();
    let run = Command::new(env!("CARGO_BIN_EXE_weir"))
        .args(["load", "run"])
        .arg(&plan)
        .arg("--config")
        .arg(&config)
        .current_dir(&dir)
        .output()
        .unwrap();
    assert_eq!(run.status.code(), Some(2), "{}", text(&run.stderr));
    assert!(text(&run.stderr).contains("line 5: unknown key `raet`: did you mean `rate`?"), "{}", text(&run.stderr));
    assert!(!dir.join("load-results").exists());
    let json: Result<Value, _> = serde_json::from_slice(&run.stdout);
    assert!(json.is_err(), "no result: {json:?}");
    std::fs::remove_dir_all(&dir).unwrap();
}
