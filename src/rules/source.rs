//! An expression's text: its bounds, and where something stands in it.

use super::RuleError;

/// The longest expression, in bytes.
const LENGTH_MAX: usize = 4096;
/// The most brackets that are open at a time; a parser goes down a level for each.
const BRACKETS_MAX: usize = 32;
/// The most signs of one kind in a row.
const SIGNS_MAX: usize = 32;
/// A parser goes down several calls for each operator of a chain. Only what is used of it is memory.
const STACK_BYTES: usize = 64 << 20;

impl RuleError {
    /// At a byte of the expression.
    pub(super) fn at(expression: &str, byte: usize, problem: impl Into<String>) -> Self {
        let before = &expression[..byte.min(expression.len())];
        let line_begins = before.rfind('\n').map_or(0, |newline| newline + 1);
        let line = before.matches('\n').count() + 1;
        Self { line, column: before[line_begins..].chars().count() + 1, problem: problem.into() }
    }
}

/// Runs the compiler if the expression is small enough for it, on a stack of its own: a parser that overflows one could not
/// be caught.
pub(super) fn in_bounds<T: Send>(
    expression: &str,
    compile: impl FnOnce() -> Result<T, RuleError> + Send,
) -> Result<T, RuleError> {
    if expression.trim().is_empty() {
        return Err(RuleError::at(expression, 0, "it is empty: give a condition, or leave it out"));
    }
    if expression.len() > LENGTH_MAX {
        let problem = format!("it has {} bytes, and {LENGTH_MAX} are the most", expression.len());
        return Err(RuleError::at(expression, 0, problem));
    }
    check_nesting(expression)?;
    let compiled = std::thread::scope(|scope| {
        let builder = std::thread::Builder::new().name("rule".to_owned()).stack_size(STACK_BYTES);
        builder.spawn_scoped(scope, compile).map(std::thread::ScopedJoinHandle::join)
    });
    match compiled {
        Ok(Ok(compiled)) => compiled,
        Ok(Err(_)) => Err(RuleError::at(expression, 0, "the parser failed on it: write it in another way")),
        Err(error) => Err(RuleError::at(expression, 0, format!("no thread for its parser: {error}"))),
    }
}

fn check_nesting(expression: &str) -> Result<(), RuleError> {
    let (mut open, mut signs, mut last) = (0usize, 0usize, ' ');
    for (at, char) in outside_of_texts(expression) {
        match char {
            '(' | '[' | '{' => open += 1,
            ')' | ']' | '}' => open = open.saturating_sub(1),
            _ => {}
        }
        if char.is_whitespace() {
            continue;
        }
        signs = if matches!(char, '!' | '-' | '?' | ':' | '.') && char == last { signs + 1 } else { 0 };
        last = char;
        if open > BRACKETS_MAX || signs > SIGNS_MAX {
            return Err(RuleError::at(expression, at, format!("nested more than {BRACKETS_MAX} levels deep")));
        }
    }
    Ok(())
}

/// The characters that stand outside of quotes, with their places.
fn outside_of_texts(expression: &str) -> impl Iterator<Item = (usize, char)> {
    let (mut quote, mut escaped) = (None, false);
    expression.char_indices().filter(move |(_, char)| match quote {
        Some(open) => {
            if escaped {
                escaped = false;
            } else if *char == '\\' {
                escaped = true;
            } else if *char == open {
                quote = None;
            }
            false
        }
        None => {
            if matches!(char, '\'' | '"') {
                quote = Some(*char);
            }
            quote.is_none()
        }
    })
}

/// Where a name first stands as a whole, outside of quotes; the expression's beginning if it is nowhere to be seen.
pub(super) fn place_of(expression: &str, name: &str) -> usize {
    let is_name = |char: Option<char>| char.is_some_and(|char| char.is_alphanumeric() || char == '_');
    let outside: Vec<(usize, char)> = outside_of_texts(expression).collect();
    let found = outside.iter().find(|(at, _)| {
        expression[*at..].starts_with(name)
            && !is_name(expression[..*at].chars().next_back())
            && !is_name(expression[*at + name.len()..].chars().next())
    });
    found.map_or(0, |(at, _)| *at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_found_as_a_whole_and_outside_of_texts() {
        assert_eq!(place_of("'abc' == abcd || abc", "abc"), 17);
        assert_eq!(place_of(r"'it\'s abc' == abc", "abc"), 15);
        assert_eq!(place_of("x", "abc"), 0);
        let error = RuleError::at("é\n ü == x", 7, "p");
        assert_eq!((error.line, error.column), (2, 4));
    }
}
