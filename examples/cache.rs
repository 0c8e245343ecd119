//! A cache on disk: what is expensive to find out about a file is found out once a minute at most, by whatever process.
//! It never takes more than 64 MiB: what was not asked for lately goes when it is full.
//!
//! ```text
//! cargo run --release --example cache -- README.md Cargo.toml
//! ```
//!
//! Run it twice: the second time everything comes from the cache, until it expires. What has expired is not seen any
//! more, and its space is used again without anybody having to clean up.

#![allow(clippy::print_stderr, clippy::print_stdout, reason = "this is a program, not the library")]

use std::error::Error;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};
use std::{env, fs};

use slotlog::{Map, Policy, Store};

/// Where the cache is, in the working directory.
const STORE: &str = "cache.slotlog";

/// How long a result is good for.
const FRESH: Duration = Duration::from_secs(60);

/// Whatever goes wrong ends up as a message on the terminal.
type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// What is worth remembering of a file: its bytes, its lines, its checksum.
type Facts = (u64, u64, u32);

fn main() -> ExitCode {
    let paths: Vec<String> = env::args().skip(1).collect();
    if paths.is_empty() {
        eprintln!("usage: cache FILE...");
        return ExitCode::from(2);
    }
    match run(&paths) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cache: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(paths: &[String]) -> Result<()> {
    // What is lost in a power cut is found out again, so nothing has to be synced.
    let store = Store::options().max_size(64 << 20).evict(Policy::SecondChance).open(STORE)?;
    let cache: Map<str, Facts> = store.map("facts")?;
    for path in paths {
        let (from, (bytes, lines, checksum)) = match cache.get(path)? {
            Some(facts) => ("cached", facts),
            None => ("read", find_out(&cache, path)?),
        };
        println!("{from:6}  {bytes:>9} bytes  {lines:>6} lines  {checksum:08x}  {path}");
    }
    Ok(store.close()?)
}

fn find_out(cache: &Map<str, Facts>, path: &str) -> Result<Facts> {
    let content = fs::read(Path::new(path)).map_err(|error| format!("{path}: {error}"))?;
    let lines = content.iter().filter(|&&byte| byte == b'\n').count() as u64;
    let facts = (content.len() as u64, lines, crc32fast::hash(&content));
    cache.insert_with_expiry(path, facts, SystemTime::now() + FRESH)?;
    Ok(facts)
}
