//! What an event takes on disk and in memory: the unit costs of docs/capacity.md, on every database. `make bench-bytes`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use fastrand::Rng;
use rdkafka::producer::{FutureProducer, FutureRecord};
use sqlx::Connection as _;

use super::worker::Worker;
use super::world::{World, kafka};
use super::{services, until};

/// Events of each run; one in twenty is refused and becomes a dead row.
const EVENTS: u64 = 40_000;
const REFUSED_EVERY: u64 = 20;
/// The sizes of their values: what `make bench` has, and more.
const VALUE_BYTES: [usize; 2] = [330, 1_000];
/// Of senders, each in a conversation of its own.
const USERS: u64 = 2_000;
/// 2026-01-01T00:00:00Z; each event is 3 ms after the one before, so that a minute has 20,000.
const BEGIN_MS: u64 = 1_767_225_600_000;
/// On a machine that does other things too.
const LONG: Duration = Duration::from_secs(300);

/// An event as long as it is asked to be, with words that compress as language does, more or less.
fn event(n: u64, bytes: usize, rng: &mut Rng) -> (String, String) {
    let (id, user, at) =
        (uuid::Builder::from_random_bytes(rng.u128(..).to_be_bytes()).into_uuid(), n % USERS, BEGIN_MS + 3 * n);
    let kind = if n.is_multiple_of(REFUSED_EVERY) { 3_000_000_000_u64 } else { 1 };
    let value = |content: &str| {
        format!(
            r#"{{"type":"new_message","message":{{"message_id":"{id}","from":{user},"to":1000000,"content":"{content}","message_type":{kind},"timestamp":{at}}},"timestamp":{at}}}"#
        )
    };
    let mut content = String::new();
    let room = bytes - value("").len();
    while content.len() < room {
        // Words of 2 to 9 letters out of some ten thousand, rare ones less often.
        let number = (10_000.0 * rng.f64().powi(3)) as usize;
        let mut letters = Rng::with_seed(number as u64);
        content.extend(std::iter::repeat_with(|| letters.lowercase()).take(2 + number % 8));
        content.push(' ');
    }
    content.truncate(room);
    (weir::payload::conversation_of_two(&user.to_string(), "1000000"), value(&content))
}

async fn publish(world: &World, bytes: usize) {
    let producer: FutureProducer = kafka()
        .set("compression.type", "lz4")
        .set("linger.ms", "20")
        .set("partitioner", "murmur2_random")
        .create()
        .unwrap();
    let mut rng = Rng::with_seed(7);
    let mut sent = Vec::new();
    for n in 0..EVENTS {
        let (key, value) = event(n, bytes, &mut rng);
        let record = || FutureRecord::to(&world.topic).key(&key).payload(&value);
        loop {
            match producer.send_result(record()) {
                Ok(one) => break sent.push(one),
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    }
    for one in sent {
        one.await.unwrap().unwrap();
    }
}

/// The bytes of a topic's records in the broker's folder.
fn kafka_bytes(topic: &str) -> u64 {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join(".services/kafka/data");
    let of_topic = |entry: &std::fs::DirEntry| entry.file_name().to_string_lossy().starts_with(topic);
    let partitions = std::fs::read_dir(data).unwrap().map(Result::unwrap).filter(of_topic);
    let logs = partitions.flat_map(|partition| std::fs::read_dir(partition.path()).unwrap().map(Result::unwrap));
    logs.filter(|file| file.path().extension().is_some_and(|ext| ext == "log"))
        .map(|file| file.metadata().unwrap().len())
        .sum()
}

/// The keys of a pool's processed set.
async fn redis_keys(redis: &mut redis::aio::MultiplexedConnection, pool: &str) -> Vec<String> {
    redis::cmd("KEYS").arg(format!("weir:{{{pool}}}:ids:*")).query_async(redis).await.unwrap()
}

async fn redis_link() -> redis::aio::MultiplexedConnection {
    let client = redis::Client::open(services::env("REDIS_URL")).unwrap();
    client.get_multiplexed_async_connection().await.unwrap()
}

/// Forgets what an earlier run has left.
async fn forget(pool: &str) {
    let mut redis = redis_link().await;
    for key in redis_keys(&mut redis, pool).await {
        redis::cmd("DEL").arg(key).exec_async(&mut redis).await.unwrap();
    }
}

/// The memory of a pool's processed set, and how many ids it has.
async fn redis_bytes(pool: &str) -> (u64, u64) {
    let mut redis = redis_link().await;
    let (mut bytes, mut ids) = (0, 0);
    for key in redis_keys(&mut redis, pool).await {
        let of_key: u64 =
            redis::cmd("MEMORY").arg("USAGE").arg(&key).arg("SAMPLES").arg(0).query_async(&mut redis).await.unwrap();
        let members: u64 = redis::cmd("SCARD").arg(&key).query_async(&mut redis).await.unwrap();
        bytes += of_key;
        ids += members;
    }
    (bytes, ids)
}

/// A table's rows, and its bytes with all its indexes.
async fn table(world: &World, sqlite: Option<&Path>, name: &str) -> (i64, i64) {
    let count = format!("SELECT count(*) FROM {name}");
    if let Some(file) = sqlite {
        let mut db = sqlx::SqliteConnection::connect(&format!("sqlite://{}", file.display())).await.unwrap();
        let rows = sqlx::query_scalar(sqlx::AssertSqlSafe(count)).fetch_one(&mut db).await.unwrap();
        let bytes = "SELECT sum(pgsize) FROM dbstat WHERE name IN (SELECT name FROM sqlite_master WHERE tbl_name = ?)";
        return (rows, sqlx::query_scalar(bytes).bind(name).fetch_one(&mut db).await.unwrap());
    }
    let rows = world.count(&count).await;
    if world.service == "postgres" {
        return (rows, world.count(&format!("SELECT pg_total_relation_size('{name}')")).await);
    }
    world.sql(&format!("ANALYZE TABLE {name}")).await;
    let bytes = format!(
        "SELECT CAST(data_length + index_length AS SIGNED) FROM information_schema.tables
          WHERE table_schema = database() AND table_name = '{name}'"
    );
    (rows, world.count(&bytes).await)
}

async fn rows(world: &World, sqlite: Option<&Path>, name: &str, expected: u64) {
    until(&format!("all rows of {name}"), LONG, async || {
        let (rows, _) = table(world, sqlite, name).await;
        (rows.unsigned_abs() == expected, rows)
    })
    .await;
}

async fn measure(service: &str, bytes: usize) {
    let world = World::alone_on(if service == "mariadb" { "mariadb" } else { "postgres" }, 4).await;
    // Names as long as people give them, since rows have them.
    let config = world.config("reject_hold_ratio = 1.0").replace(&format!("pools.{}", world.pool), "pools.storage");
    forget("storage").await;
    let file: Option<PathBuf> = (service == "sqlite").then(|| world.dir.join("weir.db"));
    let config = match &file {
        None => config,
        Some(file) => {
            let (begin, rest) = config.split_once("[store]\nurl = \"").unwrap();
            format!("{begin}[store]\nurl = \"sqlite://{}{}", file.display(), &rest[rest.find('"').unwrap()..])
        }
    };
    assert!(world.weir_with(&config, &["migrate"]).output().unwrap().status.success());
    publish(&world, bytes).await;
    let refused = EVENTS / REFUSED_EVERY;
    let worker = Worker::start_configured(&world, &config).await;
    rows(&world, file.as_deref(), "messages", EVENTS - refused).await;
    rows(&world, file.as_deref(), "weir_dead", refused).await;
    drop(worker);
    let (redis, ids) = redis_bytes("storage").await;
    // The same events in a pool that has no table of its own: its ids are claimed in weir_seen.
    let persist = "[[pools.storage.pipelines]]\nname = \"persist\"\nhandler = \"persist\"\n";
    let group = format!("group = \"{}\"", world.pool);
    let config = config.replace(persist, "").replace("pools.storage", "pools.minutes");
    let config = config.replace(&group, &format!("group = \"{}-minutes\"", world.pool));
    let worker = Worker::start_configured(&world, &config).await;
    rows(&world, file.as_deref(), "weir_seen", EVENTS).await;
    drop(worker);
    let mut told = format!("{service}, values of {bytes} bytes:");
    for name in ["messages", "weir_dead", "weir_counts", "weir_seen"] {
        let (rows, size) = table(&world, file.as_deref(), name).await;
        told += &format!(" {name} {} bytes a row ({rows} rows);", size / rows.max(1));
    }
    println!(
        "{told} kafka {} bytes a record; redis {} bytes an id ({ids} ids)",
        kafka_bytes(&format!("{}-", world.topic)) / EVENTS,
        redis / ids.max(1)
    );
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement: make bench-bytes"]
async fn bench_bytes() {
    for service in ["postgres", "mariadb", "sqlite"] {
        for bytes in VALUE_BYTES {
            measure(service, bytes).await;
        }
    }
}
