//! Word lists and patterns, read from files and read again when those change.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::SystemTime;

use regex::{Regex, RegexBuilder, RegexSet, RegexSetBuilder};

use super::fold::fold_into;
use super::verdict::{Judgement, Verdict};
use super::words::{Gathered, Words};
use crate::config;
use crate::metrics::PoolMetrics;

/// The largest list, in bytes.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// The most words of all lists.
const WORDS_MAX: usize = 1_000_000;
/// The most patterns of a list.
const PATTERNS_MAX: usize = 10_000;
/// The most memory of a list's compiled patterns, in bytes, and of what matching them keeps.
const PATTERN_BYTES_MAX: usize = 64 << 20;

/// What was found in a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) verdict: Verdict,
    pub(super) list: usize,
    pub(super) line: usize,
}

/// The patterns of a list.
#[derive(Debug)]
struct Patterns {
    verdict: Verdict,
    file: String,
    plain: Set,
    /// Those that ask for a word's edge. What is not ASCII takes the fast automaton away from such, and what a set of them is left
    /// with costs as much as all of them at every character; one by one, each can skip to where its letters are.
    edged: Set,
    edged_alone: Vec<Regex>,
}

/// Patterns that are asked in one go, and in which line each stands.
#[derive(Debug)]
struct Set {
    set: RegexSet,
    lines: Vec<usize>,
}

/// All lists, as they were read at a time.
#[derive(Debug, Default)]
pub(super) struct Compiled {
    words: Option<Words>,
    /// The names of the files of words.
    files: Vec<String>,
    patterns: Vec<Patterns>,
}

impl Compiled {
    /// Reads and compiles the files. Blocks.
    fn read(config: &config::Moderate) -> Result<Self, String> {
        let mut gathered = Gathered::default();
        for (at, list) in config.words.iter().enumerate() {
            let text = text_of(&list.file)?;
            let added = gathered.add(at, &text, list.verdict.into(), list.r#match);
            added.map_err(|why| format!("{}: {why}", list.file.display()))?;
        }
        if gathered.len() > WORDS_MAX {
            return Err(format!("{} words, and {WORDS_MAX} are the most", gathered.len()));
        }
        // Both take their time, and a worker's start waits for them.
        let (words, patterns) = std::thread::scope(|scope| {
            let words = scope.spawn(|| gathered.build());
            let patterns = config.patterns.iter().map(Patterns::read).collect::<Result<Vec<_>, _>>();
            (words.join(), patterns)
        });
        let words = words.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        let files = config.words.iter().map(|list| name_of(&list.file)).collect();
        Ok(Self { words, files, patterns: patterns? })
    }

    /// The gravest that they say of a text. The buffer is for its folded form.
    pub(super) fn judge(&self, text: &str, folded: &mut String) -> Option<Judgement> {
        if self.words.is_none() && self.patterns.is_empty() {
            return None;
        }
        fold_into(text, folded);
        let found = self.words.as_ref().and_then(|words| words.judge(folded));
        let mut gravest = found.map(|found| self.told(found));
        for patterns in &self.patterns {
            if gravest.as_ref().is_none_or(|gravest| gravest.verdict < patterns.verdict)
                && let Some(judgement) = patterns.judge(folded)
            {
                gravest = Some(judgement);
            }
        }
        gravest
    }

    fn told(&self, found: Found) -> Judgement {
        let file = self.files.get(found.list).map_or("", String::as_str);
        Judgement { verdict: found.verdict, reason: format!("words {file}:{}", found.line) }
    }
}

impl Patterns {
    fn read(list: &config::PatternList) -> Result<Self, String> {
        let text = text_of(&list.file)?;
        let is_pattern = |line: &(usize, &str)| !line.1.trim().is_empty() && !line.1.starts_with('#');
        let numbered: Vec<(usize, &str)> = text.lines().enumerate().filter(is_pattern).collect();
        let file = list.file.display();
        if numbered.len() > PATTERNS_MAX {
            return Err(format!("{file}: {} patterns, and {PATTERNS_MAX} are the most", numbered.len()));
        }
        let has_edge = |(_, pattern): &(usize, &str)| pattern.contains("\\b") || pattern.contains("\\B");
        let (edged, plain): (Vec<_>, Vec<_>) = numbered.into_iter().partition(has_edge);
        let wrong = |error: regex::Error| match at_fault(edged.iter().chain(&plain)) {
            Some((line, why)) => format!("{file}: line {line}: {why}"),
            None => format!("{file}: {error}"),
        };
        let alone =
            |(_, pattern): &(usize, &str)| RegexBuilder::new(pattern).case_insensitive(has_case(pattern)).build();
        Ok(Self {
            verdict: list.verdict.into(),
            file: name_of(&list.file),
            edged_alone: edged.iter().map(alone).collect::<Result<_, _>>().map_err(wrong)?,
            plain: Set::of(&plain).map_err(wrong)?,
            edged: Set::of(&edged).map_err(wrong)?,
        })
    }

    fn judge(&self, folded: &str) -> Option<Judgement> {
        let edged = || match folded.is_ascii() {
            true => self.edged.line(folded),
            false => {
                self.edged_alone.iter().position(|pattern| pattern.is_match(folded)).map(|at| self.edged.lines[at])
            }
        };
        let line = self.plain.line(folded).or_else(edged)?;
        Some(Judgement { verdict: self.verdict, reason: format!("pattern {}:{line}", self.file) })
    }
}

impl Set {
    fn of(numbered: &[(usize, &str)]) -> Result<Self, regex::Error> {
        let set = RegexSetBuilder::new(numbered.iter().map(|(_, pattern)| pattern))
            .case_insensitive(numbered.iter().any(|(_, pattern)| has_case(pattern)))
            .size_limit(PATTERN_BYTES_MAX)
            .dfa_size_limit(PATTERN_BYTES_MAX)
            .build()?;
        Ok(Self { set, lines: numbered.iter().map(|(at, _)| at + 1).collect() })
    }

    /// The first line that matches.
    fn line(&self, folded: &str) -> Option<usize> {
        // Which one it was is asked only of the few texts that any of them matches.
        if self.lines.is_empty() || !self.set.is_match(folded) {
            return None;
        }
        self.set.matches(folded).iter().next().and_then(|at| self.lines.get(at)).copied()
    }
}

/// The line of the first pattern that is none, and why, which a set's error does not tell.
fn at_fault<'a>(numbered: impl Iterator<Item = &'a (usize, &'a str)>) -> Option<(usize, String)> {
    let wrong = |(at, pattern): &(usize, &str)| {
        let why = Regex::new(pattern).err()?.to_string();
        Some((at + 1, why.lines().last().unwrap_or_default().trim().to_owned()))
    };
    numbered.filter_map(wrong).min()
}

/// Whether a pattern could mean another letter than those of folded texts. Of one that cannot, the other case need not be
/// looked for, which makes some sets ten times as fast: `k` and `s` have other cases far beyond ASCII.
fn has_case(pattern: &str) -> bool {
    let mut chars = pattern.chars().peekable();
    let mut before = None;
    while let Some(char) = chars.next() {
        let first = before.replace(char);
        let is_plain = match char {
            // A range, perhaps, from below the capital letters to behind them.
            '-' => {
                !first.is_some_and(|first| first < 'A' && chars.peek().is_some_and(|last| *last > 'Z' && *last != ']'))
            }
            '\\' => chars.next().is_some_and(|escaped| "sSdDwWbB".contains(escaped) || escaped.is_ascii_punctuation()),
            // Flags and names.
            '(' => chars.peek() != Some(&'?'),
            // Classes by name.
            '[' => chars.peek() != Some(&':'),
            char => char.is_ascii() && !char.is_ascii_uppercase(),
        };
        if !is_plain {
            return true;
        }
    }
    false
}

/// A file's name without its folders, for reasons.
fn name_of(file: &Path) -> String {
    file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

fn text_of(file: &Path) -> Result<String, String> {
    let wrong = |error: &dyn std::fmt::Display| format!("{}: {error}", file.display());
    let bytes = std::fs::metadata(file).map_err(|error| wrong(&error))?.len();
    if bytes > FILE_BYTES_MAX {
        return Err(wrong(&format!("it has {bytes} bytes, and {FILE_BYTES_MAX} are the most")));
    }
    let read = std::fs::read(file).map_err(|error| wrong(&error))?;
    String::from_utf8(read).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let line = error.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count() + 1;
        wrong(&format!("line {line}: it is not UTF-8"))
    })
}

/// When each file was changed and how long it is.
type Stamps = Vec<Option<(SystemTime, u64)>>;

/// The lists in use. Whoever judges takes them as they are then.
#[derive(Debug)]
pub(super) struct Lists {
    config: config::Moderate,
    compiled: RwLock<Arc<Compiled>>,
    seen: Mutex<Stamps>,
}

impl Lists {
    /// Reads the lists. Blocks.
    pub(super) fn open(config: &config::Moderate) -> Result<Self, String> {
        let seen = stamps(config);
        let compiled = RwLock::new(Arc::new(Compiled::read(config)?));
        Ok(Self { config: config.clone(), compiled, seen: Mutex::new(seen) })
    }

    pub(super) fn now(&self) -> Arc<Compiled> {
        Arc::clone(&self.compiled.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Looks at the files again and again. Lists that cannot be used stay as they were, which is said and counted.
    pub(super) async fn watch(self: Arc<Self>, pool: Arc<str>, pipeline: String, metrics: PoolMetrics) {
        let mut told: Option<String> = None;
        loop {
            tokio::time::sleep(self.config.reload).await;
            let lists = Arc::clone(&self);
            let Ok(Some(read)) = tokio::task::spawn_blocking(move || lists.read_changed()).await else { continue };
            metrics.reloaded(read.is_ok());
            match read {
                Ok(()) => {
                    tracing::info!(pool = &*pool, pipeline, "lists of moderation were read again");
                    told = None;
                }
                Err(error) if told.as_ref() != Some(&error) => {
                    tracing::warn!(
                        pool = &*pool,
                        pipeline,
                        error,
                        "a list of moderation cannot be used: those from before stay in use"
                    );
                    told = Some(error);
                }
                Err(_) => {}
            }
        }
    }

    /// `None`: no file has changed.
    fn read_changed(&self) -> Option<Result<(), String>> {
        let stamps = stamps(&self.config);
        if stamps == *self.seen.lock().unwrap_or_else(PoisonError::into_inner) && !stamps.contains(&None) {
            return None;
        }
        let read = Compiled::read(&self.config).map(|compiled| {
            *self.compiled.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(compiled);
        });
        // A wrong list is looked at anew only when it changes; one that is missing, each time.
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = stamps;
        Some(read)
    }
}

fn stamps(config: &config::Moderate) -> Stamps {
    let words = config.words.iter().map(|list| &list.file);
    let files = words.chain(config.patterns.iter().map(|list| &list.file));
    let stamp = |file: &std::path::PathBuf| {
        let metadata = std::fs::metadata(file).ok()?;
        Some((metadata.modified().ok()?, metadata.len()))
    };
    files.map(stamp).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Match, PatternList, WordList};

    struct Folder(std::path::PathBuf);

    impl Folder {
        fn new() -> Self {
            let folder = std::env::temp_dir().join(format!("weir-lists-{}", uuid::Uuid::new_v4()));
            std::fs::create_dir_all(&folder).unwrap();
            Self(folder)
        }

        fn write(&self, name: &str, text: impl AsRef<[u8]>) -> std::path::PathBuf {
            let file = self.0.join(name);
            std::fs::write(&file, text).unwrap();
            file
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            std::fs::remove_dir_all(&self.0).ok();
        }
    }

    fn config(folder: &Folder) -> config::Moderate {
        let words = folder.write("banned.txt", "bad\n");
        let patterns = folder.write("patterns.txt", "# links\nhttps?://\\S+\\.example\n(?:\\d{4}[ -]?){4}\n");
        config::Moderate {
            words: vec![WordList { file: words, verdict: config::Verdict::Hide, r#match: Match::Word }],
            patterns: vec![PatternList { file: patterns, verdict: config::Verdict::Flag }],
            reload: std::time::Duration::from_millis(10),
            ..config::Moderate::default()
        }
    }

    fn judge(lists: &Lists, text: &str) -> Option<(Verdict, String)> {
        lists.now().judge(text, &mut String::new()).map(|found| (found.verdict, found.reason))
    }

    #[test]
    fn the_gravest_of_words_and_patterns_wins_and_names_its_line() {
        let folder = Folder::new();
        let lists = Lists::open(&config(&folder)).unwrap();
        assert_eq!(judge(&lists, "all is well"), None);
        let flag = |line| Some((Verdict::Flag, format!("pattern patterns.txt:{line}")));
        assert_eq!(judge(&lists, "see HTTPS://Spam.EXAMPLE now"), flag(2));
        assert_eq!(judge(&lists, "my card: ４１１１-1111-1111-1111"), flag(3));
        let hide = Some((Verdict::Hide, "words banned.txt:1".to_owned()));
        assert_eq!(judge(&lists, "Bad: https://spam.example"), hide);
    }

    #[test]
    fn only_patterns_that_could_mean_an_upper_case_are_asked_in_both() {
        for pattern in
            ["bad", r"\bbad\s+word\b", r"https?://\S*x\.(com|net)", r"(\d{4}[ -]?){3}0007", "a+[!1i]+b", r"\[x\]"]
        {
            assert!(!has_case(pattern), "{pattern}");
        }
        for pattern in [
            "Bad",
            "[A-Z]x",
            "(?i)bad",
            "(?P<x>a)",
            r"\x41",
            r"\p{Lu}",
            "блин",
            "[[:upper:]]",
            r"\Qx\E",
            r"\u{41}",
            r"x\",
        ] {
            assert!(has_case(pattern), "{pattern}");
        }
        let folder = Folder::new();
        let config = config(&folder);
        for (pattern, text) in [
            ("bad", "BAD"),
            ("BAD", "bad"),
            ("[A-C]AD", "a BAD"),
            ("[0-z]x", "AX"),
            ("[+-_]x", "ax"),
            (r"\bkelvin\b", "\u{212a}elvin"),
            ("ſo", "SO"),
        ] {
            folder.write("patterns.txt", pattern);
            let lists = Lists::open(&config::Moderate { words: Vec::new(), ..config.clone() }).unwrap();
            assert!(judge(&lists, text).is_some(), "{pattern} does not match {text}");
        }
    }

    #[test]
    fn the_edges_of_words_are_the_same_in_any_script() {
        let folder = Folder::new();
        let config = config(&folder);
        folder.write("patterns.txt", "x\\d\n\\bbad\\b\n\\bблин\\b\n");
        let lists = Lists::open(&config::Moderate { words: Vec::new(), ..config }).unwrap();
        let flag = |line| Some((Verdict::Flag, format!("pattern patterns.txt:{line}")));
        assert_eq!(judge(&lists, "so BAD"), flag(2));
        assert_eq!(judge(&lists, "så BAD"), flag(2));
        assert_eq!(judge(&lists, "ну Блин!"), flag(3));
        assert_eq!(judge(&lists, "så badé, блинчик, badly"), None);
        assert_eq!(judge(&lists, "badly"), None);
        assert_eq!(judge(&lists, "så x7"), flag(1));
    }

    #[test]
    fn a_list_that_cannot_be_used_says_file_line_and_reason() {
        let folder = Folder::new();
        let good = config(&folder);
        folder.write("patterns.txt", "fine\n(never closed\n");
        let error = Lists::open(&good).unwrap_err();
        assert!(error.contains("patterns.txt: line 2: error: unclosed group"), "{error}");
        folder.write("patterns.txt", "fine\n");
        folder.write("banned.txt", b"ok\n\xff\n");
        let error = Lists::open(&good).unwrap_err();
        assert!(error.contains("banned.txt: line 2: it is not UTF-8"), "{error}");
        std::fs::remove_file(folder.0.join("banned.txt")).unwrap();
        let error = Lists::open(&good).unwrap_err();
        assert!(error.contains("banned.txt: No such file"), "{error}");
    }

    #[tokio::test]
    async fn lists_are_read_again_and_a_broken_one_leaves_the_old() {
        let folder = Folder::new();
        let lists = Arc::new(Lists::open(&config(&folder)).unwrap());
        let metrics = crate::metrics::Metrics::new();
        let watching = tokio::spawn(Arc::clone(&lists).watch("p".into(), "m".to_owned(), metrics.pool("p")));
        let until = async |what: &str, is_so: &dyn Fn() -> bool| {
            let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
            while !is_so() {
                assert!(std::time::Instant::now() < deadline, "{what}");
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        };
        folder.write("banned.txt", "bad\nworse\n");
        until("the longer list", &|| judge(&lists, "worse").is_some()).await;
        folder.write("patterns.txt", "(((");
        let failed = "weir_reloads_total{pool=\"p\",result=\"error\"} 1";
        until("the broken list to be met", &|| metrics.render().lines().any(|line| line == failed)).await;
        assert!(judge(&lists, "worse").is_some() && judge(&lists, "https://spam.example").is_some());
        folder.write("patterns.txt", "mended\n");
        until("the mended list", &|| judge(&lists, "it is mended").is_some()).await;
        watching.abort();
    }
}
