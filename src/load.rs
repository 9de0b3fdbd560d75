//! The load harness: sends by a plan whatever becomes of it, measures from the intended send time to the effect, and
//! says what it found.
//!
//! What a run promises: an event's intended time follows from the plan alone, so what is late is measured as late
//! (latency counts from there) and never taken for less load; a run whose generator could not keep to its plan fails and
//! says so. What breaks it: clocks of the machines that differ, since latency is a difference of two of them.

mod audit;
mod events;
mod flow;
mod generator;
mod latency;
mod observer;
mod output;
mod plan;
pub mod report;
pub mod result;
mod run;
mod schedule;
mod scrape;
mod setting;
mod shown;
mod standing;
mod verdicts;
mod workers;
mod zipf;

pub use plan::{Events, Phase, Plan, PlanError, Size, Thresholds, Workers};
pub use run::{Done, Options, run};
pub use shown::summary;
pub use workers::{Called, abandon_workers};
