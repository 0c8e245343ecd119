//! Loading.

use std::fs;
use std::time::Duration;

use anyhow::Result;

use super::{BATCH, Figure, Job, Meter, Outcome, Row, check, contents, files};
use crate::data::{Batch, Key, Model, chunk, pieces};
use crate::peers::{Access, Durability, Peer};

/// Loads a store that is thrown away, key by key.
pub(super) fn singles<P: Peer>(job: &Job) -> Result<Outcome> {
    let job = Job { folder: job.folder.join("singles"), ..job.clone() };
    fs::create_dir_all(job.store())?;
    let mut peer = job.open::<P>(Durability::Buffered, Access::Write)?;
    let mut meter = Meter::new(job.long_limit());
    for numbers in pieces(0..job.keys, chunk(job.value_len)) {
        let batch = Batch::new(numbers.map(|number| (number, 1)), job.value_len);
        meter.time(batch.len(), || batch.iter().try_for_each(|(key, value)| peer.put(key, value)))?;
        if meter.is_over() {
            break;
        }
    }
    let loaded = Model::loaded(meter.done, job.value_len);
    check("after loading", peer.read(|view| contents(view))?, loaded.contents())?;
    peer.close()?;
    fs::remove_dir_all(&job.folder)?;
    Ok(vec![meter.figure(Row::LoadSingles, job.keys)])
}

/// Loads the store that all other workloads use.
pub(super) fn batches<P: Peer>(job: &Job) -> Result<Outcome> {
    let model = Model::loaded(job.keys, job.value_len);
    job.write_model(&model)?;
    let mut peer = job.open::<P>(Durability::Buffered, Access::Write)?;
    // Without a time limit: all of it is needed.
    let mut meter = Meter::new(Duration::MAX);
    for numbers in pieces(0..job.keys, BATCH) {
        let batch = Batch::new(numbers.map(|number| (number, 1)), job.value_len);
        meter.time(batch.len(), || peer.put_batch(&batch))?;
    }
    check("after loading", peer.read(|view| contents(view))?, model.contents())?;
    peer.close()?;
    let mut outcome = vec![meter.figure(Row::LoadBatches, job.keys)];
    outcome.extend(file::<P>(job, Row::FileLoaded)?);
    Ok(outcome)
}

/// Length of the files, if there are any, per byte of keys and values.
pub(super) fn file<P: Peer>(job: &Job, row: Row) -> Result<Option<Figure>> {
    if !P::facts().is_lasting {
        return Ok(None);
    }
    let store = job.store();
    files::sync(&store)?;
    let data = job.keys * (size_of::<Key>() + job.value_len) as u64;
    Ok(Some(Figure { row, value: files::allocated(&store)? as f64 / data as f64, is_partial: false }))
}
