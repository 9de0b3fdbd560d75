//! One answer for all who ask the same at about the same time: a topic of 512 partitions that are taken over together is
//! described to each of their tasks otherwise, with all its partitions.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// The last answer about something, and when it was asked for.
type Last<A> = Arc<tokio::sync::Mutex<Option<(Instant, A)>>>;

/// Answers that somebody waits for, by what they are about.
pub(super) struct Answers<A>(Mutex<HashMap<String, Last<A>>>);

impl<A> Default for Answers<A> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<A: Clone> Answers<A> {
    /// An answer as young as if the caller had asked: one that was asked for since the call, by another or by itself.
    pub(super) async fn of(&self, about: &str, ask: impl Future<Output = A>) -> A {
        let called = Instant::now();
        let last = Arc::clone(self.lock().entry(about.to_owned()).or_default());
        let mut last = last.lock().await;
        if let Some((asked, answer)) = &*last
            && *asked >= called
        {
            return answer.clone();
        }
        let asked = Instant::now();
        let answer = ask.await;
        *last = Some((asked, answer.clone()));
        // Those who wait have it already; nothing is kept of topics that are gone.
        self.lock().remove(about);
        answer
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Last<A>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::future::{join_all, poll_immediate};
    use tokio::sync::Semaphore;

    use super::*;

    #[tokio::test]
    async fn who_asks_while_another_waits_shares_the_next_answer() {
        let (answers, asked, may_answer) = (Answers::default(), AtomicUsize::new(0), Semaphore::new(0));
        let ask = |about| {
            answers.of(about, async {
                let number = asked.fetch_add(1, Ordering::Relaxed);
                drop(may_answer.acquire().await.unwrap());
                number
            })
        };
        let mut first = Box::pin(ask("a"));
        assert_eq!(poll_immediate(&mut first).await, None);
        let mut others = Box::pin(join_all([ask("a"), ask("a"), ask("a")]));
        let mut elsewhere = Box::pin(ask("b"));
        assert_eq!(poll_immediate(&mut others).await, None);
        assert_eq!(poll_immediate(&mut elsewhere).await, None);
        assert_eq!(asked.load(Ordering::Relaxed), 2, "one about a, one about b");
        may_answer.add_permits(1);
        assert_eq!((first.await, elsewhere.await), (0, 1));
        // The first had asked before they did: what it was told may be older than they are.
        assert_eq!(others.await, [2, 2, 2]);
        assert_eq!(ask("a").await, 3, "an answer is not kept");
        assert!(answers.lock().is_empty());
    }

    #[tokio::test]
    async fn who_gives_up_leaves_the_question_to_the_next() {
        let answers = Answers::default();
        let mut given_up = Box::pin(answers.of("a", std::future::pending()));
        assert_eq!(poll_immediate(&mut given_up).await, None);
        let mut next = Box::pin(answers.of("a", async { 1 }));
        assert_eq!(poll_immediate(&mut next).await, None);
        drop(given_up);
        assert_eq!(next.await, 1);
    }
}
