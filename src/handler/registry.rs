//! The handlers that configuration can name.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::{Analyze, Beside, DynHandler, Forward, Moderate, Notify, Persist};
use crate::config;
use crate::event::{Document, Fields};
use crate::metrics::PoolMetrics;
use crate::rules::Lookups;
use crate::store::Store;

/// What a handler is made of: its pipeline's configuration, the pool's store, and the pool's decoder, which it can
/// ask for further fields.
pub(crate) struct Setup<'a> {
    pub(crate) pipeline: &'a config::Pipeline,
    /// The pool that it is in.
    pub(crate) pool: &'a config::Pool,
    pub(crate) pool_name: &'a Arc<str>,
    pub(crate) fields: &'a mut Fields,
    pub(crate) id_pointer: &'a str,
    pub(crate) store: &'a Arc<dyn Store>,
    pub(crate) kafka: &'a config::Kafka,
    pub(crate) lookups: &'a Lookups,
    pub(crate) metrics: &'a PoolMetrics,
    /// What shall run as long as the pool does.
    pub(crate) beside: &'a mut Vec<Beside>,
}

type Build = for<'a> fn(Setup<'a>) -> BoxFuture<'a, anyhow::Result<Box<dyn DynHandler<Document>>>>;

/// Every shipped handler: its name and what makes it.
pub(crate) const SHIPPED: [(&str, Build); 5] = [
    ("persist", |setup| Box::pin(async move { Ok(Box::new(Persist::set_up(setup).await?) as _) })),
    ("analyze", |setup| Box::pin(async move { Ok(Box::new(Analyze::set_up(&setup)?) as _) })),
    ("moderate", |setup| Box::pin(async move { Ok(Box::new(Moderate::set_up(setup).await?) as _) })),
    ("forward", |mut setup| Box::pin(async move { Ok(Box::new(Forward::set_up(&mut setup)?) as _) })),
    ("notify", |setup| Box::pin(async move { Ok(Box::new(Notify::set_up(&setup)?) as _) })),
];
