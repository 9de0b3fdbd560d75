//! The same worker on SQLite: the same promises, and a disk that is full.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::load::{Plan, Published, publish};
use super::worker::Worker;
use super::world::World;
use super::{PATIENCE, until};

/// The world's configuration with a SQLite file in place of its PostgreSQL database.
fn config(world: &World, folder: &Path) -> String {
    config_with(world, folder, "")
}

fn config_with(world: &World, folder: &Path, pool_lines: &str) -> String {
    let config = world.config(pool_lines);
    let (begin, rest) = config.split_once("[store]\nurl = \"").unwrap();
    let (_, end) = rest.split_once('"').unwrap();
    let config = format!("{begin}[store]\nurl = \"sqlite://{}/weir.db\"{end}", folder.display());
    let migrated = world.weir_with(&config, &["migrate"]).output().unwrap();
    assert!(migrated.status.success(), "{}", String::from_utf8_lossy(&migrated.stderr));
    config
}

fn verify(world: &World, config: &str) -> serde_json::Value {
    let verified = world.weir_with(config, &["verify", "--json"]).output().unwrap();
    let text = String::from_utf8_lossy(&verified.stdout);
    serde_json::from_str(&text)
        .unwrap_or_else(|error| panic!("{error}: {text}{}", String::from_utf8_lossy(&verified.stderr)))
}

/// Waits until the auditor finds nothing pending, and holds its counts against what was published.
async fn settled(world: &World, config: &str, published: &Published) {
    until("everything to be passed", PATIENCE, async || {
        let report = verify(world, config);
        (report["pending"] == 0, report)
    })
    .await;
    let report = verify(world, config);
    let of = |name: &str| report[name].as_u64().unwrap();
    assert_eq!((of("lost"), of("repeated"), of("counters_wrong")), (0, 0, 0), "{report:#}");
    assert_eq!(of("persisted"), published.live.len() as u64);
    assert_eq!(of("dead_lettered"), published.dead.len() as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_or_repeated_over_kills() {
    let world = World::new(4).await;
    let config = config(&world, &world.dir);
    let mut worker = Worker::start_configured(&world, &config).await;
    worker.owns(4).await;
    let (claims, published) = tokio::join!(
        async {
            let mut claims = 0.0;
            for _ in 0..3 {
                let before = worker.metric("weir_events_consumed_total", "");
                until("some batches", PATIENCE, async || {
                    let consumed = worker.metric("weir_events_consumed_total", "");
                    (consumed > before + 2_000.0, consumed)
                })
                .await;
                claims += worker.metric("weir_claims_total", "");
                worker.kill();
                worker = Worker::start_configured(&world, &config).await;
            }
            claims
        },
        publish(&world, Plan { per_second: 4_000, ..Plan::new(40, 80_000) })
    );
    assert!(claims >= 12.0, "each of the three that were killed owned the four partitions: {claims}");
    settled(&world, &config, &published).await;
    let (status, _) = worker.terminate();
    assert!(status.success(), "{}", worker.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_rows_are_replayed() {
    let world = World::new(2).await;
    let config = config(&world, &world.dir);
    let url = format!("sqlite://{}/weir.db", world.dir.display());
    let mut db = <sqlx::SqliteConnection as sqlx::Connection>::connect(&url).await.unwrap();
    let trigger = "CREATE TRIGGER picky BEFORE INSERT ON messages WHEN NEW.content LIKE '%number 3 of%'
                   BEGIN SELECT RAISE(ABORT, 'picky'); END";
    sqlx::raw_sql(trigger).execute(&mut db).await.unwrap();
    let worker = Worker::start_configured(&world, &config).await;
    let published = publish(&world, Plan { keys: 10, poison_per_mille: 0, ..Plan::new(42, 200) }).await;
    until("everything to be passed", PATIENCE, async || {
        let report = verify(&world, &config);
        (report["pending"] == 0, report)
    })
    .await;
    let dead: i64 = sqlx::query_scalar("SELECT count(*) FROM weir_dead").fetch_one(&mut db).await.unwrap();
    assert!(dead > 0, "{}", worker.log());
    let (code, again) = super::dead::json(&world, &config, &["dead", "replay"]);
    assert_eq!((code, again["rejected"].as_i64()), (1, Some(dead)), "{again}");
    sqlx::raw_sql("DROP TRIGGER picky").execute(&mut db).await.unwrap();
    let (code, done) = super::dead::json(&world, &config, &["dead", "replay", "--rate", "100/s"]);
    assert_eq!((code, done["replayed"].as_i64()), (0, Some(dead)), "{done}");
    settled(&world, &config, &published).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_waits_behind_its_rejected_event_and_is_released_in_order() {
    const OVERTOOK: &str = "SELECT count(*) FROM messages m JOIN weir_dead d ON CAST(d.key AS TEXT) = m.conversation
        WHERE json_extract(CAST(d.value AS TEXT), '$.message.timestamp') < m.timestamp";
    let world = World::new(2).await;
    let config = config_with(&world, &world.dir, "on_reject = \"park\"\n");
    let url = format!("sqlite://{}/weir.db", world.dir.display());
    let mut db = <sqlx::SqliteConnection as sqlx::Connection>::connect(&url).await.unwrap();
    let trigger = "CREATE TRIGGER picky BEFORE INSERT ON messages WHEN NEW.content GLOB '*number 5 of [123]'
                   BEGIN SELECT RAISE(ABORT, 'picky'); END";
    sqlx::raw_sql(trigger).execute(&mut db).await.unwrap();
    let mut count = async |sql: &'static str| -> i64 { sqlx::query_scalar(sql).fetch_one(&mut db).await.unwrap() };
    let passed = async || {
        until("everything to be passed", PATIENCE, async || {
            let report = verify(&world, &config);
            (report["pending"] == 0, report)
        })
        .await;
    };
    let plan = |seed, events| Plan { keys: 20, repeats_per_mille: 0, poison_per_mille: 0, ..Plan::new(seed, events) };

    let mut worker = Worker::start_configured(&world, &config).await;
    let mut published = publish(&world, plan(43, 400)).await;
    passed().await;
    assert_eq!(count("SELECT count(*) FROM weir_dead WHERE reason = 'refused'").await, 3, "{}", worker.log());
    let parked = count("SELECT count(*) FROM weir_dead WHERE reason = 'parked'").await;
    assert!(parked > 10, "only {parked} wait: nothing is tried");
    assert_eq!(count(OVERTOOK).await, 0);

    // The next owner knows them from the database.
    worker.kill();
    worker = Worker::start_configured(&world, &config).await;
    published.live.extend(publish(&world, plan(44, 200)).await.live);
    passed().await;
    assert!(count("SELECT count(*) FROM weir_dead WHERE reason = 'parked'").await > parked);
    assert_eq!(count(OVERTOOK).await, 0);

    sqlx::raw_sql("DROP TRIGGER picky").execute(&mut db).await.unwrap();
    let (code, done) = super::dead::json(&world, &config, &["dead", "release", "--all"]);
    assert_eq!((code, done["rejected"].as_i64(), done["waiting"].as_i64()), (0, Some(0), Some(0)), "{done}");
    settled(&world, &config, &published).await;
    let report = verify(&world, &config);
    assert_eq!(report["out_of_order"].as_u64(), Some(0), "{report:#}");
    let (status, _) = worker.terminate();
    assert!(status.success(), "{}", worker.log());
}

/// A file system of its own, which can be full; mounting one needs root.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn new(folder: PathBuf, size: &str) -> Self {
        std::fs::create_dir_all(&folder).unwrap();
        mount(&["-t", "tmpfs", "-o", &format!("size={size}"), "weir-test", folder.to_str().unwrap()]);
        Self(folder)
    }

    fn resize(&self, size: &str) {
        mount(&["-o", &format!("remount,size={size}"), self.0.to_str().unwrap()]);
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("-l").arg(&self.0).status();
        assert!(unmounted.is_ok_and(|status| status.success()) || std::thread::panicking());
    }
}

fn mount(args: &[&str]) {
    let mounted = Command::new("mount").args(args).output().unwrap();
    assert!(mounted.status.success(), "mount {args:?}, which needs root: {}", String::from_utf8_lossy(&mounted.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_waited_for_said_once_and_loses_nothing() {
    let world = World::new(4).await;
    let disk = SmallDisk::new(world.dir.join("disk"), "4m");
    let config = config(&world, &disk.0);
    let mut worker = Worker::start_configured(&world, &config).await;
    worker.owns(4).await;
    let published = publish(&world, Plan::new(41, 20_000)).await;
    until("the worker to say that the disk is full", PATIENCE, async || {
        let log = worker.log();
        (log.contains("the database is away") && log.contains("make room on the disk"), log)
    })
    .await;
    let waited = worker.metric("weir_retries_total", "outage");
    until("it to be tried again and again", PATIENCE, async || {
        let tried = worker.metric("weir_retries_total", "outage");
        (tried >= waited + 8.0, tried)
    })
    .await;
    let told = worker.log().matches("the database is away").count();
    assert!(told <= 2, "told {told} times:\n{}", worker.log());
    assert!(worker.get("/readyz").starts_with("HTTP/1.1 200"), "an outage after the start takes no worker away");
    disk.resize("64m");
    settled(&world, &config, &published).await;
    assert!(worker.log().contains("the database takes effects again"), "{}", worker.log());
    let (status, _) = worker.terminate();
    assert!(status.success(), "{}", worker.log());
}
