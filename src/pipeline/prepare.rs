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
