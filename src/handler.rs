//! What is done with events. A handler has two phases: `prepare` outside the transaction (rules, services,
//! checks; no writes) and `apply` inside the one transaction of the batch.
//!
//! A handler sees a batch and answers for each event; [`Each`] makes one of a handler that sees one event at a
//! time. A new shipped handler is a file here, its `mod`, and a line in `SHIPPED` (`registry.rs`); a program that embeds
//! weir gives its own a name in configuration by [`register`].

mod analyze;
mod delivered;
mod erased;
mod forward;
mod moderate;
mod notify;
mod persist;
mod registry;
mod template;

pub use analyze::{Analyze, Dimension};
pub(crate) use erased::{DynHandler, ErasedWork};
pub use forward::Forward;
pub(crate) use moderate::problems as moderation_problems;
pub use moderate::{Judgement, Moderate, ModerateError};
pub use notify::Notify;
pub use persist::{Persist, PersistError};
pub use registry::register;
pub(crate) use registry::{Setup, Shipped, shipped};

use std::time::SystemTime;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use crate::event::{Event, Payload};
use crate::store::{self, Fault, IdKey, Reason, Tx};

/// What runs beside a pool's tasks, until it is told to stop: it looks at what conditions and lists are read from.
pub(crate) type Beside = Box<dyn FnOnce(CancellationToken) -> BoxFuture<'static, ()> + Send + Sync>;

/// What a handler needs beside the pool's database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Service {
    /// Nothing.
    None,
    /// It answers, as far as is known.
    Answers,
    /// It is left alone, but for a trial now and then.
    Away {
        /// When it first failed.
        since: SystemTime,
        /// What it failed with last.
        error: String,
    },
}

impl Service {
    /// As a breaker has it.
    pub(crate) fn of(open: Option<(SystemTime, String)>) -> Self {
        open.map_or(Self::Answers, |(since, error)| Self::Away { since, error })
    }
}

/// What `prepare` says of one event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer<W> {
    /// `apply` shall get it, with this.
    Apply(W),
    /// Nothing to do.
    Skip,
    /// It can never succeed: it goes to the dead rows, and no pipeline has its effect.
    Reject(Rejection),
}

/// Why an event can never succeed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// The kind of reason.
    pub reason: Reason,
    /// In words, without the payload.
    pub message: String,
}

impl Rejection {
    /// The database could not hold the event.
    pub fn refused(message: impl Into<String>) -> Self {
        Self { reason: Reason::Refused, message: message.into() }
    }

    /// The handler turns the event down.
    pub fn by_handler(message: impl Into<String>) -> Self {
        Self { reason: Reason::Handler, message: message.into() }
    }
}

/// `prepare` failed for the whole batch, for example because a service is away.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// What to do about it. [`Fault::Reject`] makes weir look for the event at fault, one at a time.
    pub fault: Fault,
    /// What failed and what to do.
    pub message: String,
}

/// An event to apply, with what `prepare` made of it.
#[derive(Debug)]
pub struct Item<'a, T, W> {
    /// The event.
    pub event: &'a Event<T>,
    /// What `prepare` answered.
    pub work: &'a W,
}

/// What `apply` did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Applied {
    /// All of it.
    Done,
    /// For a handler that claims ids: which of the items were new, in their order.
    Claimed(Vec<bool>),
}

/// One kind of work, done for the events of a batch together.
#[async_trait]
pub trait Handler<T: Payload>: Send + Sync + 'static {
    /// What `prepare` hands to `apply`, an event.
    type Work: Send + Sync + 'static;

    /// The unique key in the handler's own table that decides whether an event is new. A handler that names one
    /// writes every event unconditionally, in `apply`, and answers with [`Applied::Claimed`].
    fn claims(&self) -> Option<&IdKey> {
        None
    }

    /// Whether a claiming handler wants repeated ids as well, to update rows by newer events.
    fn takes_repeats(&self) -> bool {
        false
    }

    /// Looks at events before the transaction and answers for each, in order. It may be called again for the same
    /// events, so it must not leave effects that a repeat would not replace. In a pool without a store it is the effect.
    ///
    /// # Errors
    /// Something failed that is not one event's fault; the fault decides whether it is tried again.
    async fn prepare(&self, events: &[&Event<T>]) -> Result<Vec<Answer<Self::Work>>, Error>;

    /// Leaves the effects of the events in the transaction. Without a claiming handler in the pool, and for all but
    /// that one, the events are new: none of them has been applied before.
    ///
    /// # Errors
    /// The database's; a refused value makes weir look for the event at fault.
    async fn apply(&self, tx: &mut dyn Tx, items: &[Item<'_, T, Self::Work>]) -> Result<Applied, store::Error>;

    /// How a service of the handler's own is. It is shown, and changes nothing.
    fn service(&self) -> Service {
        Service::None
    }
}

/// A handler that sees one event at a time; wrap it in [`Each`].
#[async_trait]
pub trait HandleEach<T: Payload>: Send + Sync + 'static {
    /// Looks at an event before the transaction. By default every event is applied.
    ///
    /// # Errors
    /// As [`Handler::prepare`].
    async fn prepare(&self, _event: &Event<T>) -> Result<Answer<()>, Error> {
        Ok(Answer::Apply(()))
    }

    /// Leaves the event's effect in the transaction.
    ///
    /// # Errors
    /// As [`Handler::apply`].
    async fn apply(&self, tx: &mut dyn Tx, event: &Event<T>) -> Result<(), store::Error>;
}

/// Makes a [`Handler`] of a [`HandleEach`].
#[derive(Debug, Clone)]
pub struct Each<H>(pub H);

#[async_trait]
impl<T: Payload, H: HandleEach<T>> Handler<T> for Each<H> {
    type Work = ();

    async fn prepare(&self, events: &[&Event<T>]) -> Result<Vec<Answer<()>>, Error> {
        let mut answers = Vec::with_capacity(events.len());
        for event in events {
            answers.push(self.0.prepare(event).await?);
        }
        Ok(answers)
    }

    async fn apply(&self, tx: &mut dyn Tx, items: &[Item<'_, T, ()>]) -> Result<Applied, store::Error> {
        for item in items {
            self.0.apply(tx, item.event).await?;
        }
        Ok(Applied::Done)
    }
}
