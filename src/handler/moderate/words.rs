//! One automaton over the words of all lists: a text is read once, however many words there are.

use std::collections::HashSet;

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};

use super::fold::fold;
use super::lists::Found;
use super::verdict::Verdict;
use crate::config::Match;

/// The longest word or phrase, in bytes.
const WORD_BYTES_MAX: usize = 256;
/// Up to so many bytes the automaton has a table of all its steps, which is three to four times as fast as looking for them.
const TABLE_BYTES_MAX: usize = 64 << 20;

/// A word with where it comes from.
#[derive(Debug)]
struct Word {
    verdict: Verdict,
    whole: bool,
    list: usize,
    line: usize,
}

#[derive(Debug)]
pub(super) struct Words {
    automaton: AhoCorasick,
    words: Vec<Word>,
}

/// The words of all lists, before there is an automaton.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    folded: Vec<String>,
    words: Vec<Word>,
}

impl Gathered {
    /// Adds a list's file: a word a line; empty lines and those that begin with '#' are passed.
    pub(super) fn add(&mut self, list: usize, text: &str, verdict: Verdict, matching: Match) -> Result<(), String> {
        for (at, line) in text.lines().enumerate() {
            let word = line.trim();
            if word.is_empty() || word.starts_with('#') {
                continue;
            }
            let folded = fold(word);
            if folded.trim().is_empty() {
                return Err(format!("line {}: nothing of the word can be seen", at + 1));
            }
            if folded.len() > WORD_BYTES_MAX {
                return Err(format!("line {}: a word has at most {WORD_BYTES_MAX} bytes", at + 1));
            }
            self.folded.push(folded.trim().to_owned());
            self.words.push(Word { verdict, whole: matching == Match::Word, list, line: at + 1 });
        }
        Ok(())
    }

    pub(super) fn len(&self) -> usize {
        self.words.len()
    }

    pub(super) fn build(self) -> Result<Option<Words>, String> {
        if self.words.is_empty() {
            return Ok(None);
        }
        // Every match is looked at: one inside of a word must not hide one that stands by itself.
        // At most a state for each byte of a word, and in each a step of four bytes for each byte that there is.
        let states: usize = self.folded.iter().map(String::len).sum();
        let steps = self.folded.iter().flat_map(|word| word.bytes()).collect::<HashSet<u8>>().len() + 1;
        let bytes = states.saturating_mul(steps.next_power_of_two() * 4);
        let kind = (bytes <= TABLE_BYTES_MAX).then_some(AhoCorasickKind::DFA);
        let automaton = AhoCorasick::builder().match_kind(MatchKind::Standard).kind(kind).build(&self.folded);
        let automaton = automaton.map_err(|error| format!("the words make no automaton: {error}"))?;
        Ok(Some(Words { automaton, words: self.words }))
    }
}

impl Words {
    /// The gravest word of a folded text.
    pub(super) fn judge(&self, folded: &str) -> Option<Found> {
        let mut gravest: Option<Found> = None;
        for found in self.automaton.find_overlapping_iter(folded) {
            let word = &self.words[found.pattern().as_usize()];
            if gravest.as_ref().is_some_and(|gravest| gravest.verdict >= word.verdict)
                || (word.whole && !stands_alone(folded, found.start(), found.end()))
            {
                continue;
            }
            gravest = Some(Found { verdict: word.verdict, list: word.list, line: word.line });
            if word.verdict == Verdict::Hide {
                break;
            }
        }
        gravest
    }
}

fn stands_alone(text: &str, start: usize, end: usize) -> bool {
    let is_word = |char: Option<char>| char.is_some_and(|char| char.is_alphanumeric() || char == '_');
    !is_word(text[..start].chars().next_back()) && !is_word(text[end..].chars().next())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(lists: &[(&str, Verdict, Match)]) -> Words {
        let mut gathered = Gathered::default();
        for (at, (text, verdict, matching)) in lists.iter().enumerate() {
            gathered.add(at, text, *verdict, *matching).unwrap();
        }
        gathered.build().unwrap().unwrap()
    }

    fn judge(words: &Words, text: &str) -> Option<(Verdict, usize, usize)> {
        words.judge(&fold(text)).map(|found| (found.verdict, found.list, found.line))
    }

    #[test]
    fn whole_words_and_substrings_are_told_apart() {
        let words = words(&[
            ("bad\n# a remark\nvery rude", Verdict::Hide, Match::Word),
            ("spam", Verdict::Flag, Match::Substring),
        ]);
        assert_eq!(judge(&words, "that is BAD!"), Some((Verdict::Hide, 0, 1)));
        assert_eq!(judge(&words, "ＢＡＤ"), Some((Verdict::Hide, 0, 1)));
        assert_eq!(judge(&words, "how very rude"), Some((Verdict::Hide, 0, 3)));
        assert_eq!(judge(&words, "badge, unbad, bad_thing"), None);
        assert_eq!(judge(&words, "antiSPAMmer"), Some((Verdict::Flag, 1, 1)));
        assert_eq!(judge(&words, "spam, and bad"), Some((Verdict::Hide, 0, 1)), "the gravest wins");
        assert_eq!(judge(&words, "é bad é"), Some((Verdict::Hide, 0, 1)));
        assert_eq!(judge(&words, "ébad"), None);
    }

    #[test]
    fn a_word_inside_of_another_hides_no_match() {
        let words = words(&[("xbad\nbad\nba", Verdict::Hide, Match::Word)]);
        assert_eq!(judge(&words, "xbadx bad"), Some((Verdict::Hide, 0, 2)));
        assert_eq!(judge(&words, "xbadx ba"), Some((Verdict::Hide, 0, 3)));
    }

    #[test]
    fn a_list_that_cannot_be_used_says_in_which_line() {
        let mut gathered = Gathered::default();
        let error = gathered.add(0, "ok\n\u{200b}\n", Verdict::Hide, Match::Word).unwrap_err();
        assert!(error.starts_with("line 2"), "{error}");
        let error = gathered.add(0, &"x".repeat(300), Verdict::Hide, Match::Word).unwrap_err();
        assert!(error.starts_with("line 1"), "{error}");
    }
}
