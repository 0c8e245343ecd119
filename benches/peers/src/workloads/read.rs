//! Reading.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::ops::Range;
use std::process::Child;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};

use super::{Figure, Job, MANY, Meter, Outcome, Role, Row, check, contents};
use crate::child;
use crate::data::{Key, Model, Reading, Shuffle, absent_key, chunk, key, pieces};
use crate::peers::{Access, Durability, Peer, View};

/// The keys of a part of the look-ups, and the expected result.
struct LookUps {
    keys: Vec<Key>,
    expected: Reading,
}

impl LookUps {
    fn new(model: &Model, shuffle: &Shuffle, places: impl Iterator<Item = u64> + Clone) -> LookUps {
        let numbers = places.map(|at| shuffle.at(at % model.keys()));
        LookUps { keys: numbers.clone().map(key).collect(), expected: model.reading(numbers) }
    }

    /// Keys that no store has.
    fn absent(numbers: Range<u64>) -> LookUps {
        LookUps { keys: numbers.map(absent_key).collect(), expected: Reading::default() }
    }

    fn check(&self, found: Reading) -> Result<()> {
        check("look-ups", found, self.expected)
    }
}

/// All look-ups of this run, prepared part by part.
fn look_ups<'j>(job: &'j Job, model: &'j Model) -> impl Iterator<Item = LookUps> + use<'j> {
    let shuffle = Shuffle::new(model.keys(), job.seed);
    pieces(0..job.operations, chunk(job.value_len)).map(move |places| LookUps::new(model, &shuffle, places))
}

fn read_all(view: &mut impl View, keys: &[Key]) -> Result<Reading> {
    let mut reading = Reading::default();
    for key in keys {
        view.get(key, |value| reading.value(value))?;
    }
    Ok(reading)
}

/// Reads everything once, so that caches are full and files are mapped, if that takes little time.
fn warm_up(view: &mut impl View, job: &Job) -> Result<()> {
    let start = Instant::now();
    for numbers in pieces(0..job.keys, 1000) {
        numbers.map(key).try_for_each(|key| view.get(&key, |value| value.len()).map(|_| ()))?;
        if start.elapsed() > job.limit() * 2 {
            break;
        }
    }
    Ok(())
}

pub(super) fn each_by_itself<P: Peer>(job: &Job) -> Result<Outcome> {
    let model = job.model()?;
    let peer = job.open_loaded::<P>(&model)?;
    peer.read(|view| warm_up(view, job))?;
    let mut meter = Meter::new(job.limit());
    for part in look_ups(job, &model) {
        let found = meter.time(part.keys.len(), || {
            let mut reading = Reading::default();
            for key in &part.keys {
                peer.get(key, |value| reading.value(value))?;
            }
            Ok(reading)
        })?;
        part.check(found)?;
        if meter.is_over() {
            break;
        }
    }
    peer.close()?;
    Ok(vec![meter.figure(Row::Get, job.operations)])
}

/// Looks up part by part until all are done or time is up.
fn through<V: View>(
    view: &mut V,
    job: &Job,
    parts: impl Iterator<Item = LookUps>,
    look_up: impl Fn(&mut V, &[Key]) -> Result<Reading>,
) -> Result<Meter> {
    warm_up(view, job)?;
    let mut meter = Meter::new(job.limit());
    for part in parts {
        part.check(meter.time(part.keys.len(), || look_up(view, &part.keys))?)?;
        if meter.is_over() {
            break;
        }
    }
    Ok(meter)
}

/// Also measures the private memory of the process meanwhile.
pub(super) fn in_view<P: Peer>(job: &Job) -> Result<Outcome> {
    let model = job.model()?;
    let before = private_memory()?;
    let peer = job.open_loaded::<P>(&model)?;
    let (meter, memory) =
        peer.read(|view| Ok((through(view, job, look_ups(job, &model), read_all)?, private_memory()? - before)))?;
    peer.close()?;
    let memory = Figure { row: Row::Memory, value: memory.max(0.0), is_partial: false };
    Ok(vec![meter.figure(Row::GetView, job.operations), memory])
}

/// Mebibytes of this process that belong to no file.
fn private_memory() -> Result<f64> {
    let text = fs::read_to_string("/proc/self/smaps_rollup")?;
    let line = text.lines().find_map(|line| line.strip_prefix("Anonymous:")).context("smaps_rollup says Anonymous")?;
    let kibibytes: f64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kibibytes / 1024.0)
}

pub(super) fn misses<P: Peer>(job: &Job) -> Result<Outcome> {
    let model = job.model()?;
    let peer = job.open_loaded::<P>(&model)?;
    let absent = pieces(0..job.operations, chunk(job.value_len)).map(LookUps::absent);
    let meter = peer.read(|view| through(view, job, absent, read_all))?;
    peer.close()?;
    Ok(vec![meter.figure(Row::Miss, job.operations)])
}

fn read_many(view: &mut impl View, keys: &[Key]) -> Result<Reading> {
    let mut reading = Reading::default();
    for keys in keys.chunks(MANY) {
        view.get_many(keys, |value| reading.value(value))?;
    }
    Ok(reading)
}

pub(super) fn many<P: Peer>(job: &Job) -> Result<Outcome> {
    let model = job.model()?;
    let peer = job.open_loaded::<P>(&model)?;
    let meter = peer.read(|view| through(view, job, look_ups(job, &model), read_many))?;
    peer.close()?;
    Ok(vec![meter.figure(Row::GetMany, job.operations)])
}

pub(super) fn everything<P: Peer>(job: &Job, row: Row) -> Result<Outcome> {
    let model = job.model()?;
    let peer = job.open_loaded::<P>(&model)?;
    let expected = model.contents();
    let mut meter = Meter::new(job.limit());
    peer.read(|view| {
        check("a first iteration", contents(view)?, expected)?;
        let found = meter.time(expected.found() as usize, || contents(view))?;
        check("iteration", found, expected)
    })?;
    peer.close()?;
    Ok(vec![meter.figure(row, 0)])
}

/// Each thread looks up its share, through its own view; the time is that of all of them together.
pub(super) fn by_threads<P: Peer>(job: &Job, threads: u64, row: Row) -> Result<Outcome> {
    let model = job.model()?;
    let peer = job.open_loaded::<P>(&model)?;
    let shuffle = Shuffle::new(model.keys(), job.seed);
    let share = (job.operations / threads).max(1);
    let shares: Vec<LookUps> =
        (0..threads).map(|thread| LookUps::new(&model, &shuffle, thread * share..(thread + 1) * share)).collect();
    peer.read(|view| warm_up(view, job))?;
    let start = Barrier::new(shares.len() + 1);
    let work = |part: &LookUps| {
        let found = peer.read(|view| {
            start.wait();
            read_all(view, &part.keys)
        });
        part.check(found?)
    };
    let elapsed = thread::scope(|scope| {
        let running: Vec<_> = shares.iter().map(|part| scope.spawn(|| work(part))).collect();
        let begin = Instant::now();
        start.wait();
        for thread in running {
            thread.join().map_err(|_| anyhow!("a thread has panicked"))??;
        }
        anyhow::Ok(begin.elapsed())
    })?;
    peer.close()?;
    Ok(vec![shared(row, elapsed, share * threads)])
}

/// The time of all of them together, per operation.
fn shared(row: Row, elapsed: Duration, operations: u64) -> Figure {
    Figure { row, value: elapsed.as_nanos() as f64 / operations as f64, is_partial: false }
}

/// Two processes at the same time, each with the store open.
pub(super) fn by_processes(job: &Job) -> Result<Outcome> {
    let share = (job.operations / 2).max(1);
    let start = |seed: u64| {
        let job = Job { role: Role::Read, operations: share, seed: job.seed + seed, ..job.clone() };
        let mut process = child::start(&job)?;
        child::wait_for(&mut process, "ready")?;
        Ok(process)
    };
    let mut processes: Vec<Child> = (0..2).map(start).collect::<Result<_>>()?;
    let begin = Instant::now();
    for process in &mut processes {
        writeln!(process.stdin.as_mut().context("its input is open")?, "go")?;
    }
    for process in &mut processes {
        child::wait_for(process, "done")?;
    }
    let elapsed = begin.elapsed();
    for mut process in processes {
        drop(process.stdin.take());
        ensure!(process.wait()?.success(), "one of the two processes has failed");
    }
    Ok(vec![shared(Row::GetProcesses, elapsed, share * 2)])
}

/// One of them: says when it is ready, waits, and says when it is done.
pub(super) fn as_one_of_two<P: Peer>(job: &Job) -> Result<Outcome> {
    let model = job.model()?;
    let peer = job.open::<P>(Durability::Buffered, Access::Read)?;
    let part = LookUps::new(&model, &Shuffle::new(model.keys(), job.seed), 0..job.operations);
    let mut input = BufReader::new(std::io::stdin());
    let found = peer.read(|view| {
        warm_up(view, job)?;
        child::say("ready")?;
        input.read_line(&mut String::new())?;
        let found = read_all(view, &part.keys);
        child::say("done")?;
        found
    })?;
    part.check(found)?;
    peer.close()?;
    Ok(Vec::new())
}
