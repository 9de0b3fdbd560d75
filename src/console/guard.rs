//! Who is answered, and what browsers are told to keep to. A page of elsewhere, opened in the operator's browser, must not
//! read the console: it is answered only by a name that no stranger can make point here (which is what DNS rebinding
//! does), and never across sites. What it serves loads nothing from elsewhere, is framed by nobody, and runs no script but its own.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Answers those who may ask.
pub(super) async fn guard(State(hosts): State<Arc<[String]>>, request: Request, next: Next) -> Response {
    let mut answer = match refusal(request.headers(), request.uri().path(), &hosts) {
        Some(why) => (StatusCode::FORBIDDEN, why).into_response(),
        None => next.run(request).await,
    };
    let headers = answer.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    ] {
        headers.insert(name, value.parse().expect("the values are constants that a test sends"));
    }
    answer
}

fn refusal(headers: &HeaderMap, path: &str, hosts: &[String]) -> Option<String> {
    let asked = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    if !is_host(asked, hosts) {
        return Some(format!(
            "the console does not answer by the name {asked:?}: ask by an address or localhost, or add the name to console.hosts\n"
        ));
    }
    let is_across = headers.get(FETCH_SITE).is_some_and(|site| site == "cross-site" || site == "same-site");
    (is_across && path.starts_with("/api/")).then(|| "the console answers no page of another site\n".to_owned())
}

/// Whether a Host header names this machine or one of the names: an address can be nobody else's, and what `localhost` means no
/// stranger decides.
fn is_host(header: &str, hosts: &[String]) -> bool {
    let name = match header.strip_prefix('[') {
        Some(rest) => {
            let Some((address, port)) = rest.split_once(']') else { return false };
            return (port.is_empty() || port.strip_prefix(':').is_some_and(is_port))
                && address.parse::<Ipv6Addr>().is_ok();
        }
        None => match header.rsplit_once(':') {
            Some((name, port)) if is_port(port) => name,
            Some(_) => return false,
            None => header,
        },
    };
    let is_named = |host: &String| host.eq_ignore_ascii_case(name);
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok() || hosts.iter().any(is_named)
}

fn is_port(text: &str) -> bool {
    text.parse::<u16>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_no_stranger_can_point_here_are_answered() {
        let hosts = ["weir.example.org".to_owned()];
        for good in [
            "localhost",
            "localhost:9465",
            "LOCALHOST:1",
            "127.0.0.1:9465",
            "10.0.0.7",
            "[::1]:9465",
            "[::1]",
            "weir.example.org",
            "Weir.example.org:80",
        ] {
            assert!(is_host(good, &hosts), "{good}");
        }
        for bad in [
            "",
            "evil.example",
            "evil.example:9465",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "weir.example.org.evil",
            "[::1",
            "[evil]:1",
            "[::1]evil",
            "localhost:port",
            "::1",
        ] {
            assert!(!is_host(bad, &hosts), "{bad}");
        }
    }

    #[test]
    fn a_page_of_another_site_gets_nothing_of_the_api() {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, "localhost:9465".parse().unwrap());
        headers.insert(FETCH_SITE, "cross-site".parse().unwrap());
        assert!(refusal(&headers, "/api/state", &[]).is_some());
        assert!(refusal(&headers, "/", &[]).is_none(), "a link to the page is no harm");
        headers.insert(FETCH_SITE, "same-origin".parse().unwrap());
        assert!(refusal(&headers, "/api/state", &[]).is_none());
    }
}
