//! What can be wrong with `[traces]`.

use crate::config::Traces;

pub(super) fn check(traces: &Traces, problems: &mut Vec<String>) {
    if let Some(endpoint) = &traces.endpoint {
        check_endpoint(endpoint, problems);
    }
    if !(0.0..=1.0).contains(&traces.sample_ratio) {
        problems.push("`traces.sample_ratio` must be from 0 to 1".to_owned());
    }
    if traces.service_name.as_deref().is_some_and(str::is_empty) {
        problems.push("`traces.service_name` is empty: leave it out".to_owned());
    }
}

/// Nothing is quoted: an address may hold a password where none belongs.
fn check_endpoint(endpoint: &str, problems: &mut Vec<String>) {
    let problem = match url::Url::parse(endpoint) {
        Err(error) => format!("is no address: {error}"),
        Ok(url) if !["http", "https"].contains(&url.scheme()) || !url.has_host() => {
            "must be an address such as http://collector:4318: OTLP over HTTP".to_owned()
        }
        Ok(url) if !url.username().is_empty() || url.password().is_some() => {
            "has a user or a password in it: give a header by `traces.headers_file` in its place".to_owned()
        }
        Ok(url) if url.query().is_some() || url.fragment().is_some() => "has a '?' or a '#': leave it out".to_owned(),
        Ok(_) => return,
    };
    problems.push(format!("`traces.endpoint` {problem}"));
}
