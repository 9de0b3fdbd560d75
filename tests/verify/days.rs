//! The audit of a table whose oldest days are dropped.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use weir::config::{Secret, Store};
use weir::verify::{self, Report};

use super::uuid_days::{divided_on, id, today};
use super::world::{Message, World, expect, message, persist_and_analyze, storage, url_of};

const RETENTION: Duration = Duration::from_secs(3 * 86_400);

impl World {
    async fn verify_keeping(&self) -> Report {
        let mut config = self.config(persist_and_analyze());
        config.store.as_mut().unwrap().messages_retention = Some(RETENTION);
        verify::run(config, storage(), Box::new(|_| {})).await.unwrap()
    }

    /// Its `messages` as though it had been divided ten days ago, and the store that keeps some of the days.
    async fn divide(&mut self) -> Arc<dyn weir::store::Store> {
        let forever = Store { url: Secret::from(url_of(&self.database)), ..Store::default() };
        let store = weir::store::open(&forever).unwrap();
        store.partition_messages().await.unwrap();
        for sql in divided_on(today() - 10) {
            self.sql(&sql).await;
        }
        store.keep_days().await.unwrap();
        weir::store::open(&Store { messages_retention: Some(RETENTION), ..forever }).unwrap()
    }
}

#[tokio::test]
async fn what_went_with_its_day_is_forgotten_and_what_is_gone_from_a_kept_day_is_lost() {
    let mut world = World::new().await;
    let store = world.divide().await;
    let of = |day: i64, number: u64| Message { from: json!(number), ..message(&id(today() - day, number)) };
    let mut messages: Vec<Message> =
        [12, 8, 6, 1, 0].into_iter().flat_map(|day| [1, 2].map(|number| of(day, number))).collect();
    messages.push(message("of no day"));
    for message in &messages {
        world.send(0, message).await;
        world.settle(message).await;
    }
    world.pass(0, 11).await;
    expect(&world.verify().await, &[("unique_ids", 11), ("persisted", 11)]);

    let dropped = store.keep_days().await.unwrap().unwrap().dropped;
    assert_eq!(dropped.len(), 7, "{dropped:?}");
    let report = world.verify_keeping().await;
    expect(&report, &[("unique_ids", 11), ("persisted", 5)]);
    assert_eq!((report.pools["storage"].forgotten, report.has_findings()), (6, false), "{report:#?}");

    // One of them comes again, and is set aside as the worker does it.
    let again = world.send(0, &messages[2]).await;
    world.kill(&messages[2].id, "refused", 0, again).await;
    world.pass(0, 12).await;
    let report = world.verify_keeping().await;
    expect(&report, &[("unique_ids", 11), ("persisted", 5), ("dead_lettered", 1)]);
    assert_eq!((report.pools["storage"].forgotten, report.has_findings()), (5, false), "{report:#?}");

    for gone in [&messages[6].id, &messages[10].id] {
        assert_eq!(world.sql(&format!("DELETE FROM messages WHERE message_id = '{gone}'")).await, 1);
    }
    let report = world.verify_keeping().await;
    assert_eq!((report.lost, report.persisted, report.pools["storage"].forgotten), (2, 3, 5), "{report:#?}");
    let named = &report.pools["storage"].lost_ids;
    assert!(named[0].starts_with(&messages[6].id) && named[1].starts_with("of no day"), "{named:?}");
}
