//! `messages` by days: one id is one effect in whatever part it lies, and days come and go while others write.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use weir::config;
use weir::store::{Converted, Fault, OnDuplicate, Store, Table, Upkeep};

use super::uuid_days::{DAY_MS, bound, digits, divided_on, id, today};
use super::{World, begin, rows};

const DAY: Duration = Duration::from_secs(86_400);

/// An id of version 4 that lies among those of a day.
fn stray(day: i64, number: u64) -> String {
    id(day, number).replacen("-7", "-4", 1)
}

impl World {
    /// Its `messages` partitioned.
    pub(super) async fn by_day(self) -> Self {
        assert!(self.store.days().await.unwrap().is_none() && self.store.keep_days().await.unwrap().is_none());
        let done = self.store.partition_messages().await.unwrap();
        assert!(done.converted.is_some() && done.upkeep.ahead == 7, "{done:?}");
        self
    }

    /// The same as though it had been converted so many days ago.
    async fn since(self, days: i64) -> Self {
        let (from, to) = (today() - days, today() + 1);
        if self.kind == "mysql" {
            let part = |day: i64| format!("PARTITION weir_{} VALUES LESS THAN ({})", digits(day), bound(day + 1));
            let parts: Vec<String> = (from..to).map(part).collect();
            let before = format!("PARTITION weir_before VALUES LESS THAN ({})", bound(from));
            let parts = parts.join(", ");
            self.sql(&format!("ALTER TABLE messages REORGANIZE PARTITION weir_before INTO ({before}, {parts})")).await;
        } else {
            for sql in divided_on(from) {
                self.sql(&sql).await;
            }
            let made = self.store.keep_days().await.unwrap().unwrap().made;
            assert_eq!(made.len(), usize::try_from(days).unwrap() + 1, "{made:?}");
        }
        self
    }

    fn keeping(&self, days: u32) -> Arc<dyn Store> {
        self.open(config::Store { messages_retention: Some(DAY * days), ..config::Store::default() })
    }

    async fn insert(&self, table: &Table, ids: &[String]) -> Vec<bool> {
        write(&*self.store, table, ids).await.unwrap()
    }

    /// What is in one part.
    async fn count_in(&self, part: &str) -> i64 {
        match self.kind {
            "mysql" => self.number(&format!("SELECT count(*) FROM messages PARTITION ({part})")).await,
            _ => self.number(&format!("SELECT count(*) FROM {part}")).await,
        }
    }

    fn part(&self, day: i64) -> String {
        format!("{}_{}", if self.kind == "mysql" { "weir" } else { "messages" }, digits(day))
    }
}

async fn write(store: &dyn Store, table: &Table, ids: &[String]) -> weir::store::Result<Vec<bool>> {
    let mut ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    ids.sort_unstable();
    let mut tx = store.begin().await?;
    let fresh = tx.insert(table, &ids, &rows(&ids)).await?;
    tx.commit().await?;
    Ok(fresh)
}

/// Ids of every part, and of every form.
fn of_all_forms() -> Vec<String> {
    let mut ids: Vec<String> = [-400, -1, 0, 1, 3, 7, 8, 40].iter().map(|days| id(today() + days, 1)).collect();
    ids.extend((0..8).map(|n| format!("{n}f3c1a52-0000-4abc-8def-00000000000{n}")));
    ids.extend([
        stray(today(), 2),
        stray(today() + 2, 2),
        id(today(), 3).to_uppercase(),
        id(today() + 2, 3).to_uppercase(),
    ]);
    ids.extend(["m-1", "0", "019", "~", "Ä"].map(str::to_owned));
    ids
}

pub(super) async fn an_id_is_new_once_in_whatever_part_it_lies(world: World) {
    let (world, ids) = (world.by_day().await, of_all_forms());
    let table = world.messages().await;
    assert!(world.insert(&table, &ids).await.iter().all(|fresh| *fresh));
    assert!(!world.insert(&table, &ids).await.iter().any(|fresh| *fresh));
    let dropped = world.store.keep_days().await.unwrap().unwrap();
    assert_eq!((dropped.dropped, dropped.kept, dropped.unmade), (Vec::<String>::new(), vec![], vec![]));
    let known: Vec<&str> = ids.iter().map(String::as_str).collect();
    let mut tx = begin(&world).await;
    assert_eq!(tx.existing(&table.key, &known).await.unwrap().len(), ids.len());
    tx.rollback().await.unwrap();
    // Taken to be new: all of them, or none.
    let many: Vec<String> = (0..300).map(|n| id(today() + i64::try_from(n % 9).unwrap(), 100 + n)).collect();
    let mut many: Vec<&str> = many.iter().map(String::as_str).collect();
    many.sort_unstable();
    for is_first in [true, false] {
        let mut tx = begin(&world).await;
        assert!(tx.assume_new(many.len()));
        let written = tx.insert(&table, &many, &rows(&many)).await;
        assert_eq!(written.is_ok_and(|fresh| fresh == vec![true; 300]), is_first);
        if is_first {
            tx.commit().await.unwrap();
        }
    }
    assert_eq!(world.number("SELECT count(*) FROM messages").await, i64::try_from(ids.len()).unwrap() + 300);
    assert_eq!(world.count_in(&world.part(today() + 1)).await, 1 + 34);
}

pub(super) async fn newer_events_update_rows_of_any_part(world: World) {
    let world = world.by_day().await;
    let mut table = world.messages().await;
    table.on_duplicate = OnDuplicate::Update { newer_by: "timestamp".to_owned() };
    let ids = of_all_forms();
    assert!(world.insert(&table, &ids).await.iter().all(|fresh| *fresh));
    world.sql("UPDATE messages SET \"timestamp\" = 5, content = 'old'").await;
    let more: Vec<String> = ids.iter().cloned().chain([id(today() + 1, 77)]).collect();
    assert_eq!(world.insert(&table, &more).await.iter().filter(|fresh| **fresh).count(), 1);
    assert_eq!(world.number("SELECT count(*) FROM messages WHERE content = 'old'").await, 0);
}

pub(super) async fn rows_of_any_id_are_kept_and_it_is_done_once(world: World) {
    let (table, ids) = (world.messages().await, of_all_forms());
    world.insert(&table, &ids).await;
    let done = world.store.partition_messages().await.unwrap();
    let Some(Converted { moved, .. }) = done.converted else { panic!("{done:?}") };
    if world.kind == "postgres" {
        let stay =
            ids.iter().filter(|id| id.as_str() > &bound(18_262)[1..] && id.as_str() < &bound(today() + 1)[1..]).count();
        assert_eq!(moved, u64::try_from(ids.len() - stay).unwrap());
        assert_eq!(world.count_in("messages_before").await, i64::try_from(stay).unwrap());
    }
    let again = world.store.partition_messages().await.unwrap();
    assert!(again.converted.is_none() && again.upkeep.made.is_empty() && again.upkeep.ahead == 7, "{again:?}");
    world.store.migrate().await.unwrap();
    world.store.check().await.unwrap();
    let table = world.messages().await;
    assert!(!world.insert(&table, &ids).await.iter().any(|fresh| *fresh));
    assert_eq!(world.number("SELECT count(*) FROM readable_messages").await, i64::try_from(ids.len()).unwrap());
}

/// Writes ids of today and the days after it until it is told to stop; gives what was acknowledged.
async fn write_on(store: Arc<dyn Store>, table: Table, stop: Arc<AtomicBool>) -> Vec<String> {
    let mut acknowledged = Vec::new();
    for batch in 0_u64.. {
        if stop.load(Ordering::Relaxed) && batch > 20 {
            break;
        }
        let of_batch = |n: u64| {
            if n.is_multiple_of(10) { format!("w-{batch}-{n}") } else { id(today() + 1, 1 << 32 | batch << 8 | n) }
        };
        let ids: Vec<String> = (0..50).map(of_batch).collect();
        loop {
            match write(&*store, &table, &ids).await {
                Ok(fresh) => break assert_eq!(fresh, [true; 50]),
                Err(error) => assert!(matches!(error.fault, Fault::Busy | Fault::TooSlow), "{error}"),
            }
        }
        acknowledged.extend(ids);
    }
    acknowledged
}

pub(super) async fn workers_write_on_while_it_is_converted(world: World) {
    let table = world.messages().await;
    let old: Vec<String> = (0..2_000).map(|n| id(today() - i64::try_from(n % 50).unwrap(), n)).collect();
    world.insert(&table, &old).await;
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..3_u64)
        .map(|n| {
            let table = table.clone();
            let (store, stop) = (world.open(config::Store::default()), Arc::clone(&stop));
            tokio::spawn(async move { (n, Box::pin(write_on(store, table, stop)).await) })
        })
        .take(1)
        .collect();
    let done = world.store.partition_messages().await.unwrap();
    assert!(done.converted.is_some());
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        let (_, ids) = writer.await.unwrap();
        for ids in ids.chunks(50) {
            assert!(!world.insert(&table, ids).await.iter().any(|fresh| *fresh));
        }
        let all = i64::try_from(old.len() + ids.len()).unwrap();
        assert_eq!(world.number("SELECT count(*) FROM messages").await, all);
    }
}

/// Turns until nothing is left to drop.
async fn dropped(store: &dyn Store) -> Vec<String> {
    let mut dropped = Vec::new();
    for _ in 0..60 {
        let upkeep = store.keep_days().await.unwrap().unwrap();
        dropped.extend(upkeep.dropped);
        if upkeep.overdue == 0 {
            return dropped;
        }
    }
    panic!("only {dropped:?} were dropped");
}

pub(super) async fn days_go_while_others_write_and_what_is_of_no_day_stays(world: World) {
    let world = world.by_day().await.since(5).await;
    let table = world.messages().await;
    let now = today();
    let ids: Vec<String> = (-9..3).map(|days| id(now + days, 1)).collect();
    world.insert(&table, &ids).await;
    let strays = [stray(now - 9, 5), stray(now - 4, 5), stray(now - 4, 6), id(now - 5, 7).to_uppercase()];
    world.insert(&table, &strays).await;
    let keeping = world.keeping(2);
    let before = keeping.days().await.unwrap().unwrap();
    assert_eq!((before.overdue, before.dropped.len()), (3, 0), "{before:?}");

    let stop = Arc::new(AtomicBool::new(false));
    let writing = tokio::spawn(write_on(world.open(config::Store::default()), table.clone(), Arc::clone(&stop)));
    let gone = dropped(&*keeping).await;
    stop.store(true, Ordering::Relaxed);
    let written = writing.await.unwrap();

    let first = if world.kind == "mysql" { "weir_before" } else { "messages_before" };
    assert_eq!(gone, [first.to_owned(), world.part(now - 5), world.part(now - 4)]);
    let left = i64::try_from(6 + strays.len() + written.len()).unwrap();
    assert_eq!(world.number("SELECT count(*) FROM messages").await, left);
    assert!(!world.insert(&table, &strays).await.iter().any(|fresh| *fresh), "strays stay known");
    assert!(!world.insert(&table, &ids[6..]).await.iter().any(|fresh| *fresh));
    let after = keeping.keep_days().await.unwrap().unwrap();
    assert_eq!((after.dropped.len(), after.made.len(), after.overdue), (0, 0, 0), "{after:?}");
    assert!(after.known_from_ms >= (now - 3) * DAY_MS, "{after:?}");
    let without = world.store.days().await.unwrap().unwrap();
    assert_eq!(without.known_from_ms, (now - 3) * DAY_MS, "whoever keeps for ever refuses what is gone as well");
    assert!(world.insert(&table, &[stray(now - 4, 9)]).await[0], "an id of no day is taken whatever it looks like");
}

pub(super) async fn a_day_with_too_many_strays_is_kept_and_said_so(world: World) {
    let world = world.by_day().await.since(5).await;
    let table = world.messages().await;
    let strays: Vec<String> = (0..10_001).map(|n| stray(today() - 5, n)).collect();
    for strays in strays.chunks(1_000) {
        world.insert(&table, strays).await;
    }
    let Upkeep { kept, overdue, .. } = world.keeping(2).keep_days().await.unwrap().unwrap();
    assert!(kept.len() == 1 && kept[0].contains(&world.part(today() - 5)) && kept[0].contains("UUIDv7"), "{kept:?}");
    assert!(overdue >= 1);
    assert_eq!(world.number("SELECT count(*) FROM messages").await, 10_001);
}

pub(super) async fn a_drop_that_would_wait_is_put_off_and_holds_nobody_up(world: World) {
    let world = world.by_day().await.since(5).await;
    let table = world.messages().await;
    let patient = config::Store { idle_in_transaction_timeout: DAY, ..config::Store::default() };
    let mut reading = world.open(patient).begin().await.unwrap();
    reading.existing(&table.key, &["m"]).await.unwrap();
    let keeping = world.keeping(2);
    let upkeep = keeping.keep_days().await.unwrap().unwrap();
    assert!(upkeep.dropped.is_empty() && !upkeep.kept.is_empty(), "{upkeep:?}");
    assert_eq!(upkeep.overdue, 3);
    assert!(world.insert(&table, &[id(today(), 1)]).await[0]);
    reading.rollback().await.unwrap();
    assert_eq!(dropped(&*keeping).await.len(), 3);
}

pub(super) async fn a_day_that_is_made_late_takes_its_rows(world: World) {
    let world = world.by_day().await;
    let (table, day) = (world.messages().await, today() + 7);
    let part = world.part(day);
    match world.kind {
        "mysql" => {
            let ahead = format!("PARTITION weir_ahead VALUES LESS THAN ({})", bound(47_482));
            world.sql(&format!("ALTER TABLE messages REORGANIZE PARTITION {part}, weir_ahead INTO ({ahead})")).await;
        }
        _ => world.sql(&format!("DROP TABLE {part}")).await,
    }
    assert_eq!(world.store.days().await.unwrap().unwrap().ahead, 6);
    world.insert(&table, &[id(day, 1), id(day + 1, 1), "m-1".to_owned()]).await;
    let upkeep = world.store.keep_days().await.unwrap().unwrap();
    assert_eq!((upkeep.made, upkeep.ahead), (vec![part.clone()], 7));
    assert_eq!(world.count_in(&part).await, 1);
    assert_eq!(world.number("SELECT count(*) FROM messages").await, 3);
}

pub(super) async fn a_table_that_is_not_like_messages_is_left_as_it_is(world: World) {
    let index = if world.kind == "mysql" { "conversation(20), \"timestamp\"" } else { "conversation, \"timestamp\"" };
    world.sql(&format!("CREATE UNIQUE INDEX by_conversation ON messages ({index})")).await;
    world.insert(&world.messages().await, &[id(today(), 1)]).await;
    let refused = world.store.partition_messages().await.unwrap_err();
    assert!(refused.fault == Fault::Hold && refused.message.contains("index by_conversation is unique"), "{refused}");
    assert!(world.store.days().await.unwrap().is_none());
    assert_eq!(world.number("SELECT count(*) FROM messages").await, 1);
}

#[tokio::test]
async fn sqlite_has_no_days() {
    let world = World::sqlite().await;
    let refused = world.store.partition_messages().await.unwrap_err();
    assert!(refused.to_string().contains("SQLite has no partitions"), "{refused}");
    assert!(world.store.days().await.unwrap().is_none() && world.store.keep_days().await.unwrap().is_none());
}

#[tokio::test]
async fn texts_of_any_collation_and_uuids_are_divided_by_their_bytes_and_rights_are_kept_on_postgres() {
    for (kind, key) in
        [("text COLLATE \"und-x-icu\"", "text"), ("varchar(64)", "character varying(64)"), ("uuid", "uuid")]
    {
        let world = World::postgres().await;
        world.sql("DROP VIEW readable_messages; DROP TABLE messages").await;
        world
            .sql(&format!(
                "CREATE TABLE messages (message_id {kind} CONSTRAINT by_id PRIMARY KEY, conversation text NOT NULL, note text
                     DEFAULT 'x' CHECK (note <> ''));
                 CREATE INDEX ON messages (conversation);
                 CREATE VIEW readable_messages AS SELECT message_id, note FROM messages;
                 GRANT SELECT, INSERT ON messages TO PUBLIC; GRANT SELECT ON readable_messages TO PUBLIC"
            ))
            .await;
        for id in [id(today(), 1), id(today() + 1, 2), "f47ac10b-58cc-4372-a567-0e02b2c3d479".to_owned()] {
            world.sql(&format!("INSERT INTO messages VALUES ('{id}', 'c')")).await;
        }
        let done = world.store.partition_messages().await.unwrap();
        assert_eq!(done.converted.unwrap().moved, 2);
        let is = async |condition: &str| {
            assert_eq!(world.number(&format!("SELECT ({condition})::int::bigint")).await, 1, "{kind}: {condition}");
        };
        let typed = "(SELECT format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = 'messages'::regclass AND attnum = 1)";
        is(&format!("{typed} = '{key}'")).await;
        is("has_table_privilege('public', 'messages', 'INSERT') AND has_table_privilege('public', 'messages', 'SELECT')").await;
        is("has_table_privilege('public', 'readable_messages', 'SELECT')").await;
        is("NOT has_table_privilege('public', 'messages', 'DELETE')").await;
        is("(SELECT count(*) FROM readable_messages WHERE note = 'x') = 3").await;
        is("(SELECT count(*) FROM messages_before) = 1").await;
        is(&format!("(SELECT count(*) FROM {}) = 1", world.part(today() + 1))).await;
        is("(SELECT count(*) FROM pg_index WHERE indrelid = 'messages'::regclass AND indisvalid) = 2").await;
        let described = world.store.describe("messages").await.unwrap();
        assert!(described[0].unique && described[2].has_default);
    }
}

#[tokio::test]
async fn what_would_be_lost_by_converting_is_named_on_postgres() {
    let world = World::postgres().await;
    world
        .sql(
            "CREATE VIEW mine AS SELECT content FROM messages; CREATE VIEW others AS SELECT content FROM readable_messages;
             CREATE TABLE likes (message_id text REFERENCES messages);
             CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
             CREATE TRIGGER told AFTER INSERT ON messages FOR EACH ROW EXECUTE FUNCTION f();
             CREATE TABLE messages_other ()",
        )
        .await;
    let refused = world.store.partition_messages().await.unwrap_err().to_string();
    let named =
        ["view mine", "view others over readable_messages", "foreign key", "trigger told", "messages_other is taken"];
    assert!(named.iter().all(|name| refused.contains(name)), "{refused}");
    assert_eq!(world.number("SELECT count(*) FROM pg_class WHERE relname = 'messages_by_bytes'").await, 0);
}

#[tokio::test]
async fn a_drop_that_was_cut_off_is_taken_up_on_mariadb() {
    let world = World::mysql().await.by_day().await.since(5).await;
    let (table, part) = (world.messages().await, world.part(today() - 5));
    let (gone, stays) = (id(today() - 5, 1), stray(today() - 5, 2));
    world.insert(&table, &[gone, stays.clone()]).await;
    world.sql("CREATE TABLE weir_dropping LIKE messages").await;
    world.sql("ALTER TABLE weir_dropping REMOVE PARTITIONING").await;
    world.sql(&format!("ALTER TABLE messages EXCHANGE PARTITION {part} WITH TABLE weir_dropping")).await;
    assert_eq!(world.number("SELECT count(*) FROM messages").await, 0);
    assert_eq!(dropped(&*world.keeping(2)).await.len(), 3);
    assert!(!world.insert(&table, &[stays]).await[0]);
    assert_eq!(world.number("SELECT count(*) FROM messages").await, 1);
}
