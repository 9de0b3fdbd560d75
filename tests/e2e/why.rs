//! One event's story, in each state that it can be in.

use super::PATIENCE;
use super::dead::{json, run};
use super::load::{Plan, publish};
use super::worker::Worker;
use super::world::World;

#[tokio::test(flavor = "multi_thread")]
async fn an_events_story_is_told_in_every_state() {
    let world = World::new(2).await;
    let config = world.config("");
    let published = publish(&world, Plan { poison_per_mille: 50, repeats_per_mille: 0, ..Plan::new(80, 400) }).await;
    let mut worker = Worker::start(&world).await;
    world.drained(PATIENCE).await;
    worker.terminate();

    let live = published.live.iter().next().unwrap();
    let (code, told) = json(&world, &config, &["why", live]);
    let story = &told["pools"][0];
    assert!(code == 0 && story["verdict"].as_str().unwrap().starts_with("settled"), "{told:#}");
    assert_eq!(story["effects"][0]["row"]["message_id"].as_str(), Some(live.as_str()));
    assert_eq!((story["places"].as_array().unwrap().len(), story["places"][0]["in_kafka"].as_bool()), (1, Some(true)));
    assert_eq!((story["processed_set"].as_bool(), story["searched"][0]["records"].as_u64()), (Some(true), Some(400)));
    let (code, text, _) = run(&world, &config, &["why", &live.to_uppercase()]);
    assert!(code == 1 && text.contains("unknown"), "a text key knows one spelling: {text}");

    let position = published.dead.iter().find(|id| id.contains(':')).expect("some are malformed");
    let (code, text, _) = run(&world, &config, &["why", position]);
    assert!(code == 0 && text.contains("set aside by \"decode\": malformed"), "{text}");
    assert!(text.contains("cannot be decoded") && text.contains("searched") && text.contains(": 1 records"), "{text}");
    let refused = published.dead.iter().find(|id| !id.contains(':')).expect("some are refused");
    let (code, text, _) = run(&world, &config, &["why", refused, "--since", "1h"]);
    assert!(code == 0 && text.contains("set aside by \"persist\": refused") && text.contains("not known"), "{text}");

    let later = publish(&world, Plan { poison_per_mille: 0, repeats_per_mille: 0, ..Plan::new(81, 50) }).await;
    let waiting = later.live.iter().next().unwrap();
    let (code, text, _) = run(&world, &config, &["why", waiting]);
    assert!(code == 0 && text.contains("not handled yet") && text.contains("not passed"), "{text}");
    let (code, text, _) = run(&world, &config, &["why", waiting, "--records", "2"]);
    assert!(text.contains("2 records, 448 older or other ones were left out"), "{code}: {text}");
    world.sql(&format!("DELETE FROM messages WHERE message_id = '{live}'")).await;
    let (code, text, _) = run(&world, &config, &["why", live]);
    assert!(code == 0 && text.contains("passed without a row"), "{text}");
    let (code, text, _) = run(&world, &config, &["why", "nobody"]);
    assert!(code == 1 && text.contains("unknown") && text.contains("450 records, all there are"), "{text}");
    let (code, _, err) = run(&world, &config, &["why", "nobody", "--topic", "other"]);
    assert!(code == 2 && err.contains("no pool reads topic"), "{err}");
}
