//! The connections of one pool of weir to Redis, which everything that it keeps there shares.

use std::time::Duration;

use deadpool::Runtime;
use deadpool::managed::{self, Metrics, Object, PoolError, RecycleResult};
use futures_util::future::try_join_all;
use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, ConnectionInfo, ErrorKind, FromRedisValue, IntoConnectionInfo, Pipeline, RedisError,
};
use tokio::time::{timeout, timeout_at};

use crate::breaker::PAUSE;
use crate::config;

/// Connections of one pool: each carries one batch at a time.
const CONNECTIONS_MAX: usize = 8;
/// No question waits longer than this or the configured deadline, whichever is longer.
pub(super) const PATIENCE: Duration = Duration::from_millis(500);

/// A connection that answered within this time is taken to be whole: its next answer tells, and an answer is a hint.
const WHOLE_FOR: Duration = Duration::from_secs(1);

/// Connections, made when something is first asked. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Link(managed::Pool<Manager>);

/// Makes connections, and proves those that were idle for a while by a round trip of its own; before each question it
/// would double them.
#[derive(Debug)]
struct Manager(deadpool_redis::Manager);

impl managed::Manager for Manager {
    type Type = MultiplexedConnection;
    type Error = RedisError;

    async fn create(&self) -> Result<MultiplexedConnection, RedisError> {
        self.0.create().await
    }

    async fn recycle(&self, connection: &mut MultiplexedConnection, metrics: &Metrics) -> RecycleResult<RedisError> {
        match metrics.last_used() < WHOLE_FOR {
            true => Ok(()),
            false => self.0.recycle(connection, metrics).await,
        }
    }
}

/// Why Redis counts as away.
#[derive(Debug, thiserror::Error)]
pub(super) enum Away {
    #[error("no answer within {0:?}")]
    Late(Duration),
    #[error("connect to redis: {0}")]
    Connect(#[from] PoolError<RedisError>),
    #[error("ask redis: {0}")]
    Ask(#[from] RedisError),
}

impl Link {
    /// Prepares connections. A URL that cannot be used is logged, and there are none.
    pub(crate) fn open(config: &config::Redis, pool: &str) -> Option<Self> {
        match open(config.url.expose(), config.deadline.max(PATIENCE)) {
            Ok(connections) => Some(Self(connections)),
            Err(error) => {
                tracing::error!(pool, %error, "redis.url cannot be used: set it right, or leave [redis] out; \
                    until then there is no processed set, and duplicates are found by the database");
                None
            }
        }
    }

    /// The reply to a pipeline by the deadline: a value or a refusal, both of which Redis gave.
    pub(super) async fn answer<T: FromRedisValue>(
        &self,
        deadline: Duration,
        commands: &Pipeline,
    ) -> Result<Result<T, RedisError>, Away> {
        let late = |_| Away::Late(deadline);
        let until = tokio::time::Instant::now() + deadline;
        let mut connection = Lent::new(timeout_at(until, self.0.get()).await.map_err(late)??);
        let reply = timeout_at(until, commands.query_async(connection.get())).await.map_err(late)?;
        match reply {
            Err(error) if !is_refusal(&error) => Err(Away::Ask(error)),
            reply => {
                connection.give_back();
                Ok(reply)
            }
        }
    }

    /// The trial after an outage: every connection is made anew or proven, with more time than a batch has (a handshake
    /// over a network takes several round trips), and each must then answer by the deadline.
    pub(super) async fn prove(&self, deadline: Duration) -> Result<(), Away> {
        let all = try_join_all((0..CONNECTIONS_MAX).map(|_| async {
            let mut connection = Lent::new(self.0.get().await?);
            let ping = redis::cmd("PING");
            timeout(deadline, ping.query_async::<()>(connection.get())).await.map_err(|_| Away::Late(deadline))??;
            Ok::<_, Away>(connection)
        }));
        timeout(PAUSE, all).await.unwrap_or(Err(Away::Late(PAUSE)))?.into_iter().for_each(Lent::give_back);
        Ok(())
    }
}

/// The server's version, where it answers.
#[cfg(feature = "load")]
pub(crate) async fn version(config: &config::Redis) -> Option<String> {
    let mut info = Pipeline::new();
    info.cmd("INFO").arg("server");
    let (info,): (String,) = Link::open(config, "version")?.answer(PATIENCE, &info).await.ok()?.ok()?;
    info.lines().find_map(|line| line.strip_prefix("redis_version:")).map(|version| version.trim().to_owned())
}

/// Whether Redis itself said no, and the connection is as good as before.
fn is_refusal(error: &RedisError) -> bool {
    matches!(error.kind(), ErrorKind::Server(_) | ErrorKind::Extension)
}

/// A connection that goes back to its pool only when its reply has been read. On any other way out, a
/// cancelled caller included, it is closed: the next batch must never read the last one's answer.
struct Lent(Option<Object<Manager>>);

impl Lent {
    fn new(connection: Object<Manager>) -> Self {
        Self(Some(connection))
    }

    fn get(&mut self) -> &mut MultiplexedConnection {
        self.0.as_mut().expect("only give_back and drop take it, and both end this value")
    }

    fn give_back(mut self) {
        drop(self.0.take());
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(connection) = self.0.take() {
            drop(Object::take(connection));
        }
    }
}

/// Where Redis is. Connections send at once: the end of a question that takes more than one segment would otherwise wait
/// for an acknowledgement, which may be put off for 40 ms, most of the time that an answer is waited for.
fn address(url: &str) -> Result<ConnectionInfo, RedisError> {
    let info = url.into_connection_info()?;
    let tcp = info.tcp_settings().clone().set_nodelay(true);
    Ok(info.set_tcp_settings(tcp))
}

fn open(url: &str, deadline: Duration) -> Result<managed::Pool<Manager>, RedisError> {
    let info = address(url)?;
    if matches!(info.addr(), redis::ConnectionAddr::TcpTls { .. }) {
        choose_crypto();
    }
    let config = AsyncConnectionConfig::new().set_connection_timeout(Some(PAUSE)).set_response_timeout(Some(deadline));
    let pool = managed::Pool::builder(Manager(deadpool_redis::Manager::new_with_config(info, config)?))
        .max_size(CONNECTIONS_MAX)
        .wait_timeout(Some(deadline))
        .create_timeout(Some(PAUSE))
        .recycle_timeout(Some(deadline))
        .runtime(Runtime::Tokio1)
        .build()
        .expect("time-outs need a runtime, which is given");
    Ok(pool)
}

/// rustls panics at the first handshake if it cannot tell which cryptography to use, which happens as soon
/// as an embedder's dependencies bring a second one. A choice made before is left as it is.
fn choose_crypto() {
    if rustls::crypto::CryptoProvider::get_default().is_none()
        && rustls::crypto::ring::default_provider().install_default().is_err()
    {
        tracing::debug!("the cryptography for TLS was chosen elsewhere meanwhile");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_send_at_once() {
        for url in ["redis://127.0.0.1:6379", "rediss://user:password@redis.example.org:6380/3"] {
            assert!(address(url).unwrap().tcp_settings().nodelay(), "{url}");
        }
    }
}
