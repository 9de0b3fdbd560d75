//! What the handler `moderate` judges messages by.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Lists, rules and a classifier; the gravest verdict wins.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Moderate {
    /// The JSON pointer to the text that is judged.
    pub text: String,
    /// How often the lists' files are looked at.
    #[serde(with = "super::duration")]
    pub reload: Duration,
    /// The topic that is told of messages that are flagged or hidden.
    pub status_topic: String,
    /// Lists of words.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub words: Vec<WordList>,
    /// Lists of regular expressions.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub patterns: Vec<PatternList>,
    /// Conditions in CEL.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<VerdictRule>,
    /// A service that is asked about what the others do not hide.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub classifier: Option<Classifier>,
}

impl Default for Moderate {
    fn default() -> Self {
        Self {
            text: "/message/content".to_owned(),
            reload: Duration::from_secs(5),
            status_topic: "moderation-events".to_owned(),
            words: Vec::new(),
            patterns: Vec::new(),
            rules: Vec::new(),
            classifier: None,
        }
    }
}

/// What becomes of a message that something in a list or a rule is met by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It is marked and stays readable.
    Flag,
    /// It is not readable.
    #[default]
    Hide,
}

/// A file with a word or a phrase a line.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct WordList {
    /// The file.
    pub file: PathBuf,
    /// What becomes of a message that one of them is in.
    pub verdict: Verdict,
    /// Whether a part of a word counts.
    pub r#match: Match,
}

/// Where a word counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Match {
    /// Only by itself.
    #[default]
    Word,
    /// Inside of other words as well.
    Substring,
}

/// A file with a regular expression a line.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct PatternList {
    /// The file.
    pub file: PathBuf,
    /// What becomes of a message that one of them matches.
    pub verdict: Verdict,
}

/// A condition and what becomes of a message for which it holds.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct VerdictRule {
    /// Its name in reasons.
    pub name: String,
    /// The condition, in CEL.
    pub when: String,
    /// What becomes of the message.
    pub verdict: Verdict,
}

/// A service that judges a message at a time.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Classifier {
    /// Where messages are posted to.
    pub url: String,
    /// How long an answer is waited for.
    #[serde(with = "super::duration")]
    pub timeout: Duration,
    /// The most requests at a time, in this worker.
    pub concurrency: usize,
    /// How often a request is tried.
    pub attempts: u32,
    /// What becomes of a message that it does not answer for.
    pub on_unavailable: OnUnavailable,
}

impl Default for Classifier {
    fn default() -> Self {
        Self {
            url: String::new(),
            timeout: Duration::from_secs(1),
            concurrency: 16,
            attempts: 3,
            on_unavailable: OnUnavailable::default(),
        }
    }
}

/// What becomes of a message that the classifier does not answer for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OnUnavailable {
    /// It is flagged.
    #[default]
    Flag,
    /// It waits, with its partition, until the classifier answers.
    Hold,
    /// It goes by the lists and rules alone.
    Allow,
}
