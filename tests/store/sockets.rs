//! What the sockets of a database's connections are set to.
#![expect(unsafe_code, reason = "a connection does not give its socket away: it is found by its descriptor's number")]

use std::os::fd::{BorrowedFd, RawFd};

use socket2::SockRef;

use super::World;

/// Whether this process's connection from that port sends a request's last part before the one before it is acknowledged.
fn sends_at_once(from: u16) -> bool {
    let open = std::fs::read_dir("/proc/self/fd").unwrap();
    let numbers: Vec<RawFd> =
        open.filter_map(|entry| entry.unwrap().file_name().to_str().unwrap().parse().ok()).collect();
    let mut found = numbers.into_iter().filter_map(|number| {
        // SAFETY: only asked about, never closed; one that was closed meanwhile gives an error.
        let socket = unsafe { BorrowedFd::borrow_raw(number) };
        let socket = SockRef::from(&socket);
        let local = socket.local_addr().ok()?.as_socket()?;
        // It may be a listener's, or of the other end.
        (local.port() == from && socket.peer_addr().is_ok()).then(|| socket.tcp_nodelay().unwrap())
    });
    found.next().expect("the connection's socket")
}

async fn every_connection_sends_at_once(world: World, port: &str) {
    let mut open = Vec::new();
    for _ in 0..3 {
        open.push(world.store.begin().await.unwrap());
    }
    for tx in &mut open {
        let port: i64 = match world.kind {
            "postgres" => {
                sqlx::query_scalar(sqlx::AssertSqlSafe(port)).fetch_one(tx.postgres().unwrap()).await.unwrap()
            }
            _ => sqlx::query_scalar(sqlx::AssertSqlSafe(port)).fetch_one(tx.mysql().unwrap()).await.unwrap(),
        };
        assert!(sends_at_once(u16::try_from(port).unwrap()));
    }
}

#[tokio::test]
async fn every_connection_to_postgres_sends_at_once() {
    every_connection_sends_at_once(World::postgres().await, "SELECT inet_client_port()::int8").await;
}

#[tokio::test]
async fn every_connection_to_mysql_sends_at_once() {
    let port = "SELECT CAST(SUBSTRING_INDEX(host, ':', -1) AS SIGNED) FROM information_schema.processlist
                 WHERE id = connection_id()";
    every_connection_sends_at_once(World::mysql().await, port).await;
}
