//! Writing to a loaded store.

use std::time::Instant;

use anyhow::Result;

use super::{BATCH, Figure, Job, Meter, Outcome, Row, check, contents, load};
use crate::data::{Batch, Model, Shuffle, chunk, key, pieces};
use crate::peers::{Access, Durability, Peer};
use crate::report::median;

/// How often each key is overwritten before the measurement, so that space is reclaimed as fast as it is used.
const PASSES: u64 = 2;
/// Synced puts of a run, and synced batches.
const SYNCED: [usize; 2] = [1000, 50];
/// One of this many keys is removed.
const REMOVED: u64 = 10;

/// Overwrites all keys in random order, several times if that is fast enough.
fn settle<P: Peer>(peer: &mut P, job: &Job, model: &mut Model) -> Result<()> {
    let mut meter = Meter::new(job.long_limit() * 2);
    for pass in 0..PASSES {
        let shuffle = Shuffle::new(job.keys, job.seed + pass + 1);
        for places in pieces(0..job.keys, BATCH) {
            let entries: Vec<_> = places.map(|at| model.next(shuffle.at(at))).collect();
            let batch = Batch::new(entries, job.value_len);
            meter.time(batch.len(), || peer.put_batch(&batch))?;
            if meter.is_over() {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Overwrites all keys one by one, in random order, after they have been overwritten before.
pub(super) fn overwrite<P: Peer>(job: &Job) -> Result<Outcome> {
    let mut model = job.model()?;
    let mut peer = job.open_loaded::<P>(&model)?;
    settle(&mut peer, job, &mut model)?;
    let shuffle = Shuffle::new(job.keys, job.seed);
    let mut meter = Meter::new(job.long_limit());
    for places in pieces(0..job.keys, chunk(job.value_len)) {
        let entries: Vec<_> = places.map(|at| model.next(shuffle.at(at))).collect();
        let batch = Batch::new(entries, job.value_len);
        meter.time(batch.len(), || batch.iter().try_for_each(|(key, value)| peer.put(key, value)))?;
        if meter.is_over() {
            break;
        }
    }
    check("after overwriting", peer.read(|view| contents(view))?, model.contents())?;
    peer.close()?;
    job.write_model(&model)?;
    let mut outcome = vec![meter.figure(Row::Overwrite, job.keys)];
    outcome.extend(load::file::<P>(job, Row::FileOverwritten)?);
    Ok(outcome)
}

/// Overwrites a few keys, so that each commit survives a power cut. The figure is the median of the commits: on a
/// shared disk, others affect the mean.
pub(super) fn synced<P: Peer>(job: &Job, row: Row, batch_len: usize) -> Result<Outcome> {
    let is_lasting = P::facts().is_lasting;
    let mut model = job.model()?;
    let mut peer = job.open::<P>(Durability::Synced, Access::Write)?;
    let shuffle = Shuffle::new(job.keys, job.seed);
    let commits = SYNCED[usize::from(batch_len > 1)];
    let begin = Instant::now();
    let mut times = Vec::with_capacity(commits);
    for commit in 0..commits as u64 {
        let places = commit * batch_len as u64..(commit + 1) * batch_len as u64;
        let entries: Vec<_> = places.map(|at| model.next(shuffle.at(at % job.keys))).collect();
        let batch = Batch::new(entries, job.value_len);
        let start = Instant::now();
        match batch_len {
            1 => batch.iter().try_for_each(|(key, value)| peer.put(key, value))?,
            _ => peer.put_batch(&batch)?,
        }
        times.push(start.elapsed().as_nanos() as f64 / 1e3);
        if begin.elapsed() > job.long_limit() {
            break;
        }
    }
    let is_partial = times.len() < commits;
    let value = median(times).unwrap_or_default();
    if is_lasting {
        check("after synced puts", peer.read(|view| contents(view))?, model.contents())?;
        job.write_model(&model)?;
    }
    peer.close()?;
    Ok(vec![Figure { row, value, is_partial }])
}

/// Removes some of the keys one by one, in random order.
pub(super) fn remove<P: Peer>(job: &Job) -> Result<Outcome> {
    let mut model = job.model()?;
    let mut peer = job.open_loaded::<P>(&model)?;
    let shuffle = Shuffle::new(job.keys, job.seed);
    let mut meter = Meter::new(job.limit());
    let planned = job.keys / REMOVED;
    for places in pieces(0..planned, chunk(job.value_len)) {
        let keys: Vec<_> = places.map(|at| shuffle.at(at)).inspect(|number| model.remove(*number)).map(key).collect();
        meter.time(keys.len(), || keys.iter().try_for_each(|key| peer.delete(key)))?;
        if meter.is_over() {
            break;
        }
    }
    check("after removing", peer.read(|view| contents(view))?, model.contents())?;
    peer.close()?;
    job.write_model(&model)?;
    Ok(vec![meter.figure(Row::Remove, planned)])
}
