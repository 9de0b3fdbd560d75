//! The module map of `src/lib.rs` holds: dependencies point one way, and each driver has its home.

use std::fs;
use std::path::{Path, PathBuf};

/// The modules from the command line down to what depends on nothing; a module may use those after it.
const LAYERS: [&[&str]; 10] = [
    &["cli"],
    &["console", "demo", "load"],
    &["pool"],
    &["dead_letter", "export", "status_events", "verify", "why"],
    &["pipeline", "source"],
    &["handler"],
    &["rules"],
    &["once", "store"],
    &["event", "payload", "publish", "admin"],
    &["breaker", "config", "kafka", "metrics", "sabotage", "shown", "telemetry", "terminal"],
];

/// Crates and the modules that may use them.
const HOMES: [(&str, &[&str]); 8] = [
    (
        "rdkafka",
        &["source", "publish", "dead_letter", "status_events", "verify", "event", "pool", "config", "kafka", "demo"],
    ),
    ("sqlx", &["store", "verify"]),
    ("redis", &["once"]),
    ("opentelemetry", &["telemetry"]),
    ("opentelemetry_sdk", &["telemetry"]),
    ("opentelemetry_otlp", &["telemetry"]),
    ("opentelemetry_http", &["telemetry"]),
    ("hyper_util", &["handler", "telemetry"]),
];

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Each file's module and its code without tests and comments.
fn modules() -> Vec<(String, PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    files
        .into_iter()
        .map(|path| {
            let below = path.strip_prefix(&root).unwrap();
            let first = below.iter().next().unwrap().to_string_lossy();
            let text = fs::read_to_string(&path).unwrap();
            let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
            let code: Vec<&str> = code.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
            (first.trim_end_matches(".rs").to_owned(), path.clone(), code.join("\n"))
        })
        .filter(|(module, ..)| module != "lib" && module != "main")
        .collect()
}

fn layer_of(module: &str) -> usize {
    let layer = LAYERS.iter().position(|layer| layer.contains(&module));
    layer.unwrap_or_else(|| panic!("module {module} is not in the map of tests/structure.rs"))
}

#[test]
fn dependencies_point_one_way() {
    for (module, path, code) in modules() {
        for (at, _) in code.match_indices("crate::") {
            let used: String = code[at + 7..].chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect();
            if used.is_empty() || used == module || !LAYERS.iter().any(|layer| layer.contains(&used.as_str())) {
                continue;
            }
            assert!(layer_of(&used) >= layer_of(&module), "{} uses crate::{used}, which lies above it", path.display());
        }
    }
}

/// What a worker logs as a warning or an error: how the text of each such line begins, up to its first value.
fn alarms(code: &str) -> Vec<String> {
    let calls = ["tracing::warn!(", "tracing::error!("].iter().flat_map(|call| code.match_indices(call));
    let texts = calls.filter_map(|(at, _)| {
        let call = &code[at..at + code[at..].find(");").unwrap()];
        let text = call[call.find('"')? + 1..].split('"').next()?;
        let text = text.split('\\').map(str::trim_start).collect::<String>();
        Some(text.split('{').next()?.trim().chars().take(40).collect::<String>())
    });
    texts.filter(|text| text.len() > 12).collect()
}

#[test]
fn the_runbook_has_every_warning_and_error_of_a_running_worker() {
    let runbook = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/runbook.md")).unwrap();
    let mut count = 0;
    for (module, path, code) in modules() {
        if ["demo", "publish", "sabotage", "cli"].contains(&module.as_str()) {
            continue;
        }
        for alarm in alarms(&code) {
            assert!(runbook.contains(&alarm), "docs/runbook.md lacks what {} logs: {alarm:?}", path.display());
            count += 1;
        }
    }
    assert!(count > 20, "{count} alarms found: has the way of logging changed?");
}

#[test]
fn each_driver_has_its_home() {
    for (module, path, code) in modules() {
        for (driver, homes) in HOMES {
            let uses = code.match_indices(&format!("{driver}::")).any(|(at, _)| {
                let before = code[..at].chars().next_back();
                !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':')
            });
            assert!(!uses || homes.contains(&module.as_str()), "{} uses {driver}", path.display());
        }
    }
}

/// What the system or a library has no safe form of, each alone in its file: librdkafka's C interface, and a socket that its
/// owner does not give away. The binary's own file, which is no module, names the allocator's settings.
const WITH_UNSAFE_CODE: [&str; 2] = ["source/native.rs", "store/socket.rs"];

#[test]
fn unsafe_code_has_small_files_of_its_own() {
    let mut with_unsafe = Vec::new();
    for (_, path, code) in modules() {
        if code.contains("unsafe {") || code.contains("#[unsafe(") {
            assert!(code.lines().count() < 200, "{} is not small", path.display());
            with_unsafe.push(path);
        }
    }
    with_unsafe.sort();
    let is_home = |(path, home): (&PathBuf, &str)| path.ends_with(home);
    assert!(
        with_unsafe.len() == WITH_UNSAFE_CODE.len() && with_unsafe.iter().zip(WITH_UNSAFE_CODE).all(is_home),
        "{with_unsafe:?}"
    );
}

#[test]
fn every_file_is_a_module_of_the_one_above_it() {
    for (_, path, _) in modules() {
        let (folder, name) = (path.parent().unwrap(), path.file_stem().unwrap().to_string_lossy());
        let beside = folder.with_extension("rs");
        let above = if beside.exists() { beside } else { folder.join("lib.rs") };
        let text = fs::read_to_string(&above).unwrap_or_else(|error| panic!("{}: {error}", above.display()));
        let declares = |line: &str| line.trim_start().ends_with(&format!("mod {name};"));
        assert!(text.lines().any(declares), "{} has no line `mod {name};`", above.display());
    }
}
