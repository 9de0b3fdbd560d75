//! Pools without a table, in which two types may share an id as two events.

use serde_json::{Value, json};
use weir::verify::{self, Report};

use super::world::{MINUTE_MS, World, expect, storage};

const CREATED: &str = "order_created";
const PAID: &str = "order_paid";

impl World {
    /// Three ids, each created and then paid, all of it settled and counted.
    async fn of_two_types() -> Self {
        let mut world = Self::new().await;
        for id in ["o-0", "o-1", "o-2"] {
            for kind in [CREATED, PAID] {
                let event = json!({"type": kind, "message": {"message_id": id, "timestamp": MINUTE_MS}});
                world.send_record(0, Some(event.to_string().as_bytes()), None).await;
                world.see(kind, id).await;
            }
        }
        world.pass(0, 6).await;
        for kind in [CREATED, PAID] {
            world.sql(&format!("INSERT INTO weir_counts VALUES ({}, 'type', '{kind}', 0, 3)", minute())).await;
        }
        world
    }

    async fn see(&mut self, kind: &str, id: &str) {
        self.sql(&format!("INSERT INTO weir_seen (pool, type, event_id) VALUES ('storage', '{kind}', '{id}')")).await;
    }

    /// Takes the effect of o-1's payment back, its count included.
    async fn forget_a_payment(&mut self) {
        let forget = format!("DELETE FROM weir_seen WHERE type = '{PAID}' AND event_id = 'o-1'");
        assert_eq!(self.sql(&forget).await, 1);
        self.sql(&format!("UPDATE weir_counts SET count = count - 1 WHERE member = '{PAID}'")).await;
    }

    async fn pay_after_all(&mut self) {
        self.see(PAID, "o-1").await;
        self.sql(&format!("UPDATE weir_counts SET count = count + 1 WHERE member = '{PAID}'")).await;
    }

    async fn verify_counting(&self) -> Report {
        self.verify_with(counting()).await
    }

    fn payment(&self) -> [String; 1] {
        [format!("o-1 at {}/0 offset 3", self.topic.0)]
    }
}

fn counting() -> Value {
    json!([{"name": "analyze", "handler": "analyze", "dimensions": ["type"]}])
}

fn minute() -> String {
    format!("to_timestamp({})", MINUTE_MS / 1_000)
}

#[tokio::test]
async fn two_types_of_one_id_are_audited_as_two_events() {
    let mut world = World::of_two_types().await;
    expect(&world.verify_counting().await, &[("unique_ids", 6), ("persisted", 6)]);

    world.forget_a_payment().await;
    let report = world.verify_counting().await;
    expect(&report, &[("unique_ids", 6), ("persisted", 5), ("lost", 1)]);
    assert_eq!(report.pools["storage"].lost_ids, world.payment());

    world.kill_as(PAID, "o-1", "handler", 0, 3).await;
    expect(&world.verify_counting().await, &[("unique_ids", 6), ("persisted", 5), ("dead_lettered", 1)]);

    world.pay_after_all().await;
    let report = world.verify_counting().await;
    expect(&report, &[("unique_ids", 6), ("persisted", 6), ("dead_lettered", 1), ("repeated", 1)]);
    assert_eq!(report.pools["storage"].repeated_ids, world.payment());
}

#[tokio::test]
async fn what_has_no_type_stands_for_any_type_of_its_id() {
    let mut world = World::of_two_types().await;
    // A bad copy of what is settled has no row, as the worker leaves it.
    world.send_record(0, Some(b"\xff{"), Some(("weir-id", "o-0"))).await;
    world.pass(0, 7).await;
    expect(&world.verify_counting().await, &[("unique_ids", 6), ("persisted", 6)]);

    world.forget_a_payment().await;
    world.kill("o-1", "handler", 0, 3).await;
    expect(&world.verify_counting().await, &[("unique_ids", 6), ("persisted", 5), ("dead_lettered", 1)]);

    world.pay_after_all().await;
    let report = world.verify_counting().await;
    expect(&report, &[("unique_ids", 6), ("persisted", 6), ("dead_lettered", 1), ("repeated", 1)]);
    assert!(report.pools["storage"].repeated_ids[0].starts_with("o-1 at "), "{report:#?}");
}

/// The worker sets an event of a type that the pool does not know aside without a type.
#[tokio::test]
async fn a_type_that_the_pool_does_not_know_is_none() {
    let mut world = World::of_two_types().await;
    world.sql(&format!("DELETE FROM weir_seen WHERE type = '{PAID}'")).await;
    world.sql(&format!("DELETE FROM weir_counts WHERE member = '{PAID}'")).await;
    let mut config = world.config(counting());
    config.pools.get_mut("storage").unwrap().types = vec![CREATED.to_owned()];
    let report = verify::run(config, storage(), Box::new(|_| {})).await.unwrap();
    expect(&report, &[("unique_ids", 3), ("persisted", 3)]);
}
