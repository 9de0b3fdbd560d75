//! Texts as they are compared: without case, without width, without what cannot be seen.

use caseless::Caseless as _;
use unicode_normalization::UnicodeNormalization as _;

/// Folds a text into a buffer: compatibility forms (NFKC), full case folding, and no invisible characters. ＢＡＤ, Bad and
/// ba\u{ad}d become bad.
pub(super) fn fold_into(text: &str, folded: &mut String) {
    folded.clear();
    if text.is_ascii() {
        folded.push_str(text);
        folded.make_ascii_lowercase();
        return;
    }
    folded.extend(text.chars().filter(|char| !is_invisible(*char)).nfkc().default_case_fold().nfkc());
}

pub(super) fn fold(text: &str) -> String {
    let mut folded = String::with_capacity(text.len());
    fold_into(text, &mut folded);
    folded
}

/// Soft hyphens, joiners, marks of direction and the like, which tear a word apart for a program only.
fn is_invisible(char: char) -> bool {
    matches!(char, '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{2064}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variants_of_a_word_become_one() {
        for variant in ["bad", "BAD", "Bad", "ＢＡＤ", "ｂａｄ", "ba\u{ad}d", "b\u{200b}a\u{200d}d", "𝐛𝐚𝐝"]
        {
            assert_eq!(fold(variant), "bad", "{variant:?}");
        }
        assert_eq!(fold("STRASSE"), fold("straße"));
        assert_eq!(fold("ΣΊΣΥΦΟΣ"), fold("σίσυφος"));
        assert_eq!(fold("Cafe\u{301}"), fold("CAFÉ"));
        assert_eq!(fold("ﬁne"), "fine");
    }
}
