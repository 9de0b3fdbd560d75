//! Audits of what is younger than a moment.

use std::sync::Arc;

use weir::verify::{self, Scope};

use super::order::in_order;
use super::world::{MINUTE_MS, Message, World, message, persist_and_analyze, storage};

#[tokio::test]
async fn since_a_moment_only_younger_records_are_audited() {
    let mut world = in_order().await;
    // Lost both, one from before; dead from before; a row that no record is there for.
    world.sql("DELETE FROM messages WHERE message_id IN ('o-1', 'o-4')").await;
    world.kill("long-ago", "refused", 0, 0).await;
    world.settle(&message("no record")).await;
    let all = world.verify().await;
    assert_eq!((all.unique_ids, all.lost), (6, 2), "{all:#?}");
    let since_ms = MINUTE_MS + 2_500;
    let report = world.verify_since(since_ms).await;
    assert_eq!((report.unique_ids, report.persisted, report.lost), (3, 2, 1), "{report:#?}");
    assert_eq!((report.dead_lettered, report.repeated), (0, 0), "{report:#?}");
    let pool = &report.pools["storage"];
    assert!(pool.records == 3 && pool.lost_ids[0].starts_with("o-4 at "), "{pool:#?}");

    // Its first record is from before, and so is its effect: neither lost nor out of order.
    world.send_keyed("odd", &message("o-0"), MINUTE_MS + 7_000).await;
    // Kafka finds the place by the largest time stamp before it: a straggler lies behind and is older.
    world.send_keyed("odd", &message("straggler"), MINUTE_MS - 9_000).await;
    world.pass(0, 8).await;
    let report = world.verify_since(since_ms).await;
    assert_eq!((report.unique_ids, report.persisted, report.lost), (4, 3, 1), "{report:#?}");
    assert_eq!(report.out_of_order, 0, "{report:#?}");
    let nothing = world.verify_since(MINUTE_MS + 60_000).await;
    assert_eq!((nothing.unique_ids, nothing.has_findings()), (0, false), "{nothing:#?}");
}

#[tokio::test]
async fn since_a_moment_counters_of_minutes_that_are_not_whole_can_only_be_too_low() {
    let mut world = World::new().await;
    for n in 0..20_i64 {
        let at_ms = MINUTE_MS + n * 10_000;
        let message = Message { at_ms, ..message(&format!("c-{n}")) };
        world.send_keyed("k", &message, at_ms + 200).await;
        world.settle(&message).await;
    }
    world.pass(0, 20).await;
    // The second minute's half; the third is the first that is surely whole, and there is a fourth.
    let since_ms = MINUTE_MS + 90_000;
    let report = world.verify_since(since_ms).await;
    assert_eq!((report.unique_ids, report.counters_wrong), (11, 0), "{report:#?}");
    assert!(report.pools["storage"].notes.iter().any(|note| note.contains("--since")), "{report:#?}");
    let update = |minute: i64, by: i64| {
        format!(
            "UPDATE weir_counts SET count = count + {by}
              WHERE minute = to_timestamp({}) AND dimension = 'type'",
            MINUTE_MS / 1_000 + minute * 60
        )
    };
    for (minute, by, wrong) in [(0, 5, 0), (1, 5, 0), (1, -9, 1), (3, 1, 2)] {
        assert_eq!(world.sql(&update(minute, by)).await, 1);
        let report = world.verify_since(since_ms).await;
        assert_eq!(report.counters_wrong, wrong, "minute {minute} by {by}: {report:#?}");
    }
}

#[tokio::test]
async fn only_wanted_ids_are_audited_and_counters_may_count_the_others_too() {
    let mut world = in_order().await;
    world.sql("DELETE FROM messages WHERE message_id IN ('o-1', 'o-4')").await;
    let scope = Scope { wanted: Some(Arc::new(|id| id == "o-4" || id == "o-5")), ..storage() };
    let report = verify::run(world.config(persist_and_analyze()), scope, Box::new(|_| {})).await.unwrap();
    assert_eq!((report.unique_ids, report.persisted, report.lost), (2, 1, 1), "{report:#?}");
    let pool = &report.pools["storage"];
    assert!(pool.records == 2 && pool.lost_ids[0].starts_with("o-4 at "), "{pool:#?}");
    assert_eq!(report.counters_wrong, 0, "{report:#?}");
}
