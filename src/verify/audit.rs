//! The audit of one pool, step by step.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::runtime::Handle;
use uuid::Uuid;

use super::counters::{Recount, Share, Shares, Wrong, named};
use super::database::{Database, Ledger, Moves, Table};
use super::events::{Event, KeyKind, MINUTE_MS, Rules};
use super::findings::Findings;
use super::identity::Identity;
use super::ids::{Entry, Found, Ids, Occurrence};
use super::log::{Log, Place, Range};
use super::moment::Moment;
use super::spill::{Disk, Sorter};
use super::story::{Counted, Stories, Story, Told};
use super::wants::Wants;
use super::{Error, PoolReport, Progress, Scope, Stage, Step, Wanted};
use crate::config::{self, Config, Pool, Start};
use crate::kafka::resolved;
use crate::store::{self, KeyType, made_ms};

pub(super) struct Audit<'a> {
    name: &'a str,
    pool: &'a Pool,
    since_ms: Option<i64>,
    wanted: Option<Arc<Wanted>>,
    /// Records from before this time may have been forgotten.
    horizon_ms: i64,
    rules: Rules,
    runtime: &'a Handle,
    progress: &'a mut Progress,
    disk: Disk,
    database: Database,
    tables: Vec<Table>,
    log: Log,
    /// Counters are the pool's alone: another pool that counts would add to the same ones.
    counts_alone: bool,
    report: PoolReport,
}

/// What was read, by event.
struct Read {
    identity: Identity,
    ids: Ids,
    shares: Shares,
    /// Records whose dead row goes by their position.
    dead: Sorter<8>,
    /// How far a counter's minute reaches beyond its record's own time, at most, in milliseconds.
    ahead_ms_max: i64,
}

impl<'a> Audit<'a> {
    /// Opens both sides. The topics' ends are taken here.
    pub(super) fn of(
        config: &'a Config,
        name: &'a str,
        scope: &Scope,
        runtime: &'a Handle,
        progress: &'a mut Progress,
    ) -> Result<Self, Error> {
        let pool = config.pools.get(name).ok_or_else(|| Error::NoPool(name.to_owned()))?;
        let store = config.store.as_ref().ok_or(Error::NoStore)?;
        let mut database = runtime.block_on(Database::connect(store, config.startup_timeout))?;
        let tables = runtime.block_on(database.tables(pool))?;
        let topics = runtime.block_on(resolved(&config.kafka, pool, config.startup_timeout))?.topics;
        let log = Log::open(&config.kafka, &topics, scope.since_ms, config.startup_timeout)?;
        let counting = config.pools.values().filter(|pool| counts(pool)).count();
        Ok(Self {
            name,
            pool,
            since_ms: scope.since_ms,
            wanted: scope.wanted.clone(),
            horizon_ms: runtime.block_on(horizon_ms(pool, &tables, store))?,
            rules: Rules::new(pool, runtime.block_on(Wants::of(pool, store))?),
            runtime,
            progress,
            disk: Disk::new(),
            database,
            tables,
            log,
            counts_alone: counting == 1,
            report: PoolReport::default(),
        })
    }

    pub(super) fn run(mut self) -> Result<PoolReport, Error> {
        let disk = self.disk.clone();
        let (ids, shares, dead) = (Ids::new(&disk), Shares::new(&disk), Sorter::new(&disk));
        let mut read = Read { identity: Identity::of(&self.tables), ids, shares, dead, ahead_ms_max: 0 };
        (self.progress)(Step::Doing(Stage::Kafka));
        self.read(&self.log.whole(), &mut read)?;
        self.runtime.block_on(self.database.hold_still())?;
        let group = self.pool.group_of(self.name);
        let (ledger, topics) = self.runtime.block_on(self.database.ledger(group))?;
        let moves = self.runtime.block_on(self.database.moves(group))?;
        let newer = self.read_on(&ledger);
        self.read(&newer, &mut read)?;

        (self.progress)(Step::Doing(Stage::Database));
        self.look_up(&mut read)?;
        (self.progress)(Step::Doing(Stage::Comparing));
        let begins = self.runtime.block_on(self.database.begins(group))?;
        let started_at =
            |starts: &[i64]| Moment::new(self.pool, &self.log.partitions, &self.tables, &ledger, &begins, starts);
        let from_the_first = started_at(&vec![0; self.log.partitions.len()]);
        let mut moment = started_at(&self.guess_starts(&mut read.ids, &from_the_first)?);
        let is_gone = |topic: &Uuid| self.log.partitions.iter().all(|partition| partition.topic_id != *topic);
        moment.has_older |= topics.iter().any(is_gone);
        moment.moved = self.moved(moves);
        let findings = self.judge(&mut read, &moment)?;
        self.tell(findings, &mut read.dead)?;
        self.runtime.block_on(self.database.release())?;
        Ok(self.report)
    }

    /// The horizon of a pool whose `messages` drops days: there it is the time of the id that says what may be forgotten.
    fn by_days(&self) -> Option<i64> {
        Some(self.horizon_ms).filter(|horizon_ms| !self.tables.is_empty() && *horizon_ms > i64::MIN)
    }

    /// Whether the pool's counters can be recounted.
    fn recounts(&self) -> bool {
        counts(self.pool) && self.counts_alone
    }

    /// Reads ranges and notes what their events are.
    fn read(&mut self, ranges: &[Range], read: &mut Read) -> Result<(), Error> {
        let (recounts, by_days) = (self.recounts(), self.by_days());
        let mut records = 0;
        self.each(ranges, |place, event| {
            records += 1;
            let id = read.identity.of_record(event.kind, &event.id);
            let mut facts = 0_u32;
            for counter in &event.counters {
                let share = Share::of(counter);
                facts = facts.rotate_left(5) ^ share.fact();
                if recounts {
                    read.shares.note(id, place, share)?;
                }
                let minutes_end_ms = counter.minute.saturating_add(1).saturating_mul(MINUTE_MS);
                read.ahead_ms_max = read.ahead_ms_max.max(minutes_end_ms.saturating_sub(event.record_ms));
            }
            let record_ms = told_apart_ms(&event, by_days, read.identity.key);
            let record = Occurrence { place, facts, record_ms, key: event.key };
            read.ids.note(id, Entry::Record(record))?;
            // What could not be decoded is dead under its header's id, without a type.
            match &event.alias {
                Some(alias) => read.ids.note(read.identity.of_row("", alias), Entry::Alias(place)),
                None => Ok(()),
            }
        })?;
        self.report.records += records;
        Ok(())
    }

    /// Shows every event of some ranges that is not older than the audit's begin.
    fn each(&mut self, ranges: &[Range], mut show: impl FnMut(Place, Event) -> Result<(), Error>) -> Result<(), Error> {
        let Self { log, rules, progress, since_ms, wanted, .. } = self;
        let is_audited = |event: &Event| {
            since_ms.is_none_or(|since_ms| event.record_ms >= since_ms)
                && wanted.as_ref().is_none_or(|wanted| wanted(&event.id))
        };
        log.read(ranges, &mut **progress, |place, message| {
            let topic_id = log.partitions[place.partition()].topic_id;
            match rules.event(topic_id, message) {
                Some(event) if is_audited(&event) => show(place, event),
                _ => Ok(()),
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

    fn moved(&self, mut moves: Moves) -> Vec<super::database::Moved> {
        let of = |partition: &super::log::Partition| moves.remove(&(partition.topic_id, partition.number));
        self.log.partitions.iter().map(of).map(Option::unwrap_or_default).collect()
    }

    /// Notes where the database has ids.
    fn look_up(&mut self, read: &mut Read) -> Result<(), Error> {
        let Self { runtime, database, tables, name, progress, log, .. } = self;
        let mut note = |kind: &str, id: &str, found, effect_us| {
            progress(Step::Done(1));
            read.ids.note(read.identity.of_row(kind, id), Entry::Found(found, effect_us))
        };
        runtime.block_on(async {
            for (index, table) in tables.iter().enumerate() {
                let found = Found::table(index);
                // The first table is the one whose transactions' times are compared.
                let says_when = index == 0 && table.says_when;
                database.ids(table, |id, effect_us| note("", id, found, effect_us.filter(|_| says_when))).await?;
            }
            if tables.is_empty() {
                database.seen(name, |kind, id| note(kind, id, Found::table(0), None)).await?;
            }
            database.replayed(name, |kind, id| note(kind, id, Found::REPLAYED, None)).await?;
            let dead = database.dead(name, |kind, id| {
                note(kind, id, Found::DEAD, None)?;
                match log.place(id) {
                    Some(place) => read.dead.push(place.packed().to_be_bytes()),
                    None => Ok(()),
                }
            });
            dead.await
        })
    }

    /// Where a pool that does not start at the beginning started, if it is not on record: at the latest, at the first
    /// record of a partition that is settled. Ids with several records do not say which of them was handled.
    fn guess_starts(&self, ids: &mut Ids, from_the_first: &Moment) -> Result<Vec<i64>, Error> {
        if self.pool.start == Start::Beginning {
            return Ok(vec![0; self.log.partitions.len()]);
        }
        let mut starts = vec![i64::MAX; self.log.partitions.len()];
        let mut stories = Stories::of(ids.entries()?);
        while let Some(told) = stories.next(from_the_first, |_| Ok(()))? {
            if let Told::Story(Story { found, records: 1, first, .. }) = told
                && found.is_settled()
            {
                let start = &mut starts[first.place.partition()];
                *start = first.place.offset().min(*start);
            }
        }
        Ok(starts)
    }

    /// Puts every id into one of the report's classes, but for those that may be dead under another id.
    fn judge(&mut self, read: &mut Read, moment: &Moment) -> Result<Findings, Error> {
        let mut findings = Findings::new(&self.disk);
        let mut recount = self.recounts().then(|| Recount::new(&self.disk));
        let mut stories = Stories::of(read.ids.entries()?);
        let mut shares = read.shares.by_id()?;
        let dead = &mut read.dead;
        while let Some(told) = stories.next(moment, |place| dead.push(place.packed().to_be_bytes()))? {
            let Told::Story(story) = told else { continue };
            self.judge_one(&story, moment, &mut findings)?;
            if let Some(recount) = &mut recount {
                let counted = self.counted(&story, moment);
                while let Some((place, share)) = shares.of(story.id)? {
                    match counted {
                        Counted::Yes if place == story.first.place => recount.add(share, place)?,
                        Counted::Unknown => recount.exclude(share)?,
                        Counted::Yes | Counted::No => {}
                    }
                }
            }
        }
        match recount {
            Some(recount) => self.check_counters(recount, moment, read.ahead_ms_max)?,
            None if counts(self.pool) => {
                self.report.notes.push("counters were not compared: several pools add to them".to_owned());
            }
            None => {}
        }
        Ok(findings)
    }

    fn judge_one(&mut self, story: &Story, moment: &Moment, findings: &mut Findings) -> Result<(), Error> {
        let (horizon_ms, by_days) = (self.horizon_ms, self.by_days().is_some());
        let (report, found) = (&mut self.report, story.found);
        report.unique_ids += 1;
        report.ambiguous += u64::from(story.is_ambiguous);
        let is_whole = story.is_whole(moment);
        report.persisted += u64::from(is_whole);
        report.dead_lettered += u64::from(found.is_dead());
        if found.has_effect() && found.is_dead() {
            report.repeated += 1;
            findings.repeated.note(story.first.place);
        }
        if let Some((key, effect_us)) = in_turn(story, moment) {
            findings.order.note(story.first.place, key, effect_us)?;
        }
        if is_whole || found.is_dead() {
            return Ok(());
        }
        match story.handled {
            Some(record) if record.record_ms < horizon_ms && (by_days || !found.has_effect()) => report.forgotten += 1,
            Some(record) => findings.suspects.push(record.place.packed().to_be_bytes())?,
            None if story.is_begun => report.skipped += 1,
            None if story.is_passed => report.before_start += 1,
            None => report.pending += 1,
        }
        Ok(())
    }

    fn counted(&self, story: &Story, moment: &Moment) -> Counted {
        let by_days = self.by_days().is_some();
        let is_old = (by_days || self.tables.is_empty()) && story.first.record_ms < self.horizon_ms;
        let is_forgotten = is_old && !story.found.is_dead();
        match story.is_counted() {
            // It came again after its day was dropped, or for the first time.
            _ if by_days && is_old && story.found.is_dead() => Counted::Unknown,
            _ if !story.is_whole(moment) && !is_forgotten => Counted::No,
            Counted::Yes if story.is_ambiguous => Counted::Unknown,
            counted => counted,
        }
    }

    /// Tells what was found, with its ids, read again from Kafka since only digests were kept.
    fn tell(&mut self, findings: Findings, dead: &mut Sorter<8>) -> Result<(), Error> {
        let Findings { repeated, mut suspects, order } = findings;
        self.report.repeated_ids = self.describe(repeated.iter())?;
        // A payload that a typed decoder refuses may have a readable id all the same. Such an event is dead under
        // the id of its record, so this is looked for before anything is called lost.
        let (lost, settled) = super::findings::without(&mut suspects, dead)?;
        self.report.lost = lost.count();
        self.report.dead_lettered += settled;
        self.report.lost_ids = self.describe(lost.iter())?;
        let order = order.compare()?;
        self.report.order_compared = order.events;
        self.report.out_of_order = order.out_of_order;
        for late in order.named {
            let named = self.describe([late.place, late.overtaken_by])?;
            self.report.out_of_order_ids.push(format!("{} took effect after {} of its key", named[0], named[1]));
        }
        Ok(())
    }

    /// Compares a recount with the view.
    fn check_counters(&mut self, mut recount: Recount, moment: &Moment, ahead_ms_max: i64) -> Result<(), Error> {
        let since_ms = self.since_ms.map(|since_ms| since_ms.saturating_add(ahead_ms_max));
        // Counters of an earlier minute may count events from before the audit's begin.
        let whole_from = since_ms.map(|since_ms| since_ms.saturating_add(MINUTE_MS - 1).div_euclid(MINUTE_MS));
        let counts_others = moment.has_older || self.wanted.is_some();
        let may_exceed = |minute: i64| counts_others || whole_from.is_some_and(|from| minute < from);
        self.runtime.block_on(
            self.database.stats(|counter, count| recount.stored(&counter, count, may_exceed(counter.minute))),
        )?;
        let compared = recount.compare()?;
        self.report.counters_compared = compared.counters;
        self.report.counters_wrong = compared.wrong;
        self.name_counters(&compared.named)?;
        let notes = &mut self.report.notes;
        if compared.excluded > 0 {
            notes.push(format!(
                "{} counters were left out: records of one id disagree in what they add to them",
                compared.excluded
            ));
        }
        if moment.has_older {
            notes
                .push("Kafka has deleted older events: counters that are too high were taken to count them".to_owned());
        } else if let Some(from) = whole_from {
            let minute = humantime::format_rfc3339_seconds(super::events::time_of(from));
            notes.push(format!(
                "counters of minutes before {minute} that are too high were taken to count events from before --since"
            ));
        }
        Ok(())
    }

    /// Names wrong counters: by the view, and those that it lacks by an event that they should count.
    fn name_counters(&mut self, wrong: &[Wrong]) -> Result<(), Error> {
        if wrong.is_empty() {
            return Ok(());
        }
        let mut names = vec![None; wrong.len()];
        self.runtime.block_on(self.database.stats(|counter, _| {
            let digest = counter.digest();
            if let Some(at) = wrong.iter().position(|wrong| wrong.counter == digest) {
                names[at] = Some(counter);
            }
            Ok(())
        }))?;
        for (Wrong { counter, place, expected, found }, mut name) in wrong.iter().zip(names) {
            if let (None, Some(place)) = (&name, place) {
                self.each(&[self.log.one(*place)], |_, event| {
                    name = named(&event.counters, *counter);
                    Ok(())
                })?;
            }
            let text = name.map_or_else(|| "a counter whose event is gone".to_owned(), |name| name.to_string());
            self.report.wrong_counters.push(format!("{text}: counted {found}, expected {expected}"));
        }
        Ok(())
    }

    /// Ids and places, read again from Kafka.
    fn describe(&mut self, places: impl IntoIterator<Item = Place>) -> Result<Vec<String>, Error> {
        let mut described = Vec::new();
        for place in places {
            let mut id = None;
            self.each(&[self.log.one(place)], |_, event| {
                id = Some(event.id);
                Ok(())
            })?;
            let partition = &self.log.partitions[place.partition()];
            let id = id.unwrap_or_else(|| "(deleted meanwhile)".to_owned());
            described.push(format!("{id} at {}/{} offset {}", partition.topic, partition.number, place.offset()));
        }
        Ok(described)
    }
}

/// Records from before this time may have been forgotten: by a pool that keeps its ids in `weir_seen`, or with a day of
/// `messages` that was dropped.
async fn horizon_ms(pool: &Pool, tables: &[Table], store: &config::Store) -> Result<i64, Error> {
    if tables.iter().any(|table| table.name == config::MESSAGES) {
        let days = store::open(store)?.days().await?;
        return Ok(days.map_or(i64::MIN, |days| days.known_from_ms));
    }
    if !tables.is_empty() {
        return Ok(i64::MIN);
    }
    let horizon = SystemTime::now().checked_sub(pool.seen_horizon).unwrap_or(UNIX_EPOCH);
    let since_1970 = horizon.duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok(i64::try_from(since_1970.as_millis()).unwrap_or(i64::MAX))
}

/// A record's time, on that side of the horizon of days on which the id's own time is.
fn told_apart_ms(event: &Event, by_days: Option<i64>, key: KeyKind) -> i64 {
    let Some(horizon_ms) = by_days else { return event.record_ms };
    let kind = if key == KeyKind::Uuid { KeyType::Uuid } else { KeyType::Text };
    match made_ms(&event.id, kind) {
        Some(made_ms) if made_ms < horizon_ms => event.record_ms.min(made_ms),
        _ => event.record_ms.max(horizon_ms),
    }
}

fn counts(pool: &Pool) -> bool {
    pool.pipelines.iter().any(|pipeline| pipeline.handler == "analyze")
}

/// An event whose time of effect says something about order, with its key. Where earlier records are not audited, an
/// effect older than its record is that of an earlier record of the id.
fn in_turn(story: &Story, moment: &Moment) -> Option<(u64, i64)> {
    let Story { found, records, handled, .. } = story;
    let (Some(key), Some(effect_us), Some(record)) = (story.first.key, story.effect_us, handled) else { return None };
    let is_one = *records == 1 && !found.is_dead() && !found.contains(Found::REPLAYED);
    let is_own = moment.sees_all() || effect_us / 1_000 >= record.record_ms;
    (is_one && is_own && !moment.was_moved(record.place)).then_some((key, effect_us))
}
