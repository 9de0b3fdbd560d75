//! The listener: where the console is served, and what is answered.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Router, middleware};
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::dead::{Asked, Refused};
use super::{Console, Shown, guard, pages};
use crate::admin::Limited;
use crate::config::ConsoleListen;

/// Between two points of the charts.
const POINT_EVERY: Duration = Duration::from_secs(1);
/// How long the first answer waits for the first look at the fleet.
const FIRST_LOOK: Duration = Duration::from_secs(3);

/// Why the console could not be served.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is taken, not this machine's, or not allowed.
    #[error(
        "listen on {address}: {source}; another process may have it: set console.listen to a free address, to port 0, or to \"off\""
    )]
    Listen {
        /// The configured address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
}

impl Console {
    /// Serves the console until the shutdown, and returns the address that was bound; none where it is off.
    ///
    /// # Errors
    /// The configured address cannot be listened on. Where none is configured, a free port is taken in place of the usual
    /// one, and where there is none either, it is said so and the worker runs without a console.
    pub async fn serve(&self, shutdown: CancellationToken) -> Result<Option<(SocketAddr, JoinHandle<()>)>, Error> {
        let Some(listener) = bind(self.0.config.console.listen).await? else { return Ok(None) };
        let Ok(address) = listener.local_addr() else { return Ok(None) };
        tracing::info!(%address, "console listening");
        let noting = tokio::spawn(note(Arc::clone(&self.0), shutdown.clone()));
        let routes = self.routes();
        let task = tokio::spawn(async move {
            let served =
                axum::serve(Limited::new(listener), routes).with_graceful_shutdown(shutdown.cancelled_owned()).await;
            if let Err(error) = served {
                tracing::warn!(%error, "the console is no longer served; the pools go on");
            }
            noting.abort();
        });
        Ok(Some((address, task)))
    }

    /// Only GET is answered, and what it asks changes nothing.
    fn routes(&self) -> Router {
        let hosts: Arc<[String]> = self.0.config.console.hosts.clone().into();
        Router::new()
            .route("/api/state", get(state))
            .route("/api/dead", get(dead))
            .route("/api/dead/row", get(dead_row))
            .with_state(Arc::clone(&self.0))
            .merge(pages::routes())
            .layer(middleware::from_fn_with_state(hosts, guard::guard))
    }
}

async fn bind(listen: ConsoleListen) -> Result<Option<TcpListener>, Error> {
    let Some(address) = listen.address() else { return Ok(None) };
    match (TcpListener::bind(address).await, listen) {
        (Ok(listener), _) => Ok(Some(listener)),
        (Err(source), ConsoleListen::At(_)) => Err(Error::Listen { address, source }),
        (Err(_), _) => match TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await {
            Ok(listener) => {
                tracing::info!(usual = %address, "another process has the console's usual address; a free port is taken");
                Ok(Some(listener))
            }
            Err(error) => {
                tracing::warn!(%error, "no address for the console: the worker runs without it");
                Ok(None)
            }
        },
    }
}

async fn note(shown: Arc<Shown>, shutdown: CancellationToken) {
    let mut tick = tokio::time::interval(POINT_EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = tick.tick() => {}
        }
        shown.note();
        shown.fleet.rest().await;
    }
}

async fn state(State(shown): State<Arc<Shown>>, RawQuery(query): RawQuery) -> Response {
    let after_ms = value(query.as_deref(), "after").and_then(|ms| ms.parse().ok()).unwrap_or(0);
    shown.fleet.want();
    shown.fleet.first(FIRST_LOOK).await;
    json(StatusCode::OK, &shown.state(after_ms))
}

async fn dead(State(shown): State<Arc<Shown>>, RawQuery(query): RawQuery) -> Response {
    let of = |name| value(query.as_deref(), name);
    let asked = Asked {
        pool: of("pool").unwrap_or_default(),
        reason: of("reason"),
        pipeline: of("pipeline"),
        id: of("id"),
        skip: of("skip").and_then(|skip| skip.parse().ok()).unwrap_or(0),
    };
    told(shown.dead.page(asked).await)
}

async fn dead_row(State(shown): State<Arc<Shown>>, RawQuery(query): RawQuery) -> Response {
    let of = |name| value(query.as_deref(), name).unwrap_or_default();
    told(shown.dead.row(&of("pool"), &of("id"), &of("kind")).await)
}

/// A parameter that is not empty.
fn value(query: Option<&str>, name: &str) -> Option<String> {
    let mut pairs = url::form_urlencoded::parse(query.unwrap_or_default().as_bytes());
    pairs.find(|(key, value)| key == name && !value.is_empty()).map(|(_, value)| value.into_owned())
}

fn told<T: Serialize>(answer: Result<T, Refused>) -> Response {
    match answer {
        Ok(answer) => json(StatusCode::OK, &answer),
        Err(Refused::Unknown(error)) => json(StatusCode::NOT_FOUND, &serde_json::json!({ "error": error })),
        Err(Refused::Unavailable(error)) => {
            json(StatusCode::SERVICE_UNAVAILABLE, &serde_json::json!({ "error": error }))
        }
    }
}

fn json(status: StatusCode, body: &impl Serialize) -> Response {
    let body = serde_json::to_string(body).expect("strings, numbers and lists are always valid JSON");
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded_and_empty_ones_are_none() {
        let query = Some("pool=a%26b&reason=&id=%3Cscript%3E&skip=50");
        assert_eq!(value(query, "pool").as_deref(), Some("a&b"));
        assert_eq!((value(query, "reason"), value(query, "none"), value(None, "pool")), (None, None, None));
        assert_eq!(value(query, "id").as_deref(), Some("<script>"));
    }

    #[tokio::test]
    async fn the_usual_address_gives_way_and_a_configured_one_does_not() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = taken.local_addr().unwrap();
        let error = bind(ConsoleListen::At(address)).await.unwrap_err().to_string();
        assert!(error.contains(&address.to_string()) && error.contains("console.listen"), "{error}");
        assert!(bind(ConsoleListen::Off).await.unwrap().is_none());
        // Whoever has the usual address, there is a listener for each.
        let (first, second) = (bind(ConsoleListen::Usual).await.unwrap(), bind(ConsoleListen::Usual).await.unwrap());
        let of = |listener: &Option<TcpListener>| listener.as_ref().unwrap().local_addr().unwrap();
        assert!(of(&first) != of(&second) && of(&second).ip().is_loopback());
    }
}
