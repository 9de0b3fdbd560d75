//! What every store promises, held by one suite over all of them: the same calls, the same answers.

#[path = "store/assumed.rs"]
mod assumed;
#[path = "store/control.rs"]
mod control;
#[path = "store/days.rs"]
mod days;
#[path = "store/fenced.rs"]
mod fenced;
#[path = "store/mysql.rs"]
mod mysql;
#[path = "store/newer.rs"]
mod newer;
#[path = "common/pgbouncer.rs"]
#[expect(clippy::print_stderr, reason = "a pooler's log, shown when its test fails")]
mod pgbouncer;
#[path = "store/pgbouncer.rs"]
mod pooled;
#[path = "store/replays.rs"]
mod replays;
#[path = "common/services.rs"]
mod services;
#[path = "store/sockets.rs"]
mod sockets;
#[path = "common/uuid_days.rs"]
mod uuid_days;
#[path = "store/verdicts.rs"]
mod verdicts;

use assumed::*;
use control::*;
use days::*;
use fenced::*;
use mysql::*;
use newer::*;
use pgbouncer::Bouncer;
use replays::*;
use verdicts::*;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection as _, MySqlConnection, PgConnection};
use uuid::Uuid;
use weir::config;
use weir::event::Origin;
use weir::store::{
    self, Claim, Claimant, ColumnData, ColumnType, Count, DeadRow, Fault, Fence, Held, IdKey, KeyType, OnDuplicate,
    Place, Reason, Store, Table, Tx,
};

/// A fresh database of one kind with weir's schema.
struct World {
    store: Arc<dyn Store>,
    kind: &'static str,
    url: String,
    database: String,
    /// What stands before it.
    bouncer: Option<Bouncer>,
}

impl World {
    async fn postgres() -> Self {
        let database = Self::postgres_database().await;
        let server = services::env("POSTGRES_URL");
        let url = format!("{}/{database}", server.rsplit_once('/').unwrap().0);
        Self::of("postgres", url, database, None).await
    }

    /// Through a PgBouncer in transaction mode, with lines of its own.
    async fn pooled(lines: &str) -> Self {
        let database = Self::postgres_database().await;
        let bouncer =
            Bouncer::start("transaction", &format!("ignore_startup_parameters = extra_float_digits\n{lines}"));
        Self::of("postgres", bouncer.url(&database), database, Some(bouncer)).await
    }

    async fn postgres_database() -> String {
        let database = format!("store_{}", Uuid::new_v4().simple());
        let mut admin = PgConnection::connect(&services::env("POSTGRES_URL")).await.unwrap();
        sqlx::raw_sql(AssertSqlSafe(format!("CREATE DATABASE {database}"))).execute(&mut admin).await.unwrap();
        database
    }

    async fn mysql() -> Self {
        let database = format!("store_{}", Uuid::new_v4().simple());
        let server = services::env("MYSQL_URL");
        let mut admin = MySqlConnection::connect(&server).await.unwrap();
        let create = format!("CREATE DATABASE {database} CHARACTER SET utf8mb4");
        sqlx::raw_sql(AssertSqlSafe(create)).execute(&mut admin).await.unwrap();
        let url = format!("{}/{database}", server.rsplit_once('/').unwrap().0);
        Self::of("mysql", url, database, None).await
    }

    async fn sqlite() -> Self {
        let path = std::env::temp_dir().join(format!("weir-store-{}.db", Uuid::new_v4().simple()));
        let database = path.to_str().unwrap().to_owned();
        Self::of("sqlite", format!("sqlite://{database}"), database, None).await
    }

    async fn of(kind: &'static str, url: String, database: String, bouncer: Option<Bouncer>) -> Self {
        let pooler = bouncer.as_ref().map(|_| config::Pooler::Transaction);
        let lock_timeout = Duration::from_secs(1);
        let store = open(&url, config::Store { lock_timeout, pooler, ..config::Store::default() });
        let unmade = store.check().await.unwrap_err();
        assert_eq!(unmade.fault, Fault::Hold);
        assert!(unmade.to_string().contains("weir migrate"), "{unmade}");
        store.migrate().await.unwrap();
        store.migrate().await.unwrap();
        store.check().await.unwrap();
        Self { store, kind, url, database, bouncer }
    }

    /// Its database again, with other settings.
    fn open(&self, settings: config::Store) -> Arc<dyn Store> {
        let pooler = self.bouncer.as_ref().map(|_| config::Pooler::Transaction);
        open(&self.url, config::Store { pooler, ..settings })
    }

    /// A table of the user's own, made in a transaction of the store.
    async fn sql(&self, sql: &str) {
        let mut tx = self.store.begin().await.unwrap();
        let sql = sqlx::raw_sql(AssertSqlSafe(sql));
        match self.kind {
            "postgres" => drop(sql.execute(tx.postgres().unwrap()).await.unwrap()),
            "mysql" => drop(sql.execute(tx.mysql().unwrap()).await.unwrap()),
            _ => drop(sql.execute(tx.sqlite().unwrap()).await.unwrap()),
        }
        tx.commit().await.unwrap();
    }

    async fn number(&self, sql: &str) -> i64 {
        let mut tx = self.store.begin().await.unwrap();
        let number = match self.kind {
            "postgres" => sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(tx.postgres().unwrap()).await.unwrap(),
            "mysql" => sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(tx.mysql().unwrap()).await.unwrap(),
            _ => sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(tx.sqlite().unwrap()).await.unwrap(),
        };
        tx.rollback().await.unwrap();
        number
    }

    /// Whether the store looks for dead rows only when it writes new ones.
    fn looks_later(&self) -> bool {
        self.kind == "mysql"
    }

    async fn claimed(&self, place: &Place) -> Held {
        self.store.begin_ledger(&[(place.clone(), 0)]).await.unwrap();
        let row = self.store.ledger(place).await.unwrap().unwrap();
        taken(self.store.claim(place, row, CLAIMANT, Uuid::new_v4()).await.unwrap())
    }

    async fn messages(&self) -> Table {
        let key = IdKey { table: "messages".to_owned(), column: "message_id".to_owned(), kind: KeyType::Text };
        self.table(key, &["message_id", "conversation", "sender", "recipient", "content", "message_type", "timestamp"])
            .await
    }

    async fn table(&self, key: IdKey, names: &[&str]) -> Table {
        let described = self.store.describe(&key.table).await.unwrap();
        let column = |name: &&str| described.iter().find(|column| column.name == **name).unwrap().clone();
        Table { columns: names.iter().map(column).collect(), key, on_duplicate: OnDuplicate::Ignore }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if self.kind == "sqlite" {
            for suffix in ["", "-wal", "-shm"] {
                std::fs::remove_file(format!("{}{suffix}", self.database)).ok();
            }
            return;
        }
        let (drop, is_mysql) = (format!("DROP DATABASE {}", self.database), self.kind == "mysql");
        let dropped = std::thread::spawn(move || {
            tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
                if is_mysql {
                    let mut admin = MySqlConnection::connect(&services::env("MYSQL_URL")).await.unwrap();
                    sqlx::raw_sql(AssertSqlSafe(drop)).execute(&mut admin).await.unwrap();
                } else {
                    let mut admin = PgConnection::connect(&services::env("POSTGRES_URL")).await.unwrap();
                    let drop = format!("{drop} WITH (FORCE)");
                    sqlx::raw_sql(AssertSqlSafe(drop)).execute(&mut admin).await.unwrap();
                }
            });
        });
        assert!(dropped.join().is_ok() || std::thread::panicking(), "{} is left behind", self.database);
    }
}

const CLAIMANT: Claimant<'_> = Claimant { pool: "p", pipelines: &["persist"] };

fn taken(claim: Claim) -> Held {
    match claim {
        Claim::Taken(held) => held,
        other => panic!("{other:?}"),
    }
}

fn open(url: &str, settings: config::Store) -> Arc<dyn Store> {
    store::open(&config::Store { url: url.to_owned().into(), ..settings }).unwrap()
}

/// One promise, asked of each store.
macro_rules! promises {
    ($($promise:ident)*) => {
        mod on_postgres { $(#[tokio::test] async fn $promise() { super::$promise(super::World::postgres().await).await; })* }
        mod behind_pgbouncer {
            $(#[tokio::test] async fn $promise() { super::$promise(super::World::pooled("").await).await; })*
        }
        mod on_postgres_by_day {
            $(#[tokio::test] async fn $promise() { super::$promise(super::World::postgres().await.by_day().await).await; })*
        }
        mod on_mysql_by_day {
            $(#[tokio::test] async fn $promise() { super::$promise(super::World::mysql().await.by_day().await).await; })*
        }
        mod on_mysql { $(#[tokio::test] async fn $promise() { super::$promise(super::World::mysql().await).await; })* }
        mod on_sqlite { $(#[tokio::test] async fn $promise() { super::$promise(super::World::sqlite().await).await; })* }
    };
}

/// One promise of `messages` by days.
macro_rules! of_days {
    ($($promise:ident)*) => {
        mod days_on_postgres { $(#[tokio::test] async fn $promise() { super::$promise(super::World::postgres().await).await; })* }
        mod days_behind_pgbouncer {
            $(#[tokio::test] async fn $promise() { super::$promise(super::World::pooled("").await).await; })*
        }
        mod days_on_mysql { $(#[tokio::test] async fn $promise() { super::$promise(super::World::mysql().await).await; })* }
    };
}

of_days! {
    an_id_is_new_once_in_whatever_part_it_lies
    newer_events_update_rows_of_any_part
    rows_of_any_id_are_kept_and_it_is_done_once
    workers_write_on_while_it_is_converted
    days_go_while_others_write_and_what_is_of_no_day_stays
    a_day_with_too_many_strays_is_kept_and_said_so
    a_drop_that_would_wait_is_put_off_and_holds_nobody_up
    a_day_that_is_made_late_takes_its_rows
    a_table_that_is_not_like_messages_is_left_as_it_is
}

promises! {
    only_the_owner_passes_the_fence_and_only_from_its_offset
    a_batch_begins_for_the_owner_and_from_its_offset_only
    a_claim_needs_the_row_as_it_was_read
    a_pipeline_that_has_begun_must_be_there_until_it_is_retired
    beginning_again_changes_nothing
    what_a_newer_release_has_migrated_is_left_alone_and_worked_on
    a_transaction_that_is_dropped_or_rolled_back_leaves_nothing
    an_id_is_fresh_once
    rows_taken_to_be_new_are_written_like_any_others
    one_id_that_is_there_after_all_is_never_there_twice
    an_update_takes_only_newer_rows
    another_unique_key_is_a_reject_and_never_passed_over
    what_a_column_refuses_is_a_reject
    ids_claimed_by_type_are_fresh_once
    counters_add_up_and_notes_do_not
    dead_rows_wait_for_their_letter_and_go_when_their_id_is_live
    numbers_and_uuids_are_known_in_any_spelling
    old_ids_are_forgotten_and_young_ones_kept
    columns_are_described
    writers_wait_for_each_other_and_none_is_lost
    a_statement_that_takes_too_long_asks_for_less
    who_waits_too_long_for_its_turn_is_told_to_try_again
    dead_rows_are_found_by_what_they_are
    a_request_asks_once_in_order_and_not_for_what_holds_its_key
    a_rate_spreads_a_request_over_time
    a_replayed_row_goes_once_and_only_with_its_transaction
    a_move_fences_the_owner_and_is_all_or_nothing
    a_released_key_goes_in_order_and_what_arrives_meanwhile_goes_with_it
    an_event_that_waits_takes_the_place_of_a_rejected_copy
    one_event_is_found_with_its_row
    ids_are_one_only_if_their_bytes_are
    of_two_at_once_one_is_new
    an_update_that_meets_another_unique_key_is_a_reject
    a_verdict_hides_a_message_in_its_own_transaction_and_whenever_it_comes
    verdicts_wait_for_their_event_and_a_changed_one_waits_again
    a_tables_rows_are_read_as_objects
    a_pause_is_seen_until_it_is_ended_or_runs_out
    a_rate_that_is_set_stays_beside_a_pause
    every_change_leaves_a_row_with_who_did_it
    of_two_changes_at_once_the_later_one_sees_the_first
}

fn place(partition: i32) -> Place {
    let origin = Origin { topic: Arc::from("t"), topic_id: Uuid::from_u128(7), partition };
    Place { group: Arc::from("g"), origin: Arc::new(origin) }
}

fn texts<'a>(values: &[&'a str]) -> ColumnData<'a> {
    ColumnData::Text(values.iter().map(|value| Some((*value).into())).collect())
}

/// The rows of some messages whose only difference is the id.
fn rows<'a>(ids: &[&'a str]) -> Vec<ColumnData<'a>> {
    let same = |value: &'static str| texts(&vec![value; ids.len()]);
    let numbers = |value| ColumnData::Int(vec![Some(value); ids.len()]);
    vec![
        texts(ids),
        same("a:b"),
        same("a"),
        same("b"),
        same("hi \u{1F600} \"'\\"),
        numbers(1),
        numbers(1_760_000_000_000),
    ]
}

async fn begin(world: &World) -> Box<dyn Tx> {
    world.store.begin().await.unwrap()
}

fn passed(fence: Fence) -> bool {
    matches!(fence, Fence::Passed { .. })
}

async fn only_the_owner_passes_the_fence_and_only_from_its_offset(world: World) {
    let held = world.claimed(&place(0)).await;
    let mut tx = begin(&world).await;
    assert_eq!(tx.fence(&held, 5, "p").await.unwrap(), Fence::Passed { has_dead_rows: world.looks_later() });
    tx.commit().await.unwrap();

    let mut tx = begin(&world).await;
    assert_eq!(tx.fence(&held, 9, "p").await.unwrap(), Fence::Fenced, "the ledger has moved");
    let ahead = Held { next_offset: 5, ..held.clone() };
    let stranger = Held { token: Uuid::new_v4(), ..ahead.clone() };
    assert_eq!(tx.fence(&stranger, 9, "p").await.unwrap(), Fence::Fenced, "another token");
    let elsewhere = Held { place: place(1), ..ahead.clone() };
    assert_eq!(tx.fence(&elsewhere, 9, "p").await.unwrap(), Fence::Fenced, "another partition");
    assert!(passed(tx.fence(&ahead, 9, "p").await.unwrap()));
    tx.commit().await.unwrap();
    let row = world.store.ledger(&held.place).await.unwrap().unwrap();
    assert_eq!((row.owner, row.epoch, row.next_offset), (Some(held.token), 1, 9));
}

async fn a_claim_needs_the_row_as_it_was_read(world: World) {
    let first = world.claimed(&place(0)).await;
    let read = world.store.ledger(&first.place).await.unwrap().unwrap();
    let second = taken(world.store.claim(&first.place, read, CLAIMANT, Uuid::new_v4()).await.unwrap());
    assert!(matches!(world.store.claim(&first.place, read, CLAIMANT, Uuid::new_v4()).await, Ok(Claim::Moved)));
    let mut tx = begin(&world).await;
    assert_eq!(tx.fence(&first, 3, "p").await.unwrap(), Fence::Fenced);
    assert!(passed(tx.fence(&second, 3, "p").await.unwrap()));
    tx.commit().await.unwrap();
}

async fn a_pipeline_that_has_begun_must_be_there_until_it_is_retired(world: World) {
    let place = place(0);
    let first = world.claimed(&place).await;
    let mut tx = begin(&world).await;
    assert!(passed(tx.fence(&first, 40, "p").await.unwrap()));
    tx.commit().await.unwrap();
    let claim = async |claimant| {
        let row = world.store.ledger(&place).await.unwrap().unwrap();
        (row, world.store.claim(&place, row, claimant, Uuid::new_v4()).await.unwrap())
    };
    let newer = Claimant { pool: "p", pipelines: &["persist", "stats"] };
    assert_eq!(taken(claim(newer).await.1).next_offset, 40);
    let begins = "SELECT begin_offset FROM weir_pipelines WHERE pipeline = 'stats'";
    assert_eq!(world.number(begins).await, 40);
    assert_eq!(world.number("SELECT begin_offset FROM weir_pipelines WHERE pipeline = 'persist'").await, 0);

    let (before, refused) = claim(CLAIMANT).await;
    assert!(matches!(refused, Claim::Lacks(lacking) if lacking == ["stats"]));
    assert_eq!(world.store.ledger(&place).await.unwrap(), Some(before), "a refused claim leaves the owner alone");
    let other = Claimant { pool: "q", ..newer };
    assert!(matches!(claim(other).await.1, Claim::Renamed(pool) if pool == "p"));

    assert_eq!(world.store.pipelines("g").await.unwrap(), ["persist", "stats"]);
    assert_eq!(world.store.retire("g", "stats").await.unwrap(), 1);
    assert_eq!(world.store.retire("g", "stats").await.unwrap(), 0);
    assert_eq!(world.store.pipelines("g").await.unwrap(), ["persist"]);
    let old = taken(claim(CLAIMANT).await.1);
    let mut tx = begin(&world).await;
    assert!(passed(tx.fence(&old, 60, "p").await.unwrap()));
    tx.commit().await.unwrap();
    taken(claim(newer).await.1);
    assert_eq!(world.number(begins).await, 60, "it has begun anew");
}

async fn beginning_again_changes_nothing(world: World) {
    world.store.begin_ledger(&[(place(1), 4), (place(0), 2)]).await.unwrap();
    world.store.begin_ledger(&[(place(0), 9), (place(2), 9)]).await.unwrap();
    let rows = world.store.ledger_of_group("g").await.unwrap();
    let mut offsets: Vec<_> = rows.iter().map(|((_, partition), row)| (*partition, row.next_offset)).collect();
    offsets.sort_unstable();
    assert_eq!(offsets, [(0, 2), (1, 4), (2, 9)]);
    assert!(rows.keys().all(|(topic_id, _)| *topic_id == Uuid::from_u128(7)));
    assert!(world.store.knows_topic("g", "t").await.unwrap());
    assert!(!world.store.knows_topic("g", "u").await.unwrap());
    assert!(!world.store.knows_topic("h", "t").await.unwrap());
    assert_eq!(world.store.ledger(&place(7)).await.unwrap(), None);
}

async fn a_transaction_that_is_dropped_or_rolled_back_leaves_nothing(world: World) {
    let held = world.claimed(&place(0)).await;
    let table = world.messages().await;
    for dropped in [true, false] {
        let mut tx = begin(&world).await;
        assert!(passed(tx.fence(&held, 5, "p").await.unwrap()));
        assert_eq!(tx.insert(&table, &["m"], &rows(&["m"])).await.unwrap(), [true]);
        if dropped { drop(tx) } else { tx.rollback().await.unwrap() }
    }
    let mut tx = begin(&world).await;
    assert!(passed(tx.fence(&held, 5, "p").await.unwrap()));
    assert_eq!(tx.insert(&table, &["m"], &rows(&["m"])).await.unwrap(), [true]);
    tx.commit().await.unwrap();
    assert_eq!(world.number("SELECT count(*) FROM messages").await, 1);
}

async fn an_id_is_fresh_once(world: World) {
    let table = world.messages().await;
    let ids: Vec<String> = (0..700).map(|n| format!("m-{n:04}")).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let mut tx = begin(&world).await;
    assert_eq!(tx.insert(&table, &ids[..500], &rows(&ids[..500])).await.unwrap(), vec![true; 500]);
    tx.commit().await.unwrap();
    let mut tx = begin(&world).await;
    let fresh = tx.insert(&table, &ids[400..], &rows(&ids[400..])).await.unwrap();
    assert_eq!(fresh.iter().filter(|fresh| **fresh).count(), 200);
    assert!(fresh[..100].iter().all(|fresh| !fresh) && fresh[100..].iter().all(|fresh| *fresh));
    let existing = tx.existing(&table.key, &["m-0000", "m-0699", "nobody"]).await.unwrap();
    assert_eq!(existing, HashSet::from(["m-0000".to_owned(), "m-0699".to_owned()]));
    tx.commit().await.unwrap();
    assert_eq!(world.number("SELECT count(*) FROM messages").await, 700);
    assert_eq!(world.number("SELECT count(*) FROM messages WHERE content = 'hi \u{1F600} \"''\\'").await, 700);
}

async fn an_update_takes_only_newer_rows(world: World) {
    world.sql("CREATE TABLE items (id VARCHAR(20) NOT NULL UNIQUE, version BIGINT, note TEXT)").await;
    let key = IdKey { table: "items".to_owned(), column: "id".to_owned(), kind: KeyType::Text };
    let mut table = world.table(key, &["id", "version", "note"]).await;
    table.on_duplicate = OnDuplicate::Update { newer_by: "version".to_owned() };
    let mut tx = begin(&world).await;
    let batch = |versions: [Option<i64>; 3], note| {
        vec![texts(&["a", "b", "c"]), ColumnData::Int(versions.to_vec()), texts(&[note; 3])]
    };
    let ids = ["a", "b", "c"];
    assert_eq!(tx.insert(&table, &ids, &batch([Some(5), Some(5), None], "first")).await.unwrap(), [true; 3]);
    tx.insert(&table, &ids, &batch([Some(4), Some(6), Some(1)], "second")).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(world.number("SELECT count(*) FROM items WHERE note = 'second' AND id IN ('b', 'c')").await, 2);
    assert_eq!(world.number("SELECT count(*) FROM items WHERE note = 'first' AND id = 'a' AND version = 5").await, 1);
}

async fn another_unique_key_is_a_reject_and_never_passed_over(world: World) {
    world.sql("CREATE TABLE users (id VARCHAR(20) NOT NULL UNIQUE, email TEXT NOT NULL UNIQUE)").await;
    let key = IdKey { table: "users".to_owned(), column: "id".to_owned(), kind: KeyType::Text };
    let table = world.table(key, &["id", "email"]).await;
    let mut tx = begin(&world).await;
    tx.insert(&table, &["a"], &[texts(&["a"]), texts(&["one"])]).await.unwrap();
    let error = tx.insert(&table, &["b"], &[texts(&["b"]), texts(&["one"])]).await.unwrap_err();
    assert_eq!(error.fault, Fault::Reject, "{error}");
    drop(tx);
    assert_eq!(world.number("SELECT count(*) FROM users").await, 0);
}

#[tokio::test]
async fn on_sqlite_a_columns_own_conflict_clause_passes_nothing_over() {
    let world = World::sqlite().await;
    for clause in ["IGNORE", "REPLACE", "ROLLBACK"] {
        let name = format!("users_{}", clause.to_lowercase());
        world
            .sql(&format!("CREATE TABLE {name} (id TEXT NOT NULL UNIQUE, email TEXT UNIQUE ON CONFLICT {clause})"))
            .await;
        let key = IdKey { table: name.clone(), column: "id".to_owned(), kind: KeyType::Text };
        let table = world.table(key, &["id", "email"]).await;
        let mut tx = begin(&world).await;
        tx.insert(&table, &["a"], &[texts(&["a"]), texts(&["one"])]).await.unwrap();
        let error = tx.insert(&table, &["b"], &[texts(&["b"]), texts(&["one"])]).await.unwrap_err();
        assert_eq!(error.fault, Fault::Reject, "{clause}: {error}");
        tx.commit().await.unwrap();
        assert_eq!(world.number(&format!("SELECT count(*) FROM {name} WHERE id = 'a'")).await, 1, "{clause}");
    }
}

#[tokio::test]
async fn on_sqlite_a_file_put_in_the_place_of_the_open_one_is_what_is_read_and_written() {
    let world = World::sqlite().await;
    let backup = World::sqlite().await;
    let held = world.claimed(&place(0)).await;
    std::fs::rename(&backup.database, &world.database).unwrap();
    for suffix in ["-wal", "-shm"] {
        std::fs::remove_file(format!("{}{suffix}", world.database)).ok();
    }
    assert_eq!(world.store.ledger(&place(0)).await.unwrap(), None, "the backup knows nothing of the claim");
    let mut tx = begin(&world).await;
    assert_eq!(tx.fence(&held, 1, "p").await.unwrap(), Fence::Fenced);
    drop(tx);
    std::fs::remove_file(&world.database).unwrap();
    let gone = world.store.ledger(&place(0)).await.unwrap_err();
    assert_eq!(gone.fault, Fault::Hold, "{gone}");
}

async fn what_a_column_refuses_is_a_reject(world: World) {
    let table = world.messages().await;
    for (column, value) in
        [(4, texts(&["a\0b"])), (5, ColumnData::Int(vec![Some(1 << 40)])), (1, ColumnData::Text(vec![None]))]
    {
        let mut columns = rows(&["m"]);
        columns[column] = value;
        let mut tx = begin(&world).await;
        let error = tx.insert(&table, &["m"], &columns).await.unwrap_err();
        assert_eq!(error.fault, Fault::Reject, "column {column}: {error}");
    }
    let lost = IdKey { table: "nowhere".to_owned(), ..table.key.clone() };
    let mut tx = begin(&world).await;
    assert_eq!(tx.insert(&Table { key: lost, ..table }, &["m"], &rows(&["m"])).await.unwrap_err().fault, Fault::Hold);
    drop(tx);
    assert_eq!(world.store.describe("nowhere").await.unwrap_err().fault, Fault::Hold);
    assert_eq!(world.number("SELECT count(*) FROM messages").await, 0);
}

async fn ids_claimed_by_type_are_fresh_once(world: World) {
    let mut tx = begin(&world).await;
    assert_eq!(tx.claim_seen("p", &[("new", "b"), ("new", "a")]).await.unwrap(), [true, true]);
    assert_eq!(tx.claim_seen("p", &[("new", "a"), ("edit", "a"), ("new", "c")]).await.unwrap(), [false, true, true]);
    assert_eq!(tx.claim_seen("q", &[("new", "a")]).await.unwrap(), [true]);
    let seen = tx.existing_seen("p", &[("new", "a"), ("", "c"), ("edit", "b"), ("", "nobody")]).await.unwrap();
    let pair = |kind: &str, id: &str| (kind.to_owned(), id.to_owned());
    assert_eq!(seen, HashSet::from([pair("new", "a"), pair("", "c")]));
    tx.commit().await.unwrap();
}

async fn counters_add_up_and_notes_do_not(world: World) {
    let count = |dimension, member: &str, shard, by| Count {
        minute: 29_333_333,
        dimension,
        member: member.to_owned(),
        shard,
        by,
    };
    for _ in 0..3 {
        let mut tx = begin(&world).await;
        let counts = [
            count("user", "bob", 0, Some(2)),
            count("user", "bob", 1, Some(1)),
            count("active_users", "bob", 0, None),
            count("active_users", "ann", 1, None),
            count("type", "new", 0, Some(i64::from(u32::MAX))),
        ];
        tx.count(&counts).await.unwrap();
        tx.commit().await.unwrap();
    }
    let stat = "SELECT count FROM message_stats WHERE dimension =";
    assert_eq!(world.number(&format!("{stat} 'user' AND member = 'bob'")).await, 9);
    assert_eq!(world.number(&format!("{stat} 'active_users'")).await, 2);
    assert_eq!(world.number(&format!("{stat} 'type'")).await, 3 * i64::from(u32::MAX));
}

fn dead(id: &str, partition: i32) -> DeadRow {
    DeadRow {
        kind: String::new(),
        event_id: id.to_owned(),
        pipeline: "persist".to_owned(),
        reason: Reason::Refused,
        message: "too \0 long".to_owned(),
        origin: place(partition).origin,
        offset: 3,
        key: None,
        value: Some(vec![0, 255, b'{']),
        headers: None,
        attempts: 1,
        record_ms: 1_760_000_000_123,
        holds_key: false,
    }
}

async fn dead_rows_wait_for_their_letter_and_go_when_their_id_is_live(world: World) {
    let table = world.messages().await;
    let held = world.claimed(&place(0)).await;
    let mut tx = begin(&world).await;
    tx.bury("p", &[dead("a", 0), dead("b", 0), dead("c", 1), dead("d", 0)]).await.unwrap();
    tx.bury("p", &[DeadRow { message: "again".to_owned(), ..dead("a", 0) }]).await.unwrap();
    assert_eq!(tx.fence(&held, 1, "p").await.unwrap(), Fence::Passed { has_dead_rows: true });
    assert_eq!(
        tx.fence(&Held { next_offset: 1, ..held }, 2, "q").await.unwrap(),
        Fence::Passed { has_dead_rows: world.looks_later() }
    );
    tx.unbury("p", &[("new", "d")]).await.unwrap();
    tx.insert(&table, &["b"], &rows(&["b"])).await.unwrap();
    tx.commit().await.unwrap();

    let mine = [(Uuid::from_u128(7), 0)];
    // A letter waits until all that ran beside its transaction has ended; other tests run beside it too.
    let mut letters = Vec::new();
    for _ in 0..300 {
        letters = world.store.unpublished("p", Some(&table.key), &mine, 10).await.unwrap();
        if !letters.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(
        letters.iter().map(|letter| letter.event_id.as_str()).collect::<Vec<_>>(),
        ["a"],
        "b is live, c another's"
    );
    assert_eq!(
        (letters[0].message.as_str(), letters[0].value.as_deref()),
        ("too \u{fffd} long", Some(&[0, 255, b'{'][..]))
    );
    world.store.published("p", &[("", "a")]).await.unwrap();
    assert!(world.store.unpublished("p", Some(&table.key), &mine, 10).await.unwrap().is_empty());
    assert_eq!(world.number("SELECT count(*) FROM weir_dead").await, 2);
}

async fn numbers_and_uuids_are_known_in_any_spelling(world: World) {
    world.sql("CREATE TABLE numbers (id BIGINT NOT NULL UNIQUE)").await;
    world.sql("CREATE TABLE uuids (id UUID NOT NULL UNIQUE)").await;
    let key = |table: &str, kind| IdKey { table: table.to_owned(), column: "id".to_owned(), kind };
    let table = world.table(key("numbers", KeyType::Int), &["id"]).await;
    let mut tx = begin(&world).await;
    assert_eq!(
        tx.insert(&table, &["7", "-9"], &[ColumnData::Int(vec![Some(7), Some(-9)])]).await.unwrap(),
        [true, true]
    );
    assert_eq!(tx.insert(&table, &["7"], &[ColumnData::Int(vec![Some(7)])]).await.unwrap(), [false]);
    let existing = tx.existing(&table.key, &["007", "8", "x", "-9"]).await.unwrap();
    assert_eq!(existing, HashSet::from(["007".to_owned(), "-9".to_owned()]));

    let id = Uuid::from_u128(0xABCD_EF00_0000_4000_8000_0000_0000_0001);
    let upper = id.to_string().to_uppercase();
    let table = world.table(key("uuids", KeyType::Uuid), &["id"]).await;
    assert_eq!(tx.insert(&table, &[&upper], &[ColumnData::Uuid(vec![Some(id)])]).await.unwrap(), [true]);
    assert_eq!(tx.insert(&table, &[&upper], &[ColumnData::Uuid(vec![Some(id)])]).await.unwrap(), [false]);
    assert_eq!(tx.existing(&table.key, &[&upper, "x"]).await.unwrap(), HashSet::from([upper]));
    tx.commit().await.unwrap();
}

async fn old_ids_are_forgotten_and_young_ones_kept(world: World) {
    let mut tx = begin(&world).await;
    tx.claim_seen("p", &[("t", "a"), ("t", "b"), ("t", "c")]).await.unwrap();
    tx.claim_seen("q", &[("t", "a")]).await.unwrap();
    tx.commit().await.unwrap();
    let store = &world.store;
    assert_eq!(store.forget_seen("p", Duration::from_secs(3600), 10).await.unwrap(), 0);
    let age = if world.kind == "postgres" { "seen_at - interval '2 hours'" } else { "seen_at - 7200000" };
    world.sql(&format!("UPDATE weir_seen SET seen_at = {age} WHERE event_id <> 'c'")).await;
    assert_eq!(store.forget_seen("p", Duration::from_secs(3600), 1).await.unwrap(), 1, "no more than asked for");
    assert_eq!(store.forget_seen("p", Duration::from_secs(3600), 10).await.unwrap(), 1);
    assert_eq!(world.number("SELECT count(*) FROM weir_seen").await, 2);
}

async fn columns_are_described(world: World) {
    let (at, long) = match world.kind {
        "mysql" => ("DATETIME(3)", "LONGTEXT"),
        _ => ("TIMESTAMPTZ", "TEXT"),
    };
    world
        .sql(&format!(
            "CREATE TABLE kinds (id INTEGER NOT NULL PRIMARY KEY, flag BOOLEAN, small SMALLINT, \"int4\" INT4, big BIGINT,
                                 \"real\" DOUBLE PRECISION, short VARCHAR(8), \"long\" {long} NOT NULL DEFAULT 'x', uid UUID UNIQUE,
                                 \"at\" {at}, doc JSON, two VARCHAR(9), UNIQUE (two, flag))"
        ))
        .await;
    let columns = world.store.describe("kinds").await.unwrap();
    let kind = |name: &str| columns.iter().find(|column| column.name == name).unwrap();
    for (name, expected) in [
        ("flag", ColumnType::Bool),
        ("small", ColumnType::Int2),
        ("int4", ColumnType::Int4),
        ("big", ColumnType::Int8),
        ("real", ColumnType::Float8),
        ("short", ColumnType::Text { chars_max: Some(8), bytes_max: None }),
        ("long", ColumnType::Text { chars_max: None, bytes_max: None }),
        ("uid", ColumnType::Uuid),
        ("at", ColumnType::Timestamp),
        ("doc", ColumnType::Json),
    ] {
        assert_eq!(kind(name).kind, expected, "{name}");
    }
    let unique: Vec<&str> = columns.iter().filter(|column| column.unique).map(|column| column.name.as_str()).collect();
    assert_eq!(unique, ["id", "uid"]);
    assert!(!kind("long").nullable && kind("long").has_default && kind("flag").nullable && !kind("flag").has_default);
}

async fn writers_wait_for_each_other_and_none_is_lost(world: World) {
    // Two pools of one process, with no patience for a lock that another one holds.
    let hasty = || world.open(config::Store { lock_timeout: Duration::from_millis(1), ..config::Store::default() });
    let stores = [hasty(), hasty()];
    let mut writers = tokio::task::JoinSet::new();
    for partition in 0..8 {
        let mut held = world.claimed(&place(partition)).await;
        let store = Arc::clone(&stores[partition as usize % 2]);
        writers.spawn(async move {
            for _ in 0..25 {
                let mut tx = store.begin().await.unwrap();
                assert!(passed(tx.fence(&held, held.next_offset + 1, "p").await.unwrap()));
                let count =
                    Count { minute: 1, dimension: "type", member: String::new(), shard: partition, by: Some(1) };
                tx.count(&[count]).await.unwrap();
                tx.commit().await.unwrap();
                held.next_offset += 1;
            }
        });
    }
    while let Some(done) = writers.join_next().await {
        done.unwrap();
    }
    assert_eq!(world.number("SELECT count FROM message_stats").await, 200);
}

/// Makes every row of `messages` cost some milliseconds.
async fn slow_rows(world: &World) {
    let sql = match world.kind {
        "postgres" => {
            "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.02); RETURN NEW; END $$;
             CREATE TRIGGER slow BEFORE INSERT ON messages FOR EACH ROW EXECUTE FUNCTION slow()"
        }
        "mysql" => "CREATE TRIGGER slow BEFORE INSERT ON messages FOR EACH ROW SET @slept = SLEEP(0.02)",
        _ => {
            "CREATE TRIGGER slow BEFORE INSERT ON messages BEGIN
                 SELECT count(*) FROM (WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200000) SELECT i FROM n);
             END"
        }
    };
    world.sql(sql).await;
}

async fn a_statement_that_takes_too_long_asks_for_less(world: World) {
    slow_rows(&world).await;
    let table = world.messages().await;
    let brief = Duration::from_millis(400);
    let store = world.open(config::Store { statement_timeout: brief, lock_timeout: brief, ..config::Store::default() });
    let ids: Vec<String> = (0..500).map(|n| format!("m{n:03}")).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let mut tx = store.begin().await.unwrap();
    let error = tx.insert(&table, &ids, &rows(&ids)).await.unwrap_err();
    assert_eq!(error.fault, Fault::TooSlow, "{error}");
    drop(tx);
    let mut tx = store.begin().await.unwrap();
    assert_eq!(tx.insert(&table, &ids[..2], &rows(&ids[..2])).await.unwrap(), [true, true]);
    tx.commit().await.unwrap();
    assert_eq!(world.number("SELECT count(*) FROM messages").await, 2);
}

async fn who_waits_too_long_for_its_turn_is_told_to_try_again(world: World) {
    let settings =
        config::Store { connections: 1, statement_timeout: Duration::from_millis(500), ..config::Store::default() };
    let store = world.open(settings);
    let holder = store.begin().await.unwrap();
    let Err(error) = store.begin().await else { panic!("there is one connection, and it is taken") };
    assert_eq!(error.fault, Fault::Busy, "not an outage, nothing is away: {error}");
    assert!(error.to_string().contains("came free"), "{error}");
    holder.rollback().await.unwrap();
    drop(store.begin().await.unwrap());
}
