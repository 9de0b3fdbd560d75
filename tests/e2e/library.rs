//! Pools made by code: typed payloads, handlers of one's own, filters, handlers that panic.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use rdkafka::producer::{FutureProducer, FutureRecord};
use sqlx::Row as _;
use tokio_util::sync::CancellationToken;
use weir::config::{self, Config, Start};
use weir::event::{Event, Payload};
use weir::handler::{Analyze, Answer, Dimension, Each, Error, HandleEach, Rejection};
use weir::payload::{OrderEvent, OrderPaid};
use weir::pool::Pool;
use weir::store::{self, Tx};

use super::world::{World, kafka};
use super::{PATIENCE, until};

/// Adds each payment to its order's sum.
struct Settle {
    /// Turns down payments in this currency.
    refused: &'static str,
}

#[async_trait]
impl HandleEach<OrderPaid> for Settle {
    async fn prepare(&self, event: &Event<OrderPaid>) -> Result<Answer<()>, Error> {
        assert!(event.payload.currency != "BOOM", "a bug in a handler");
        Ok(match event.payload.currency == self.refused {
            true => Answer::Reject(Rejection::by_handler("this currency is not taken")),
            false => Answer::Apply(()),
        })
    }

    async fn apply(&self, tx: &mut dyn Tx, event: &Event<OrderPaid>) -> Result<(), store::Error> {
        assert!(event.payload.currency != "BANG", "a bug in a handler");
        let connection = tx.postgres().expect("the store is PostgreSQL");
        sqlx::query("INSERT INTO sums VALUES ($1, $2) ON CONFLICT (order_id) DO UPDATE SET total = sums.total + $2")
            .bind(event.payload.order_id.to_string())
            .bind(event.payload.amount_minor)
            .execute(connection)
            .await?;
        Ok(())
    }
}

pub(super) fn config(world: &World) -> Config {
    let file = world.dir.join("library.toml");
    std::fs::write(&file, world.config("")).unwrap();
    let mut config = Config::load(&[file], &[]).unwrap();
    config.pools.clear();
    config
}

async fn pay(world: &World, event: &str, order: u32, amount: i64, currency: &str) {
    let producer: FutureProducer = kafka().create().unwrap();
    let value = format!(
        r#"{{"type":"order_paid","event_id":"{event}","order_id":{order},"user_id":7,"amount_minor":{amount},"currency":"{currency}","timestamp":1767225600000}}"#
    );
    let key = order.to_string();
    producer.send(FutureRecord::to(&world.topic).key(&key).payload(&value), PATIENCE).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_made_by_code_is_checked_as_one_from_a_file_is() {
    let world = World::new(1).await;
    for (settings, expected) in [
        (config::Pool { max_poll_records: 0, ..config::Pool::default() }, "max_poll_records` must be greater than 0"),
        (
            config::Pool { handle_ms: Some(100.0), ..config::Pool::default() },
            "500 events x 100 ms = 50000 ms >= 3000 ms",
        ),
    ] {
        let mut config = config(&world);
        config.pools = [(world.pool.clone(), settings)].into();
        let built = Pool::<OrderPaid>::builder(&world.pool)
            .topics([&world.topic])
            .start(Start::Beginning)
            .pipeline("settle", Each(Settle { refused: "" }))
            .build(&config);
        let Err(error) = built else { panic!("expected {expected}") };
        assert!(error.to_string().contains(expected), "{error}");
    }
}

pub(super) struct Running {
    stop: CancellationToken,
    done: tokio::task::JoinHandle<Result<(), weir::pool::Error>>,
}

impl Running {
    pub(super) fn start<T: Payload>(pool: Pool<T>) -> Self {
        let stop = CancellationToken::new();
        Self { done: tokio::spawn(pool.run(stop.clone())), stop }
    }

    pub(super) async fn stop(self) {
        self.stop.cancel();
        self.done.await.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_typed_pool_applies_each_payment_once_and_sets_aside_what_its_handler_cannot_take() {
    let world = World::new(2).await;
    world.sql("CREATE TABLE sums (order_id text PRIMARY KEY, total bigint NOT NULL)").await;
    for (event, order, amount, currency) in [
        ("e1", 1, 100, "EUR"),
        ("e1", 1, 100, "EUR"),
        ("e2", 1, 50, "EUR"),
        ("e3", 2, 70, "XXX"),
        ("e4", 2, 7, "BOOM"),
        ("e5", 2, 7, "BANG"),
        ("e6", 2, 30, "EUR"),
        ("e7", 2, 999, "USD"),
    ] {
        pay(&world, event, order, amount, currency).await;
    }
    let pool = Pool::<OrderPaid>::builder(&world.pool)
        .topics([&world.topic])
        .start(Start::Beginning)
        .pipeline_when("settle", |event| Ok(event.payload.currency != "USD"), Each(Settle { refused: "XXX" }))
        .pipeline_when("stats", |event| Ok(event.payload.currency != "USD"), Analyze::new([Dimension::Type]))
        .build(&config(&world))
        .unwrap();
    let running = Running::start(pool);
    world.drained(PATIENCE).await;
    running.stop().await;

    let sums: Vec<(String, i64)> =
        sqlx::query_as("SELECT * FROM sums ORDER BY 1").fetch_all(world.db.postgres()).await.unwrap();
    assert_eq!(sums, [("1".to_owned(), 150), ("2".to_owned(), 30)]);
    assert_eq!(
        world.count("SELECT sum(count)::bigint FROM message_stats").await,
        3,
        "counted without an effect, or twice"
    );
    let dead: Vec<(String, String, String)> =
        sqlx::query_as("SELECT event_id, pipeline, reason FROM weir_dead ORDER BY 1")
            .fetch_all(world.db.postgres())
            .await
            .unwrap();
    let expected = ["e3", "e4", "e5"].map(|id| (id.to_owned(), "settle".to_owned(), "handler".to_owned()));
    assert_eq!(dead, expected);
    assert_eq!(world.count("SELECT count(*) FROM weir_seen").await, 3, "only what was applied is claimed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_good_copy_of_a_dead_id_settles_it_and_a_bad_copy_of_a_live_one_changes_nothing() {
    let world = World::new(1).await;
    world.sql("CREATE TABLE sums (order_id text PRIMARY KEY, total bigint NOT NULL)").await;
    let pool = Pool::<OrderPaid>::builder(&world.pool)
        .topics([&world.topic])
        .start(Start::Beginning)
        .pipeline("settle", Each(Settle { refused: "XXX" }))
        .build(&config(&world))
        .unwrap();
    let running = Running::start(pool);
    pay(&world, "a", 1, 5, "XXX").await;
    pay(&world, "b", 2, 6, "EUR").await;
    world.drained(PATIENCE).await;
    assert_eq!(world.count("SELECT count(*) FROM weir_dead").await, 1);
    pay(&world, "a", 1, 5, "EUR").await;
    pay(&world, "b", 2, 6, "XXX").await;
    world.drained(PATIENCE).await;
    running.stop().await;
    assert_eq!(world.count("SELECT count(*) FROM weir_dead").await, 0);
    assert_eq!(world.count("SELECT sum(total)::bigint FROM sums").await, 11);
}

/// Reads a whole row of its own table for each payment.
struct Convert;

#[async_trait]
impl HandleEach<OrderPaid> for Convert {
    async fn apply(&self, tx: &mut dyn Tx, event: &Event<OrderPaid>) -> Result<(), store::Error> {
        let connection = tx.postgres().expect("the store is PostgreSQL");
        let rate = sqlx::query("SELECT * FROM rates").fetch_one(&mut *connection).await?;
        sqlx::query("INSERT INTO converted VALUES ($1, $2)")
            .bind(event.id.as_str())
            .bind(rate.get::<i64, _>("rate"))
            .execute(connection)
            .await?;
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_changes_under_a_handlers_prepared_statement_holds_nothing_up() {
    let world = World::new(1).await;
    world.sql("CREATE TABLE rates (rate bigint NOT NULL); INSERT INTO rates VALUES (3)").await;
    world.sql("CREATE TABLE converted (event_id text PRIMARY KEY, rate bigint NOT NULL)").await;
    let pool = Pool::<OrderPaid>::builder(&world.pool)
        .topics([&world.topic])
        .start(Start::Beginning)
        .pipeline("convert", Each(Convert))
        .build(&config(&world))
        .unwrap();
    let running = Running::start(pool);
    for round in 0..12 {
        pay(&world, &format!("before{round}"), 1, 1, "EUR").await;
        world.drained(PATIENCE).await;
    }
    world.sql("ALTER TABLE rates ADD COLUMN since text").await;
    pay(&world, "after", 1, 1, "EUR").await;
    world.drained(PATIENCE).await;
    running.stop().await;
    assert_eq!(world.count("SELECT count(*) FROM converted").await, 13);
    assert_eq!(world.count("SELECT count(*) FROM weir_dead").await, 0);
}

/// Takes its time, and tells when it is in the middle of it.
struct Slow {
    entered: Arc<AtomicBool>,
    applied: Arc<AtomicU64>,
}

#[async_trait]
impl HandleEach<OrderPaid> for Slow {
    async fn apply(&self, _tx: &mut dyn Tx, _event: &Event<OrderPaid>) -> Result<(), store::Error> {
        self.entered.store(true, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_secs(3)).await;
        self.applied.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_finishes_the_batch_in_hand_within_the_deadline_and_cuts_it_off_beyond() {
    for (deadline, finishes) in [(Duration::from_secs(15), true), (Duration::from_millis(300), false)] {
        let world = World::new(1).await;
        pay(&world, "a", 1, 5, "EUR").await;
        let (entered, applied) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let handler = Slow { entered: Arc::clone(&entered), applied: Arc::clone(&applied) };
        let mut config = config(&world);
        config.pools.insert(world.pool.clone(), weir::config::Pool { drain_deadline: deadline, ..Default::default() });
        let pool = Pool::<OrderPaid>::builder(&world.pool)
            .topics([&world.topic])
            .start(Start::Beginning)
            .pipeline("slow", Each(handler))
            .build(&config)
            .unwrap();
        let running = Running::start(pool);
        until("the handler to be at work", PATIENCE, async || (entered.load(Ordering::SeqCst), ())).await;
        running.stop.cancel();
        let ended = running.done.await.unwrap();
        assert_eq!(ended.is_ok(), finishes, "{ended:?}");
        assert_eq!(applied.load(Ordering::SeqCst), u64::from(finishes));
        assert_eq!(world.ledger().await, [i64::from(finishes)], "what was cut off left something");
    }
}

/// Notes each event's type and id.
struct Note;

#[async_trait]
impl HandleEach<OrderEvent> for Note {
    async fn apply(&self, tx: &mut dyn Tx, event: &Event<OrderEvent>) -> Result<(), store::Error> {
        let connection = tx.postgres().expect("the store is PostgreSQL");
        sqlx::query("INSERT INTO notes VALUES ($1, $2)")
            .bind(event.payload.kind())
            .bind(event.id.as_str())
            .execute(connection)
            .await?;
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_id_under_two_types_is_two_events() {
    let world = World::new(1).await;
    world.sql("CREATE TABLE notes (type text, id text)").await;
    let producer: FutureProducer = kafka().create().unwrap();
    for kind in ["order_paid", "order_cancelled", "order_paid", "unknown"] {
        let value = format!(
            r#"{{"type":"{kind}","event_id":"e","order_id":1,"user_id":7,"amount_minor":1,"currency":"EUR","timestamp":1767225600000}}"#
        );
        producer.send(FutureRecord::to(&world.topic).key("1").payload(&value), PATIENCE).await.unwrap();
    }
    let pool = Pool::<OrderEvent>::builder(&world.pool)
        .topics([&world.topic])
        .start(Start::Beginning)
        .pipeline("note", Each(Note))
        .build(&config(&world))
        .unwrap();
    let stop = CancellationToken::new();
    let running = tokio::spawn(pool.run(stop.clone()));
    world.drained(PATIENCE).await;
    stop.cancel();
    running.await.unwrap().unwrap();
    let notes: Vec<(String, String)> =
        sqlx::query_as("SELECT * FROM notes ORDER BY 1").fetch_all(world.db.postgres()).await.unwrap();
    assert_eq!(notes, ["order_cancelled", "order_paid"].map(|kind| (kind.to_owned(), "e".to_owned())));
    assert_eq!(world.count("SELECT count(*) FROM weir_dead WHERE reason = 'malformed'").await, 1);
}
