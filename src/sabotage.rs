//! Deliberate bugs, each the loss of one thing that a promise rests on. They are there to show that the fault matrix
//! finds them (`make faults-selftest`), and only in a build with the feature `sabotage`: any other has none of them.

/// One deliberate bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// Kafka's offset is committed before the work is done.
    CommitBeforeWork,
    /// The processed set is told of events before the database has them.
    MarkBeforeCommit,
    /// The ledger's owner is not looked at.
    NoFence,
    /// A takeover starts where Kafka's commit says, not the ledger.
    KafkaOverLedger,
    /// A partition is given up while its task runs on, so that its next task shares the split queue.
    UnjoinedSplit,
    /// What the processed set knows is skipped without a look into the database.
    UnverifiedSkip,
    /// A takeover does not ask the group whether it still is its owner.
    NoCommitProbe,
    /// The effects of the last pipeline go into a transaction of their own.
    OwnTransaction,
}

impl Bug {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::CommitBeforeWork,
        Self::MarkBeforeCommit,
        Self::NoFence,
        Self::KafkaOverLedger,
        Self::UnjoinedSplit,
        Self::UnverifiedSkip,
        Self::NoCommitProbe,
        Self::OwnTransaction,
    ];

    /// As [`CHOICE`] names it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::CommitBeforeWork => "commit-before-work",
            Self::MarkBeforeCommit => "mark-before-commit",
            Self::NoFence => "no-fence",
            Self::KafkaOverLedger => "kafka-over-ledger",
            Self::UnjoinedSplit => "unjoined-split",
            Self::UnverifiedSkip => "unverified-skip",
            Self::NoCommitProbe => "no-commit-probe",
            Self::OwnTransaction => "own-transaction",
        }
    }
}

/// The environment variable that chooses the bug of a process.
pub const CHOICE: &str = "WEIR_SABOTAGE";

/// Whether this process has a bug.
#[cfg(feature = "sabotage")]
pub(crate) fn has(bug: Bug) -> bool {
    static CHOSEN: std::sync::LazyLock<Option<Bug>> = std::sync::LazyLock::new(|| {
        let name = std::env::var(CHOICE).ok()?;
        let chosen = Bug::ALL.into_iter().find(|bug| bug.name() == name);
        match chosen {
            Some(bug) => {
                tracing::error!(bug = bug.name(), "SABOTAGED: this build has a deliberate bug, for tests only");
            }
            None => tracing::error!(name, "{CHOICE} names no bug"),
        }
        chosen
    });
    *CHOSEN == Some(bug)
}

/// Whether this process has a bug: never.
#[cfg(not(feature = "sabotage"))]
pub(crate) const fn has(_: Bug) -> bool {
    false
}
