//! Dead rows that are looked at, asked for and replayed; deliberate moves.

use uuid::Uuid;
use weir::store::{Asked, DeadFilter, DeadRow, Held, IdKey, KeptDead, KeyType, Move, Reason, Rejected, Release};

use super::{World, begin, dead, passed, place, rows};

fn all(pool: &str) -> DeadFilter {
    DeadFilter { pool: pool.to_owned(), limit: 100, ..DeadFilter::default() }
}

/// A row of its own offset.
fn row(id: &str, partition: i32, offset: i64) -> DeadRow {
    DeadRow { offset, ..dead(id, partition) }
}

async fn bury(world: &World, rows: &[DeadRow]) {
    let mut tx = begin(world).await;
    tx.bury("p", rows).await.unwrap();
    tx.commit().await.unwrap();
}

fn ids(rows: &[KeptDead]) -> Vec<&str> {
    rows.iter().map(|row| row.event_id.as_str()).collect()
}

/// The rows of a partition that are to be replayed now.
async fn next(world: &World, partition: i32) -> Vec<KeptDead> {
    world.store.next_replays("p", "t", partition, 100).await.unwrap()
}

pub(super) async fn dead_rows_are_found_by_what_they_are(world: World) {
    let store = &world.store;
    let keyed = DeadRow { key: Some(vec![0, 255]), headers: Some(b"[]".to_vec()), ..row("k", 0, 1) };
    let malformed = DeadRow { reason: Reason::Malformed, pipeline: "decode".to_owned(), ..row("m", 1, 2) };
    bury(&world, &[keyed.clone(), row("o", 0, 3), malformed]).await;
    let found = store.dead_rows(&DeadFilter { key: Some(vec![0, 255]), ..all("p") }).await.unwrap();
    let [kept] = &found[..] else { panic!("{found:?}") };
    assert_eq!((kept.event_id.as_str(), kept.reason.as_str(), kept.attempts), ("k", "refused", 1));
    assert_eq!(
        (kept.value.clone(), kept.headers.clone(), kept.record_ms),
        (keyed.value, keyed.headers, Some(1_760_000_000_123))
    );
    assert_eq!((kept.topic.as_str(), kept.topic_id, kept.partition, kept.offset), ("t", Uuid::from_u128(7), 0, 1));
    assert_eq!((kept.published_ms, kept.replay_ms, kept.holds_key), (None, None, false));
    let at = kept.created_ms;
    for (filter, expected) in [
        (DeadFilter { pipeline: Some("decode".to_owned()), ..all("p") }, vec!["m"]),
        (DeadFilter { reason: Some("refused".to_owned()), ..all("p") }, vec!["k", "o"]),
        (DeadFilter { ids: Some(vec!["o".to_owned(), "m".to_owned(), "x".to_owned()]), ..all("p") }, vec!["o", "m"]),
        (DeadFilter { since_ms: Some(at - 1), until_ms: Some(at + 60_000), ..all("p") }, vec!["k", "o", "m"]),
        (DeadFilter { since_ms: Some(at + 60_000), ..all("p") }, vec![]),
        (DeadFilter { until_ms: Some(at - 1), ..all("p") }, vec![]),
        (DeadFilter { limit: 1, ..all("p") }, vec!["k"]),
        (DeadFilter { newest_first: true, ..all("p") }, vec!["m", "o", "k"]),
        (DeadFilter { newest_first: true, skip: 1, limit: 1, ..all("p") }, vec!["o"]),
        (DeadFilter { skip: 2, ..all("p") }, vec!["m"]),
        (DeadFilter { skip: 3, ..all("p") }, vec![]),
        (all("q"), vec![]),
    ] {
        assert_eq!(ids(&store.dead_rows(&filter).await.unwrap()), expected, "{filter:?}");
    }
    assert_eq!(store.count_dead(&DeadFilter { limit: 1, ..all("p") }).await.unwrap(), 3, "whatever the limit");
    let bare = store.dead_rows(&DeadFilter { without_bodies: true, ..all("p") }).await.unwrap();
    assert!(bare.iter().all(|row| row.value.is_none() && row.headers.is_none()) && bare[0].key.is_some());
}

pub(super) async fn a_request_asks_once_in_order_and_not_for_what_holds_its_key(world: World) {
    let store = &world.store;
    let holding = DeadRow { holds_key: true, key: Some(b"k".to_vec()), ..row("h", 0, 1) };
    bury(&world, &[row("b", 0, 5), row("a", 0, 4), row("c", 1, 1), holding]).await;
    let (first, second) = (Uuid::new_v4(), Uuid::new_v4());
    let asked = store.request_replay(&DeadFilter { limit: 2, ..all("p") }, first, None).await.unwrap();
    assert_eq!(asked, Asked { asked: 2, before: 0, holding: 1 });
    assert_eq!(ids(&next(&world, 0).await), ["a", "b"]);
    let mine = [("t".to_owned(), 0), ("t".to_owned(), 1), ("u".to_owned(), 0)];
    assert_eq!(store.due_replays("p", &mine).await.unwrap(), [("t".to_owned(), 0)]);
    assert!(store.due_replays("q", &mine).await.unwrap().is_empty());
    let asked = store.request_replay(&all("p"), second, Some(0.01)).await.unwrap();
    assert_eq!(asked, Asked { asked: 1, before: 2, holding: 1 });
    assert_eq!(ids(&next(&world, 1).await), ["c"], "the first of a slow request comes at once");
    let standing = store.request_standing(first).await.unwrap();
    assert_eq!((standing.waiting, standing.rejected), (vec![("t".to_owned(), 0, 2)], 0));
}

pub(super) async fn a_rate_spreads_a_request_over_time(world: World) {
    bury(&world, &[row("a", 0, 1), row("b", 0, 2), row("c", 0, 3)]).await;
    world.store.request_replay(&all("p"), Uuid::new_v4(), Some(0.001)).await.unwrap();
    assert_eq!(ids(&next(&world, 0).await), ["a"]);
    let mut at: Vec<i64> =
        world.store.dead_rows(&all("p")).await.unwrap().iter().filter_map(|row| row.replay_ms).collect();
    at.sort_unstable();
    assert_eq!((at[1] - at[0], at[2] - at[1]), (1_000_000, 1_000_000));
}

pub(super) async fn a_replayed_row_goes_once_and_only_with_its_transaction(world: World) {
    let store = &world.store;
    bury(&world, &[row("a", 0, 1), row("b", 0, 2)]).await;
    let unasked = store.dead_rows(&all("p")).await.unwrap();
    let mut tx = begin(&world).await;
    assert!(!tx.exhume("p", &unasked[0]).await.unwrap(), "nobody asked for it");
    tx.commit().await.unwrap();

    let request = Uuid::new_v4();
    store.request_replay(&all("p"), request, None).await.unwrap();
    let rows = next(&world, 0).await;
    let mut tx = begin(&world).await;
    assert!(tx.exhume("p", &rows[0]).await.unwrap());
    tx.rollback().await.unwrap();
    assert_eq!(next(&world, 0).await.len(), 2);
    let mut tx = begin(&world).await;
    assert!(tx.exhume("p", &rows[0]).await.unwrap());
    assert!(!tx.exhume("p", &rows[0]).await.unwrap());
    tx.note_replayed("p", &[("", "a"), ("t", "a'")]).await.unwrap();
    tx.note_replayed("p", &[("", "a")]).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(world.number("SELECT count(*) FROM weir_replayed WHERE pool = 'p'").await, 2);

    let again = |id: &str| Rejected {
        kind: "new".to_owned(),
        event_id: id.to_owned(),
        pipeline: "stats".to_owned(),
        reason: Reason::Handler,
        message: "still \0 wrong".to_owned(),
    };
    let mut tx = begin(&world).await;
    assert!(!tx.rebury("p", &rows[0], &again("a")).await.unwrap(), "it is gone");
    assert!(tx.rebury("p", &rows[1], &again("named")).await.unwrap());
    tx.commit().await.unwrap();
    assert!(next(&world, 0).await.is_empty(), "it is asked for no more");
    let kept = store.dead_rows(&all("p")).await.unwrap();
    let [kept] = &kept[..] else { panic!("{kept:?}") };
    assert_eq!((kept.kind.as_str(), kept.event_id.as_str(), kept.attempts), ("new", "named", 2));
    assert_eq!(
        (kept.pipeline.as_str(), kept.reason.as_str(), kept.message.as_str()),
        ("stats", "handler", "still \u{fffd} wrong")
    );
    let standing = store.request_standing(request).await.unwrap();
    assert_eq!((standing.waiting.len(), standing.rejected), (0, 1));

    // Found to be an event that has its row already, it leaves that one.
    bury(&world, &[row("c", 0, 3)]).await;
    store.request_replay(&DeadFilter { ids: Some(vec!["c".to_owned()]), ..all("p") }, request, None).await.unwrap();
    let rows = next(&world, 0).await;
    let mut tx = begin(&world).await;
    assert!(tx.rebury("p", &rows[0], &again("named")).await.unwrap());
    tx.commit().await.unwrap();
    assert_eq!(ids(&store.dead_rows(&all("p")).await.unwrap()), ["named"]);
}

pub(super) async fn a_move_fences_the_owner_and_is_all_or_nothing(world: World) {
    let store = &world.store;
    let (held, other) = (world.claimed(&place(0)).await, world.claimed(&place(1)).await);
    let mut tx = begin(&world).await;
    assert!(passed(tx.fence(&held, 9, "p").await.unwrap()));
    tx.commit().await.unwrap();
    let to = |partition, to| Move { place: place(partition), to };
    assert_eq!(store.seek(&[to(0, 3), to(7, 3)], "me").await.unwrap(), None, "a row is not there");
    assert_eq!(store.ledger(&place(0)).await.unwrap().unwrap().next_offset, 9);
    assert_eq!(world.number("SELECT count(*) FROM weir_seeks").await, 0);

    assert_eq!(store.seek(&[to(0, 3), to(1, 0)], "me").await.unwrap(), Some(vec![9, 0]));
    let row = store.ledger(&place(0)).await.unwrap().unwrap();
    assert_eq!((row.next_offset, row.epoch), (3, 2));
    assert!(row.owner.is_some_and(|owner| owner != held.token));
    let mut tx = begin(&world).await;
    for held in [Held { next_offset: 9, ..held.clone() }, Held { next_offset: 3, ..held }, other] {
        assert!(!passed(tx.fence(&held, 10, "p").await.unwrap()), "the owner of before still writes");
    }
    tx.rollback().await.unwrap();
    let found = world
        .number("SELECT count(*) FROM weir_seeks WHERE group_name = 'g' AND from_offset = 9 AND to_offset = 3 AND moved_by = 'me'")
        .await;
    assert_eq!(found, 1);
}

/// A row that holds its key back.
fn holding(id: &str, key: &str, offset: i64, reason: Reason) -> DeadRow {
    DeadRow { key: Some(key.as_bytes().to_vec()), holds_key: true, reason, ..row(id, 0, offset) }
}

fn release(names: &[&str]) -> Release {
    Release { pool: "p".to_owned(), keys_or_ids: Some(names.iter().map(|&name| name.to_owned()).collect()) }
}

pub(super) async fn a_released_key_goes_in_order_and_what_arrives_meanwhile_goes_with_it(world: World) {
    let store = &world.store;
    let head = holding("a1", "a", 1, Reason::Refused);
    bury(&world, &[head, holding("a3", "a", 3, Reason::Parked), holding("a2", "a", 2, Reason::Parked)]).await;
    bury(
        &world,
        &[
            holding("b1", "b", 4, Reason::Refused),
            DeadRow { holds_key: false, ..holding("c1", "c", 5, Reason::Refused) },
        ],
    )
    .await;
    let mut keys = store.parked_keys("p", "t", 0).await.unwrap();
    keys.sort();
    assert_eq!(keys, [(b"a".to_vec(), 3), (b"b".to_vec(), 1)]);
    assert!(store.parked_keys("p", "t", 1).await.unwrap().is_empty());

    let request = Uuid::new_v4();
    assert_eq!(store.request_release(&release(&["nobody", "c"]), request, None).await.unwrap(), Asked::default());
    let asked = store.request_release(&release(&["a2"]), request, None).await.unwrap();
    assert_eq!(asked, Asked { asked: 3, before: 0, holding: 0 }, "an event stands for its key");
    assert_eq!(ids(&next(&world, 0).await), ["a1", "a2", "a3"]);
    bury(&world, &[holding("a4", "a", 6, Reason::Parked), holding("b2", "b", 7, Reason::Parked)]).await;
    let rows = next(&world, 0).await;
    assert_eq!(ids(&rows), ["a1", "a2", "a3", "a4"], "it goes with its key, the other waits");

    let mut tx = begin(&world).await;
    assert!(!tx.exhume("p", &rows[1]).await.unwrap(), "an earlier one is still there");
    assert!(tx.exhume("p", &rows[0]).await.unwrap());
    assert!(tx.exhume("p", &rows[1]).await.unwrap());
    let again = Rejected {
        kind: String::new(),
        event_id: "a3".to_owned(),
        pipeline: "persist".to_owned(),
        reason: Reason::Refused,
        message: "again".to_owned(),
    };
    assert!(tx.rebury("p", &rows[2], &again).await.unwrap());
    tx.stop_key("p", &rows[2]).await.unwrap();
    tx.commit().await.unwrap();
    assert!(next(&world, 0).await.is_empty(), "the key stops at the one that was rejected again");
    let standing = store.request_standing(request).await.unwrap();
    assert_eq!((standing.waiting.len(), standing.rejected, standing.stopped), (0, 1, 0), "a4 came by itself");
    bury(&world, &[holding("a5", "a", 8, Reason::Parked)]).await;
    assert!(next(&world, 0).await.is_empty());
    let asked = store.request_release(&Release { keys_or_ids: None, ..release(&[]) }, request, None).await.unwrap();
    assert_eq!(asked.asked, 5);
    assert_eq!(ids(&next(&world, 0).await), ["a3", "b1", "a4", "b2", "a5"]);
}

pub(super) async fn an_event_that_waits_takes_the_place_of_a_rejected_copy(world: World) {
    bury(&world, &[DeadRow { value: Some(b"bad".to_vec()), ..holding("x", "other", 1, Reason::Refused) }]).await;
    bury(&world, &[DeadRow { value: Some(b"good".to_vec()), ..holding("x", "k", 2, Reason::Parked) }]).await;
    bury(&world, &[DeadRow { value: Some(b"worse".to_vec()), ..holding("x", "k", 3, Reason::Refused) }]).await;
    bury(&world, &[DeadRow { value: Some(b"later".to_vec()), ..holding("x", "k", 4, Reason::Parked) }]).await;
    let kept = world.store.dead_rows(&all("p")).await.unwrap();
    let [kept] = &kept[..] else { panic!("{kept:?}") };
    assert_eq!((kept.value.as_deref(), kept.offset, kept.reason.as_str()), (Some(&b"good"[..]), 2, "parked"));
    assert_eq!(world.store.parked_keys("p", "t", 0).await.unwrap(), [(b"k".to_vec(), 1)]);
}

pub(super) async fn one_event_is_found_with_its_row(world: World) {
    let table = world.messages().await;
    let mut tx = begin(&world).await;
    tx.insert(&table, &["m"], &rows(&["m"])).await.unwrap();
    tx.claim_seen("p", &[("new", "m"), ("edit", "m"), ("new", "n")]).await.unwrap();
    tx.commit().await.unwrap();
    let row = world.store.row_of(&table.key, "m").await.unwrap().unwrap();
    let row: serde_json::Value = serde_json::from_str(&row).unwrap();
    assert_eq!((&row["conversation"], &row["timestamp"]), (&"a:b".into(), &1_760_000_000_000_i64.into()), "{row}");
    assert_eq!(world.store.row_of(&table.key, "n").await.unwrap(), None);
    let number = IdKey { kind: KeyType::Int, ..table.key };
    assert_eq!(world.store.row_of(&number, "no number").await.unwrap(), None);
    let seen = world.store.seen_of("p", "m").await.unwrap();
    assert_eq!(seen.iter().map(|(kind, _)| kind.as_str()).collect::<Vec<_>>(), ["edit", "new"]);
    assert!(
        seen.iter().all(|(_, at)| *at > 1_700_000_000_000) && world.store.seen_of("q", "m").await.unwrap().is_empty()
    );
}
