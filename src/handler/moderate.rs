//! Judges messages: word lists, patterns, conditions and a classifier say allow, flag or hide, and the gravest counts.
//!
//! Promised: a verdict other than allow is written in the transaction of its message's other effects, and where `persist` is in
//! the pool the message's row never exists without its status for anybody else. What breaks it: nothing; a classifier that is
//! away is met as `on_unavailable` says.

mod classifier;
mod fold;
mod kind;
mod lists;
mod verdict;
mod words;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use futures_util::StreamExt as _;

use self::classifier::{Classifier, Question, Unavailable};
use self::lists::Lists;
pub use self::verdict::Judgement;
use self::verdict::Verdict;
use super::{Answer, Applied, Error, Handler, Item, Rejection, Service, Setup, Shipped};
use crate::config::{self, OnUnavailable};
use crate::event::{Document, Event, Fields, FieldsError, Payload as _, Slot};
use crate::metrics::{ModerationMetrics, PoolMetrics};
use crate::rules::{Lookups, Rule, RuleError, Ruling};
use crate::store::{self, Fault, IdKey, KeyType, Reason, StoredVerdict, Tx};

pub(super) const SHIPPED: Shipped = Shipped {
    kind: kind::KIND,
    build: |setup| Box::pin(async move { Ok(Box::new(Moderate::set_up(setup).await?) as _) }),
};

/// Where the status of a persisted message is kept.
const STATUS: &str = "status";
/// The most answers that are kept of a batch that has to be asked about again.
const KEPT_MAX: usize = 100_000;

struct Condition {
    rule: Rule,
    verdict: Verdict,
    reason: String,
}

/// What messages cannot be judged by.
#[derive(Debug, thiserror::Error)]
pub enum ModerateError {
    /// A list is missing or wrong: the file, the line and the reason.
    #[error("{0}")]
    Lists(String),
    /// A condition cannot be used.
    #[error("rule {name:?}: {error}")]
    Rule {
        /// The rule.
        name: String,
        /// Where and why.
        error: RuleError,
    },
    /// The pointer to the text is wrong.
    #[error(transparent)]
    Fields(#[from] FieldsError),
}

/// The handler `moderate`.
pub struct Moderate {
    pipeline: String,
    text: Slot,
    lists: Arc<Lists>,
    /// The gravest first.
    conditions: Vec<Condition>,
    classifier: Option<Classifier>,
    /// Answers of the classifier for events of a batch that must wait for others, by their place.
    kept: Mutex<HashMap<(uuid::Uuid, i32, i64), Judgement>>,
    /// The key of the pool's table of messages, where that has a status.
    messages: Option<IdKey>,
    pool: Arc<str>,
    metrics: ModerationMetrics,
}

impl Moderate {
    /// Judges by lists and conditions alone, and sets no status. Reads the lists once, and blocks for it.
    ///
    /// # Errors
    /// A list or a condition cannot be used.
    pub fn local(
        (pool, pipeline): (&str, &str),
        config: &config::Moderate,
        fields: &mut Fields,
        lookups: &Lookups,
        metrics: &PoolMetrics,
    ) -> Result<Self, ModerateError> {
        let lists = Lists::open(config).map_err(ModerateError::Lists)?;
        let mut conditions = Vec::with_capacity(config.rules.len());
        for configured in &config.rules {
            let rule = Rule::compile(&configured.when, fields, lookups)
                .map_err(|error| ModerateError::Rule { name: configured.name.clone(), error })?;
            let reason = format!("rule {}", configured.name);
            conditions.push(Condition { rule, verdict: configured.verdict.into(), reason });
        }
        conditions.sort_by_key(|condition| std::cmp::Reverse(condition.verdict));
        Ok(Self {
            pipeline: pipeline.to_owned(),
            text: fields.value(&config.text)?,
            lists: Arc::new(lists),
            conditions,
            classifier: None,
            kept: Mutex::default(),
            messages: None,
            pool: Arc::from(pool),
            metrics: metrics.moderation(pipeline),
        })
    }

    pub(super) async fn set_up(setup: Setup<'_>) -> anyhow::Result<Self> {
        let Setup { pipeline, pool, pool_name, fields, lookups, store, metrics, beside, .. } = setup;
        let config = pipeline.moderate.clone().unwrap_or_default();
        let name = pipeline.name.as_str();
        let mut made = Self::local((pool_name, name), &config, fields, lookups, metrics)?;
        if let Some(classifier) = &config.classifier {
            let classifier = Classifier::new(classifier, pool_name, metrics.classifier(name));
            made.classifier = Some(classifier.map_err(anyhow::Error::msg)?);
        }
        made.messages = messages_of(pool, &**store).await?;
        if !config.words.is_empty() || !config.patterns.is_empty() {
            let (lists, pool, name, metrics) =
                (Arc::clone(&made.lists), Arc::clone(pool_name), name.to_owned(), metrics.clone());
            beside.push(Box::new(move |stop| {
                Box::pin(async move {
                    tokio::select! {
                        () = stop.cancelled() => {}
                        () = lists.watch(pool, name, metrics) => {}
                    }
                })
            }));
        }
        Ok(made)
    }

    /// What lists and conditions say.
    fn judge(
        &self,
        lists: &lists::Compiled,
        event: &Event<Document>,
        folded: &mut String,
    ) -> Result<Judgement, Rejection> {
        let text = event.payload.get(self.text).text();
        let listed = text.and_then(|text| lists.judge(&text, folded));
        let mut judgement = Judgement::allow().or_graver(listed);
        for condition in &self.conditions {
            if condition.verdict <= judgement.verdict {
                continue;
            }
            match condition.rule.ask(event) {
                Ok(Ruling::Yes) => {
                    judgement = Judgement { verdict: condition.verdict, reason: condition.reason.clone() };
                }
                Ok(Ruling::No | Ruling::Missing) => {}
                Err(why) => {
                    let message = format!("{}: {why}", condition.reason);
                    return Err(Rejection { reason: Reason::WhenError, message });
                }
            }
        }
        Ok(judgement)
    }

    /// Asks the classifier about what is not hidden anyway.
    async fn classify(
        &self,
        classifier: &Classifier,
        events: &[&Event<Document>],
        judged: &mut [Result<Judgement, Rejection>],
    ) -> Result<(), Error> {
        let is_open = |at: &usize| matches!(&judged[*at], Ok(judgement) if judgement.verdict < Verdict::Hide);
        let open: Vec<usize> = (0..events.len()).filter(is_open).collect();
        let answers: Vec<(usize, Result<Judgement, Unavailable>)> = futures_util::stream::iter(open)
            .map(|at| async move { (at, self.ask(classifier, events[at]).await) })
            .buffer_unordered(classifier.concurrency())
            .collect()
            .await;
        let mut missing = None;
        for (at, answer) in &answers {
            let Ok(before) = &judged[*at] else { continue };
            let answer = match (answer, classifier.on_unavailable()) {
                (Ok(answer), _) => Some(answer.clone()),
                (Err(_), OnUnavailable::Allow) => None,
                (Err(_), OnUnavailable::Flag) => {
                    let reason = "classifier: unavailable".to_owned();
                    Some(Judgement { verdict: Verdict::Flag, reason })
                }
                (Err(why), OnUnavailable::Hold) => {
                    missing = Some(why.to_string());
                    None
                }
            };
            judged[*at] = Ok(before.clone().or_graver(answer));
        }
        let Some(why) = missing else {
            self.forget(events);
            return Ok(());
        };
        self.keep(events, answers);
        let message = format!(
            "pipeline {:?}: the classifier does not answer for every message ({why}), and on_unavailable = \"hold\": mend it, \
             or set on_unavailable to \"flag\" or \"allow\"",
            self.pipeline
        );
        Err(Error { fault: Fault::Hold, message })
    }

    async fn ask(&self, classifier: &Classifier, event: &Event<Document>) -> Result<Judgement, Unavailable> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner).get(&place_of(event)).cloned();
        if let Some(kept) = kept {
            return Ok(kept);
        }
        let Some(text) = event.payload.get(self.text).text() else { return Ok(Judgement::allow()) };
        let (user, conversation) = (event.payload.user(), event.payload.conversation());
        let question = Question {
            id: event.id.as_str(),
            user: user.as_deref(),
            conversation: conversation.as_deref(),
            text: &text,
        };
        classifier.judge(&question).await
    }

    /// A batch that waits for some answers shall not lose the others: with many events there would be some missing each time.
    fn keep(&self, events: &[&Event<Document>], answers: Vec<(usize, Result<Judgement, Unavailable>)>) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() > KEPT_MAX {
            kept.clear();
        }
        kept.extend(answers.into_iter().filter_map(|(at, answer)| Some((place_of(events[at]), answer.ok()?))));
    }

    fn forget(&self, events: &[&Event<Document>]) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if !kept.is_empty() {
            events.iter().for_each(|event| drop(kept.remove(&place_of(event))));
        }
    }
}

/// What is wrong with the lists of a configuration. A line each.
pub(crate) fn problems(config: &config::Config) -> Vec<String> {
    let mut problems = Vec::new();
    for (name, pool) in &config.pools {
        for (index, pipeline) in pool.pipelines.iter().enumerate() {
            if let Some(Err(why)) = pipeline.moderate.as_ref().map(Lists::open) {
                problems.push(format!("`pools.{name}.pipelines[{index}].moderate` of {:?}: {why}", pipeline.name));
            }
        }
    }
    problems
}

fn place_of(event: &Event<Document>) -> (uuid::Uuid, i32, i64) {
    (event.origin.topic_id, event.origin.partition, event.record.offset)
}

/// The table that the pool's `persist` writes, if it has a status that the mapping leaves alone.
async fn messages_of(pool: &config::Pool, store: &dyn store::Store) -> anyhow::Result<Option<IdKey>> {
    let Some(persist) = pool.pipelines.iter().find(|pipeline| pipeline.handler == "persist") else { return Ok(None) };
    if persist.columns.as_ref().is_some_and(|columns| columns.contains_key(STATUS)) {
        return Ok(None);
    }
    let (table, key) = (persist.persist_table(), persist.persist_key());
    let columns = store.describe(table).await?;
    let kind = columns.iter().find(|column| column.name == key).and_then(|column| KeyType::of(&column.kind));
    let has_status = columns.iter().any(|column| column.name == STATUS);
    Ok(kind.filter(|_| has_status).map(|kind| IdKey { table: table.to_owned(), column: key.to_owned(), kind }))
}

#[async_trait]
impl Handler<Document> for Moderate {
    type Work = Judgement;

    fn service(&self) -> Service {
        self.classifier.as_ref().map_or(Service::None, Classifier::service)
    }

    async fn prepare(&self, events: &[&Event<Document>]) -> Result<Vec<Answer<Judgement>>, Error> {
        let mut judged = {
            let (lists, mut folded) = (self.lists.now(), String::new());
            events.iter().map(|event| self.judge(&lists, event, &mut folded)).collect::<Vec<_>>()
        };
        if let Some(classifier) = &self.classifier {
            self.classify(classifier, events, &mut judged).await?;
        }
        let answer = |judged: Result<Judgement, Rejection>| match judged {
            Err(rejection) => Answer::Reject(rejection),
            Ok(judgement) => {
                self.metrics.judged(judgement.verdict as usize);
                match judgement.verdict {
                    Verdict::Allow => Answer::Skip,
                    Verdict::Flag | Verdict::Hide => Answer::Apply(judgement),
                }
            }
        };
        Ok(judged.into_iter().map(answer).collect())
    }

    /// Ids sorted, as everywhere. A row that the same transaction has just inserted is seen by nobody else in between.
    async fn apply(&self, tx: &mut dyn Tx, items: &[Item<'_, Document, Judgement>]) -> Result<Applied, store::Error> {
        let stored = |item: &Item<'_, Document, Judgement>| {
            let Item { event, work } = item;
            StoredVerdict {
                event_id: event.id.as_str().to_owned(),
                verdict: work.verdict.as_str().to_owned(),
                reason: work.reason.replace('\0', "\u{fffd}"),
                conversation: event.payload.conversation().filter(|name| !name.contains('\0')).map(Into::into),
                topic_id: event.origin.topic_id,
                partition: event.origin.partition,
                key: event.record.key.as_deref().map(<[u8]>::to_vec),
            }
        };
        let mut verdicts: Vec<StoredVerdict> = items.iter().map(stored).collect();
        verdicts.sort_by(|a, b| a.event_id.cmp(&b.event_id));
        tx.keep_verdicts(&self.pool, &self.pipeline, &verdicts).await?;
        if let Some(messages) = &self.messages {
            tx.set_status(messages, &verdicts).await?;
        }
        Ok(Applied::Done)
    }
}
