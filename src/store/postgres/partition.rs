//! Making `messages` partitioned by day, with its rows, while workers write.
//!
//! The table that there is becomes a part of the new one as it is, which holds everything up to today: nothing is copied
//! but the rows that lie outside. Writers wait from the lock to the commit: for those rows, and while PostgreSQL reads the
//! table once, to see that what is left lies within. It is one transaction, so that it is done or not.
//!
//! Text is compared byte by byte in a partitioned table, whatever the database's collation, since only so ids sort by
//! their time. The index for that is made beforehand without a lock, and becomes the key's.

use std::time::{Duration, Instant};

use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, Row as _};

use super::Postgres;
use super::days::{BEFORE, OTHER, execute, moved};
use super::migrate::LOCK;
use crate::store::connection::{OpenTx, bounded};
use crate::store::days::{AHEAD, Converted, Day, Effort, FIRST, LAST, refused};
use crate::store::{Error, Fault, Result, fault};

const ACTION: &str = "partition messages";
/// With more rows than this outside, moving them would lock the table for long, and days would hold little of it.
const OUTSIDE_MAX: i64 = 1_000_000;
/// How often the lock is tried for: in between, writers go on.
const ATTEMPTS: u32 = 30;
const PAUSE: Duration = Duration::from_secs(1);
/// The view over `messages` that weir makes.
const VIEW: &str = "readable_messages";
/// What becomes the key's index, where text was not compared byte by byte.
const INDEX: &str = "messages_by_bytes";

const TABLE: &str = "
    SELECT c.relkind::text AS kind, pg_get_partkeydef(c.oid) AS divided_by, quote_ident(n.nspname) AS schema,
           pg_get_userbyid(c.relowner) AS owner, t.typname, format_type(a.atttypid, a.atttypmod) AS of_type,
           coalesce(l.collname, '') AS collation,
           (SELECT quote_ident(conname) FROM pg_constraint WHERE conrelid = c.oid AND contype = 'p') AS key,
           (extract(epoch FROM clock_timestamp()) * 1000)::bigint AS now_ms,
           pg_get_viewdef(to_regclass('readable_messages')) AS view
      FROM pg_class c
      JOIN pg_namespace n ON n.oid = c.relnamespace
      LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'message_id' AND NOT a.attisdropped
      LEFT JOIN pg_type t ON t.oid = a.atttypid
      LEFT JOIN pg_collation l ON l.oid = a.attcollation
     WHERE c.oid = to_regclass('messages')";

/// What would not be the same afterwards.
const OBSTACLES: &str = "
    WITH m AS (SELECT to_regclass('messages') AS oid)
    SELECT 'its primary key is not message_id alone' FROM m
     WHERE NOT EXISTS (SELECT FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
                        WHERE i.indrelid = m.oid AND i.indisprimary AND i.indnkeyatts = 1 AND a.attname = 'message_id')
    UNION ALL SELECT 'index ' || i.indexrelid::regclass || ' is unique, which it could not be over all days'
      FROM m JOIN pg_index i ON i.indrelid = m.oid
     WHERE (i.indisunique AND NOT i.indisprimary OR i.indisexclusion)
       AND i.indexrelid IS DISTINCT FROM to_regclass('messages_by_bytes')
    UNION ALL SELECT 'foreign key ' || c.conname || ' of ' || c.conrelid::regclass
      FROM m JOIN pg_constraint c ON c.contype = 'f' AND m.oid IN (c.conrelid, c.confrelid)
    UNION ALL SELECT 'trigger ' || t.tgname FROM m JOIN pg_trigger t ON t.tgrelid = m.oid AND NOT t.tgisinternal
    UNION ALL SELECT DISTINCT 'view ' || r.ev_class::regclass
      FROM m JOIN pg_depend d ON d.refobjid = m.oid AND d.classid = 'pg_rewrite'::regclass
      JOIN pg_rewrite r ON r.oid = d.objid
     WHERE r.ev_class NOT IN (m.oid, coalesce(to_regclass('readable_messages'), 0::oid))
    UNION ALL SELECT DISTINCT 'view ' || r.ev_class::regclass || ' over readable_messages'
      FROM pg_depend d JOIN pg_rewrite r ON r.oid = d.objid
     WHERE d.refobjid = to_regclass('readable_messages') AND d.classid = 'pg_rewrite'::regclass AND r.ev_class <> d.refobjid
    UNION ALL SELECT 'publication ' || p.pubname
      FROM m JOIN pg_publication_rel r ON r.prrelid = m.oid JOIN pg_publication p ON p.oid = r.prpubid
    UNION ALL SELECT 'row security' FROM m JOIN pg_class c ON c.oid = m.oid AND c.relrowsecurity
    UNION ALL SELECT 'inheritance with ' || CASE WHEN i.inhrelid = m.oid THEN i.inhparent ELSE i.inhrelid END::regclass
      FROM m JOIN pg_inherits i ON m.oid IN (i.inhrelid, i.inhparent)
    UNION ALL SELECT 'column ' || a.attname || ' is generated, or has grants of its own'
      FROM m JOIN pg_attribute a ON a.attrelid = m.oid AND a.attnum > 0 AND NOT a.attisdropped
     WHERE a.attgenerated <> '' OR a.attidentity <> '' OR a.attacl IS NOT NULL
    UNION ALL SELECT 'the name ' || name || ' is taken'
      FROM unnest(ARRAY['messages_before', 'messages_below', 'messages_above', 'messages_other']) AS name
     WHERE to_regclass(name) IS NOT NULL";

/// What gives a relation the rights that another has. A relation without any of its own has those of its owner.
const GRANTS: &str = "
    SELECT coalesce(string_agg(format('GRANT %s ON {relation} TO %s%s', a.privilege_type,
                                      CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END,
                                      CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END), '; '), '')
      FROM pg_class c, aclexplode(c.relacl) AS a WHERE c.oid = to_regclass('{relation}') AND a.grantee <> c.relowner";

/// The table as it is found.
struct Found {
    schema: String,
    owner: String,
    of_type: String,
    /// Its texts have to be compared in another way.
    collates: bool,
    key: String,
    now_ms: i64,
    view: Option<String>,
}

impl Found {
    fn named(&self, relation: &str) -> String {
        format!("{}.{relation}", self.schema)
    }

    /// The first day that gets a partition: until its beginning, ids go where the old ones are.
    fn first_day(&self) -> Day {
        Day::of_ms(self.now_ms).plus(1)
    }

    /// What the part of the old rows does not hold.
    fn outside(&self) -> String {
        let bytes = if self.collates { " COLLATE \"C\"" } else { "" };
        format!("message_id{bytes} < '{}' OR message_id{bytes} >= '{}'", FIRST.bound(), self.first_day().bound())
    }
}

impl Postgres {
    /// `None`: it is partitioned already.
    pub(super) async fn convert_messages(&self) -> Result<Option<Converted>> {
        let Some(found) = self.found().await? else { return Ok(None) };
        if found.collates {
            let (messages, index) = (found.named("messages"), found.named(INDEX));
            let create = format!("CREATE UNIQUE INDEX CONCURRENTLY {INDEX} ON {messages} (message_id COLLATE \"C\")");
            if !self.index(&messages, &index, &create).await? {
                return Err(refused(format!(
                    "index {index} is being made by somebody else: try again when it is there"
                )));
            }
        }
        for _ in 1..ATTEMPTS {
            match self.convert(&found).await {
                Err(error) if error.fault == Fault::Busy => tokio::time::sleep(PAUSE).await,
                done => return done,
            }
        }
        self.convert(&found).await.map_err(|error| match error.fault {
            Fault::Busy => Error {
                message: format!(
                    "{}; somebody has kept the table locked, such as a dump or a long query (pg_stat_activity): end it, or try \
                     again later",
                    error.message
                ),
                ..error
            },
            _ => error,
        })
    }

    /// `None`: it is partitioned already.
    async fn found(&self) -> Result<Option<Found>> {
        let mut tx = self.open(ACTION).await?;
        let table = bounded(self.deadline, ACTION, sqlx::query(TABLE).fetch_optional(tx.connection())).await?;
        let Some(table) = table else {
            return Err(refused("there is no table messages: run `weir migrate`".to_owned()));
        };
        let found = found_of(&table).map_err(|error| fault::error(ACTION, &error))??;
        if found.is_none() {
            tx.finish().await?;
            return Ok(None);
        }
        let obstacles = sqlx::query_scalar::<_, String>(OBSTACLES).fetch_all(tx.connection());
        let obstacles = bounded(self.deadline, ACTION, obstacles).await?;
        tx.finish().await?;
        if obstacles.is_empty() {
            return Ok(found);
        }
        Err(refused(format!(
            "the table messages is not as weir makes it: {}; remove that, and make it anew afterwards",
            obstacles.join("; ")
        )))
    }

    async fn convert(&self, found: &Found) -> Result<Option<Converted>> {
        let mut tx = self.open(ACTION).await?;
        let effort = Effort::ASKED;
        execute(&mut tx, effort, &format!("SET LOCAL statement_timeout = 0; {LOCK}")).await?;
        let kind = "SELECT relkind::text FROM pg_class WHERE oid = to_regclass('messages')";
        if text(&mut tx, kind).await? == "p" {
            tx.finish().await?;
            return Ok(None);
        }
        let messages = found.named("messages");
        execute(&mut tx, effort, &format!("LOCK TABLE {messages} IN ACCESS EXCLUSIVE MODE")).await?;
        let begun = Instant::now();
        let outside = format!(
            "SELECT count(*)::text FROM (SELECT 1 FROM {messages} WHERE {} LIMIT {}) AS x",
            found.outside(),
            OUTSIDE_MAX + 1
        );
        if text(&mut tx, &outside).await?.parse().is_ok_and(|rows: i64| rows > OUTSIDE_MAX) {
            return Err(refused(format!(
                "more than {OUTSIDE_MAX} of its rows have ids that are no UUIDv7 of up to today: they are of no day, and moving \
                 them would lock the table for long; delete those that you do not need, or leave the table as it is"
            )));
        }
        let mut made_anew = text(&mut tx, &GRANTS.replace("{relation}", &messages)).await?;
        let view = found.named(VIEW);
        if found.view.is_some() {
            let grants = text(&mut tx, &GRANTS.replace("{relation}", &view)).await?;
            made_anew = format!("{made_anew}; {grants}");
            execute(&mut tx, effort, &format!("DROP VIEW {view}")).await?;
        }
        for statement in divided(found) {
            execute(&mut tx, effort, &statement).await?;
        }
        let moved = execute(&mut tx, effort, &moved(&found.named(BEFORE), &found.outside(), &messages)).await?;
        let (first, to) = (FIRST.bound(), found.first_day().bound());
        let before = found.named(BEFORE);
        let attach =
            format!("ALTER TABLE {messages} ATTACH PARTITION {before} FOR VALUES FROM ('{first}') TO ('{to}')");
        execute(&mut tx, effort, &attach).await?;
        if let Some(definition) = &found.view {
            let definition = with_index_of_verdicts(definition);
            execute(&mut tx, effort, &format!("CREATE VIEW {view} AS {definition}")).await?;
            execute(&mut tx, effort, &format!("ALTER VIEW {view} OWNER TO {}", found.owner)).await?;
        }
        execute(&mut tx, effort, &made_anew).await?;
        tx.finish().await?;
        Ok(Some(Converted { moved, locked: begun.elapsed() }))
    }
}

/// The outer error is the driver's, the inner one of a table that cannot be partitioned.
fn found_of(table: &PgRow) -> sqlx::Result<Result<Option<Found>>> {
    let (kind, divided_by): (String, Option<String>) = (table.try_get("kind")?, table.try_get("divided_by")?);
    if kind == "p" {
        let divided_by = divided_by.unwrap_or_default();
        return Ok(match divided_by.as_str() {
            "RANGE (message_id)" => Ok(None),
            _ => Err(refused(format!(
                "the table messages is partitioned by {divided_by} already, which is not weir's way"
            ))),
        });
    }
    if kind != "r" {
        return Ok(Err(refused("messages is no plain table".to_owned())));
    }
    let kind: Option<String> = table.try_get("typname")?;
    let collates = match kind.as_deref() {
        Some("text" | "varchar") => !matches!(table.try_get::<&str, _>("collation")?, "C" | "POSIX"),
        Some("uuid") => false,
        kind => {
            let kind = kind.unwrap_or("not there");
            return Ok(Err(refused(format!("its column message_id is {kind}, and has to be text or uuid"))));
        }
    };
    Ok(Ok(Some(Found {
        schema: table.try_get("schema")?,
        owner: table.try_get("owner")?,
        of_type: table.try_get("of_type")?,
        collates,
        key: table.try_get::<Option<String>, _>("key")?.unwrap_or_default(),
        now_ms: table.try_get("now_ms")?,
        view: table.try_get("view")?,
    })))
}

/// From the table to the new one with all its parts but the old table.
fn divided(found: &Found) -> Vec<String> {
    let [messages, before] = ["messages", BEFORE].map(|name| found.named(name));
    let mut all = vec![format!("ALTER TABLE {messages} RENAME TO {BEFORE}")];
    if found.collates {
        all.push(format!("ALTER TABLE {before} DROP CONSTRAINT {}", found.key));
        all.push(format!("ALTER TABLE {before} ALTER COLUMN message_id TYPE {} COLLATE \"C\"", found.of_type));
        all.push(format!("ALTER TABLE {before} ADD CONSTRAINT {BEFORE}_pkey PRIMARY KEY USING INDEX {INDEX}"));
    } else {
        all.push(format!("ALTER TABLE {before} RENAME CONSTRAINT {} TO {BEFORE}_pkey", found.key));
    }
    all.push(format!("CREATE TABLE {messages} (LIKE {before} INCLUDING ALL) PARTITION BY RANGE (message_id)"));
    all.push(format!("ALTER TABLE {messages} OWNER TO {}", found.owner));
    let part =
        |name: &str, values: String| format!("CREATE TABLE {} PARTITION OF {messages} {values}", found.named(name));
    all.push(part("messages_below", format!("FOR VALUES FROM (MINVALUE) TO ('{}')", FIRST.bound())));
    all.push(part("messages_above", format!("FOR VALUES FROM ('{}') TO (MAXVALUE)", LAST.bound())));
    all.push(part(OTHER, "DEFAULT".to_owned()));
    for days in 0..AHEAD {
        let day = found.first_day().plus(days);
        let values = format!("FOR VALUES FROM ('{}') TO ('{}')", day.bound(), day.plus(1).bound());
        all.push(part(&format!("messages_{}", day.digits()), values));
    }
    all
}

/// Compared with an id that is compared byte by byte, a verdict's event would not be looked up by its index.
fn with_index_of_verdicts(definition: &str) -> String {
    ["m.message_id", "(m.message_id)::text"].into_iter().fold(definition.to_owned(), |definition, id| {
        definition.replace(&format!("(v.event_id = {id})"), &format!("(v.event_id = {id} COLLATE \"default\")"))
    })
}

async fn text(tx: &mut OpenTx<sqlx::Postgres>, sql: &str) -> Result<String> {
    let asked = sqlx::query_scalar(AssertSqlSafe(sql.to_owned())).fetch_one(tx.connection());
    bounded(Effort::ASKED.deadline, ACTION, asked).await
}
