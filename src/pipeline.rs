//! From records to settled events: decode, route, prepare (pipelines side by side), apply (one transaction).
//!
//! Promised to each pool with a store: for every id that a pipeline wants, either every wanting pipeline has its
//! effect or none has and there is one dead row, because effects, dead rows and the ledger move in one
//! transaction. What breaks it: a handler that leaves effects outside the transaction.

mod batch;
mod bisect;
mod decoding;
mod novelty;
mod park;
mod prepare;
mod replay;
mod settle;
mod unstored;

pub(crate) use batch::{Batch, Counts};
pub(crate) use decoding::Decoding;
pub(crate) use novelty::Novelty;
pub(crate) use park::ParkedKeys;
pub(crate) use prepare::PrepareTimes;
pub(crate) use replay::Replayed;
pub(crate) use settle::{Attempt, Failure};

use std::sync::Arc;
use std::time::SystemTime;

use crate::event::{Event, Payload};
use crate::handler::{DynHandler, Service};
use crate::metrics::Dependency;
use crate::store::{IdKey, Store};
use crate::telemetry::traces::PoolTracer;

/// The most pipelines a pool can have: an event's wanting pipelines are kept as bits.
pub(crate) const PIPELINES_MAX: usize = 64;

/// Decides whether a pipeline wants an event; an error sets the event aside.
pub(crate) type Filter<T> = Box<dyn Fn(&Event<T>) -> Result<bool, String> + Send + Sync>;

/// Which events a pipeline wants.
pub(crate) struct When<T> {
    pub(crate) filter: Filter<T>,
    /// How it was configured: pipelines with the same text want the same events, and are asked once.
    pub(crate) text: Option<Arc<str>>,
}

/// A named filter and a handler.
pub(crate) struct Pipeline<T> {
    pub(crate) name: Arc<str>,
    pub(crate) when: Option<When<T>>,
    pub(crate) handler: Box<dyn DynHandler<T>>,
}

/// A pool's pipelines, in the order in which they apply.
pub(crate) struct Pipelines<T> {
    pub(crate) pool: Arc<str>,
    pub(crate) store: Arc<dyn Store>,
    list: Vec<Pipeline<T>>,
    /// Whose filter decides for each: its own, or that of the first with the same text.
    asked_as: Vec<usize>,
    claimer: Option<usize>,
    /// The most rows of a key that is held back; `None`: a rejected event holds nothing back.
    park_limit: Option<usize>,
    tracer: PoolTracer,
}

impl<T> Pipelines<T> {
    /// What the pipelines need besides, and since when and why it is left alone, if it is.
    pub(crate) fn outages(&self) -> impl Iterator<Item = (Dependency, Option<(SystemTime, String)>)> {
        self.list.iter().filter_map(|pipeline| {
            let outage = match pipeline.handler.service() {
                Service::None => return None,
                Service::Answers => None,
                Service::Away { since, error } => Some((since, error)),
            };
            Some((Dependency::Pipeline(Arc::clone(&pipeline.name)), outage))
        })
    }
}

/// Pipelines that cannot work together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PipelinesError {
    /// There is nothing to do with events.
    #[error("pool {pool:?} has no pipeline; add one, for example with handler \"persist\"")]
    None {
        /// The pool.
        pool: Arc<str>,
    },
    /// More than bits.
    #[error("pool {pool:?} has more than {PIPELINES_MAX} pipelines; make a second pool of some")]
    TooMany {
        /// The pool.
        pool: Arc<str>,
    },
    /// An id can only be claimed once.
    #[error(
        "pool {pool:?}: pipelines {first:?} and {second:?} both claim the event's id; put one into a pool of its own"
    )]
    TwoClaimers {
        /// The pool.
        pool: Arc<str>,
        /// The pipeline that claims.
        first: Arc<str>,
        /// The other.
        second: Arc<str>,
    },
    /// What decides whether an event is new must see every event that another pipeline sees.
    #[error(
        "pool {pool:?}: pipeline {pipeline:?} claims the event's id, so all pipelines of the pool must want the events that it \
         wants and no other: give all of them the same `when`, or put it into a pool of its own"
    )]
    FilteredClaimer {
        /// The pool.
        pool: Arc<str>,
        /// The pipeline.
        pipeline: Arc<str>,
    },
}

impl<T: Payload> Pipelines<T> {
    pub(crate) fn new(pool: Arc<str>, store: Arc<dyn Store>, list: Vec<Pipeline<T>>) -> Result<Self, PipelinesError> {
        match list.len() {
            0 => return Err(PipelinesError::None { pool }),
            1..=PIPELINES_MAX => {}
            _ => return Err(PipelinesError::TooMany { pool }),
        }
        let mut claimers = (0..list.len()).filter(|at| list[*at].handler.claims().is_some());
        let claimer = claimers.next();
        if let (Some(first), Some(second)) = (claimer, claimers.next()) {
            let (first, second) = (Arc::clone(&list[first].name), Arc::clone(&list[second].name));
            return Err(PipelinesError::TwoClaimers { pool, first, second });
        }
        let asked_as: Vec<usize> = (0..list.len()).map(|at| first_alike(&list, at)).collect();
        if let Some(at) = claimer.filter(|at| list[*at].when.is_some())
            && asked_as.iter().any(|first| *first != asked_as[at])
        {
            return Err(PipelinesError::FilteredClaimer { pool, pipeline: Arc::clone(&list[at].name) });
        }
        Ok(Self { pool, store, list, asked_as, claimer, park_limit: None, tracer: PoolTracer::default() })
    }

    /// Later events of a rejected event's key wait behind it, at most so many.
    pub(crate) fn parking(mut self, limit: usize) -> Self {
        self.park_limit = Some(limit);
        self
    }

    /// Batches with traced events are traced.
    pub(crate) fn tracing(mut self, tracer: PoolTracer) -> Self {
        self.tracer = tracer;
        self
    }

    pub(crate) fn tracer(&self) -> &PoolTracer {
        &self.tracer
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.list.iter().map(|pipeline| &pipeline.name)
    }

    /// The key in a pipeline's own table that claims ids; without one, weir's own table does.
    pub(crate) fn id_key(&self) -> Option<&IdKey> {
        self.list[self.claimer?].handler.claims()
    }

    /// Whether repeated ids can still change something, so that a hit in the processed set saves nothing.
    pub(crate) fn takes_repeats(&self) -> bool {
        self.claimer.is_some_and(|at| self.list[at].handler.takes_repeats())
    }
}

/// The first pipeline whose filter has the same text, or else the pipeline itself.
fn first_alike<T>(list: &[Pipeline<T>], at: usize) -> usize {
    let text_of = |at: usize| list[at].when.as_ref().and_then(|when| when.text.as_deref());
    (0..at).find(|before| text_of(at).is_some() && text_of(*before) == text_of(at)).unwrap_or(at)
}
