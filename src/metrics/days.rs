//! The days of a partitioned `messages`.

use prometheus::IntGaugeVec;

use super::PoolMetrics;
use super::family::families;
use super::pool::count;

families! {
    /// Days from tomorrow on that a partitioned messages has a partition for; 7 when all is well.
    ahead: IntGaugeVec = "weir_message_days_ahead" ["pool"];
    /// Partitions of messages that are older than store.messages_retention and could not be dropped.
    overdue: IntGaugeVec = "weir_message_days_overdue" ["pool"];
}

impl PoolMetrics {
    /// How the days of a partitioned `messages` stand.
    pub fn set_message_days(&self, ahead: i64, overdue: usize) {
        let (families, labels) = (&self.families().days, [self.name()]);
        families.ahead.with_label_values(&labels).set(ahead);
        families.overdue.with_label_values(&labels).set(count(overdue));
    }
}
