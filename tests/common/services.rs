//! Where the real services are that tests run against.

use std::path::Path;

/// The address that `name` (`KAFKA_BROKERS`, `POSTGRES_URL`, `REDIS_URL`) has in the environment, else in
/// `.services/env`, which `make up` writes.
///
/// # Panics
/// When it has none: a promise that is not tested is not kept, so no test is skipped.
pub(crate) fn env(name: &str) -> String {
    if let Ok(value) = std::env::var(name) {
        return value;
    }
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(".services/env");
    let lines = std::fs::read_to_string(&file).unwrap_or_default();
    lines
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
        .unwrap_or_else(|| panic!("{name} is not set and not in {}: run `make up`", file.display()))
        .to_owned()
}
