//! The handlers that configuration can name.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::{Analyze, DynHandler, Forward, Notify, Persist};
use crate::config;
use crate::event::{Document, Fields};
use crate::store::Store;

/// What a handler is made of: its pipeline's configuration, the pool's store, and the pool's decoder, which it can
/// ask for further fields.
pub(crate) struct Setup<'a> {
    pub(crate) pool: &'a str,
    pub(crate) pipeline: &'a config::Pipeline,
    pub(crate) fields: &'a mut Fields,
    pub(crate) id_pointer: &'a str,
    pub(crate) store: &'a Arc<dyn Store>,
    pub(crate) kafka: &'a config::Kafka,
}

type Build = for<'a> fn(Setup<'a>) -> BoxFuture<'a, anyhow::Result<Box<dyn DynHandler<Document>>>>;

/// Every shipped handler: its name and what makes it.
pub(crate) const SHIPPED: [(&str, Build); 4] = [
    ("persist", |setup| Box::pin(async move { Ok(Box::new(Persist::set_up(setup).await?) as _) })),
    ("analyze", |setup| Box::pin(async move { Ok(Box::new(Analyze::set_up(&setup)?) as _) })),
    ("forward", |mut setup| Box::pin(async move { Ok(Box::new(Forward::set_up(&mut setup)?) as _) })),
    ("notify", |setup| Box::pin(async move { Ok(Box::new(Notify::set_up(&setup)?) as _) })),
];
