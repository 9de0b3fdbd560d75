//! A TCP proxy between a worker and a service, whose weather the harness makes.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Below the range of outgoing connections: a client that tries a free port of that range may connect to itself.
const PORTS: std::ops::Range<u16> = 10_240..32_000;

/// A transaction's end as the drivers send it, to PostgreSQL and to MariaDB: a simple query.
const COMMITS: [&[u8]; 2] = [b"Q\x00\x00\x00\x0bCOMMIT\x00", b"\x07\x00\x00\x00\x03COMMIT"];

/// What becomes of what goes through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Weather {
    /// It passes.
    Clear,
    /// Every answer comes so much later.
    Slow(Duration),
    /// Every COMMIT arrives so much later.
    #[allow(dead_code, reason = "for the benchmark, which has this proxy too")]
    SlowCommits(Duration),
    /// Nothing passes in either direction; what was held arrives later, as after a network's partition.
    Held,
    /// It is accepted and swallowed; the connections it was lost on are reset afterwards.
    BlackHole,
    /// Connections are reset, old and new.
    Cut,
    /// Every n-th COMMIT's connection is reset, before the COMMIT reaches the database or before its answer comes back.
    CutAtCommit { before: bool, every: u64 },
}

/// Listens on a port of its own until it is dropped.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    shared: Arc<Shared>,
    accepting: tokio::task::JoinHandle<()>,
}

struct Shared {
    weather: watch::Sender<Weather>,
    to: std::sync::Mutex<u16>,
    commits: AtomicU64,
    cuts: AtomicU64,
    /// From where its open connections reach the service.
    ports: std::sync::Mutex<HashSet<u16>>,
}

/// How a connection ends.
#[derive(Debug, PartialEq, Eq)]
enum Ending {
    Closed,
    Reset,
}

impl Proxy {
    /// Begins to listen; where it leads to is said by [`Proxy::lead_to`].
    pub(crate) async fn listen() -> io::Result<Self> {
        let mut last = io::Error::other("no port was tried");
        for _ in 0..100 {
            match TcpListener::bind(("127.0.0.1", fastrand::u16(PORTS))).await {
                Ok(listener) => return Self::accept(listener),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn accept(listener: TcpListener) -> io::Result<Self> {
        let port = listener.local_addr()?.port();
        let shared = Arc::new(Shared {
            weather: watch::Sender::new(Weather::Clear),
            to: std::sync::Mutex::new(0),
            commits: AtomicU64::new(0),
            cuts: AtomicU64::new(0),
            ports: std::sync::Mutex::default(),
        });
        let accepted = Arc::clone(&shared);
        let accepting = tokio::spawn(async move {
            loop {
                match listener.accept().await {
                    Ok((client, _)) => drop(tokio::spawn(serve(client, Arc::clone(&accepted)))),
                    Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
        });
        Ok(Self { port, shared, accepting })
    }

    pub(crate) fn lead_to(&self, port: u16) {
        *self.shared.to.lock().unwrap() = port;
    }

    pub(crate) fn set(&self, weather: Weather) {
        self.shared.weather.send_replace(weather);
    }

    /// The ports by which the service knows the clients that come through here.
    #[allow(dead_code, reason = "for the fault matrix alone")]
    pub(crate) fn ports(&self) -> Vec<u16> {
        self.shared.ports.lock().unwrap().iter().copied().collect()
    }

    /// How many connections were cut at a COMMIT so far.
    pub(crate) fn cuts(&self) -> u64 {
        self.shared.cuts.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn serve(mut client: TcpStream, shared: Arc<Shared>) {
    if *shared.weather.borrow() == Weather::Cut {
        client.set_zero_linger().ok();
        return;
    }
    let to = *shared.to.lock().unwrap();
    let Ok(mut server) = TcpStream::connect(("127.0.0.1", to)).await else {
        client.set_zero_linger().ok();
        return;
    };
    client.set_nodelay(true).ok();
    server.set_nodelay(true).ok();
    let port = server.local_addr().map_or(0, |address| address.port());
    shared.ports.lock().unwrap().insert(port);
    let ending = {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        let is_answer_lost = AtomicBool::new(false);
        let pump = |answers| Pump {
            shared: &shared,
            weather: shared.weather.subscribe(),
            answers,
            is_answer_lost: &is_answer_lost,
        };
        let (mut requests, mut answers) = (pump(false), pump(true));
        tokio::select! {
            ending = requests.run(from_client, to_server) => ending,
            ending = answers.run(from_server, to_client) => ending,
        }
    };
    shared.ports.lock().unwrap().remove(&port);
    if ending == Ending::Reset {
        client.set_zero_linger().ok();
        server.set_zero_linger().ok();
    }
}

/// One direction of a connection.
struct Pump<'a> {
    shared: &'a Shared,
    weather: watch::Receiver<Weather>,
    answers: bool,
    /// The next answer must not arrive.
    is_answer_lost: &'a AtomicBool,
}

impl Pump<'_> {
    async fn run(&mut self, mut from: ReadHalf<'_>, mut to: WriteHalf<'_>) -> Ending {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let now = *self.weather.borrow_and_update();
            if now == Weather::Cut {
                return Ending::Reset;
            }
            let read = tokio::select! {
                read = from.read(&mut buffer) => read,
                changed = self.weather.changed() => match changed {
                    Ok(()) => continue,
                    Err(_) => return Ending::Reset,
                },
            };
            let Ok(read @ 1..) = read else { return Ending::Closed };
            if let Err(ending) = self.pass(&buffer[..read], &mut to).await {
                return ending;
            }
        }
    }

    async fn pass(&mut self, bytes: &[u8], to: &mut WriteHalf<'_>) -> Result<(), Ending> {
        let now = *self.weather.borrow();
        match now {
            Weather::Clear => {}
            Weather::Slow(delay) if self.answers => tokio::time::sleep(delay).await,
            Weather::SlowCommits(delay) if !self.answers && has_commit(bytes) => tokio::time::sleep(delay).await,
            Weather::Slow(_) | Weather::SlowCommits(_) => {}
            Weather::Held => {
                let after = self.weather.wait_for(|weather| *weather != Weather::Held).await;
                if after.is_err() || after.is_ok_and(|after| *after == Weather::Cut) {
                    return Err(Ending::Reset);
                }
            }
            Weather::BlackHole => {
                drop(self.weather.wait_for(|weather| *weather != Weather::BlackHole).await);
                return Err(Ending::Reset);
            }
            Weather::Cut => return Err(Ending::Reset),
            Weather::CutAtCommit { before, every } => self.at_commit(bytes, before, every)?,
        }
        if self.answers && self.is_answer_lost.load(Ordering::Relaxed) {
            self.shared.cuts.fetch_add(1, Ordering::Relaxed);
            return Err(Ending::Reset);
        }
        to.write_all(bytes).await.map_err(|_| Ending::Closed)
    }

    fn at_commit(&self, bytes: &[u8], before: bool, every: u64) -> Result<(), Ending> {
        if self.answers || !has_commit(bytes) {
            return Ok(());
        }
        if self.shared.commits.fetch_add(1, Ordering::Relaxed) % every != every - 1 {
            return Ok(());
        }
        if before {
            self.shared.cuts.fetch_add(1, Ordering::Relaxed);
            return Err(Ending::Reset);
        }
        self.is_answer_lost.store(true, Ordering::Relaxed);
        Ok(())
    }
}

/// A COMMIT is a write of its own, since the driver waits for the answers before it.
fn has_commit(bytes: &[u8]) -> bool {
    COMMITS.iter().any(|commit| bytes.windows(commit.len()).any(|window| window == *commit))
}
