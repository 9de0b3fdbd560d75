//! The way to the receiver: OTLP over HTTP, by the connection of the process's own runtime.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::{ConfigBuilderExt as _, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkError;
use opentelemetry_sdk::trace::SpanExporter as _;

use super::SCOPE;
use crate::config;

/// Where receivers take spans, below their address.
const PATH: &str = "/v1/traces";
/// How long a receiver may take for an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// The most bytes of an answer.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// What sends spans, and why it last could not.
pub(super) struct Exporter<E> {
    pub(super) spans: E,
    pub(super) endpoint: String,
    met: Met,
}

/// What a connection met last: the exporter tells only that it failed.
#[derive(Debug, Clone, Default)]
struct Met(Arc<Mutex<Option<String>>>);

impl Met {
    fn lock(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<E> Exporter<E> {
    #[cfg(test)]
    pub(super) fn over(spans: E, endpoint: &str) -> Self {
        Self { spans, endpoint: endpoint.to_owned(), met: Met::default() }
    }

    /// Why it failed, in words.
    pub(super) fn why(&self, error: &OTelSdkError) -> String {
        self.met.lock().take().unwrap_or_else(|| error.to_string())
    }
}

/// What sends spans to an endpoint.
pub(super) fn exporter(config: &config::Traces, endpoint: &str) -> Result<Exporter<SpanExporter>, String> {
    let endpoint = address(endpoint);
    let met = Met::default();
    let client = Client { http: http_client(endpoint.starts_with("https:"))?, met: met.clone() };
    let headers = config.headers.expose().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let spans = SpanExporter::builder()
        .with_http()
        .with_protocol(Protocol::HttpBinary)
        .with_http_client(client)
        .with_endpoint(endpoint.clone())
        .with_timeout(ANSWER_TIMEOUT)
        .with_headers(headers)
        .build();
    let mut spans = spans.map_err(|error| error.to_string())?;
    spans.set_resource(&resource(config));
    Ok(Exporter { spans, endpoint, met })
}

/// The address with the path of traces.
fn address(endpoint: &str) -> String {
    let endpoint = endpoint.trim_end_matches('/');
    if endpoint.ends_with(PATH) { endpoint.to_owned() } else { format!("{endpoint}{PATH}") }
}

/// Who sends: what is configured goes over `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES`, and those over weir's own.
fn resource(config: &config::Traces) -> Resource {
    let is_named = ["OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES"].iter().any(|name| {
        let value = std::env::var(name).unwrap_or_default();
        if *name == "OTEL_SERVICE_NAME" { !value.is_empty() } else { value.contains("service.name=") }
    });
    let builder = Resource::builder();
    let builder = match &config.service_name {
        Some(name) => builder.with_service_name(name.clone()),
        None if is_named => builder,
        None => builder.with_service_name(SCOPE),
    };
    builder.with_attribute(opentelemetry::KeyValue::new("service.version", env!("CARGO_PKG_VERSION"))).build()
}

type Http = hyper_util::client::legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// Trusts the certificates of the system, or those of the file in `SSL_CERT_FILE`; they are looked for only where TLS is
/// spoken.
fn http_client(takes_tls: bool) -> Result<Http, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let tls = tls.map_err(|error| format!("TLS cannot be set up: {error}"))?;
    let tls = match takes_tls {
        true => tls.with_native_roots().map_err(|error| {
            format!("no certificates to trust were found ({error}): install them, or name a file by SSL_CERT_FILE")
        })?,
        false => tls.with_root_certificates(rustls::RootCertStore::empty()),
    };
    let connector =
        HttpsConnectorBuilder::new().with_tls_config(tls.with_no_client_auth()).https_or_http().enable_http1().build();
    Ok(hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build(connector))
}

struct Client {
    http: Http,
    met: Met,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Client")
    }
}

#[async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        *self.met.lock() = None;
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, self.ask(request)).await;
        let answer = answer.unwrap_or_else(|_| Err(format!("no answer within {} s", ANSWER_TIMEOUT.as_secs()).into()));
        if let Err(error) = &answer {
            *self.met.lock() = Some(told(&**error));
        }
        answer
    }
}

impl Client {
    async fn ask(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (parts, body) = request.into_parts();
        let answer = self.http.request(Request::from_parts(parts, Full::new(body))).await?;
        let (parts, body) = answer.into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await?.to_bytes();
        Ok(Response::from_parts(parts, body))
    }
}

/// An error with its causes, since hyper's own words say only at what it happened.
fn told(error: &(dyn std::error::Error + 'static)) -> String {
    let (mut told, mut cause) = (error.to_string(), error.source());
    while let Some(error) = cause {
        told = format!("{told}: {error}");
        cause = error.source();
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_of_traces_is_appended_once() {
        assert_eq!(address("http://collector:4318"), "http://collector:4318/v1/traces");
        assert_eq!(address("https://host/otlp/"), "https://host/otlp/v1/traces");
        assert_eq!(address("https://host/otlp/v1/traces"), "https://host/otlp/v1/traces");
    }
}
