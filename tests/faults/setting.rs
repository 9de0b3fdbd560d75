//! What a row runs under: how its workers are members of their group, and which database they write to. The rows about
//! membership run under each protocol, those about the database on MariaDB too.

use anyhow::{Result, bail};

use super::SESSION_TIMEOUT;
use super::rows::Row;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Setting {
    /// The classic protocol and PostgreSQL.
    Classic,
    /// The classic protocol with an instance id for every worker.
    Static,
    /// KIP-848.
    Consumer,
    /// MariaDB in PostgreSQL's place.
    Mariadb,
}

impl Setting {
    pub(crate) const ALL: [Self; 4] = [Self::Classic, Self::Static, Self::Consumer, Self::Mariadb];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Classic => "classic",
            Self::Static => "static",
            Self::Consumer => "consumer",
            Self::Mariadb => "mariadb",
        }
    }

    /// One by its name, or `all`.
    pub(crate) fn parse(name: &str) -> Result<Vec<Self>> {
        match Self::ALL.into_iter().find(|setting| setting.name() == name) {
            Some(setting) => Ok(vec![setting]),
            None if name == "all" => Ok(Self::ALL.into()),
            None => bail!("--under: {name:?}; known: classic, static, consumer, mariadb, all"),
        }
    }

    /// Whether a row says something under it that it does not say otherwise.
    pub(crate) fn concerns(self, row: &Row) -> bool {
        match self {
            Self::Classic => true,
            Self::Static | Self::Consumer => row.is_membership,
            Self::Mariadb => row.is_database,
        }
    }

    /// A row under it, as the table has it.
    pub(crate) fn label(self, row: u32) -> String {
        match self {
            Self::Classic => row.to_string(),
            _ => format!("{row}/{}", self.name()),
        }
    }

    /// The service that has the database.
    pub(crate) fn database(self) -> &'static str {
        if self == Self::Mariadb { "mariadb" } else { "postgres" }
    }

    /// Lines in the section of Kafka of a slot's worker. The consumer protocol's time-out is the broker's
    /// (scripts/services/kafka.sh), and the same.
    pub(crate) fn config(self, slot: usize) -> String {
        let session = format!("session_timeout_ms = {}\n", SESSION_TIMEOUT.as_millis());
        match self {
            Self::Classic | Self::Mariadb => session,
            Self::Static => format!("{session}group_instance_id = \"worker-{slot}\"\n"),
            Self::Consumer => "group_protocol = \"consumer\"\n".to_owned(),
        }
    }
}
