//! The database's file: who may write to it, and whether it is still the one that was opened. SQLite itself would go on
//! writing to a file that was moved away, where nobody finds it.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};
use std::time::Duration;

use sqlx::Sqlite;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};
use tokio::sync::Semaphore;

use crate::store::connection::Connections;

/// The turn to write of each file that this process has open.
static TURNS: LazyLock<Mutex<HashMap<PathBuf, Weak<Semaphore>>>> = LazyLock::new(Mutex::default);

/// A file and the connections to it.
#[derive(Debug)]
pub(super) struct File {
    options: SqliteConnectOptions,
    readers: u32,
    deadline: Duration,
    /// Taken by one writer at a time, whichever pool of this process it is of. SQLite's own lock has no queue: a busy
    /// writer could keep another one out for as long as it likes.
    turn: Arc<Semaphore>,
    opened: Mutex<Opened>,
}

/// What is open.
#[derive(Debug, Clone)]
pub(super) struct Opened {
    /// The device and the number of the file, once it is there.
    identity: Option<(u64, u64)>,
    pub(super) writer: Arc<Connections<Sqlite>>,
    pub(super) readers: Arc<Connections<Sqlite>>,
}

impl File {
    pub(super) fn new(options: SqliteConnectOptions, readers: u32, deadline: Duration) -> Self {
        let turn = turn_of(&options);
        let opened = Mutex::new(open(&options, readers, &turn, deadline));
        Self { options, readers, deadline, turn, opened }
    }

    /// The connections to the file that bears the name now.
    pub(super) fn opened(&self) -> Opened {
        let found = identity(&self.options);
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        if opened.identity != found {
            if opened.identity.is_some() {
                let file = self.options.get_filename();
                tracing::warn!(file = %file.display(), "the database's file was replaced or removed; it is opened anew");
                *opened = open(&self.options, self.readers, &self.turn, self.deadline);
            }
            opened.identity = found;
        }
        opened.clone()
    }
}

fn identity(options: &SqliteConnectOptions) -> Option<(u64, u64)> {
    let file = std::fs::metadata(options.get_filename()).ok()?;
    Some((file.dev(), file.ino()))
}

/// Prepares connections; they are made when they are used first.
fn open(options: &SqliteConnectOptions, readers: u32, turn: &Arc<Semaphore>, deadline: Duration) -> Opened {
    let connections = |size: u32, turns: Arc<Semaphore>| {
        let pool = SqlitePoolOptions::new()
            .max_connections(size)
            .acquire_timeout(deadline)
            .test_before_acquire(false)
            .connect_lazy_with(options.clone());
        Connections::new(pool, turns, deadline)
    };
    let of_readers = Arc::new(Semaphore::new(readers as usize));
    Opened { identity: None, writer: connections(1, Arc::clone(turn)), readers: connections(readers, of_readers) }
}

fn turn_of(options: &SqliteConnectOptions) -> Arc<Semaphore> {
    let name = options.get_filename();
    let path = std::path::absolute(name).unwrap_or_else(|_| name.to_path_buf());
    let mut turns = TURNS.lock().unwrap_or_else(PoisonError::into_inner);
    turns.retain(|_, turn| turn.strong_count() > 0);
    if let Some(turn) = turns.get(&path).and_then(Weak::upgrade) {
        return turn;
    }
    let turn = Arc::new(Semaphore::new(1));
    turns.insert(path, Arc::downgrade(&turn));
    turn
}
