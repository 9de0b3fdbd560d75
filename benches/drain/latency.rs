//! How long an event takes from its intended send time until its effect is committed, at a part of the rate at which the
//! hand-written loop drains: sent on time whatever becomes of it, measured by each side after its commit.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use serde::Deserialize;
use weir::event::INTENDED_HEADER;
use weir::metrics::Percentiles;

use crate::contest;
use crate::drain::{Processes, Workload, drain, migrate};
use crate::load::{Backlog, Conversations, PARTITIONS, message};
use crate::services::Services;
use crate::side::{Job, Side};

/// Of the rate at which the loop drains.
const SHARES: [f64; 2] = [0.3, 0.1];
/// Whoever sends sleeps no less, so that waking takes little from the others; an event may be so much late, which counts.
const NAP: Duration = Duration::from_micros(500);
const WARM_UP: Duration = Duration::from_secs(5);
const MEASURED: Duration = Duration::from_secs(30);
const PATIENCE: Duration = Duration::from_secs(60);

/// What `/latency` answers.
#[derive(Deserialize)]
struct Answer {
    pools: std::collections::HashMap<String, Percentiles>,
}

pub(crate) fn now_us() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

/// Rounds in which each side takes the same load, one after the other; the first is what the others are compared with.
pub(crate) async fn hold(
    sides: &[(String, Side)],
    services: &Services,
    backlog: &Backlog,
    rounds: usize,
    topics: &mut Vec<Backlog>,
) -> Result<()> {
    let drained = drain(&sides[0].1, &Job::new(services, backlog, Workload::Persist), 1).await?;
    for share in SHARES {
        let rate = (backlog.events as f64 / (drained.seconds - drained.first_s) * share).round();
        println!(
            "\nlatency: {rate} events/s, {:.0} % of what {} drains, for {MEASURED:?}; milliseconds from the intended send time",
            share * 100.0,
            sides[0].0
        );
        Box::pin(at_rate(sides, services, rate, rounds, topics)).await?;
    }
    Ok(())
}

async fn at_rate(
    sides: &[(String, Side)],
    services: &Services,
    rate: f64,
    rounds: usize,
    topics: &mut Vec<Backlog>,
) -> Result<()> {
    println!(
        "{:<24} {:>10} {:>8} {:>8} {:>8} {:>8} {:>10}",
        "run", "events", "p50", "p99", "p99.9", "max", "sent late"
    );
    let mut all: Vec<Vec<Percentiles>> = vec![Vec::new(); sides.len()];
    for _ in 0..rounds {
        for ((name, side), all) in sides.iter().zip(&mut all) {
            let topic = format!("{}-latency-{}", services.name, topics.len());
            services.make_topic(&topic, PARTITIONS).await?;
            topics.push(Backlog { topic, events: 0, partitions: PARTITIONS });
            let (measured, slip_ms) = measure(side, services, &topics[topics.len() - 1], rate).await?;
            let Percentiles { count, p50_ms, p99_ms, p999_ms, max_ms, .. } = measured;
            println!("{name:<24} {count:>10} {p50_ms:>8.1} {p99_ms:>8.1} {p999_ms:>8.1} {max_ms:>8.1} {slip_ms:>10.1}");
            all.push(measured);
        }
    }
    let median = |measured: &[Percentiles], of: fn(&Percentiles) -> f64| {
        contest::median(measured.iter().map(of)).unwrap_or(f64::NAN)
    };
    for ((name, _), measured) in sides.iter().zip(&all) {
        let of = |of: fn(&Percentiles) -> f64| (median(measured, of), median(measured, of) / median(&all[0], of));
        let [(p50, r50), (p99, r99), (p999, r999)] = [of(|l| l.p50_ms), of(|l| l.p99_ms), of(|l| l.p999_ms)];
        println!(
            "{name}: p50 {p50:.1} ms ({r50:.2}), p99 {p99:.1} ms ({r99:.2}), p99.9 {p999:.1} ms ({r999:.2}): medians, of {}",
            sides[0].0
        );
    }
    Ok(())
}

async fn measure(side: &Side, services: &Services, backlog: &Backlog, rate: f64) -> Result<(Percentiles, f64)> {
    let mut db = services.empty().await?;
    let path = std::env::temp_dir().join(format!("{}-latencies.json", services.name));
    std::fs::remove_file(&path).ok();
    let health_port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let job = Job { health_port, latencies: Some(path.clone()), ..Job::new(services, backlog, Workload::Persist) };
    migrate(&job)?;
    let processes = Processes::start(side, &job, 1)?;
    let topic = backlog.topic.clone();
    let client = services.client();
    let sent = tokio::task::spawn_blocking(move || send(&client, &topic, rate)).await??;
    let patience = Instant::now() + PATIENCE;
    let measured = loop {
        let measured = match side {
            Side::Weir { .. } => asked(health_port),
            _ => read(&path),
        };
        match measured {
            Ok(measured) if measured.count >= sent.measured => break measured,
            other => {
                ensure!(Instant::now() < patience, "{} events were measured by no means: {other:?}", sent.measured);
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    drop(processes);
    let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM messages").fetch_one(&mut db).await?;
    ensure!(rows.unsigned_abs() == sent.all, "{rows} rows of {}", sent.all);
    ensure!(measured.count == sent.measured, "{} events were measured, {} sent", measured.count, sent.measured);
    Ok((measured, sent.slip_ms))
}

struct Sent {
    all: u64,
    measured: u64,
    /// The latest that an event was handed to the producer.
    slip_ms: f64,
}

/// Each event at its time, or as soon after it as can be; it has the intended time in its header once the warm-up is over.
fn send(client: &rdkafka::ClientConfig, topic: &str, rate: f64) -> Result<Sent> {
    let producer: BaseProducer = client
        .clone()
        .set("linger.ms", "2")
        // librdkafka's default has no bound in practice: small requests would wait in the broker's socket, one behind the other,
        // where they cannot be joined any more.
        .set("max.in.flight.requests.per.connection", "5")
        .set("compression.type", "lz4")
        .set("partitioner", "murmur2_random")
        .set("queue.buffering.max.messages", "500000")
        .create()?;
    let conversations = Conversations::new();
    let mut rng = fastrand::Rng::with_seed(1);
    let (begun, begun_us) = (Instant::now(), now_us());
    let all = ((WARM_UP + MEASURED).as_secs_f64() * rate) as u64;
    let (mut slip, mut measured) = (Duration::ZERO, 0);
    for n in 0..all {
        let at = Duration::from_secs_f64(n as f64 / rate);
        while begun.elapsed() < at {
            producer.poll(Duration::ZERO);
            std::thread::sleep(at.saturating_sub(begun.elapsed()).max(NAP));
        }
        let (key, value) = message(n, conversations.pick(&mut rng));
        let mut record = BaseRecord::to(topic).key(&key).payload(&value);
        if at >= WARM_UP {
            measured += 1;
            slip = slip.max(begun.elapsed() - at);
            let intended = (begun_us + i64::try_from(at.as_micros())?).to_string();
            record =
                record.headers(OwnedHeaders::new().insert(Header { key: INTENDED_HEADER, value: Some(&intended) }));
        }
        producer.send(record).map_err(|(error, _)| error).context("hand an event to the producer")?;
        if n % 100 == 0 {
            producer.poll(Duration::ZERO);
        }
    }
    producer.flush(PATIENCE)?;
    Ok(Sent { all, measured, slip_ms: slip.as_secs_f64() * 1_000.0 })
}

fn read(path: &Path) -> Result<Percentiles> {
    Ok(serde_json::from_slice(&std::fs::read(path)?)?)
}

fn asked(port: u16) -> Result<Percentiles> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(b"GET /latency HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let body = text.split_once("\r\n\r\n").context("an answer without a body")?.1;
    let answer: Answer = serde_json::from_str(body).with_context(|| body.to_owned())?;
    answer.pools.get("storage").copied().context("nothing measured yet")
}
