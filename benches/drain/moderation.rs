//! What moderation costs beside the rest: the same backlog persisted and analyzed, with and without its local rules.

use std::fmt::Write as _;

use anyhow::{Context as _, Result};

use crate::contest::Contest;
use crate::drain::Workload;
use crate::side::Side;
use crate::{named, weir};

const WORDS: usize = 10_000;
const PATTERNS: usize = 100;

/// One event in a hundred is flagged: by its number, which stands in its text.
pub(crate) fn contest() -> Result<Contest> {
    let mut sides: Vec<(String, Side)> = weir(true).collect();
    let (_, Side::Weir { binary, .. }) = &sides[0] else { anyhow::bail!("weir's binary comes first") };
    let binary = binary.clone();
    sides.push(named("with moderation", Side::Moderated { binary, lines: lines()? }));
    Ok(Contest { title: "persist and analyze", workload: Workload::PersistAndAnalyze, sides, limits: false })
}

/// The pipeline's lines of configuration, and its lists in files of their own.
fn lines() -> Result<String> {
    let mut rng = fastrand::Rng::with_seed(7);
    let mut word = || (0..rng.usize(4..=10)).map(|_| rng.lowercase()).collect::<String>();
    let words: Vec<String> = (0..WORDS).map(|_| word()).collect();
    let mut patterns = vec!["message \\d*77:".to_owned()];
    for n in patterns.len()..PATTERNS {
        patterns.push(match n % 4 {
            0 => format!("https?://\\S*{}\\.(com|net|example)", word()),
            1 => format!("\\b{}\\s+{}\\b", word(), word()),
            2 => format!("(\\d{{4}}[ -]?){{3}}{n:04}"),
            _ => format!("{}+[!1i]+{}", word(), word()),
        });
    }
    let mut lines = String::from("[[pools.storage.pipelines]]\nname = \"moderation\"\nhandler = \"moderate\"\n");
    for (kind, list) in [("words", words), ("patterns", patterns)] {
        let file = std::env::temp_dir().join(format!("weir-bench-{kind}.txt"));
        std::fs::write(&file, list.join("\n")).with_context(|| format!("write {}", file.display()))?;
        let file = file.display();
        write!(lines, "[[pools.storage.pipelines.moderate.{kind}]]\nfile = \"{file}\"\nverdict = \"flag\"\n")?;
    }
    Ok(lines)
}
