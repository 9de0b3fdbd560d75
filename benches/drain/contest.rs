//! Rounds in which each side drains the same backlog once, one after the other, and what is made of them.

use anyhow::{Result, ensure};

use crate::drain::{Left, Run, Workload, drain};
use crate::limits::{Rows, consumer_perf};
use crate::load::Backlog;
use crate::services::Services;
use crate::side::{Job, Side};

/// Who takes part.
pub(crate) struct Contest {
    pub(crate) title: &'static str,
    pub(crate) workload: Workload,
    /// By name; the others are compared with the first.
    pub(crate) sides: Vec<(String, Side)>,
    /// Whether the limits of database and broker are measured beside them.
    pub(crate) limits: bool,
}

/// The name under which the database's limit is told.
const COPY: &str = "COPY, 4 connections";

struct Row {
    name: String,
    runs: Vec<Run>,
}

impl Contest {
    pub(crate) async fn hold(&self, services: &Services, backlog: &Backlog, rounds: usize) -> Result<()> {
        println!("\n{}: {} events, {rounds} rounds", self.title, backlog.events);
        heading();
        let mut rows: Vec<Row> =
            self.sides.iter().map(|(name, _)| Row { name: name.clone(), runs: Vec::new() }).collect();
        let mut copies = Row { name: COPY.to_owned(), runs: Vec::new() };
        let (mut fetched, mut dumped, mut left): (Vec<f64>, Option<Rows>, Option<Left>) = (Vec::new(), None, None);
        for _ in 0..rounds {
            for ((name, side), row) in self.sides.iter().zip(&mut rows) {
                let mut run = drain(side, &Job::new(services, backlog, self.workload), 1).await?;
                line(name, backlog, &run);
                match &left {
                    Some(left) => {
                        ensure!(run.left == *left, "{name} left {:?}, {} {left:?}", run.left, self.sides[0].0);
                    }
                    None => left = Some(std::mem::take(&mut run.left)),
                }
                row.runs.push(run);
                if self.limits && dumped.is_none() {
                    dumped = Some(Rows::dump(services).await?);
                }
            }
            if let Some(dumped) = &dumped {
                let run = dumped.copy(services, backlog).await?;
                line(COPY, backlog, &run);
                ensure!(left.as_ref() == Some(&run.left), "COPY left {:?}, {} {left:?}", run.left, self.sides[0].0);
                copies.runs.push(run);
                fetched.push(consumer_perf(services, backlog)?);
            }
        }
        if self.limits {
            rows.push(copies);
        }
        self.tell(&rows, backlog);
        if let Some(rate) = median(fetched) {
            println!("the broker's own consumer, which drops what it reads: {rate:.0} events/s");
        }
        Ok(())
    }

    /// Medians, and ratios within each round.
    fn tell(&self, rows: &[Row], backlog: &Backlog) {
        println!(
            "\n{:<24} {:>10} {:>10} {:>8} {:>8} {:>9}   of {}: min, median, max",
            "medians", "events/s", "drained/s", "first s", "cpu s", "peak MiB", self.sides[0].0
        );
        for Row { name, runs } in rows {
            let of = |value: fn(&Run) -> f64| median(runs.iter().map(value)).unwrap_or(f64::NAN);
            let mut ratios: Vec<f64> =
                runs.iter().zip(&rows[0].runs).map(|(run, base)| base.seconds / run.seconds).collect();
            ratios.sort_by(f64::total_cmp);
            let (least, most) =
                (ratios.first().copied().unwrap_or(f64::NAN), ratios.last().copied().unwrap_or(f64::NAN));
            println!(
                "{name:<24} {:>10.0} {:>10.0} {:>8.2} {:>8.2} {:>9.0}   {least:.2}, {:.2}, {most:.2}",
                backlog.events as f64 / of(|run| run.seconds),
                backlog.events as f64 / of(|run| run.seconds - run.first_s),
                of(|run| run.first_s),
                of(|run| run.cpu_seconds),
                of(|run| run.peak_mib),
                median(ratios.iter().copied()).unwrap_or(f64::NAN),
            );
        }
    }
}

/// The upper one of the two in the middle; `None` of none.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

pub(crate) fn heading() {
    println!("{:<40} {:>10} {:>10} {:>8} {:>8} {:>9}", "run", "events/s", "drained/s", "s", "cpu s", "peak MiB");
}

pub(crate) fn line(name: &str, backlog: &Backlog, run: &Run) {
    let events = backlog.events as f64;
    let Run { seconds, first_s, cpu_seconds, peak_mib, .. } = run;
    println!(
        "{name:<40} {:>10.0} {:>10.0} {seconds:>8.2} {cpu_seconds:>8.2} {peak_mib:>9.0}",
        events / seconds,
        events / (seconds - first_s)
    );
}
