//! The other ways of being a member: static membership and the consumer protocol (KIP-848).

use std::collections::HashSet;
use std::time::Duration;

use rdkafka::admin::{AdminOptions, AlterConfig, ResourceSpecifier};

use super::audit::audit;
use super::load::{Plan, publish};
use super::worker::Worker;
use super::world::{SESSION_TIMEOUT, World, admin};
use super::{PATIENCE, until};

/// Longer than a start takes on a slow machine.
const LONG_SESSION_MS: u32 = 45_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Classic,
    Consumer,
}

/// A worker's configuration with lines of its own for the group's membership.
fn config(world: &World, protocol: Protocol, instance_id: Option<&str>, session_ms: u32) -> String {
    let mut lines = match protocol {
        Protocol::Classic => format!("session_timeout_ms = {session_ms}\nmax_poll_interval_ms = 60000\n"),
        Protocol::Consumer => "group_protocol = \"consumer\"\n".to_owned(),
    };
    if let Some(id) = instance_id {
        lines.push_str(&format!("group_instance_id = \"{id}\"\n"));
    }
    let usual = format!("session_timeout_ms = {}\n", SESSION_TIMEOUT.as_millis());
    let config = world.config("drain_deadline = \"60s\"\n");
    assert!(config.contains(&usual), "{config}");
    config.replace(&usual, &lines)
}

/// Has the brokers wait so long for a member of the consumer protocol.
async fn set_session(world: &World, ms: u32) {
    let ms = ms.to_string();
    let change = AlterConfig::new(ResourceSpecifier::Group(&world.pool)).set("consumer.session.timeout.ms", &ms);
    for altered in admin().alter_configs([&change], &AdminOptions::new()).await.unwrap() {
        altered.unwrap();
    }
}

/// The partitions whose ledger row is a worker's.
async fn partitions_of(world: &World, worker: &Worker) -> HashSet<i32> {
    let claims = worker.claims();
    let owners = world.owners().await.into_iter();
    owners.filter(|row| row.owner.is_some_and(|owner| claims.contains(&owner))).map(|row| row.partition).collect()
}

/// Waits until each has claimed what it was assigned, and nothing is left over.
async fn shared(world: &World, workers: [&Worker; 2]) {
    until("both to have claimed their partitions", PATIENCE, async || {
        let mut counts = Vec::new();
        for worker in workers {
            let assigned = worker.metric("weir_partitions_assigned", "");
            counts.push((assigned, partitions_of(world, worker).await.len() as f64));
        }
        let all: f64 = counts.iter().map(|(assigned, _)| assigned).sum();
        let is_so = counts.iter().all(|(assigned, claimed)| *assigned > 0.0 && assigned == claimed);
        (is_so && all == f64::from(world.partitions), counts)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_of_the_consumer_protocol_settle_join_and_hand_over() {
    let world = World::new(8).await;
    let config = config(&world, Protocol::Consumer, None, 0);
    let mut first = Worker::start_configured(&world, &config).await;
    first.owns(8).await;
    let told = "a batch may take 3000 ms, half of the brokers' consumer.session.timeout.ms (6000 ms)";
    assert!(first.log().contains(told), "the brokers were not asked:\n{}", first.log());
    let second = Worker::start_configured(&world, &config).await;
    let plan = Plan { per_second: 10_000, ..Plan::new(70, 100_000) };
    let (published, ()) = tokio::join!(publish(&world, plan), async {
        shared(&world, [&first, &second]).await;
        let (status, took) = first.terminate();
        assert!(status.success() && took < Duration::from_secs(20), "{status:?} after {took:?}\n{}", first.log());
    });
    world.drained(PATIENCE).await;
    assert_eq!(second.metric("weir_fences_total", ""), 0.0, "a partition was taken that was not given up");
    drop(second);
    audit(&world, &published).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_static_member_that_is_started_again_has_its_partitions_without_a_rebalance() {
    Box::pin(start_again(Protocol::Classic, "TERM")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_static_member_that_was_killed_has_its_partitions_without_a_rebalance() {
    Box::pin(start_again(Protocol::Classic, "KILL")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_static_member_of_the_consumer_protocol_has_its_partitions_without_a_rebalance() {
    Box::pin(start_again(Protocol::Consumer, "TERM")).await;
}

async fn start_again(protocol: Protocol, signal: &str) {
    let world = World::new(8).await;
    set_session(&world, LONG_SESSION_MS).await;
    let of = |id| config(&world, protocol, Some(id), LONG_SESSION_MS);
    let mut mover = Worker::start_configured(&world, &of("mover")).await;
    let stayer = Worker::start_configured(&world, &of("stayer")).await;
    let plan = Plan { per_second: 10_000, ..Plan::new(71, 150_000) };
    let (published, ()) = tokio::join!(publish(&world, plan), async {
        shared(&world, [&mover, &stayer]).await;
        let its = partitions_of(&world, &mover).await;
        let seen =
            |worker: &Worker| (worker.metric("weir_rebalances_total", ""), worker.metric("weir_claims_total", ""));
        let then = seen(&stayer);
        match signal {
            "KILL" => mover.kill(),
            _ => assert!(mover.terminate().0.success(), "{}", mover.log()),
        }
        let (left, epochs) = (world.ledger().await, epochs(&world, &its).await);
        mover = Worker::start_configured(&world, &of("mover")).await;
        until("the same partitions to be claimed again", PATIENCE, async || {
            let now = partitions_of(&world, &mover).await;
            (now == its, now)
        })
        .await;
        assert!(
            self::epochs(&world, &its).await.iter().zip(&epochs).all(|(now, then)| *now == then + 1),
            "claimed anew"
        );
        until("these partitions to go on", PATIENCE, async || {
            let (now, ends) = (world.ledger().await, world.ends());
            let is_on = |at: &i32| now[*at as usize] > left[*at as usize] || now[*at as usize] == ends[*at as usize];
            (its.iter().all(is_on), now.clone())
        })
        .await;
        assert_eq!(seen(&stayer), then, "rebalances and claims of the worker that stayed:\n{}", stayer.log());
    });
    world.drained(PATIENCE).await;
    drop((mover, stayer));
    audit(&world, &published).await;
}

/// The ledger's epochs of some partitions, in their order.
async fn epochs(world: &World, partitions: &HashSet<i32>) -> Vec<i64> {
    let mut sorted: Vec<i32> = partitions.iter().copied().collect();
    sorted.sort_unstable();
    let mut epochs = Vec::new();
    for partition in sorted {
        epochs.push(world.count(&format!("SELECT epoch FROM weir_ledger WHERE partition = {partition}")).await);
    }
    epochs
}

#[tokio::test(flavor = "multi_thread")]
async fn a_static_members_partitions_are_taken_by_others_when_its_session_is_over() {
    let world = World::new(4).await;
    let of = |id| config(&world, Protocol::Classic, Some(id), SESSION_TIMEOUT.as_millis() as u32);
    let mut goer = Worker::start_configured(&world, &of("goer")).await;
    let stayer = Worker::start_configured(&world, &of("stayer")).await;
    shared(&world, [&goer, &stayer]).await;
    assert!(goer.terminate().0.success(), "{}", goer.log());
    stayer.owns(4).await;
    let published = publish(&world, Plan::new(72, 5_000)).await;
    world.drained(PATIENCE).await;
    drop(stayer);
    audit(&world, &published).await;
}

/// Waits until a worker has ended with 1, and its last word has some parts.
async fn ends_with(worker: &mut Worker, parts: &[&str]) {
    until("the worker to end", PATIENCE, async || (worker.has_ended(), worker.log())).await;
    let log = worker.log();
    assert_eq!(worker.exit_code(), Some(1), "{log}");
    let errors: Vec<&str> = log.lines().filter(|line| line.contains("ERROR") || line.starts_with("error: ")).collect();
    assert_eq!(errors.len(), 1, "one message:\n{log}");
    for part in parts {
        assert!(errors[0].contains(part), "{part:?} is not in {}", errors[0]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_with_one_instance_id_the_older_ends_with_its_reason_under_the_classic_protocol() {
    let world = World::new(4).await;
    let config = config(&world, Protocol::Classic, Some("twin"), LONG_SESSION_MS);
    let mut older = Worker::start_configured(&world, &config).await;
    older.owns(4).await;
    let plan = Plan { per_second: 10_000, ..Plan::new(73, 60_000) };
    let (published, younger) = tokio::join!(publish(&world, plan), async {
        let younger = Worker::start_configured(&world, &config).await;
        let id = "with kafka.group_instance_id \"twin\"";
        ends_with(&mut older, &["another process has joined group", id, "give each process an id of its own"]).await;
        younger
    });
    world.drained(PATIENCE).await;
    assert_eq!(partitions_of(&world, &younger).await.len(), 4);
    drop(younger);
    audit(&world, &published).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_with_one_instance_id_the_younger_ends_with_its_reason_under_the_consumer_protocol() {
    let world = World::new(4).await;
    let config = config(&world, Protocol::Consumer, Some("twin"), 0);
    let older = Worker::start_configured(&world, &config).await;
    older.owns(4).await;
    let mut younger = Worker::start_configured(&world, &config).await;
    let id = "has a member with kafka.group_instance_id \"twin\" already";
    ends_with(&mut younger, &[id, "its place is free after the session time-out"]).await;
    let published = publish(&world, Plan::new(74, 5_000)).await;
    world.drained(PATIENCE).await;
    assert_eq!(older.metric("weir_claims_total", ""), 4.0, "the older one was disturbed:\n{}", older.log());
    drop(older);
    audit(&world, &published).await;
}
