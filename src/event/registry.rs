//! Where the schemas of writers are found: in a schema registry over HTTP, or given.
//!
//! A decoder may not wait, so a schema that is not known yet is fetched on a thread of its own, and whoever asks for it
//! meanwhile is told to come again. Bounded are the fetches at a time, the time and the size of an answer, how often a
//! failure is tried again, and how many schemas are kept.

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use apache_avro::Schema;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::avro::parse;
use super::{NotDecoded, SchemaError};

const TIMEOUT: Duration = Duration::from_secs(5);
/// After how long a failure is tried again, when somebody asks.
const RETRY: Duration = Duration::from_secs(1);
const FETCHES_MAX: usize = 4;
const ANSWER_BYTES_MAX: u64 = 4 << 20;
/// Ids are what producers write, so not even failures may pile up. Beyond it all are forgotten and fetched anew.
const KNOWN_MAX: usize = 10_000;

/// A registry that cannot be asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the schema registry's address is none: {0}; give one such as http://registry:8081")]
pub struct RegistryError(String);

/// The schemas of writers, by id.
#[derive(Debug, Clone)]
pub enum Schemas {
    /// Those of a registry, fetched when they are first met.
    Registry(Registry),
    /// These and no others.
    Given(Arc<HashMap<u32, Arc<Schema>>>),
}

impl From<Registry> for Schemas {
    fn from(registry: Registry) -> Self {
        Self::Registry(registry)
    }
}

impl Schemas {
    /// Schemas as text.
    ///
    /// # Errors
    /// One of them is no Avro schema.
    pub fn given<'a>(schemas: impl IntoIterator<Item = (u32, &'a str)>) -> Result<Self, SchemaError> {
        let parsed = |(id, schema)| Ok((id, Arc::new(parse(schema, || format!("schema id {id}"))?)));
        Ok(Self::Given(Arc::new(schemas.into_iter().map(parsed).collect::<Result<_, _>>()?)))
    }

    /// Schemas in files.
    ///
    /// # Errors
    /// A file cannot be read, or is no Avro schema.
    pub fn in_files(files: impl IntoIterator<Item = (u32, PathBuf)>) -> Result<Self, SchemaError> {
        let mut parsed = HashMap::new();
        for (id, file) in files {
            let place = || file.display().to_string();
            let text = std::fs::read_to_string(&file)
                .map_err(|error| SchemaError { place: place(), problem: format!("it cannot be read: {error}") })?;
            parsed.insert(id, Arc::new(parse(&text, place)?));
        }
        Ok(Self::Given(Arc::new(parsed)))
    }

    pub(super) fn writer(&self, id: u32) -> Result<Arc<Schema>, NotDecoded> {
        match self {
            Self::Registry(registry) => registry.writer(id),
            Self::Given(schemas) => schemas.get(&id).cloned().ok_or_else(|| {
                NotDecoded::Hold(format!(
                    "a value was written by schema id {id}, which is not among the schemas given to the decoder: add it"
                ))
            }),
        }
    }
}

/// A schema registry over HTTP, as Confluent's. Clones share what was fetched. No proxy is used.
#[derive(Clone)]
pub struct Registry(Arc<Inner>);

struct Inner {
    url: String,
    login: Option<String>,
    agent: ureq::Agent,
    known: Mutex<HashMap<u32, Known>>,
    /// It was said that the registry does not answer.
    is_away: AtomicBool,
}

enum Known {
    Schema(Arc<Schema>),
    /// Being fetched; what the last attempt came to.
    Fetching(NotDecoded),
    Failed(Instant, NotDecoded),
}

impl Registry {
    /// The registry at this address. Nothing is asked of it yet.
    ///
    /// # Errors
    /// It is no address of HTTP.
    pub fn new(url: &str) -> Result<Self, RegistryError> {
        Self::open(url, None)
    }

    /// The same, with a user name and a password.
    ///
    /// # Errors
    /// It is no address of HTTP.
    pub fn with_login(url: &str, user: &str, password: &str) -> Result<Self, RegistryError> {
        Self::open(url, Some(format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))))
    }

    fn open(url: &str, login: Option<String>) -> Result<Self, RegistryError> {
        let parsed = url::Url::parse(url).map_err(|error| RegistryError(error.to_string()))?;
        if !matches!(parsed.scheme(), "http" | "https") || !parsed.username().is_empty() {
            return Err(RegistryError("it must begin with http:// or https://, without a login in it".to_owned()));
        }
        let agent = ureq::Agent::config_builder()
            .timeout_global(Some(TIMEOUT))
            .http_status_as_error(false)
            .proxy(None)
            .build()
            .into();
        let url = url.trim_end_matches('/').to_owned();
        Ok(Self(Arc::new(Inner { url, login, agent, known: Mutex::default(), is_away: AtomicBool::new(false) })))
    }

    /// The schema if it is known; else why not, and it is on its way.
    fn writer(&self, id: u32) -> Result<Arc<Schema>, NotDecoded> {
        let mut known = self.0.known();
        let before = match known.get(&id) {
            Some(Known::Schema(schema)) => return Ok(Arc::clone(schema)),
            Some(Known::Fetching(why)) => return Err(why.clone()),
            Some(Known::Failed(at, why)) if at.elapsed() < RETRY => return Err(why.clone()),
            Some(Known::Failed(_, why)) => why.clone(),
            None => NotDecoded::Busy(format!("schema id {id} is being fetched from {}", self.0.url)),
        };
        let fetches = known.values().filter(|known| matches!(known, Known::Fetching(_))).count();
        if fetches >= FETCHES_MAX {
            return Err(before);
        }
        if known.len() >= KNOWN_MAX {
            known.retain(|_, known| matches!(known, Known::Fetching(_)));
        }
        known.insert(id, Known::Fetching(before.clone()));
        drop(known);
        let inner = Arc::clone(&self.0);
        let started = std::thread::Builder::new().name("schema".to_owned()).spawn(move || inner.fetch(id));
        if started.is_err() {
            self.0.known().insert(id, Known::Failed(Instant::now(), before.clone()));
        }
        Err(before)
    }
}

impl Inner {
    fn known(&self) -> MutexGuard<'_, HashMap<u32, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fetch(&self, id: u32) {
        let asked = self.ask(id);
        let is_away = matches!(asked, Err(NotDecoded::Busy(_)));
        match (&asked, self.is_away.swap(is_away, Ordering::Relaxed)) {
            (Err(why), false) if is_away => {
                tracing::warn!(%why, "the schema registry does not answer; events wait in Kafka, and it is asked again");
            }
            (_, true) if !is_away => tracing::info!(registry = self.url, "the schema registry answers again"),
            _ => {}
        }
        let known = match asked {
            Ok(schema) => Known::Schema(Arc::new(schema)),
            Err(why) => Known::Failed(Instant::now(), why),
        };
        self.known().insert(id, known);
    }

    /// Asks the registry. What a person must mend is a hold, what passes by itself is not.
    fn ask(&self, id: u32) -> Result<Schema, NotDecoded> {
        let url = format!("{}/schemas/ids/{id}", self.url);
        let hold = |what: String| NotDecoded::Hold(format!("the schema registry at {}: {what}", self.url));
        let away = |what: String| NotDecoded::Busy(format!("the schema registry at {} is away: {what}", self.url));
        let mut request = self.agent.get(&url).header("accept", "application/vnd.schemaregistry.v1+json");
        if let Some(login) = &self.login {
            request = request.header("authorization", login);
        }
        let mut response = request.call().map_err(|error| away(error.to_string()))?;
        match response.status().as_u16() {
            200 => {}
            401 | 403 => return Err(hold("it refuses the login: give Registry::with_login the right one".to_owned())),
            404 => return Err(hold(format!("it has no schema id {id}, by which values on the topic were written"))),
            status @ (408 | 429 | 500..) => return Err(away(format!("it answers with status {status}"))),
            status => return Err(hold(format!("it answers with status {status}, so it may be no schema registry"))),
        }
        let body = response.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_vec();
        let body = body.map_err(|error| away(error.to_string()))?;
        let answer: Answer =
            serde_json::from_slice(&body).map_err(|_| hold("its answer is none of a schema registry".to_owned()))?;
        if answer.schema_type.as_deref().is_some_and(|kind| kind != "AVRO") {
            let kind = answer.schema_type.unwrap_or_default();
            return Err(hold(format!(
                "schema id {id} is {kind}, and the decoder reads Avro: choose the decoder of {kind}"
            )));
        }
        if !answer.references.is_empty() {
            return Err(hold(format!(
                "schema id {id} refers to other schemas, which weir does not resolve: inline them"
            )));
        }
        parse(&answer.schema, || format!("schema id {id}")).map_err(|error| hold(error.to_string()))
    }
}

#[derive(Deserialize)]
struct Answer {
    schema: String,
    #[serde(default, rename = "schemaType")]
    schema_type: Option<String>,
    #[serde(default)]
    references: Vec<serde::de::IgnoredAny>,
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").field("url", &self.0.url).finish_non_exhaustive()
    }
}
