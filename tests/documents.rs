//! Documents that weir writes of itself are as it writes them now. `make docs` brings them up to date.

use std::path::Path;
use std::process::{Command, Stdio};

/// Set, the documents are written in place of being compared.
const WRITE: &str = "WEIR_WRITE_DOCS";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// What a command prints in the project's folder, whatever the environment configures.
fn printed(args: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().to_uppercase().starts_with("WEIR__"))
    {
        command.env_remove(name);
    }
    let done = command.current_dir(root()).args(args).stdin(Stdio::null()).output().unwrap();
    assert!(done.status.success(), "weir {}: {}", args.join(" "), String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap()
}

/// Holds a document to what it should be.
fn hold(name: &str, expected: &str) {
    let path = root().join("docs").join(name);
    if std::env::var_os(WRITE).is_some() {
        std::fs::write(&path, expected).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap();
    let differing = found.lines().zip(expected.lines()).find(|(found, expected)| found != expected);
    assert!(found == expected, "docs/{name} is not as weir writes it: run make docs; first {differing:?}");
}

#[test]
fn the_reference_of_all_keys_is_that_of_the_code() {
    hold("configuration.md", &printed(&["config", "reference"]));
}

#[test]
fn the_capacities_are_those_that_the_command_tells() {
    let document = std::fs::read_to_string(root().join("docs/capacity.md")).unwrap();
    let (mut expected, mut rest, mut count) = (String::new(), document.as_str(), 0);
    while let Some((before, block)) = rest.split_once("```text\n$ weir ") {
        let (line, block) = block.split_once('\n').unwrap();
        let (_, after) = block.split_once("```").expect("a block ends");
        let args: Vec<&str> = line.split(' ').collect();
        expected += &format!("{before}```text\n$ weir {line}\n{}```", printed(&args));
        (rest, count) = (after, count + 1);
    }
    assert!(count >= 3, "{count} commands found in docs/capacity.md");
    hold("capacity.md", &(expected + rest));
}
