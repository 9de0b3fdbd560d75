//! A pool's time budget: how long a batch may take so that a worker is never taken to be dead while it works.
//!
//! `max_poll_records × handle_ms < ½ · min(session timeout, max poll interval, drain deadline)`. The half is for
//! the commit, and for a batch that is slower than most.

use std::fmt;
use std::time::Duration;

use super::{Kafka, Pool};

/// What a pool's batches may take, and what they do.
#[derive(Debug, Clone, PartialEq)]
pub struct Budget {
    /// The most events of a batch.
    pub max_poll_records: usize,
    /// What handling an event takes, where it is configured.
    pub handle_ms: Option<f64>,
    /// The shortest of the three limits.
    pub limit: Duration,
    /// The setting that is the shortest.
    pub limited_by: &'static str,
}

impl Budget {
    /// The budget of a pool. Under the consumer protocol the brokers are taken to have their default.
    pub fn of(kafka: &Kafka, pool: &Pool) -> Self {
        Self::with_session_timeout(kafka, pool, kafka.session_timeout().0)
    }

    /// The same with the session's time-out as the brokers told it.
    pub(crate) fn with_session_timeout(kafka: &Kafka, pool: &Pool, session_timeout: Duration) -> Self {
        let limits = [
            (session_timeout, kafka.session_timeout().1),
            (Duration::from_millis(kafka.max_poll_interval_ms), "kafka.max_poll_interval_ms"),
            (pool.drain_deadline, "drain_deadline"),
        ];
        let (limit, limited_by) =
            limits.into_iter().fold(limits[0], |least, next| if next < least { next } else { least });
        Self { max_poll_records: pool.max_poll_records, handle_ms: pool.handle_ms, limit, limited_by }
    }

    /// What a batch may take, in milliseconds.
    pub fn batch_ms_max(&self) -> f64 {
        self.limit.as_secs_f64() * 1000.0 / 2.0
    }

    /// What a full batch takes, in milliseconds, where that is known.
    pub fn batch_ms(&self) -> Option<f64> {
        #[expect(clippy::cast_precision_loss, reason = "records of a batch are far fewer than 2^52")]
        self.handle_ms.map(|handle_ms| self.max_poll_records as f64 * handle_ms)
    }

    /// Whether a full batch fits, or is not known not to.
    pub fn fits(&self) -> bool {
        self.batch_ms().is_none_or(|batch_ms| batch_ms < self.batch_ms_max())
    }

    /// The largest `max_poll_records` that fits. Nothing: not even one event does, or the time is not known.
    pub fn max_poll_records_max(&self) -> Option<usize> {
        let records = (self.batch_ms_max() / self.handle_ms?).ceil() - 1.0;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked; it saturates")]
        (records >= 1.0).then_some(records as usize)
    }
}

impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (records, max) = (self.max_poll_records, self.batch_ms_max());
        let (limit, limited_by) = (self.limit.as_millis(), self.limited_by);
        let most = format!("{max} ms, half of {limited_by} ({limit} ms)");
        let Some((handle_ms, batch_ms)) = self.handle_ms.zip(self.batch_ms()) else {
            return write!(f, "a batch may take {most}; set handle_ms to have max_poll_records = {records} checked");
        };
        let sign = if self.fits() { "<" } else { ">=" };
        write!(f, "{records} events x {handle_ms} ms = {batch_ms} ms {sign} {most}")?;
        match self.max_poll_records_max() {
            Some(fit) => write!(f, "; the largest max_poll_records that fits is {fit}"),
            None => f.write_str("; not even one event fits: raise that limit"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::GroupProtocol;

    fn budget(max_poll_records: usize, handle_ms: f64) -> Budget {
        Budget::of(&Kafka::default(), &Pool { max_poll_records, handle_ms: Some(handle_ms), ..Pool::default() })
    }

    #[test]
    fn a_batch_may_take_less_than_half_of_the_shortest_limit() {
        assert!(budget(500, 14.9).fits());
        assert!(!budget(500, 15.0).fits(), "7500 ms are exactly half of 15 s");
        assert_eq!(budget(500, 15.0).limited_by, "kafka.session_timeout_ms");
    }

    #[test]
    fn the_largest_batch_that_fits_does_and_one_more_does_not() {
        for handle_ms in [0.3, 1.0, 7.0, 15.0, 100.0, 7499.0] {
            let fit = budget(1, handle_ms).max_poll_records_max().unwrap();
            assert!(budget(fit, handle_ms).fits(), "{fit} x {handle_ms}");
            assert!(!budget(fit + 1, handle_ms).fits(), "{fit} + 1 x {handle_ms}");
        }
        assert_eq!(budget(1, 7500.0).max_poll_records_max(), None);
    }

    #[test]
    fn the_drain_deadline_limits_too() {
        let pool = Pool { drain_deadline: Duration::from_secs(4), ..Pool::default() };
        let budget = Budget::of(&Kafka::default(), &pool);
        assert_eq!((budget.limited_by, budget.batch_ms_max()), ("drain_deadline", 2000.0));
        assert!(budget.fits());
    }

    #[test]
    fn under_the_consumer_protocol_the_brokers_session_timeout_limits() {
        let kafka = Kafka { group_protocol: GroupProtocol::Consumer, ..Kafka::default() };
        let pool = Pool { drain_deadline: Duration::from_secs(60), ..Pool::default() };
        assert_eq!(Budget::of(&kafka, &pool).limit, Duration::from_secs(45), "session_timeout_ms has no say");
        let budget = Budget::with_session_timeout(&kafka, &pool, Duration::from_secs(6));
        assert_eq!((budget.limited_by, budget.batch_ms_max()), ("the brokers' consumer.session.timeout.ms", 3000.0));
    }

    #[test]
    fn the_text_shows_the_arithmetic() {
        assert_eq!(
            budget(500, 20.0).to_string(),
            "500 events x 20 ms = 10000 ms >= 7500 ms, half of kafka.session_timeout_ms (15000 ms); \
             the largest max_poll_records that fits is 374"
        );
    }
}
