//! What is routine in a rebalance: a commit of a generation that is over, a poll loop that was held up for too long.

use std::time::Duration;

use super::audit::audit;
use super::load::{Plan, publish};
use super::promises::ledger_is_ahead;
use super::worker::Worker;
use super::world::{SESSION_TIMEOUT, World};
use super::zombie::freeze_when;
use super::{PATIENCE, until};

/// How often a worker is frozen, until one of its commits comes too late.
const ROUNDS_MAX: u32 = 5;

async fn have(workers: [&Worker; 2], what: &str, shares: impl Fn(f64, f64) -> bool) {
    until(what, PATIENCE, async || {
        let [one, other] = workers.map(|worker| worker.metric("weir_partitions_assigned", ""));
        (shares(one, other), (one, other))
    })
    .await;
}

fn told_no_error(worker: &Worker) {
    let log = worker.log();
    let errors: Vec<&str> = log.lines().filter(|line| line.contains("ERROR")).collect();
    assert!(errors.is_empty(), "{errors:#?}");
}

/// Frozen between the database's commit and Kafka's, and replaced: the offset that it commits as it wakes up is refused.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_of_a_generation_that_is_over_is_counted_and_nothing_more() {
    let world = World::new(4).await;
    let mut zombie = Worker::start(&world).await;
    let mut heir = Worker::start(&world).await;
    have([&zombie, &heir], "both to own partitions", |zombie, heir| zombie > 0.0 && heir > 0.0).await;
    let mut all = publish(&world, Plan::new(50, 1_000)).await;
    let refused = |worker: &Worker| worker.metric("weir_offset_commits_total", "error");
    for round in 1..=ROUNDS_MAX {
        let load = publish(&world, Plan { per_second: 2_000, ..Plan::new(50 + u64::from(round), 40_000) });
        let (more, ()) = tokio::join!(load, async {
            freeze_when(&zombie, "the worker to be ahead of its commits", async || {
                ledger_is_ahead(&world, &zombie).await
            })
            .await;
            until("the heir to own everything", PATIENCE, async || {
                let owned = heir.metric("weir_partitions_assigned", "");
                (owned == 4.0, owned)
            })
            .await;
            zombie.signal("CONT");
            have([&zombie, &heir], "the group to be shared again", |zombie, heir| zombie > 0.0 && heir > 0.0).await;
        });
        all.live.extend(more.live);
        all.dead.extend(more.dead);
        all.elsewhere.extend(more.elsewhere);
        if refused(&zombie) > 0.0 {
            break;
        }
    }
    assert!(refused(&zombie) > 0.0, "no commit came too late in {ROUNDS_MAX} rounds: nothing was tried");
    world.drained(PATIENCE).await;
    for worker in [&mut zombie, &mut heir] {
        told_no_error(worker);
        assert!(!worker.has_ended());
    }
    drop((zombie, heir));
    audit(&world, &all).await;
}

/// A batch that cannot end, since its table is locked, holds the revocation up, and so the poll loop.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_whose_poll_loop_was_held_up_for_too_long_joins_again() {
    let world = World::new(4).await;
    let held_up = format!("metadata_refresh_ms = 2000\nmax_poll_interval_ms = {}", SESSION_TIMEOUT.as_millis());
    let config = world
        .config("drain_deadline = \"2m\"\nmax_poll_records = 100")
        .replace("metadata_refresh_ms = 2000", &held_up)
        .replace("[redis]", "lock_timeout = \"2m\"\nstatement_timeout = \"3m\"\n[redis]");
    let mut slow = Worker::start_configured(&world, &config).await;
    slow.owns(4).await;
    let mut lock = world.db.postgres().begin().await.unwrap();
    sqlx::raw_sql("LOCK TABLE messages IN ACCESS EXCLUSIVE MODE").execute(&mut *lock).await.unwrap();
    let published = publish(&world, Plan { poison_per_mille: 0, ..Plan::new(56, 2_000) }).await;
    until("every partition to wait for the table", PATIENCE, async || {
        let waiting = "SELECT count(*) FROM pg_locks WHERE relation = 'messages'::regclass AND NOT granted";
        let waiting = world.count(waiting).await;
        (waiting >= 4, waiting)
    })
    .await;
    let mut other = Worker::start(&world).await;
    until("the group to go on without the slow worker", PATIENCE, async || {
        let owned = other.metric("weir_partitions_assigned", "");
        (owned == 4.0, owned)
    })
    .await;
    lock.rollback().await.unwrap();
    until("the slow worker to say why", PATIENCE, async || {
        let log = slow.log();
        (log.contains("held up beyond max.poll.interval"), log)
    })
    .await;
    have([&slow, &other], "the group to be shared again", |slow, other| slow > 0.0 && other > 0.0).await;
    world.drained(PATIENCE + Duration::from_secs(30)).await;
    for worker in [&mut slow, &mut other] {
        told_no_error(worker);
        assert!(!worker.has_ended());
    }
    drop((slow, other));
    audit(&world, &published).await;
}
