//! The simulated world: workers of the real pool code, what befalls them, and the promises they are held to.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use super::group::{Consumer, Group, Member};
use super::memory::{Bug, Connection, Data, Memory};
use super::{Effect, Frozen, PARTITIONS, PIPELINES, Plain, Simulated, Step, TOPIC, TOPIC_ID, WORKERS};
use crate::admin::Health;
use crate::config;
use crate::event::Record;
use crate::metrics::Metrics;
use crate::pipeline::{Decoding, Pipeline, Pipelines};
use crate::pool::control::Steering;
use crate::pool::pacing::Pacing;
use crate::pool::room::room;
use crate::pool::tasks::{Name, Tasks};
use crate::pool::transactions::Transactions;
use crate::pool::{Gate, Shared, Standings};
use crate::source::{Assigned, Queue, SourceHandle};
use crate::store;

/// Low, so that batches wait for their turns, and are stopped and taken over meanwhile. Every second worker has none, and
/// looks ahead.
const RATE: &str = "200/s";

/// A worker process.
struct Worker {
    member: Member,
    frozen: Frozen,
    tasks: Tasks<Simulated>,
}

pub(super) struct World {
    group: Group,
    memory: Memory,
    metrics: Metrics,
    workers: Vec<Option<Worker>>,
    members: usize,
    backup: Option<Data>,
    /// Partitions that were not claimed since the store went back: Kafka may be ahead of it.
    restored: HashMap<i32, i64>,
    /// The ledger as it was seen last, to see that it never goes back.
    last: BTreeMap<i32, store::LedgerRow>,
    /// What Kafka had last of a partition, and in which epoch of the ledger.
    committed: BTreeMap<i32, (i64, i64)>,
}

impl World {
    pub(super) fn new(bug: Option<Bug>) -> Self {
        let group = Group::default();
        for partition in 0..PARTITIONS {
            group.lock().log.insert(partition, Vec::new());
        }
        Self {
            group,
            memory: Memory::new(bug),
            metrics: Metrics::new(),
            workers: (0..WORKERS).map(|_| None).collect(),
            members: 0,
            backup: None,
            restored: HashMap::new(),
            last: BTreeMap::new(),
            committed: BTreeMap::new(),
        }
    }

    /// A worker by itself that reads these topics.
    pub(super) fn reading<const N: usize>(&self, topics: [&str; N]) -> Tasks<Simulated> {
        let member = 1;
        self.group.lock().members.insert(member);
        let shared = self.shared(member, &Frozen::new(), &topics);
        Tasks::new(shared, Standings::default(), Duration::from_secs(2))
    }

    /// Partitions of one event each.
    pub(super) async fn assign_to(&self, tasks: &mut Tasks<Simulated>, partitions: &[Name]) {
        for (topic, partition) in partitions.iter().cloned() {
            self.group.lock().log.insert(partition, vec![Record::new(0, format!("e{partition}"))]);
            self.group.split(1, partition);
            let group = self.group.clone();
            let queue = Queue::simulated(move || group.next(1, partition));
            tasks.spawn(vec![Assigned { topic, partition, queue }]).await;
        }
    }

    /// What a worker would serve.
    pub(super) fn scrape(&self) -> String {
        self.metrics.render()
    }

    fn shared(&self, member: Member, frozen: &Frozen, topics: &[&str]) -> Arc<Shared<Simulated>> {
        let connection = Arc::new(Connection { memory: self.memory.clone(), frozen: frozen.clone() });
        let pipeline = |name: &&'static str| {
            let handler = Box::new(Effect { pipeline: name, memory: self.memory.clone() });
            Pipeline { name: Arc::from(*name), when: None, handler }
        };
        let pool: Arc<str> = Arc::from("p");
        let store = Arc::clone(&connection) as Arc<dyn store::Store>;
        let pipelines = Pipelines::new(Arc::clone(&pool), store, PIPELINES.iter().map(pipeline).collect()).unwrap();
        let metrics = self.metrics.pool("p");
        let client = Consumer { group: self.group.clone(), member, frozen: frozen.clone() };
        let config = config::Pool {
            topics: topics.iter().map(|topic| (*topic).to_owned()).collect(),
            max_poll_records: 5,
            batch_linger: Duration::from_millis(2),
            reject_hold_ratio: 1.0,
            ..config::Pool::default()
        };
        let names = (Arc::clone(&pool), Arc::clone(&pool));
        // With one, its partitions take turns at having a batch in hand.
        let connections = if member.is_multiple_of(3) { 1 } else { PARTITIONS as usize };
        let rate = member.is_multiple_of(2).then(|| RATE.parse().unwrap());
        let pacing = Pacing::new(names.clone(), rate, None, metrics.clone());
        Arc::new(Shared {
            name: Arc::clone(&pool),
            group: Arc::clone(&pool),
            budget: config::Budget::of(&config::Kafka::default(), &config),
            decoding: Decoding::new(Box::new(Plain), &config),
            letters: None,
            told: crate::pool::told::Names::new(&config),
            config,
            pipeline_metrics: pipelines.names().map(|name| metrics.pipeline(name)).collect(),
            gate: Arc::new(Gate::new(Arc::clone(&pool), Arc::clone(&pipelines.store))),
            pipelines,
            processed: None,
            steering: Steering::new(names, pacing, metrics.clone(), Health::new([]).pool("simulated")),
            transactions: Some(Transactions::new(PARTITIONS as usize, metrics.clone())),
            source: SourceHandle::simulated(Arc::new(client)),
            begin: tokio::sync::Mutex::new(()),
            first_topics: vec![TOPIC.to_owned()].into(),
            topics: std::sync::Mutex::new(vec![TOPIC.to_owned()].into()),
            missing: std::sync::Mutex::default(),
            ledger_is_large: std::sync::atomic::AtomicBool::default(),
            connections,
            room: room(connections),
            assigned: std::sync::atomic::AtomicUsize::default(),
            retention: crate::pool::retention::Kept::default(),
            metrics,
        })
    }

    fn worker_of(&mut self, member: Member) -> Option<&mut Worker> {
        self.workers.iter_mut().flatten().find(|worker| worker.member == member)
    }

    pub(super) async fn take(&mut self, step: &Step) {
        match step {
            Step::Publish(partition, events) => self.publish(*partition, events),
            Step::Start(at) => self.start(*at).await,
            Step::Stop(at) => self.stop(*at).await,
            Step::Kill(at) => self.workers[*at] = None,
            Step::Freeze(at) => self.freeze(*at, true),
            Step::Thaw(at) => self.thaw(*at).await,
            Step::Expire(at) => self.expire(*at).await,
            Step::Move(partition, to) => self.move_partition(*partition, *to).await,
            Step::Commit(at) => self.commit(*at),
            Step::Look(at) => self.look(*at),
            Step::Fault(fault) => self.memory.fail(*fault),
            Step::EndIdle => self.memory.end_idle(),
            Step::Backup => self.backup = Some(self.memory.data()),
            Step::Restore => self.restore(),
            Step::Wait(ms) => tokio::time::sleep(Duration::from_millis(u64::from(*ms))).await,
        }
    }

    fn publish(&self, partition: i32, events: &[(u8, u8)]) {
        let mut state = self.group.lock();
        let log = state.log.get_mut(&partition).unwrap();
        for (id, kind) in events {
            let value = match kind {
                0 => format!("!{id}"),
                1 => format!("x{id}"),
                _ => format!("e{id}"),
            };
            let offset = log.len() as i64;
            log.push(Record::new(offset, value));
        }
    }

    async fn start(&mut self, at: usize) {
        if self.workers[at].is_some() {
            return;
        }
        self.members += 1;
        let (member, frozen) = (self.members, Frozen::new());
        let shared = self.shared(member, &frozen, &[TOPIC]);
        let tasks = Tasks::new(shared, Standings::default(), Duration::from_secs(2));
        self.workers[at] = Some(Worker { member, frozen, tasks });
        self.group.lock().members.insert(member);
        self.rebalance().await;
    }

    async fn stop(&mut self, at: usize) {
        let Some(worker) = self.workers[at].take_if(|worker| !*worker.frozen.0.borrow()) else { return };
        self.revoke(worker, None).await;
        self.rebalance().await;
    }

    /// The member gives partitions up: all of them for good, or one.
    async fn revoke(&mut self, mut worker: Worker, only: Option<i32>) {
        let names = |partitions: &mut dyn Iterator<Item = i32>| {
            partitions.map(|p| (TOPIC.to_owned(), p)).collect::<Vec<Name>>()
        };
        let names = match only {
            Some(partition) => names(&mut std::iter::once(partition)),
            None => names(&mut (0..PARTITIONS)),
        };
        worker.tasks.join(&names).await;
        // Refused or not, it is given up.
        worker
            .tasks
            .shared
            .source
            .watermarks
            .tell_last(&names, |offsets| self.group.commit_all(worker.member, offsets))
            .transpose()
            .ok();
        let mut state = self.group.lock();
        state.owners.retain(|partition, owner| *owner != worker.member || only.is_some_and(|only| only != *partition));
        if only.is_none() {
            state.members.remove(&worker.member);
            return;
        }
        drop(state);
        let free = self.workers.iter_mut().find(|slot| slot.is_none());
        *free.expect("it was taken out of one") = Some(worker);
    }

    fn freeze(&mut self, at: usize, frozen: bool) {
        if let Some(worker) = &self.workers[at] {
            worker.frozen.0.send_replace(frozen);
        }
    }

    /// It goes on, and hears only later that it was given up.
    async fn thaw(&mut self, at: usize) {
        self.freeze(at, false);
        tokio::time::sleep(Duration::from_millis(5)).await;
        let Some(worker) = self.workers[at].as_mut() else { return };
        if self.group.lock().members.contains(&worker.member) {
            return;
        }
        let names: Vec<Name> = worker.tasks.running.keys().cloned().collect();
        worker.tasks.join(&names).await;
        worker.tasks.shared.source.watermarks.give_up(&names);
        // It joins anew, as another member.
        self.workers[at] = None;
        self.start(at).await;
    }

    async fn expire(&mut self, at: usize) {
        let frozen = self.workers[at].as_ref().filter(|worker| *worker.frozen.0.borrow()).map(|worker| worker.member);
        let alive: HashSet<Member> = self.workers.iter().flatten().map(|worker| worker.member).collect();
        let is_silent = |member: &Member| !alive.contains(member) || Some(*member) == frozen;
        let silent: Vec<Member> = self.group.lock().members.iter().copied().filter(is_silent).collect();
        {
            let mut state = self.group.lock();
            state.members.retain(|member| !silent.contains(member));
            state.owners.retain(|_, owner| !silent.contains(owner));
        }
        self.rebalance().await;
    }

    /// Gives every partition without an owner to the member that has the fewest.
    async fn rebalance(&mut self) {
        for partition in 0..PARTITIONS {
            let chosen = {
                let state = self.group.lock();
                if state.owners.contains_key(&partition) {
                    continue;
                }
                let load = |member: &&Member| state.owners.values().filter(|owner| owner == member).count();
                state.members.iter().min_by_key(load).copied()
            };
            if let Some(member) = chosen {
                self.assign(member, partition).await;
            }
        }
    }

    /// A frozen member learns of it when it goes on; its tasks wait with it.
    async fn assign(&mut self, member: Member, partition: i32) {
        self.group.lock().owners.insert(partition, member);
        let group = self.group.clone();
        let Some(worker) = self.worker_of(member) else { return };
        group.split(member, partition);
        let frozen = worker.frozen.clone();
        let queue = Queue::simulated(move || if *frozen.0.borrow() { None } else { group.next(member, partition) });
        worker.tasks.spawn(vec![Assigned { topic: TOPIC.to_owned(), partition, queue }]).await;
    }

    async fn move_partition(&mut self, partition: i32, to: usize) {
        let Some(to) = self.workers[to].as_ref().map(|worker| worker.member) else { return };
        let Some(from) = self.group.lock().owners.get(&partition).copied() else { return };
        if from == to || !self.group.lock().members.contains(&to) {
            return;
        }
        let at = self.workers.iter().position(|worker| worker.as_ref().is_some_and(|worker| worker.member == from));
        // One that does not answer keeps it until it expires.
        let Some(worker) = at.and_then(|at| self.workers[at].take_if(|worker| !*worker.frozen.0.borrow())) else {
            return;
        };
        self.revoke(worker, Some(partition)).await;
        self.assign(to, partition).await;
    }

    fn commit(&mut self, at: usize) {
        let Some(worker) = self.workers[at].as_ref().filter(|worker| !*worker.frozen.0.borrow()) else { return };
        let watermarks = &worker.tasks.shared.source.watermarks;
        // Refused, it is told again.
        watermarks.tell(|offsets| self.group.commit_all(worker.member, offsets)).transpose().ok();
    }

    fn look(&self, at: usize) {
        if let Some(worker) = self.workers[at].as_ref().filter(|worker| !*worker.frozen.0.borrow()) {
            worker.tasks.check_ledger();
        }
    }

    fn restore(&mut self) {
        if let Some(backup) = self.backup.clone() {
            self.restored = backup.ledger.iter().map(|(partition, row)| (*partition, row.epoch)).collect();
            for partition in 0..PARTITIONS {
                self.restored.entry(partition).or_insert(0);
            }
            self.last.clear();
            self.committed.clear();
            self.memory.restore(backup);
        }
    }

    /// Every promise, as it must hold at any moment.
    pub(super) fn check(&mut self) -> Result<(), String> {
        let data = self.memory.data();
        for ((pipeline, id), count) in &data.effects {
            if *count != 1 {
                return Err(format!("event {id} has {count} effects in {pipeline}"));
            }
            if !data.seen.contains(id) {
                return Err(format!("event {id} has an effect and is not claimed"));
            }
        }
        for id in &data.seen {
            if PIPELINES.iter().any(|pipeline| !data.effects.contains_key(&((*pipeline).to_owned(), id.clone()))) {
                return Err(format!("event {id} lacks the effect of a pipeline"));
            }
            if data.dead.contains_key(id) {
                return Err(format!("event {id} has effects and a dead row"));
            }
        }
        let state = self.group.lock();
        for (partition, log) in &state.log {
            let Some(row) = data.ledger.get(partition) else { continue };
            for record in log.iter().filter(|record| record.offset < row.next_offset) {
                let id = id_of(*partition, record);
                if !data.seen.contains(&id) && !data.dead.contains_key(&id) {
                    return Err(format!("event {id} at {partition}@{} was passed and is nowhere", record.offset));
                }
            }
            if let Some(last) = self.last.get(partition)
                && (row.epoch < last.epoch || row.next_offset < last.next_offset)
            {
                return Err(format!("the ledger of {partition} went back from {last:?} to {row:?}"));
            }
            if self.restored.get(partition).is_some_and(|epoch| row.epoch > *epoch) {
                self.restored.remove(partition);
            }
            let committed = state.committed.get(partition).copied().unwrap_or(0);
            if committed > row.next_offset && !self.restored.contains_key(partition) {
                return Err(format!("Kafka has {committed} of {partition}, and the ledger {}", row.next_offset));
            }
            // A takeover asks the group by the ledger's offset before it claims: behind a restore that is lower.
            if let Some((epoch, before)) = self.committed.insert(*partition, (row.epoch, committed))
                && epoch == row.epoch
                && !self.restored.contains_key(partition)
                && committed < before
            {
                return Err(format!(
                    "Kafka's offset of {partition} went back from {before} to {committed} in epoch {epoch}"
                ));
            }
        }
        check_order(&state.log, &data)?;
        drop(state);
        self.last = data.ledger;
        Ok(())
    }

    /// All faults end; then everything must be settled, and Kafka told, within a minute.
    pub(super) async fn settle(&mut self) -> Result<(), String> {
        self.memory.calm();
        for at in 0..WORKERS {
            self.thaw(at).await;
        }
        for at in 0..WORKERS {
            self.expire(at).await;
        }
        self.start(0).await;
        for tick in 0..600 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            if tick % 50 == 0 {
                (0..WORKERS).for_each(|at| self.look(at));
            }
            (0..WORKERS).for_each(|at| self.commit(at));
            // What an open transaction of a process that is gone holds is freed by the idle time-out.
            self.check()?;
            let (data, state) = (self.memory.data(), self.group.lock());
            let is_settled = state.log.iter().all(|(partition, log)| {
                let end = log.len() as i64;
                data.ledger.get(partition).is_some_and(|row| row.next_offset == end)
                    && state.committed.get(partition).copied().unwrap_or(0) == end
            });
            if is_settled {
                return Ok(());
            }
        }
        let ends: Vec<_> = self.group.lock().log.values().map(Vec::len).collect();
        Err(format!(
            "not settled within a minute: log {ends:?}, ledger {:?}, Kafka {:?}",
            self.memory.data().ledger,
            self.group.lock().committed
        ))
    }
}

/// The events of a partition took effect in its order. One that is in the log twice may do so at either place.
fn check_order(log: &BTreeMap<i32, Vec<Record>>, data: &Data) -> Result<(), String> {
    let mut places: HashMap<String, Vec<(i32, i64)>> = HashMap::new();
    for (partition, records) in log {
        records
            .iter()
            .for_each(|record| places.entry(id_of(*partition, record)).or_default().push((*partition, record.offset)));
    }
    let mut last: HashMap<i32, i64> = HashMap::new();
    for id in &data.order {
        let Some([(partition, offset)]) = places.get(id).map(Vec::as_slice) else { continue };
        if let Some(before) = last.insert(*partition, *offset).filter(|before| before > offset) {
            return Err(format!("event {id} at {partition}@{offset} took effect after the one at {before}"));
        }
    }
    Ok(())
}

/// The id under which an event is settled.
fn id_of(partition: i32, record: &Record) -> String {
    let text = String::from_utf8(record.value.clone().unwrap().to_vec()).unwrap();
    match text.starts_with('!') {
        true => format!("{TOPIC_ID}:{partition}:{}", record.offset),
        false => text,
    }
}
