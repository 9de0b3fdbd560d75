//! Sends each event on to another topic: its value byte for byte, with its headers and time, under a key of choice.
//!
//! Promised: at least once, in the order of each partition. A repeat carries the same header `weir-id`, the event's id, so
//! that whoever reads the topic, weir among them, knows it again. `weir-source` tells where it came from.

use async_trait::async_trait;
use serde::Deserialize;

use super::delivered::Delivered;
use super::template::Template;
use super::{Answer, Applied, Error, Handler, Item, Rejection, Setup, Shipped};
use crate::config::schema::{Shape, key};
use crate::config::{Check, HandlerKind, is_topic};
use crate::event::{Document, Event};
use crate::publish::{Outgoing, PublishError, PublishOptions, Publisher};
use crate::store::{self, Fault, Tx};

pub(super) const SHIPPED: Shipped = Shipped {
    kind: HandlerKind {
        name: "forward",
        keys: &[key("topic", Shape::Text), key("record_key", Shape::Text)],
        is_stored: false,
        example: "topic = \"other\"",
        check,
    },
    build: |mut setup| Box::pin(async move { Ok(Box::new(Forward::set_up(&mut setup)?) as _) }),
};

/// Its own keys; `topic` is read by others, too.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Settings {
    /// The key to send under, with places; without one, the record's own.
    record_key: Option<String>,
}

fn check(check: &mut Check<'_>) {
    let topic = check.pipeline.topic.as_deref();
    if topic.unwrap_or_default().is_empty() {
        check.say("topic", "is not set: name the topic to send to");
    }
    let Some(Settings { record_key }) = check.read() else { return };
    for (key, template) in [("topic", topic), ("record_key", record_key.as_deref())] {
        if let Some(why) = template.and_then(Template::problem) {
            check.problem(format!("`{}.{key}`: {why}", check.at));
        }
    }
}

/// The handler `forward`.
pub struct Forward {
    publisher: Publisher,
    topic: Template,
    /// Without one, the record's own key.
    key: Option<Template>,
    delivered: Delivered,
}

/// Where an event goes.
struct Target {
    topic: String,
    key: Option<Vec<u8>>,
}

impl Forward {
    pub(super) fn set_up(setup: &mut Setup<'_>) -> anyhow::Result<Self> {
        let topic = Template::parse(setup.pipeline.topic.as_deref().unwrap_or_default(), setup.fields)?;
        let Settings { record_key } = setup.pipeline.settings.read().map_err(anyhow::Error::msg)?;
        let key = record_key.as_deref().map(|key| Template::parse(key, setup.fields)).transpose()?;
        let publisher = Publisher::new(setup.kafka.client(), PublishOptions::default())?;
        Ok(Self { publisher, topic, key, delivered: Delivered::default() })
    }

    fn target(&self, event: &Event<Document>) -> Result<Target, Rejection> {
        let topic = self.topic.fill(event)?;
        if !is_topic(&topic) {
            return Err(Rejection::by_handler("the topic that the template makes of it is no name of a topic"));
        }
        let key = match &self.key {
            Some(key) => Some(key.fill(event)?.into_bytes()),
            None => event.record.key.as_deref().map(<[u8]>::to_vec),
        };
        Ok(Target { topic, key })
    }

    async fn send(&self, event: &Event<Document>, target: &Target) -> Result<crate::publish::Handle, PublishError> {
        let source = format!("{}@{}", event.origin, event.record.offset);
        let mut headers: Vec<(&str, &[u8])> = Vec::with_capacity(event.record.headers.len() + 2);
        for header in &event.record.headers {
            match std::str::from_utf8(&header.name) {
                Ok("weir-id" | "weir-source") | Err(_) => {}
                Ok(name) => headers.push((name, header.value.as_deref().unwrap_or_default())),
            }
        }
        headers.push(("weir-id", event.id.as_str().as_bytes()));
        headers.push(("weir-source", source.as_bytes()));
        let outgoing = match &event.record.value {
            Some(value) => Outgoing::new(&target.topic, value),
            None => Outgoing::tombstone(&target.topic),
        };
        let outgoing = outgoing.headers(&headers).timestamp_ms(event.record.timestamp_ms);
        match &target.key {
            Some(key) => self.publisher.send(outgoing.key(key)).await,
            None => self.publisher.send(outgoing).await,
        }
    }
}

/// An event's own fault; else what the whole batch waits for.
fn meet(error: PublishError) -> Result<Rejection, Error> {
    match error {
        PublishError::TooLarge { .. } | PublishError::BatchTooLarge { .. } => {
            Ok(Rejection { reason: store::Reason::TooLarge, message: error.to_string() })
        }
        error => {
            let fault = if error.needs_a_person() { Fault::Hold } else { Fault::Outage };
            Err(Error { fault, message: format!("forward events: {error}") })
        }
    }
}

#[async_trait]
impl Handler<Document> for Forward {
    type Work = ();

    async fn prepare(&self, events: &[&Event<Document>]) -> Result<Vec<Answer<()>>, Error> {
        self.delivered.begin(events);
        let (mut answers, mut sent, mut failure) = (Vec::with_capacity(events.len()), Vec::new(), None);
        for (at, event) in events.iter().enumerate() {
            answers.push(Answer::Apply(()));
            if self.delivered.has(event) {
                continue;
            }
            let queued = match self.target(event) {
                Ok(target) => self.send(event, &target).await.map_err(meet),
                Err(rejection) => Err(Ok(rejection)),
            };
            match queued {
                Ok(handle) => sent.push((at, handle)),
                Err(Ok(rejection)) => answers[at] = Answer::Reject(rejection),
                Err(Err(error)) => {
                    failure = Some(error);
                    break;
                }
            }
        }
        for (at, handle) in sent {
            match handle.await.map_err(meet) {
                // What came behind a failure goes again behind it, so that the order is kept.
                Ok(_) if failure.is_none() => self.delivered.note(events[at]),
                Ok(_) => {}
                Err(Ok(rejection)) => answers[at] = Answer::Reject(rejection),
                Err(Err(error)) => _ = failure.get_or_insert(error),
            }
        }
        failure.map_or(Ok(answers), Err)
    }

    async fn apply(&self, _tx: &mut dyn Tx, _items: &[Item<'_, Document, ()>]) -> Result<Applied, store::Error> {
        Ok(Applied::Done)
    }
}

impl std::fmt::Debug for Forward {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Forward").field("topic", &self.topic).field("key", &self.key).finish_non_exhaustive()
    }
}
