//! tmp
use std::{net::SocketAddr, time::{Duration, SystemTime}, collections::BTreeMap, path::PathBuf};
#[derive(Debug, Clone)] pub struct Secret(pub String);
impl Secret { pub fn expose(&self) -> &str { &self.0 } }
#[derive(Debug, Clone)] pub struct Config { pub kafka: Kafka, pub store: Option<Store>, pub redis: Option<Redis>, pub health: Health, pub startup_timeout: Duration, pub pools: BTreeMap<String, Pool> }
#[derive(Debug, Clone)] pub struct Kafka { pub brokers: Vec<String>, pub session_timeout_ms: u64, pub heartbeat_interval_ms: u64, pub max_poll_interval_ms: u64, pub metadata_refresh_ms: u64, pub commit_interval: Duration, pub options: BTreeMap<String,String> }
impl Kafka { pub fn client(&self) -> rdkafka::ClientConfig { rdkafka::ClientConfig::new() } }
#[derive(Debug, Clone)] pub struct Store { pub url: Secret, pub url_file: Option<PathBuf>, pub connections: u32, pub statement_timeout: Duration, pub idle_in_transaction_timeout: Duration, pub lock_timeout: Duration }
#[derive(Debug, Clone)] pub struct Redis { pub url: Secret, pub expiry: Duration, pub deadline: Duration }
#[derive(Debug, Clone)] pub struct Health { pub listen: SocketAddr }
#[derive(Debug, Clone, Copy, PartialEq, Default)] pub enum ProcessedSet { #[default] Set, Off }
#[derive(Debug, Clone, Copy, PartialEq, Default)] pub enum OnTombstone { #[default] Skip, Reject }
#[derive(Debug, Clone, Copy, PartialEq)] pub enum OnDuplicate { Ignore, Update }
#[derive(Debug, Clone, Default)] pub struct Pool { pub group: Option<String>, pub topics: Vec<String>, pub start: Start, pub max_poll_records: usize, pub batch_bytes: usize, pub batch_linger: Duration, pub drain_deadline: Duration, pub handle_ms: Option<f64>, pub max_partition_fetch_bytes: usize, pub queue_bytes: usize, pub processed_set: ProcessedSet, pub on_tombstone: OnTombstone, pub reject_hold_ratio: f64, pub seen_horizon: Duration, pub event: EventFields, pub pipelines: Vec<Pipeline> }
#[derive(Debug, Clone)] pub struct EventFields { pub id: String, pub r#type: String, pub timestamp: String, pub user: String, pub conversation: Option<String> }
impl Default for EventFields { fn default() -> Self { Self { id: "/message/message_id".into(), r#type: "/type".into(), timestamp: "/message/timestamp".into(), user: "/message/from".into(), conversation: None } } }
#[derive(Debug, Clone, PartialEq, Default)] pub enum Start { #[default] Beginning, End, Committed, Time(SystemTime) }
#[derive(Debug, Clone)] pub struct Pipeline { pub name: String, pub handler: String, pub table: Option<String>, pub key: Option<String>, pub columns: Option<BTreeMap<String,String>>, pub on_duplicate: Option<OnDuplicate>, pub newer_by: Option<String>, pub dimensions: Option<Vec<String>> }
