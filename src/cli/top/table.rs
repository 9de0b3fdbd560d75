//! What the console tells as lines of text: printed once, and the rows of the screen.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use crate::console::{Partition, Place, PoolState, State};
use crate::shown;
use crate::terminal::grouped;

/// The columns, and whether they are numbers.
pub(super) const COLUMNS: [(&str, bool); 8] = [
    ("partition", false),
    ("owner", false),
    ("state", false),
    ("behind", true),
    ("oldest", true),
    ("batch", true),
    ("progress", true),
    ("what for", false),
];
/// Partitions that a hold is told of by name.
const NAMED_MAX: usize = 4;

/// What the rows are sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Sort {
    #[default]
    Behind,
    Oldest,
    Progress,
    Partition,
}

impl Sort {
    pub(super) fn next(self) -> Self {
        match self {
            Self::Behind => Self::Oldest,
            Self::Oldest => Self::Progress,
            Self::Progress => Self::Partition,
            Self::Partition => Self::Behind,
        }
    }

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Behind => "behind",
            Self::Oldest => "oldest",
            Self::Progress => "progress",
            Self::Partition => "partition",
        }
    }
}

/// The partitions, those that want a look first.
pub(super) fn sorted(pool: &PoolState, by: Sort) -> Vec<&Partition> {
    let mut all: Vec<&Partition> = pool.partitions.iter().collect();
    match by {
        Sort::Behind => all.sort_by_key(|one| Reverse(one.lag)),
        Sort::Oldest => all.sort_by_key(|one| Reverse(one.lag_ms)),
        Sort::Progress => all.sort_by_key(|one| one.progress_ms),
        Sort::Partition => {}
    }
    all
}

/// A partition's row.
pub(super) fn cells(one: &Partition, now_ms: i64) -> [String; COLUMNS.len()] {
    let known = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
    let owner = match (one.place, one.owner) {
        (Place::Here, _) => "here".to_owned(),
        (Place::Elsewhere, Some(token)) => token.to_string().chars().take(8).collect(),
        (Place::Elsewhere | Place::Nobody, _) => "nobody".to_owned(),
    };
    [
        format!("{}/{}", shown::safe(&one.topic), one.partition),
        owner,
        known(one.state.clone()),
        known(one.lag.map(|lag| grouped(lag.unsigned_abs()))),
        known(one.lag_ms.map(span)),
        known(one.batch.map(|events| grouped(events as u64))),
        known(one.progress_ms.map(|at| format!("{} ago", span((now_ms - at).max(0))))),
        shown::safe(one.why.as_deref().unwrap_or_default()),
    ]
}

/// A time as people say it, not longer than six characters.
pub(super) fn span(ms: i64) -> String {
    let seconds = ms / 1_000;
    match seconds {
        ..10 => format!("{}.{} s", seconds, ms % 1_000 / 100),
        10..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// The worker in a line.
pub(super) fn head(state: &State) -> String {
    let standing = match (state.healthy, state.ready) {
        (false, _) => "a poll loop stands still",
        (true, false) => "not ready yet",
        (true, true) => "ready",
    };
    let running = span(state.now_ms - state.started_ms);
    format!("weir {} on {}: {standing}, running for {running}", state.version, shown::safe(&state.host))
}

/// A pool's figures, the most telling first.
pub(super) fn figures(pool: &PoolState) -> Vec<(&'static str, String)> {
    let mut figures = vec![("behind", grouped(pool.lag.unsigned_abs())), ("oldest", span(pool.lag_ms))];
    if let Some(last) = pool.points.last() {
        figures.push(("in/s", grouped(last.in_per_s as u64)));
        figures.push(("out/s", grouped(last.out_per_s as u64)));
    }
    figures.push(("here", pool.assigned.to_string()));
    figures.push(("held", pool.held.to_string()));
    if let Some(lag) = pool.fleet.lag {
        figures.push(("group behind", grouped(lag.unsigned_abs())));
    }
    if let Some(rows) = pool.fleet.dead_rows {
        figures.push(("dead rows", grouped(rows.unsigned_abs())));
    }
    if let Some(rate) = pool.rate_per_s {
        figures.push(("rate", format!("{}/s", grouped(rate as u64))));
    }
    figures
}

/// What needs a look, a line each.
pub(super) fn alarms(pool: &PoolState) -> Vec<String> {
    let mut lines = Vec::new();
    if pool.stalled {
        lines.push("the poll loop stands still".to_owned());
    }
    for away in &pool.breakers {
        lines.push(format!("the {} has been away since {}: {}", away.dependency, away.since, away.error));
    }
    let mut held: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for one in pool.partitions.iter().filter(|one| one.state.as_deref() == Some("held")) {
        let name = format!("{}/{}", one.topic, one.partition);
        held.entry(one.why.as_deref().unwrap_or_default()).or_default().push(name);
    }
    for (why, names) in held {
        let more = names.len().saturating_sub(NAMED_MAX);
        let named = names[..names.len() - more].join(", ");
        let others = if more > 0 { format!(" and {more} more") } else { String::new() };
        lines.push(format!("held: {named}{others}: {why}"));
    }
    lines.extend(pool.waiting_for.as_ref().map(|what| format!("waits for: {what}")));
    lines.extend(pool.paused.as_ref().map(|pause| format!("paused by {} since {}", pause.by, pause.since)));
    lines.extend(pool.fleet.error.as_ref().map(|error| format!("the whole group cannot be looked at: {error}")));
    lines.iter().map(|line| shown::safe(line)).collect()
}

/// Everything, for whoever reads it once.
pub(super) fn text(state: &State) -> String {
    let pools = state.pools.iter().map(|pool| of_pool(pool, state.now_ms));
    std::iter::once(head(state)).chain(pools).collect::<Vec<_>>().join("\n\n")
}

fn of_pool(pool: &PoolState, now_ms: i64) -> String {
    let figures: Vec<String> = figures(pool).into_iter().map(|(name, value)| format!("{name} {value}")).collect();
    let mut lines = vec![
        format!("pool {}, group {}", shown::safe(&pool.name), shown::safe(&pool.group)),
        format!("  {}", figures.join("  ")),
    ];
    lines.extend(alarms(pool).into_iter().map(|alarm| format!("  ! {alarm}")));
    let rows: Vec<[String; COLUMNS.len()]> = std::iter::once(COLUMNS.map(|(name, _)| name.to_owned()))
        .chain(sorted(pool, Sort::Behind).into_iter().map(|one| cells(one, now_ms)))
        .collect();
    let widths: [usize; COLUMNS.len()] =
        std::array::from_fn(|at| rows.iter().map(|row| row[at].chars().count()).max().unwrap_or(0));
    for row in rows {
        let padded = row.iter().zip(widths).zip(COLUMNS).map(|((cell, width), (_, is_number))| match is_number {
            true => format!("{cell:>width$}"),
            false => format!("{cell:width$}"),
        });
        lines.push(format!("  {}", padded.collect::<Vec<_>>().join("  ")).trim_end().to_owned());
    }
    lines.join("\n")
}

#[cfg(test)]
pub(super) mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::console::{Fleet, Point};

    /// A worker with a pool of so many partitions, of which the last is held and the first another's.
    pub(in crate::cli::top) fn sample(partitions: i32) -> State {
        let now_ms = 10_000_000;
        let partition = |number: i32| {
            let (is_first, is_last) = (number == 0, number == partitions - 1);
            Partition {
                topic: "message-events".to_owned(),
                partition: number,
                place: if is_first { Place::Elsewhere } else { Place::Here },
                owner: Some(Uuid::from_u128(0xa3f0_0000 << 96)),
                epoch: Some(3),
                state: (!is_first).then(|| if is_last { "held" } else { "working" }.to_owned()),
                why: is_last.then(|| "table messages is missing".to_owned()),
                since_ms: Some(now_ms - 4_000),
                next_offset: Some(100),
                end: Some(100 + i64::from(number) * 1_000),
                lag: Some(i64::from(number) * 1_000),
                lag_ms: (!is_first).then_some(2_100),
                batch: (!is_first).then_some(500),
                progress_ms: Some(now_ms - 700),
            }
        };
        let point = |second: i64| Point {
            at_ms: now_ms - 60_000 + second * 1_000,
            in_per_s: 4_000.0 + second as f64,
            out_per_s: 3_900.0,
            ..Point::default()
        };
        let pool = PoolState {
            name: "storage".to_owned(),
            group: "storage-consumer-group".to_owned(),
            joined: true,
            assigned: 3,
            held: 1,
            lag: 3_310,
            lag_ms: 2_100,
            partitions: (0..partitions).map(partition).collect(),
            fleet: Fleet { at_ms: Some(now_ms), lag: Some(6_000), dead_rows: Some(12), error: None },
            points: (0..60).map(point).collect(),
            ..PoolState::default()
        };
        State {
            instance: Uuid::nil(),
            version: "0.1.0".to_owned(),
            host: "worker-1".to_owned(),
            started_ms: now_ms - 5_400_000,
            now_ms,
            ready: true,
            healthy: true,
            phases: Vec::new(),
            pools: vec![PoolState { name: "push".to_owned(), ..PoolState::default() }, pool],
        }
    }

    #[test]
    fn the_text_tells_of_the_worker_its_pools_and_what_needs_a_look() {
        let text = text(&sample(4));
        for part in [
            "weir 0.1.0 on worker-1: ready, running for 90 min",
            "pool push",
            "behind 3,310  oldest 2.1 s  in/s 4,059  out/s 3,900  here 3  held 1  group behind 6,000  dead rows 12",
            "! held: message-events/3: table messages is missing",
            "a3f00000",
        ] {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
        let at = |name: &str| text.find(&format!("  message-events/{name}")).unwrap();
        assert!(at("3 ") < at("2 ") && at("2 ") < at("0 "), "the most behind first:\n{text}");
    }

    #[test]
    fn what_steers_a_terminal_is_not_printed() {
        let mut state = sample(2);
        state.pools[1].partitions[1].why = Some("\u{1b}[2Jgone".to_owned());
        state.host = "a\u{9b}b".to_owned();
        let text = text(&state);
        assert!(!text.contains('\u{1b}') && !text.contains('\u{9b}') && text.contains("\\u{1b}[2Jgone"), "{text}");
    }

    #[test]
    fn times_are_short() {
        let spans = [0, 950, 9_900, 61_000, 7_199_000, 7_200_000, 900_000_000].map(span);
        assert_eq!(spans, ["0.0 s", "0.9 s", "9.9 s", "61 s", "119 min", "2 h", "10 d"]);
    }
}
