//! What is decided of a message.

use crate::config;

/// From the mildest to the gravest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Verdict {
    Allow,
    Flag,
    Hide,
}

impl Verdict {
    pub(super) const ALL: [Self; 3] = [Self::Allow, Self::Flag, Self::Hide];

    /// The word in the database, in status events and in metrics.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Flag => "flag",
            Self::Hide => "hide",
        }
    }

    pub(super) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.as_str() == name)
    }
}

impl From<config::Verdict> for Verdict {
    fn from(configured: config::Verdict) -> Self {
        match configured {
            config::Verdict::Flag => Self::Flag,
            config::Verdict::Hide => Self::Hide,
        }
    }
}

/// A verdict and what it was reached by: a list and a line, a rule, the classifier. Never a part of the message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    pub(super) verdict: Verdict,
    pub(super) reason: String,
}

impl Judgement {
    pub(super) fn allow() -> Self {
        Self { verdict: Verdict::Allow, reason: String::new() }
    }

    /// The graver of two; the first of equals.
    pub(super) fn or_graver(self, other: Option<Self>) -> Self {
        match other {
            Some(other) if other.verdict > self.verdict => other,
            _ => self,
        }
    }
}
