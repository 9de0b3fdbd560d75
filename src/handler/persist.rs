//! Writes each event as a row: chat messages to `messages`, or any JSON to any table by a mapping of JSON pointers
//! to columns.
//!
//! The table's key column claims the id, so this handler decides for its pool what is new. What a column cannot
//! hold is found in `prepare`, so that no sender can make the database refuse a batch.

mod cell;
mod days;
mod json;
mod kind;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;

use self::cell::{Cell, Source};
use self::days::{Keeper, KnownFrom};
use super::{Answer, Applied, Error, Handler, Item, Rejection, Setup, Shipped};
use crate::config;
use crate::event::{Document, Event};
use crate::store::{self, Column, ColumnType, IdKey, KeyType, OnDuplicate, Table, Tx};

pub(super) const SHIPPED: Shipped = Shipped {
    kind: kind::KIND,
    build: |setup| Box::pin(async move { Ok(Box::new(Persist::set_up(setup).await?) as _) }),
};

/// The mapping of the chat envelope to the table `messages`.
const MESSAGES: [(&str, &str); 7] = [
    ("message_id", "$id"),
    ("conversation", "$conversation"),
    ("sender", "/message/from"),
    ("recipient", "/message/to"),
    ("content", "/message/content"),
    ("message_type", "/message/message_type"),
    ("timestamp", "/message/timestamp"),
];

/// A mapping that does not fit its table.
#[derive(Debug, thiserror::Error)]
pub enum PersistError {
    /// The table could not be described.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// A configured column is not there, or cannot be written.
    #[error("table {table:?}, column {column:?}: {problem}")]
    Column {
        /// The table.
        table: String,
        /// The column.
        column: String,
        /// What is wrong and what to do.
        problem: String,
    },
}

/// The handler `persist`.
#[derive(Debug)]
pub struct Persist {
    table: Table,
    sources: Vec<Source>,
    /// Where the column stands that says which of two events is newer.
    newer_by: Option<usize>,
    /// Ids from before are refused.
    known_from: KnownFrom,
}

impl Persist {
    pub(super) async fn set_up(setup: Setup<'_>) -> Result<Self, PersistError> {
        let table = setup.pipeline.persist_table();
        let default: BTreeMap<String, String> =
            MESSAGES.iter().map(|(column, source)| ((*column).to_owned(), (*source).to_owned())).collect();
        let mapping = setup.pipeline.columns.as_ref().unwrap_or(&default);
        let described = setup.store.describe(table).await?;
        let key = setup.pipeline.persist_key();
        let problem = |column: &str, problem: &str| PersistError::Column {
            table: table.to_owned(),
            column: column.to_owned(),
            problem: problem.to_owned(),
        };

        let (mut columns, mut sources) = (Vec::new(), Vec::new());
        for (name, source) in mapping {
            let column = described.iter().find(|column| column.name == *name);
            let column = column.ok_or_else(|| problem(name, "the table has no such column"))?;
            if let ColumnType::Other(kind) = &column.kind {
                return Err(problem(name, &format!("its type {kind} is not one that persist writes")));
            }
            let is_id = name == key && *source == setup.id_pointer;
            let source = if is_id { "$id" } else { source };
            sources.push(Source::compile(source, &column.kind, setup.fields).map_err(|error| problem(name, &error))?);
            columns.push(column.clone());
        }
        for column in &described {
            if !mapping.contains_key(&column.name) && !column.nullable && !column.has_default {
                return Err(problem(&column.name, "it takes no NULL and has no default: map a field to it"));
            }
        }

        let at = columns.iter().position(|column| column.name == key);
        let at = at.ok_or_else(|| problem(key, "it is the key, so a source must be mapped to it"))?;
        if sources[at] != Source::Id {
            return Err(problem(key, "the key must be filled from the event's id: map \"$id\" to it"));
        }
        if !columns[at].unique {
            return Err(problem(
                key,
                "it needs a unique key of its own, which is what makes an effect happen once; of text, one that compares bytes",
            ));
        }
        let kind = KeyType::of(&columns[at].kind)
            .ok_or_else(|| problem(key, "a key of events is text, a UUID or a whole number"))?;
        let (on_duplicate, newer_by) = on_duplicate(setup.pipeline, &columns);
        let key = IdKey { table: table.to_owned(), column: key.to_owned(), kind };
        let known_from = KnownFrom::always();
        if table == config::MESSAGES {
            let (store, pool) = (Arc::clone(setup.store), Arc::clone(setup.pool_name));
            let keeper = Keeper { store, pool, metrics: setup.metrics.clone(), known_from: known_from.clone() };
            keeper.look().await?;
            setup.beside.push(Box::new(|stop| Box::pin(keeper.run(stop))));
        }
        Ok(Self { table: Table { key, columns, on_duplicate }, sources, newer_by, known_from })
    }

    fn cells<'a>(&'a self, event: &'a Event<Document>) -> impl Iterator<Item = (&'a Column, Cell<'a>)> {
        self.table.columns.iter().zip(&self.sources).map(|(column, source)| (column, source.cell(event)))
    }

    fn answer(&self, event: &Event<Document>) -> Answer<()> {
        if let Some(refusal) = self.known_from.refusal(event.id.as_str(), self.table.key.kind) {
            return Answer::Reject(Rejection::refused(refusal));
        }
        let unfit = self.cells(event).find_map(|(column, cell)| cell.check(column).err().map(|why| (column, why)));
        match unfit {
            None => Answer::Apply(()),
            Some((column, why)) => Answer::Reject(Rejection::refused(format!("column {:?}: {why}", column.name))),
        }
    }

    fn is_newer(&self, column: usize, event: &Event<Document>, other: &Event<Document>) -> bool {
        let (source, kind) = (&self.sources[column], &self.table.columns[column].kind);
        source.cell(event).is_newer_than(&source.cell(other), kind)
    }

    /// One item an id, in the order of the ids: the first, or the newest where newer events update. A statement may touch
    /// a row only once.
    fn winners<'a>(&self, items: &[Item<'a, Document, ()>]) -> Vec<(&'a Event<Document>, usize)> {
        // Most ids differ in their first bytes, which are compared without a look at the id's memory.
        let keyed = |(index, item): (usize, &Item<'a, Document, ()>)| (item.event.id.prefix(), item.event, index);
        let mut sorted: Vec<_> = items.iter().enumerate().map(keyed).collect();
        sorted.sort_by(|(a_prefix, a, _), (b_prefix, b, _)| a_prefix.cmp(b_prefix).then_with(|| a.id.cmp(&b.id)));
        let mut winners: Vec<_> = sorted.into_iter().map(|(_, event, index)| (event, index)).collect();
        winners.dedup_by(|(event, _), (winner, _)| {
            let is_repeat = event.id == winner.id;
            if is_repeat && self.newer_by.is_some_and(|column| self.is_newer(column, event, winner)) {
                *winner = event;
            }
            is_repeat
        });
        winners
    }
}

fn on_duplicate(pipeline: &config::Pipeline, columns: &[Column]) -> (OnDuplicate, Option<usize>) {
    match (pipeline.on_duplicate, &pipeline.newer_by) {
        (Some(config::OnDuplicate::Update), Some(newer_by)) => {
            let at = columns.iter().position(|column| column.name == *newer_by);
            (OnDuplicate::Update { newer_by: newer_by.clone() }, at)
        }
        _ => (OnDuplicate::Ignore, None),
    }
}

#[async_trait]
impl Handler<Document> for Persist {
    type Work = ();

    fn claims(&self) -> Option<&IdKey> {
        Some(&self.table.key)
    }

    fn takes_repeats(&self) -> bool {
        self.table.on_duplicate != OnDuplicate::Ignore
    }

    async fn prepare(&self, events: &[&Event<Document>]) -> Result<Vec<Answer<()>>, Error> {
        Ok(events.iter().map(|event| self.answer(event)).collect())
    }

    /// Ids sorted: unsorted batches of two partitions would deadlock on each other's keys.
    async fn apply(&self, tx: &mut dyn Tx, items: &[Item<'_, Document, ()>]) -> Result<Applied, store::Error> {
        let winners = self.winners(items);
        let ids: Vec<&str> = winners.iter().map(|(event, _)| event.id.as_str()).collect();
        let columns: Vec<_> = self
            .table
            .columns
            .iter()
            .zip(&self.sources)
            .map(|(column, source)| {
                cell::column_data(&column.kind, winners.iter().map(|(event, _)| source.cell(event)))
            })
            .collect();
        let fresh = tx.insert(&self.table, &ids, &columns).await?;
        let mut claimed = vec![false; items.len()];
        for ((_, index), fresh) in winners.iter().zip(fresh) {
            claimed[*index] = fresh;
        }
        Ok(Applied::Claimed(claimed))
    }
}
