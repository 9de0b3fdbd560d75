//! Any JSON into any table.

use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};

use super::worker::Worker;
use super::world::{World, kafka};
use super::{PATIENCE, until};

const TABLE: &str = "CREATE TABLE orders (
    order_id text PRIMARY KEY, customer varchar(8) NOT NULL, amount bigint NOT NULL, small smallint, ratio double precision,
    price numeric(10, 2), paid boolean, ref uuid, placed_at timestamptz, detail jsonb, at_offset bigint, version int,
    noted text DEFAULT 'by the database')";

/// The pool's configuration: `persist` into `orders`, with further lines.
fn config(world: &World, lines: &str) -> String {
    let base = world.config("");
    let (head, _) = base.split_once("[[pools.").unwrap();
    let pool = &world.pool;
    format!(
        "{head}[pools.{pool}.event]\nid = \"/order/id\"\ntype = \"/kind\"\ntimestamp = \"/at\"\nuser = \"/customer\"\n\
         [[pools.{pool}.pipelines]]\nname = \"orders\"\nhandler = \"persist\"\ntable = \"orders\"\nkey = \"order_id\"\n{lines}\
         [pools.{pool}.pipelines.columns]\norder_id = \"/order/id\"\ncustomer = \"/customer\"\namount = \"/order/amount\"\n\
         small = \"/order/small\"\nratio = \"/order/ratio\"\nprice = \"/order/price\"\npaid = \"/order/paid\"\nref = \"/order/ref\"\n\
         placed_at = \"/at\"\ndetail = \"/order/lines\"\nat_offset = \"$offset\"\nversion = \"/version\"\n"
    )
}

async fn send(world: &World, value: &str, header: Option<&str>) {
    let producer: FutureProducer = kafka().create().unwrap();
    let mut record = FutureRecord::to(&world.topic).key("k").payload(value);
    if let Some(id) = header {
        record = record.headers(OwnedHeaders::new().insert(Header { key: "ce_id", value: Some(id) }));
    }
    producer.send(record, PATIENCE).await.unwrap();
}

async fn settle(world: &World, lines: &str) {
    let mut worker = Worker::start_configured(world, &config(world, lines)).await;
    world.drained(PATIENCE).await;
    let (status, _) = worker.terminate();
    assert!(status.success(), "{}", worker.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_become_columns_and_what_a_column_cannot_hold_is_set_aside_with_its_reason() {
    let world = World::new(1).await;
    world.sql(TABLE).await;
    let full = r#"{"kind":"order","at":1767225600123,"customer":"Zoë","version":3,"ignored":{"deep":[1,2,{"x":null}]},
        "order":{"id":"o1","amount":9007199254740993,"small":-32768,"ratio":0.1,"price":12.34,"paid":true,
        "ref":"A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11","lines":[{"sku":"a \"quoted\"","n":2},{}]}}"#;
    send(&world, full, None).await;
    send(&world, r#"{"at":"2026-01-01T00:00:00Z","customer":"c","order":{"amount":1}}"#, Some("from-header")).await;
    let bad = [
        ("b1", r#""customer":"far too long","order":{"id":"b1","amount":1}"#, "customer"),
        ("b2", r#""customer":"c","order":{"id":"b2","amount":9223372036854775808}"#, "amount"),
        ("b3", r#""customer":"c","order":{"id":"b3","amount":1,"small":40000}"#, "small"),
        ("b4", r#""customer":"c","order":{"id":"b4","amount":1,"paid":"yes"}"#, "paid"),
        ("b5", r#""customer":"c","order":{"id":"b5","amount":1,"ref":"no uuid"}"#, "ref"),
        ("b6", r#""customer":"c","order":{"id":"b6","amount":1,"lines":{"a":"\u0000"}}"#, "detail"),
        ("b7", r#""customer":"c\u0000","order":{"id":"b7","amount":1}"#, "customer"),
        ("b8", r#""customer":null,"order":{"id":"b8","amount":1}"#, "customer"),
        ("b9", r#""customer":["c"],"order":{"id":"b9","amount":1}"#, "customer"),
    ];
    for (_, fields, _) in bad {
        send(&world, &format!("{{\"at\":1,{fields}}}"), None).await;
    }
    // Within the column's type, and beyond its precision: only the database finds it.
    send(&world, r#"{"at":1,"customer":"c","order":{"id":"b10","amount":1,"price":123456789012}}"#, None).await;
    settle(&world, "").await;

    let row: (String, i64, i16, f64, String, bool, String, String, String, i32, String) = sqlx::query_as(
        "SELECT customer, amount, small, ratio, price::text, paid, ref::text, (placed_at AT TIME ZONE 'UTC')::text, detail::text,
                version, noted FROM orders WHERE order_id = 'o1'",
    )
    .fetch_one(world.db.postgres())
    .await
    .unwrap();
    assert_eq!(row.0, "Zoë");
    assert_eq!((row.1, row.2, row.3, row.4.as_str(), row.5), (9_007_199_254_740_993, -32_768, 0.1, "12.34", true));
    assert_eq!(row.6, "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11");
    assert_eq!(row.7, "2026-01-01 00:00:00.123");
    assert_eq!(row.8, r#"[{"n": 2, "sku": "a \"quoted\""}, {}]"#);
    assert_eq!((row.9, row.10.as_str()), (3, "by the database"));
    assert_eq!(world.count("SELECT count(*) FROM orders WHERE order_id = 'from-header' AND paid IS NULL").await, 1);
    assert_eq!(world.count("SELECT count(*) FROM orders").await, 2);
    let dead: Vec<(String, String, String)> =
        sqlx::query_as("SELECT event_id, reason, message FROM weir_dead").fetch_all(world.db.postgres()).await.unwrap();
    assert_eq!(dead.len(), bad.len() + 1);
    for (id, _, column) in bad {
        let (_, reason, message) =
            dead.iter().find(|(dead, ..)| dead == id).unwrap_or_else(|| panic!("{id} is not dead"));
        assert!(reason == "refused" && message.contains(column), "{id}: {reason}: {message}");
    }
    assert!(dead.iter().any(|(id, reason, _)| id == "b10" && reason == "refused"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_good_copy_of_an_undecodable_event_removes_its_dead_row_in_whatever_spelling() {
    let world = World::new(1).await;
    world.sql(&TABLE.replace("order_id text", "order_id uuid")).await;
    let id = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11";
    send(&world, "{ not JSON", Some(&id.to_uppercase())).await;
    let mut worker = Worker::start_configured(&world, &config(&world, "")).await;
    until("the dead row", PATIENCE, async || {
        let dead = world.count("SELECT count(*) FROM weir_dead WHERE published_at IS NOT NULL").await;
        (dead == 1, dead)
    })
    .await;
    send(&world, &format!(r#"{{"at":1,"customer":"c","order":{{"id":"{id}","amount":1}}}}"#), None).await;
    world.drained(PATIENCE).await;
    assert_eq!(world.count("SELECT count(*) FROM orders").await, 1);
    assert_eq!(world.count("SELECT count(*) FROM weir_dead").await, 0);
    let (status, _) = worker.terminate();
    assert!(status.success(), "{}", worker.log());
}

fn version(id: &str, version: u32, amount: u32) -> String {
    format!(r#"{{"at":1,"customer":"c","version":{version},"order":{{"id":"{id}","amount":{amount}}}}}"#)
}

#[tokio::test(flavor = "multi_thread")]
async fn on_duplicate_update_keeps_the_newest_in_whatever_order_and_batch_versions_come() {
    let world = World::new(1).await;
    world.sql(TABLE).await;
    let lines = "on_duplicate = \"update\"\nnewer_by = \"version\"\n";
    // In one batch.
    for (id, of, amount) in [("a", 2, 20), ("a", 3, 30), ("a", 1, 10), ("b", 5, 50)] {
        send(&world, &version(id, of, amount), None).await;
    }
    settle(&world, lines).await;
    // In a later one.
    for (id, of, amount) in [("a", 2, 21), ("b", 6, 60), ("b", 6, 61)] {
        send(&world, &version(id, of, amount), None).await;
    }
    settle(&world, lines).await;
    let rows: Vec<(String, i32, i64)> = sqlx::query_as("SELECT order_id, version, amount FROM orders ORDER BY 1")
        .fetch_all(world.db.postgres())
        .await
        .unwrap();
    assert_eq!(rows, [("a".to_owned(), 3, 30), ("b".to_owned(), 6, 60)]);
    assert_eq!(world.count("SELECT count(*) FROM weir_dead").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_without_a_unique_key_or_a_column_is_refused_at_start_with_what_to_do() {
    let world = World::new(1).await;
    for (table, expected) in [
        (TABLE.replace("text PRIMARY KEY", "text NOT NULL"), "unique key"),
        (TABLE.replace("paid boolean, ", ""), "no such column"),
        (TABLE.replace("noted text DEFAULT 'by the database'", "needed text NOT NULL"), "needed"),
    ] {
        world.sql(&format!("DROP TABLE IF EXISTS orders; {table}")).await;
        let run = world.weir_with(&config(&world, ""), &["run"]).output().unwrap();
        let stderr = String::from_utf8_lossy(&run.stderr);
        assert_eq!(run.status.code(), Some(2), "{stderr}");
        assert!(stderr.contains(expected), "{stderr}");
    }
    world.sql("DROP TABLE orders").await;
    let run = world.weir_with(&config(&world, ""), &["run"]).output().unwrap();
    let stderr = String::from_utf8_lossy(&run.stderr);
    assert_eq!(run.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("no table \"orders\""), "{stderr}");
}
