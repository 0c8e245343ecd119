//! Many records, in transactions of bounded size: a transaction takes memory for each of its keys.

use std::sync::Arc;

use super::batch::Batch;
use crate::engine::Engine;
use crate::error::Result;

/// Records, and bytes of them, from which on a transaction is large enough.
const MOST_RECORDS: u64 = 4096;
const MOST_BYTES: u64 = 1 << 20;

/// Transactions one after the other. The last one is dropped with this, unless it is committed.
pub(crate) struct Bounded {
    engine: Arc<Engine>,
    /// The transaction in progress, with the number and the bytes of its records.
    batch: Option<Batch>,
    records: u64,
    bytes: u64,
}

impl Bounded {
    pub(crate) fn new(engine: Arc<Engine>) -> Bounded {
        Bounded { engine, batch: None, records: 0, bytes: 0 }
    }

    /// The store that is written to.
    pub(crate) fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// The transaction in progress.
    pub(crate) fn batch(&mut self) -> Result<&mut Batch> {
        match &mut self.batch {
            Some(batch) => Ok(batch),
            none => Ok(none.insert(Batch::begin(Arc::clone(&self.engine))?)),
        }
    }

    /// Counts a record of `bytes` bytes, and says whether the transaction is large enough to be committed.
    pub(crate) fn count(&mut self, bytes: u64) -> bool {
        self.records += 1;
        self.bytes += bytes;
        self.records >= MOST_RECORDS || self.bytes >= MOST_BYTES
    }

    /// Commits the transaction in progress, and returns how many records were counted in it.
    pub(crate) fn commit(&mut self) -> Result<u64> {
        let records = std::mem::take(&mut self.records);
        self.bytes = 0;
        self.batch.take().map_or(Ok(()), Batch::commit_as_usual)?;
        Ok(records)
    }
}
