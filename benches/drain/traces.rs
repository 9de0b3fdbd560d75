//! What traces cost: the same backlog without them and with them, sent to a receiver that takes everything and keeps
//! nothing.

use anyhow::{Context as _, Result};
use axum::Router;
use axum::body::Bytes;
use axum::routing::post;

use crate::contest::Contest;
use crate::drain::Workload;
use crate::load::{self, Backlog};
use crate::services::Services;
use crate::side::Side;
use crate::{named, weir};

/// Of 1,000 events, how many are sampled, one backlog after the other.
const SAMPLED_PER_MILLE: [u64; 2] = [0, 10];

pub(crate) async fn hold(services: &Services, events: u64, rounds: usize, backlogs: &mut Vec<Backlog>) -> Result<()> {
    let endpoint = receiver().await?;
    for sampled_per_mille in SAMPLED_PER_MILLE {
        let backlog = load::publish_traced(services, events, sampled_per_mille).await?;
        backlogs.push(backlog.clone());
        let title = if sampled_per_mille == 0 { "traces, none sampled" } else { "traces, 1 % sampled" };
        let mut sides: Vec<(String, Side)> = weir(true).collect();
        let (_, Side::Weir { binary, .. }) = &sides[0] else { continue };
        let binary = binary.clone();
        for relation in ["link", "parent"] {
            let side = Side::Traced { binary: binary.clone(), endpoint: endpoint.clone(), relation };
            sides.push(named(&format!("with traces, {relation}"), side));
        }
        Contest { title, workload: Workload::Persist, sides, limits: false }.hold(services, &backlog, rounds).await?;
    }
    Ok(())
}

/// Listens; its address.
async fn receiver() -> Result<String> {
    let router = Router::new().route("/v1/traces", post(|spans: Bytes| async move { drop(spans) }));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.context("listen for spans")?;
    let address = listener.local_addr().context("listen for spans")?;
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(format!("http://{address}"))
}
