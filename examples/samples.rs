//! Measurements as they lie in memory: written from a slice, and read where they lie in the file, without decoding or
//! copying.
//!
//! ```text
//! cargo run --release --example samples -- record 1000000
//! cargo run --release --example samples -- average
//! ```

#![allow(clippy::print_stderr, clippy::print_stdout, reason = "this is a program, not the library")]

use std::env;
use std::error::Error;
use std::process::ExitCode;
use std::time::Instant;

use slotlog::zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};
use slotlog::{Map, Pod, Store};

/// Where the samples are, in the working directory.
const STORE: &str = "samples.slotlog";

/// How many samples there are in a block.
const BLOCK: u64 = 4096;

/// Whatever goes wrong ends up as a message on the terminal.
type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// One measurement. Any bytes are one, and all of them are data: that is what the derives check.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
struct Sample {
    /// Milliseconds since the beginning.
    time: u64,
    /// Degrees Celsius.
    temperature: f32,
    /// Share of what the air can hold.
    humidity: f32,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("samples: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Result<()> {
    let store = Store::open(STORE)?;
    // The version is that of `Sample`: another one is not read as if it were this.
    let blocks: Map<u64, Pod<[Sample]>> = store.map_versioned("samples", 1)?;
    match arguments {
        [command, count] if command == "record" => record(&blocks, count.parse()?)?,
        [command] if command == "average" => average(&store, &blocks)?,
        _ => return Err("usage: samples record COUNT | samples average".into()),
    }
    drop(blocks);
    Ok(store.close()?)
}

/// Adds so many made-up samples behind those that there are.
fn record(blocks: &Map<u64, Pod<[Sample]>>, count: u64) -> Result<()> {
    let first = blocks.len()?;
    let mut left = count;
    let mut number = first;
    while left > 0 {
        let samples: Vec<Sample> = (number * BLOCK..).take(left.min(BLOCK) as usize).map(measure).collect();
        blocks.insert(number, samples.as_slice())?;
        left -= samples.len() as u64;
        number += 1;
    }
    println!("{count} samples in {} blocks", number - first);
    Ok(())
}

/// A temperature that goes up and down over a day of 86,400 samples.
fn measure(number: u64) -> Sample {
    let hour = (number % 86_400) as f32 / 3600.0;
    let warmth = (hour / 24.0 * std::f32::consts::TAU).sin();
    Sample { time: number * 1000, temperature: 15.0 + 8.0 * warmth, humidity: 0.6 - 0.2 * warmth }
}

/// Goes over all samples in the file itself.
fn average(store: &Store, blocks: &Map<u64, Pod<[Sample]>>) -> Result<()> {
    let start = Instant::now();
    let snapshot = store.snapshot()?;
    let view = snapshot.of(blocks);
    let (mut count, mut temperature, mut humidity, mut last) = (0u64, 0.0, 0.0, 0);
    for number in view.keys()? {
        let samples: &[Sample] = view.get_ref(number?)?.unwrap_or_default();
        for sample in samples {
            temperature += f64::from(sample.temperature);
            humidity += f64::from(sample.humidity);
            last = last.max(sample.time);
        }
        count += samples.len() as u64;
    }
    let number = count.max(1) as f64;
    println!("{count} samples up to {last} ms, in {:?}", start.elapsed());
    println!("{:.2} °C, {:.1} %", temperature / number, 100.0 * humidity / number);
    Ok(())
}
