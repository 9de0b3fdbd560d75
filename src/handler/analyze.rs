//! Exact counters a minute of the payload's time, in the dimensions configured.
//!
//! Exact because they are increased in the transaction that claims the ids, for new ids only. Sharded by
//! partition, so that tasks do not wait for each other; the view `message_stats` sums the shards.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};

use anyhow::Context as _;
use async_trait::async_trait;

use super::{Answer, Applied, Error, Handler, Item, Rejection, Setup, Shipped};
use crate::config::schema::{Shape, key};
use crate::config::{Check, HandlerKind};
use crate::event::{Event, Payload};
use crate::store::{self, Count, Tx};

pub(super) const SHIPPED: Shipped = Shipped {
    kind: HandlerKind {
        name: "analyze",
        keys: &[key("dimensions", Shape::Texts)],
        is_stored: true,
        example: "",
        check,
    },
    build: |setup| Box::pin(async move { Ok(Box::new(Analyze::set_up(&setup)?) as _) }),
};

/// The longest member counted, in bytes: it is part of a database key.
const MEMBER_BYTES_MAX: usize = 1024;
/// The last millisecond of the year 9999.
const TIMESTAMP_MS_MAX: i64 = 253_402_300_799_999;

/// What events are counted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dimension {
    /// The event's type.
    Type,
    /// Who sent it.
    User,
    /// The conversation.
    Conversation,
    /// How many different users there were.
    ActiveUsers,
}

impl Dimension {
    const ALL: [Self; 4] = [Self::Type, Self::User, Self::Conversation, Self::ActiveUsers];

    /// The dimension of a name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.name() == name)
    }

    /// The name in configuration and in `message_stats`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Type => "type",
            Self::User => "user",
            Self::Conversation => "conversation",
            Self::ActiveUsers => "active_users",
        }
    }
}

fn check(check: &mut Check<'_>) {
    let Some(dimensions) = &check.pipeline.dimensions else { return };
    if dimensions.is_empty() {
        check.say("dimensions", "is empty: name what to count by, or leave it out");
    }
    let mut seen = BTreeSet::new();
    for name in dimensions {
        if Dimension::from_name(name).is_none() {
            let (at, known) = (check.at, Dimension::ALL.map(Dimension::name).join(", "));
            check.problem(format!("`{at}.dimensions`: there is no dimension {name:?}, known are {known}"));
        } else if !seen.insert(name) {
            check.say("dimensions", format!("names {name:?} twice"));
        }
    }
}

/// The handler `analyze`.
#[derive(Debug, Clone)]
pub struct Analyze {
    dimensions: Vec<Dimension>,
}

impl Analyze {
    /// Counts by these dimensions.
    pub fn new(dimensions: impl IntoIterator<Item = Dimension>) -> Self {
        Self { dimensions: dimensions.into_iter().collect() }
    }

    pub(super) fn set_up(setup: &Setup<'_>) -> anyhow::Result<Self> {
        let Some(names) = &setup.pipeline.dimensions else { return Ok(Self::new([Dimension::Type])) };
        let known = |name: &String| Dimension::from_name(name).with_context(|| format!("unknown dimension {name:?}"));
        Ok(Self { dimensions: names.iter().map(known).collect::<anyhow::Result<_>>()? })
    }

    /// What an event adds to. An event without, say, a user is not counted by user.
    fn members<'a, T: Payload>(&'a self, event: &'a Event<T>) -> impl Iterator<Item = (Dimension, Cow<'a, str>)> {
        let payload = &event.payload;
        self.dimensions.iter().filter_map(|dimension| {
            let member = match dimension {
                Dimension::Type => Cow::Borrowed(payload.kind()),
                Dimension::User | Dimension::ActiveUsers => payload.user()?,
                Dimension::Conversation => payload.conversation()?,
            };
            Some((*dimension, member))
        })
    }
}

#[async_trait]
impl<T: Payload> Handler<T> for Analyze {
    type Work = ();

    async fn prepare(&self, events: &[&Event<T>]) -> Result<Vec<Answer<()>>, Error> {
        let answer = |event: &&Event<T>| match event.timestamp_ms() {
            0..=TIMESTAMP_MS_MAX => {
                let unfit = self.members(event).find(|(_, name)| name.len() > MEMBER_BYTES_MAX || name.contains('\0'));
                match unfit {
                    None => Answer::Apply(()),
                    Some((dimension, _)) => Answer::Reject(Rejection::refused(format!(
                        "{} is longer than {MEMBER_BYTES_MAX} bytes or contains NUL and cannot be counted by",
                        dimension.name()
                    ))),
                }
            }
            _ => Answer::Reject(Rejection::refused(
                "the time stamp is not between 1970 and 9999; milliseconds since 1970 are expected",
            )),
        };
        Ok(events.iter().map(answer).collect())
    }

    async fn apply(&self, tx: &mut dyn Tx, items: &[Item<'_, T, ()>]) -> Result<Applied, store::Error> {
        let mut sums: HashMap<(i64, Dimension, Cow<'_, str>, i32), i64> = HashMap::new();
        for Item { event, .. } in items {
            let minute = event.timestamp_ms().div_euclid(60_000);
            for (dimension, member) in self.members(event) {
                *sums.entry((minute, dimension, member, event.origin.partition)).or_default() += 1;
            }
        }
        let counts: Vec<Count> = sums
            .into_iter()
            .map(|((minute, dimension, member, shard), sum)| {
                let by = (dimension != Dimension::ActiveUsers).then_some(sum);
                Count { minute, dimension: dimension.name(), member: member.into_owned(), shard, by }
            })
            .collect();
        tx.count(&counts).await?;
        Ok(Applied::Done)
    }
}
