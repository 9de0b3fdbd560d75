//! What is wrong with a plan, with the line and the key.

/// A key of the plan.
#[derive(Debug, Clone, Copy)]
pub(super) struct Key<'a> {
    section: Option<&'a str>,
    /// Which one of a section that can be there several times.
    index: Option<usize>,
    key: &'a str,
}

impl<'a> Key<'a> {
    pub(super) fn top(key: &'a str) -> Self {
        Self { section: None, index: None, key }
    }

    pub(super) fn of(section: &'a str, key: &'a str) -> Self {
        Self { section: Some(section), index: None, key }
    }

    pub(super) fn nth(section: &'a str, index: usize, key: &'a str) -> Self {
        Self { section: Some(section), index: Some(index), key }
    }

    fn path(self) -> String {
        match (self.section, self.index) {
            (None, _) => self.key.to_owned(),
            (Some(section), None) => format!("{section}.{}", self.key),
            (Some(section), Some(index)) => format!("{section}[{index}].{}", self.key),
        }
    }

    /// Where it stands; without it, where its section begins.
    fn line(self, text: &str) -> usize {
        let header = match (self.section, self.index) {
            (None, _) => None,
            (Some(section), None) => Some(format!("[{section}]")),
            (Some(section), Some(_)) => Some(format!("[[{section}]]")),
        };
        let (mut inside, mut nth, mut begin) = (header.is_none(), 0, 1);
        for (at, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.starts_with('[') {
                let is_header = header.as_deref().is_some_and(|header| line.starts_with(header));
                inside = is_header && self.index.is_none_or(|index| index == nth);
                nth += usize::from(is_header);
                begin = if inside { at + 1 } else { begin };
            } else if inside && line.split(['=', '.']).next().is_some_and(|name| name.trim() == self.key) {
                return at + 1;
            }
        }
        begin
    }
}

/// Collects problems, so that all are told at once.
pub(super) struct Problems<'a> {
    text: &'a str,
    found: Vec<String>,
}

impl<'a> Problems<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, found: Vec::new() }
    }

    pub(super) fn add(&mut self, key: Key<'_>, problem: &str) {
        self.found.push(format!("line {}: `{}` {problem}", key.line(self.text), key.path()));
    }

    pub(super) fn check(&mut self, key: Key<'_>, is_fine: bool, problem: &str) {
        if !is_fine {
            self.add(key, problem);
        }
    }

    pub(super) fn into_result(self) -> Result<(), Vec<String>> {
        if self.found.is_empty() { Ok(()) } else { Err(self.found) }
    }
}

/// What the TOML reader found.
pub(super) fn of_toml(text: &str, error: &toml::de::Error) -> String {
    let at = error.span().map_or(0, |span| span.start.min(text.len()));
    let line = text[..at].matches('\n').count() + 1;
    let message = error.message().trim();
    if let Some(rest) = message.strip_prefix("unknown field `") {
        let (name, known) = rest.split_once('`').unwrap_or((rest, ""));
        let known: Vec<&str> = known.split('`').skip(1).step_by(2).collect();
        return format!("line {line}: unknown key `{name}`: {}", advice(name, &known));
    }
    let key = text.lines().nth(line - 1).and_then(|line| line.split_once('=')).map(|(key, _)| key.trim());
    match key.filter(|key| !key.is_empty() && !message.starts_with("missing field")) {
        Some(key) => format!("line {line}: `{key}`: {message}"),
        None => format!("line {line}: {message}"),
    }
}

fn advice(name: &str, known: &[&str]) -> String {
    let likeness = |known: &str| strsim::normalized_damerau_levenshtein(name, known);
    let nearest = known.iter().map(|known| (likeness(known), *known)).max_by(|(a, _), (b, _)| a.total_cmp(b));
    match nearest.filter(|(likeness, _)| *likeness >= 0.5) {
        Some((_, nearest)) => format!("did you mean `{nearest}`?"),
        None => format!("known are {}", known.join(", ")),
    }
}
