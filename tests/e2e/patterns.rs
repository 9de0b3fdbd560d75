//! Topics by pattern: read as they appear, given up when they go, without a restart.

use super::audit::complete;
use super::dead::{json, run};
use super::load::{Plan, Published, publish};
use super::worker::Worker;
use super::world::World;
use super::{PATIENCE, until};

/// A world whose topics are found by a pattern: `of(name)` makes its topic the one of that name.
struct Found {
    world: World,
    base: String,
    published: Published,
    seed: u64,
}

impl Found {
    async fn new() -> Self {
        let world = World::new(2).await;
        world.delete_topic().await;
        let base = world.topic.clone();
        Self { world, base, published: Published::default(), seed: 200 }
    }

    fn config(&self, protocol: &str, start: &str) -> String {
        let Self { world, base, .. } = self;
        let mut config = world.config(&format!("start = \"{start}\""));
        config = config.replace(&format!("topics = [\"{}\"]", world.topic), &format!("topics = ['^{base}\\.']"));
        if protocol == "consumer" {
            let lines = config.lines().filter(|line| !line.starts_with("session_timeout_ms"));
            config = lines.collect::<Vec<_>>().join("\n").replace("[kafka]", "[kafka]\ngroup_protocol = \"consumer\"");
        }
        assert!(config.contains("topics = ['^"), "{config}");
        config
    }

    fn of(&mut self, name: &str) -> &World {
        self.world.topic = format!("{}.{name}", self.base);
        &self.world
    }

    async fn publish(&mut self, name: &str) {
        self.seed += 1;
        let plan = Plan { poison_per_mille: 5, ..Plan::new(self.seed, 1_000) };
        let published = publish(self.of(name), plan).await;
        self.published.live.extend(published.live);
        self.published.dead.extend(published.dead);
    }

    /// The topics on which the group has a place.
    async fn begun(&self) -> Vec<String> {
        let sql = "SELECT DISTINCT topic FROM weir_ledger ORDER BY 1";
        let topics: Vec<String> = sqlx::query_scalar(sql).fetch_all(self.world.db.postgres()).await.unwrap();
        topics.into_iter().map(|topic| topic.strip_prefix(&self.base).unwrap_or(&topic).to_owned()).collect()
    }

    async fn told(&self, worker: &Worker, what: &str) {
        until(what, PATIENCE, async || {
            let log = worker.log();
            (log.contains(what), log)
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_that_match_are_read_as_they_appear_and_given_up_when_they_go() {
    Box::pin(appear_and_go("classic")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn under_the_consumer_protocol_topics_that_match_are_read_as_they_appear() {
    Box::pin(appear_and_go("consumer")).await;
}

async fn appear_and_go(protocol: &str) {
    let mut found = Found::new().await;
    // What is newer than the group's first place is read from its beginning, whatever `start` says.
    let config = found.config(protocol, "end");
    found.of("a").make_topic().await;
    let worker = Worker::start_configured(&found.world, &config).await;
    worker.owns(2).await;
    found.publish("a").await;
    found.of("b").make_topic().await;
    found.publish("b").await;
    found.world.drained(PATIENCE).await;
    found.of("a").drained(PATIENCE).await;
    drop(worker);

    // Made and filled while nobody looks.
    found.of("c").make_topic().await;
    found.publish("c").await;
    let workers =
        [Worker::start_configured(&found.world, &config).await, Worker::start_configured(&found.world, &config).await];
    found.world.drained(PATIENCE).await;
    assert_eq!(found.begun().await, [".a", ".b", ".c"], "its dead letters, perhaps, which end with .dead");
    complete(&found.world, &found.published).await;

    let (_, lag) = json(&found.world, &config, &["lag"]);
    for name in ["a", "b", "c"] {
        assert!(lag.to_string().contains(&format!("{}.{name}\"", found.base)), "{lag}");
    }
    assert!(!lag.to_string().contains(".dead\""), "{lag}");
    super::dead::verified(&found.world, &config, found.published.live.len(), found.published.dead.len());
    let (code, shown, told) = run(&found.world, &config, &["seek", &found.world.pool, "--to", "end", "--dry-run"]);
    assert!(code == 0 && shown.contains(&format!("{}.b", found.base)), "{shown}{told}");
    let topic = format!("{}.b", found.base);
    let (code, shown, told) =
        run(&found.world, &config, &["seek", &found.world.pool, "--topic", &topic, "--to", "end", "--dry-run"]);
    assert!(code == 0 && !shown.contains(&format!("{}.a", found.base)), "{shown}{told}");
    let out = found.world.dir.join("export");
    let (code, shown, told) =
        run(&found.world, &config, &["export", "--pool", &found.world.pool, "--out", out.to_str().unwrap()]);
    assert!(code == 0 && shown.contains("records in"), "{shown}{told}");
    let (code, shown, told) = run(&found.world, &config, &["check"]);
    assert!(code == 0 && shown.contains("those that match are looked for every 2s"), "{shown}{told}");

    // One goes, and the others are read on; one of its name that is made anew is another topic.
    found.of("b").delete_topic().await;
    found.publish("a").await;
    found.world.drained(PATIENCE).await;
    for worker in &workers {
        found.told(worker, "a topic that matched is gone").await;
        // It would stay far behind for ever.
        until("its series to go", PATIENCE, async || {
            let metrics = worker.get("/metrics");
            let of_topic = |line: &&str| line.contains(&format!("topic=\"{topic}\""));
            let left: Vec<&str> =
                metrics.lines().filter(of_topic).filter(|line| line.starts_with("weir_lag_")).collect();
            (left.is_empty(), left.join("\n"))
        })
        .await;
    }
    found.of("b").make_topic().await;
    found.publish("b").await;
    found.world.drained(PATIENCE).await;
    complete(&found.world, &found.published).await;
    for mut worker in workers {
        let (status, took) = worker.terminate();
        assert!(status.success(), "{status:?} after {took:?}\n{}", worker.log());
    }
    for name in ["a", "c"] {
        found.of(name).delete_topic().await;
    }
    found.of("b");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_no_topic_matches_a_worker_waits_and_commands_say_so() {
    let mut found = Found::new().await;
    let config = found.config("classic", "beginning");
    let worker = Worker::start_configured(&found.world, &config).await;
    found.told(&worker, "no topic matches; waiting for one to be made").await;
    until("the worker to be unready", PATIENCE, async || {
        let ready = worker.get("/readyz");
        (ready.starts_with("HTTP/1.1 503") && ready.contains("a topic that matches ^"), ready)
    })
    .await;
    for args in [vec!["lag"], vec!["verify"], vec!["seek", &found.world.pool, "--to", "end"]] {
        let (code, _, told) = run(&found.world, &config, &args);
        assert!(code == 1 && told.contains("no topic matches ^"), "{args:?}: {code} {told}");
    }
    found.of("late").make_topic().await;
    found.publish("late").await;
    found.world.drained(PATIENCE).await;
    assert!(worker.get("/readyz").starts_with("HTTP/1.1 200"));
    complete(&found.world, &found.published).await;
}
