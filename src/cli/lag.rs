//! `weir lag`: how far pools are behind.

use std::process::ExitCode;

use serde_json::{Value, json};

use super::{open_store, pool_names, print};
use crate::config::Config;
use crate::pool::lag::{self, PartitionLag, PoolLag};

/// Tells how far pools are behind, partition by partition
///
/// Asked of Kafka and the database, so it needs no worker: the log's end, the ledger, which is the pool's place, and Kafka's
/// committed offset, which follows it; of a pool without a store it is the place. The age is that of the oldest record that is not settled. Offsets without a record,
/// such as a transaction's marker at the log's end, are counted.
#[derive(Debug, clap::Args)]
#[command(after_help = super::examples!("weir lag", "weir lag storage --json | jq '[.pools[].partitions[].records] | add'"))]
pub(super) struct Args {
    /// The pools; without one, all that are configured
    #[arg(value_name = "POOL")]
    pools: Vec<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: Args, config: Config) -> anyhow::Result<ExitCode> {
    let names = pool_names(&args.pools, &config)?;
    let has_store = |name: &String| config.pools[name].needs_store();
    let store = match names.iter().any(has_store) {
        true => Some(open_store(&config).await?),
        false => None,
    };
    let mut pools = Vec::with_capacity(names.len());
    for name in names {
        let store = store.as_deref().filter(|_| has_store(&name));
        let lag = lag::of_pool(&config, &name, store).await?;
        pools.push((name, lag));
    }
    let text = match args.json {
        true => format!("{:#}", json!({"pools": pools.iter().map(value).collect::<Vec<_>>()})),
        false => pools.iter().map(table).collect::<Vec<_>>().join("\n\n"),
    };
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn value((name, lag): &(String, PoolLag)) -> Value {
    let partitions: Vec<Value> = lag
        .partitions
        .iter()
        .map(|one| {
            json!({
                "topic": one.topic, "partition": one.partition, "end": one.end, "ledger": one.ledger,
                "committed": one.committed, "records": one.records, "seconds": one.seconds, "owner": one.owner,
            })
        })
        .collect();
    json!({"pool": name, "group": lag.group, "dead": lag.dead.map(|dead| dead.all),
        "parked": lag.dead.map(|dead| dead.parked), "partitions": partitions})
}

fn table((name, lag): &(String, PoolLag)) -> String {
    let records: i64 = lag.partitions.iter().map(|one| one.records).sum();
    let oldest = lag.partitions.iter().filter_map(|one| one.seconds).fold(0.0, f64::max);
    let dead = match lag.dead {
        Some(dead) => format!("{} dead rows, {} of them parked", dead.all, dead.parked),
        None => "no store, so the place is what is committed".to_owned(),
    };
    let mut lines =
        vec![format!("pool {name}, group {}: {records} events behind, the oldest {oldest:.1} s; {dead}", lag.group)];
    let width = lag.partitions.iter().map(|one| one.topic.len() + 6).max().unwrap_or_default();
    let row = |cells: [String; 7]| {
        let [at, end, ledger, committed, records, seconds, owner] = cells;
        format!("  {at:<width$} {end:>12} {ledger:>12} {committed:>12} {records:>10} {seconds:>8}  {owner}")
    };
    lines.push(row(["partition", "end", "ledger", "committed", "lag", "oldest", "owner"].map(str::to_owned)));
    lines.extend(lag.partitions.iter().map(|one| row(cells(one))));
    lines.join("\n")
}

fn cells(one: &PartitionLag) -> [String; 7] {
    let known = |value: Option<i64>| value.map_or_else(|| "-".to_owned(), |value| value.to_string());
    [
        format!("{}/{}", one.topic, one.partition),
        one.end.to_string(),
        known(one.ledger),
        known(one.committed),
        one.records.to_string(),
        one.seconds.map_or_else(|| "-".to_owned(), |seconds| format!("{seconds:.1} s")),
        one.owner.map_or_else(|| "-".to_owned(), |owner| owner.to_string()),
    ]
}
