//! Configurations that nobody thought of: each loads, or is refused in words that hold no secret. `FUZZ_CASES` asks for
//! more of them.

use std::path::PathBuf;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::{Config as Runs, RngAlgorithm, TestRng, TestRunner};

use super::{Budget, Config, Error, Kinds};

const PASSWORD: &str = "hUnTeR2";

/// A change to a text's lines.
#[derive(Debug, Clone)]
enum Edit {
    Drop(Index),
    Twice(Index, Index),
    Value(Index, String),
    Key(Index, Index),
    Insert(Index, String),
}

fn value() -> impl Strategy<Value = String> {
    let odd = select(vec![
        "-1",
        "0",
        "1",
        "\"\"",
        "true",
        "[]",
        "{}",
        "[\"\"]",
        "1e308",
        "nan",
        "9223372036854775807",
        "\"-1s\"",
        "\"1y\"",
        "\"0s\"",
        "\"18446744073709551615s\"",
        "\"999999999999 GiB\"",
        "\"../x\"",
        "\"postgres://\"",
        "\"redis://u:hUnTeR2@\"",
        "\"postgres://weir:hUnTeR2@[::1/x\"",
        "1979-05-27",
        "\"\\u0000\"",
        "[[[1]]]",
    ]);
    prop_oneof![4 => odd.prop_map(str::to_owned), 1 => any::<i64>().prop_map(|n| n.to_string()), 1 => any::<String>()]
}

fn edit() -> impl Strategy<Value = Edit> {
    prop_oneof![
        any::<Index>().prop_map(Edit::Drop),
        (any::<Index>(), any::<Index>()).prop_map(|(from, to)| Edit::Twice(from, to)),
        (any::<Index>(), value()).prop_map(|(at, value)| Edit::Value(at, value)),
        (any::<Index>(), any::<Index>()).prop_map(|(at, letter)| Edit::Key(at, letter)),
        (any::<Index>(), any::<String>()).prop_map(|(at, line)| Edit::Insert(at, line)),
    ]
}

fn edited(text: &str, edits: &[Edit]) -> String {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    for edit in edits {
        let at = |index: &Index| index.index(lines.len());
        match edit {
            Edit::Drop(line) => drop(lines.remove(at(line))),
            Edit::Twice(from, to) => {
                let (line, to) = (lines[at(from)].clone(), at(to));
                lines.insert(to, line);
            }
            Edit::Value(line, value) => {
                let line = at(line);
                if let Some((key, _)) = lines[line].split_once('=') {
                    lines[line] = format!("{key}= {value}");
                }
            }
            Edit::Key(line, letter) => {
                let line = at(line);
                // Of the value, a letter less may make a user's name of a password.
                let key = lines[line].split('=').next().unwrap_or_default().chars().count();
                if key > 0 {
                    let gone = letter.index(key);
                    lines[line] = lines[line]
                        .char_indices()
                        .enumerate()
                        .filter(|(at, _)| *at != gone)
                        .map(|(_, (_, c))| c)
                        .collect();
                }
            }
            Edit::Insert(line, new) => {
                let line = at(line);
                lines.insert(line, new.clone());
            }
        }
    }
    lines.join("\n")
}

/// The samples without their comments, a password in each address.
fn samples() -> Vec<String> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("config");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let texts = files.filter(|path| path.extension().is_some_and(|extension| extension == "toml")).map(|path| {
        let text = std::fs::read_to_string(path).unwrap();
        let lines = text
            .lines()
            .map(|line| line.trim_start_matches("# "))
            .filter(|line| line.starts_with('[') || line.contains(" = "));
        lines.collect::<Vec<_>>().join("\n").replace("weir:weir@", &format!("weir:{PASSWORD}@"))
    });
    texts.collect()
}

#[test]
fn every_configuration_loads_or_is_refused_in_words_without_its_secrets() {
    let cases = std::env::var("FUZZ_CASES").map_or(2_000, |cases| cases.parse().unwrap());
    let runs = Runs { cases, failure_persistence: None, ..Runs::default() };
    let folder = std::env::temp_dir().join(format!("weir-config-fuzz-{}", uuid::Uuid::new_v4().simple()));
    std::fs::create_dir(&folder).unwrap();
    let file = folder.join("weir.toml");
    let samples = samples();
    assert!(samples.iter().any(|sample| sample.contains(PASSWORD)));
    let found = TestRunner::new_with_rng(runs, TestRng::deterministic_rng(RngAlgorithm::ChaCha)).run(
        &(select(samples), vec(edit(), 1..5)),
        |(sample, edits)| {
            std::fs::write(&file, edited(&sample, &edits)).unwrap();
            match Config::load_with(Kinds::shipped(), std::slice::from_ref(&file), std::iter::empty(), &[]) {
                Ok(config) => {
                    for pool in config.pools.values() {
                        prop_assert!(!Budget::of(&config.kafka, pool).to_string().is_empty());
                    }
                    let shown = format!("{config:?}\n{}", toml::to_string(&config).unwrap());
                    prop_assert!(!shown.contains(PASSWORD), "{}", shown);
                }
                Err(error) => {
                    let said = error.to_string();
                    prop_assert!(!said.contains(PASSWORD), "{}", said);
                    if let Error::Invalid(problems) = error {
                        prop_assert!(problems.iter().all(|problem| !problem.trim().is_empty()), "{:?}", problems);
                    }
                }
            }
            Ok(())
        },
    );
    std::fs::remove_dir_all(&folder).unwrap();
    found.unwrap_or_else(|found| panic!("{found}"));
}
