//! The database of a test, of either kind: what the tests of the core ask of it.

use std::collections::HashSet;
use std::path::Path;

use sqlx::mysql::MySqlPoolOptions;
use sqlx::postgres::PgPoolOptions;
use sqlx::{AssertSqlSafe, MySqlPool, PgPool};
use uuid::Uuid;

use super::services;

/// Partition, owner, next offset.
pub(crate) type LedgerRow = (i32, Option<Uuid>, i64);

#[derive(Clone)]
pub(crate) enum Database {
    Postgres(PgPool),
    Mariadb(MySqlPool),
}

impl Database {
    pub(crate) async fn make(service: &str, name: &str) -> Self {
        match service {
            "mariadb" => {
                let server = MySqlPool::connect(&services::env("MYSQL_URL")).await.unwrap();
                let create = format!("CREATE DATABASE {name} CHARACTER SET utf8mb4");
                sqlx::raw_sql(AssertSqlSafe(create)).execute(&server).await.unwrap();
                server.close().await;
                let pool = MySqlPoolOptions::new().max_connections(4).connect(&address("MYSQL_URL", name)).await;
                Self::Mariadb(pool.unwrap())
            }
            _ => {
                server_sql(&format!("CREATE DATABASE {name}")).await;
                let pool = PgPoolOptions::new().max_connections(4).connect(&address("POSTGRES_URL", name)).await;
                Self::Postgres(pool.unwrap())
            }
        }
    }

    /// Its service's name.
    pub(crate) fn service(&self) -> &'static str {
        match self {
            Self::Postgres(_) => "postgres",
            Self::Mariadb(_) => "mariadb",
        }
    }

    pub(crate) fn address(&self, name: &str) -> String {
        match self {
            Self::Postgres(_) => address("POSTGRES_URL", name),
            Self::Mariadb(_) => address("MYSQL_URL", name),
        }
    }

    pub(crate) async fn remove(service: &str, name: &str) {
        match service {
            "mariadb" => {
                let server = MySqlPool::connect(&services::env("MYSQL_URL")).await.unwrap();
                sqlx::raw_sql(AssertSqlSafe(format!("DROP DATABASE IF EXISTS {name}"))).execute(&server).await.unwrap();
            }
            _ => server_sql(&format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).await,
        }
    }

    pub(crate) fn postgres(&self) -> &PgPool {
        match self {
            Self::Postgres(pool) => pool,
            Self::Mariadb(_) => panic!("this test asks PostgreSQL"),
        }
    }

    pub(crate) async fn count(&self, sql: &str) -> i64 {
        let sql_text = AssertSqlSafe(sql.to_owned());
        let counted = match self {
            Self::Postgres(pool) => sqlx::query_scalar(sql_text).fetch_one(pool).await,
            Self::Mariadb(pool) => sqlx::query_scalar(sql_text).fetch_one(pool).await,
        };
        counted.unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    pub(crate) async fn sql(&self, sql: &str) {
        let sql_text = sqlx::raw_sql(AssertSqlSafe(sql.to_owned()));
        let done = match self {
            Self::Postgres(pool) => sql_text.execute(pool).await.map(drop),
            Self::Mariadb(pool) => sql_text.execute(pool).await.map(drop),
        };
        done.unwrap_or_else(|error| panic!("{sql}: {error}"));
    }

    pub(crate) async fn texts(&self, column: &str, table: &str) -> Vec<String> {
        match self {
            Self::Postgres(pool) => sqlx::query_scalar(AssertSqlSafe(format!("SELECT {column} FROM {table}")))
                .fetch_all(pool)
                .await
                .unwrap(),
            Self::Mariadb(pool) => {
                let sql = format!("SELECT CAST({column} AS CHAR) FROM {table}");
                sqlx::query_scalar(AssertSqlSafe(sql)).fetch_all(pool).await.unwrap()
            }
        }
    }

    /// A group's ledger for a topic's id.
    pub(crate) async fn ledger(&self, group: &str, topic_id: Uuid) -> sqlx::Result<Vec<LedgerRow>> {
        match self {
            Self::Postgres(pool) => {
                sqlx::query_as(
                    "SELECT partition, owner, next_offset FROM weir_ledger WHERE group_name = $1 AND topic_id = $2
                      ORDER BY 1",
                )
                .bind(group)
                .bind(topic_id)
                .fetch_all(pool)
                .await
            }
            Self::Mariadb(pool) => {
                let rows: Vec<(i32, Option<String>, i64)> = sqlx::query_as(
                    "SELECT `partition`, owner, next_offset FROM weir_ledger WHERE group_name = ? AND topic_id = ?
                      ORDER BY 1",
                )
                .bind(group)
                .bind(topic_id.to_string())
                .fetch_all(pool)
                .await?;
                let owner = |owner: Option<String>| owner.map(|owner| owner.parse().unwrap());
                Ok(rows.into_iter().map(|(partition, by, next)| (partition, owner(by), next)).collect())
            }
        }
    }

    /// Whether one of a process's connections is inside a transaction of a batch.
    pub(crate) async fn is_inside_transaction(&self, pid: u32) -> bool {
        match self {
            Self::Postgres(_) => {
                self.count(&format!(
                    "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'weir/{pid}' AND datname = current_database()
                        AND (state = 'idle in transaction' OR (state = 'active' AND xact_start IS NOT NULL))
                        AND query NOT ILIKE 'COMMIT%' AND backend_xid IS NOT NULL"
                ))
                .await
                    > 0
            }
            // MariaDB knows its clients by their ports alone.
            Self::Mariadb(_) => {
                let ports = ports_of(pid);
                if ports.is_empty() {
                    return false;
                }
                let hosts: Vec<String> = ports.iter().map(|port| format!("'127.0.0.1:{port}'")).collect();
                self.count(&format!(
                    "SELECT count(*) FROM information_schema.innodb_trx t JOIN information_schema.processlist p
                         ON p.id = t.trx_mysql_thread_id
                      WHERE p.host IN ({}) AND t.trx_rows_modified > 0 AND coalesce(p.info, '') NOT LIKE 'COMMIT%'",
                    hosts.join(", ")
                ))
                .await
                    > 0
            }
        }
    }

    /// How many counters of the view differ from a recount of the rows, in every dimension.
    pub(crate) async fn wrong_counters(&self) -> i64 {
        let minute = match self {
            Self::Postgres(_) => "to_timestamp((timestamp / 60000) * 60)",
            Self::Mariadb(_) => "TIMESTAMP '1970-01-01 00:00:00' + INTERVAL timestamp DIV 60000 MINUTE",
        };
        let recount = format!(
            "WITH minutes AS (SELECT {minute} AS minute, sender FROM messages),
                  recount AS (
                SELECT minute, 'type' AS dimension, 'new_message' AS member, count(*) AS count FROM minutes GROUP BY minute
                UNION ALL SELECT minute, 'user', sender, count(*) FROM minutes GROUP BY minute, sender
                UNION ALL SELECT minute, 'active_users', '', count(DISTINCT sender) FROM minutes GROUP BY minute)"
        );
        let columns = "minute, dimension, member, count";
        let mut wrong = 0;
        for (one, other) in [("recount", "message_stats"), ("message_stats", "recount")] {
            wrong += self
                .count(&format!(
                    "{recount} SELECT count(*) FROM (SELECT {columns} FROM {one} EXCEPT SELECT {columns} FROM {other}) AS d"
                ))
                .await;
        }
        wrong
    }

    /// How many rows of a conversation took effect before one that stands in front of them, but for some ids.
    pub(crate) async fn overtaken(&self, but: &HashSet<String>) -> i64 {
        let id = match self {
            Self::Postgres(_) => "text",
            Self::Mariadb(_) => "varchar(512) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin",
        };
        self.sql(&format!("DROP TABLE IF EXISTS elsewhere; CREATE TABLE elsewhere (id {id} PRIMARY KEY)")).await;
        let but: Vec<String> = but.iter().map(|id| format!("('{}')", id.replace('\'', "''"))).collect();
        for ids in but.chunks(1_000) {
            self.sql(&format!("INSERT INTO elsewhere VALUES {}", ids.join(", "))).await;
        }
        self.count(
            "SELECT count(*) FROM (SELECT received_at < lag(received_at) OVER (PARTITION BY conversation ORDER BY timestamp)
                                          AS overtaken FROM messages WHERE message_id NOT IN (SELECT id FROM elsewhere)) x
              WHERE overtaken",
        )
        .await
    }
}

/// A database's address beside the one that the services tell.
fn address(variable: &str, name: &str) -> String {
    let url = services::env(variable);
    format!("{}/{name}", url.rsplit_once('/').expect("the address names a database").0)
}

/// Runs SQL where no database of a test is open.
pub(crate) async fn server_sql(sql: &str) {
    let server = PgPoolOptions::new().max_connections(1).connect(&services::env("POSTGRES_URL")).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))
        .execute(&server)
        .await
        .unwrap_or_else(|error| panic!("{sql}: {error}"));
    server.close().await;
}

/// The ports of a process's own ends of its TCP connections.
fn ports_of(pid: u32) -> Vec<u16> {
    let process = Path::new("/proc").join(pid.to_string());
    let Ok(files) = std::fs::read_dir(process.join("fd")) else { return Vec::new() };
    let sockets: HashSet<String> = files
        .filter_map(|file| std::fs::read_link(file.ok()?.path()).ok()?.to_str().map(str::to_owned))
        .filter_map(|link| Some(link.strip_prefix("socket:[")?.trim_end_matches(']').to_owned()))
        .collect();
    let table = std::fs::read_to_string(process.join("net/tcp")).unwrap_or_default();
    let port = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let own = sockets.contains(*fields.get(9)?);
        own.then(|| u16::from_str_radix(fields[1].rsplit_once(':')?.1, 16).ok())?
    };
    table.lines().skip(1).filter_map(port).collect()
}
