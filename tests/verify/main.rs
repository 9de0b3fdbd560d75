//! The auditor against real Kafka and PostgreSQL, in states made by hand: it must not need a worker to be right.
#![expect(clippy::print_stdout, reason = "figures, shown when they are asked for")]

mod days;
#[path = "../common/kafka.rs"]
mod kafka;
mod memory;
mod order;
#[path = "../common/services.rs"]
mod services;
mod since;
mod types;
#[path = "../common/uuid_days.rs"]
mod uuid_days;
mod world;

use std::process::Command;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use weir::verify;

use world::{Message, World, expect, message, persist_and_analyze, storage, url_of};

#[tokio::test]
async fn a_consistent_state_has_no_findings() {
    let (mut world, messages) = World::settled().await;
    world.send(1, &messages[0]).await;
    world.send_record(0, None, None).await;
    let no_json = world.send_record(0, Some(b"\xff{"), None).await;
    world.kill(&format!("{}:0:{no_json}", world.topic_id), "malformed", 0, no_json).await;
    let with_header = world.send_record(0, Some(b"[]"), Some(("weir-id", "w-1"))).await;
    world.kill("w-1", "malformed", 0, with_header).await;
    let refused = world.send(0, &message("refused")).await;
    world.kill("refused", "refused", 0, refused).await;
    world.pass(0, 14).await;
    world.pass(1, 11).await;
    let report = world.verify().await;
    expect(&report, &[("unique_ids", 23), ("persisted", 20), ("dead_lettered", 3)]);
    assert!(!report.has_findings());
    let pool = &report.pools["storage"];
    assert_eq!((pool.records, pool.ambiguous), (24, 0));
    assert!(pool.counters_compared > 10 && pool.notes.is_empty(), "{pool:#?}");
}

#[tokio::test]
async fn a_removed_row_is_lost_and_named() {
    let (mut world, _) = World::settled().await;
    assert_eq!(world.sql("DELETE FROM messages WHERE message_id = 'm-7'").await, 1);
    let report = world.verify_with(json!([{"name": "persist", "handler": "persist"}])).await;
    expect(&report, &[("unique_ids", 20), ("persisted", 19), ("lost", 1)]);
    assert!(report.has_findings());
    assert_eq!(report.pools["storage"].lost_ids, [format!("m-7 at {}/1 offset 3", world.topic.0)]);
}

#[tokio::test]
async fn an_id_both_live_and_dead_is_repeated() {
    let (mut world, _) = World::settled().await;
    world.kill("m-4", "handler", 0, 2).await;
    let report = world.verify().await;
    expect(&report, &[("unique_ids", 20), ("persisted", 20), ("dead_lettered", 1), ("repeated", 1)]);
    assert_eq!(report.pools["storage"].repeated_ids, [format!("m-4 at {}/0 offset 2", world.topic.0)]);
}

#[tokio::test]
async fn counters_too_high_too_low_missing_and_made_up_are_wrong() {
    let (mut world, _) = World::settled().await;
    let first = "minute = to_timestamp(1767225600)";
    world.sql(&format!("UPDATE weir_counts SET count = count + 1 WHERE {first} AND dimension = 'type'")).await;
    world
        .sql(&format!("UPDATE weir_counts SET count = 1 WHERE {first} AND member = 'bob' AND dimension = 'user'"))
        .await;
    let gone = format!("DELETE FROM weir_counts WHERE {first} AND dimension = 'conversation' AND member = '0:7'");
    assert_eq!(world.sql(&gone).await, 1);
    world.sql("INSERT INTO weir_counts VALUES (to_timestamp(0), 'user', 'nobody', 3, 2)").await;
    world
        .sql(&format!(
            "INSERT INTO weir_counts SELECT minute, dimension, 'ghost', 0, 1 FROM weir_counts \
                        WHERE {first} AND dimension = 'active_users' LIMIT 1"
        ))
        .await;
    let report = world.verify().await;
    expect(&report, &[("unique_ids", 20), ("persisted", 20), ("counters_wrong", 5)]);
    let mut wrong = report.pools["storage"].wrong_counters.clone();
    wrong.sort();
    assert_eq!(
        wrong,
        [
            "1970-01-01T00:00:00Z user \"nobody\": counted 2, expected 0",
            "2026-01-01T00:00:00Z active_users \"\": counted 4, expected 3",
            "2026-01-01T00:00:00Z conversation \"0:7\": counted 0, expected 1",
            "2026-01-01T00:00:00Z type \"new_message\": counted 7, expected 6",
            "2026-01-01T00:00:00Z user \"bob\": counted 1, expected 4",
        ]
    );
}

#[tokio::test]
async fn what_the_ledger_has_not_passed_is_pending_and_not_lost() {
    let (mut world, _) = World::settled().await;
    for n in 0..3 {
        world.send(0, &message(&format!("later-{n}"))).await;
    }
    let report = world.verify().await;
    expect(&report, &[("unique_ids", 23), ("persisted", 20), ("pending", 3)]);
    world.pass(0, 12).await;
    let report = world.verify().await;
    expect(&report, &[("unique_ids", 23), ("persisted", 20), ("pending", 1), ("lost", 2)]);
}

#[tokio::test]
async fn a_pool_that_never_ran_has_everything_pending() {
    let world = World::new().await;
    world.send(0, &message("a")).await;
    expect(&world.verify().await, &[("unique_ids", 1), ("pending", 1)]);
}

/// A worker goes on while the auditor reads: what it settles meanwhile is neither lost nor miscounted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_settled_during_the_audit_is_audited_too() {
    let (world, _) = World::settled().await;
    let config = world.config(persist_and_analyze());
    let world = Arc::new(Mutex::new(Some(world)));
    let (runtime, worker) = (tokio::runtime::Handle::current(), Arc::clone(&world));
    let mut done = false;
    let meanwhile = move |_| {
        if !std::mem::replace(&mut done, true) {
            let mut guard = worker.lock().unwrap();
            let world = guard.as_mut().unwrap();
            runtime.block_on(async {
                world.send(0, &message("meanwhile")).await;
                world.settle(&message("meanwhile")).await;
                world.pass(0, 11).await;
            });
        }
    };
    let report = verify::run(config, storage(), Box::new(meanwhile)).await.unwrap();
    expect(&report, &[("unique_ids", 21), ("persisted", 21)]);
    drop(world.lock().unwrap().take());
}

#[tokio::test]
async fn a_pool_without_a_table_is_audited_by_its_seen_ids() {
    let mut world = World::new().await;
    for (offset, id) in ["a", "b", "c"].into_iter().enumerate() {
        world.send(0, &message(id)).await;
        if id != "c" {
            world
                .sql(&format!("INSERT INTO weir_seen (pool, type, event_id) VALUES ('storage', 'new_message', '{id}')"))
                .await;
        }
        world.pass(0, offset as i64 + 1).await;
    }
    world.sql("INSERT INTO weir_counts VALUES (to_timestamp(1767225600), 'type', 'new_message', 0, 2)").await;
    let report = world.verify_with(json!([{"name": "analyze", "handler": "analyze", "dimensions": ["type"]}])).await;
    expect(&report, &[("unique_ids", 3), ("persisted", 2), ("lost", 1)]);
}

#[tokio::test]
async fn a_pipeline_is_audited_from_where_it_began() {
    let (mut world, messages) = World::settled().await;
    world.sql("CREATE TABLE later (message_id text PRIMARY KEY)").await;
    let pipelines = || {
        let Value::Array(mut pipelines) = persist_and_analyze() else { panic!("a list") };
        pipelines.push(json!({"name": "later", "handler": "persist", "table": "later", "key": "message_id",
                              "columns": {"message_id": "$id"}}));
        Value::Array(pipelines)
    };
    let missing = world.verify_with(pipelines()).await;
    assert_eq!(missing.lost, messages.len() as u64, "nothing on record: it should have them all");
    for partition in 0..2 {
        let next = world.next_offset(partition).await;
        world.begin("later", partition, next).await;
        world.begin("persist", partition, 0).await;
    }
    let begun = world.verify_with(pipelines()).await;
    assert_eq!((begun.lost, begun.persisted), (0, messages.len() as u64), "{begun:?}");

    let late = message("late");
    let offset = world.send(0, &late).await;
    world.settle(&late).await;
    world.pass(0, offset + 1).await;
    let report = world.verify_with(pipelines()).await;
    assert_eq!(report.lost, 1, "{report:?}");
    assert!(report.pools["storage"].lost_ids[0].starts_with("late at"), "{report:?}");
}

#[tokio::test]
async fn what_was_settled_before_the_counting_began_is_not_expected_in_counters() {
    let (mut world, messages) = World::settled().await;
    world.sql("DELETE FROM weir_counts").await;
    for partition in 0..2 {
        let next = world.next_offset(partition).await;
        world.begin("persist", partition, 0).await;
        world.begin("analyze", partition, next).await;
    }
    let report = world.verify().await;
    assert_eq!((report.counters_wrong, report.persisted), (0, messages.len() as u64), "{report:?}");
    world.sql("UPDATE weir_pipelines SET begin_offset = 0").await;
    assert!(world.verify().await.counters_wrong > 0);
}

/// A typed decoder may refuse a payload whose id can be read: it is dead under its record's id.
#[tokio::test]
async fn a_malformed_event_with_a_readable_id_is_not_lost() {
    let (mut world, _) = World::settled().await;
    let payload = br#"{"type":"new_message","message":{"message_id":"odd"}}"#;
    let first = world.send_record(0, Some(payload), Some(("ce_id", "c-1"))).await;
    world.kill("c-1", "malformed", 0, first).await;
    let other = br#"{"type":"new_message","message":{"message_id":"other"}}"#;
    let second = world.send_record(0, Some(other), None).await;
    world.pass(0, 12).await;
    let lost = [("unique_ids", 22), ("persisted", 20), ("dead_lettered", 1), ("lost", 1)];
    expect(&world.verify().await, &lost);
    world.kill(&format!("{}:0:{second}", world.topic_id), "malformed", 0, second).await;
    expect(&world.verify().await, &[("unique_ids", 22), ("persisted", 20), ("dead_lettered", 2)]);
}

#[tokio::test]
async fn counters_of_disagreeing_duplicates_are_left_out_with_a_note() {
    let (mut world, messages) = World::settled().await;
    world.send(0, &Message { from: json!("eve"), ..messages[2].clone() }).await;
    world.pass(0, 11).await;
    let report = world.verify().await;
    expect(&report, &[("unique_ids", 20), ("persisted", 20)]);
    let pool = &report.pools["storage"];
    assert_eq!((pool.ambiguous, pool.notes.len()), (1, 1), "{pool:#?}");
}

#[tokio::test]
async fn the_key_may_be_a_uuid_in_another_table() {
    let mut world = World::new().await;
    world.sql("CREATE SCHEMA shop; CREATE TABLE shop.\"Orders\" (\"Id\" uuid PRIMARY KEY)").await;
    world.send(0, &message("0192F0C1-2222-7000-8000-00000000000A")).await;
    world.sql("INSERT INTO shop.\"Orders\" VALUES ('0192f0c1-2222-7000-8000-00000000000a')").await;
    world.pass(0, 1).await;
    let pipelines = json!([{"name": "persist", "handler": "persist", "table": "shop.Orders", "key": "Id"}]);
    expect(&world.verify_with(pipelines).await, &[("unique_ids", 1), ("persisted", 1)]);
    let wrong = world.config(json!([{"name": "persist", "handler": "persist", "table": "absent"}]));
    let error = verify::run(wrong, storage(), Box::new(|_| {})).await.unwrap_err();
    assert!(error.to_string().contains("table absent with column message_id does not exist"), "{error}");
}

#[tokio::test]
async fn the_command_says_it_by_its_exit_code_and_as_json() {
    let (mut world, _) = World::settled().await;
    let (brokers, topic) = (services::env("KAFKA_BROKERS"), &world.topic.0);
    let config = std::env::temp_dir().join(format!("{topic}.toml"));
    let text = format!(
        "[kafka]\nbrokers = [\"{brokers}\"]\n[store]\nurl = \"{}\"\n[pools.storage]\ngroup = \"g\"\n\
         topics = [\"{topic}\"]\nstart = \"beginning\"\n[[pools.storage.pipelines]]\nname = \"persist\"\n\
         handler = \"persist\"\n",
        url_of(&world.database)
    );
    std::fs::write(&config, text).unwrap();
    let verify = |more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
        command.arg("verify").arg("--config").arg(&config).args(more).output().unwrap()
    };
    let wrong = verify(&["--since", "yesterday"]);
    assert_eq!(wrong.status.code(), Some(2), "{wrong:?}");
    let told = String::from_utf8(wrong.stderr).unwrap();
    assert!(told.contains("\"yesterday\" is no time: give one such as"), "{told}");
    let later = verify(&["--json", "--since", "2999-01-01T00:00:00Z"]);
    assert_eq!(later.status.code(), Some(0), "{later:?}");
    let report: Value = serde_json::from_slice(&later.stdout).unwrap();
    assert_eq!(report["unique_ids"], 0, "{report}");
    let hour: Value = serde_json::from_slice(&verify(&["--json", "--since", "1h"]).stdout).unwrap();
    assert_eq!(hour["unique_ids"], 20, "they were sent just now: {hour}");
    let good = verify(&["--json"]);
    assert_eq!(good.status.code(), Some(0), "{good:?}");
    let report: Value = serde_json::from_slice(&good.stdout).unwrap();
    let keys = ["unique_ids", "persisted", "dead_lettered", "lost", "repeated", "counters_wrong"];
    assert_eq!(keys.map(|key| report[key].as_u64()), [20, 20, 0, 0, 0, 0].map(Some), "{report}");
    world.sql("DELETE FROM messages WHERE message_id = 'm-0'").await;
    let bad = verify(&[]);
    assert_eq!(bad.status.code(), Some(1), "{bad:?}");
    let table = String::from_utf8(bad.stdout).unwrap();
    assert!(table.contains("storage: lost: m-0 at "), "{table}");
    std::fs::remove_file(config).unwrap();
}
