//! What an event costs, as it was measured. Each figure names the table that has it, with its conditions.

use serde::Serialize;

use crate::config::Store;

/// The bytes of the values with which sizes were measured.
const VALUE_BYTES: [f64; 2] = [330.0, 1_000.0];

/// Bytes that grow with the event's.
#[derive(Debug, Clone, Copy)]
pub(super) struct Size(f64, f64);

impl Size {
    /// On the line through both measured sizes; never less than the smaller one of an event that is smaller yet.
    pub(super) fn of(self, value_bytes: u32) -> f64 {
        let [small, large] = VALUE_BYTES;
        let per_byte = (self.1 - self.0) / (large - small);
        self.0 + (f64::from(value_bytes) - small).max(0.0) * per_byte
    }
}

/// A database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Database {
    Postgres,
    Mariadb,
    Sqlite,
}

/// Bytes with all indexes: `make bench-bytes`, docs/capacity.md, "Bytes".
#[derive(Debug)]
pub(super) struct Kept {
    /// A row of `messages`.
    pub(super) message: Size,
    /// A row of `weir_dead`.
    pub(super) dead: Size,
    /// A row of `weir_counts`.
    pub(super) counter: f64,
    /// A row of `weir_seen`.
    pub(super) seen: f64,
}

impl Database {
    /// By its address.
    pub(super) fn of(store: Option<&Store>) -> Option<Self> {
        let scheme = store?.url.expose().split(':').next()?;
        match scheme {
            "postgres" | "postgresql" => Some(Self::Postgres),
            "mysql" | "mariadb" => Some(Self::Mariadb),
            "sqlite" => Some(Self::Sqlite),
            _ => None,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Postgres => "PostgreSQL",
            Self::Mariadb => "MariaDB",
            Self::Sqlite => "SQLite",
        }
    }

    pub(super) fn costs(self) -> Kept {
        match self {
            Self::Postgres => {
                Kept { message: Size(354.0, 1_102.0), dead: Size(1_490.0, 2_412.0), counter: 282.0, seen: 219.0 }
            }
            Self::Mariadb => {
                Kept { message: Size(429.0, 1_593.0), dead: Size(1_810.0, 2_760.0), counter: 198.0, seen: 263.0 }
            }
            Self::Sqlite => {
                Kept { message: Size(291.0, 1_076.0), dead: Size(778.0, 1_458.0), counter: 28.0, seen: 152.0 }
            }
        }
    }
}

/// A record in one replica of the log, lz4: the same.
pub(super) const KAFKA_RECORD: Size = Size(183.0, 703.0);
/// An id in the processed set, of 10,000,000: docs/processed-set.md.
pub(super) const REDIS_ID_BYTES: f64 = 100.2;

/// What a worker does it with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Work {
    pub(super) database: Database,
    /// There is a processed set.
    pub(super) is_remembered: bool,
}

/// What one worker was measured to do.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cost {
    /// Of one worker that had two cores together with Kafka, PostgreSQL and Redis.
    pub(super) events_per_s: f64,
    /// Of the worker's own processor time, an event.
    pub(super) worker_us: f64,
}

impl Work {
    /// docs/performance.md, "Figures of 22 November 2026". With counters it was measured with a processed set only, which
    /// costs more than none.
    pub(super) fn cost(self, persists: bool, counts: bool) -> Option<Cost> {
        match (self.database, persists, counts, self.is_remembered) {
            // 11.4 s for 2,000,000 events.
            (Database::Postgres, true, false, true) => Some(Cost { events_per_s: 117_200.0, worker_us: 5.7 }),
            // 7.5 s for 2,000,000.
            (Database::Postgres, true, false, false) => Some(Cost { events_per_s: 170_000.0, worker_us: 3.75 }),
            // 10.3 s for 1,000,000, by type, user, conversation and active users.
            (Database::Postgres, true, true, _) => Some(Cost { events_per_s: 54_200.0, worker_us: 10.3 }),
            _ => None,
        }
    }
}

/// PostgreSQL's own processor time for a row by `COPY`, in microseconds: docs/performance.md, "Rows by COPY": 5.8 to 6.5.
pub(super) const COPY_ROW_US: f64 = 6.5;
/// Rows a second by `COPY` alone over four connections: docs/performance.md, "Figures of 22 November 2026".
pub(super) const COPY_ROWS_PER_S: f64 = 310_700.0;
/// Of a batch, by event: docs/performance.md, "Rows by COPY": a batch of 500 takes 6 ms on its partition.
pub(super) const BATCH_EVENT_S: f64 = 0.006 / 500.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_lie_on_the_line_through_what_was_measured() {
        let size = Size(400.0, 1_070.0);
        assert_eq!((size.of(330), size.of(1_000), size.of(2_000), size.of(10)), (400.0, 1_070.0, 2_070.0, 400.0));
    }

    #[test]
    fn the_document_has_the_figures_of_the_code() {
        let document = include_str!("../../../docs/capacity.md").replace(',', "");
        for database in [Database::Postgres, Database::Mariadb, Database::Sqlite] {
            let (name, kept) = (database.name(), database.costs());
            let small =
                format!("| {name} | 330 | {} | {} | {} | {} |", kept.message.0, kept.dead.0, kept.counter, kept.seen);
            let large = format!("| {name} | 1000 | {} | {} |", kept.message.1, kept.dead.1);
            assert!(document.contains(&small) && document.contains(&large), "{small} {large}");
        }
        let log = format!("{} bytes of values of 330 {} of values of 1000", KAFKA_RECORD.0, KAFKA_RECORD.1);
        let id = format!("An id in Redis: {REDIS_ID_BYTES} bytes");
        assert!(document.contains(&log) && document.contains(&id), "{log}, {id}");
    }
}
