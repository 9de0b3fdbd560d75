//! tmp
use std::{net::SocketAddr, time::{Duration, SystemTime}, collections::BTreeMap, path::PathBuf};
use serde::Deserialize;
#[derive(Debug, Clone, Deserialize, Default)] pub struct Secret(pub String);
impl Secret { pub fn expose(&self) -> &str { &self.0 } }
mod dur { use serde::Deserialize; use std::time::Duration; pub fn deserialize<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Duration, D::Error> { let s = String::deserialize(d)?; humantime::parse_duration(&s).map_err(serde::de::Error::custom) } }
#[derive(Debug, Clone, Deserialize)] #[serde(default, deny_unknown_fields)] pub struct Config { pub kafka: Kafka, pub store: Option<Store>, pub redis: Option<Redis>, pub health: Health, #[serde(with="dur")] pub startup_timeout: Duration, pub pools: BTreeMap<String, Pool> }
impl Default for Config { fn default() -> Self { Self { kafka: Default::default(), store: None, redis: None, health: Default::default(), startup_timeout: Duration::from_secs(60), pools: Default::default() } } }
#[derive(Debug, Clone, Deserialize)] #[serde(default, deny_unknown_fields)] pub struct Kafka { pub brokers: Vec<String>, pub session_timeout_ms: u64, pub heartbeat_interval_ms: u64, pub max_poll_interval_ms: u64, pub metadata_refresh_ms: u64, #[serde(with="dur")] pub commit_interval: Duration, pub options: BTreeMap<String,String> }
impl Default for Kafka { fn default() -> Self { Self { brokers: vec!["127.0.0.1:9092".into()], session_timeout_ms: 15000, heartbeat_interval_ms: 500, max_poll_interval_ms: 60000, metadata_refresh_ms: 30000, commit_interval: Duration::from_secs(1), options: Default::default() } } }
impl Kafka { pub fn client(&self) -> rdkafka::ClientConfig { let mut c = rdkafka::ClientConfig::new(); c.set("bootstrap.servers", self.brokers.join(",")).set("client.id","weir").set("allow.auto.create.topics","false"); for (k,v) in &self.options { c.set(k.replace('_',"."), v); } c } }
#[derive(Debug, Clone, Deserialize)] #[serde(default, deny_unknown_fields)] pub struct Store { pub url: Secret, pub url_file: Option<PathBuf>, pub connections: u32, #[serde(with="dur")] pub statement_timeout: Duration, #[serde(with="dur")] pub idle_in_transaction_timeout: Duration, #[serde(with="dur")] pub lock_timeout: Duration }
impl Default for Store { fn default() -> Self { Self { url: Default::default(), url_file: None, connections: 8, statement_timeout: Duration::from_secs(7), idle_in_transaction_timeout: Duration::from_secs(5), lock_timeout: Duration::from_secs(2) } } }
#[derive(Debug, Clone, Deserialize)] #[serde(default, deny_unknown_fields)] pub struct Redis { pub url: Secret, #[serde(with="dur")] pub expiry: Duration, #[serde(with="dur")] pub deadline: Duration }
impl Default for Redis { fn default() -> Self { Self { url: Default::default(), expiry: Duration::from_secs(900), deadline: Duration::from_millis(50) } } }
#[derive(Debug, Clone, Deserialize)] #[serde(default, deny_unknown_fields)] pub struct Health { pub listen: SocketAddr }
impl Default for Health { fn default() -> Self { Self { listen: "127.0.0.1:9464".parse().unwrap() } } }
#[derive(Debug, Clone, Copy, PartialEq, Default, Deserialize)] #[serde(rename_all="snake_case")] pub enum ProcessedSet { #[default] Set, Off }
#[derive(Debug, Clone, Copy, PartialEq, Default, Deserialize)] #[serde(rename_all="snake_case")] pub enum OnTombstone { #[default] Skip, Reject }
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)] #[serde(rename_all="snake_case")] pub enum OnDuplicate { Ignore, Update }
#[derive(Debug, Clone, Deserialize)] #[serde(default, deny_unknown_fields)] pub struct Pool { pub group: Option<String>, pub topics: Vec<String>, pub start: Start, pub max_poll_records: usize, pub batch_bytes: usize, #[serde(with="dur")] pub batch_linger: Duration, #[serde(with="dur")] pub drain_deadline: Duration, pub handle_ms: Option<f64>, pub max_partition_fetch_bytes: usize, pub queue_bytes: usize, pub processed_set: ProcessedSet, pub on_tombstone: OnTombstone, pub reject_hold_ratio: f64, #[serde(with="dur")] pub seen_horizon: Duration, pub event: EventFields, pub pipelines: Vec<Pipeline> }
impl Default for Pool { fn default() -> Self { Self { group: None, topics: vec![], start: Start::Beginning, max_poll_records: 500, batch_bytes: 4<<20, batch_linger: Duration::from_millis(5), drain_deadline: Duration::from_secs(20), handle_ms: None, max_partition_fetch_bytes: 1<<20, queue_bytes: 96<<20, processed_set: ProcessedSet::Set, on_tombstone: OnTombstone::Skip, reject_hold_ratio: 0.5, seen_horizon: Duration::from_secs(7*86400), event: Default::default(), pipelines: vec![] } } }
#[derive(Debug, Clone, Deserialize)] #[serde(default, deny_unknown_fields)] pub struct EventFields { pub id: String, pub r#type: String, pub timestamp: String, pub user: String, pub conversation: Option<String> }
impl Default for EventFields { fn default() -> Self { Self { id: "/message/message_id".into(), r#type: "/type".into(), timestamp: "/message/timestamp".into(), user: "/message/from".into(), conversation: None } } }
#[derive(Debug, Clone, PartialEq, Default, Deserialize)] #[serde(rename_all="snake_case")] pub enum Start { #[default] Beginning, End, Committed, Time(SystemTime) }
#[derive(Debug, Clone, Deserialize, Default)] #[serde(default, deny_unknown_fields)] pub struct Pipeline { pub name: String, pub handler: String, pub table: Option<String>, pub key: Option<String>, pub columns: Option<BTreeMap<String,String>>, pub on_duplicate: Option<OnDuplicate>, pub newer_by: Option<String>, pub dimensions: Option<Vec<String>> }
impl Config { pub fn load(files: &[PathBuf], sets: &[String]) -> anyhow::Result<Self> {
  let mut b = config::Config::builder();
  for f in files { b = b.add_source(config::File::from(f.as_path()).format(config::FileFormat::Toml)); }
  b = b.add_source(config::Environment::with_prefix("WEIR").prefix_separator("__").separator("__").try_parsing(true));
  for s in sets { let (k,v) = s.split_once('=').unwrap(); b = b.set_override(k, v)?; }
  Ok(b.build()?.try_deserialize()?) } }
