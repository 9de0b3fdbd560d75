//! Workers that die, stop, freeze, come and go.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::SESSION_TIMEOUT;
use crate::case::Case;
use crate::gaps::{self, Gaps};
use crate::group;
use crate::load::Mix;
use crate::proxy::Weather;
use crate::setting::Setting;
use crate::until;

use super::database::freeze_when;
use super::rates::rates_while;

/// Within what an heir must have moved every partition of a dead worker.
const TAKEOVER_MAX: Duration = Duration::from_secs(SESSION_TIMEOUT.as_secs() + 5);
/// As configured by default.
const DRAIN_DEADLINE: Duration = Duration::from_secs(20);
/// Of the row that kills: what is handled again after a kill is told from what Kafka's own offsets would bring back.
const BATCH_MAX: f64 = 50.0;
/// How long a partition that is handed over may be without an effect, in the median.
const HAND_OVER_MAX: Duration = Duration::from_secs(1);
/// How much longer one that stays may be without an effect while others move than in the calm, but for one time in a thousand.
const STAYS_LONGER_MAX: Duration = Duration::from_millis(100);
/// The part of the rate without it that a storm of rebalances has to leave.
const STORM_RATE_MIN: f64 = 0.2;
/// How long gaps are looked at before anybody joins or leaves.
const CALM: Duration = Duration::from_secs(12);
/// How often a frozen worker is put out of the group, which its heartbeat may tell it before it has done anything.
const EVICTIONS_MAX: usize = 6;
/// As rare as the session time-out allows.
const HEARTBEAT: Duration = Duration::from_millis(SESSION_TIMEOUT.as_millis() as u64 / 3 - 1);
/// How late Redis answers a worker that is to be caught outside a transaction.
const LATE_LOOK_UP: Duration = Duration::from_millis(100);
/// How much later the heirs of a suspended worker hear from the broker.
const HEIRS_LATE: Duration = Duration::from_millis(1_500);

/// Takeover in time; at most one batch a partition handled again, with the processed set off.
pub(crate) async fn killed(case: &mut Case<'_>) -> Result<()> {
    case.pool_lines = format!("processed_set = \"off\"\nmax_poll_records = {BATCH_MAX}\n");
    case.begin(3, Mix::default()).await?;
    let kills = if case.scale < 1.0 { 1 } else { 3 };
    let (mut slowest, mut duplicates, mut batches) = (Duration::ZERO, 0.0, 0.0);
    for _ in 0..kills {
        case.shared().await?;
        let pause = Duration::from_millis(case.rng.u64(0..1_500));
        case.sleep(pause).await;
        let at = case.rng.usize(0..case.workers.len());
        duplicates += case.workers[at].metric("weir_events_settled_total", "outcome=\"duplicate\"")?;
        batches += case.workers[at].metric("weir_partitions_assigned", "")?;
        case.fault_begins()?;
        case.workers[at].kill()?;
        let killed_at = Instant::now();
        let mut then = case.world.ledger().await?.iter().map(|row| (row.partition, row.next_offset)).collect();
        case.advanced(&mut then, TAKEOVER_MAX).await.context("takeover")?;
        slowest = slowest.max(killed_at.elapsed());
        case.fault_ends_after_session(killed_at).await?;
        let slot = case.bury(at);
        case.start_worker(slot).await?;
    }
    case.recover().await?;
    duplicates += case.metric("weir_events_settled_total", "outcome=\"duplicate\"");
    // Two pipelines count each duplicate.
    let repeats = case.book().repeats as f64;
    // What a worker counted just before it was killed is not seen.
    let again = (duplicates / 2.0 - repeats).max(0.0);
    case.check(again <= BATCH_MAX * batches, || format!("{again} events were handled again after {kills} kills"));
    let at_most = BATCH_MAX * batches;
    case.note(format!(
        "{kills} kills; slowest takeover {:.1} s; {again} events handled again, of {at_most} that may be",
        slowest.as_secs_f64()
    ));
    Ok(())
}

/// Exit 0 within the drain deadline; what it had handled nobody gets again: Kafka's offsets reach the ledger's.
pub(crate) async fn terminated(case: &mut Case<'_>) -> Result<()> {
    case.begin(3, Mix::default()).await?;
    case.load()?.burst(30_000);
    case.sleep(Duration::from_millis(500)).await;
    let at = case.rng.usize(0..3);
    let claims = case.workers[at].claims();
    case.fault_begins()?;
    let took = case.stop_worker(at).await?;
    // A static member's partitions wait for its return until its session is over.
    if case.world.setting == Setting::Static {
        let ended_at = Instant::now();
        let mut then = case.world.ledger().await?.iter().map(|row| (row.partition, row.next_offset)).collect();
        case.advanced(&mut then, TAKEOVER_MAX).await.context("takeover")?;
        case.fault_ends_after_session(ended_at).await?;
    } else {
        case.fault_ends()?;
    }
    case.check(took < DRAIN_DEADLINE, || format!("it took {took:.1?}"));
    let log = case.last_words();
    let owned = claims.len();
    case.check(!log.contains("fenced"), || {
        "a fence was met: somebody took a partition over that was not given up".to_owned()
    });
    case.recover().await?;
    // An event that is fetched again although it is settled is below the heir's ledger offset, or a duplicate.
    let (consumed, settled) = redelivered(case)?;
    case.note(format!(
        "drained in {:.1} s, {owned} claims; heirs took {consumed}, settled {settled}",
        took.as_secs_f64()
    ));
    case.check(consumed == settled, || format!("heirs were given {consumed} events and settled {settled} anew"));
    Ok(())
}

/// Events taken by the workers that live, and those that they settled, by one pipeline's count.
fn redelivered(case: &Case<'_>) -> Result<(f64, f64)> {
    let (mut consumed, mut settled) = (0.0, 0.0);
    for worker in &case.workers {
        consumed += worker.metric("weir_events_consumed_total", "")?;
        settled += worker.metric("weir_events_settled_total", "pipeline=\"persist\"")?;
        settled += worker.metric("weir_dead_events_total", "reason=\"malformed\"")?;
    }
    Ok((consumed, settled))
}

/// Frozen with work in hand, once until its session is over, which its own clock tells it when it awakes; and then, until
/// it was fenced, shorter while the coordinator puts it out of the group, of which it learns by its next heartbeat. Its
/// heirs' broker answers late when it awakes: so they have left it something to write, and it cannot be a member again so
/// soon.
pub(crate) async fn frozen(case: &mut Case<'_>) -> Result<()> {
    case.begin(2, Mix::default()).await?;
    let zombie = zombie_of(case);
    // Under KIP-848 the broker has the heartbeats, and no clock of the zombie's own tells it that its session is over: it
    // needs not be put out of the group.
    let evicted = (case.world.setting != Setting::Consumer).then_some(zombie.as_str());
    start_zombie(case).await?;
    freeze(case, None).await?;
    let mut evictions = 0;
    let mut fences = 0.0;
    while evictions < EVICTIONS_MAX && fences == 0.0 {
        let before = case.workers[2].metric("weir_fences_total", "")?;
        freeze(case, evicted).await?;
        fences = case.workers[2].metric("weir_fences_total", "")? - before;
        evictions += 1;
    }
    case.check(fences > 0.0, || "the zombie's fencing is not counted".to_owned());
    case.recover().await?;
    let how = evicted.map_or("frozen again", |_| "put out of the group");
    case.note(format!("{how} {evictions} times, then fenced {fences} times"));
    Ok(())
}

/// The client's id of the worker that is frozen.
fn zombie_of(case: &Case<'_>) -> String {
    format!("zombie-{}", case.world.pool)
}

async fn start_zombie(case: &mut Case<'_>) -> Result<()> {
    let heartbeat = match case.world.setting {
        Setting::Consumer => String::new(),
        _ => format!("heartbeat_interval_ms = {}\n", HEARTBEAT.as_millis()),
    };
    case.kafka_lines = format!("{heartbeat}[kafka.options]\nclient_id = \"{}\"\n", zombie_of(case));
    // It is stopped and awakened until it is caught outside a transaction: Redis is waited for all the same.
    case.redis_lines = "deadline = \"5s\"\n".to_owned();
    case.start_worker(2).await?;
    case.redis_lines.clear();
    case.kafka_lines.clear();
    Ok(())
}

/// Freezes the last worker with work in hand, has it put out of the group if it is named, and awakens it when others own
/// its partitions; until it owns some again.
async fn freeze(case: &mut Case<'_>, evicted: Option<&str>) -> Result<()> {
    case.shared().await?;
    case.moving().await?;
    case.load()?.burst(60_000);
    case.fault_begins()?;
    // In no transaction: what it does next begins with the fence. One of its partitions is nearly always in one, unless they
    // wait for Redis with a batch in hand.
    let redis = &case.lab.slots[case.workers[2].slot].redis;
    redis.set(Weather::Slow(LATE_LOOK_UP));
    let frozen = freeze_when(case, 2, false).await;
    redis.set(Weather::Clear);
    frozen?;
    let frozen_at = Instant::now();
    if let Some(member) = evicted {
        group::evict(case.lab, &case.world.pool, member)?;
    }
    awaken(case, 2, frozen_at).await?;
    case.fault_ends()?;
    let Err(error) = case.shared().await else { return Ok(()) };
    // A static member that comes back while an answer to its former self is under way is told that another has its id; it
    // ends, as librdkafka would have it, and its supervisor starts it anew.
    let ended = case.workers[2].has_died().is_some() && case.workers[2].log().contains("kafka.group_instance_id");
    if case.world.setting != Setting::Static || !ended {
        return Err(error.context("the zombie to own partitions again"));
    }
    case.note("the zombie was fenced by its own return, and was started anew");
    case.bury(2);
    start_zombie(case).await?;
    case.shared().await.context("the worker in the zombie's place to own partitions")
}

/// Waits until others own all partitions of a frozen worker, lets it go on, and looks at what it does.
async fn awaken(case: &mut Case<'_>, at: usize, frozen_at: Instant) -> Result<()> {
    let claims = case.workers[at].claims();
    until("others to have claimed its partitions", TAKEOVER_MAX, async || {
        let rows = case.world.ledger().await?;
        Ok(rows.iter().all(|row| row.owner.is_some_and(|owner| !claims.contains(&owner))))
    })
    .await?;
    let takeover = frozen_at.elapsed();
    let heirs: Vec<usize> = case.workers[..at].iter().map(|worker| worker.slot).collect();
    let late = match case.world.setting {
        // librdkafka gives a heartbeat of this protocol up after 1.1 s, and misses the assignment that came with it.
        Setting::Consumer => HEIRS_LATE / 5,
        _ => HEIRS_LATE,
    };
    heirs.iter().for_each(|slot| case.lab.slots[*slot].kafka.set(Weather::Slow(late)));
    let pid = case.workers[at].pid();
    let by_it = format!("SELECT count(*) FROM messages WHERE writer = 'weir/{pid}'");
    let before = case.world.count(&by_it).await?;
    case.workers[at].signal("CONT")?;
    tokio::time::sleep(late).await;
    let (after, rows) = (case.world.count(&by_it).await?, case.world.ledger().await?);
    let own = case.workers[at].claims();
    let taken = rows.iter().filter(|row| row.owner.is_some_and(|owner| own.contains(&owner))).count();
    case.check(after == before, || format!("the zombie wrote {} rows", after - before));
    case.check(taken == 0, || format!("the zombie claimed {taken} partitions that others owned"));
    heirs.iter().for_each(|slot| case.lab.slots[*slot].kafka.set(Weather::Clear));
    case.note(format!("taken over after {:.1} s", takeover.as_secs_f64()));
    Ok(())
}

/// A third worker joins, and leaves after two seconds; how often it was fenced.
async fn visit(case: &mut Case<'_>) -> Result<usize> {
    case.start_worker(2).await?;
    case.sleep(Duration::from_secs(2)).await;
    case.stop_worker(2).await?;
    case.sleep(Duration::from_secs(2)).await;
    Ok(case.last_words().lines().filter(|line| line.contains("fenced: ")).count())
}

/// A member joins and leaves, over and over: no partition is stranded, the rate holds, and what moves is soon at work
/// again.
pub(super) async fn come_and_go(case: &mut Case<'_>) -> Result<()> {
    let mut visitors_fenced = 0;
    let rates = rates_while(case, (600_000, 2), async |case| {
        visitors_fenced += visit(case).await?;
        Ok(())
    })
    .await?;
    case.check(rates.ratio() >= STORM_RATE_MIN, || format!("the rate fell to {rates}"));
    case.note(format!("the rate: {rates}"));
    case.drain().await?;
    case.start_load(Mix::default())?;
    case.moving().await?;
    gaps::note_claims(case).await?;
    let calm_since = gaps::now_s();
    case.sleep(CALM).await;
    let moving_since = gaps::now_s();
    let end = Instant::now() + Duration::from_secs(60).mul_f64(case.scale);
    let mut visits = 0;
    while Instant::now() < end {
        visitors_fenced += visit(case).await?;
        visits += 1;
    }
    case.fault_ends()?;
    let moved_until = gaps::now_s();
    case.recover().await?;
    // Whoever gives a partition up has ended its task.
    let fences = visitors_fenced as f64 + case.metric("weir_fences_total", "");
    case.check(fences == 0.0, || {
        format!("{fences} fences were met, and every partition was given up before it was taken")
    });
    case.note(format!("{visits} visits"));
    let Gaps { hand_overs, calm, unmoved, longest } =
        gaps::measure(case, (calm_since, moving_since), (moving_since, moved_until)).await?;
    let median = *hand_overs.get(hand_overs.len() / 2).context("no partition moved")?;
    // A static member that stops leaves its partitions waiting for its return.
    let is_handed_over = case.world.setting != Setting::Static;
    case.check(!is_handed_over || median <= HAND_OVER_MAX, || {
        format!("a partition that moved stood still for {median:.1?} in the median")
    });
    case.check(unmoved <= calm + STAYS_LONGER_MAX, || {
        format!(
            "a partition that stayed stood still for {unmoved:.0?}, and in the calm for {calm:.0?} (99.9th percentile)"
        )
    });
    case.note(format!(
        "{} partitions moved, without an effect for {median:.0?} in the median and {:.0?} at most; those that stayed for \
         {unmoved:.0?} at most ({}), against {calm:.0?} in the calm (99.9th percentile)",
        hand_overs.len(),
        hand_overs.last().copied().unwrap_or_default(),
        longest.map_or_else(|| "none".to_owned(), |(partition, at)| format!("partition {partition} at {at:.3}")),
    ));
    Ok(())
}
