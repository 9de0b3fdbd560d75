//! Ids that are taken to be new.

use std::time::{Duration, Instant};

use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions as _, Executor as _};
use uuid::Uuid;
use weir::config;
use weir::store::{ColumnData, Fault, IdKey, KeyType, Table, Tx};

use super::{CLAIMANT, World, begin, passed, place, rows, taken};

const ROWS: usize = 300;

fn names(from: usize, to: usize) -> Vec<String> {
    (from..to).map(|n| format!("m-{n:04}")).collect()
}

fn borrowed(names: &[String]) -> Vec<&str> {
    names.iter().map(String::as_str).collect()
}

/// A table with a column of each kind, one of them for the id.
async fn of_every_kind(world: &World, table: &str) -> Table {
    let (price, at) =
        if world.kind == "mysql" { ("NUMERIC(20, 3)", "DATETIME(3)") } else { ("NUMERIC", "TIMESTAMPTZ") };
    world
        .sql(&format!(
            "CREATE TABLE {table} (id VARCHAR(20) NOT NULL PRIMARY KEY, flag BOOLEAN, small SMALLINT, big BIGINT,
                 \"real\" DOUBLE PRECISION, price {price}, note TEXT, uid UUID, \"at\" {at}, doc JSON)"
        ))
        .await;
    let key = IdKey { table: table.to_owned(), column: "id".to_owned(), kind: KeyType::Text };
    world.table(key, &["id", "flag", "small", "big", "real", "price", "note", "uid", "at", "doc"]).await
}

/// What is hard to tell apart from fields' and rows' ends, and what lies at the edges of a type.
fn of_every_column<'a>(ids: &[&'a str]) -> Vec<ColumnData<'a>> {
    const TEXTS: [&str; 8] = ["", "\\N", "\\.", "a\tb\nc\r\\d", "NULL", "ä \u{1F600}", "\"'", " x "];
    const TIMES: [i64; 5] = [0, -1, -62_135_596_800_000, 253_402_300_799_999, 1_709_209_923_004];
    let every = |n: usize| n % 7 != 3;
    let texts = |of: &dyn Fn(usize) -> String| {
        ColumnData::Text((0..ids.len()).map(|n| every(n).then(|| of(n).into())).collect())
    };
    let number = |n: usize| i64::try_from(n).unwrap();
    vec![
        ColumnData::Text(ids.iter().map(|id| Some((*id).into())).collect()),
        ColumnData::Bool((0..ids.len()).map(|n| every(n).then_some(n % 2 == 0)).collect()),
        ColumnData::Int((0..ids.len()).map(|n| every(n).then_some(number(n) - 100)).collect()),
        ColumnData::Int((0..ids.len()).map(|n| every(n).then_some(i64::MIN + number(n))).collect()),
        ColumnData::Float((0..ids.len()).map(|n| every(n).then_some(1.5e-300 * number(n) as f64)).collect()),
        texts(&|n| format!("{n}.250")),
        texts(&|n| TEXTS[n % TEXTS.len()].to_owned()),
        ColumnData::Uuid((0..ids.len()).map(|n| every(n).then_some(Uuid::from_u128(n as u128))).collect()),
        ColumnData::TimestampMs((0..ids.len()).map(|n| every(n).then_some(TIMES[n % TIMES.len()])).collect()),
        texts(&|n| format!(r#"{{"a":"\t\\{n}"}}"#)),
    ]
}

pub(super) async fn rows_taken_to_be_new_are_written_like_any_others(world: World) {
    let (assumed, plain) = (of_every_kind(&world, "assumed").await, of_every_kind(&world, "plain").await);
    let names = names(0, ROWS);
    let ids = borrowed(&names);
    let mut tx = begin(&world).await;
    assert_eq!(tx.insert(&plain, &ids, &of_every_column(&ids)).await.unwrap(), [true; ROWS]);
    tx.assume_new(ROWS);
    assert_eq!(tx.insert(&assumed, &ids, &of_every_column(&ids)).await.unwrap(), [true; ROWS]);
    tx.commit().await.unwrap();
    let text = if world.kind == "mysql" { "CHAR" } else { "TEXT" };
    let all = format!("id, flag, small, big, \"real\", price, note, uid, \"at\", CAST(doc AS {text})");
    for (one, other) in [("assumed", "plain"), ("plain", "assumed")] {
        let differing = format!("SELECT count(*) FROM (SELECT {all} FROM {one} EXCEPT SELECT {all} FROM {other}) AS d");
        assert_eq!(world.number(&differing).await, 0);
    }
    assert_eq!(world.number("SELECT count(*) FROM assumed").await, 300);
}

pub(super) async fn one_id_that_is_there_after_all_is_never_there_twice(world: World) {
    let (table, held) = (world.messages().await, world.claimed(&place(0)).await);
    let names = names(0, 2 * ROWS);
    let ids = borrowed(&names);
    let mut tx = begin(&world).await;
    tx.insert(&table, &ids[..ROWS], &rows(&ids[..ROWS])).await.unwrap();
    tx.claim_seen("p", &[("new", ids[0])]).await.unwrap();
    tx.commit().await.unwrap();

    let (repeated, seen) = (&ids[ROWS - 1..], ids.iter().map(|id| ("new", *id)).collect::<Vec<_>>());
    for of_messages in [true, false] {
        let mut tx = begin(&world).await;
        assert!(passed(tx.fence(&held, 5, "p").await.unwrap()));
        let assumed = tx.assume_new(repeated.len());
        let written = match of_messages {
            true => tx.insert(&table, repeated, &rows(repeated)).await,
            false => tx.claim_seen("p", &seen).await,
        };
        match written {
            Err(error) => {
                assert!(assumed && error.fault == Fault::Reject, "{error}");
                // The connection is whole, and goes back to the others.
                tx.rollback().await.unwrap();
            }
            Ok(fresh) => {
                assert!(!assumed && !fresh[0] && fresh[1..].iter().all(|fresh| *fresh));
                drop(tx);
            }
        }
    }
    assert_eq!(world.number("SELECT count(*) FROM messages").await, 300);
    assert_eq!(world.number("SELECT count(*) FROM weir_seen").await, 1);
    let mut tx = begin(&world).await;
    assert!(passed(tx.fence(&held, 5, "p").await.unwrap()), "what was refused moved the ledger");
    tx.assume_new(ROWS);
    assert_eq!(tx.insert(&table, &ids[ROWS..], &rows(&ids[ROWS..])).await.unwrap(), [true; ROWS]);
    assert_eq!(tx.claim_seen("p", &seen[1..]).await.unwrap(), vec![true; 2 * ROWS - 1]);
    tx.commit().await.unwrap();
    assert_eq!(world.number("SELECT count(*) FROM messages").await, 600);
}

/// What makes COPY impossible, or keeps rows back, is an error under the assumption and none without it.
#[tokio::test]
async fn on_postgres_tables_that_take_no_copy_are_written_the_other_way() {
    let world = World::postgres().await;
    let table = world.messages().await;
    let names = names(0, ROWS);
    let ids = borrowed(&names);
    let keeping_back = "CREATE FUNCTION even_only() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN IF right(NEW.message_id, 1) IN ('0', '2', '4', '6', '8') THEN RETURN NEW; END IF; RETURN NULL; END $$;
         CREATE TRIGGER even_only BEFORE INSERT ON messages FOR EACH ROW EXECUTE FUNCTION even_only()";
    world.sql(keeping_back).await;
    let mut tx = begin(&world).await;
    assert!(tx.assume_new(ROWS));
    let error = tx.insert(&table, &ids, &rows(&ids)).await.unwrap_err();
    assert_eq!(error.fault, Fault::Reject, "{error}");
    tx.rollback().await.unwrap();
    let mut tx = begin(&world).await;
    let fresh = tx.insert(&table, &ids, &rows(&ids)).await.unwrap();
    assert_eq!(fresh.iter().filter(|fresh| **fresh).count(), ROWS / 2);
    tx.rollback().await.unwrap();

    world.sql("DROP TRIGGER even_only ON messages").await;
    let role = format!("plain_{}", Uuid::new_v4().simple());
    world
        .sql(&format!(
            "ALTER TABLE messages ENABLE ROW LEVEL SECURITY; CREATE POLICY all_rows ON messages USING (true);
             CREATE ROLE {role}; GRANT ALL ON messages TO {role}; GRANT {role} TO CURRENT_USER"
        ))
        .await;
    for assumed in [true, false] {
        let mut tx = begin(&world).await;
        become_role(&mut *tx, &role).await;
        assert!(!assumed || tx.assume_new(ROWS));
        let written = tx.insert(&table, &ids, &rows(&ids)).await;
        assert_eq!(written.is_err(), assumed, "{written:?}");
        if let Err(error) = written {
            assert!(!matches!(error.fault, Fault::Outage | Fault::Busy | Fault::TooSlow), "{error}");
        }
        tx.rollback().await.unwrap();
    }
    world.sql(&format!("DROP OWNED BY {role}; DROP ROLE {role}")).await;
}

async fn become_role(tx: &mut dyn Tx, role: &str) {
    let sql = sqlx::AssertSqlSafe(format!("SET LOCAL ROLE {role}"));
    sqlx::raw_sql(sql).execute(tx.postgres().unwrap()).await.unwrap();
}

#[tokio::test]
async fn on_postgres_few_rows_are_not_worth_it() {
    let world = World::postgres().await;
    let mut tx = begin(&world).await;
    assert!(!tx.assume_new(10) && tx.assume_new(ROWS) && !tx.assume_new(10));
    tx.rollback().await.unwrap();
}

/// The key is what makes an effect happen once, so nothing is written where it is missing.
#[tokio::test]
async fn on_postgres_a_table_that_has_lost_its_key_takes_nothing() {
    let world = World::postgres().await;
    let table = world.messages().await;
    let names = names(0, ROWS);
    let ids = borrowed(&names);
    world.sql("ALTER TABLE messages DROP CONSTRAINT messages_pkey").await;
    for assumed in [true, false] {
        let mut tx = begin(&world).await;
        assert!(!assumed || tx.assume_new(ROWS));
        let error = tx.insert(&table, &ids, &rows(&ids)).await.unwrap_err();
        assert_eq!(error.fault, Fault::Hold, "{error}");
        tx.rollback().await.unwrap();
    }
    world.sql("ALTER TABLE weir_seen DROP CONSTRAINT weir_seen_pkey").await;
    let mut tx = begin(&world).await;
    assert!(tx.assume_new(ROWS));
    let seen: Vec<_> = ids.iter().map(|id| ("new", *id)).collect();
    assert_eq!(tx.claim_seen("p", &seen).await.unwrap_err().fault, Fault::Hold);
    tx.rollback().await.unwrap();
}

/// PostgreSQL ends no transaction that waits for the rows of a COPY.
#[tokio::test]
async fn on_postgres_a_worker_that_sends_no_rows_keeps_its_partition_no_longer_than_between_statements() {
    let world = World::postgres().await;
    world.claimed(&place(0)).await;
    let row = world.store.ledger(&place(0)).await.unwrap().unwrap();
    let options: PgConnectOptions = world.url.parse().unwrap();
    let mut frozen = options.application_name("weir/frozen").connect().await.unwrap();
    frozen
        .execute("BEGIN; SET LOCAL statement_timeout = 1000; SET LOCAL idle_in_transaction_session_timeout = 1000")
        .await
        .unwrap();
    frozen.execute("UPDATE weir_ledger SET updated_at = now()").await.unwrap();
    let copying = frozen.copy_in_raw("COPY weir_seen (pool, type, event_id) FROM STDIN").await.unwrap();
    let second = Duration::from_secs(1);
    let settings =
        config::Store { lock_timeout: second, idle_in_transaction_timeout: 3 * second, ..config::Store::default() };
    let heir = world.open(settings);
    assert_eq!(heir.end_silent().await.unwrap(), 0, "it may still be sending");
    for _ in 0..2 {
        let blocked = heir.claim(&place(0), row, CLAIMANT, Uuid::new_v4()).await.unwrap_err();
        assert_eq!(blocked.fault, Fault::Busy, "{blocked}");
    }
    let deadline = Instant::now() + 10 * second;
    while heir.end_silent().await.unwrap() == 0 {
        assert!(Instant::now() < deadline, "it is let stand");
        tokio::time::sleep(second / 10).await;
    }
    taken(heir.claim(&place(0), row, CLAIMANT, Uuid::new_v4()).await.unwrap());
    assert!(copying.finish().await.is_err());
}
