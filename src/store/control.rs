//! What operators ask of a group while it runs: to pause, and to keep to another rate.
//!
//! The database says what applies now, and by its own clock when a pause has run out, so that all workers of a group see
//! the same.

use std::fmt;
use std::time::{Duration, UNIX_EPOCH};

use async_trait::async_trait;

use super::{Error, Fault, Result};
use crate::config::Rate;

/// What applies to a group, beside its configuration.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Control {
    /// The pause, where it is paused.
    pub pause: Option<Pause>,
    /// The rate in place of the configured one, where one was set.
    pub rate: Option<RateSet>,
}

/// A pause that has not run out. Times are milliseconds since 1970, by the database's clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pause {
    /// When it began.
    pub since_ms: i64,
    /// When it runs out; without one it lasts until it is ended.
    pub until_ms: Option<i64>,
    /// Who asked for it.
    pub by: String,
    /// What for.
    pub reason: Option<String>,
}

/// A rate that was set in place of the configured one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RateSet {
    /// The rate; `None`: as many events as the group can.
    pub rate: Option<Rate>,
    /// When it was set, in milliseconds since 1970.
    pub at_ms: i64,
}

/// What is asked.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// Take no batches any more.
    Pause {
        /// For so long; without it until it is ended.
        lasts: Option<Duration>,
        /// What for.
        reason: Option<String>,
    },
    /// Go on.
    Resume,
    /// Keep to this rate, or to none, whatever is configured.
    Rate(Option<Rate>),
    /// Keep to the configured rate again.
    DefaultRate,
}

/// What operators ask of a group, and what its workers look at.
#[async_trait]
pub trait Controls: Send + Sync {
    /// What applies to a group now.
    async fn control(&self, group: &str) -> Result<Control>;

    /// Changes it, and keeps in `weir_control_log` that it was done. What applied before and what applies now.
    async fn change_control(&self, group: &str, pool: &str, change: &Change, by: &str) -> Result<(Control, Control)>;
}

/// A row of `weir_control` and the database's time: paused at, until, by, what for; the rate and when it was set; now.
pub(super) type Columns = (Option<i64>, Option<i64>, Option<String>, Option<String>, Option<String>, Option<i64>, i64);

/// What a row says, and the database's time.
pub(super) fn read(columns: Columns) -> Result<(Control, i64)> {
    let (paused_ms, until_ms, by, reason, rate, rate_ms, now_ms) = columns;
    let lasts = until_ms.is_none_or(|until_ms| until_ms > now_ms);
    let pause =
        paused_ms.filter(|_| lasts).map(|since_ms| Pause { since_ms, until_ms, by: by.unwrap_or_default(), reason });
    let rate = match rate {
        None => None,
        Some(text) => Some(RateSet { rate: rate_of(&text)?, at_ms: rate_ms.unwrap_or_default() }),
    };
    Ok((Control { pause, rate }, now_ms))
}

fn rate_of(text: &str) -> Result<Option<Rate>> {
    match text {
        "none" => Ok(None),
        text => text.parse().map(Some).map_err(|problem| Error {
            fault: Fault::Hold,
            action: "read weir_control",
            message: format!("its rate is none: {problem}; set it right by `weir rate`"),
        }),
    }
}

impl Control {
    /// What applies after a change.
    pub(super) fn after(&self, change: &Change, by: &str, now_ms: i64) -> Self {
        let mut control = self.clone();
        match change {
            Change::Pause { lasts, reason } => {
                let until_ms = lasts.map(|lasts| now_ms.saturating_add(millis(lasts)));
                let since_ms = self.pause.as_ref().map_or(now_ms, |pause| pause.since_ms);
                control.pause = Some(Pause { since_ms, until_ms, by: by.to_owned(), reason: reason.clone() });
            }
            Change::Resume => control.pause = None,
            Change::Rate(rate) => control.rate = Some(RateSet { rate: *rate, at_ms: now_ms }),
            Change::DefaultRate => control.rate = None,
        }
        control
    }

    /// The rate as it is kept.
    pub(super) fn rate_text(&self) -> Option<String> {
        self.rate.map(|set| set.to_string())
    }
}

impl Change {
    /// The word kept in `weir_control_log`.
    pub(super) fn what(&self) -> &'static str {
        match self {
            Self::Pause { .. } => "pause",
            Self::Resume => "resume",
            Self::Rate(_) | Self::DefaultRate => "rate",
        }
    }

    /// What it is about of a state, in words, for `weir_control_log`.
    pub(super) fn state(&self, control: &Control) -> String {
        match self {
            Self::Pause { .. } | Self::Resume => {
                control.pause.as_ref().map_or_else(|| "running".to_owned(), ToString::to_string)
            }
            Self::Rate(_) | Self::DefaultRate => control.rate_text().unwrap_or_else(|| "default".to_owned()),
        }
    }

    pub(super) fn reason(&self) -> Option<&str> {
        match self {
            Self::Pause { reason, .. } => reason.as_deref(),
            _ => None,
        }
    }
}

/// `paused until 2026-01-31T08:00:00Z`.
impl fmt::Display for Pause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let until = self.until_ms.and_then(|ms| {
            let until = UNIX_EPOCH.checked_add(Duration::from_millis(ms.try_into().ok()?))?;
            // The last year that the format can write.
            (ms < 253_402_300_800_000).then(|| humantime::format_rfc3339_seconds(until))
        });
        match until {
            Some(until) => write!(f, "paused until {until}"),
            None => f.write_str("paused"),
        }
    }
}

/// `5000/s` or `none`.
impl fmt::Display for RateSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.rate {
            Some(rate) => rate.fmt(f),
            None => f.write_str("none"),
        }
    }
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(paused_ms: Option<i64>, until_ms: Option<i64>, rate: Option<&str>) -> Columns {
        (paused_ms, until_ms, Some("me".to_owned()), None, rate.map(str::to_owned), Some(3), 1_000)
    }

    #[test]
    fn a_pause_ends_by_itself_when_its_time_is_over() {
        let is_paused = |paused, until| read(row(paused, until, None)).unwrap().0.pause.is_some();
        assert!(is_paused(Some(1), None) && is_paused(Some(1), Some(1_001)));
        assert!(!is_paused(Some(1), Some(1_000)) && !is_paused(None, None));
    }

    #[test]
    fn a_rate_is_kept_as_it_was_written_and_none_is_one_too() {
        for text in ["5000/s", "300/m", "none"] {
            assert_eq!(read(row(None, None, Some(text))).unwrap().0.rate_text().as_deref(), Some(text));
        }
        let error = read(row(None, None, Some("fast"))).unwrap_err();
        assert!(error.fault == Fault::Hold && error.to_string().contains("weir rate"), "{error}");
    }

    #[test]
    fn a_pause_that_is_renewed_began_when_it_began() {
        let pause = |lasts| Change::Pause { lasts, reason: Some("disk".to_owned()) };
        let first = Control::default().after(&pause(None), "me", 10);
        let second = first.after(&pause(Some(Duration::from_secs(1))), "you", 20);
        let kept = second.pause.clone().unwrap();
        assert_eq!((kept.since_ms, kept.until_ms, kept.by.as_str()), (10, Some(1_020), "you"));
        assert_eq!(pause(None).state(&first), "paused");
        assert_eq!(pause(None).state(&second), "paused until 1970-01-01T00:00:01Z");
        assert_eq!(second.after(&Change::Resume, "me", 30), Control::default());
    }
}
