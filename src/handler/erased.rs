//! Handlers of different work types in one list.

use std::any::Any;

use async_trait::async_trait;

use super::{Answer, Applied, Error, Handler, Item, Service};
use crate::event::{Event, Payload};
use crate::store::{self, IdKey, Tx};

/// A handler's work of unknown type. Boxing a work of no size allocates nothing.
pub(crate) type ErasedWork = Box<dyn Any + Send + Sync>;

/// A [`Handler`] whose work type is forgotten.
#[async_trait]
pub(crate) trait DynHandler<T>: Send + Sync {
    fn claims(&self) -> Option<&IdKey>;
    fn takes_repeats(&self) -> bool;
    fn service(&self) -> Service;
    async fn prepare(&self, events: &[&Event<T>]) -> Result<Vec<Answer<ErasedWork>>, Error>;
    async fn apply(&self, tx: &mut dyn Tx, items: &[(&Event<T>, &ErasedWork)]) -> Result<Applied, store::Error>;
}

#[async_trait]
impl<T: Payload, H: Handler<T>> DynHandler<T> for H {
    fn claims(&self) -> Option<&IdKey> {
        Handler::claims(self)
    }

    fn takes_repeats(&self) -> bool {
        Handler::takes_repeats(self)
    }

    fn service(&self) -> Service {
        Handler::service(self)
    }

    async fn prepare(&self, events: &[&Event<T>]) -> Result<Vec<Answer<ErasedWork>>, Error> {
        let answers = Handler::prepare(self, events).await?;
        let erase = |answer| match answer {
            Answer::Apply(work) => Answer::Apply(Box::new(work) as ErasedWork),
            Answer::Skip => Answer::Skip,
            Answer::Reject(rejection) => Answer::Reject(rejection),
        };
        Ok(answers.into_iter().map(erase).collect())
    }

    async fn apply(&self, tx: &mut dyn Tx, items: &[(&Event<T>, &ErasedWork)]) -> Result<Applied, store::Error> {
        let items: Vec<Item<'_, T, H::Work>> = items
            .iter()
            .map(|(event, work)| {
                let work = work.downcast_ref().expect("a pipeline's work comes from its own handler");
                Item { event, work }
            })
            .collect();
        Handler::apply(self, tx, &items).await
    }
}
