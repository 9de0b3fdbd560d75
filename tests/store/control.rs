//! What operators ask of a running group.

use std::time::Duration;

use weir::store::{Change, Control};

use super::World;

fn pause(lasts: Option<Duration>) -> Change {
    Change::Pause { lasts, reason: Some("“index”".to_owned()) }
}

async fn change(world: &World, change: &Change) -> (Control, Control) {
    world.store.change_control("g", "p", change, "me@here").await.unwrap()
}

pub(super) async fn a_pause_is_seen_until_it_is_ended_or_runs_out(world: World) {
    assert_eq!(world.store.control("g").await.unwrap(), Control::default(), "nothing was asked");
    let (before, after) = change(&world, &pause(None)).await;
    assert_eq!(before, Control::default());
    let seen = world.store.control("g").await.unwrap();
    assert_eq!(seen, after);
    let kept = seen.pause.unwrap();
    assert_eq!((kept.by.as_str(), kept.reason.as_deref(), kept.until_ms), ("me@here", Some("“index”"), None));
    assert_eq!(world.store.control("other").await.unwrap(), Control::default());

    let brief = Duration::from_millis(700);
    let (_, after) = change(&world, &pause(Some(brief))).await;
    let until_ms = after.pause.unwrap().until_ms.unwrap();
    assert!((until_ms - kept.since_ms - 700).abs() < 60_000, "{until_ms} by the database's clock");
    let begun = std::time::Instant::now();
    while world.store.control("g").await.unwrap().pause.is_some() {
        assert!(begun.elapsed() < Duration::from_secs(30), "it does not run out");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let (before, _) = change(&world, &pause(None)).await;
    assert_eq!(before.pause, None, "the one before has run out");
    let (before, after) = change(&world, &Change::Resume).await;
    assert!(before.pause.is_some() && after.pause.is_none());
    assert_eq!(world.store.control("g").await.unwrap(), Control::default());
}

pub(super) async fn a_rate_that_is_set_stays_beside_a_pause(world: World) {
    let rate = |text: &str| Change::Rate(text.parse().ok());
    change(&world, &rate("300/m")).await;
    let first = world.store.control("g").await.unwrap().rate.unwrap();
    assert_eq!(first.to_string(), "300/m");
    change(&world, &pause(None)).await;
    let both = world.store.control("g").await.unwrap();
    assert!(both.pause.is_some() && both.rate == Some(first), "{both:?}");
    change(&world, &rate("none")).await;
    change(&world, &Change::Resume).await;
    let seen = world.store.control("g").await.unwrap();
    let set = seen.rate.unwrap();
    assert!(set.rate.is_none() && seen.pause.is_none() && set.at_ms >= first.at_ms, "{seen:?}");
    change(&world, &Change::DefaultRate).await;
    assert_eq!(world.store.control("g").await.unwrap(), Control::default());
}

pub(super) async fn every_change_leaves_a_row_with_who_did_it(world: World) {
    for asked in [pause(None), Change::Resume, Change::Rate("5000/s".parse().ok()), Change::DefaultRate] {
        change(&world, &asked).await;
    }
    for (what, from, to, reason) in [
        ("pause", "running", "paused", "reason = '“index”'"),
        ("resume", "paused", "running", "reason IS NULL"),
        ("rate", "default", "5000/s", "reason IS NULL"),
        ("rate", "5000/s", "default", "reason IS NULL"),
    ] {
        let rows = format!(
            "SELECT count(*) FROM weir_control_log WHERE group_name = 'g' AND pool = 'p' AND what = '{what}'
                AND from_state = '{from}' AND to_state = '{to}' AND changed_by = 'me@here' AND {reason}"
        );
        assert_eq!(world.number(&rows).await, 1, "{what} from {from} to {to}");
    }
    assert_eq!(world.number("SELECT count(*) FROM weir_control_log").await, 4);
    assert_eq!(world.number("SELECT count(*) FROM weir_control").await, 1, "one row a group");
}

pub(super) async fn of_two_changes_at_once_the_later_one_sees_the_first(world: World) {
    let changes = (0..8).map(|_| {
        let store = std::sync::Arc::clone(&world.store);
        async move {
            // A change that meets another one may have to be asked again.
            for _ in 0..20 {
                if store.change_control("g", "p", &pause(None), "me").await.is_ok() {
                    return;
                }
            }
            panic!("not changed in 20 tries");
        }
    });
    let running: Vec<_> = changes.map(tokio::spawn).collect();
    for done in running {
        done.await.unwrap();
    }
    let of = |from: &str| format!("SELECT count(*) FROM weir_control_log WHERE from_state = '{from}'");
    assert_eq!((world.number(&of("running")).await, world.number(&of("paused")).await), (1, 7));
}
