//! The live screen: rates, lag, latency, partitions. It fits itself to the terminal: what has no room is left out, the
//! numbers last.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use ratatui::crossterm::event::{self, Event};
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Style, Stylize as _};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, LineGauge, Paragraph, Row, Table};
use ratatui::{DefaultTerminal, Frame};

use super::{DRAW_EVERY, Pace};
use crate::demo::Setting;
use crate::demo::flow::{Flow, LaneLook, Look};
use crate::terminal::{self, draw_chart, grouped, is_stop};

/// Rates kept for the chart: a column each.
const HISTORY: usize = 400;
/// From this width on, everything is shown side by side.
const WIDE: u16 = 76;

/// The fewest rows in which a chart tells anything.
const CHART_MIN: u16 = 3;

/// The terminal while the demo has it.
#[derive(Default)]
pub struct Screen {
    terminal: Option<DefaultTerminal>,
    picture: Picture,
    pace: Pace,
    stop_asked: bool,
}

/// Everything that is drawn.
#[derive(Default)]
struct Picture {
    broker: String,
    store: String,
    duration: Duration,
    elapsed: Duration,
    rate: u64,
    history: VecDeque<u64>,
    look: Look,
    stopping: bool,
}

impl Screen {
    pub(super) fn open(&mut self, setting: &Setting) -> io::Result<()> {
        let Setting { broker, store, duration } = setting.clone();
        self.picture = Picture { broker, store, duration, ..Picture::default() };
        self.terminal = Some(terminal::take()?);
        Ok(())
    }

    pub(super) fn show(&mut self, flow: &Flow, elapsed: Duration) -> io::Result<()> {
        let Some(terminal) = &mut self.terminal else { return Ok(()) };
        let Some((look, rate)) = self.pace.look(flow, DRAW_EVERY) else { return Ok(()) };
        let picture = &mut self.picture;
        picture.rate = rate as u64;
        picture.history.push_back(picture.rate);
        if picture.history.len() > HISTORY {
            picture.history.pop_front();
        }
        // Between two looks few events may have been settled: then the last latencies stand.
        let (p50_ms, p99_ms) = match look.p50_ms > 0.0 {
            true => (look.p50_ms, look.p99_ms),
            false => (picture.look.p50_ms, picture.look.p99_ms),
        };
        picture.look = Look { p50_ms, p99_ms, ..look };
        picture.elapsed = elapsed;
        picture.stopping = self.stop_asked || elapsed >= picture.duration;
        terminal.draw(|frame| draw(frame, picture)).map(drop)
    }

    /// Whether somebody has asked for the end: q, Esc or Ctrl-C. Asked a second time, the process ends at once.
    pub(super) fn wants_to_stop(&mut self) -> bool {
        while self.terminal.is_some() && event::poll(Duration::ZERO).unwrap_or(false) {
            let Ok(Event::Key(key)) = event::read() else { continue };
            if is_stop(key) {
                if self.stop_asked {
                    self.close();
                    std::process::exit(1);
                }
                self.stop_asked = true;
            }
        }
        self.stop_asked
    }

    /// Gives the terminal back as it was.
    pub(super) fn close(&mut self) {
        self.terminal = None;
        terminal::give_back();
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.close();
    }
}

fn draw(frame: &mut Frame<'_>, picture: &Picture) {
    let area = frame.area();
    let wide = area.width >= WIDE;
    let numbers = numbers(&picture.look, picture.rate, wide);
    let table_height = u16::try_from(picture.look.lanes.len()).unwrap_or(0) + 2;
    let fixed = 4 + u16::try_from(numbers.len()).unwrap_or(0);
    let left = area.height.saturating_sub(fixed);
    let table_height = if left >= table_height { table_height } else { 0 };
    let chart_height = if left - table_height >= CHART_MIN { left - table_height } else { 0 };
    let rows = Layout::vertical([
        Constraint::Length(2),
        Constraint::Length(1),
        Constraint::Length(fixed - 4),
        Constraint::Length(chart_height),
        Constraint::Length(table_height),
        Constraint::Fill(1),
        Constraint::Length(1),
    ]);
    let [head, time, figures, chart, table, _, foot] = rows.areas(area);
    frame.render_widget(Paragraph::new(head_lines(picture, usize::from(area.width))), head);
    frame.render_widget(gauge(picture), time);
    frame.render_widget(Paragraph::new(numbers), figures);
    if chart_height > 0 {
        draw_rates(frame, chart, picture);
    }
    if table_height > 0 {
        frame.render_widget(partitions(&picture.look.lanes, wide), table);
    }
    let said = match (picture.stopping, wide) {
        (true, _) => "stopping: settling what is left",
        (false, true) => "q or Ctrl-C stops it; then the database is audited",
        (false, false) => "q or Ctrl-C stops it",
    };
    frame.render_widget(Paragraph::new(said.dim()), foot);
}

fn head_lines(picture: &Picture, width: usize) -> Vec<Line<'static>> {
    let (name, broker, store) = ("weir demo", "  broker ", "database ");
    // Of a broker the beginning tells most, of a file the end.
    let fits = |text: &str, before: usize| before + text.chars().count() <= width;
    let mut where_it_is = picture.broker.clone();
    if !fits(&where_it_is, name.len() + broker.len())
        && let Some((short, _)) = where_it_is.split_once(" (")
    {
        where_it_is = short.to_owned();
    }
    if !fits(&where_it_is, name.len() + broker.len()) {
        let room = width.saturating_sub(name.len() + broker.len() + 1);
        where_it_is = where_it_is.chars().take(room).chain(['…']).collect();
    }
    let mut file = picture.store.clone();
    if !fits(&file, store.len()) {
        let left_out = file.chars().count() - width.saturating_sub(store.len() + 1).min(file.chars().count());
        file = std::iter::once('…').chain(file.chars().skip(left_out)).collect();
    }
    vec![
        Line::from(vec![name.bold(), broker.dim(), Span::raw(where_it_is)]),
        Line::from(vec![store.dim(), Span::raw(file)]),
    ]
}

fn gauge(picture: &Picture) -> LineGauge<'_> {
    let (elapsed, duration) = (picture.elapsed.as_secs_f64(), picture.duration.as_secs_f64().max(0.001));
    let label = format!("{:.0} of {:.0} s", elapsed.min(duration), duration);
    LineGauge::default()
        .ratio((elapsed / duration).min(1.0))
        .label(label)
        .filled_symbol("━")
        .unfilled_symbol("─")
        .filled_style(Style::new().cyan())
}

fn numbers(look: &Look, rate: u64, wide: bool) -> Vec<Line<'static>> {
    let figure =
        |name: &'static str, value: String| vec![Span::raw(name).dim(), Span::raw(value).bold(), Span::raw("   ")];
    let lines: Vec<Vec<Vec<Span<'static>>>> = vec![
        vec![figure("events/s ", grouped(rate)), figure("lag ", grouped(look.lag))],
        vec![figure("p50 ", format!("{:.0} ms", look.p50_ms)), figure("p99 ", format!("{:.0} ms", look.p99_ms))],
        vec![figure("sent ", grouped(look.sent)), figure("settled ", grouped(look.settled))],
    ];
    match wide {
        true => vec![Line::from(lines.concat().concat())],
        false => lines.into_iter().map(|line| Line::from(line.concat())).collect(),
    }
}

fn draw_rates(frame: &mut Frame<'_>, area: Rect, picture: &Picture) {
    let data: Vec<u64> = picture.history.iter().copied().collect();
    draw_chart(frame, area, &data, |most| format!(" events settled a second, up to {} ", grouped(most)));
}

fn partitions(lanes: &[LaneLook], wide: bool) -> Table<'static> {
    let fullest = lanes.iter().map(|lane| lane.lag).max().unwrap_or(0).max(1);
    let row = |(at, lane): (usize, &LaneLook)| {
        let mut cells = vec![at.to_string(), lane.state.to_owned(), grouped(lane.lag)];
        if wide {
            let bar = usize::try_from(lane.lag * 16 / fullest).unwrap_or(0);
            cells.extend([grouped(lane.settled), lane.batch_events_max.to_string(), "▪".repeat(bar)]);
        }
        Row::new(cells)
    };
    let (mut head, mut widths) = (vec!["partition", "state", "lag"], vec![9, 11, 8]);
    if wide {
        head.extend(["settled", "batch", ""]);
        widths.extend([12, 6, 16]);
    }
    let widths = widths.into_iter().map(Constraint::Length);
    Table::new(lanes.iter().enumerate().map(row), widths)
        .header(Row::new(head).dim())
        .block(Block::new().borders(Borders::TOP))
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;

    fn drawn(width: u16, height: u16) -> Vec<String> {
        let lane = |lag| LaneLook { settled: 100_000, lag, state: "working", batch_events_max: 500 };
        let picture = Picture {
            broker: "in memory (librdkafka's mock cluster, no Kafka)".to_owned(),
            store: "sqlite:///tmp/somewhere/weir_demo_0123abcd.db".to_owned(),
            duration: Duration::from_secs(20),
            elapsed: Duration::from_secs(12),
            rate: 41_234,
            history: (0..300).map(|n| 40_000 + n * 10).collect(),
            look: Look {
                sent: 812_345,
                settled: 809_035,
                lag: 3_310,
                p50_ms: 45.0,
                p99_ms: 90.0,
                lanes: (0..8).map(|n| lane(n * 100)).collect(),
            },
            stopping: false,
        };
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, &picture)).unwrap();
        let buffer = terminal.backend().buffer();
        let line = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned();
        (0..height).map(line).collect()
    }

    #[test]
    fn a_wide_terminal_shows_everything() {
        let text = drawn(100, 30).join("\n");
        for part in [
            "in memory",
            "12 of 20 s",
            "41,234",
            "3,310",
            "p99 90 ms",
            "809,035",
            "events settled a second",
            "batch",
            "▪",
        ] {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
    }

    #[test]
    fn forty_columns_show_the_numbers_and_the_partitions() {
        let text = drawn(40, 24).join("\n");
        assert!(!text.contains("(librdkafka"), "cut off in the middle:\n{text}");
        for part in [
            "broker in memory\n",
            "…",
            "weir_demo_0123abcd.db\n",
            "41,234",
            "p99 90 ms",
            "settled 809,035",
            "partition",
            "working",
        ] {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
    }

    #[test]
    fn a_tiny_terminal_shows_the_numbers_and_nothing_panics() {
        let text = drawn(40, 8).join("\n");
        assert!(text.contains("41,234") && text.contains("p99 90 ms") && !text.contains("partition"), "{text}");
        for (width, height) in [(1, 1), (5, 3), (20, 5), (300, 2), (80, 13)] {
            drawn(width, height);
        }
    }
}
