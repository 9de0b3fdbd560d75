//! Leaves a failing dependency alone for a while, then lets one trial through.

use std::fmt::Display;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// How long a dependency is left alone after a failure, and after each failed trial.
pub(crate) const PAUSE: Duration = Duration::from_secs(1);

/// Closed while all is well; open after so many failures in a row, when it lets one attempt through each [`PAUSE`].
#[derive(Debug)]
pub(crate) struct Breaker {
    state: Mutex<State>,
    failures_max: u32,
}

#[derive(Debug)]
enum State {
    Closed {
        /// In a row, up to now.
        failures: u32,
    },
    Open(Open),
}

/// An open breaker.
#[derive(Debug)]
struct Open {
    /// When the next trial may start.
    next_trial: Instant,
    since: SystemTime,
    /// The last failure's.
    error: String,
}

/// What an attempt is to the breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Permit {
    /// The breaker was closed.
    Regular,
    /// The breaker is open, and this attempt decides.
    Trial,
}

/// What an attempt's outcome did to the breaker: whether there is something to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// It opened.
    Opened,
    /// It closed.
    Closed,
    /// It is as it was.
    None,
}

impl Default for Breaker {
    /// One that opens at the first failure.
    fn default() -> Self {
        Self::after(1)
    }
}

impl Breaker {
    /// One that opens after so many failures in a row.
    pub(crate) fn after(failures_max: u32) -> Self {
        Self { state: Mutex::new(State::Closed { failures: 0 }), failures_max }
    }

    /// A permit to try, or `None` if the dependency is to be left alone.
    pub(crate) fn permit(&self, now: Instant) -> Option<Permit> {
        match &mut *self.lock() {
            State::Closed { .. } => Some(Permit::Regular),
            State::Open(open) if now < open.next_trial => None,
            State::Open(open) => {
                open.next_trial = now + PAUSE;
                Some(Permit::Trial)
            }
        }
    }

    /// Since when it is open, and the last failure; `None` while closed.
    pub(crate) fn open(&self) -> Option<(SystemTime, String)> {
        match &*self.lock() {
            State::Closed { .. } => None,
            State::Open(open) => Some((open.since, open.error.clone())),
        }
    }

    /// An attempt worked. Only a trial's success closes: one that began before the failure proves nothing.
    pub(crate) fn succeeded(&self, permit: Permit) -> Change {
        match (&mut *self.lock(), permit) {
            (State::Closed { failures }, _) => {
                *failures = 0;
                Change::None
            }
            (State::Open(_), Permit::Regular) => Change::None,
            (state @ State::Open(_), Permit::Trial) => {
                *state = State::Closed { failures: 0 };
                Change::Closed
            }
        }
    }

    /// An attempt failed.
    pub(crate) fn failed(&self, permit: Permit, now: Instant, error: &impl Display) -> Change {
        match &mut *self.lock() {
            State::Closed { failures } if *failures + 1 < self.failures_max => {
                *failures += 1;
                Change::None
            }
            state @ State::Closed { .. } => {
                let (next_trial, since) = (now + PAUSE, SystemTime::now());
                *state = State::Open(Open { next_trial, since, error: error.to_string() });
                Change::Opened
            }
            State::Open(open) => {
                if permit == Permit::Trial {
                    open.next_trial = now + PAUSE;
                    open.error = error.to_string();
                }
                Change::None
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_breaker_lets_one_trial_through_each_pause() {
        let breaker = Breaker::default();
        let start = Instant::now();
        assert_eq!(breaker.permit(start), Some(Permit::Regular));
        assert_eq!(breaker.failed(Permit::Regular, start, &"late"), Change::Opened);
        assert_eq!(breaker.permit(start + PAUSE / 2), None);
        assert_eq!(breaker.permit(start + PAUSE), Some(Permit::Trial));
        assert_eq!(breaker.permit(start + PAUSE), None, "the trial is out");
        assert_eq!(breaker.failed(Permit::Trial, start + PAUSE, &"refused"), Change::None);
        assert_eq!(breaker.permit(start + PAUSE * 2), Some(Permit::Trial));
        let (since, error) = breaker.open().unwrap();
        assert!(since <= SystemTime::now() && error == "refused", "{error}");
        assert_eq!(breaker.succeeded(Permit::Trial), Change::Closed);
        assert_eq!(breaker.open(), None);
        assert_eq!(breaker.permit(start + PAUSE * 2), Some(Permit::Regular));
    }

    #[test]
    fn attempts_from_before_the_failure_neither_close_it_nor_put_the_trial_off() {
        let breaker = Breaker::default();
        let start = Instant::now();
        assert_eq!(breaker.failed(Permit::Regular, start, &"late"), Change::Opened);
        assert_eq!(breaker.succeeded(Permit::Regular), Change::None);
        assert_eq!(breaker.failed(Permit::Regular, start + PAUSE / 2, &"late"), Change::None);
        assert_eq!(breaker.permit(start + PAUSE), Some(Permit::Trial));
    }

    #[test]
    fn a_trial_that_never_ends_is_followed_by_another() {
        let breaker = Breaker::default();
        let start = Instant::now();
        breaker.failed(Permit::Regular, start, &"late");
        assert_eq!(breaker.permit(start + PAUSE), Some(Permit::Trial));
        assert_eq!(breaker.permit(start + PAUSE * 2), Some(Permit::Trial));
    }

    #[test]
    fn failures_open_it_only_in_a_row() {
        let breaker = Breaker::after(3);
        let now = Instant::now();
        for _ in 0..5 {
            assert_eq!(breaker.failed(Permit::Regular, now, &"late"), Change::None);
            assert_eq!(breaker.failed(Permit::Regular, now, &"late"), Change::None);
            assert_eq!(breaker.succeeded(Permit::Regular), Change::None);
        }
        breaker.failed(Permit::Regular, now, &"late");
        breaker.failed(Permit::Regular, now, &"late");
        assert_eq!(breaker.failed(Permit::Regular, now, &"late"), Change::Opened);
        assert_eq!(breaker.permit(now), None);
    }
}
