//! What nobody thought of, in every type of column: `persist` either finds before the database that a value does not fit,
//! or the database takes it. So no sender can make the database refuse a batch.

use fastrand::Rng;
use rdkafka::producer::{FutureProducer, FutureRecord};

use super::PATIENCE;
use super::worker::Worker;
use super::world::{World, kafka};

const TABLE: &str = "CREATE TABLE wide (
    id text PRIMARY KEY, a_text text, a_short varchar(5), a_small smallint, an_int integer, a_big bigint, a_float double precision,
    a_numeric numeric, a_bool boolean, a_uuid uuid, a_time timestamptz, a_jsonb jsonb, a_json json)";
const COLUMNS: [&str; 12] = [
    "a_text",
    "a_short",
    "a_small",
    "an_int",
    "a_big",
    "a_float",
    "a_numeric",
    "a_bool",
    "a_uuid",
    "a_time",
    "a_jsonb",
    "a_json",
];

const ATOMS: [&str; 62] = [
    "null",
    "true",
    "false",
    "0",
    "-0",
    "-0.0",
    "1",
    "-1",
    "1.5",
    "0.1",
    "32767",
    "32768",
    "-32768",
    "-32769",
    "2147483647",
    "2147483648",
    "-2147483649",
    "9007199254740993",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "1e5",
    "1E-400",
    "5e-324",
    "1.7976931348623157e308",
    "1e309",
    "-1e309",
    "1e131072",
    "1e-20000",
    "0.00000000000000000000000000000000000000001",
    "\"\"",
    "\"a\"",
    "\"ä😀é\"",
    "\"12345\"",
    "\"123456\"",
    "\"\\u0000\"",
    "\"a\\u0000b\"",
    "\"\\\\u0000\"",
    "\"\\ud800\"",
    "\"\\udc00\\ud800\"",
    "\"\\ud83d\\ude00\"",
    "\"7\"",
    "\"+7\"",
    "\" 7\"",
    "\"NaN\"",
    "\"Infinity\"",
    "\"true\"",
    "\"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11\"",
    "\"{A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11}\"",
    "\"urn:uuid:a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11\"",
    "\"2026-01-01T00:00:00Z\"",
    "\"2026-12-31T23:59:60Z\"",
    "\"2026-02-30T00:00:00Z\"",
    "\"0000-01-01T00:00:00Z\"",
    "\"9999-12-31T23:59:59.999999999Z\"",
    "\"2026-01-01T00:00:00+02:00\"",
    "253402300800000",
    "-62135596800001",
    "\"\\u2028\"",
    "\"\\u007f\\u0001\"",
];

fn value(rng: &mut Rng, depth: usize) -> String {
    match rng.u8(0..10) {
        0 if depth < 4 => {
            let items: Vec<String> = (0..rng.usize(0..4)).map(|_| value(rng, depth + 1)).collect();
            format!("[{}]", items.join(","))
        }
        1 if depth < 4 => {
            let keys = ["\"a\"", "\"a\"", "\"\"", "\"\\u0000\"", "\"\\ud800\"", "\"ключ\""];
            let fields: Vec<String> =
                (0..rng.usize(0..4)).map(|_| format!("{}:{}", keys[rng.usize(0..6)], value(rng, depth + 1))).collect();
            format!("{{{}}}", fields.join(","))
        }
        2 => format!("\"{}\"", "x".repeat(rng.usize(0..9))),
        3 => format!("{}", rng.i64(..)),
        4 => format!("{:e}", f64::from_bits(rng.u64(..))).replace("NaN", "0").replace("inf", "1e300"),
        5 if depth == 0 => format!("{}{}", "[".repeat(rng.usize(1..140)), "]".repeat(rng.usize(1..140))),
        _ => ATOMS[rng.usize(0..ATOMS.len())].to_owned(),
    }
}

/// `FUZZ_SEED` and `FUZZ_CASES` ask for other events, and for more of them.
#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_sent_the_database_never_has_to_refuse_it() {
    let number = |name: &str, usual| std::env::var(name).map_or(usual, |number| number.parse().unwrap());
    let (seed, cases) = (number("FUZZ_SEED", 1), number("FUZZ_CASES", 6_000));
    let world = World::new(4).await;
    world.sql(TABLE).await;
    let base = world.config("");
    let (head, _) = base.split_once("[[pools.").unwrap();
    let pool = &world.pool;
    let mapping: String = COLUMNS.iter().map(|column| format!("{column} = \"/{column}\"\n")).collect();
    let config = format!(
        "{head}reject_hold_ratio = 1.0\n[pools.{pool}.event]\nid = \"/id\"\n[[pools.{pool}.pipelines]]\nname = \"wide\"\n\
         handler = \"persist\"\ntable = \"wide\"\nkey = \"id\"\n[pools.{pool}.pipelines.columns]\nid = \"/id\"\n{mapping}"
    );
    let mut rng = Rng::with_seed(seed);
    let producer: FutureProducer = kafka().create().unwrap();
    let events: Vec<String> = (0..cases)
        .map(|at| {
            let column = COLUMNS[rng.usize(0..COLUMNS.len())];
            let other = COLUMNS[rng.usize(0..COLUMNS.len())];
            format!("{{\"id\":\"e{at}\",\"{column}\":{},\"{other}\":{}}}", value(&mut rng, 0), value(&mut rng, 0))
        })
        .collect();
    let sent: Vec<_> = events
        .iter()
        .map(|event| producer.send_result(FutureRecord::<str, str>::to(&world.topic).payload(event)).unwrap())
        .collect();
    for acknowledged in sent {
        acknowledged.await.unwrap().unwrap();
    }
    let mut worker = Worker::start_configured(&world, &config).await;
    world.drained(PATIENCE).await;
    let (live, dead) =
        (world.count("SELECT count(*) FROM wide").await, world.count("SELECT count(*) FROM weir_dead").await);
    assert_eq!(u64::try_from(live + dead).unwrap(), cases, "seed {seed}: {live} live, {dead} dead");
    assert!(live > 500 && dead > 500, "seed {seed}: {live} live, {dead} dead");
    let refused: Vec<(String, String)> = sqlx::query_as(
        "SELECT message, convert_from(value, 'UTF8') FROM weir_dead WHERE reason <> 'malformed' AND message NOT LIKE 'column %'",
    )
    .fetch_all(world.db.postgres())
    .await
    .unwrap();
    assert!(
        refused.is_empty(),
        "seed {seed}: the database had to refuse {}: {:#?}",
        refused.len(),
        &refused[..refused.len().min(20)]
    );
    let (status, _) = worker.terminate();
    assert!(status.success(), "{}", worker.log());
    assert!(!worker.log().contains("panicked"), "{}", worker.log());
}
