//! Turns: so many at a time. Of those who wait, one turn goes to who has waited longest, the next to whose events are oldest: a
//! partition that has fallen behind the others catches up with them, and none waits for ever.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// Gives turns.
#[derive(Debug)]
pub(super) struct Turns(Mutex<State>);

#[derive(Debug)]
struct State {
    max: usize,
    taken: usize,
    /// In the order in which they came.
    waiting: VecDeque<Waiting>,
    /// Whose turn is next: that of the oldest events.
    oldest_is_next: bool,
}

#[derive(Debug)]
struct Waiting {
    oldest_ms: i64,
    turn: oneshot::Sender<Turn>,
}

/// A turn; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct Turn(Arc<Turns>);

impl Turns {
    pub(super) fn new(max: usize) -> Arc<Self> {
        let state = State { max: max.max(1), taken: 0, waiting: VecDeque::new(), oldest_is_next: false };
        Arc::new(Self(Mutex::new(state)))
    }

    /// Waits for a turn of somebody whose oldest event has this time stamp, in milliseconds since 1970; without one it counts as
    /// the youngest. Safe to drop while it waits.
    pub(super) async fn turn(self: &Arc<Self>, oldest_ms: Option<i64>) -> Turn {
        let oldest_ms = oldest_ms.filter(|ms| *ms > 0).unwrap_or(i64::MAX);
        let given = {
            let mut state = self.state();
            if state.taken < state.max && state.waiting.is_empty() {
                state.taken += 1;
                return Turn(Arc::clone(self));
            }
            let (turn, given) = oneshot::channel();
            state.waiting.push_back(Waiting { oldest_ms, turn });
            given
        };
        // Nobody who waits is left without a turn as long as there are turns.
        given.await.unwrap_or_else(|_| self.one_more())
    }

    fn one_more(self: &Arc<Self>) -> Turn {
        self.state().taken += 1;
        Turn(Arc::clone(self))
    }

    /// How many are taken.
    pub(super) fn taken(&self) -> usize {
        self.state().taken
    }

    /// From now on there are so many. With fewer, those that are taken are not given again.
    pub(super) fn set_max(self: &Arc<Self>, max: usize) {
        self.state().max = max.max(1);
        self.give();
    }

    fn give(self: &Arc<Self>) {
        loop {
            let next = self.state().next();
            let Some(turn) = next else { return };
            // Who does not wait any more by now gives it back at once.
            drop(turn.send(Turn(Arc::clone(self))));
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Takes a turn for the one who gets it.
    fn next(&mut self) -> Option<oneshot::Sender<Turn>> {
        if self.taken >= self.max {
            return None;
        }
        self.waiting.retain(|waiting| !waiting.turn.is_closed());
        let oldest = || (0..self.waiting.len()).min_by_key(|at| self.waiting[*at].oldest_ms);
        let at = if self.oldest_is_next { oldest()? } else { 0 };
        let next = self.waiting.remove(at)?;
        self.oldest_is_next = !self.oldest_is_next;
        self.taken += 1;
        Some(next.turn)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.state().taken -= 1;
        self.0.give();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;

    /// Starts to wait, so that it is in the queue.
    async fn ask(turns: &Arc<Turns>, oldest_ms: i64) -> tokio::task::JoinHandle<Turn> {
        let turns = Arc::clone(turns);
        let asked = tokio::spawn(async move { turns.turn(Some(oldest_ms)).await });
        tokio::time::sleep(Duration::from_millis(1)).await;
        asked
    }

    #[tokio::test(start_paused = true)]
    async fn there_are_never_more_than_may_be_and_nobody_is_passed_over() {
        let turns = Turns::new(3);
        let most = Arc::new(AtomicUsize::new(0));
        let done: Vec<_> = (0..50)
            .map(|n| {
                let (turns, most) = (Arc::clone(&turns), Arc::clone(&most));
                tokio::spawn(async move {
                    let turn = turns.turn(Some(n)).await;
                    most.fetch_max(turns.taken(), Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_millis(u64::try_from(n % 7).unwrap())).await;
                    drop(turn);
                })
            })
            .collect();
        for done in done {
            done.await.unwrap();
        }
        assert_eq!((most.load(Ordering::Relaxed), turns.taken()), (3, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn every_other_turn_is_that_of_the_oldest_events() {
        let turns = Turns::new(1);
        let held = turns.turn(None).await;
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut asked = Vec::new();
        for oldest_ms in [50, 40, 30, 20, 20, 10] {
            let (turns, order) = (Arc::clone(&turns), Arc::clone(&order));
            asked.push(tokio::spawn(async move {
                let _turn = turns.turn(Some(oldest_ms)).await;
                order.lock().unwrap().push(oldest_ms);
            }));
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        drop(held);
        for asked in asked {
            asked.await.unwrap();
        }
        assert_eq!(*order.lock().unwrap(), [50, 10, 40, 20, 30, 20]);
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_far_behind_has_half_of_the_turns_and_who_comes_late_has_others() {
        let turns = Turns::new(1);
        let mut held = turns.turn(None).await;
        let mut others: VecDeque<_> = [ask(&turns, 90).await, ask(&turns, 80).await, ask(&turns, 70).await].into();
        let mut behind = ask(&turns, 1).await;
        let mut given = Vec::new();
        for _ in 0..6 {
            drop(held);
            held = tokio::select! {
                turn = &mut behind => {
                    given.push("behind");
                    let turn = turn.unwrap();
                    behind = ask(&turns, 1).await;
                    turn
                }
                turn = others.front_mut().unwrap() => {
                    given.push("other");
                    others.pop_front();
                    others.push_back(ask(&turns, 100).await);
                    turn.unwrap()
                }
            };
        }
        assert_eq!(given.iter().filter(|who| **who == "behind").count(), 3, "{given:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn who_stops_waiting_keeps_no_turn() {
        let turns = Turns::new(1);
        let held = turns.turn(None).await;
        let (gone, stays) = (ask(&turns, 1).await, ask(&turns, 2).await);
        gone.abort();
        gone.await.unwrap_err();
        drop(held);
        drop(stays.await.unwrap());
        assert_eq!(turns.taken(), 0);

        // Given, and dropped before it was looked at.
        let held = turns.turn(None).await;
        let mut waiting = Box::pin(turns.turn(None));
        assert!(futures_util::poll!(&mut waiting).is_pending());
        drop(held);
        assert_eq!(turns.taken(), 1);
        drop(waiting);
        assert_eq!(turns.taken(), 0);
        drop(turns.turn(None).await);
    }

    #[tokio::test(start_paused = true)]
    async fn fewer_are_reached_as_they_come_back_and_more_at_once() {
        let turns = Turns::new(2);
        let (first, second) = (turns.turn(None).await, turns.turn(None).await);
        turns.set_max(1);
        let (third, fourth) = (ask(&turns, 1).await, ask(&turns, 2).await);
        drop(first);
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert!(!third.is_finished() && turns.taken() == 1);
        turns.set_max(3);
        let _both = (third.await.unwrap(), fourth.await.unwrap());
        assert_eq!(turns.taken(), 3);
        drop(second);
    }
}
