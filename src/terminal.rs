//! The terminal, while a live view has it: taken over and given back as it was, keys that stop, and what views draw alike.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use ratatui::crossterm::cursor::Show;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::layout::Rect;
use ratatui::style::{Style, Stylize as _};
use ratatui::widgets::{Block, Borders, Sparkline};
use ratatui::{DefaultTerminal, Frame};

/// Whether the terminal is taken over: there is one of it in a process.
static IS_OPEN: AtomicBool = AtomicBool::new(false);

/// Takes the terminal over. Until it is given back, Ctrl-C is a key, which only a look at the keys hears.
///
/// # Errors
/// It is none, or does not take what makes it one.
pub(crate) fn take() -> io::Result<DefaultTerminal> {
    IS_OPEN.store(true, Ordering::SeqCst);
    ratatui::try_init()
}

/// Gives the terminal back as it was, if it is taken. For whoever ends the process at once too.
pub(crate) fn give_back() {
    if IS_OPEN.swap(false, Ordering::SeqCst) {
        ratatui::restore();
        // A terminal that does not take it has no cursor to show.
        ratatui::crossterm::execute!(io::stdout(), Show).ok();
    }
}

/// Whether there is a terminal that can be drawn on.
pub(crate) fn is_there() -> bool {
    use std::io::IsTerminal as _;
    let is_dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
    io::stdout().is_terminal() && !is_dumb
}

/// Whether somebody asks for the end: q, Esc or Ctrl-C.
pub(crate) fn is_stop(key: KeyEvent) -> bool {
    let ctrl_c = key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
    key.kind == KeyEventKind::Press && (ctrl_c || matches!(key.code, KeyCode::Char('q') | KeyCode::Esc))
}

/// Draws the newest values, a column each; `title` is told the highest of them.
pub(crate) fn draw_chart(frame: &mut Frame<'_>, area: Rect, values: &[u64], title: impl FnOnce(u64) -> String) {
    let skipped = values.len().saturating_sub(usize::from(area.width));
    let data = &values[skipped..];
    let most = data.iter().copied().max().unwrap_or(0);
    let block = Block::new().borders(Borders::TOP).title(title(most).dim());
    frame.render_widget(Sparkline::default().block(block).data(data).style(Style::new().cyan()), area);
}

/// A number with its thousands apart.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_apart() {
        assert_eq!([0, 12, 999, 1_000, 1_234_567].map(grouped), ["0", "12", "999", "1,000", "1,234,567"]);
    }
}
