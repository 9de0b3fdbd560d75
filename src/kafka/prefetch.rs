//! How much of a log a client holds ahead of whoever reads it. librdkafka counts it for every partition on its own.

use rdkafka::ClientConfig;

/// No partition is asked for less at once.
const FETCH_BYTES_MIN: usize = 16 << 10;
/// No partition's queue has room for less, however many share the budget.
const QUEUE_KIB_MIN: usize = 32;

/// A budget that a client's partitions share.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Prefetch {
    /// Of keys and values in the queues. What librdkafka keeps of each message besides is not counted.
    pub(crate) queue_bytes: usize,
    /// What a partition is asked for at once, at most.
    pub(crate) fetch_bytes_max: usize,
}

impl Prefetch {
    /// Of a command that reads topics from end to end.
    pub(crate) const OF_A_READER: Self = Self { queue_bytes: 8 << 20, fetch_bytes_max: 1 << 20 };

    /// Has a client keep to it with so many partitions.
    pub(crate) fn share(self, partitions: usize, client: &mut ClientConfig) {
        client.set("queued.max.messages.kbytes", self.queue_kib(partitions).to_string());
        client.set("fetch.message.max.bytes", self.fetch_bytes(partitions).to_string());
    }

    fn queue_kib(self, partitions: usize) -> usize {
        (self.queue_bytes / partitions.max(1) / 1024).max(QUEUE_KIB_MIN)
    }

    /// An answer counts only when it is in the queue, unpacked, and so goes over the budget as a whole; with many partitions
    /// these wholes would be most of the memory.
    fn fetch_bytes(self, partitions: usize) -> usize {
        self.fetch_bytes_max.min((self.queue_kib(partitions) * 1024 / 8).max(FETCH_BYTES_MIN))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OF_A_POOL: Prefetch = Prefetch { queue_bytes: 32 << 20, fetch_bytes_max: 256 << 10 };

    #[test]
    fn the_budget_is_divided_over_the_partitions() {
        assert_eq!([0, 8, 512, 100_000].map(|partitions| OF_A_POOL.queue_kib(partitions)), [32 << 10, 4 << 10, 64, 32]);
        let mut client = ClientConfig::new();
        OF_A_POOL.share(64, &mut client);
        assert_eq!(client.get("queued.max.messages.kbytes"), Some("512"));
        assert_eq!(client.get("fetch.message.max.bytes"), Some("65536"));
    }

    #[test]
    fn an_answer_is_a_small_part_of_a_partitions_budget() {
        let of = |partitions| OF_A_POOL.fetch_bytes(partitions);
        assert_eq!([8, 32, 64, 512, 100_000].map(of), [256 << 10, 128 << 10, 64 << 10, 16 << 10, 16 << 10]);
        assert_eq!(Prefetch { fetch_bytes_max: 1 << 10, ..OF_A_POOL }.fetch_bytes(64), 1 << 10);
    }
}
