//! Asking a worker over HTTP, from another process.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// The most bytes of an answer.
const ANSWER_BYTES_MAX: u64 = 16 << 20;

/// Host and port of an address such as `http://127.0.0.1:9464`.
pub(crate) fn address_of(url: &str) -> Option<&str> {
    let address = url.strip_prefix("http://")?.trim_end_matches('/');
    let (host, port) = address.rsplit_once(':')?;
    let is_host = !host.is_empty() && !host.contains('/');
    (is_host && port.parse::<u16>().is_ok_and(|port| port > 0)).then_some(address)
}

/// The body of what a worker answers.
///
/// # Errors
/// Nobody listens there, there is no answer in time, or the answer is none that was hoped for.
pub(crate) async fn get(address: &str, path: &str, within: Duration) -> Result<String> {
    let asked = async {
        let mut stream = TcpStream::connect(address).await?;
        // Version 1.0: the answer comes in one piece and ends with the connection.
        stream.write_all(format!("GET {path} HTTP/1.0\r\nhost: {address}\r\n\r\n").as_bytes()).await?;
        let mut answer = Vec::new();
        stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await?;
        std::io::Result::Ok(answer)
    };
    let asked = tokio::time::timeout(within, asked).await.with_context(|| format!("{address}: no answer in time"))?;
    let answer = asked.with_context(|| format!("ask the worker at {address} for {path}"))?;
    let answer = String::from_utf8_lossy(&answer);
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.split(' ').nth(1) == Some("200") => Ok(body.to_owned()),
        Some((head, body)) => {
            let (status, why) = (head.lines().next().unwrap_or_default(), body.lines().next().unwrap_or_default());
            bail!("{address}{path}: {status}{}{why}", if why.is_empty() { "" } else { ": " })
        }
        None => bail!("{address}{path}: no HTTP answer"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_scheme_a_host_and_a_port() {
        assert_eq!(address_of("http://127.0.0.1:9464/"), Some("127.0.0.1:9464"));
        for wrong in ["127.0.0.1:9464", "http://host", "http://:1", "http://host:0", "http://host:1/metrics"] {
            assert_eq!(address_of(wrong), None, "{wrong}");
        }
    }
}
