//! The screen of `weir top`: the worker, one pool's figures, what needs a look, its rates lately, its partitions. It fits
//! itself to the terminal: what has no room is left out, the partitions last.

use std::collections::BTreeMap;
use std::time::Instant;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Style, Stylize as _};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Cell, Paragraph, Row, Table};

use super::table::{COLUMNS, Sort, alarms, cells, figures, head, sorted, span};
use crate::console::{Point, PoolState, State};
use crate::shown;
use crate::terminal::{draw_chart, grouped};

/// Points kept of a pool: a column each.
const HISTORY: usize = 400;
/// Lines for what needs a look; the rest is told by its number.
const ALARMS_MAX: usize = 3;
/// The rows of the chart, and how many rows the partitions should have before there is one.
const CHART: u16 = 6;
const ROWS_BEFORE_CHART: u16 = 9;

/// Between two columns.
const SPACING: usize = 2;
/// The least that is left of a partition's name.
const NAME_MIN: usize = 12;

/// How far to move.
pub(super) enum Move {
    Rows(isize),
    Pages(isize),
    Top,
}

/// What is shown.
pub(super) struct Screen {
    state: State,
    points: BTreeMap<String, Vec<Point>>,
    pool: usize,
    sort: Sort,
    /// Rows of the partitions that are scrolled past, and that there was room for.
    scrolled: usize,
    room: usize,
    lost_since: Option<Instant>,
    was_restarted: bool,
}

impl Screen {
    pub(super) fn new(state: State) -> Self {
        let mut screen = Self {
            state,
            points: BTreeMap::new(),
            pool: 0,
            sort: Sort::default(),
            scrolled: 0,
            room: 1,
            lost_since: None,
            was_restarted: false,
        };
        screen.keep_points();
        screen
    }

    /// The worker has answered.
    pub(super) fn take(&mut self, state: State) {
        if state.instance != self.state.instance {
            self.was_restarted = true;
            self.points.clear();
        }
        self.lost_since = None;
        self.state = state;
        self.keep_points();
    }

    /// The worker has not answered.
    pub(super) fn lost(&mut self) {
        self.lost_since.get_or_insert_with(Instant::now);
    }

    pub(super) fn next_pool(&mut self) {
        self.pool = (self.pool + 1) % self.state.pools.len().max(1);
        self.scrolled = 0;
    }

    pub(super) fn sort_by_next(&mut self) {
        self.sort = self.sort.next();
        self.scrolled = 0;
    }

    pub(super) fn scroll(&mut self, by: Move) {
        let rows = match by {
            Move::Rows(rows) => rows,
            Move::Pages(pages) => pages.saturating_mul(isize::try_from(self.room).unwrap_or(1)),
            Move::Top => isize::MIN,
        };
        let partitions = self.state.pools.get(self.pool).map_or(0, |pool| pool.partitions.len());
        self.scrolled = self.scrolled.saturating_add_signed(rows).min(partitions.saturating_sub(self.room));
    }

    fn keep_points(&mut self) {
        for pool in &self.state.pools {
            let points = self.points.entry(pool.name.clone()).or_default();
            points.extend(pool.points.iter().cloned());
            points.drain(..points.len().saturating_sub(HISTORY));
        }
    }

    pub(super) fn draw(&mut self, frame: &mut Frame<'_>) {
        let area = frame.area();
        let Some(mut pool) = self.state.pools.get(self.pool).cloned() else {
            frame.render_widget(Paragraph::new("this worker has no pools: q ends it"), area);
            return;
        };
        pool.points = self.points.get(&pool.name).cloned().unwrap_or_default();
        let figures = figure_lines(&pool, area.width);
        let alarms = alarm_lines(&pool);
        let height = |lines: &[Line<'_>]| u16::try_from(lines.len()).unwrap_or(u16::MAX);
        let left = area.height.saturating_sub(3 + height(&figures) + height(&alarms));
        let chart = if left >= CHART + ROWS_BEFORE_CHART { CHART } else { 0 };
        let rows = Layout::vertical([
            Constraint::Length(2),
            Constraint::Length(height(&figures)),
            Constraint::Length(height(&alarms)),
            Constraint::Length(chart),
            Constraint::Fill(1),
            Constraint::Length(1),
        ]);
        let [at_top, at_figures, at_alarms, at_chart, at_table, at_foot] = rows.areas(area);
        frame.render_widget(Paragraph::new(self.head_lines(&pool)), at_top);
        frame.render_widget(Paragraph::new(figures), at_figures);
        frame.render_widget(Paragraph::new(alarms), at_alarms);
        if chart > 0 {
            let settled: Vec<u64> = pool.points.iter().map(|point| point.out_per_s as u64).collect();
            let title = |most| format!(" events settled a second, up to {} ", grouped(most));
            draw_chart(frame, at_chart, &settled, title);
        }
        self.draw_partitions(frame, at_table, &pool);
        frame.render_widget(Paragraph::new(self.foot(&pool).dim()), at_foot);
    }

    fn head_lines(&self, pool: &PoolState) -> Vec<Line<'static>> {
        let head = head(&self.state);
        let link = match (self.lost_since, self.was_restarted) {
            (Some(since), _) => {
                let ms = i64::try_from(since.elapsed().as_millis()).unwrap_or(i64::MAX);
                format!("no answer for {}; trying again ", span(ms)).red().bold()
            }
            (None, true) => "was started anew ".yellow(),
            (None, false) => Span::raw(""),
        };
        let head = if self.state.healthy { Span::raw(head).bold() } else { Span::raw(head).red().bold() };
        let at = format!("pool {} of {}: ", self.pool + 1, self.state.pools.len());
        let name = shown::safe(&pool.name);
        let group = format!("  group {}", shown::safe(&pool.group));
        vec![Line::from(vec![link, head]), Line::from(vec![at.dim(), name.bold(), group.dim()])]
    }

    fn draw_partitions(&mut self, frame: &mut Frame<'_>, area: Rect, pool: &PoolState) {
        self.room = usize::from(area.height.saturating_sub(2)).max(1);
        self.scrolled = self.scrolled.min(pool.partitions.len().saturating_sub(self.room));
        let mut rows: Vec<[String; COLUMNS.len()]> = sorted(pool, self.sort)
            .into_iter()
            .skip(self.scrolled)
            .take(self.room)
            .map(|one| cells(one, self.state.now_ms))
            .collect();
        let names = COLUMNS.map(|(name, _)| name.to_owned());
        let last = COLUMNS.len() - 1;
        let mut widths: [usize; COLUMNS.len()] =
            std::array::from_fn(|at| rows.iter().chain([&names]).map(|row| row[at].chars().count()).max().unwrap_or(0));
        let of_others: usize = widths[1..last].iter().map(|width| width + SPACING).sum();
        widths[0] = widths[0].min(usize::from(area.width).saturating_sub(of_others + SPACING).max(NAME_MIN));
        rows.iter_mut().for_each(|row| row[0] = end_of(&row[0], widths[0]));
        let widths = (0..COLUMNS.len()).map(|at| match at == last {
            true => Constraint::Fill(1),
            false => Constraint::Length(u16::try_from(widths[at]).unwrap_or(u16::MAX)),
        });
        let drawn = rows.iter().map(|row| {
            let color = match row[2].as_str() {
                "held" => Style::new().red(),
                "waiting" | "paused" | "taking over" => Style::new().yellow(),
                _ => Style::new(),
            };
            Row::new((0..COLUMNS.len()).map(|at| aligned(&row[at], at))).style(color)
        });
        let table = Table::new(drawn, widths)
            .column_spacing(SPACING as u16)
            .header(Row::new((0..COLUMNS.len()).map(|at| aligned(&names[at], at))).dim())
            .block(Block::new().borders(Borders::TOP));
        frame.render_widget(table, area);
    }

    fn foot(&self, pool: &PoolState) -> String {
        let all = pool.partitions.len();
        let (first, last) = ((self.scrolled + 1).min(all), (self.scrolled + self.room).min(all));
        let pools = if self.state.pools.len() > 1 { "  Tab pool" } else { "" };
        format!("{first} to {last} of {all} by {}   q quit{pools}  s sort  ↑↓ move", self.sort.as_str())
    }
}

fn aligned(text: &str, column: usize) -> Cell<'static> {
    let line = Line::from(text.to_owned());
    Cell::from(if COLUMNS[column].1 { line.right_aligned() } else { line })
}

/// What fits of a name's end, which has the number.
fn end_of(name: &str, chars_max: usize) -> String {
    match name.chars().count().checked_sub(chars_max) {
        None | Some(0) => name.to_owned(),
        Some(over) => std::iter::once('…').chain(name.chars().skip(over + 1)).collect(),
    }
}

/// As many figures a line as have room.
fn figure_lines(pool: &PoolState, width: u16) -> Vec<Line<'static>> {
    let (mut lines, mut used) = (vec![Line::default()], 0);
    for (name, value) in figures(pool) {
        let length = name.len() + value.len() + 4;
        if used > 0 && used + length > usize::from(width) + 3 {
            lines.push(Line::default());
            used = 0;
        }
        used += length;
        let line = lines.last_mut().expect("there is a line from the beginning");
        line.extend([format!("{name} ").dim(), value.bold(), Span::raw("   ")]);
    }
    lines
}

fn alarm_lines(pool: &PoolState) -> Vec<Line<'static>> {
    let alarms = alarms(pool);
    let more = alarms.len().saturating_sub(ALARMS_MAX);
    let told = alarms.into_iter().take(ALARMS_MAX).map(|alarm| Line::from(format!("! {alarm}").red()));
    let rest = (more > 0).then(|| Line::from(format!("! and {more} more").red()));
    told.chain(rest).collect()
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;
    use crate::cli::top::table::tests::sample;

    fn drawn(screen: &mut Screen, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| screen.draw(frame)).unwrap();
        let buffer = terminal.backend().buffer();
        let line = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned();
        (0..height).map(line).collect::<Vec<_>>().join("\n")
    }

    fn of_storage(partitions: i32) -> Screen {
        let mut screen = Screen::new(sample(partitions));
        screen.next_pool();
        screen
    }

    #[test]
    fn a_plain_terminal_has_room_for_everything() {
        let text = drawn(&mut of_storage(8), 80, 24);
        for part in [
            "worker-1: ready",
            "pool 2 of 2: storage",
            "in/s 4,059",
            "! held: message-events/7: table messages is missing",
            "events settled a second, up to 3,900",
            "message-events/7  here      held",
            "7,000",
            "500",
            "1 to 8 of 8 by behind",
            "q quit",
        ] {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
        assert!(drawn(&mut Screen::new(sample(8)), 80, 24).contains("pool 1 of 2: push"));
    }

    #[test]
    fn many_partitions_are_scrolled_and_never_past_the_end() {
        let mut screen = of_storage(512);
        assert!(drawn(&mut screen, 80, 24).contains("message-events/511  here"));
        screen.scroll(Move::Pages(1));
        assert!(!drawn(&mut screen, 80, 24).contains("message-events/511  here"));
        (0..100).for_each(|_| screen.scroll(Move::Pages(1)));
        let text = drawn(&mut screen, 80, 24);
        assert!(text.contains("message-events/0 ") && text.contains("of 512"), "{text}");
        screen.scroll(Move::Top);
        screen.scroll(Move::Rows(-3));
        assert!(drawn(&mut screen, 80, 24).contains("1 to"));
        screen.sort_by_next();
        screen.sort_by_next();
        screen.sort_by_next();
        assert!(drawn(&mut screen, 80, 24).contains("message-events/0 "), "by partition");
    }

    #[test]
    fn of_a_long_name_the_end_is_shown_and_the_numbers_stay() {
        let mut state = sample(3);
        state.pools[1].partitions.iter_mut().for_each(|one| one.topic = "t".repeat(100));
        let mut screen = Screen::new(state);
        screen.next_pool();
        let text = drawn(&mut screen, 80, 24);
        assert!(text.contains("…tttt") && text.contains("t/2  here") && text.contains("0.7 s ago"), "{text}");
    }

    #[test]
    fn a_worker_that_is_gone_and_one_that_is_back_are_told() {
        let mut screen = of_storage(4);
        screen.lost();
        assert!(drawn(&mut screen, 80, 24).contains("no answer for 0."));
        screen.take(State { instance: uuid::Uuid::from_u128(7), ..sample(4) });
        assert!(drawn(&mut screen, 80, 24).contains("was started anew"));
    }

    #[test]
    fn tiny_terminals_and_empty_workers_are_no_panic() {
        for (width, height) in [(1, 1), (5, 3), (40, 8), (300, 2), (80, 13), (200, 60)] {
            drawn(&mut of_storage(20), width, height);
            drawn(&mut Screen::new(State { pools: Vec::new(), ..sample(0) }), width, height);
        }
    }
}
