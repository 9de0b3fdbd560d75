//! weir: a worker pool for Kafka. Events of a partition are handled in order, every event by every
//! pipeline that wants it, and one effect of each is left in the database whatever dies on the way.
//!
//! The modules, in the order an event flows:
//!
//! | module | what it holds |
//! |---|---|
//! | [`publish`] | producing: batches, keys, the partitioner |
//! | [`source`] | the consumer: assignment, partition queues, the topic's id |
//! | [`event`] | `Event`, its id, decoding: JSON, many types in one topic, Protobuf, Avro |
//! | [`payload`] | the shipped event types |
//! | [`pool`] | owns an assignment: a task per partition, drain, watchdog |
//! | [`pipeline`] | prepare, settle in one transaction, retry, bisect |
//! | [`handler`] | the `Handler` trait and the shipped handlers |
//! | [`rules`] | conditions over events: CEL, compiled once; lookup tables |
//! | [`once`] | what is kept in Redis: the processed set, a hint that saves work, and the bucket of a rate |
//! | [`store`] | the database contract: ledger, effects, dead rows |
//! | [`dead_letter`] | the mirror of dead rows in Kafka |
//! | [`status_events`] | what readers are told of moderated messages |
//! | [`verify`] | the auditor: Kafka against the database |
//! | [`export`] | events of a time range as compressed lines of JSON |
//! | [`why`] | one event's story |
//! | [`kafka`] | whether a cluster answers, and why not |
//! | [`config`] | load, validate, redact |
//! | [`metrics`] | every metric's name, labels and help |
//! | [`telemetry`] | logs and traces |
//! | [`admin`] | health and metrics over HTTP |
//! | [`console`] | the page and `weir top`: what a worker does, and the fleet |
//! | [`demo`] | everything in one process |
//! | [`load`] | the load harness |
//! | [`cli`] | one file a subcommand |
//! | [`sabotage`] | deliberate bugs for the fault matrix; none in an ordinary build |

pub mod admin;
mod breaker;
pub mod cli;
pub mod config;
#[cfg(feature = "console")]
pub mod console;
pub mod dead_letter;
#[cfg(feature = "demo")]
pub mod demo;
pub mod event;
pub mod export;
pub mod handler;
pub mod kafka;
#[cfg(feature = "load")]
pub mod load;
pub mod metrics;
pub mod once;
pub mod payload;
pub mod pipeline;
pub mod pool;
pub mod publish;
pub mod rules;
pub mod sabotage;
mod shown;
pub mod source;
pub mod status_events;
pub mod store;
pub mod telemetry;
#[cfg(any(feature = "console", feature = "demo"))]
mod terminal;
pub mod verify;
pub mod why;
