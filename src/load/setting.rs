//! What runs a run, and where. What the machine does not tell is left out.

use std::collections::BTreeMap;

use super::result::Setting;
use crate::config::Config;

/// Asks the machine and the services.
pub(super) async fn look(config: &Config, partitions: usize, workers: usize) -> Setting {
    let mut versions = BTreeMap::from([("librdkafka".to_owned(), crate::kafka::client_version())]);
    if let Some(store) = &config.store
        && let Ok((name, version)) = crate::verify::database_version(store, config.startup_timeout).await
    {
        versions.insert(name.to_owned(), version);
    }
    if let Some(redis) = &config.redis
        && let Some(version) = crate::once::version(redis).await
    {
        versions.insert("Redis".to_owned(), version);
    }
    let read = |file: &str| std::fs::read_to_string(file).unwrap_or_default().trim().to_owned();
    let field = |file: &str, name: &str| {
        let text = read(file);
        let line = text.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let kernel = read("/proc/sys/kernel/osrelease");
    let memory_kib = field("/proc/meminfo", "MemTotal")
        .and_then(|total| total.split_whitespace().next()?.parse::<u64>().ok())
        .unwrap_or(0);
    Setting {
        weir: env!("CARGO_PKG_VERSION").to_owned(),
        versions,
        host: read("/proc/sys/kernel/hostname"),
        system: format!("{} {kernel} {}", std::env::consts::OS, std::env::consts::ARCH),
        processor: field("/proc/cpuinfo", "model name").unwrap_or_default(),
        cores: std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
        memory_bytes: memory_kib * 1024,
        partitions,
        workers,
    }
}
