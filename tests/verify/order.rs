//! Order per key.

use super::world::{MINUTE_MS, World, expect, message};

/// Events of two keys, in order, settled a second apart.
pub(crate) async fn in_order() -> World {
    let mut world = World::new().await;
    for n in 0..6 {
        let (id, at_ms) = (format!("o-{n}"), MINUTE_MS + n * 1_000);
        world.send_keyed(if n % 2 == 0 { "even" } else { "odd" }, &message(&id), at_ms - 500).await;
        world.settle(&message(&id)).await;
        world.took_effect(&id, at_ms).await;
    }
    world.pass(0, 6).await;
    world
}

#[tokio::test]
async fn an_effect_out_of_its_keys_order_is_a_finding_that_names_both() {
    let mut world = in_order().await;
    let report = world.verify().await;
    expect(&report, &[("unique_ids", 6), ("persisted", 6)]);
    assert_eq!(report.pools["storage"].order_compared, 6);
    // Later than its neighbours, and still before the next of its key.
    world.took_effect("o-2", MINUTE_MS + 3_999).await;
    expect(&world.verify().await, &[("unique_ids", 6), ("persisted", 6)]);
    world.took_effect("o-2", MINUTE_MS + 4_001).await;
    let report = world.verify().await;
    expect(&report, &[("unique_ids", 6), ("persisted", 6), ("out_of_order", 1)]);
    assert!(report.has_findings());
    let at = |n: i32| format!("o-{n} at {}/0 offset {n}", world.topic.0);
    let named = format!("{} took effect after {} of its key", at(2), at(4));
    assert_eq!(report.pools["storage"].out_of_order_ids, [named]);
}

#[tokio::test]
async fn what_took_effect_out_of_its_turn_on_purpose_or_by_a_repeat_is_in_order() {
    let mut world = in_order().await;
    world.took_effect("o-2", MINUTE_MS + 9_000).await;
    world.sql("INSERT INTO weir_replayed (pool, type, event_id) VALUES ('storage', '', 'o-2')").await;
    let report = world.verify().await;
    expect(&report, &[("unique_ids", 6), ("persisted", 6)]);
    assert_eq!(report.pools["storage"].order_compared, 5, "a replay is left out");
    world.sql("DELETE FROM weir_replayed").await;
    expect(&world.verify().await, &[("unique_ids", 6), ("persisted", 6), ("out_of_order", 1)]);

    let (topic, topic_id) = (world.topic.0.clone(), world.topic_id);
    world
        .sql(&format!(
            "INSERT INTO weir_seeks (group_name, topic, topic_id, partition, from_offset, to_offset, moved_by) VALUES
             ('g', '{topic}', '{topic_id}', 0, 1, 4, 't'), ('g', '{topic}', '{topic_id}', 0, 5, 1, 't')"
        ))
        .await;
    expect(&world.verify().await, &[("unique_ids", 6), ("persisted", 6)]);
    world.sql("DELETE FROM weir_seeks").await;
    world.send_keyed("even", &message("o-2"), MINUTE_MS + 8_000).await;
    world.pass(0, 7).await;
    expect(&world.verify().await, &[("unique_ids", 6), ("persisted", 6)]);
}
