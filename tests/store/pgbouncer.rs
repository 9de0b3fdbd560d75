//! What a pooler in transaction mode could break: the suite of promises is asked through one too (`behind_pgbouncer`).

use sqlx::ConnectOptions as _;
use sqlx::postgres::PgConnectOptions;

use super::pgbouncer::Bouncer;
use super::*;
use weir::config::Pooler;

fn told(bouncer: &Bouncer, pooler: Option<Pooler>) -> Arc<dyn Store> {
    open(&bouncer.url("weir"), config::Store { pooler, ..config::Store::default() })
}

#[tokio::test]
async fn behind_pgbouncer_time_outs_hold_and_end_with_their_transaction() {
    let world = World::pooled("default_pool_size = 1").await;
    let second = Duration::from_secs(1);
    let store = world.open(config::Store { idle_in_transaction_timeout: second, ..config::Store::default() });
    let mut tx = store.begin().await.unwrap();
    for (name, value) in
        [("statement_timeout", "7s"), ("lock_timeout", "2s"), ("idle_in_transaction_session_timeout", "1s")]
    {
        let show = format!("SELECT current_setting('{name}')");
        let found: String = sqlx::query_scalar(AssertSqlSafe(show)).fetch_one(tx.postgres().unwrap()).await.unwrap();
        assert_eq!(found, value, "{name}");
    }
    tx.rollback().await.unwrap();
    // The same session, given to somebody else.
    let mut other = PgConnection::connect(&format!("{}?statement-cache-capacity=0", world.url)).await.unwrap();
    for name in ["statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"] {
        let show = sqlx::raw_sql(AssertSqlSafe(format!("SHOW {name}"))).fetch_one(&mut other).await.unwrap();
        assert_eq!(sqlx::Row::get::<String, _>(&show, 0), "0", "{name} has outlived its transaction");
    }
    // A client that says nothing in its transaction loses it, and with it what it has locked.
    let held = world.claimed(&place(0)).await;
    let mut frozen = store.begin().await.unwrap();
    assert!(passed(frozen.fence(&held, 7, "p").await.unwrap()));
    tokio::time::sleep(3 * second).await;
    let mut heir = begin(&world).await;
    assert!(passed(heir.fence(&held, 8, "p").await.unwrap()));
    heir.commit().await.unwrap();
    assert_eq!(frozen.commit().await.unwrap_err().fault, Fault::TooSlow);
    assert_eq!(world.store.ledger(&place(0)).await.unwrap().unwrap().next_offset, 8);
}

#[tokio::test]
async fn behind_pgbouncer_names_that_others_left_in_a_session_mean_nothing() {
    let world = World::pooled("default_pool_size = 1").await;
    world.claimed(&place(0)).await;
    // Another program of the same driver, which knows nothing of poolers; its names are those that weir's would have.
    let options: PgConnectOptions = world.url.parse().unwrap();
    let mut stranger = options.connect().await.unwrap();
    sqlx::raw_sql("DEALLOCATE ALL").execute(&mut stranger).await.unwrap();
    for n in 0..10 {
        let select = format!("SELECT {n} AS n WHERE $1::text IS NOT NULL");
        sqlx::query(AssertSqlSafe(select)).bind("x").fetch_one(&mut stranger).await.unwrap();
    }
    assert_eq!(world.store.ledger(&place(0)).await.unwrap().unwrap().next_offset, 0);
    let mut tx = begin(&world).await;
    assert!(tx.existing_seen("p", &[("new", "a")]).await.unwrap().is_empty());
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn behind_pgbouncer_migrations_at_once_leave_no_lock_and_no_setting() {
    let world = World::pooled("default_pool_size = 4").await;
    world.sql("DROP SCHEMA public CASCADE; CREATE SCHEMA public").await;
    let (one, other) = (world.open(config::Store::default()), world.open(config::Store::default()));
    let (one, other) = tokio::join!(one.migrate(), other.migrate());
    one.unwrap();
    other.unwrap();
    world.store.check().await.unwrap();
    let locks = "SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database
                  WHERE l.locktype = 'advisory' AND d.datname = current_database()";
    assert_eq!(world.number(locks).await, 0);
    for _ in 0..8 {
        let changed = "SELECT count(*) FROM pg_settings WHERE name = 'client_min_messages' AND setting <> 'notice'";
        assert_eq!(world.number(changed).await, 0);
    }
}

/// With whichever settings PgBouncer is told to pass over.
#[tokio::test]
async fn a_pooler_that_nobody_told_of_is_refused() {
    for passed_over in ["extra_float_digits", "extra_float_digits, options"] {
        let bouncer = Bouncer::start("transaction", &format!("ignore_startup_parameters = {passed_over}"));
        for (pooler, advice) in
            [(None, "store.pooler is not set"), (Some(Pooler::Session), "set store.pooler = \"transaction\"")]
        {
            let refused = told(&bouncer, pooler).reach().await.unwrap_err();
            assert_eq!(refused.fault, Fault::Fatal, "{refused}");
            assert!(refused.to_string().contains(advice), "{pooler:?}: {refused}");
        }
        told(&bouncer, Some(Pooler::Transaction)).reach().await.unwrap();
    }
    let bouncer = Bouncer::start("session", "");
    let refused = told(&bouncer, None).reach().await.unwrap_err();
    assert!(refused.to_string().contains("store.pooler is not set"), "{refused}");
    told(&bouncer, Some(Pooler::Session)).reach().await.unwrap();
    told(&bouncer, Some(Pooler::Transaction)).reach().await.unwrap();
    open(&services::env("POSTGRES_URL"), config::Store::default()).reach().await.unwrap();
}

#[tokio::test]
async fn what_a_pooler_refuses_for_good_is_not_waited_for() {
    let bouncer = Bouncer::start("transaction", "");
    let settings = || config::Store { pooler: Some(Pooler::Transaction), ..config::Store::default() };
    let wrong = bouncer.url("weir").replace("weir:weir@", "weir:wrong@");
    let refused = open(&wrong, settings()).reach().await.unwrap_err();
    assert_eq!(refused.fault, Fault::Hold, "{refused}");
    assert!(refused.to_string().contains("password"), "{refused}");
    let refused = open(&bouncer.url("nothing_of_that_name"), settings()).reach().await.unwrap_err();
    assert_eq!(refused.fault, Fault::Hold, "{refused}");
    let unknown = format!("{}?options[search_path]=other", bouncer.url("weir"));
    let refused = open(&unknown, settings()).reach().await.unwrap_err();
    assert_eq!(refused.fault, Fault::Fatal, "{refused}");
    assert!(refused.to_string().contains("ignore_startup_parameters"), "{refused}");
}
