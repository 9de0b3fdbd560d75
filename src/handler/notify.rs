//! Tells a web service of each event: an HTTP POST of its value, signed.
//!
//! Promised: at least once, events of a key in order. A repeat has the same `idempotency-key`, the event's id. The header
//! `weir-signature: t=SECONDS,v1=HEX` holds the HMAC-SHA256 of `SECONDS.BODY` under the shared secret, so that the service can
//! tell who sent it and that it is not an old one sent again.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use async_trait::async_trait;
use futures_util::future::join_all;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::Deserialize;
use sha2::Sha256;

use super::delivered::Delivered;
use super::{Answer, Applied, Error, Handler, Item, Rejection, Service, Setup, Shipped};
use crate::breaker::{Breaker, Change, Permit};
use crate::config::schema::{Shape, key};
use crate::config::{Check, HandlerKind, Secret, duration, is_http};
use crate::event::{Document, Event, Payload as _};
use crate::store::{self, Fault, Tx};

pub(super) const SHIPPED: Shipped = Shipped {
    kind: HandlerKind {
        name: "notify",
        keys: &[
            key("url", Shape::Secret),
            key("url_file", Shape::Text),
            key("secret", Shape::Secret),
            key("secret_file", Shape::Text),
            key("timeout", Shape::Duration),
        ],
        is_stored: false,
        example: "url = \"https://example.org\"",
        check,
    },
    build: |setup| Box::pin(async move { Ok(Box::new(Notify::set_up(&setup)?) as _) }),
};

/// Its own keys.
#[derive(Debug, Deserialize)]
#[serde(default)]
struct Settings {
    /// The address to post to.
    url: Option<Secret>,
    url_file: Option<PathBuf>,
    /// What requests are signed with; without it, they are not.
    secret: Option<Secret>,
    /// How long an answer is waited for.
    #[serde(with = "duration")]
    timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self { url: None, url_file: None, secret: None, timeout: Duration::from_secs(10) }
    }
}

fn check(check: &mut Check<'_>) {
    let Some(Settings { url, url_file, secret, timeout }) = check.read() else { return };
    match url {
        None if url_file.is_none() => {
            check.say("url", format!("is not set: give the address to post to, or `{}.url_file`", check.at));
        }
        Some(url) if !is_http(url.expose()) => check.say("url", "must be an address such as https://host/path"),
        _ => {}
    }
    if secret.is_some_and(|secret| secret.is_empty()) {
        check.say("secret", "is empty: leave it out to sign nothing");
    }
    check.timeout("timeout", timeout);
}

/// Requests at a time, a partition. Events of one key go through one lane, and so in order.
const LANES: u64 = 8;

/// The handler `notify`.
pub struct Notify(Arc<Hook>);

struct Hook {
    pool: String,
    agent: ureq::Agent,
    url: Secret,
    /// Scheme and host: addresses of web hooks often have a token in them.
    place: String,
    secret: Option<Secret>,
    breaker: Breaker,
    delivered: Delivered,
}

/// What is sent.
struct Request {
    body: Vec<u8>,
    id: String,
    kind: String,
    source: String,
    signature: Option<String>,
}

/// What the service made of a request.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Taken,
    /// It will never take this one.
    Refused(u16),
    /// It is away, or wants to be asked later.
    Away(String),
    /// The address is not the service's any more.
    Moved(u16),
}

impl Notify {
    pub(super) fn set_up(setup: &Setup<'_>) -> anyhow::Result<Self> {
        let settings: Settings = setup.pipeline.settings.read().map_err(anyhow::Error::msg)?;
        let url = settings.url.context("url is not set")?;
        let parsed = url::Url::parse(url.expose()).context("url is no address")?;
        let place = format!("{}://{}", parsed.scheme(), parsed.host_str().unwrap_or_default());
        let agent = ureq::Agent::config_builder()
            .timeout_global(Some(settings.timeout))
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(None)
            .build()
            .into();
        let (secret, pool) = (settings.secret, setup.pool_name.to_string());
        let (breaker, delivered) = (Breaker::default(), Delivered::default());
        Ok(Self(Arc::new(Hook { pool, agent, url, place, secret, breaker, delivered })))
    }

    /// Sends a lane's events one after the other, up to the first that the service does not answer for.
    async fn send_lane(&self, lane: Vec<(usize, &Event<Document>)>) -> Result<Vec<(usize, Rejection)>, Error> {
        let mut rejected = Vec::new();
        for (at, event) in lane {
            if self.0.delivered.has(event) {
                continue;
            }
            match self.send(event).await? {
                None => self.0.delivered.note(event),
                Some(rejection) => rejected.push((at, rejection)),
            }
        }
        Ok(rejected)
    }

    async fn send(&self, event: &Event<Document>) -> Result<Option<Rejection>, Error> {
        let hook = &self.0;
        let away = |why: &str| Error { fault: Fault::Outage, message: format!("notify {}: {why}", hook.place) };
        let permit = hook.breaker.permit(Instant::now()).ok_or_else(|| away("it does not answer and is left alone"))?;
        let (asking, request) = (Arc::clone(hook), hook.request(event));
        let posted = tokio::task::spawn_blocking(move || asking.post(&request)).await;
        let outcome = posted.unwrap_or_else(|_| Outcome::Away("the request was cut off".to_owned()));
        hook.note(permit, &outcome);
        match outcome {
            Outcome::Taken => Ok(None),
            Outcome::Refused(status) => {
                Ok(Some(Rejection::by_handler(format!("{} refuses it with status {status}", hook.place))))
            }
            Outcome::Away(why) => Err(away(&why)),
            Outcome::Moved(status) => {
                let message =
                    format!("notify {}: it answers with status {status}, elsewhere: set url anew", hook.place);
                Err(Error { fault: Fault::Hold, message })
            }
        }
    }
}

impl Hook {
    fn request(&self, event: &Event<Document>) -> Request {
        let body = event.record.value.as_deref().unwrap_or_default().to_vec();
        let now_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let signature = self.secret.as_ref().map(|secret| signature(secret.expose(), now_s, &body));
        let source = format!("{}@{}", event.origin, event.record.offset);
        Request { body, id: visible(event.id.as_str()), kind: visible(event.payload.kind()), source, signature }
    }

    /// Blocks for as long as the time-out at most.
    fn post(&self, request: &Request) -> Outcome {
        let mut post = self
            .agent
            .post(self.url.expose())
            .header("content-type", "application/json")
            .header("user-agent", concat!("weir/", env!("CARGO_PKG_VERSION")))
            .header("idempotency-key", &request.id)
            .header("weir-type", &request.kind)
            .header("weir-source", &request.source);
        if let Some(signature) = &request.signature {
            post = post.header("weir-signature", signature);
        }
        match post.send(&request.body[..]) {
            Ok(response) => outcome(response.status().as_u16()),
            // The error's text may have the address in it, and that a token.
            Err(ureq::Error::Timeout(_)) => Outcome::Away("no answer in time".to_owned()),
            Err(ureq::Error::Io(error)) => Outcome::Away(format!("no connection: {}", error.kind())),
            Err(ureq::Error::HostNotFound) => Outcome::Away("the host is not known".to_owned()),
            Err(ureq::Error::ConnectionFailed) => Outcome::Away("no connection".to_owned()),
            Err(_) => Outcome::Away("the request failed".to_owned()),
        }
    }

    fn note(&self, permit: Permit, outcome: &Outcome) {
        let (pool, service) = (&*self.pool, &*self.place);
        match outcome {
            Outcome::Away(why) => {
                if self.breaker.failed(permit, Instant::now(), why) == Change::Opened {
                    tracing::warn!(
                        pool,
                        service,
                        why,
                        "the notified service does not answer; its events wait in Kafka, and it is tried again"
                    );
                }
            }
            _ => {
                if self.breaker.succeeded(permit) == Change::Closed {
                    tracing::info!(pool, service, "the notified service answers again");
                }
            }
        }
    }
}

fn outcome(status: u16) -> Outcome {
    match status {
        200..=299 => Outcome::Taken,
        300..=399 => Outcome::Moved(status),
        408 | 429 => Outcome::Away(format!("it answers with status {status}")),
        400..=499 => Outcome::Refused(status),
        _ => Outcome::Away(format!("it answers with status {status}")),
    }
}

fn signature(secret: &str, at_s: u64, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("HMAC takes keys of any length");
    mac.update(format!("{at_s}.").as_bytes());
    mac.update(body);
    let hex: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("t={at_s},v1={hex}")
}

/// A text as a header can hold it: what is not visible ASCII is written as `%XX`, and so is `%`.
fn visible(text: &str) -> String {
    let escaped = |byte: u8| match byte {
        b'!'..=b'~' if byte != b'%' => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    text.bytes().map(escaped).collect()
}

fn lane_of(event: &Event<Document>) -> u64 {
    let mut hasher = DefaultHasher::new();
    match &event.record.key {
        Some(key) => key.hash(&mut hasher),
        None => event.record.offset.hash(&mut hasher),
    }
    hasher.finish() % LANES
}

#[async_trait]
impl Handler<Document> for Notify {
    type Work = ();

    fn service(&self) -> Service {
        Service::of(self.0.breaker.open())
    }

    async fn prepare(&self, events: &[&Event<Document>]) -> Result<Vec<Answer<()>>, Error> {
        self.0.delivered.begin(events);
        let mut lanes: Vec<Vec<(usize, &Event<Document>)>> = (0..LANES).map(|_| Vec::new()).collect();
        for (at, event) in events.iter().copied().enumerate() {
            if let Some(lane) = usize::try_from(lane_of(event)).ok().and_then(|lane| lanes.get_mut(lane)) {
                lane.push((at, event));
            }
        }
        let mut sending = Vec::with_capacity(lanes.len());
        for lane in lanes {
            sending.push(self.send_lane(lane));
        }
        let mut answers: Vec<Answer<()>> = events.iter().map(|_| Answer::Apply(())).collect();
        for rejected in join_all(sending).await {
            for (at, rejection) in rejected? {
                answers[at] = Answer::Reject(rejection);
            }
        }
        Ok(answers)
    }

    async fn apply(&self, _tx: &mut dyn Tx, _items: &[Item<'_, Document, ()>]) -> Result<Applied, store::Error> {
        Ok(Applied::Done)
    }
}

impl std::fmt::Debug for Notify {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Notify").field("service", &self.0.place).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_what_other_tools_compute() {
        // printf '1767225600.{"a":1}' | openssl dgst -sha256 -hmac secret
        let expected = "t=1767225600,v1=96a067a1c95eb143fc00b9097bcfcbcd5456adda508c443ff219748e764dbed7";
        assert_eq!(signature("secret", 1_767_225_600, br#"{"a":1}"#), expected);
    }

    #[test]
    fn what_an_answer_means() {
        for (status, expected) in [
            (204, Outcome::Taken),
            (301, Outcome::Moved(301)),
            (400, Outcome::Refused(400)),
            (409, Outcome::Refused(409)),
            (410, Outcome::Refused(410)),
        ] {
            assert_eq!(outcome(status), expected);
        }
        for status in [408, 429, 500, 503, 599] {
            assert!(matches!(outcome(status), Outcome::Away(_)), "{status}");
        }
    }

    #[test]
    fn an_id_of_any_text_is_a_header() {
        assert_eq!(visible("order-42:x"), "order-42:x");
        assert_eq!(visible("a b\r\n%ä"), "a%20b%0D%0A%25%C3%A4");
    }
}
