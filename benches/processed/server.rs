//! A Redis of the measurement's own, ended with it.

use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use redis::Connection;

const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) struct Server {
    process: Child,
    url: String,
    pub(crate) connection: Connection,
}

impl Server {
    pub(crate) fn start() -> Result<Self> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut command = Command::new("redis-server");
        command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
        let process =
            command.stdout(Stdio::null()).spawn().context("start redis-server, which is needed on the PATH")?;
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            ensure!(begun.elapsed() < PATIENCE, "redis-server does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
        let url = format!("redis://127.0.0.1:{port}");
        let connection = redis::Client::open(url.as_str())?.get_connection()?;
        Ok(Self { process, url, connection })
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    pub(crate) fn version(&mut self) -> Result<String> {
        self.told("server", "redis_version")
    }

    pub(crate) fn used_memory(&mut self) -> Result<u64> {
        Ok(self.told("memory", "used_memory")?.parse()?)
    }

    /// The processor time so far of the thread that serves commands.
    pub(crate) fn processor_s(&mut self) -> Result<f64> {
        let user: f64 = self.told("cpu", "used_cpu_user_main_thread")?.parse()?;
        Ok(user + self.told("cpu", "used_cpu_sys_main_thread")?.parse::<f64>()?)
    }

    fn told(&mut self, section: &str, name: &str) -> Result<String> {
        let info: String = redis::cmd("INFO").arg(section).query(&mut self.connection)?;
        let value = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        Ok(value.with_context(|| format!("redis does not tell {name}"))?.trim().to_owned())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It is of no use any more, whatever becomes of this.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}
