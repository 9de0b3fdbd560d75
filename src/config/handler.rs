//! What configuration must know of a handler. It lies below the handlers and names none of them: which there are comes from
//! above, as [`Kinds`]. A pipeline's keys, whose they are, which are secret, what is wrong with them and whether the effect is
//! in the database are all derived from these.

use std::fmt::Display;
use std::time::Duration;

use serde::de::DeserializeOwned;

use super::schema::{Key, PIPELINE};
use super::{Pipeline, Pool, validate};

/// A kind of handler.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HandlerKind {
    /// Its name in configuration.
    pub(crate) name: &'static str,
    /// The keys of its pipelines beside those of all. A secret is read from a file where there is a key `NAME_file`, too.
    pub(crate) keys: &'static [Key],
    /// Whether its effect is in the database. If not, it is in pools without a store.
    pub(crate) is_stored: bool,
    /// The least that its pipelines need beside `name` and `handler`, as TOML.
    pub(crate) example: &'static str,
    /// Says what is wrong with a pipeline beyond the shapes of its keys.
    pub(crate) check: fn(&mut Check<'_>),
}

impl HandlerKind {
    pub(super) fn has(&self, key: &str) -> bool {
        self.keys.iter().any(|own| own.name == key)
    }
}

/// The handlers that there are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kinds<'a>(&'a [HandlerKind]);

impl<'a> Kinds<'a> {
    pub(crate) fn new(kinds: &'a [HandlerKind]) -> Self {
        Self(kinds)
    }

    pub(super) fn iter(self) -> impl Iterator<Item = &'a HandlerKind> {
        self.0.iter()
    }

    pub(super) fn named(self, name: &str) -> Option<&'a HandlerKind> {
        self.iter().find(|kind| kind.name == name)
    }

    /// Those that have a key of this name.
    pub(super) fn with_key(self, name: &str) -> impl Iterator<Item = &'a HandlerKind> {
        self.iter().filter(move |kind| kind.has(name))
    }

    /// The key of a pipeline of this name, of all or of the first handler that has it.
    pub(super) fn key(self, name: &str) -> Option<Key> {
        PIPELINE.iter().chain(self.iter().flat_map(|kind| kind.keys)).find(|key| key.name == name).copied()
    }

    /// Every key that a pipeline of this handler could have: what is another handler's is told later, by whose it is.
    pub(super) fn keys_of(self, handler: Option<&str>) -> Vec<Key> {
        let own = handler.and_then(|name| self.named(name)).map_or(&[] as &[Key], |kind| kind.keys);
        let mut keys: Vec<Key> = PIPELINE.iter().chain(own).copied().collect();
        for key in self.iter().flat_map(|kind| kind.keys) {
            if keys.iter().all(|known| known.name != key.name) {
                keys.push(Key { required: false, ..*key });
            }
        }
        keys
    }

    /// Whether a pipeline's effect is in the database. One of a handler that is not known is taken for such.
    pub(crate) fn is_stored(self, pipeline: &Pipeline) -> bool {
        self.named(&pipeline.handler).is_none_or(|kind| kind.is_stored)
    }

    /// Whether any of a pool's effects are in the database.
    pub(crate) fn needs_store(self, pool: &Pool) -> bool {
        pool.pipelines.is_empty() || pool.pipelines.iter().any(|pipeline| self.is_stored(pipeline))
    }

    /// Tells each pipeline's settings which of them are secrets.
    pub(super) fn seal(self, pool: &mut Pool) {
        for pipeline in &mut pool.pipelines {
            let keys = self.named(&pipeline.handler).map_or(&[] as &[Key], |kind| kind.keys);
            pipeline.settings.seal(keys);
        }
    }
}

/// A pipeline that its handler looks at, and what is wrong with it.
#[derive(Debug)]
pub(crate) struct Check<'a> {
    /// Where it stands, such as `pools.storage.pipelines[0]`.
    pub(crate) at: &'a str,
    /// The pool that it is in.
    pub(crate) pool: &'a Pool,
    /// Which of the pool's pipelines it is.
    pub(crate) index: usize,
    pub(crate) pipeline: &'a Pipeline,
    problems: &'a mut Vec<String>,
}

impl<'a> Check<'a> {
    pub(super) fn new(at: &'a str, pool: &'a Pool, index: usize, problems: &'a mut Vec<String>) -> Self {
        Self { at, pool, index, pipeline: &pool.pipelines[index], problems }
    }

    /// The handler's own keys, as it reads them.
    pub(crate) fn read<T: DeserializeOwned>(&mut self) -> Option<T> {
        let read = self.pipeline.settings.read();
        read.map_err(|why| self.problem(format!("`{}`: {why}", self.at))).ok()
    }

    /// Something is wrong: what it is, where it stands and what to do, in one line.
    pub(crate) fn problem(&mut self, problem: String) {
        self.problems.push(problem);
    }

    /// Something is wrong with a key.
    pub(crate) fn say(&mut self, key: &str, problem: impl Display) {
        self.problem(format!("`{}.{key}` {problem}", self.at));
    }

    /// A time that something is waited for while a batch is in hand.
    pub(crate) fn timeout(&mut self, key: &str, duration: Duration) {
        validate::timeout(&format!("{}.{key}", self.at), duration, self.problems);
    }

    pub(crate) fn at_most<T: PartialOrd + Display>(&mut self, key: &str, value: T, most: T) {
        validate::at_most(&format!("{}.{key}", self.at), value, most, self.problems);
    }
}
