//! `weir config reference`: every key there is, as docs/configuration.md has it.

use std::fmt::Write as _;
use std::process::ExitCode;

use anyhow::Context as _;

use super::print;
use crate::config::{Entry, Kinds, Section, reference};

/// Tells about configuration itself
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Prints every key: its type, default and meaning, and what is refused; no file or service is asked
    #[command(after_help = super::examples!(
        "weir config reference | less",
        "weir config reference --json | jq '.[] | select(.path == \"store\").keys[].name'",
    ))]
    Reference {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// What the document begins with.
const PREFACE: &str = "\
# Configuration

Every key, as `weir config reference` prints it: the types are the code's, the texts those of
[`config/weir.toml`](../config/weir.toml), what is refused is what the checks say when they are tried with the least, the most and the
emptiest. `weir check` prints what is in force, and everything that is wrong at once.

A later layer wins: the file (or those named by `--config`, in order), then variables such as
`WEIR__POOLS__STORAGE__MAX_POLL_RECORDS=200`, then `--set pools.storage.max_poll_records=200`. In a variable `_` stands for `-` too. A key
that is not known is refused in every layer, with the nearest known one; so is a value of another type, with what was expected.
`NAME` is a name of your choice. Keys with `_file` name a file that has the secret.
";

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let What::Reference { json } = args.what;
    let sections = reference(Kinds::shipped());
    let text = match json {
        true => serde_json::to_string_pretty(&sections).context("write the reference as JSON")?,
        false => markdown(&sections)?,
    };
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn markdown(sections: &[Section]) -> Result<String, std::fmt::Error> {
    let mut text = PREFACE.to_owned();
    for section in sections.iter().filter(|section| !section.keys.is_empty()) {
        let heading = if section.path.is_empty() { "At the top".to_owned() } else { format!("`{}`", section.path) };
        writeln!(text, "\n## {heading}\n")?;
        if !section.meaning.is_empty() {
            writeln!(text, "{}\n", section.meaning)?;
        }
        text.push_str("| key | value | default | what it is |\n|---|---|---|---|\n");
        for key in &section.keys {
            writeln!(text, "| `{}` | {} | {} | {} |", key.name, cell(&key.r#type), default(key), cell(&key.meaning))?;
        }
        let mut refused: Vec<&String> = Vec::new();
        for problem in section.keys.iter().flat_map(|key| &key.errors) {
            if !refused.contains(&problem) {
                refused.push(problem);
            }
        }
        if !refused.is_empty() {
            text.push_str("\nRefused:\n\n");
        }
        for problem in refused {
            writeln!(text, "- {problem}")?;
        }
    }
    Ok(text.trim_end().to_owned())
}

fn default(key: &Entry) -> String {
    match (&key.default, &key.example) {
        (Some(default), _) => format!("`{}`", cell(default)),
        (None, _) if key.required => "must be given".to_owned(),
        (None, Some(example)) => format!("none; such as `{}`", cell(example)),
        (None, None) => "none".to_owned(),
    }
}

/// Text that stays in its cell.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}
