//! Verdicts of moderation, and tables that conditions ask.

use uuid::Uuid;
use weir::store::StoredVerdict;

use super::{World, begin, rows};

fn verdict(id: &str, verdict: &str) -> StoredVerdict {
    StoredVerdict {
        event_id: id.to_owned(),
        verdict: verdict.to_owned(),
        reason: "words banned.txt:1".to_owned(),
        conversation: Some("a:b".to_owned()),
        topic_id: Uuid::from_u128(7),
        partition: 3,
        key: Some(vec![0, 0xff]),
    }
}

pub(crate) async fn a_verdict_hides_a_message_in_its_own_transaction_and_whenever_it_comes(world: World) {
    const READABLE: &str = "SELECT count(*) FROM readable_messages";
    let table = world.messages().await;
    let ids = ["a", "b", "c"];
    let mut tx = begin(&world).await;
    tx.insert(&table, &ids, &rows(&ids)).await.unwrap();
    let verdicts = [verdict("a", "flag"), verdict("b", "hide")];
    tx.keep_verdicts("p", "m", &verdicts).await.unwrap();
    tx.set_status(&table.key, &verdicts).await.unwrap();
    tx.rollback().await.unwrap();
    assert_eq!(world.number("SELECT count(*) FROM weir_verdicts").await, 0);

    let mut tx = begin(&world).await;
    tx.insert(&table, &ids, &rows(&ids)).await.unwrap();
    tx.keep_verdicts("p", "m", &verdicts).await.unwrap();
    tx.set_status(&table.key, &verdicts).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(world.number(READABLE).await, 2);
    assert_eq!(world.number("SELECT count(*) FROM messages WHERE message_id = 'a' AND status = 'flag'").await, 1);
    assert_eq!(world.number("SELECT count(*) FROM messages WHERE message_id = 'b' AND status = 'hide'").await, 1);
    assert_eq!(world.number("SELECT count(*) FROM messages WHERE message_id = 'c' AND status = 'allow'").await, 1);

    // Of a pool of its own: one for a message that is there, and one for a message that is yet to come.
    let mut tx = begin(&world).await;
    tx.keep_verdicts("q", "m", &[verdict("c", "hide"), verdict("d", "hide")]).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(world.number(READABLE).await, 1);
    let mut tx = begin(&world).await;
    tx.insert(&table, &["d"], &rows(&["d"])).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(world.number(READABLE).await, 1);
}

pub(crate) async fn verdicts_wait_for_their_event_and_a_changed_one_waits_again(world: World) {
    let here = [(Uuid::from_u128(7), 3)];
    let keep = async |verdicts: &[StoredVerdict]| {
        let mut tx = begin(&world).await;
        tx.keep_verdicts("p", "m", verdicts).await.unwrap();
        tx.commit().await.unwrap();
    };
    keep(&[verdict("a", "flag"), verdict("b", "hide")]).await;
    let waiting = world.store.unpublished_verdicts("p", &here, 10).await.unwrap();
    assert_eq!(waiting.len(), 2);
    assert!(waiting.iter().all(|row| row.pipeline == "m" && row.decided_ms > 1_600_000_000_000));
    assert!(waiting.iter().any(|row| row.stored == verdict("b", "hide")), "{waiting:?}");
    assert_eq!(world.store.unpublished_verdicts("p", &here, 1).await.unwrap().len(), 1);
    assert_eq!(world.store.unpublished_verdicts("p", &[(Uuid::from_u128(7), 4)], 10).await.unwrap(), []);
    assert_eq!(world.store.unpublished_verdicts("q", &here, 10).await.unwrap(), []);

    // One changes after it was read: what was sent of it is not the last word.
    keep(&[verdict("a", "hide")]).await;
    world.store.published_verdicts("p", &waiting).await.unwrap();
    let waiting = world.store.unpublished_verdicts("p", &here, 10).await.unwrap();
    assert_eq!(waiting.iter().map(|row| &row.stored).collect::<Vec<_>>(), [&verdict("a", "hide")]);
    world.store.published_verdicts("p", &waiting).await.unwrap();
    assert_eq!(world.store.unpublished_verdicts("p", &here, 10).await.unwrap(), []);
    keep(&[verdict("b", "flag")]).await;
    let of = async |pool, id| {
        let found = world.store.verdicts_of(pool, id).await.unwrap();
        found.into_iter().map(|found| (found.pipeline, found.verdict, found.is_published)).collect::<Vec<_>>()
    };
    assert_eq!(of("p", "a").await, [("m".to_owned(), "hide".to_owned(), true)]);
    assert_eq!(of("p", "b").await, [("m".to_owned(), "flag".to_owned(), false)]);
    assert_eq!((of("q", "a").await, of("p", "c").await), (Vec::new(), Vec::new()));
}

pub(crate) async fn a_tables_rows_are_read_as_objects(world: World) {
    world.sql("CREATE TABLE people (id BIGINT PRIMARY KEY, name TEXT, \"odd name\" TEXT)").await;
    world.sql("INSERT INTO people VALUES (7, 'Ann \"A\"', 'x'), (8, NULL, 'y')").await;
    let rows = world.store.rows_as_json("people", &["id", "name", "odd name"], 10).await.unwrap();
    let rows: Vec<serde_json::Value> = rows.iter().map(|row| serde_json::from_str(row).unwrap()).collect();
    let ann = rows.iter().find(|row| row["id"] == 7).unwrap();
    assert!(ann["name"] == "Ann \"A\"" && ann["odd name"] == "x", "{rows:?}");
    let other = rows.iter().find(|row| row["id"] == 8).unwrap();
    assert!(other["name"].is_null() && other["odd name"] == "y", "{rows:?}");
    assert_eq!(world.store.rows_as_json("people", &["id"], 1).await.unwrap().len(), 1);
}
