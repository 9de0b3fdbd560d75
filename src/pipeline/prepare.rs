//! The first phase: every pipeline looks at its events, side by side, outside the transaction.

use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use futures_util::future::join_all;

use super::{Batch, Pipeline, Pipelines};
use crate::event::{Event, Payload};
use crate::handler::{Answer, ErasedWork, Error, Rejection};
use crate::store::Fault;

type Answers = Vec<Answer<ErasedWork>>;

/// How long each pipeline's `prepare` took.
pub(crate) type PrepareTimes = Vec<Duration>;

impl<T: Payload> Pipelines<T> {
    /// Asks every pipeline about those of its open events that it was not asked about before, and notes the answers.
    ///
    /// # Errors
    /// The first pipeline's fault that is not one event's.
    pub(crate) async fn prepare(&self, batch: &mut Batch<T>) -> Result<PrepareTimes, Error> {
        let unasked = |at: &usize| !batch.entries[*at].prepared;
        let asked: Vec<Vec<usize>> = (0..self.list.len())
            .map(|pipeline| self.asked(batch, pipeline).into_iter().filter(unasked).collect())
            .collect();
        let shared: &Batch<T> = batch;
        let answers = join_all(asked.iter().enumerate().map(|(pipeline, asked)| async move {
            let begun = Instant::now();
            self.answers(shared, pipeline, asked).await.map(|answers| (answers, begun.elapsed()))
        }))
        .await;
        let answers: Vec<(Answers, Duration)> = answers.into_iter().collect::<Result<_, _>>()?;
        let mut times = Vec::with_capacity(answers.len());
        for (pipeline, ((answers, time), asked)) in answers.into_iter().zip(asked).enumerate() {
            times.push(time);
            for (at, answer) in asked.into_iter().zip(answers) {
                self.note(batch, pipeline, at, answer)?;
            }
        }
        batch.entries.iter_mut().filter(|entry| !entry.known).for_each(|entry| entry.prepared = true);
        Ok(times)
    }

    /// The entries that a pipeline is asked about.
    pub(super) fn asked(&self, batch: &Batch<T>, pipeline: usize) -> Vec<usize> {
        let open = |at: &usize| batch.entries[*at].is_open() && batch.entries[*at].is_wanted_by(pipeline);
        (0..batch.entries.len()).filter(open).collect()
    }

    pub(super) async fn answers(&self, batch: &Batch<T>, pipeline: usize, asked: &[usize]) -> Result<Answers, Error> {
        let events: Vec<&Event<T>> = asked.iter().map(|at| &batch.entries[*at].event).collect();
        let pipeline = &self.list[pipeline];
        let clock = batch.trace.clock().filter(|_| !events.is_empty());
        let answers = pipeline.answers(&events).await;
        batch.trace.prepared(clock, &pipeline.name, answers.as_ref().err().map(|error| error.fault.as_str()));
        answers
    }

    pub(super) fn note(
        &self,
        batch: &mut Batch<T>,
        pipeline: usize,
        at: usize,
        answer: Answer<ErasedWork>,
    ) -> Result<(), Error> {
        match answer {
            Answer::Apply(work) => batch.work[pipeline][at] = Some(work),
            Answer::Skip if self.claimer == Some(pipeline) => {
                let name = &self.list[pipeline].name;
                let message = format!("pipeline {name:?} claims the event's id and so may not skip an event");
                return Err(Error { fault: Fault::Fatal, message });
            }
            Answer::Skip => batch.work[pipeline][at] = None,
            Answer::Reject(rejection) => {
                let name = std::sync::Arc::clone(&self.list[pipeline].name);
                batch.entries[at].rejected.get_or_insert((name, rejection));
            }
        }
        Ok(())
    }
}

impl<T: Payload> Pipeline<T> {
    /// The handler's answers. When it panics or says that an event is at fault without saying which, the events are
    /// asked about one at a time.
    async fn answers(&self, events: &[&Event<T>]) -> Result<Answers, Error> {
        if events.is_empty() {
            return Ok(Vec::new());
        }
        match self.ask(events).await {
            Err(Error { fault: Fault::Reject, .. }) => {}
            answers => return answers,
        }
        let mut answers = Vec::with_capacity(events.len());
        for event in events {
            match self.ask(&[event]).await {
                Err(Error { fault: Fault::Reject, message }) => {
                    answers.push(Answer::Reject(Rejection::by_handler(message)));
                }
                answer => answers.append(&mut answer?),
            }
        }
        Ok(answers)
    }

    async fn ask(&self, events: &[&Event<T>]) -> Result<Answers, Error> {
        // The handler is given shared references only; what it leaves half done inside itself is its own matter.
        let asked = AssertUnwindSafe(self.handler.prepare(events)).catch_unwind().await;
        let answers = asked.map_err(|_| Error {
            fault: Fault::Reject,
            message: format!("pipeline {:?} panicked in prepare", self.name),
        })??;
        if answers.len() == events.len() {
            return Ok(answers);
        }
        let message = format!(
            "pipeline {:?} answered for {} events and was asked about {}",
            self.name,
            answers.len(),
            events.len()
        );
        Err(Error { fault: Fault::Fatal, message })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use async_trait::async_trait;

    use super::*;
    use crate::config;
    use crate::event::{Document, Fields, Origin, Record};
    use crate::handler::{Applied, Handler, Item};
    use crate::pipeline::Decoding;
    use crate::store::{self, Tx, Unstored};

    /// Notes whom it was asked about, each time.
    #[derive(Clone, Default)]
    struct Asked(Arc<Mutex<Vec<Vec<i64>>>>);

    #[async_trait]
    impl Handler<Document> for Asked {
        type Work = i64;

        async fn prepare(&self, events: &[&Event<Document>]) -> Result<Vec<Answer<i64>>, Error> {
            let offsets: Vec<i64> = events.iter().map(|event| event.record.offset).collect();
            self.0.lock().unwrap().push(offsets.clone());
            Ok(offsets.into_iter().map(Answer::Apply).collect())
        }

        async fn apply(&self, _: &mut dyn Tx, _: &[Item<'_, Document, i64>]) -> Result<Applied, store::Error> {
            Ok(Applied::Done)
        }
    }

    #[tokio::test]
    async fn of_events_that_were_taken_for_known_and_are_not_nothing_else_is_prepared_again() {
        let asked = Asked::default();
        let pipeline = Pipeline { name: Arc::from("p"), when: None, handler: Box::new(asked.clone()) };
        let pipelines = Pipelines::new(Arc::from("pool"), Arc::new(Unstored), vec![pipeline]).unwrap();
        let fields = Fields::new(&config::EventFields::default()).unwrap();
        let decoding = Decoding::new(Box::new(fields), &config::Pool::default());
        let origin = Arc::new(Origin { topic: "t".into(), topic_id: uuid::Uuid::nil(), partition: 0 });
        let records = (0..5).map(|offset| Record::new(offset, "{}")).collect();
        let mut batch = Batch::decode(&decoding, &pipelines, &origin, records);
        batch.note_known(&[false, true, true, false, true]);
        pipelines.prepare(&mut batch).await.unwrap();
        batch.distrust(&[1, 4]);
        pipelines.prepare(&mut batch).await.unwrap();
        assert_eq!(*asked.0.lock().unwrap(), [vec![0, 3], vec![1, 4]]);
        let prepared: Vec<bool> = batch.work[0].iter().map(Option::is_some).collect();
        assert_eq!(prepared, [true, true, false, true, true], "the one that is known needs nothing");
        assert_eq!(batch.plan(false).known, [2]);
    }
}
