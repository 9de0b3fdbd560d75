//! Events that can never succeed, and formats that change.

use std::time::Duration;

use anyhow::{Context as _, Result};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::{Message as _, Offset, TopicPartitionList};

use crate::case::{Case, RECOVERY_MAX};
use crate::events::{Kind, REFUSED_TEXT};
use crate::load::Mix;
use crate::until;

const FAULT: Duration = Duration::from_secs(10);

/// Found by bisecting; the neighbours commit.
pub(super) async fn poison(case: &mut Case<'_>) -> Result<()> {
    case.world.sql(&format!("ALTER TABLE messages ADD CHECK (content NOT LIKE '%{REFUSED_TEXT}%')")).await?;
    let odd = vec![Kind::OnlyTheDatabaseRefuses, Kind::Nul, Kind::CutOffJson];
    case.begin(2, Mix { odd_per_mille: 10, odd, ..Mix::default() }).await?;
    case.sleep(FAULT).await;
    case.fault_ends()?;
    case.recover().await?;
    let count =
        |book: &crate::load::Book| book.dead.values().filter(|a| a.kind == Kind::OnlyTheDatabaseRefuses).count();
    let found = count(&case.book());
    case.check(found > 0, || "nothing was sent that only the database refuses".to_owned());
    case.note(format!("{found} events found by bisecting"));
    Ok(())
}

/// What does not fit the dead-letter topic is mirrored as a pointer; what is merely large is handled.
pub(super) async fn oversized(case: &mut Case<'_>) -> Result<()> {
    let odd = vec![Kind::Large, Kind::LargeAndRefused, Kind::LargeAndRefused];
    case.begin(2, Mix { per_second: 500, odd_per_mille: 5, odd, ..Mix::default() }).await?;
    case.sleep(FAULT).await;
    case.fault_ends()?;
    case.recover().await?;
    until("every letter to be sent", RECOVERY_MAX, async || {
        Ok(case.world.count("SELECT count(*) FROM weir_dead WHERE published_at IS NULL").await? == 0)
    })
    .await?;
    let large = case.book().dead.values().filter(|acked| acked.kind == Kind::LargeAndRefused).count();
    let (letters, pointers) = letters(case)?;
    case.check(large > 0, || "no large event was sent".to_owned());
    case.check(pointers == large, || {
        format!("{large} large events refused, {pointers} pointers among {letters} letters")
    });
    let whole = "SELECT count(*) FROM weir_dead WHERE octet_length(value) > 1000000";
    let whole = case.world.count(whole).await?;
    case.check(whole == large as i64, || format!("{whole} of {large} dead rows have the whole value"));
    case.note(format!("{pointers} pointers among {letters} letters"));
    Ok(())
}

/// The letters on the dead-letter topic, and those without a value.
fn letters(case: &Case<'_>) -> Result<(usize, usize)> {
    let consumer: BaseConsumer =
        case.lab.kafka().set("group.id", "not-joined").set("enable.partition.eof", "false").create()?;
    let mirror = case.world.mirror();
    let metadata = consumer.fetch_metadata(Some(&mirror), RECOVERY_MAX)?;
    let mut list = TopicPartitionList::new();
    let mut expected = 0;
    for partition in metadata.topics()[0].partitions() {
        let (low, high) = consumer.fetch_watermarks(&mirror, partition.id(), RECOVERY_MAX)?;
        expected += usize::try_from(high - low)?;
        list.add_partition_offset(&mirror, partition.id(), Offset::Beginning)?;
    }
    consumer.assign(&list)?;
    let (mut letters, mut pointers) = (0, 0);
    while letters < expected {
        let letter = consumer.poll(Duration::from_secs(10)).context("a letter")??;
        letters += 1;
        pointers += usize::from(letter.payload().is_none());
    }
    Ok((letters, pointers))
}

/// Nothing panics, every reason is named, tombstones are counted.
pub(super) async fn malformed(case: &mut Case<'_>) -> Result<()> {
    let deep = [Kind::Deep, Kind::DeepContent, Kind::DeepOnly];
    let odd = [Kind::CutOffJson, Kind::NotJson, Kind::NotUtf8, Kind::Empty, Kind::Tombstone];
    let odd = odd.into_iter().chain(deep).collect();
    case.begin(2, Mix { odd_per_mille: 30, odd, ..Mix::default() }).await?;
    case.sleep(FAULT).await;
    case.fault_ends()?;
    case.recover().await?;
    let (sent, counted) = (case.book().tombstones, case.metric("weir_tombstones_total", ""));
    case.check(counted == sent as f64, || format!("{counted} of {sent} tombstones counted"));
    case.note(format!("{sent} tombstones"));
    Ok(())
}

/// The producers' format changes, and the table's: old and new land, or are set aside with their reason.
pub(super) async fn schema_changed(case: &mut Case<'_>) -> Result<()> {
    let odd = [Kind::NewSchema, Kind::NewSchema, Kind::NewSchema, Kind::NewSchema, Kind::BrokenSchema].to_vec();
    case.begin(2, Mix { odd_per_mille: 500, odd, ..Mix::default() }).await?;
    case.sleep(FAULT / 3).await;
    case.world.sql("ALTER TABLE messages ADD COLUMN edited boolean").await?;
    case.sleep(FAULT / 3).await;
    // PostgreSQL changes no type of a column that a view shows.
    case.world.sql("DROP VIEW readable_messages; ALTER TABLE messages ALTER COLUMN message_type TYPE bigint").await?;
    case.sleep(FAULT / 3).await;
    case.world.sql("ALTER TABLE messages DROP COLUMN edited").await?;
    case.sleep(FAULT / 3).await;
    case.fault_ends()?;
    case.recover().await?;
    let (new, broken) = {
        let book = case.book();
        let of = |kind| book.live.values().chain(book.dead.values()).filter(|acked| acked.kind == kind).count();
        (of(Kind::NewSchema), of(Kind::BrokenSchema))
    };
    case.note(format!("{new} events of the new format, {broken} of a broken one, three changes of the table"));
    Ok(())
}
