//! The broker: away, cut off, and topics that change under the group.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rdkafka::admin::{AdminOptions, NewTopic, TopicReplication};
use rdkafka::{Offset, TopicPartitionList};

use crate::SESSION_TIMEOUT;
use crate::case::{Case, RECOVERY_MAX};
use crate::load::Mix;
use crate::proxy::Weather;
use crate::until;
use crate::world::World;

const FAULT: Duration = Duration::from_secs(12);

/// No error that ends a worker, whether the broker stops or dies.
pub(super) async fn restarted(case: &mut Case<'_>) -> Result<()> {
    case.begin(3, Mix::default()).await?;
    let how = if case.rng.bool() { "stop" } else { "kill" };
    case.fault_begins()?;
    case.lab.service(how, "kafka").await?;
    case.lab.service("start", "kafka").await?;
    case.fault_ends()?;
    case.recover().await?;
    let fatal =
        case.workers.iter().find_map(|worker| worker.log().lines().find(|l| l.contains(" ERROR ")).map(str::to_owned));
    case.check(fatal.is_none(), || format!("a worker told an error: {}", fatal.unwrap_or_default()));
    case.note(format!("by {how}"));
    Ok(())
}

pub(super) async fn down(case: &mut Case<'_>) -> Result<()> {
    case.begin(3, Mix::default()).await?;
    case.load()?.burst(30_000);
    case.fault_begins()?;
    case.lab.service("stop", "kafka").await?;
    case.sleep(FAULT).await;
    case.lab.service("start", "kafka").await?;
    case.fault_ends()?;
    case.recover().await
}

/// One worker hears nothing from the broker: others take over, and it writes nothing from then on.
pub(super) async fn cut_off(case: &mut Case<'_>) -> Result<()> {
    case.begin(3, Mix::default()).await?;
    let at = case.rng.usize(0..case.workers.len());
    let (slot, pid, claims) = (case.workers[at].slot, case.workers[at].pid(), case.workers[at].claims());
    case.load()?.burst(30_000);
    case.fault_begins()?;
    case.lab.slots[slot].kafka.set(Weather::Held);
    let cut_at = Instant::now();
    until("others to have claimed its partitions", SESSION_TIMEOUT + Duration::from_secs(5), async || {
        let rows = case.world.ledger().await?;
        Ok(rows.iter().all(|row| row.owner.is_some_and(|owner| !claims.contains(&owner))))
    })
    .await?;
    let takeover = cut_at.elapsed();
    let by_it = format!("SELECT count(*) FROM messages WHERE writer = 'weir/{pid}'");
    let before = case.world.count(&by_it).await?;
    case.sleep(Duration::from_secs(30).saturating_sub(takeover)).await;
    let after = case.world.count(&by_it).await?;
    case.check(after == before, || format!("the old owner wrote {} rows", after - before));
    case.lab.slots[slot].kafka.set(Weather::Clear);
    case.fault_ends()?;
    case.recover().await?;
    case.note(format!("takeover {:.1} s", takeover.as_secs_f64()));
    case.shared().await.context("the worker that was cut off comes back")
}

/// The dead-letter topic is deleted, then forbidden: events go on, and the letters come later.
pub(super) async fn no_dead_letter_topic(case: &mut Case<'_>) -> Result<()> {
    let mix = Mix { odd_per_mille: 20, ..Mix::default() };
    case.begin(2, mix).await?;
    mirrored(case).await.context("before the fault")?;
    let mirror = case.world.mirror();
    case.world.delete_topic(case.lab, &mirror).await?;
    waiting(case).await.context("without the topic")?;
    case.sleep(Duration::from_secs(6)).await;
    let topic = NewTopic::new(&mirror, 1, TopicReplication::Fixed(1));
    for made in case.lab.admin()?.create_topics([&topic], &AdminOptions::new()).await? {
        made.map_err(|(topic, code)| anyhow::anyhow!("make topic {topic}: {code}"))?;
    }
    mirrored(case).await.context("the topic is there again")?;
    case.lab.service("deny", &mirror).await?;
    waiting(case).await.context("without the right to write the topic")?;
    case.sleep(Duration::from_secs(6)).await;
    case.lab.service("allow", &mirror).await?;
    case.fault_ends()?;
    case.recover().await?;
    mirrored(case).await.context("the topic may be written again")
}

const WAITING: &str =
    "SELECT count(*) FROM weir_dead WHERE published_at IS NULL AND created_at < now() - interval '3 s'";

/// Dead rows wait for their letters, and say so.
async fn waiting(case: &Case<'_>) -> Result<()> {
    until("dead rows to wait for their letters", RECOVERY_MAX, async || {
        let is_told = case.workers.iter().any(|worker| worker.log().contains("dead letters wait in weir_dead"));
        Ok(is_told && case.world.count(WAITING).await? > 0)
    })
    .await
}

async fn mirrored(case: &Case<'_>) -> Result<()> {
    until("every letter to be sent", RECOVERY_MAX, async || {
        let sent = case.world.count("SELECT count(*) FROM weir_dead WHERE published_at IS NOT NULL").await?;
        Ok(sent > 0 && case.world.count(WAITING).await? == 0)
    })
    .await
}

/// Records beyond the ledger's offsets are deleted: these partitions are held until a person accepts the loss.
pub(super) async fn log_truncated(case: &mut Case<'_>) -> Result<()> {
    case.begin(2, Mix::default()).await?;
    case.fault_begins()?;
    while !case.workers.is_empty() {
        case.stop_worker(0).await?;
    }
    case.load()?.burst(20_000);
    case.sleep(Duration::from_secs(2)).await;
    case.stop_load().await?;
    let cuts = truncate(case).await?;
    case.start_worker(0).await?;
    until("the partitions without a place in the log to be held", RECOVERY_MAX, async || {
        Ok(case.metric("weir_holds", "") == cuts.len() as f64)
    })
    .await?;
    case.sleep(Duration::from_secs(8)).await;
    let ready = case.workers[0].get("/readyz")?;
    case.check(ready.contains("events are missing"), || format!("/readyz does not say why: {ready}"));
    for (partition, (from, _)) in &cuts {
        let at = case.watch()?.ledger()[partition];
        case.check(at == *from, || format!("partition {partition} jumped from {from} to {at}"));
    }
    for partition in cuts.keys() {
        let partition = partition.to_string();
        let World { pool, topic, .. } = &case.world;
        let args = ["seek", pool, "--topic", topic, "--partition", &partition, "--to", "beginning", "--yes"];
        case.world.weir(case.lab, &args)?;
    }
    let accepted = accept_loss(case, &cuts);
    case.note(format!("{} partitions held; {accepted} ids of deleted records accepted as lost", cuts.len()));
    case.fault_ends()?;
    case.recover().await
}

/// Strikes the ids of deleted records from the book; says how many.
fn accept_loss(case: &Case<'_>, cuts: &HashMap<i32, (i64, i64)>) -> usize {
    let is_gone = |at: &(i32, i64)| cuts.get(&at.0).is_some_and(|(from, to)| (*from..*to).contains(&at.1));
    let mut book = case.book();
    let before = book.live.len() + book.dead.len();
    // One whose first copy is gone comes with a later one, after its key's next events.
    let later: Vec<String> =
        book.live.iter().filter(|(_, acked)| acked.at.iter().any(is_gone)).map(|(id, _)| id.clone()).collect();
    book.elsewhere.extend(later);
    book.live.retain(|_, acked| !acked.at.iter().all(is_gone));
    book.dead.retain(|_, acked| !acked.at.iter().all(is_gone));
    before - book.live.len() - book.dead.len()
}

/// Deletes records of a seeded half of the partitions up to beyond the ledger's offsets; from and to by partition.
async fn truncate(case: &mut Case<'_>) -> Result<HashMap<i32, (i64, i64)>> {
    let ends = case.book().ends.clone();
    let mut cuts = HashMap::new();
    let mut list = TopicPartitionList::new();
    for row in case.world.ledger().await? {
        let end = ends.get(&row.partition).copied().unwrap_or(0);
        let is_chosen = cuts.is_empty() || case.rng.bool();
        if is_chosen && end > row.next_offset + 100 {
            let to = case.rng.i64(row.next_offset + 50..end);
            list.add_partition_offset(&case.world.topic, row.partition, Offset::Offset(to))?;
            cuts.insert(row.partition, (row.next_offset, to));
        }
    }
    anyhow::ensure!(!cuts.is_empty(), "nothing was left to delete");
    case.lab.admin()?.delete_records(&list, &AdminOptions::new()).await?;
    Ok(cuts)
}

pub(super) async fn topic_made_again(case: &mut Case<'_>) -> Result<()> {
    case.begin(2, Mix::default()).await?;
    case.sleep(Duration::from_secs(3)).await;
    case.drain().await?;
    case.end_watch();
    let topic = case.world.topic.clone();
    case.world.delete_topic(case.lab, &topic).await?;
    case.sleep(Duration::from_secs(2)).await;
    case.book().ends.clear();
    case.world.make_topic(case.lab).await?;
    case.begin_watch()?;
    case.fault_begins()?;
    case.start_load(Mix::default())?;
    until("the new topic to be handled", RECOVERY_MAX, async || {
        let ledger = case.watch()?.ledger();
        Ok(!ledger.is_empty() && ledger.values().all(|at| *at > 0))
    })
    .await?;
    case.fault_ends()?;
    case.sleep(Duration::from_secs(3)).await;
    case.recover().await
}

pub(super) async fn partitions_added(case: &mut Case<'_>) -> Result<()> {
    case.begin(2, Mix::default()).await?;
    let total = case.world.partitions + case.rng.i32(2..=6);
    case.world.add_partitions(case.lab, total).await?;
    case.end_watch();
    case.begin_watch()?;
    // The first load's keys stay on their partitions; a second one uses all of them, with keys of its own.
    let first = case.take_load()?;
    until("the broker to lead the new partitions", RECOVERY_MAX, async || {
        case.start_load(Mix { keys_from: 10_000, ..Mix::default() })?;
        Ok(true)
    })
    .await?;
    case.sleep(Duration::from_secs(4)).await;
    first.stop().await?;
    case.fault_ends()?;
    let mut then = (0..total).map(|partition| (partition, 0)).collect();
    case.advanced(&mut then, RECOVERY_MAX).await.context("the new partitions")?;
    case.recover().await
}
