//! Where the real services are: from the environment, or from the file that `make up` leaves.

/// The value of a service's variable, such as `REDIS_URL`.
pub(crate) fn env(name: &str) -> String {
    if let Ok(value) = std::env::var(name) {
        return value;
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/.services/env");
    let file = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}: run `make up` first"));
    file.lines()
        .filter_map(|line| line.strip_prefix("export ").unwrap_or(line).split_once('='))
        .find(|(key, _)| *key == name)
        .map(|(_, value)| value.trim_matches(['"', '\'']).to_owned())
        .unwrap_or_else(|| panic!("{path} has no {name}"))
}
