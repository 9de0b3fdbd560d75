//! What a demo comes to.

use std::fmt;
use std::time::Instant;

use serde::Serialize;

use super::audit::Audited;
use super::flow::Flow;
use super::load::Published;

/// The auditor's counts and the rates. Records are what was sent, events are different ids.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Records sent.
    pub published: u64,
    /// Different events among them, poison included.
    pub unique_ids: u64,
    /// Records that repeat an event.
    pub duplicates_published: u64,
    /// Events that can never be persisted.
    pub poison_published: u64,
    /// Events whose row is there.
    pub persisted: u64,
    /// Poison whose dead row is there.
    pub dead_lettered: u64,
    /// Events and counts that are missing.
    pub lost: u64,
    /// Effects that are too many.
    pub repeated_effects: u64,
    /// Records settled a second, from the first one sent to the last one settled.
    pub events_per_s: f64,
    /// From sending to settled, in milliseconds, as fine as 5 ms: the median.
    pub end_to_end_p50_ms: f64,
    /// The 99th percentile.
    pub end_to_end_p99_ms: f64,
}

impl Report {
    pub(super) fn new(published: &Published, audited: &Audited, flow: &Flow, begun: Instant) -> Self {
        let (end_to_end_p50_ms, end_to_end_p99_ms, last_settled_at) = flow.whole();
        let settled = flow.look().settled;
        let seconds = last_settled_at.map_or(0.0, |at| at.duration_since(begun).as_secs_f64());
        Self {
            published: published.unique_ids + published.duplicates,
            unique_ids: published.unique_ids,
            duplicates_published: published.duplicates,
            poison_published: published.poison,
            persisted: audited.persisted,
            dead_lettered: audited.dead_lettered,
            lost: audited.lost,
            repeated_effects: audited.repeated_effects,
            events_per_s: if seconds > 0.0 { (settled as f64 / seconds).round() } else { 0.0 },
            end_to_end_p50_ms,
            end_to_end_p99_ms,
        }
    }

    /// Whether every event had its one effect.
    pub fn is_clean(&self) -> bool {
        self.lost == 0 && self.repeated_effects == 0
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "published    {:>12} records", self.published)?;
        writeln!(f, "  events     {:>12} different ones, {} of them poison", self.unique_ids, self.poison_published)?;
        writeln!(f, "  repeats    {:>12}", self.duplicates_published)?;
        writeln!(f, "persisted    {:>12} events", self.persisted)?;
        writeln!(f, "dead         {:>12} events, each with its reason", self.dead_lettered)?;
        writeln!(f, "lost         {:>12}", self.lost)?;
        writeln!(f, "repeated     {:>12} effects", self.repeated_effects)?;
        let (p50, p99) = (self.end_to_end_p50_ms, self.end_to_end_p99_ms);
        writeln!(f, "rate         {:>12.0} records/s", self.events_per_s)?;
        write!(f, "end to end   {p50:>12.0} ms at the median, {p99:.0} ms at the 99th percentile")
    }
}
