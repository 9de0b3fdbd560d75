//! What is told of the process and the fleet, put together anew each time it is asked for.

use std::collections::HashMap;
use std::time::{Duration, Instant, SystemTime};

use super::history::behind;
use super::model::{Fleet, Partition, Place, PoolState, State};
use super::{Shown, Watched, ms};
use crate::admin::PoolReport;
use crate::metrics::Phase;
use crate::pool::lag::FleetPartition;
use crate::pool::{PartitionStanding, Phase as Doing};

impl Shown {
    /// Takes a second's look at every pool.
    pub(super) fn note(&self) {
        let (at, at_ms) = (Instant::now(), ms(SystemTime::now()));
        for pool in self.pools().iter_mut() {
            let standings = pool.standings();
            let figures = pool.metrics.figures();
            pool.history.note(at, at_ms, figures, &standings);
        }
    }

    /// Everything there is to tell, with the points that are younger than a moment.
    pub(super) fn state(&self, after_ms: i64) -> State {
        let report = self.health.report();
        let now_ms = ms(SystemTime::now());
        let pools = self
            .pools()
            .iter()
            .map(|pool| self.pool_state(pool, report.pools.get(&pool.name), now_ms, after_ms))
            .collect();
        State {
            instance: self.instance,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            host: self.host.clone(),
            started_ms: ms(self.started),
            now_ms,
            ready: report.ready,
            healthy: report.healthy,
            phases: Phase::labels().iter().map(|label| (*label).to_owned()).collect(),
            pools,
        }
    }

    fn pool_state(&self, pool: &Watched, report: Option<&PoolReport>, now_ms: i64, after_ms: i64) -> PoolState {
        let settings = self.config.pools.get(&pool.name).cloned().unwrap_or_default();
        let report = report.cloned().unwrap_or_default();
        let (figures, standings) = (pool.metrics.figures(), pool.standings());
        let (lag, lag_ms) = behind(&standings);
        let looked = self.fleet.last(&pool.name);
        let fleet = Fleet {
            at_ms: looked.partitions.as_ref().map(|(at, _)| ms(*at)),
            error: looked.error,
            lag: looked.partitions.as_ref().map(|(_, all)| all.iter().map(|one| one.records).sum()),
            dead_rows: looked.dead_rows,
        };
        PoolState {
            name: pool.name.clone(),
            group: settings.group_of(&pool.name).to_owned(),
            has_store: settings.needs_store(),
            topics: settings.topics,
            joined: report.joined,
            stalled: report.stalled,
            waiting_for: report.waiting_for,
            paused: report.paused,
            breakers: report.breakers,
            assigned: standings.len(),
            held: report.holds.iter().map(|hold| hold.held).sum(),
            lag,
            lag_ms,
            rate_per_s: figures.rate_per_s,
            transactions_limit: figures.transactions_limit,
            batch_limit: figures.batch_limit,
            desired_replicas: figures.desired_replicas,
            dead: figures.dead,
            dead_unpublished: figures.dead_unpublished,
            parked_keys: figures.parked_keys,
            rebalances: figures.rebalances,
            fences: figures.fences,
            processed_set: [figures.hits, figures.misses, figures.unknown],
            partitions: together(&standings, looked.partitions.as_ref().map_or(&[], |(_, all)| all), now_ms),
            fleet,
            points: pool.history.after(after_ms),
        }
    }
}

impl Watched {
    fn standings(&self) -> Vec<PartitionStanding> {
        self.standings.as_ref().map(crate::pool::Standings::list).unwrap_or_default()
    }
}

/// This process' partitions as they stand, and the others as the ledger has them; by topic and number.
fn together(standings: &[PartitionStanding], fleet: &[FleetPartition], now_ms: i64) -> Vec<Partition> {
    let rows: HashMap<(&str, i32), &FleetPartition> =
        fleet.iter().map(|one| ((one.topic.as_str(), one.partition), one)).collect();
    let here: HashMap<(&str, i32), &PartitionStanding> =
        standings.iter().map(|one| ((one.topic.as_str(), one.partition), one)).collect();
    let mut all: Vec<Partition> = standings
        .iter()
        .map(|one| of_here(one, rows.get(&(one.topic.as_str(), one.partition)).copied(), now_ms))
        .chain(fleet.iter().filter(|one| !here.contains_key(&(one.topic.as_str(), one.partition))).map(of_others))
        .collect();
    all.sort_by(|a, b| (&a.topic, a.partition).cmp(&(&b.topic, b.partition)));
    all
}

fn of_here(standing: &PartitionStanding, row: Option<&FleetPartition>, now_ms: i64) -> Partition {
    let why = match &standing.phase {
        Doing::Waiting(why) | Doing::Held(why) => Some(why.clone()),
        Doing::Queued(at) => Some((*at).to_owned()),
        Doing::TakingOver | Doing::Polling | Doing::Paused | Doing::Working => None,
    };
    let ago = |passed: Duration| now_ms - i64::try_from(passed.as_millis()).unwrap_or(i64::MAX);
    let ledger = row.and_then(|row| row.row);
    let behind = standing.behind;
    Partition {
        topic: standing.topic.clone(),
        partition: standing.partition,
        place: Place::Here,
        owner: standing.owner,
        // A row that was read before the last claim has the epoch of the owner before.
        epoch: ledger.filter(|row| row.owner == standing.owner).map(|row| row.epoch),
        state: Some(standing.phase.as_str().to_owned()),
        why,
        since_ms: Some(ago(standing.in_phase_for)),
        next_offset: standing.next_offset,
        end: behind.map(|behind| behind.end).or(row.map(|row| row.end)),
        lag: behind.map(|behind| behind.events).or(row.map(|row| row.records)),
        lag_ms: behind.map(|behind| behind.age_ms),
        batch: Some(standing.batch_events_max).filter(|events| *events > 0),
        progress_ms: standing.settled_ago.map(ago).or(ledger.map(|row| row.updated_ms)),
    }
}

fn of_others(one: &FleetPartition) -> Partition {
    Partition {
        topic: one.topic.clone(),
        partition: one.partition,
        place: if one.row.is_some_and(|row| row.owner.is_some()) { Place::Elsewhere } else { Place::Nobody },
        owner: one.row.and_then(|row| row.owner),
        epoch: one.row.map(|row| row.epoch),
        state: None,
        why: None,
        since_ms: None,
        next_offset: one.row.map(|row| row.next_offset),
        end: Some(one.end),
        lag: Some(one.records),
        lag_ms: (one.records == 0).then_some(0),
        batch: None,
        progress_ms: one.row.map(|row| row.updated_ms),
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::pool::Behind;
    use crate::store::LedgerRow;

    const NOW: i64 = 1_000_000;

    fn standing(partition: i32, phase: Doing) -> PartitionStanding {
        PartitionStanding {
            topic: "t".to_owned(),
            partition,
            phase,
            next_offset: Some(7),
            batch_events_max: 500,
            owner: Some(Uuid::from_u128(1)),
            behind: Some(Behind { end: 10, events: 3, age_ms: 2_000 }),
            in_phase_for: Duration::from_secs(4),
            settled_ago: Some(Duration::from_secs(5)),
        }
    }

    fn row(partition: i32, owner: Option<u128>, next_offset: i64) -> FleetPartition {
        let owner = owner.map(Uuid::from_u128);
        let row = LedgerRow { owner, epoch: 4, next_offset, updated_ms: NOW - 60_000 };
        FleetPartition { topic: "t".to_owned(), partition, end: 12, row: Some(row), records: 12 - next_offset }
    }

    #[test]
    fn what_the_process_knows_goes_before_what_the_ledger_said_a_while_ago() {
        let held = standing(1, Doing::Held("table missing".to_owned()));
        let nobody = FleetPartition { row: None, records: 12, ..row(3, None, 0) };
        let all = together(&[held], &[row(3, None, 0), row(1, Some(1), 5), row(2, Some(9), 12)], NOW);
        let [here, elsewhere, unclaimed] = &all[..] else { panic!("{all:?}") };
        assert_eq!((here.place, here.lag, here.lag_ms, here.end), (Place::Here, Some(3), Some(2_000), Some(10)));
        assert_eq!((here.state.as_deref(), here.why.as_deref()), (Some("held"), Some("table missing")));
        assert_eq!((here.epoch, here.since_ms, here.progress_ms), (Some(4), Some(NOW - 4_000), Some(NOW - 5_000)));
        assert_eq!((elsewhere.place, elsewhere.lag, elsewhere.lag_ms), (Place::Elsewhere, Some(0), Some(0)));
        assert_eq!((elsewhere.state.as_deref(), elsewhere.progress_ms), (None, Some(NOW - 60_000)));
        assert_eq!((unclaimed.place, unclaimed.lag, unclaimed.lag_ms), (Place::Nobody, Some(12), None));
        assert_eq!(together(&[], &[nobody], NOW)[0].place, Place::Nobody);
    }

    #[test]
    fn an_epoch_of_another_owner_is_not_told_as_this_ones() {
        let all = together(&[standing(1, Doing::Polling)], &[row(1, Some(9), 5)], NOW);
        assert_eq!((all.len(), all[0].epoch, all[0].owner), (1, None, Some(Uuid::from_u128(1))));
    }

    #[test]
    fn without_a_look_at_the_fleet_the_process_shows_its_own() {
        let all = together(&[standing(2, Doing::Polling), standing(0, Doing::Working)], &[], NOW);
        assert_eq!(all.iter().map(|one| one.partition).collect::<Vec<_>>(), [0, 2]);
        assert!(all.iter().all(|one| one.epoch.is_none() && one.lag == Some(3)));
    }

    #[test]
    fn a_process_without_pools_has_a_state() {
        let (metrics, health) = (crate::metrics::Metrics::new(), crate::admin::Health::new(["a"]));
        let config = crate::config::Config::default();
        let console = super::super::Console::new(&config, &["a".to_owned()], &metrics, &health);
        let state = console.0.state(0);
        assert_eq!((state.pools.len(), state.ready, state.healthy), (1, false, true));
        let read: State = serde_json::from_str(&serde_json::to_string(&state).unwrap()).unwrap();
        assert_eq!((read.instance, read.pools[0].name.as_str()), (state.instance, "a"));
    }
}
