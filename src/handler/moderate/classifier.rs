//! A service that judges messages over HTTP, one a request. It may be slow, fail, or be away: each request has its time, requests
//! at a time are bounded, and after failures in a row it is left alone and tried once a second.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode, Uri, header};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use super::verdict::{Judgement, Verdict};
use crate::breaker::{Breaker, Change, Permit};
use crate::config::{self, OnUnavailable};
use crate::handler::Service;
use crate::metrics::ClassifierMetrics;

/// The largest answer, in bytes.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// Failures in a row after which it is left alone.
const FAILURES_MAX: u32 = 20;
/// Before a request is tried again; doubled each time.
const RETRY: Duration = Duration::from_millis(20);

/// What is asked.
#[derive(Debug, Serialize)]
pub(super) struct Question<'a> {
    pub(super) id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) user: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) conversation: Option<&'a str>,
    pub(super) text: &'a str,
}

#[derive(Debug, Deserialize)]
struct Answer {
    verdict: String,
    #[serde(default)]
    label: Option<String>,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unavailable {
    #[error("no answer within {} ms", .0.as_millis())]
    Late(Duration),
    #[error("{0}")]
    Failed(String),
    #[error("left alone after failures in a row: {0}")]
    LeftAlone(String),
}

#[derive(Debug)]
pub(super) struct Classifier {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    uri: Uri,
    config: config::Classifier,
    turns: Semaphore,
    breaker: Breaker,
    pool: Arc<str>,
    metrics: ClassifierMetrics,
}

impl Classifier {
    pub(super) fn new(
        config: &config::Classifier,
        pool: &Arc<str>,
        metrics: ClassifierMetrics,
    ) -> Result<Self, String> {
        let uri: Uri = config.url.parse().map_err(|error| format!("`classifier.url` is no address: {error}"))?;
        let tls = hyper_rustls::HttpsConnectorBuilder::new()
            .with_provider_and_webpki_roots(rustls::crypto::ring::default_provider())
            .map_err(|error| format!("TLS cannot be set up: {error}"))?;
        let client = Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(config.concurrency)
            .build(tls.https_or_http().enable_http1().build());
        Ok(Self {
            client,
            uri,
            config: config.clone(),
            turns: Semaphore::new(config.concurrency),
            breaker: Breaker::after(FAILURES_MAX),
            pool: Arc::clone(pool),
            metrics,
        })
    }

    pub(super) fn on_unavailable(&self) -> OnUnavailable {
        self.config.on_unavailable
    }

    /// How many questions may be under way.
    pub(super) fn concurrency(&self) -> usize {
        self.config.concurrency
    }

    /// Asks until there is an answer, as often as configured.
    pub(super) async fn judge(&self, question: &Question<'_>) -> Result<Judgement, Unavailable> {
        let body = serde_json::to_vec(question).map_err(|error| Unavailable::Failed(error.to_string()))?;
        let body = Bytes::from(body);
        let mut wait = RETRY;
        let mut tries = 1;
        loop {
            match self.attempt(body.clone()).await {
                Err(error) if tries < self.config.attempts && !matches!(error, Unavailable::LeftAlone(_)) => {
                    tries += 1;
                    tokio::time::sleep(wait).await;
                    wait *= 2;
                }
                done => return done,
            }
        }
    }

    pub(super) fn service(&self) -> Service {
        Service::of(self.breaker.open())
    }

    async fn attempt(&self, body: Bytes) -> Result<Judgement, Unavailable> {
        let Ok(_turn) = self.turns.acquire().await else {
            return Err(Unavailable::Failed("the classifier is closed".to_owned()));
        };
        let Some(permit) = self.breaker.permit(Instant::now()) else {
            self.metrics.skipped.inc();
            let error = self.breaker.open().map_or_else(String::new, |(_, error)| error);
            return Err(Unavailable::LeftAlone(error));
        };
        let begun = Instant::now();
        let asked = tokio::time::timeout(self.config.timeout, self.ask(body)).await;
        let answer = asked.unwrap_or(Err(Unavailable::Late(self.config.timeout)));
        self.metrics.duration.observe(begun.elapsed().as_secs_f64());
        self.note(permit, &answer);
        answer
    }

    fn note(&self, permit: Permit, answer: &Result<Judgement, Unavailable>) {
        match answer {
            Ok(_) => {
                self.metrics.ok.inc();
                if self.breaker.succeeded(permit) == Change::Closed {
                    tracing::info!(pool = &*self.pool, "the classifier answers again");
                }
            }
            Err(error) => {
                match error {
                    Unavailable::Late(_) => self.metrics.timeout.inc(),
                    _ => self.metrics.error.inc(),
                }
                if self.breaker.failed(permit, Instant::now(), error) == Change::Opened {
                    tracing::warn!(
                        pool = &*self.pool, %error,
                        "the classifier fails again and again: it is left alone and tried once a second; messages go by \
                         on_unavailable"
                    );
                }
            }
        }
    }

    async fn ask(&self, body: Bytes) -> Result<Judgement, Unavailable> {
        let failed = |error: &dyn std::error::Error| Unavailable::Failed(with_causes(error));
        let request = Request::builder()
            .method(Method::POST)
            .uri(self.uri.clone())
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|error| failed(&error))?;
        let response = self.client.request(request).await.map_err(|error| failed(&error))?;
        if response.status() != StatusCode::OK {
            return Err(Unavailable::Failed(format!("it answers {}", response.status())));
        }
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|error| failed(&*error))?.to_bytes();
        judgement_of(&body)
    }
}

/// An answer's words go into the database only as a short label, since they could quote the message.
fn judgement_of(body: &[u8]) -> Result<Judgement, Unavailable> {
    let unfit = || Unavailable::Failed("its answer is not {\"verdict\": \"allow\" | \"flag\" | \"hide\"}".to_owned());
    let answer: Answer = serde_json::from_slice(body).map_err(|_| unfit())?;
    let verdict = Verdict::from_name(&answer.verdict).ok_or_else(unfit)?;
    let is_label = |label: &String| {
        (1..=64).contains(&label.len())
            && label.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'-' | b'.'))
    };
    let reason = match answer.label.filter(is_label) {
        Some(label) => format!("classifier: {label}"),
        None => "classifier".to_owned(),
    };
    Ok(Judgement { verdict, reason })
}

/// The client's own words do not say what was in the way; its causes do.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut told = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let text = inner.to_string();
        if !told.contains(&text) {
            told = format!("{told}: {text}");
        }
        cause = inner.source();
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_a_verdict_and_a_label_at_most() {
        let judged = |body: &str| judgement_of(body.as_bytes());
        let hide = Judgement { verdict: Verdict::Hide, reason: "classifier: hate-2".to_owned() };
        assert_eq!(judged(r#"{"verdict":"hide","label":"hate-2","score":0.9}"#), Ok(hide));
        let flag = Judgement { verdict: Verdict::Flag, reason: "classifier".to_owned() };
        assert_eq!(judged(r#"{"verdict":"flag","label":"you said: hello there"}"#), Ok(flag));
        for unfit in ["", "{}", r#"{"verdict":"maybe"}"#, "[]"] {
            assert!(judged(unfit).is_err(), "{unfit}");
        }
    }
}
