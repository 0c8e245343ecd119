//! The workloads of the Yahoo! Cloud Serving Benchmark that suit an unordered map: reads and updates of keys, few of
//! which are popular (Cooper and others, 2010).

use anyhow::Result;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rand_distr::{Distribution, Zipf};

use super::{Job, Meter, Outcome, Row, check, contents};
use crate::data::{Batch, Key, Model, Reading, Shuffle, chunk, key, pieces};
use crate::peers::Peer;

/// How uneven the popularity is.
const EXPONENT: f64 = 0.99;

enum Operation {
    Read(Key),
    Update,
    /// Reads and updates.
    Modify,
}

/// A part of the operations, and the expected result of its reads. The batch has the updates in their order.
struct Part {
    operations: Vec<Operation>,
    updates: Batch,
    expected: Reading,
}

/// The source of the operations.
struct Source {
    random: StdRng,
    zipf: Zipf<f64>,
    shuffle: Shuffle,
    reads: f64,
    modifies: bool,
}

impl Source {
    fn new(job: &Job, row: Row) -> Result<Source> {
        let (reads, modifies) = match row {
            Row::YcsbA => (0.5, false),
            Row::YcsbB => (0.95, false),
            Row::YcsbF => (0.5, true),
            _ => (1.0, false),
        };
        let zipf = Zipf::new(job.keys as f64, EXPONENT)?;
        let random = StdRng::seed_from_u64(job.seed);
        Ok(Source { random, zipf, shuffle: Shuffle::new(job.keys, job.seed), reads, modifies })
    }

    fn part(&mut self, len: usize, model: &mut Model, value_len: usize) -> Part {
        let (mut operations, mut updates) = (Vec::with_capacity(len), Vec::new());
        let mut expected = Reading::default();
        for _ in 0..len {
            let rank = self.zipf.sample(&mut self.random) as u64;
            let number = self.shuffle.at(rank - 1);
            let is_read = self.random.random_bool(self.reads);
            if is_read || self.modifies {
                model.expect(number, &mut expected);
            }
            if is_read {
                operations.push(Operation::Read(key(number)));
            } else {
                updates.push(model.next(number));
                operations.push(if self.modifies { Operation::Modify } else { Operation::Update });
            }
        }
        Part { operations, updates: Batch::new(updates, value_len), expected }
    }
}

fn perform<P: Peer>(peer: &mut P, part: &Part) -> Result<Reading> {
    let mut reading = Reading::default();
    let mut updates = part.updates.iter();
    for operation in &part.operations {
        if let Operation::Read(key) = operation {
            peer.get(key, |value| reading.value(value))?;
        } else if let Some((key, value)) = updates.next() {
            if let Operation::Modify = operation {
                peer.get(key, |value| reading.value(value))?;
            }
            peer.put(key, value)?;
        }
    }
    Ok(reading)
}

pub(super) fn run<P: Peer>(job: &Job, row: Row) -> Result<Outcome> {
    let mut model = job.model()?;
    let mut peer = job.open_loaded::<P>(&model)?;
    let mut source = Source::new(job, row)?;
    let mut meter = Meter::new(job.limit());
    for places in pieces(0..job.operations, chunk(job.value_len)) {
        let part = source.part((places.end - places.start) as usize, &mut model, job.value_len);
        let found = meter.time(part.operations.len(), || perform(&mut peer, &part))?;
        check("reads", found, part.expected)?;
        if meter.is_over() {
            break;
        }
    }
    check("after", peer.read(|view| contents(view))?, model.contents())?;
    peer.close()?;
    job.write_model(&model)?;
    Ok(vec![meter.figure(row, job.operations)])
}
