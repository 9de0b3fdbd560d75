//! A PgBouncer of one test, before the PostgreSQL of this clone, made by the installed program.

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::services;

/// Below the range from which outgoing connections get their ports: who keeps trying to reach a PgBouncer that is stopped must
/// not be given its port.
const PORTS: std::ops::Range<u16> = 10_240..30_000;
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Bouncer {
    child: Option<Child>,
    dir: PathBuf,
    port: u16,
}

impl Bouncer {
    /// In this mode, with lines of its own. Sessions are handed around as much as can be: each client's next transaction
    /// gets the one that was idle for the longest.
    pub(crate) fn start(mode: &str, lines: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("weir-pgbouncer-{}", uuid::Uuid::new_v4().simple()));
        std::fs::create_dir_all(&dir).unwrap();
        let port = std::iter::repeat_with(|| fastrand::u16(PORTS))
            .take(100)
            .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
            .expect("a port is free");
        let server = services::env("POSTGRES_URL");
        let server = server.rsplit_once('@').unwrap().1.split_once('/').unwrap().0;
        let (host, server_port) = server.split_once(':').unwrap();
        std::fs::write(dir.join("users.txt"), "\"weir\" \"weir\"\n").unwrap();
        let config = format!(
            "[databases]\n* = host={host} port={server_port}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
             unix_socket_dir =\nauth_type = scram-sha-256\nauth_file = {}\npool_mode = {mode}\nserver_round_robin = 1\n\
             server_login_retry = 1\n{lines}\n",
            dir.join("users.txt").display(),
        );
        std::fs::write(dir.join("pgbouncer.ini"), config).unwrap();
        let mut bouncer = Self { child: None, dir, port };
        bouncer.run();
        bouncer
    }

    /// The address of a database through it.
    pub(crate) fn url(&self, database: &str) -> String {
        format!("postgres://weir:weir@127.0.0.1:{}/{database}", self.port)
    }

    /// Runs it again, on its port.
    pub(crate) fn run(&mut self) {
        let log = std::fs::File::options().create(true).append(true).open(self.dir.join("log")).unwrap();
        let mut command = program();
        command.arg("pgbouncer.ini").current_dir(&self.dir);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.child = Some(command.spawn().expect("PgBouncer is installed: run `make up`"));
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            let log = || std::fs::read_to_string(self.dir.join("log")).unwrap_or_default();
            assert!(Instant::now() < deadline, "PgBouncer does not answer on port {}:\n{}", self.port, log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// SIGKILL, and waits for its end.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().ok();
            child.wait().ok();
        }
    }
}

/// It refuses to run as root.
fn program() -> Command {
    let installed = Path::new("/usr/sbin/pgbouncer");
    let pgbouncer = if installed.exists() { installed } else { Path::new("pgbouncer") };
    let id = Command::new("id").arg("-u").output().expect("id runs");
    if id.stdout.trim_ascii() != b"0" {
        return Command::new(pgbouncer);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "postgres", "--regid", "postgres", "--init-groups", "--"]).arg(pgbouncer);
    command
}

impl Drop for Bouncer {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("--- PgBouncer\n{}", std::fs::read_to_string(self.dir.join("log")).unwrap_or_default());
        }
        std::fs::remove_dir_all(&self.dir).ok();
    }
}
