//! The programs in `examples/`, as a user runs them.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;

use super::PATIENCE;
use super::types::send;
use super::world::World;

/// Where an example was built.
pub(crate) fn built(name: &str) -> PathBuf {
    let program = Path::new(env!("CARGO_BIN_EXE_weir")).with_file_name("examples").join(name);
    assert!(program.exists(), "{} is not built: `cargo build --examples`", program.display());
    program
}

/// A running example.
struct Example(Child, PathBuf);

impl Example {
    fn start(world: &World, name: &str, pool: &str, arguments: &[&str]) -> Self {
        Self::start_as(world, &world.pool, name, pool, arguments)
    }

    fn start_as(world: &World, group: &str, name: &str, pool: &str, arguments: &[&str]) -> Self {
        Self::spawn(world, group, name, pool, arguments, &[])
    }

    fn spawn(
        world: &World,
        group: &str,
        name: &str,
        pool: &str,
        arguments: &[&str],
        variables: &[(&str, &str)],
    ) -> Self {
        let (head, _) =
            world.config("").split_once("[pools.").map(|(head, rest)| (head.to_owned(), rest.to_owned())).unwrap();
        let config = format!(
            "{head}[pools.{pool}]\ngroup = \"{group}\"\ntopics = [\"{}\"]\nstart = \"beginning\"\non_unknown_type = \"pass\"\n",
            world.topic
        );
        let (file, log) = (world.dir.join("example.toml"), world.dir.join("example.log"));
        std::fs::write(&file, config).unwrap();
        let mut command = Command::new(built(name));
        command
            .env("NO_COLOR", "1")
            .envs(variables.iter().copied())
            .arg(file)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        command.stderr(std::fs::OpenOptions::new().create(true).append(true).open(&log).unwrap());
        Self(command.spawn().unwrap(), log)
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.1).unwrap_or_default()
    }

    /// As Ctrl-C does it.
    fn interrupt(mut self) {
        let sent = Command::new("kill").args(["-INT", &self.0.id().to_string()]).status().unwrap();
        assert!(sent.success(), "{}", self.log());
        let ended = self.0.wait().unwrap();
        assert!(ended.success(), "{ended}: {}", self.log());
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        // It has ended, unless the test has failed.
        self.0.kill().ok();
        self.0.wait().ok();
        if std::thread::panicking() {
            eprintln!("--- example\n{}", self.log());
        }
    }
}

fn paid(event: &str, order: &str) -> String {
    format!(
        r#"{{"type":"order_paid","event_id":"{event}","order_id":"{order}","user_id":7,"amount_minor":1,"currency":"EUR","timestamp":1767225600000}}"#
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn order_paid_takes_unpaid_orders_one_step_and_leaves_others_alone() {
    let world = World::new(2).await;
    world.sql("CREATE TABLE orders (id text PRIMARY KEY, status text NOT NULL DEFAULT 'UNPAID')").await;
    world.sql("INSERT INTO orders VALUES ('a', 'UNPAID'), ('b', 'UNPAID'), ('c', 'CANCELLED')").await;
    for value in [paid("1", "a"), paid("1", "a"), paid("2", "a"), paid("3", "c"), paid("4", "nobody")] {
        send(&world, value, None).await;
    }
    send(&world, r#"{"type":"order_cancelled","order_id":"b","timestamp":1}"#, None).await;
    let example = Example::start(&world, "order_paid", "billing", &[]);
    world.drained(PATIENCE).await;
    example.interrupt();
    let orders: Vec<(String, String)> =
        sqlx::query_as("SELECT id, status FROM orders ORDER BY 1").fetch_all(world.db.postgres()).await.unwrap();
    let expected = [("a", "PAID"), ("b", "UNPAID"), ("c", "CANCELLED")];
    assert_eq!(orders, expected.map(|(id, status)| (id.to_owned(), status.to_owned())));
    assert_eq!(world.count("SELECT count(*) FROM weir_dead").await, 0);
}

/// Every file below a folder: its path from there, and what is in it.
fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false => {
                    let name = path.strip_prefix(folder).unwrap().to_string_lossy().into_owned();
                    found.push((name, std::fs::read(&path).unwrap()));
                }
            }
        }
    }
    found.sort();
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn backup_copies_each_record_into_an_object_that_a_repeat_replaces() {
    let world = World::new(1).await;
    let folder = world.dir.join("backup");
    std::fs::create_dir(&folder).unwrap();
    for value in [&b"{}"[..], b"\xff no JSON", b"\0\0\0\0\x01x"] {
        send(&world, value, None).await;
    }
    let target = format!("file://{}", folder.display());
    let expected: Vec<(String, Vec<u8>)> = [&b"{}"[..], b"\xff no JSON", b"\0\0\0\0\x01x"]
        .iter()
        .enumerate()
        .map(|(offset, value)| (format!("{}/{}/0/{offset:020}", world.topic, world.topic_id()), value.to_vec()))
        .collect();
    // Twice, as after a kill between the objects and the offset: everything comes again, to another group.
    for group in [world.pool.clone(), format!("{}-again", world.pool)] {
        let example = Example::start_as(&world, &group, "backup", "backup", &[&target]);
        world.committed_by(&group, PATIENCE).await;
        example.interrupt();
        assert_eq!(files(&folder), expected);
        std::fs::write(folder.join(&expected[0].0), b"cut off").unwrap();
    }
    assert_eq!(world.ledger().await, [0], "it needs no store");
}

/// As much of an S3 service as takes objects: what was put under each path.
type Objects = Arc<Mutex<BTreeMap<String, Vec<u8>>>>;

async fn put(
    State(objects): State<Objects>,
    request: axum::extract::Request,
) -> Result<[(&'static str, &'static str); 1], StatusCode> {
    let is_put = request.method() == axum::http::Method::PUT;
    let is_signed =
        request.headers().get("authorization").is_some_and(|by| by.to_str().unwrap().starts_with("AWS4-HMAC-SHA256"));
    if !is_put || !is_signed {
        return Err(StatusCode::FORBIDDEN);
    }
    let path = request.uri().path().to_owned();
    let body = axum::body::to_bytes(request.into_body(), 1 << 20).await.map_err(|_| StatusCode::BAD_REQUEST)?;
    objects.lock().unwrap().insert(path, body.to_vec());
    Ok([("etag", "\"any\"")])
}

#[tokio::test(flavor = "multi_thread")]
async fn backup_writes_objects_by_the_api_of_s3() {
    let world = World::new(1).await;
    let objects = Objects::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let app = Router::new().fallback(put).with_state(Arc::clone(&objects));
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    send(&world, "first", None).await;
    send(&world, "second", None).await;
    let settings = [
        ("AWS_ENDPOINT", endpoint.as_str()),
        ("AWS_ALLOW_HTTP", "true"),
        ("AWS_ACCESS_KEY_ID", "key"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
        ("AWS_REGION", "eu-central-1"),
        ("NO_PROXY", "127.0.0.1"),
    ];
    let example = Example::spawn(&world, &world.pool, "backup", "backup", &["s3://bucket/daily"], &settings);
    world.committed_by(&world.pool, PATIENCE).await;
    example.interrupt();
    let place = format!("/bucket/daily/{}/{}/0", world.topic, world.topic_id());
    let expected = [("first", 0), ("second", 1)]
        .map(|(value, offset)| (format!("{place}/{offset:020}"), value.as_bytes().to_vec()));
    assert_eq!(*objects.lock().unwrap(), BTreeMap::from(expected));
}

fn ask(address: &str, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: example\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

#[tokio::test(flavor = "multi_thread")]
async fn embed_serves_what_its_pool_counts_and_both_stop_together() {
    let world = World::new(2).await;
    world.sql("CREATE TABLE logins (user_id text PRIMARY KEY, count bigint NOT NULL)").await;
    for (event, user) in [("1", 7), ("2", 7), ("2", 7), ("3", 8)] {
        let value =
            format!(r#"{{"type":"user_login","event_id":"{event}","user_id":{user},"timestamp":1767225600000}}"#);
        send(&world, value, None).await;
    }
    let example = Example::start(&world, "embed", "logins", &["127.0.0.1:0"]);
    world.drained(PATIENCE).await;
    let log = example.log();
    let address = log.lines().find_map(|line| line.split_once("listening address=")).unwrap().1.trim().to_owned();
    let answer = ask(&address, "/logins/7").unwrap();
    assert!(answer.ends_with("\r\n\r\n2"), "{answer}");
    assert!(ask(&address, "/logins/nobody").unwrap().ends_with("\r\n\r\n0"));
    assert!(ask(&address, "/metrics").unwrap().contains("weir_events_settled_total"));
    example.interrupt();
    assert!(ask(&address, "/logins/7").is_err(), "it still serves");
}
