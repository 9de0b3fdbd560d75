//! A port on which nothing listens, until the test lets it lead to a real service.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Below the range of outgoing connections: a client that tries a free port of that range may connect to itself.
const PORTS: std::ops::Range<u16> = 10_240..32_000;

/// An address on which nothing listens.
pub(crate) fn closed_address() -> String {
    let free =
        std::iter::repeat_with(|| fastrand::u16(PORTS)).find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok());
    format!("127.0.0.1:{}", free.unwrap())
}

/// Leads an address to another one until it is dropped.
pub(crate) struct Forwarder {
    stop: Arc<AtomicBool>,
    accepting: Option<JoinHandle<()>>,
}

impl Forwarder {
    pub(crate) fn start(from: &str, to: &str) -> Self {
        let listener = TcpListener::bind(from).unwrap();
        listener.set_nonblocking(true).unwrap();
        let (stop, to) = (Arc::new(AtomicBool::new(false)), to.to_owned());
        let stopping = Arc::clone(&stop);
        let accepting = std::thread::spawn(move || {
            while !stopping.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((client, _)) => forward(&client, &to),
                    Err(_) => std::thread::sleep(Duration::from_millis(20)),
                }
            }
        });
        Self { stop, accepting: Some(accepting) }
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(accepting) = self.accepting.take() {
            accepting.join().ok();
        }
    }
}

fn forward(client: &TcpStream, to: &str) {
    client.set_nonblocking(false).unwrap();
    let server = TcpStream::connect(to).unwrap();
    for (from, to) in [(client, &server), (&server, client)] {
        let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
        std::thread::spawn(move || copy(from, to));
    }
}

/// Ends when either side does; whoever is left is told.
fn copy(mut from: TcpStream, mut to: TcpStream) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        if to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    to.shutdown(Shutdown::Both).ok();
}
