//! The ways in which the bits of a batch of 500 ids could be asked of two generations, and set in one: a filter of 10
//! million ids with 29 bits each, of which an id sets 7, in strings of 64 KiB, half of the bits set.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Result;
use fastrand::Rng;
use redis::Pipeline;

use crate::server::Server;

const BATCHES: u32 = 200;
const IDS: usize = 500;
const SET: usize = 7;
const PARTS: u64 = 554;
const PART_BYTES: u64 = 65_473;
const BLOCKS: u64 = 1023;
const BLOCK_BITS: u64 = 512;
const ENDS_AT_MS: u64 = 4_000_000_000_000;

/// Says for each id whether a generation has all of its bits, and stops asking at the first that is not set.
const ASK: &str = "\
    local answers, set = {}, tonumber(ARGV[1])
    for id = 1, #KEYS / 2 do
        local known = 0
        for generation = 0, 1 do
            local all = 1
            for bit = 1, set do
                if redis.call('GETBIT', KEYS[2 * id - 1 + generation], ARGV[(id - 1) * set + bit + 1]) == 0 then
                    all = 0
                    break
                end
            end
            if all == 1 then known = 1 break end
        end
        answers[id] = known
    end
    return answers";

/// Sets the bits of each id.
const TELL: &str = "\
    local set = tonumber(ARGV[1])
    for id = 1, #KEYS do
        for bit = 1, set do redis.call('SETBIT', KEYS[id], ARGV[(id - 1) * set + bit + 2], 1) end
        redis.call('PEXPIREAT', KEYS[id], ARGV[2])
    end";

type Way = fn(&mut Rng) -> Asked;

enum Asked {
    Pipeline(Pipeline),
    Script(redis::Cmd),
}

pub(crate) fn compare() -> Result<()> {
    let mut server = Server::start()?;
    let mut rng = Rng::with_seed(7);
    for generation in 0..2 {
        for part in 0..PARTS {
            let bytes: Vec<u8> = (0..PART_BYTES).map(|_| rng.u8(..)).collect();
            redis::cmd("SET").arg(key(generation, part)).arg(bytes).query::<()>(&mut server.connection)?;
        }
    }
    let ways: [(&str, Way); 7] = [
        ("ask: a GETBIT a bit", getbit),
        ("ask: BITFIELD_RO a part", bitfield_ro),
        ("ask: a Lua script", ask_by_script),
        ("ask: GETRANGE of a block", getrange),
        ("set: a SETBIT a bit", setbit),
        ("set: BITFIELD a part", bitfield),
        ("set: a Lua script", tell_by_script),
    ];
    let mut spent = [(Duration::ZERO, 0.0); 7];
    for _ in 0..BATCHES {
        for ((_, way), (took, redis_s)) in ways.iter().zip(&mut spent) {
            let asked = way(&mut rng);
            let (before_s, begun) = (server.processor_s()?, Instant::now());
            match asked {
                Asked::Pipeline(pipeline) => pipeline.query::<redis::Value>(&mut server.connection)?,
                Asked::Script(command) => command.query(&mut server.connection)?,
            };
            *took += begun.elapsed();
            *redis_s += server.processor_s()? - before_s;
        }
    }
    println!("the ways, a batch of {IDS} ids:");
    for ((name, _), (took, redis_s)) in ways.iter().zip(spent) {
        let [took_ms, redis_ms] = [took.as_secs_f64(), redis_s].map(|s| s * 1e3 / f64::from(BATCHES));
        println!("  {name:<28} {took_ms:5.2} ms, of which Redis {redis_ms:5.2} ms");
    }
    Ok(())
}

fn key(generation: u64, part: u64) -> String {
    format!("weir:{{storage}}:bits:1:566742:7:{generation}:{part}")
}

/// The part, and the bits in it, of an id: all of one block.
fn spot(rng: &mut Rng) -> (u64, u64, Vec<u64>) {
    let block = rng.u64(..BLOCKS);
    (rng.u64(..PARTS), block, (0..SET).map(|_| block * BLOCK_BITS + rng.u64(..BLOCK_BITS)).collect())
}

fn spots(rng: &mut Rng) -> impl Iterator<Item = (u64, u64, Vec<u64>)> {
    (0..IDS).map(|_| spot(rng))
}

fn by_part(rng: &mut Rng) -> BTreeMap<u64, Vec<u64>> {
    let mut parts: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    spots(rng).for_each(|(part, _, bits)| parts.entry(part).or_default().extend(bits));
    parts
}

fn getbit(rng: &mut Rng) -> Asked {
    let mut pipeline = Pipeline::new();
    for (part, _, bits) in spots(rng) {
        for generation in 0..2 {
            let key = key(generation, part);
            bits.iter().for_each(|bit| _ = pipeline.cmd("GETBIT").arg(&key).arg(*bit));
        }
    }
    Asked::Pipeline(pipeline)
}

fn bitfield_ro(rng: &mut Rng) -> Asked {
    let mut pipeline = Pipeline::new();
    for (part, bits) in by_part(rng) {
        for generation in 0..2 {
            let command = pipeline.cmd("BITFIELD_RO").arg(key(generation, part));
            bits.iter().for_each(|bit| _ = command.arg("GET").arg("u1").arg(*bit));
        }
    }
    Asked::Pipeline(pipeline)
}

fn ask_by_script(rng: &mut Rng) -> Asked {
    let spots: Vec<_> = spots(rng).collect();
    let mut command = redis::cmd("EVAL");
    command.arg(ASK).arg(2 * IDS);
    spots.iter().for_each(|(part, ..)| _ = command.arg(key(0, *part)).arg(key(1, *part)));
    command.arg(SET);
    spots.iter().flat_map(|(.., bits)| bits).for_each(|bit| _ = command.arg(*bit));
    Asked::Script(command)
}

fn getrange(rng: &mut Rng) -> Asked {
    let mut pipeline = Pipeline::new();
    for (part, block, _) in spots(rng) {
        for generation in 0..2 {
            let from = block * BLOCK_BITS / 8;
            pipeline.cmd("GETRANGE").arg(key(generation, part)).arg(from).arg(from + BLOCK_BITS / 8 - 1);
        }
    }
    Asked::Pipeline(pipeline)
}

fn setbit(rng: &mut Rng) -> Asked {
    let mut pipeline = Pipeline::new();
    for (part, bits) in by_part(rng) {
        let key = key(0, part);
        bits.iter().for_each(|bit| _ = pipeline.cmd("SETBIT").arg(&key).arg(*bit).arg(1));
        pipeline.cmd("PEXPIREAT").arg(&key).arg(ENDS_AT_MS);
    }
    Asked::Pipeline(pipeline)
}

fn bitfield(rng: &mut Rng) -> Asked {
    let mut pipeline = Pipeline::new();
    for (part, bits) in by_part(rng) {
        let key = key(0, part);
        let command = pipeline.cmd("BITFIELD").arg(&key);
        bits.iter().for_each(|bit| _ = command.arg("SET").arg("u1").arg(*bit).arg(1));
        pipeline.cmd("PEXPIREAT").arg(&key).arg(ENDS_AT_MS);
    }
    Asked::Pipeline(pipeline)
}

fn tell_by_script(rng: &mut Rng) -> Asked {
    let spots: Vec<_> = spots(rng).collect();
    let mut command = redis::cmd("EVAL");
    command.arg(TELL).arg(IDS);
    spots.iter().for_each(|(part, ..)| _ = command.arg(key(0, *part)));
    command.arg(SET).arg(ENDS_AT_MS);
    spots.iter().flat_map(|(.., bits)| bits).for_each(|bit| _ = command.arg(*bit));
    Asked::Script(command)
}
