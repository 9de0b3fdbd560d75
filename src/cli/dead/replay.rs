//! `weir dead replay`: asks the partitions' owners, and waits for what becomes of it.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde_json::json;
use uuid::Uuid;

use super::{Select, dead_rows};
use crate::cli::{one_pool, open_store, print};
use crate::config::Config;
use crate::store::{Asked, RequestStanding, Store};

/// How often the request is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// Has dead rows tried again
///
/// The worker that owns a row's partition replays it: all pipelines' effects and the row's removal in one transaction.
/// Without a worker the request stays, and is carried out as soon as one runs. An event that was settled meanwhile
/// leaves no second effect. The exit code is 1 if some were rejected again.
#[derive(Debug, clap::Args)]
#[command(after_help = crate::cli::examples!(
    "weir dead replay --dry-run",
    "weir dead replay --reason refused --since 2h --rate 100/s",
    "weir dead replay 0198f1c2-7d3e-7000-8000-000000000001 --wait 5m",
))]
pub(super) struct Args {
    /// Only these events
    #[arg(value_name = "ID")]
    ids: Vec<String>,
    /// The pool; may be left out where there is only one
    #[arg(long, value_name = "NAME")]
    pool: Option<String>,
    #[command(flatten)]
    select: Select,
    /// At most so many rows, the oldest first
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(i64).range(1..=1_000_000))]
    limit: i64,
    /// At most so many a second, such as 100/s
    #[arg(long, value_name = "N/s", value_parser = parse_rate)]
    rate: Option<f64>,
    /// Say what would be replayed, and ask for nothing
    #[arg(long)]
    dry_run: bool,
    /// How long to wait for the outcome; 0s asks and returns
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = humantime::parse_duration)]
    wait: Duration,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn parse_rate(text: &str) -> Result<f64, String> {
    let rate: Option<f64> = text.strip_suffix("/s").unwrap_or(text).parse().ok();
    rate.filter(|rate| (0.001..=1_000_000.0).contains(rate))
        .ok_or_else(|| format!("{text:?} is no rate: give events a second, such as 100/s"))
}

pub(super) async fn run(args: Args, config: &Config) -> anyhow::Result<ExitCode> {
    let pool = one_pool(args.pool.as_deref(), config)?;
    let store = open_store(config).await?;
    let mut filter = args.select.filter(&pool, args.limit);
    filter.ids = (!args.ids.is_empty()).then_some(args.ids);
    if args.dry_run {
        filter.without_bodies = true;
        let rows = store.dead_rows(&filter).await?;
        let (holding, free): (Vec<_>, Vec<_>) = rows.into_iter().partition(|row| row.holds_key);
        let ids: Vec<&str> = free.iter().map(|row| row.event_id.as_str()).collect();
        if args.json {
            print(&json!({ "pool": pool, "would_replay": ids, "holding": holding.len() }).to_string())?;
        } else {
            ids.iter().try_for_each(|id| print(&crate::cli::shown::safe(id)))?;
            print(&format!("{} of pool {pool} would be replayed", dead_rows(ids.len() as u64)))?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let request = Uuid::new_v4();
    let asked = store.request_replay(&filter, request, args.rate).await?;
    if asked == Asked::default() && filter.ids.is_some() {
        anyhow::bail!("pool {pool} has no dead row of these ids: `weir dead list` shows those it has");
    }
    let standing = outcome(&*store, request, args.wait).await?;
    let outcome = Outcome { pool: &pool, request, asked, standing };
    print(&if args.json { outcome.json() } else { outcome.text(args.wait) })?;
    Ok(if outcome.standing.rejected > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Waits until nothing of a request waits any more, or for as long as asked.
pub(super) async fn outcome(store: &dyn Store, request: Uuid, wait: Duration) -> anyhow::Result<RequestStanding> {
    let begun = Instant::now();
    loop {
        let standing = store.request_standing(request).await?;
        if standing.waiting.is_empty() || begun.elapsed() >= wait {
            return Ok(standing);
        }
        tokio::time::sleep(LOOK_AGAIN.min(wait)).await;
    }
}

/// What a request came to.
pub(super) struct Outcome<'a> {
    pub(super) pool: &'a str,
    pub(super) request: Uuid,
    pub(super) asked: Asked,
    pub(super) standing: RequestStanding,
}

impl Outcome<'_> {
    fn waiting(&self) -> u64 {
        self.standing.waiting.iter().map(|(.., rows)| rows.cast_unsigned()).sum()
    }

    fn replayed(&self) -> u64 {
        self.asked
            .asked
            .saturating_sub(self.waiting() + (self.standing.rejected + self.standing.stopped).cast_unsigned())
    }

    pub(super) fn json(&self) -> String {
        let Self { pool, request, asked, standing } = self;
        json!({
            "pool": pool,
            "request": request,
            "asked": asked.asked,
            "asked_before": asked.before,
            "holding": asked.holding,
            "replayed": self.replayed(),
            "rejected": standing.rejected,
            "stopped": standing.stopped,
            "waiting": self.waiting(),
        })
        .to_string()
    }

    pub(super) fn text(&self, wait: Duration) -> String {
        let Self { pool, asked, standing, .. } = self;
        let mut lines = vec![match asked.asked {
            0 => format!("pool {pool}: nothing to replay"),
            rows => format!(
                "pool {pool}: {} asked for: {} replayed, {} rejected again, {} wait",
                dead_rows(rows),
                self.replayed(),
                standing.rejected,
                self.waiting()
            ),
        }];
        if standing.rejected > 0 {
            lines.push("`weir dead list` shows why they were rejected again".to_owned());
        }
        if standing.stopped > 0 {
            lines.push(format!("{} stopped behind one of their key", dead_rows(standing.stopped.cast_unsigned())));
        }
        if self.waiting() > 0 {
            let places = standing.waiting.iter().take(10).map(|(topic, partition, _)| format!("{topic}/{partition}"));
            lines.push(format!(
                "after {} some still wait, on {}{}: the worker that owns the partition carries them out, and if none runs, \
                 as soon as one does",
                humantime::format_duration(wait),
                places.collect::<Vec<_>>().join(", "),
                if standing.waiting.len() > 10 { " and others" } else { "" }
            ));
        }
        if asked.before > 0 {
            lines.push(format!("{} asked for before", dead_rows(asked.before)));
        }
        if asked.holding > 0 {
            lines.push(format!(
                "{} left out: they hold their key back, and go with it by `weir dead release`",
                dead_rows(asked.holding)
            ));
        }
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_events_a_second() {
        assert_eq!(parse_rate("100/s"), Ok(100.0));
        assert_eq!(parse_rate("0.5"), Ok(0.5));
        for wrong in ["0/s", "-1", "fast", "100/m", "inf"] {
            assert!(parse_rate(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_still_waits_is_said_with_its_place_and_what_it_waits_for() {
        let outcome = Outcome {
            pool: "p",
            request: Uuid::nil(),
            asked: Asked { asked: 5, before: 1, holding: 2 },
            standing: RequestStanding { waiting: vec![("t".to_owned(), 3, 2)], rejected: 1, stopped: 0 },
        };
        let text = outcome.text(Duration::from_secs(60));
        assert!(text.contains("5 dead rows asked for: 2 replayed, 1 rejected again, 2 wait"), "{text}");
        assert!(text.contains("on t/3") && text.contains("1 dead row asked for before"), "{text}");
        assert!(text.contains("weir dead release"), "{text}");
    }
}
