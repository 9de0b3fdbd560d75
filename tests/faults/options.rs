//! What the command line asks for.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};

use super::setting::Setting;

/// What to run.
#[derive(Debug, Default)]
pub(crate) struct Options {
    /// Rows by number; none: what the mode has.
    pub(crate) only: Vec<u32>,
    /// How the workers are members of their group; none: what the mode has.
    pub(crate) settings: Vec<Setting>,
    pub(crate) seed: Option<u64>,
    pub(crate) loops: u32,
    pub(crate) json: Option<PathBuf>,
    /// Results of `--json` to show as one table, instead of running anything.
    pub(crate) table: Vec<PathBuf>,
    pub(crate) list: bool,
    /// All rows at their full length, not the short loop.
    pub(crate) all: bool,
    /// Whether the deliberate bugs are found.
    pub(crate) selftest: bool,
    /// The runner of other tests filtered by a name that is not ours.
    pub(crate) filtered_out: bool,
}

impl Options {
    pub(crate) fn parse(mut args: impl Iterator<Item = String>) -> Result<Self> {
        let mut options = Self { loops: 1, ..Self::default() };
        while let Some(arg) = args.next() {
            let mut value = |name: &str| args.next().with_context(|| format!("{name} needs a value"));
            match arg.as_str() {
                "--all" => options.all = true,
                "--selftest" => options.selftest = true,
                "--list" => options.list = true,
                "--only" => {
                    for number in value("--only")?.split(',') {
                        options.only.push(number.trim().parse().with_context(|| format!("--only: {number:?}"))?);
                    }
                }
                "--under" => options.settings.extend(Setting::parse(&value("--under")?)?),
                "--seed" => options.seed = Some(value("--seed")?.parse().context("--seed is a number")?),
                "--loops" => options.loops = value("--loops")?.parse().context("--loops is a number")?,
                "--json" => options.json = Some(value("--json")?.into()),
                "--table" => options.table.extend(value("--table")?.split(',').map(PathBuf::from)),
                // What `cargo test` passes on to every test program.
                "--nocapture" | "--no-capture" | "--include-ignored" | "--quiet" | "-q" => {}
                "--test-threads" | "--format" | "--color" | "--skip" => drop(value(&arg)?),
                filter if !filter.starts_with('-') => options.filtered_out |= !"faults".contains(filter),
                other => {
                    bail!(
                        "unknown argument {other}; known: --all --selftest --only N,M --under P --seed S --loops N \
                         --json FILE --table FILE,FILE --list"
                    )
                }
            }
        }
        Ok(options)
    }
}
