//! How the workers of a row are members of their group. The rows about membership run under each.

use anyhow::{Result, bail};

use super::SESSION_TIMEOUT;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Classic,
    /// The classic protocol with an instance id for every worker.
    Static,
    /// KIP-848.
    Consumer,
}

impl Protocol {
    pub(crate) const ALL: [Self; 3] = [Self::Classic, Self::Static, Self::Consumer];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Classic => "classic",
            Self::Static => "static",
            Self::Consumer => "consumer",
        }
    }

    /// One by its name, or `all`.
    pub(crate) fn parse(name: &str) -> Result<Vec<Self>> {
        match Self::ALL.into_iter().find(|protocol| protocol.name() == name) {
            Some(protocol) => Ok(vec![protocol]),
            None if name == "all" => Ok(Self::ALL.into()),
            None => bail!("--protocol: {name:?}; known: classic, static, consumer, all"),
        }
    }

    /// A row under it, as the table has it.
    pub(crate) fn label(self, row: u32) -> String {
        match self {
            Self::Classic => row.to_string(),
            _ => format!("{row}/{}", self.name()),
        }
    }

    /// Lines in the section of Kafka of a slot's worker. The consumer protocol's time-out is the broker's
    /// (scripts/services/kafka.sh), and the same.
    pub(crate) fn config(self, slot: usize) -> String {
        let session = format!("session_timeout_ms = {}\n", SESSION_TIMEOUT.as_millis());
        match self {
            Self::Classic => session,
            Self::Static => format!("{session}group_instance_id = \"worker-{slot}\"\n"),
            Self::Consumer => "group_protocol = \"consumer\"\n".to_owned(),
        }
    }
}
