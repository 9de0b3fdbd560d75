//! `messages` becomes partitioned by day under a running worker, though the command is killed on the way.

use super::audit::audit;
use super::load::{Plan, publish};
use super::worker::Worker;
use super::world::World;
use super::{PATIENCE, until};

const KIND: &str = "SELECT count(*) FROM pg_class WHERE oid = 'messages'::regclass AND relkind = 'p'";

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_command_leaves_the_table_as_it_was_and_the_next_one_divides_it_while_events_come() {
    let world = World::new(4).await;
    let mut all = publish(&world, Plan::new(81, 20_000)).await;
    let worker = Worker::start(&world).await;
    world.drained(PATIENCE).await;

    let mut reading = world.db.postgres().begin().await.unwrap();
    sqlx::raw_sql("LOCK TABLE messages IN ACCESS SHARE MODE").execute(&mut *reading).await.unwrap();
    let mut command = world.weir(&["migrate", "--partitioned"]).spawn().unwrap();
    until("the command to wait for the table", PATIENCE, async || {
        let waiting =
            "SELECT count(*) FROM pg_locks WHERE relation = 'messages'::regclass AND mode = 'AccessExclusiveLock'";
        let waiting = world.count(waiting).await;
        (waiting == 1, waiting)
    })
    .await;
    command.kill().unwrap();
    command.wait().unwrap();
    reading.rollback().await.unwrap();
    assert_eq!(world.count(KIND).await, 0);

    let publishing = publish(&world, Plan::new(82, 40_000));
    let dividing = tokio::task::spawn_blocking({
        let mut again = world.weir(&["migrate", "--partitioned"]);
        move || again.output().unwrap()
    });
    let (later, divided) = tokio::join!(publishing, dividing);
    let divided = divided.unwrap();
    assert!(divided.status.success(), "{}", String::from_utf8_lossy(&divided.stderr));
    let told = String::from_utf8_lossy(&divided.stdout).into_owned();
    assert!(told.contains("messages is partitioned by day now") && told.contains("7 days are made ahead"), "{told}");
    assert_eq!(world.count(KIND).await, 1);
    all.live.extend(later.live);
    all.dead.extend(later.dead);
    all.elsewhere.extend(later.elsewhere);
    world.drained(PATIENCE).await;
    until("the worker to look after the days", PATIENCE * 2, async || {
        let metrics = worker.get("/metrics");
        (metrics.lines().any(|line| line.starts_with("weir_message_days_ahead") && line.ends_with(" 7")), ())
    })
    .await;
    drop(worker);
    audit(&world, &all).await;
}
