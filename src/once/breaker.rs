//! Leaves a failing dependency alone for a while, then lets one trial through.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a dependency is left alone after a failure, and after each failed trial.
pub(super) const PAUSE: Duration = Duration::from_secs(1);

/// Closed while all is well; open after a failure, when it lets one attempt through each [`PAUSE`].
#[derive(Debug, Default)]
pub(super) struct Breaker {
    /// When the next trial may start; `None` while closed.
    next_trial: Mutex<Option<Instant>>,
}

/// What an attempt is to the breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Permit {
    /// The breaker was closed.
    Regular,
    /// The breaker is open, and this attempt decides.
    Trial,
}

/// What an attempt's outcome did to the breaker: whether there is something to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// It opened.
    Opened,
    /// It closed.
    Closed,
    /// It is as it was.
    None,
}

impl Breaker {
    /// A permit to try, or `None` if the dependency is to be left alone.
    pub(super) fn permit(&self, now: Instant) -> Option<Permit> {
        let mut next_trial = self.lock();
        match *next_trial {
            None => Some(Permit::Regular),
            Some(at) if now < at => None,
            Some(_) => {
                *next_trial = Some(now + PAUSE);
                Some(Permit::Trial)
            }
        }
    }

    /// An attempt worked. Only a trial's success closes: one that began before the failure proves nothing.
    pub(super) fn succeeded(&self, permit: Permit) -> Change {
        if permit == Permit::Regular {
            return Change::None;
        }
        match self.lock().take() {
            Some(_) => Change::Closed,
            None => Change::None,
        }
    }

    /// An attempt failed.
    pub(super) fn failed(&self, permit: Permit, now: Instant) -> Change {
        let mut next_trial = self.lock();
        match (*next_trial, permit) {
            (None, _) => {
                *next_trial = Some(now + PAUSE);
                Change::Opened
            }
            (Some(_), Permit::Trial) => {
                *next_trial = Some(now + PAUSE);
                Change::None
            }
            (Some(_), Permit::Regular) => Change::None,
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.next_trial.lock().unwrap_or_else(PoisonError::into_inner)
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
        assert_eq!(breaker.failed(Permit::Regular, start), Change::Opened);
        assert_eq!(breaker.permit(start + PAUSE / 2), None);
        assert_eq!(breaker.permit(start + PAUSE), Some(Permit::Trial));
        assert_eq!(breaker.permit(start + PAUSE), None, "the trial is out");
        assert_eq!(breaker.failed(Permit::Trial, start + PAUSE), Change::None);
        assert_eq!(breaker.permit(start + PAUSE * 2), Some(Permit::Trial));
        assert_eq!(breaker.succeeded(Permit::Trial), Change::Closed);
        assert_eq!(breaker.permit(start + PAUSE * 2), Some(Permit::Regular));
    }

    #[test]
    fn attempts_from_before_the_failure_neither_close_it_nor_put_the_trial_off() {
        let breaker = Breaker::default();
        let start = Instant::now();
        assert_eq!(breaker.failed(Permit::Regular, start), Change::Opened);
        assert_eq!(breaker.succeeded(Permit::Regular), Change::None);
        assert_eq!(breaker.failed(Permit::Regular, start + PAUSE / 2), Change::None);
        assert_eq!(breaker.permit(start + PAUSE), Some(Permit::Trial));
    }

    #[test]
    fn a_trial_that_never_ends_is_followed_by_another() {
        let breaker = Breaker::default();
        let start = Instant::now();
        breaker.failed(Permit::Regular, start);
        assert_eq!(breaker.permit(start + PAUSE), Some(Permit::Trial));
        assert_eq!(breaker.permit(start + PAUSE * 2), Some(Permit::Trial));
    }
}
