//! Secrets that lie in files: `…_file` names the file in place of the secret itself.

use std::path::Path;

use super::schema::Shape;
use super::{Config, Headers, Kinds, Secret, Settings};

/// The options of librdkafka that can lie in files.
const OPTIONS: [&str; 2] = ["sasl_password", "ssl_key_password"];

/// Reads the secrets that configuration names files for.
pub(super) fn read_secrets(config: &mut Config, kinds: Kinds<'_>, problems: &mut Vec<String>) {
    if let Some(store) = &mut config.store {
        read_url("store", &mut store.url, store.url_file.as_deref(), problems);
    }
    if let Some(redis) = &mut config.redis {
        read_url("redis", &mut redis.url, redis.url_file.as_deref(), problems);
    }
    if let Some(file) = config.traces.headers_file.clone()
        && let Some(content) = read("traces.headers", &file, problems)
    {
        match Headers::read(&content) {
            Ok(headers) => config.traces.headers = headers,
            Err(line) => problems.push(format!(
                "`traces.headers_file`: {}: line {line} is no header: write name: value",
                file.display()
            )),
        }
    }
    for (name, pool) in &mut config.pools {
        for (index, pipeline) in pool.pipelines.iter_mut().enumerate() {
            let Some(kind) = kinds.named(&pipeline.handler) else { continue };
            for key in kind.keys.iter().filter(|key| key.shape == Shape::Secret) {
                let file = format!("{}_file", key.name);
                if kind.has(&file) {
                    let path = format!("pools.{name}.pipelines[{index}].{}", key.name);
                    read_setting(&path, &mut pipeline.settings, (key.name, &file), problems);
                }
            }
        }
    }
    let options = &mut config.kafka.options;
    for name in OPTIONS {
        let Some(file) = options.remove(&format!("{name}_file")) else { continue };
        if options.contains_key(name) {
            problems.push(both(&format!("kafka.options.{name}")));
        } else if let Some(content) = read(&format!("kafka.options.{name}"), Path::new(&file), problems) {
            options.insert(name.to_owned(), content);
        }
    }
}

fn read_url(section: &str, url: &mut Secret, file: Option<&Path>, problems: &mut Vec<String>) {
    let path = format!("{section}.url");
    match file {
        Some(_) if !url.is_empty() => problems.push(both(&path)),
        Some(file) => {
            if let Some(content) = read(&path, file, problems) {
                *url = Secret::new(content);
            }
        }
        None if url.is_empty() => problems.push(format!("`{path}` is not set: give it, or `{path}_file`")),
        None => {}
    }
}

fn read_setting(path: &str, settings: &mut Settings, (key, file_key): (&str, &str), problems: &mut Vec<String>) {
    let Some(file) = settings.text(file_key) else { return };
    if settings.has(key) {
        problems.push(both(path));
    } else if let Some(content) = read(path, Path::new(file), problems) {
        settings.set_text(key, content);
    }
}

fn both(path: &str) -> String {
    format!("`{path}` and `{path}_file` are both set: give one")
}

fn read(path: &str, file: &Path, problems: &mut Vec<String>) -> Option<String> {
    let shown = file.display();
    match std::fs::read_to_string(file) {
        Ok(content) if !content.trim().is_empty() => return Some(content.trim().to_owned()),
        Ok(_) => problems.push(format!("`{path}_file`: {shown} is empty")),
        Err(error) => problems.push(format!("`{path}_file`: read {shown}: {error}")),
    }
    None
}
