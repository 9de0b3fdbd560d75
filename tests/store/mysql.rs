//! Where MariaDB and MySQL are known to take one thing for another.

use sqlx::Row as _;

use super::*;

fn key(table: &str) -> IdKey {
    IdKey { table: table.to_owned(), column: "id".to_owned(), kind: KeyType::Text }
}

pub(super) async fn ids_are_one_only_if_their_bytes_are(world: World) {
    let table = world.messages().await;
    let ids = ["a", "A", "a ", "ä", "Ä"];
    let mut tx = begin(&world).await;
    for id in ids {
        assert_eq!(tx.insert(&table, &[id], &rows(&[id])).await.unwrap(), [true], "{id:?}");
        assert_eq!(tx.claim_seen("p", &[("t", id)]).await.unwrap(), [true], "{id:?}");
    }
    assert_eq!(tx.insert(&table, &["a "], &rows(&["a "])).await.unwrap(), [false]);
    assert_eq!(tx.existing(&table.key, &["a ", "a  "]).await.unwrap(), HashSet::from(["a ".to_owned()]));
    tx.commit().await.unwrap();
    assert_eq!(world.number("SELECT count(*) FROM messages").await, 5);
}

pub(super) async fn of_two_at_once_one_is_new(world: World) {
    let table = world.messages().await;
    let mut first = begin(&world).await;
    assert_eq!(first.insert(&table, &["a", "c"], &rows(&["a", "c"])).await.unwrap(), [true, true]);
    assert_eq!(first.claim_seen("p", &[("t", "a")]).await.unwrap(), [true]);
    let (store, other) = (Arc::clone(&world.store), table.clone());
    let second = tokio::spawn(async move {
        let mut tx = store.begin().await.unwrap();
        // Looked at before the other has committed: what is seen later must not be what was there now.
        tx.existing(&other.key, &["a"]).await.unwrap();
        let messages = tx.insert(&other, &["a", "b", "c"], &rows(&["a", "b", "c"])).await.unwrap();
        let seen = tx.claim_seen("p", &[("t", "a"), ("t", "b")]).await.unwrap();
        tx.commit().await.unwrap();
        (messages, seen)
    });
    if world.kind != "sqlite" {
        // Only SQLite's second transaction waits for the first to end before it begins.
        tokio::time::timeout(Duration::from_millis(300), async {
            while !second.is_finished() {
                tokio::task::yield_now().await;
            }
        })
        .await
        .expect_err("the second must wait for the first");
    }
    first.commit().await.unwrap();
    assert_eq!(second.await.unwrap(), (vec![false, true, false], vec![false, true]));
}

pub(super) async fn an_update_that_meets_another_unique_key_is_a_reject(world: World) {
    // The other key stands before the id's, where a database looks first.
    world
        .sql("CREATE TABLE people (email VARCHAR(20) NOT NULL UNIQUE, id VARCHAR(20) NOT NULL UNIQUE, version BIGINT)")
        .await;
    let mut table = world.table(key("people"), &["id", "email", "version"]).await;
    table.on_duplicate = OnDuplicate::Update { newer_by: "version".to_owned() };
    let row = |id, email, version| vec![texts(&[id]), texts(&[email]), ColumnData::Int(vec![Some(version)])];
    let mut tx = begin(&world).await;
    assert_eq!(tx.insert(&table, &["a"], &row("a", "one", 1)).await.unwrap(), [true]);
    assert_eq!(tx.insert(&table, &["b"], &row("b", "two", 1)).await.unwrap(), [true]);
    tx.commit().await.unwrap();
    let mut tx = begin(&world).await;
    let error = tx.insert(&table, &["b"], &row("b", "one", 2)).await.unwrap_err();
    assert_eq!(error.fault, Fault::Reject, "{error}");
    assert!(!error.message.contains("one"), "a payload's value is quoted: {error}");
    drop(tx);
    assert_eq!(world.number("SELECT count(*) FROM people WHERE version = 1").await, 2);
}

#[tokio::test]
async fn on_mysql_rows_are_divided_by_what_the_server_takes_at_once() {
    let world = World::mysql().await;
    let table = world.messages().await;
    let packet = usize::try_from(world.number("SELECT CAST(@@max_allowed_packet AS SIGNED)").await).unwrap();
    let ids: Vec<String> = (0..12).map(|n| format!("m{n:02}")).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let with_content = |ids: &[&str], bytes: usize| {
        let content = "ä".repeat(bytes / 2);
        let mut columns = rows(ids).into_iter().map(owned).collect::<Vec<_>>();
        columns[4] = ColumnData::Text(ids.iter().map(|_| Some(content.clone().into())).collect());
        columns
    };
    let mut tx = begin(&world).await;
    assert_eq!(tx.insert(&table, &ids, &with_content(&ids, packet / 8)).await.unwrap(), vec![true; 12]);
    let error = tx.insert(&table, &["large"], &with_content(&["large"], packet)).await.unwrap_err();
    assert_eq!(error.fault, Fault::Reject);
    assert!(error.message.contains("max_allowed_packet"), "{error}");
    // The connection is whole: the server never saw the row.
    let letter = DeadRow { value: Some(vec![b'x'; packet]), ..dead("large", 0) };
    tx.bury("p", &[letter]).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(world.number("SELECT count(*) FROM messages").await, 12);
    let filter = weir::store::DeadFilter { pool: "p".to_owned(), limit: 9, ..Default::default() };
    let kept = world.store.dead_rows(&filter).await.unwrap();
    assert!(kept[0].value.is_none() && kept[0].message.contains("left in Kafka"), "{}", kept[0].message);
}

/// The same values, borrowed from nobody.
fn owned(column: ColumnData<'_>) -> ColumnData<'static> {
    match column {
        ColumnData::Text(values) => {
            ColumnData::Text(values.into_iter().map(|text| text.map(|text| text.into_owned().into())).collect())
        }
        ColumnData::Int(values) => ColumnData::Int(values),
        other => panic!("{other:?}"),
    }
}

/// By it `weir verify` tells the order of effects, and a batch is several statements, in the order of ids.
#[tokio::test]
async fn on_mysql_all_rows_of_a_transaction_are_received_at_one_time() {
    let world = World::mysql().await;
    let table = world.messages().await;
    let ids: Vec<String> = (0..266).map(|n| format!("m{n:03}")).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let mut tx = begin(&world).await;
    tx.insert(&table, &ids[..133], &rows(&ids[..133])).await.unwrap();
    // The clock goes on between two statements.
    sqlx::raw_sql("SELECT SLEEP(0.01)").execute(tx.mysql().unwrap()).await.unwrap();
    tx.insert(&table, &ids[133..], &rows(&ids[133..])).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(world.number("SELECT count(*) FROM messages").await, 266);
    assert_eq!(world.number("SELECT count(DISTINCT received_at) FROM messages").await, 1);
    let ago_ms = "SELECT CAST(TIMESTAMPDIFF(MICROSECOND, min(received_at), NOW(3)) / 1000 AS SIGNED) FROM messages";
    assert!((0..60_000).contains(&world.number(ago_ms).await));
}

#[tokio::test]
async fn on_mysql_those_who_update_the_same_rows_wait_and_meet_in_no_deadlock() {
    let world = World::mysql().await;
    world.sql("CREATE TABLE people (id VARCHAR(20) NOT NULL UNIQUE, version BIGINT)").await;
    let mut table = world.table(key("people"), &["id", "version"]).await;
    table.on_duplicate = OnDuplicate::Update { newer_by: "version".to_owned() };
    let ids: Vec<String> = (0..200).map(|n| format!("p{n:03}")).collect();
    let update = async |version: i64| {
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        let columns = [texts(&ids), ColumnData::Int(vec![Some(version); ids.len()])];
        let mut tx = world.store.begin().await?;
        tx.insert(&table, &ids, &columns).await?;
        tx.commit().await
    };
    update(0).await.unwrap();
    for round in 0..40 {
        let (first, second) = tokio::join!(update(2 * round + 1), update(2 * round + 2));
        assert!(first.is_ok() && second.is_ok(), "{first:?}, {second:?}");
    }
    assert_eq!(world.number("SELECT count(*) FROM people WHERE version = 80").await, 200);
}

/// The server has no answer to the end of a statement, and what is sent next waits 40 ms for its acknowledgement.
#[tokio::test]
async fn on_mysql_batches_of_any_size_close_no_statement() {
    let world = World::mysql().await;
    let table = world.messages().await;
    let all: Vec<String> = (0..8_000).map(|n| format!("m{n:04}")).collect();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    let (mut begin_at, mut prepared) = (0, Vec::new());
    for size in (3..=60).chain([266, 499, 500, 501, 730]).chain(3..=60) {
        let ids = &all[begin_at..begin_at + size];
        begin_at += size;
        let seen: Vec<(&str, &str)> = ids.iter().map(|id| ("t", *id)).collect();
        let count =
            |member: &&str| Count { minute: 1, dimension: "type", member: (*member).to_owned(), shard: 0, by: Some(1) };
        let counts: Vec<Count> = ids.iter().map(count).collect();
        let mut tx = begin(&world).await;
        tx.insert(&table, ids, &rows(ids)).await.unwrap();
        tx.existing(&table.key, ids).await.unwrap();
        tx.claim_seen("p", &seen).await.unwrap();
        tx.count(&counts).await.unwrap();
        tx.unbury("p", &seen).await.unwrap();
        let connection = tx.mysql().unwrap();
        let told = sqlx::raw_sql(
            "SELECT connection_id(), variable_value FROM information_schema.session_status
              WHERE variable_name IN ('COM_STMT_CLOSE', 'COM_STMT_PREPARE') ORDER BY variable_name",
        );
        let told: Vec<sqlx::mysql::MySqlRow> = told.fetch_all(connection).await.unwrap();
        let number = |at: usize| told[at].get::<String, _>(1).parse::<u64>().unwrap();
        assert_eq!(number(0), 0, "a statement was closed after a batch of {size}");
        prepared.push(number(1));
        tx.commit().await.unwrap();
    }
    assert!(prepared.iter().all(|count| *count <= 60), "more statements than a worker is said to keep: {prepared:?}");
}

#[tokio::test]
async fn on_mysql_a_key_that_folds_case_or_lacks_characters_is_none() {
    let world = World::mysql().await;
    world
        .sql(
            "CREATE TABLE folding (id VARCHAR(20) CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci NOT NULL PRIMARY KEY,
                                   exact VARCHAR(20) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin NOT NULL UNIQUE,
                                   latin VARCHAR(20) CHARACTER SET latin1, small TEXT CHARACTER SET utf8mb4,
                                   part VARCHAR(20) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin, UNIQUE (part(5)))",
        )
        .await;
    let columns = world.store.describe("folding").await.unwrap();
    let column = |name: &str| columns.iter().find(|column| column.name == name).unwrap();
    assert!(!column("id").unique && column("exact").unique && !column("part").unique);
    assert!(
        matches!(&column("latin").kind, ColumnType::Other(kind) if kind.contains("latin1") && kind.contains("utf8mb4"))
    );
    assert_eq!(column("small").kind, ColumnType::Text { chars_max: None, bytes_max: Some(65_535) });
}

/// A good and a bad copy of one id, handled at the same moment: neither transaction sees the other.
#[tokio::test]
async fn on_mysql_a_dead_row_is_not_published_while_its_id_is_being_written() {
    let world = World::mysql().await;
    let table = world.messages().await;
    let (mut good, mut bad) = (begin(&world).await, begin(&world).await);
    let held = [world.claimed(&place(0)).await, world.claimed(&place(1)).await];
    assert!(passed(good.fence(&held[0], 1, "p").await.unwrap()) && passed(bad.fence(&held[1], 1, "p").await.unwrap()));
    assert_eq!(good.insert(&table, &["m"], &rows(&["m"])).await.unwrap(), [true]);
    good.unbury("p", &[("", "m")]).await.unwrap();
    assert!(bad.existing(&table.key, &["m"]).await.unwrap().is_empty());
    bad.bury("p", &[dead("m", 1)]).await.unwrap();
    bad.commit().await.unwrap();
    let mine = [(Uuid::from_u128(7), 1)];
    let waits = world.store.unpublished("p", Some(&table.key), &mine, 10).await.unwrap_err();
    assert_eq!(waits.fault, Fault::Busy, "whoever writes the id has to end first: {waits}");
    good.commit().await.unwrap();
    assert!(world.store.unpublished("p", Some(&table.key), &mine, 10).await.unwrap().is_empty(), "it is live");
    assert_eq!(world.number("SELECT count(*) FROM weir_dead").await, 0);
}

#[tokio::test]
async fn on_mysql_a_step_that_was_not_finished_is_begun_anew() {
    let world = World::mysql().await;
    let steps = world.number("SELECT count(*) FROM _sqlx_migrations").await;
    world.sql("DROP TABLE weir_replayed").await;
    world.sql("UPDATE _sqlx_migrations SET success = FALSE WHERE version = 5").await;
    world.store.migrate().await.unwrap();
    world.store.check().await.unwrap();
    assert_eq!(world.number("SELECT count(*) FROM _sqlx_migrations WHERE success").await, steps);
}

#[tokio::test]
async fn on_mysql_a_worker_that_stands_still_keeps_its_partition_no_longer_than_between_statements() {
    let world = World::mysql().await;
    let brief = config::Store { idle_in_transaction_timeout: Duration::from_secs(1), ..config::Store::default() };
    let held = world.claimed(&place(0)).await;
    let mut frozen = open(&world.url, brief).begin().await.unwrap();
    assert!(passed(frozen.fence(&held, 5, "p").await.unwrap()));
    let row = world.store.ledger(&place(0)).await.unwrap().unwrap();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    let taken_over = loop {
        match world.store.claim(&place(0), row, CLAIMANT, Uuid::new_v4()).await {
            Ok(claim) => break taken(claim),
            Err(error) => assert!(error.fault == Fault::Busy && tokio::time::Instant::now() < deadline, "{error}"),
        }
    };
    assert_eq!(taken_over.next_offset, 0);
    assert_eq!(frozen.commit().await.unwrap_err().fault, Fault::Outage);
}
