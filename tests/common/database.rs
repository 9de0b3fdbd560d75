//! A test's database, of either kind: what is asked of it from outside the workers.

use sqlx::mysql::MySqlPoolOptions;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, MySqlPool, PgPool};
use uuid::Uuid;

/// A partition's place.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LedgerRow {
    pub(crate) partition: i32,
    pub(crate) owner: Option<Uuid>,
    pub(crate) epoch: i64,
    pub(crate) next_offset: i64,
}

/// InnoDB tells of transactions what it told the last time, unless it was not asked for 100 ms.
const INNODB_TRX_IDLE: std::time::Duration = std::time::Duration::from_millis(120);

#[derive(Clone)]
pub(crate) enum Database {
    Postgres(PgPool),
    Mariadb(MySqlPool),
}

impl Database {
    /// Connects to what an address names.
    pub(crate) async fn connect(url: &str, connections: u32) -> sqlx::Result<Self> {
        let patience = std::time::Duration::from_secs(20);
        if url.starts_with("mysql:") {
            let pool = MySqlPoolOptions::new().max_connections(connections).acquire_timeout(patience);
            return Box::pin(pool.connect(url)).await.map(Self::Mariadb);
        }
        let options = url.parse::<PgConnectOptions>()?.application_name("harness");
        let pool = PgPoolOptions::new().max_connections(connections).acquire_timeout(patience);
        Box::pin(pool.connect_with(options)).await.map(Self::Postgres)
    }

    pub(crate) async fn close(&self) {
        match self {
            Self::Postgres(pool) => pool.close().await,
            Self::Mariadb(pool) => pool.close().await,
        }
    }

    pub(crate) fn postgres(&self) -> &PgPool {
        match self {
            Self::Postgres(pool) => pool,
            Self::Mariadb(_) => panic!("this test asks PostgreSQL"),
        }
    }

    pub(crate) async fn count(&self, sql: &str) -> sqlx::Result<i64> {
        let sql = AssertSqlSafe(sql.to_owned());
        match self {
            Self::Postgres(pool) => sqlx::query_scalar(sql).fetch_one(pool).await,
            Self::Mariadb(pool) => sqlx::query_scalar(sql).fetch_one(pool).await,
        }
    }

    pub(crate) async fn sql(&self, sql: &str) -> sqlx::Result<()> {
        let sql = sqlx::raw_sql(AssertSqlSafe(sql.to_owned()));
        match self {
            Self::Postgres(pool) => sql.execute(pool).await.map(drop),
            Self::Mariadb(pool) => sql.execute(pool).await.map(drop),
        }
    }

    /// The ids of the messages.
    pub(crate) async fn live(&self) -> sqlx::Result<Vec<String>> {
        let sql = "SELECT message_id FROM messages";
        match self {
            Self::Postgres(pool) => sqlx::query_scalar(sql).fetch_all(pool).await,
            Self::Mariadb(pool) => sqlx::query_scalar(sql).fetch_all(pool).await,
        }
    }

    /// The dead rows: id, reason, message.
    pub(crate) async fn dead(&self) -> sqlx::Result<Vec<(String, String, String)>> {
        match self {
            Self::Postgres(pool) => {
                sqlx::query_as("SELECT event_id, reason, message FROM weir_dead").fetch_all(pool).await
            }
            Self::Mariadb(pool) => {
                let sql = "SELECT CONVERT(event_id USING utf8mb4), reason, message FROM weir_dead";
                sqlx::query_as(sql).fetch_all(pool).await
            }
        }
    }

    /// A group's ledger for a topic's id, by partition.
    pub(crate) async fn ledger(&self, group: &str, topic_id: Uuid) -> sqlx::Result<Vec<LedgerRow>> {
        let row = |(partition, owner, epoch, next_offset)| LedgerRow { partition, owner, epoch, next_offset };
        match self {
            Self::Postgres(pool) => {
                let sql = "SELECT partition, owner, epoch, next_offset FROM weir_ledger
                            WHERE group_name = $1 AND topic_id = $2 ORDER BY 1";
                let rows = sqlx::query_as(sql).bind(group).bind(topic_id).fetch_all(pool).await?;
                Ok(rows.into_iter().map(row).collect())
            }
            Self::Mariadb(pool) => {
                let sql = "SELECT `partition`, owner, epoch, next_offset FROM weir_ledger
                            WHERE group_name = ? AND topic_id = ? ORDER BY 1";
                let rows: Vec<(i32, Option<String>, i64, i64)> =
                    sqlx::query_as(sql).bind(group).bind(topic_id.to_string()).fetch_all(pool).await?;
                let owner = |owner: Option<String>| owner.map(|owner| owner.parse().expect("owners are UUIDs"));
                Ok(rows.into_iter().map(|(p, by, epoch, next)| row((p, owner(by), epoch, next))).collect())
            }
        }
    }

    /// From where on a pipeline of a group has its effects, by partition.
    pub(crate) async fn begins(&self, group: &str, topic_id: Uuid, pipeline: &str) -> sqlx::Result<Vec<(i32, i64)>> {
        match self {
            Self::Postgres(pool) => {
                let sql = "SELECT partition, begin_offset FROM weir_pipelines
                            WHERE pipeline = $1 AND group_name = $2 AND topic_id = $3";
                sqlx::query_as(sql).bind(pipeline).bind(group).bind(topic_id).fetch_all(pool).await
            }
            Self::Mariadb(pool) => {
                let sql = "SELECT `partition`, begin_offset FROM weir_pipelines
                            WHERE pipeline = ? AND group_name = ? AND topic_id = ?";
                sqlx::query_as(sql).bind(pipeline).bind(group).bind(topic_id.to_string()).fetch_all(pool).await
            }
        }
    }

    /// Whether one of a process's connections is inside a transaction of a batch, or, unless it must have written, inside
    /// any. PostgreSQL knows its clients by name; MariaDB by the ports that they connect from.
    pub(crate) async fn is_inside_transaction(&self, pid: u32, ports: &[u16], has_written: bool) -> sqlx::Result<bool> {
        let of_batch = match (self, has_written) {
            (Self::Postgres(_), true) => {
                "(state = 'idle in transaction' OR (state = 'active' AND xact_start IS NOT NULL))
                 AND query NOT ILIKE 'COMMIT%' AND backend_xid IS NOT NULL"
            }
            (Self::Postgres(_), false) => "xact_start IS NOT NULL",
            (Self::Mariadb(_), true) => "t.trx_rows_modified > 0 AND coalesce(p.info, '') NOT LIKE 'COMMIT%'",
            (Self::Mariadb(_), false) => "true",
        };
        let sql = match self {
            Self::Postgres(_) => format!(
                "SELECT count(*) FROM pg_stat_activity
                  WHERE application_name = 'weir/{pid}' AND datname = current_database() AND {of_batch}"
            ),
            Self::Mariadb(_) if ports.is_empty() => return Ok(false),
            Self::Mariadb(_) => {
                tokio::time::sleep(INNODB_TRX_IDLE).await;
                let ports: Vec<String> = ports.iter().map(|port| format!("'{port}'")).collect();
                format!(
                    "SELECT count(*) FROM information_schema.innodb_trx t JOIN information_schema.processlist p
                         ON p.id = t.trx_mysql_thread_id
                      WHERE substring_index(p.host, ':', -1) IN ({}) AND {of_batch}",
                    ports.join(", ")
                )
            }
        };
        Ok(self.count(&sql).await? > 0)
    }

    /// How many counters of the view differ from a recount of the rows but those of some ids, in every dimension.
    pub(crate) async fn wrong_counters(&self, but: &[&str]) -> sqlx::Result<i64> {
        let minute = match self {
            Self::Postgres(_) => "to_timestamp((timestamp / 60000) * 60)",
            Self::Mariadb(_) => "TIMESTAMP '1970-01-01 00:00:00' + INTERVAL timestamp DIV 60000 MINUTE",
        };
        self.note("uncounted", but).await?;
        let recount = format!(
            "WITH minutes AS (SELECT {minute} AS minute, sender FROM messages
                               WHERE message_id NOT IN (SELECT id FROM uncounted)),
                  recount AS (
                SELECT minute, 'type' AS dimension, 'new_message' AS member, count(*) AS count FROM minutes GROUP BY minute
                UNION ALL SELECT minute, 'user', sender, count(*) FROM minutes GROUP BY minute, sender
                UNION ALL SELECT minute, 'active_users', '', count(DISTINCT sender) FROM minutes GROUP BY minute)"
        );
        let columns = "minute, dimension, member, count";
        let mut wrong = 0;
        for (one, other) in [("recount", "message_stats"), ("message_stats", "recount")] {
            let differing =
                format!("SELECT count(*) FROM (SELECT {columns} FROM {one} EXCEPT SELECT {columns} FROM {other}) AS d");
            wrong += self.count(&format!("{recount} {differing}")).await?;
        }
        Ok(wrong)
    }

    /// How many rows of a conversation took effect before one that stands in front of them, but for some ids.
    pub(crate) async fn overtaken(&self, but: &[&str]) -> sqlx::Result<i64> {
        self.note("elsewhere", but).await?;
        self.count(
            "SELECT count(*) FROM (SELECT received_at < lag(received_at) OVER (PARTITION BY conversation ORDER BY timestamp)
                                          AS overtaken FROM messages WHERE message_id NOT IN (SELECT id FROM elsewhere)) x
              WHERE overtaken",
        )
        .await
    }

    /// Makes a table of some ids.
    async fn note(&self, table: &str, ids: &[&str]) -> sqlx::Result<()> {
        let id = match self {
            Self::Postgres(_) => "text",
            Self::Mariadb(_) => "varchar(512) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin",
        };
        self.sql(&format!("DROP TABLE IF EXISTS {table}; CREATE TABLE {table} (id {id} PRIMARY KEY)")).await?;
        let rows: Vec<String> = ids.iter().map(|id| format!("('{}')", id.replace('\'', "''"))).collect();
        for rows in rows.chunks(1_000) {
            self.sql(&format!("INSERT INTO {table} VALUES {}", rows.join(", "))).await?;
        }
        Ok(())
    }
}
