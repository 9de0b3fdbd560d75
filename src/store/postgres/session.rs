//! What a connection is made with and what a transaction begins with, by whether a pooler stands before the database.
//!
//! A pooler in transaction mode gives each transaction whichever of the database's sessions is free. So nothing may outlive
//! its transaction: time-outs are set by `SET LOCAL`, migrations take a lock that ends with theirs, and statements are
//! prepared for one use. The driver gives them names that count up a connection, and another connection's names may be in
//! the session already; so a transaction begins by removing all names from it. A name that was believed to mean what
//! another connection prepared under it would run the wrong statement: a pooler that nobody told of is refused.

use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _, PgConnection, Row as _};

use super::reach::ACTION;
use crate::config::{self, Pooler};
use crate::store::{Error, Fault, Result, fault};

/// A setting that weir gives its sessions when they are made. A pooler refuses it, or does not pass it on.
const MARK: &str = "weir.direct";
const MARKED: &str = "yes";

/// The pooler's own words: PgBouncer, for any setting that it does not know.
const UNKNOWN_SETTING: &str = "unsupported startup parameter";

/// How many turns two connections take. Each turn shows a pooler that hands sessions around, unless it is busy.
const TURNS: usize = 3;

/// # Errors
/// The URL is not one of PostgreSQL.
pub(super) fn options(store: &config::Store) -> Result<PgConnectOptions> {
    let options: PgConnectOptions = store.url.expose().parse().map_err(|error: sqlx::Error| Error {
        fault: Fault::Fatal,
        action: "read store.url",
        message: format!("{error}; expected postgres://USER:PASSWORD@HOST:PORT/DATABASE"),
    })?;
    let options = options.application_name(&format!("weir/{}", std::process::id()));
    Ok(match store.pooler {
        None => options.options([(MARK, MARKED)]),
        // PgBouncer refuses a setting that it cannot keep for a client, and this one changes nothing since PostgreSQL 12.
        Some(Pooler::Session) => options.extra_float_digits(None),
        Some(Pooler::Transaction) => options.extra_float_digits(None).statement_cache_capacity(0),
    })
}

/// Whether a connection keeps its session from one transaction to the next.
pub(super) fn is_kept(pooler: Option<Pooler>) -> bool {
    pooler != Some(Pooler::Transaction)
}

/// What a transaction begins with, in one exchange with the database.
pub(super) fn begin(pooler: Option<Pooler>, settings: &str) -> String {
    begin_as("", pooler, settings)
}

/// The same for a transaction of another kind.
///
/// The driver names the statements that it prepares, and behind a pooler in transaction mode its names meet those of others
/// in the database's session: there they are forgotten first.
pub(super) fn begin_as(kind: &str, pooler: Option<Pooler>, settings: &str) -> String {
    let forget = match pooler {
        Some(Pooler::Transaction) => "DEALLOCATE ALL; ",
        None | Some(Pooler::Session) => "",
    };
    format!("BEGIN{kind}; {forget}{settings}")
}

/// The time-outs of every transaction.
pub(super) fn time_outs(store: &config::Store) -> String {
    let ms = |time_out: Duration| time_out.as_millis();
    format!(
        "SET LOCAL statement_timeout = {}; SET LOCAL idle_in_transaction_session_timeout = {}; \
         SET LOCAL lock_timeout = {}; SET LOCAL tcp_user_timeout = 10000",
        ms(store.statement_timeout),
        ms(store.idle_in_transaction_timeout),
        ms(store.lock_timeout),
    )
}

/// What a refused connection says of a pooler, if that is why it was refused.
pub(super) fn refusal(pooler: Option<Pooler>, error: &sqlx::Error) -> Option<Error> {
    let told = error.as_database_error()?.message();
    let setting = told.split_once(UNKNOWN_SETTING)?.1.trim_start_matches(':').trim();
    Some(match pooler {
        None => untold(),
        Some(_) => mistaken(format!(
            "the pooler knows no setting {setting:?}: add it to ignore_startup_parameters in pgbouncer.ini, or leave it out \
             of store.url"
        )),
    })
}

/// Whether what stands before the database is what the configuration says.
pub(super) async fn look(pooler: Option<Pooler>, options: &PgConnectOptions, db: &mut PgConnection) -> Result<()> {
    let asked = match pooler {
        None => is_marked(db).await.map(|is_marked| if is_marked { Ok(()) } else { Err(untold()) }),
        Some(Pooler::Session) => hands_around(options, db).await.map(|does| {
            let told = "store.pooler is \"session\", and the pooler is in transaction mode: set store.pooler = \"transaction\"";
            if does { Err(mistaken(told.to_owned())) } else { Ok(()) }
        }),
        // That the pooler answers does not say that there is a database behind it.
        Some(Pooler::Transaction) => pid(db).await.map(|_| Ok(())),
    };
    asked.map_err(|error| refusal(pooler, &error).unwrap_or_else(|| fault::error(ACTION, &error)))?
}

fn untold() -> Error {
    mistaken(
        "store.url leads to a connection pooler such as PgBouncer, and store.pooler is not set: set it to \"transaction\" \
         or \"session\", as the pooler's pool_mode is, or name the database itself"
            .to_owned(),
    )
}

fn mistaken(message: String) -> Error {
    Error { fault: Fault::Fatal, action: ACTION, message }
}

async fn is_marked(db: &mut PgConnection) -> sqlx::Result<bool> {
    let sql = format!("SELECT coalesce(current_setting('{MARK}', true), '')");
    let row = sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).fetch_one(db).await?;
    Ok(row.try_get::<String, _>(0)? == MARKED)
}

/// Whether two connections that are open at the same time were given one session of the database.
async fn hands_around(options: &PgConnectOptions, db: &mut PgConnection) -> sqlx::Result<bool> {
    let mut other = Box::pin(options.connect()).await?;
    let mut does = false;
    for _ in 0..TURNS {
        does = does || pid(db).await? == pid(&mut other).await?;
    }
    other.close().await?;
    Ok(does)
}

async fn pid(db: &mut PgConnection) -> sqlx::Result<String> {
    // Without a prepared statement, whose two exchanges could go to two sessions; its answers are texts.
    sqlx::raw_sql("SELECT pg_backend_pid()::text").fetch_one(db).await?.try_get(0)
}
