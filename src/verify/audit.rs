//! The audit of one pool, step by step.

use std::collections::HashSet;
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::runtime::Handle;
use uuid::Uuid;

use super::counters::{Named, Recount, Wrong, named};
use super::database::{Database, Ledger, Skipped, Table};
use super::events::{Digest, Event, KeyKind, Rules};
use super::ids::{Found, Ids, Occurrence};
use super::log::{Log, Place, Range};
use super::moment::{Counted, Moment};
use super::{Error, NAMED_MAX, PoolReport, Progress};
use crate::config::{Config, Pool, Start};

pub(super) struct Audit<'a> {
    name: &'a str,
    pool: &'a Pool,
    rules: Rules,
    runtime: &'a Handle,
    progress: &'a mut Progress,
    database: Database,
    tables: Vec<Table>,
    log: Log,
    /// Counters are the pool's alone: another pool that counts would add to the same ones.
    counts_alone: bool,
    report: PoolReport,
}

/// An id that has neither effect nor dead row although a record of it was passed.
struct Suspect {
    id: Digest,
    place: Place,
}

impl<'a> Audit<'a> {
    /// Opens both sides. The topics' ends are taken here.
    pub(super) fn of(
        config: &'a Config,
        name: &'a str,
        runtime: &'a Handle,
        progress: &'a mut Progress,
    ) -> Result<Self, Error> {
        let pool = config.pools.get(name).ok_or_else(|| Error::NoPool(name.to_owned()))?;
        let store = config.store.as_ref().ok_or(Error::NoStore)?;
        let mut database = runtime.block_on(Database::connect(store, config.startup_timeout))?;
        let tables = runtime.block_on(database.tables(pool))?;
        let log = Log::open(&config.kafka, &pool.topics, config.startup_timeout)?;
        let counting = config.pools.values().filter(|pool| counts(pool)).count();
        let rules = Rules::new(pool);
        let report = PoolReport::default();
        Ok(Self { name, pool, rules, runtime, progress, database, tables, log, counts_alone: counting == 1, report })
    }

    pub(super) fn run(mut self) -> Result<PoolReport, Error> {
        let mut occurrences = self.read(&self.log.whole())?;
        self.runtime.block_on(self.database.hold_still())?;
        let group = self.pool.group_of(self.name);
        let (ledger, topics) = self.runtime.block_on(self.database.ledger(group))?;
        let skipped = self.runtime.block_on(self.database.skipped(group))?;
        let newer = self.read_on(&ledger);
        occurrences.extend(self.read(&newer)?);
        self.report.records = occurrences.len() as u64;

        let mut ids = Ids::new(occurrences);
        let dead = self.look_up(&mut ids)?;
        let begins = self.runtime.block_on(self.database.begins(group))?;
        let guessed = self.guess_starts(&ids);
        let mut moment = Moment::new(self.pool, &self.log.partitions, &self.tables, &ledger, &begins, &guessed);
        let is_gone = |topic: &Uuid| self.log.partitions.iter().all(|partition| partition.topic_id != *topic);
        moment.has_older |= topics.iter().any(is_gone);
        moment.skipped = self.skipped(skipped);
        let suspects = self.judge(&ids, &moment)?;
        self.settle_suspects(suspects, &dead)?;
        if counts(self.pool) {
            self.check_counters(&ids, &moment)?;
        }
        self.runtime.block_on(self.database.release())?;
        Ok(self.report)
    }

    fn key(&self) -> KeyKind {
        self.tables.first().map_or(KeyKind::Text, |table| table.key)
    }

    /// Reads ranges into occurrences.
    fn read(&mut self, ranges: &[Range]) -> Result<Vec<Occurrence>, Error> {
        let (key, horizon_ms) = (self.key(), self.horizon_ms());
        let mut occurrences = Vec::new();
        self.each(ranges, |place, event| {
            let facts =
                event.counters.iter().fold(0_u32, |facts, counter| facts.rotate_left(5) ^ (counter.digest()[0] as u32));
            let is_old = event.record_ms < horizon_ms;
            occurrences.push(Occurrence { id: key.digest(&event.id), place, facts, is_old });
        })?;
        Ok(occurrences)
    }

    /// Shows every event of some ranges.
    fn each(&mut self, ranges: &[Range], mut show: impl FnMut(Place, Event)) -> Result<(), Error> {
        let Self { log, rules, progress, .. } = self;
        log.read(ranges, &mut **progress, |place, message| {
            let topic_id = log.partitions[place.partition()].topic_id;
            if let Some(event) = rules.event(topic_id, message) {
                show(place, event);
            }
        })
    }

    /// Extends the audit to what the pool had passed at the database's moment, and says what is to be read for it.
    fn read_on(&mut self, ledger: &Ledger) -> Vec<Range> {
        let mut newer = Vec::new();
        for (index, partition) in self.log.partitions.iter_mut().enumerate() {
            let next = ledger.get(&(partition.topic_id, partition.number)).copied().unwrap_or(0);
            if next > partition.end {
                newer.push(Range { partition: index, from: partition.end, to: next });
                partition.end = next;
            }
        }
        newer
    }

    fn skipped(&self, mut skipped: Skipped) -> Vec<Vec<std::ops::Range<i64>>> {
        let of = |partition: &super::log::Partition| skipped.remove(&(partition.topic_id, partition.number));
        self.log.partitions.iter().map(of).map(Option::unwrap_or_default).collect()
    }

    /// Notes where the database has the ids, and returns the digests of all dead rows.
    fn look_up(&mut self, ids: &mut Ids) -> Result<HashSet<Digest>, Error> {
        let key = self.key();
        let mut dead = HashSet::new();
        let Self { runtime, database, tables, name, .. } = self;
        runtime.block_on(async {
            for (index, table) in tables.iter().enumerate() {
                database.ids(table, |id| ids.note(key.digest(id), Found::table(index))).await?;
            }
            if tables.is_empty() {
                database.seen(name, |id| ids.note(key.digest(id), Found::table(0))).await?;
            }
            database
                .dead(name, |id| {
                    ids.note(key.digest(id), Found::DEAD);
                    dead.insert(key.digest(id));
                })
                .await
        })?;
        Ok(dead)
    }

    /// Where a pool that does not start at the beginning started, if it is not on record: at the latest, at the first
    /// record of a partition that is settled. Ids with several records do not say which of them was handled.
    fn guess_starts(&self, ids: &Ids) -> Vec<i64> {
        if self.pool.start == Start::Beginning {
            return vec![0; self.log.partitions.len()];
        }
        let mut starts = vec![i64::MAX; self.log.partitions.len()];
        for (occurrences, found) in ids.iter() {
            if let ([only], true) = (occurrences, found != Found::default()) {
                let start = &mut starts[only.place.partition()];
                *start = only.place.offset().min(*start);
            }
        }
        starts
    }

    /// Puts every id into one of the report's classes, but for those that a second look is due to.
    fn judge(&mut self, ids: &Ids, moment: &Moment) -> Result<Vec<Suspect>, Error> {
        let (mut suspects, mut repeated) = (Vec::new(), Vec::new());
        for (occurrences, found) in ids.iter() {
            let report = &mut self.report;
            let first = occurrences[0];
            report.unique_ids += 1;
            report.ambiguous += u64::from(is_ambiguous(occurrences));
            let is_whole = moment.is_whole(occurrences, found);
            report.persisted += u64::from(is_whole);
            report.dead_lettered += u64::from(found.is_dead());
            if found.has_effect() && found.is_dead() {
                report.repeated += 1;
                if repeated.len() < NAMED_MAX {
                    repeated.push(first.place);
                }
            }
            if is_whole || found.is_dead() {
                continue;
            }
            let mut passed = occurrences.iter().filter(|o| moment.has_passed(o.place)).peekable();
            let mut begun = occurrences.iter().filter(|o| moment.has_begun(o.place)).peekable();
            match occurrences.iter().find(|o| moment.is_handled(o.place)) {
                Some(occurrence) if occurrence.is_old && !found.has_effect() => {
                    report.forgotten += 1;
                }
                Some(occurrence) => suspects.push(Suspect { id: occurrence.id, place: occurrence.place }),
                None if begun.peek().is_some() => report.skipped += 1,
                None if passed.peek().is_some() => report.before_start += 1,
                None => report.pending += 1,
            }
        }
        self.report.repeated_ids = self.describe(&repeated)?;
        Ok(suspects)
    }

    /// A payload that a typed decoder refuses may have a readable id all the same. Such an event is dead under
    /// the id of its record, so this is looked for before anything is called lost.
    fn settle_suspects(&mut self, suspects: Vec<Suspect>, dead: &HashSet<Digest>) -> Result<(), Error> {
        if suspects.is_empty() {
            return Ok(());
        }
        let key = self.key();
        let places: HashSet<u64> = suspects.iter().map(|suspect| suspect.place.packed()).collect();
        let mut settled = HashSet::new();
        self.each(&self.log.spans(suspects.iter().map(|suspect| suspect.place)), |place, event| {
            if places.contains(&place.packed()) && dead.contains(&key.digest(&event.record_id)) {
                settled.insert(key.digest(&event.id));
            }
        })?;
        let lost: Vec<Place> = suspects.iter().filter(|s| !settled.contains(&s.id)).map(|s| s.place).collect();
        self.report.dead_lettered += settled.len() as u64;
        self.report.lost = lost.len() as u64;
        self.report.lost_ids = self.describe(&lost[..lost.len().min(NAMED_MAX)])?;
        Ok(())
    }

    /// Recounts the settled ids, one record each, and compares with the view.
    fn check_counters(&mut self, ids: &Ids, moment: &Moment) -> Result<(), Error> {
        if !self.counts_alone {
            self.report.notes.push("counters were not compared: several pools add to them".to_owned());
            return Ok(());
        }
        let recount = self.recount(ids, moment)?;
        let wrong = self.compare(recount, moment)?;
        self.report.counters_wrong = wrong.len() as u64;
        for Wrong { counter, expected, found } in wrong.into_iter().take(NAMED_MAX) {
            let counter = match counter {
                Named::Counter(counter) => Some(counter),
                Named::ByEvent(key, place) => {
                    let mut found = None;
                    self.each(&[self.log.one(place)], |_, event| {
                        found = named(&event.counters, key);
                    })?;
                    found
                }
            };
            let text = counter.map_or_else(|| "a counter whose event is gone".to_owned(), |c| c.to_string());
            self.report.wrong_counters.push(format!("{text}: counted {found}, expected {expected}"));
        }
        if moment.has_older {
            let note = "Kafka has deleted older events: counters that are too high were taken to count them";
            self.report.notes.push(note.to_owned());
        }
        Ok(())
    }

    fn recount(&mut self, ids: &Ids, moment: &Moment) -> Result<Recount, Error> {
        let (key, mut recount) = (self.key(), Recount::default());
        let forgets = self.tables.is_empty();
        self.each(&self.log.whole(), |place, event| {
            let Some((occurrences, found)) = ids.get(key.digest(&event.id)) else {
                return;
            };
            let first = occurrences[0];
            let is_settled = moment.is_whole(occurrences, found) || (forgets && first.is_old && !found.is_dead());
            match moment.is_counted(occurrences) {
                _ if !is_settled => {}
                Counted::Unknown => recount.exclude(&event.counters),
                Counted::No => {}
                Counted::Yes if is_ambiguous(occurrences) => recount.exclude(&event.counters),
                Counted::Yes if first.place == place => recount.add(&event.counters, place),
                Counted::Yes => {}
            }
        })?;
        Ok(recount)
    }

    fn compare(&mut self, mut recount: Recount, moment: &Moment) -> Result<Vec<Wrong>, Error> {
        let (mut compared, mut wrong) = (0, Vec::new());
        self.runtime.block_on(self.database.stats(|counter, count| {
            compared += 1;
            wrong.extend(recount.compare(counter, count, moment.has_older));
        }))?;
        let known = wrong.len();
        wrong.extend(recount.missing());
        self.report.counters_compared = compared + (wrong.len() - known) as u64;
        if recount.excluded() > 0 {
            self.report.notes.push(format!(
                "{} counters were left out: records of one id disagree in what they add to them",
                recount.excluded()
            ));
        }
        Ok(wrong)
    }

    /// Ids and places, read again from Kafka since only digests were kept.
    fn describe(&mut self, places: &[Place]) -> Result<Vec<String>, Error> {
        let mut described = Vec::new();
        for place in places {
            let mut id = None;
            self.each(&[self.log.one(*place)], |_, event| id = Some(event.id))?;
            let partition = &self.log.partitions[place.partition()];
            let id = id.unwrap_or_else(|| "(deleted meanwhile)".to_owned());
            described.push(format!("{id} at {}/{} offset {}", partition.topic, partition.number, place.offset()));
        }
        Ok(described)
    }

    /// Records from before this time may have been forgotten by a pool that keeps its ids in `weir_seen`.
    fn horizon_ms(&self) -> i64 {
        if !self.tables.is_empty() {
            return i64::MIN;
        }
        let horizon = SystemTime::now().checked_sub(self.pool.seen_horizon).unwrap_or(UNIX_EPOCH);
        let since_1970 = horizon.duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since_1970.as_millis()).unwrap_or(i64::MAX)
    }
}

fn counts(pool: &Pool) -> bool {
    pool.pipelines.iter().any(|pipeline| pipeline.handler == "analyze")
}

fn is_ambiguous(occurrences: &[Occurrence]) -> bool {
    occurrences.iter().any(|occurrence| occurrence.facts != occurrences[0].facts)
}
