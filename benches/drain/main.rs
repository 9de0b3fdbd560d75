//! How fast a backlog is drained into PostgreSQL, pair by pair: a hand-written rdkafka loop, then `weir run`.
//!
//! The loop does the same decode, the same check and mark in Redis and the same insert, and nothing else: no group,
//! no ledger, no retry, no metrics. Run it with `make bench`; `EVENTS` and `ROUNDS` change its size. Both sides are
//! child processes; rows are counted in the database after each run.
#![expect(clippy::print_stdout, reason = "the figures are the answer")]

mod hand_written;

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use sqlx::{Connection as _, PgConnection};

const PARTITIONS: i32 = 8;
const CONVERSATIONS: u64 = 10_000;
const PATIENCE: Duration = Duration::from_secs(600);

/// Where everything is, handed to the children by the environment.
struct Setup {
    brokers: String,
    postgres: String,
    redis: String,
    topic: String,
    database: String,
    events: u64,
}

/// What one run took.
struct Measured {
    seconds: f64,
    cpu_seconds: f64,
    peak_mib: f64,
}

#[tokio::main]
async fn main() -> Result<()> {
    if std::env::args().any(|arg| arg == "hand-written") {
        return hand_written::run().await;
    }
    let from_env = |name: &str, default: u64| std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default);
    let (events, rounds) = (from_env("EVENTS", 2_000_000), from_env("ROUNDS", 3));
    let id = uuid::Uuid::new_v4().simple().to_string();
    let var = |name| std::env::var(name).with_context(|| format!("{name} is not set; run this by `make bench`"));
    let postgres = var("POSTGRES_URL")?;
    let database = format!("weir_bench_{id}");
    let setup = Setup {
        brokers: var("KAFKA_BROKERS")?,
        postgres: format!("{}/{database}", postgres.rsplit_once('/').context("POSTGRES_URL has no database")?.0),
        redis: var("REDIS_URL")?,
        topic: format!("bench-{id}"),
        database,
        events,
    };
    let mut admin = PgConnection::connect(&postgres).await?;
    sql(&mut admin, &format!("CREATE DATABASE {}", setup.database)).await?;
    publish(&setup).await?;
    let outcome = rounds_of(&setup, rounds).await;
    sql(&mut admin, &format!("DROP DATABASE {} WITH (FORCE)", setup.database)).await?;
    let kafka: AdminClient<DefaultClientContext> = client(&setup).create()?;
    let mirror = format!("{}.storage.dead", setup.topic);
    kafka.delete_topics(&[&setup.topic, &mirror], &AdminOptions::new()).await?;
    outcome
}

async fn rounds_of(setup: &Setup, rounds: u64) -> Result<()> {
    let mut ratios = Vec::new();
    println!("{:<14} {:>12} {:>8} {:>8} {:>9}", "run", "events/s", "s", "cpu s", "peak MiB");
    for round in 1..=rounds {
        let floor = drain(setup, "hand-written").await?;
        let weir = drain(setup, "weir").await?;
        for (name, run) in [("hand-written", &floor), ("weir", &weir)] {
            let rate = setup.events as f64 / run.seconds;
            println!("{name:<14} {rate:>12.0} {:>8.2} {:>8.2} {:>9.0}", run.seconds, run.cpu_seconds, run.peak_mib);
        }
        ratios.push(floor.seconds / weir.seconds);
        println!("round {round}: weir at {:.2} of the hand-written loop", floor.seconds / weir.seconds);
    }
    ratios.sort_by(f64::total_cmp);
    let median = ratios[ratios.len() / 2];
    println!("ratio: min {:.2}, median {median:.2}, max {:.2}", ratios[0], ratios[ratios.len() - 1]);
    Ok(())
}

/// One drain of the whole topic into an empty table, with a fresh group and an empty Redis.
async fn drain(setup: &Setup, who: &str) -> Result<Measured> {
    let mut db = PgConnection::connect(&setup.postgres).await?;
    let config = write_config(setup, who)?;
    let weir = std::env::var("WEIR").unwrap_or_else(|_| env!("CARGO_BIN_EXE_weir").to_owned());
    let weir = weir.as_str();
    sql(&mut db, "DROP SCHEMA public CASCADE; CREATE SCHEMA public").await?;
    let migrated = Command::new(weir).arg("migrate").arg("--config").arg(&config).stdout(Stdio::null()).status()?;
    ensure!(migrated.success(), "weir migrate failed");
    sql(&mut db, "CHECKPOINT").await?;
    let mut redis = redis::Client::open(setup.redis.as_str())?.get_multiplexed_async_connection().await?;
    redis::cmd("FLUSHDB").arg("ASYNC").exec_async(&mut redis).await?;
    let begun = Instant::now();
    let mut child = if who == "weir" {
        Command::new(weir).arg("run").arg("--config").arg(&config).stderr(Stdio::null()).spawn()?
    } else {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("hand-written").env("BENCH_TOPIC", &setup.topic).env("BENCH_EVENTS", setup.events.to_string());
        command.env("BENCH_POSTGRES", &setup.postgres).spawn()?
    };
    let measured = watch(&mut child, begun, &mut db, setup.events).await;
    child.kill().ok();
    child.wait()?;
    let measured = measured?;
    let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM messages").fetch_one(&mut db).await?;
    ensure!(rows.unsigned_abs() == setup.events, "{who} left {rows} rows of {}", setup.events);
    Ok(measured)
}

/// Waits until the table has stopped growing at the full count. Its size is looked at, which costs nothing, and the
/// rows are counted only once it stands still.
async fn watch(child: &mut Child, begun: Instant, db: &mut PgConnection, events: u64) -> Result<Measured> {
    let (mut size, mut grown_at) = (0i64, Instant::now());
    let (mut cpu_seconds, mut peak_mib) = (0.0, 0.0);
    loop {
        tokio::time::sleep(Duration::from_millis(20)).await;
        ensure!(begun.elapsed() < PATIENCE, "not drained within {} s", PATIENCE.as_secs());
        let now: i64 = sqlx::query_scalar("SELECT pg_relation_size('messages') + pg_indexes_size('messages')")
            .fetch_one(&mut *db)
            .await?;
        if now > size {
            (size, grown_at) = (now, Instant::now());
            (cpu_seconds, peak_mib) = usage(child.id()).unwrap_or((cpu_seconds, peak_mib));
        } else if grown_at.elapsed() > Duration::from_millis(400) {
            let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM messages").fetch_one(&mut *db).await?;
            if rows.unsigned_abs() >= events {
                let seconds = (grown_at - begun).as_secs_f64();
                return Ok(Measured { seconds, cpu_seconds, peak_mib });
            }
            grown_at = Instant::now();
        }
    }
}

/// A process's CPU seconds and its peak resident memory in MiB.
fn usage(pid: u32) -> Option<(f64, f64)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks: f64 = fields[11].parse::<f64>().ok()? + fields[12].parse::<f64>().ok()?;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: f64 = peak.trim().trim_end_matches(" kB").parse().ok()?;
    Some((ticks / 100.0, kib / 1024.0))
}

fn write_config(setup: &Setup, who: &str) -> Result<std::path::PathBuf> {
    let path = std::env::temp_dir().join(format!("{}-{who}.toml", setup.database));
    let group = uuid::Uuid::new_v4();
    let text = format!(
        "[kafka]\nbrokers = [\"{}\"]\n[store]\nurl = \"{}\"\n[redis]\nurl = \"{}\"\n[health]\nlisten = \"127.0.0.1:0\"\n\
         [pools.storage]\ngroup = \"{group}\"\ntopics = [\"{}\"]\nstart = \"beginning\"\n\
         [[pools.storage.pipelines]]\nname = \"persist\"\nhandler = \"persist\"\n",
        setup.brokers, setup.postgres, setup.redis, setup.topic
    );
    std::fs::write(&path, text)?;
    Ok(path)
}

fn client(setup: &Setup) -> ClientConfig {
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", &setup.brokers);
    client
}

async fn sql(db: &mut PgConnection, statement: &str) -> Result<()> {
    sqlx::raw_sql(sqlx::AssertSqlSafe(statement.to_owned())).execute(db).await?;
    Ok(())
}

/// Fills the topic: chat messages of about 330 bytes, lz4, keyed by conversation.
async fn publish(setup: &Setup) -> Result<()> {
    let admin: AdminClient<DefaultClientContext> = client(setup).create()?;
    let topic = NewTopic::new(&setup.topic, PARTITIONS, TopicReplication::Fixed(1));
    for made in admin.create_topics([&topic], &AdminOptions::new()).await? {
        made.map_err(|(name, code)| anyhow::anyhow!("topic {name}: {code}"))?;
    }
    let producer: BaseProducer = client(setup)
        .set("linger.ms", "20")
        .set("batch.num.messages", "10000")
        .set("compression.type", "lz4")
        .set("partitioner", "murmur2_random")
        .set("queue.buffering.max.messages", "200000")
        .create()?;
    for n in 0..setup.events {
        let conversation = n.wrapping_mul(0x9E37_79B9_7F4A_7C15) % CONVERSATIONS;
        let (from, to) = (conversation, conversation + 1);
        let value = format!(
            "{{\"type\":\"new_message\",\"message\":{{\"message_id\":\"{}\",\"from\":{from},\"to\":{to},\"content\":\"message {n}: {}\",\
             \"message_type\":1,\"timestamp\":{}}},\"timestamp\":{}}}",
            uuid::Uuid::now_v7(),
            "some words of a usual length that people send each other in a day ".repeat(2),
            1_760_000_000_000 + n,
            1_760_000_000_000 + n
        );
        let key = weir::payload::conversation_of_two(&from.to_string(), &to.to_string());
        while producer.send(BaseRecord::to(&setup.topic).key(&key).payload(&value)).is_err() {
            producer.poll(Duration::from_millis(5));
        }
        if n % 1_000 == 0 {
            producer.poll(Duration::ZERO);
        }
    }
    producer.flush(Duration::from_secs(60))?;
    Ok(())
}
