//! The processed set: ids that were settled lately, kept where every worker of a pool can ask for them.
//!
//! **What it promises: nothing.** An answer is a hint. An id that it calls settled may not be (a mark that
//! was made before a database was restored from a backup, another deployment under the same pool name, bits of a bitmap that
//! others have set), and
//! one that it does not know may be (the set was away, was full, has forgotten). What makes effects exact is
//! the database: an id is claimed there in the transaction of its effect, hit or no hit. A hit only saves the
//! work of preparing an event, and the transaction still checks that its effect is there.
//!
//! **What breaks it: nothing may.** A set that is down, slow, frozen, full or wrong costs work that a hit
//! would have saved and, at most, one deadline a second of waiting. It never loses an event, never repeats an
//! effect, never fails a batch and never keeps a worker from starting. So nothing of it returns an error.
//!
//! Beside it, over the same connections, lies the [`Bucket`] of a group's rate.

mod bloom;
mod bucket;
mod link;
mod redis;
mod sets;

pub use self::bucket::{Ask, Bucket};
pub(crate) use self::link::Link;
#[cfg(feature = "load")]
pub(crate) use self::link::version;
pub use self::redis::ProcessedSet;
