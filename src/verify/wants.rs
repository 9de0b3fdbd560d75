//! Which pipelines want a record, where conditions say so. The conditions are the pool's own; the rest of the audit shares no code
//! with it.

use std::sync::Arc;

use bytes::Bytes;
use rdkafka::Message as _;
use rdkafka::message::{BorrowedMessage, Headers as _};
use uuid::Uuid;

use crate::config;
use crate::event::{Document, Event, Fields, Header, Origin, Record};
use crate::rules::{LookupError, Lookups, Rule, Ruling};
use crate::store::{self, Store};

/// Why conditions cannot be asked.
#[derive(Debug, thiserror::Error)]
pub enum WantsError {
    /// One of the pool's pointers is wrong.
    #[error(transparent)]
    Fields(#[from] crate::event::FieldsError),
    /// A condition is wrong.
    #[error("pipeline {pipeline:?}, `when`: {error}")]
    Rule {
        /// The pipeline.
        pipeline: String,
        /// Where and why.
        error: crate::rules::RuleError,
    },
    /// A lookup table is missing or wrong.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// The database's address is wrong.
    #[error(transparent)]
    Store(#[from] store::Error),
}

/// The conditions of a pool's pipelines, in their order.
#[derive(Debug)]
pub(super) struct Wants {
    fields: Fields,
    rules: Vec<Option<Rule>>,
}

impl Wants {
    /// `None` where no pipeline has a condition.
    pub(super) async fn of(pool: &config::Pool, store: &config::Store) -> Result<Option<Self>, WantsError> {
        if pool.pipelines.iter().all(|pipeline| pipeline.when.is_none()) {
            return Ok(None);
        }
        let lookups = Lookups::from_files(&pool.lookups)?;
        if pool.lookups.values().any(|lookup| lookup.table.is_some()) {
            let store: Arc<dyn Store> = store::open(store)?;
            lookups.load(&*store).await?;
        }
        let mut fields = Fields::new(&pool.event)?;
        let mut rules = Vec::with_capacity(pool.pipelines.len());
        for pipeline in &pool.pipelines {
            let rule = pipeline.when.as_ref().map(|when| Rule::compile(when, &mut fields, &lookups)).transpose();
            rules.push(rule.map_err(|error| WantsError::Rule { pipeline: pipeline.name.clone(), error })?);
        }
        Ok(Some(Self { fields, rules }))
    }

    /// Whether each pipeline wants the record. One that cannot be decoded, or asked about, is everybody's: it is set aside.
    pub(super) fn ask(&self, topic_id: Uuid, message: &BorrowedMessage<'_>) -> Vec<bool> {
        let origin = Origin { topic: Arc::from(message.topic()), topic_id, partition: message.partition() };
        let Ok(event) = Event::<Document>::decode(&self.fields, &Arc::new(origin), record_of(message)) else {
            return vec![true; self.rules.len()];
        };
        let is_wanted = |rule: &Option<Rule>| rule.as_ref().is_none_or(|rule| rule.ask(&event) == Ok(Ruling::Yes));
        let failed = |rule: &Option<Rule>| rule.as_ref().is_some_and(|rule| rule.ask(&event).is_err());
        match self.rules.iter().any(failed) {
            true => vec![true; self.rules.len()],
            false => self.rules.iter().map(is_wanted).collect(),
        }
    }
}

fn record_of(message: &BorrowedMessage<'_>) -> Record {
    let bytes = |part: Option<&[u8]>| part.map(Bytes::copy_from_slice);
    let headers = message.headers().map(|headers| {
        let header = |header: rdkafka::message::Header<'_, &[u8]>| Header {
            name: Bytes::copy_from_slice(header.key.as_bytes()),
            value: bytes(header.value),
        };
        headers.iter().map(header).collect()
    });
    Record {
        offset: message.offset(),
        timestamp_ms: message.timestamp().to_millis().unwrap_or(0),
        key: bytes(message.key()),
        value: bytes(message.payload()),
        headers: headers.unwrap_or_default(),
    }
}
