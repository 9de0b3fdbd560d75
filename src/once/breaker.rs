//! Leaves a failing dependency alone for a while, then lets one trial through.

use std::fmt::Display;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// How long a dependency is left alone after a failure, and after each failed trial.
pub(super) const PAUSE: Duration = Duration::from_secs(1);

/// Closed while all is well; open after a failure, when it lets one attempt through each [`PAUSE`].
#[derive(Debug, Default)]
pub(crate) struct Breaker(Mutex<Option<Open>>);

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

impl Breaker {
    /// A permit to try, or `None` if the dependency is to be left alone.
    pub(crate) fn permit(&self, now: Instant) -> Option<Permit> {
        match &mut *self.lock() {
            None => Some(Permit::Regular),
            Some(open) if now < open.next_trial => None,
            Some(open) => {
                open.next_trial = now + PAUSE;
                Some(Permit::Trial)
            }
        }
    }

    /// Since when it is open, and the last failure; `None` while closed.
    pub(super) fn open(&self) -> Option<(SystemTime, String)> {
        self.lock().as_ref().map(|open| (open.since, open.error.clone()))
    }

    /// An attempt worked. Only a trial's success closes: one that began before the failure proves nothing.
    pub(crate) fn succeeded(&self, permit: Permit) -> Change {
        if permit == Permit::Regular {
            return Change::None;
        }
        match self.lock().take() {
            Some(_) => Change::Closed,
            None => Change::None,
        }
    }

    /// An attempt failed.
    pub(crate) fn failed(&self, permit: Permit, now: Instant, error: &impl Display) -> Change {
        let mut breaker = self.lock();
        match &mut *breaker {
            None => {
                *breaker = Some(Open { next_trial: now + PAUSE, since: SystemTime::now(), error: error.to_string() });
                Change::Opened
            }
            Some(open) => {
                if permit == Permit::Trial {
                    open.next_trial = now + PAUSE;
                    open.error = error.to_string();
                }
                Change::None
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Open>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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
}
