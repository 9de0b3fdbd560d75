//! Health and metrics over a real socket.

use std::net::SocketAddr;
use std::time::{Duration, Instant, UNIX_EPOCH};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use weir::admin::{self, Health, OpenBreaker};
use weir::metrics::{Dependency, Metrics};

const ANY_PORT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

async fn serve(metrics: &Metrics, health: &Health) -> SocketAddr {
    let (address, _) = admin::serve(ANY_PORT, metrics.clone(), health.clone(), CancellationToken::new()).await.unwrap();
    assert_ne!(address.port(), 0);
    address
}

/// The status code, the head and the body.
async fn get(address: SocketAddr, path: &str) -> (u16, String, String) {
    let mut socket = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: weir\r\nConnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut response = String::new();
    socket.read_to_string(&mut response).await.unwrap();
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    (head[9..12].parse().unwrap(), head.to_lowercase(), body.to_owned())
}

async fn get_json(address: SocketAddr, path: &str) -> (u16, Value) {
    let (status, head, body) = get(address, path).await;
    assert!(head.contains("content-type: application/json"), "{head}");
    (status, serde_json::from_str(&body).unwrap())
}

#[tokio::test]
async fn metrics_are_served_in_the_text_format() {
    let metrics = Metrics::new();
    metrics.pool("storage").topic("message-events").consumed.inc();
    let address = serve(&metrics, &Health::new(["storage"])).await;
    let (status, head, body) = get(address, "/metrics").await;
    assert_eq!(status, 200);
    assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
    assert!(body.contains("# HELP weir_events_consumed_total "), "{body}");
    assert!(body.contains("weir_events_consumed_total{pool=\"storage\",topic=\"message-events\"} 1\n"), "{body}");
}

#[tokio::test]
async fn a_worker_is_ready_when_every_pool_has_joined_once() {
    let health = Health::new(["storage", "analytics"]);
    let address = serve(&Metrics::new(), &health).await;
    health.pool("storage").joined();
    health.pool("analytics").waiting_for(Some("database".to_owned()));
    let (status, body) = get_json(address, "/readyz").await;
    assert_eq!(status, 503);
    assert_eq!(body["pools"]["analytics"]["joined"], false);
    assert_eq!(body["pools"]["analytics"]["waiting_for"], "database");
    assert_eq!(get_json(address, "/healthz").await.0, 200, "waiting at start is not standing still");

    health.pool("analytics").joined();
    health.pool("analytics").waiting_for(None);
    assert_eq!(get_json(address, "/readyz").await.0, 200);
}

#[tokio::test]
async fn a_ready_worker_stays_ready_without_partitions_in_holds_and_in_outages() {
    let health = Health::new(["storage"]);
    let address = serve(&Metrics::new(), &health).await;
    let pool = health.pool("storage");
    pool.joined();
    pool.partitions(3);
    let missing = |partition| ("message-events".to_owned(), partition, "table messages is missing".to_owned());
    pool.held(vec![missing(2), ("other".to_owned(), 0, "too many rejects".to_owned()), missing(0)]);
    pool.waiting_for(Some("database".to_owned()));
    let since = UNIX_EPOCH + Duration::from_secs(1_767_225_600);
    let error = "connection refused".to_owned();
    pool.breakers(vec![OpenBreaker { dependency: Dependency::Database, since, error }]);
    let (status, body) = get_json(address, "/readyz").await;
    assert_eq!(status, 200);
    assert_eq!(body["pools"]["storage"]["partitions"], 3);
    let hold = |topic: &str, partitions: &[i32], reason: &str| json!({"topic": topic, "held": partitions.len(), "partitions": partitions, "reason": reason});
    let holds = [hold("message-events", &[0, 2], "table messages is missing"), hold("other", &[0], "too many rejects")];
    assert_eq!(body["pools"]["storage"]["holds"], json!(holds));
    let breaker = json!({"dependency": "database", "since": "2026-01-01T00:00:00Z", "error": "connection refused"});
    assert_eq!(body["pools"]["storage"]["breakers"], json!([breaker]));
    pool.partitions(0);
    pool.breakers(Vec::new());
    let (status, body) = get_json(address, "/readyz").await;
    assert_eq!(status, 200);
    assert_eq!(body["pools"]["storage"]["breakers"], json!([]));
}

#[tokio::test]
async fn a_poll_loop_that_stands_still_makes_the_worker_unhealthy_and_is_named() {
    let stall_max = Duration::from_millis(300);
    let health = Health::new(["moves", "stands"]).with_stall_max(stall_max);
    let address = serve(&Metrics::new(), &health).await;
    health.pool("stands").polled_now();
    let started = Instant::now();
    loop {
        health.pool("moves").polled_now();
        let (status, body) = get_json(address, "/healthz").await;
        if status == 503 {
            assert!(started.elapsed() >= stall_max);
            assert_eq!(body["pools"]["stands"]["stalled"], true);
            assert_eq!(body["pools"]["moves"]["stalled"], false);
            break;
        }
        assert!(started.elapsed() < Duration::from_secs(10), "the stall was not noticed");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    health.pool("stands").polled_now();
    assert_eq!(get_json(address, "/healthz").await.0, 200);
}

#[tokio::test]
async fn an_address_in_use_is_an_error_that_names_it_and_the_setting() {
    let taken = serve(&Metrics::new(), &Health::new(["storage"])).await;
    let second = admin::serve(taken, Metrics::new(), Health::new(["storage"]), CancellationToken::new()).await;
    let error = second.unwrap_err().to_string();
    assert!(error.contains(&taken.to_string()) && error.contains("health.listen"), "{error}");
}

#[tokio::test]
async fn the_shutdown_ends_it() {
    let shutdown = CancellationToken::new();
    let health = Health::new(["storage"]);
    let (address, task) = admin::serve(ANY_PORT, Metrics::new(), health, shutdown.clone()).await.unwrap();
    shutdown.cancel();
    tokio::time::timeout(Duration::from_secs(5), task).await.unwrap().unwrap();
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn connections_have_a_bound_and_who_waits_comes_when_another_goes() {
    let address = serve(&Metrics::new(), &Health::new(["storage"])).await;
    let mut open = Vec::new();
    for _ in 0..128 {
        let mut socket = TcpStream::connect(address).await.unwrap();
        socket.write_all(b"GET /healthz HTTP/1.1\r\nHost: weir\r\n\r\n").await.unwrap();
        let mut answer = [0; 12];
        socket.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200");
        open.push(socket);
    }
    let mut waiting = tokio::spawn(get(address, "/metrics"));
    let early = tokio::time::timeout(Duration::from_millis(300), &mut waiting).await;
    assert!(early.is_err(), "the bound is passed");
    open.pop();
    let (status, ..) = tokio::time::timeout(Duration::from_secs(30), waiting).await.unwrap().unwrap();
    assert_eq!(status, 200);
}
