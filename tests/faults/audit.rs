//! Holds the database against the book of what was acknowledged.

use std::collections::{BTreeMap, HashMap, HashSet};

use anyhow::Result;

use super::events::Fate;
use super::load::{Acked, Book};
use super::world::World;

/// Ids that a finding names.
const NAMED_MAX: usize = 3;

/// What is wrong, counted, and each kind in words.
#[derive(Debug, Default)]
pub(crate) struct Audit {
    pub(crate) events: u64,
    pub(crate) lost: u64,
    pub(crate) repeated: u64,
    pub(crate) out_of_order: u64,
    pub(crate) findings: Vec<String>,
}

impl Audit {
    fn tell<'a>(&mut self, what: &str, ids: impl Iterator<Item = &'a str>) -> u64 {
        let ids: Vec<&str> = ids.collect();
        if !ids.is_empty() {
            let named = ids.iter().take(NAMED_MAX).copied().collect::<Vec<_>>().join(", ");
            self.findings.push(format!("{}: {what}, such as {named}", ids.len()));
        }
        ids.len() as u64
    }
}

fn missing<'a>(book: &'a HashMap<String, Acked>, there: &'a HashSet<&str>) -> impl Iterator<Item = &'a str> {
    book.keys().map(String::as_str).filter(|id| !there.contains(id))
}

/// Where the missing ids stand in the log: from, to and how many, by partition.
fn places(book: &Book, there: &HashSet<&str>) -> String {
    let mut places: BTreeMap<i32, (i64, i64, u64)> = BTreeMap::new();
    for id in missing(&book.live, there) {
        for (partition, offset) in &book.live[id].at {
            let place = places.entry(*partition).or_insert((*offset, *offset, 0));
            *place = (place.0.min(*offset), place.1.max(*offset), place.2 + 1);
        }
    }
    let told = places.iter().map(|(partition, (from, to, count))| format!("{partition}: {count} of {from} to {to}"));
    told.collect::<Vec<_>>().join("; ")
}

/// G1, G2 and G3.
pub(crate) async fn audit(world: &World, book: &Book) -> Result<Audit> {
    let (rows, dead) = (world.db.live().await?, world.db.dead().await?);
    let live: HashSet<&str> = rows.iter().map(String::as_str).collect();
    let set_aside: HashSet<&str> = dead.iter().map(|(id, ..)| id.as_str()).collect();
    let mut audit = Audit { events: book.records, ..Audit::default() };

    audit.lost += audit.tell("acknowledged, and without a row", missing(&book.live, &live));
    if audit.lost > 0 {
        audit.findings.push(format!("they stand in the log at partition {}", places(book, &live)));
    }
    audit.lost +=
        audit.tell("acknowledged, can never succeed, and without a dead row", missing(&book.dead, &set_aside));
    let both = live.intersection(&set_aside).copied();
    audit.repeated += audit.tell("both live and dead", both);
    let unsure = |id: &&str| !book.unsure.contains(*id);
    let strangers = live.iter().copied().filter(|id| !book.live.contains_key(*id)).filter(unsure);
    audit.repeated += audit.tell("rows of nothing that was sent", strangers);
    let strangers = set_aside.iter().copied().filter(|id| !book.dead.contains_key(*id)).filter(unsure);
    audit.repeated += audit.tell("dead rows of what is no poison", strangers);
    let unnamed = dead.iter().filter(|(id, reason, message)| {
        let expected = book.dead.get(id).map(|acked| acked.kind.reason());
        message.is_empty() || expected.is_some_and(|expected| expected != reason)
    });
    audit.tell("dead rows with a wrong reason or none", unnamed.map(|(id, ..)| id.as_str()));
    debug_assert!(book.live.values().all(|acked| acked.kind.fate() == Fate::Live));

    let uncounted = uncounted(world, book).await?;
    let wrong = world.db.wrong_counters(&uncounted).await?;
    if wrong > 0 {
        audit.repeated += wrong.unsigned_abs();
        audit.findings.push(format!("{wrong} counters differ from a recount of distinct ids"));
    }
    audit.out_of_order = order(world, book).await?;
    if audit.out_of_order > 0 {
        audit.findings.push(format!("{} events took effect before their key's earlier ones", audit.out_of_order));
    }
    Ok(audit)
}

/// Ids all of whose records stand before the counting pipeline's begin on their partition.
async fn uncounted<'a>(world: &World, book: &'a Book) -> Result<Vec<&'a str>> {
    let begins = world.db.begins(&world.pool, world.topic_id, "stats").await?;
    let begins: HashMap<i32, i64> = begins.into_iter().collect();
    let is_before = |(partition, offset): &(i32, i64)| begins.get(partition).is_none_or(|begin| offset < begin);
    let before = book.live.iter().filter(|(_, acked)| acked.at.iter().all(is_before));
    Ok(before.map(|(id, _)| id.as_str()).collect())
}

/// Events whose transaction began before that of an earlier event of their conversation. A repeat on another partition
/// may come first and takes its row along, so these ids are left out.
async fn order(world: &World, book: &Book) -> Result<u64> {
    let elsewhere: Vec<&str> = book.elsewhere.iter().map(String::as_str).collect();
    Ok(world.db.overtaken(&elsewhere).await?.unsigned_abs())
}
