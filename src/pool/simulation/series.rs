//! How large a scrape becomes: a worker of the pool's own code reads 2,000 topics, and a topic of 512 partitions.

use std::collections::BTreeSet;
use std::time::Duration;

use super::Simulated;
use super::world::World;
use crate::pool::tasks::{Name, Tasks};

const TOPICS: i32 = 2_000;
const PARTITIONS: i32 = 512;
const WIDE: &str = "wide";

/// The most series that a pool of two pipelines has, as docs/metrics.md promises: what any pool has, what each pipeline
/// adds, and four for each topic with a name of its own and for the others.
const SERIES_MAX: usize = 120 + 2 * 50 + 4 * 101;
/// The most bytes of its scrape.
const BYTES_MAX: usize = 100_000;

/// Series and the names of topics among them.
fn told(text: &str) -> (usize, BTreeSet<String>) {
    let series: Vec<&str> = text.lines().filter(|line| line.starts_with("weir_")).collect();
    let topic = |line: &&str| Some(line.split_once("topic=\"")?.1.split_once('"')?.0.to_owned());
    (series.len(), series.iter().filter_map(topic).collect())
}

fn value(text: &str, name: &str, topic: &str) -> f64 {
    let start = format!("{name}{{pool=\"p\",topic=\"{topic}\"}} ");
    text.lines().find_map(|line| line.strip_prefix(&start)?.parse().ok()).unwrap_or(f64::NAN)
}

/// Until every event of these partitions is settled.
async fn settled(tasks: &Tasks<Simulated>, partitions: i32) {
    let all = |tasks: &Tasks<Simulated>| {
        let list = tasks.standings().list();
        list.iter().filter(|standing| standing.next_offset == Some(1)).count() == partitions as usize
    };
    let until = async {
        while !all(tasks) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(600), until).await.expect("all are settled");
}

#[tokio::test(start_paused = true)]
async fn the_number_of_series_has_a_bound_and_shrinks_with_what_is_read() {
    let world = World::new(None);
    // Each partition has a number of its own, as if all topics were one: the log in memory knows no topics.
    let chats: Vec<Name> = (0..TOPICS).map(|number| (format!("chat-{number:04}-{}", "x".repeat(40)), number)).collect();
    let wide: Vec<Name> = (TOPICS..TOPICS + PARTITIONS).map(|number| (WIDE.to_owned(), number)).collect();
    let mut tasks = world.reading([WIDE, "^chat-"]);
    let topics = |names: &[Name]| names.iter().map(|(topic, _)| topic.clone()).collect::<BTreeSet<_>>();

    *tasks.shared.topics.lock().unwrap() = [WIDE.to_owned()].into();
    world.assign_to(&mut tasks, &wide).await;
    settled(&tasks, PARTITIONS).await;
    tasks.watch(Duration::MAX).unwrap();
    let (of_one, names) = told(&world.scrape());
    assert_eq!(names, topics(&wide), "a topic's partitions are told together");

    let some: Vec<Name> = chats[..99].to_vec();
    *tasks.shared.topics.lock().unwrap() = topics(&[some.as_slice(), &wide].concat()).into_iter().collect();
    world.assign_to(&mut tasks, &some).await;
    settled(&tasks, PARTITIONS + 99).await;
    tasks.watch(Duration::MAX).unwrap();
    let (of_some, names) = told(&world.scrape());
    assert_eq!((of_some - of_one, names.len()), (99 * 3, 100), "each with what it has read and its two lags");

    *tasks.shared.topics.lock().unwrap() = topics(&[chats.as_slice(), &wide].concat()).into_iter().collect();
    world.assign_to(&mut tasks, &chats[99..]).await;
    settled(&tasks, PARTITIONS + TOPICS).await;
    tasks.watch(Duration::MAX).unwrap();
    let text = world.scrape();
    let (of_all, names) = told(&text);
    assert_eq!(names.iter().map(String::as_str).collect::<Vec<_>>(), ["(others)", WIDE]);
    assert_eq!(value(&text, "weir_lag_events", "(others)"), 0.0, "{text}");
    let counted = |topic| value(&text, "weir_events_consumed_total", topic);
    assert_eq!((counted(WIDE), counted("(others)")), (512.0, 1_901.0), "what the 99 had is gone with their names");
    assert!(of_all <= SERIES_MAX && of_some <= SERIES_MAX, "{of_one}, {of_some}, {of_all}");
    assert!(text.len() <= BYTES_MAX, "{} bytes", text.len());

    tasks.join(&chats).await;
    *tasks.shared.topics.lock().unwrap() = [WIDE.to_owned()].into();
    tasks.watch(Duration::MAX).unwrap();
    assert_eq!(told(&world.scrape()).0, of_one, "topics that are gone leave nothing");

    tasks.join(&wide).await;
    tasks.watch(Duration::MAX).unwrap();
    assert_eq!(told(&world.scrape()).0, of_one - 2, "without partitions there is no lag");
}
