//! The load harness: sends by a plan whatever becomes of it, measures from the intended send time to the effect, and
//! says what it found.

pub mod report;
pub mod result;
