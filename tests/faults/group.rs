//! Puts a member out of its group without a word to it, as only a coordinator can: the request to leave is sent for it.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rdkafka::consumer::{BaseConsumer, Consumer as _};

use super::lab::Lab;

const PATIENCE: Duration = Duration::from_secs(10);
/// LeaveGroup, in the version that names members.
const LEAVE_GROUP: (i16, i16) = (13, 3);

/// Evicts the member with this client id.
pub(crate) fn evict(lab: &Lab, group: &str, client_id: &str) -> Result<()> {
    let consumer: BaseConsumer = lab.kafka().create()?;
    let groups = consumer.fetch_group_list(Some(group), PATIENCE).context("describe the group")?;
    let members = groups.groups().iter().flat_map(rdkafka::groups::GroupInfo::members);
    let member = members.into_iter().find(|member| member.client_id() == client_id);
    let member = member.with_context(|| format!("no member of {group} is called {client_id}"))?.id().to_owned();

    let mut request = Vec::new();
    request.extend(LEAVE_GROUP.0.to_be_bytes());
    request.extend(LEAVE_GROUP.1.to_be_bytes());
    request.extend(1_i32.to_be_bytes());
    string(&mut request, "harness");
    string(&mut request, group);
    request.extend(1_i32.to_be_bytes());
    string(&mut request, &member);
    // No instance id.
    request.extend((-1_i16).to_be_bytes());

    let mut broker = TcpStream::connect(&lab.brokers).context("connect to the broker")?;
    broker.set_read_timeout(Some(PATIENCE))?;
    broker.write_all(&u32::try_from(request.len())?.to_be_bytes())?;
    broker.write_all(&request)?;
    // Length, correlation id, throttle time, error code.
    let mut answer = [0; 14];
    broker.read_exact(&mut answer).context("the broker's answer")?;
    let error = i16::from_be_bytes([answer[12], answer[13]]);
    ensure!(error == 0, "the broker refuses to let {member} leave: error {error}");
    Ok(())
}

fn string(request: &mut Vec<u8>, text: &str) {
    request.extend(u16::try_from(text.len()).unwrap_or(0).to_be_bytes());
    request.extend(text.as_bytes());
}
