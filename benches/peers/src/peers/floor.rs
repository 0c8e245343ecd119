//! The lower bound: a look-up is two reads of which the second depends on the first, a put is a copy and a word, and a
//! synced put is one write and one flush of a file whose space was allocated beforehand.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Result, ensure};
use rustix::fs::{FallocateFlags, fallocate};

use super::{Durability, Facts, Peer, Place, View};
use crate::data::{Batch, Key, number_of};
use crate::workloads::Workload;

/// Space that is allocated beforehand.
const ALLOCATED: u64 = 256 << 20;

/// A file that is appended to.
struct Log {
    file: File,
    at: u64,
    bytes: Vec<u8>,
}

impl Log {
    fn new(path: &Path) -> Result<Log> {
        let file = File::create(path)?;
        fallocate(&file, FallocateFlags::empty(), 0, ALLOCATED)?;
        file.sync_all()?;
        Ok(Log { file, at: 0, bytes: Vec::new() })
    }

    fn append<'a>(&mut self, entries: impl Iterator<Item = (&'a Key, &'a [u8])>) -> Result<()> {
        self.bytes.clear();
        for (key, value) in entries {
            self.bytes.extend_from_slice(key);
            self.bytes.extend_from_slice(value);
        }
        if self.at + self.bytes.len() as u64 > ALLOCATED {
            self.at = 0;
        }
        self.file.write_all_at(&self.bytes, self.at)?;
        self.file.sync_data()?;
        self.at += self.bytes.len() as u64;
        Ok(())
    }
}

pub(crate) struct Floor {
    /// The value of each number.
    index: Vec<u32>,
    values: Vec<u8>,
    value_len: usize,
    log: Option<Log>,
}

impl Floor {
    fn store(&mut self, key: &Key, value: &[u8]) -> Result<()> {
        let number = number_of(key) as usize;
        if number < self.index.len() {
            let start = self.index[number] as usize * self.value_len;
            self.values[start..start + self.value_len].copy_from_slice(value);
        } else {
            ensure!(number == self.index.len(), "keys come in their order at first");
            self.index.push(number as u32);
            self.values.extend_from_slice(value);
        }
        Ok(())
    }
}

impl Peer for Floor {
    type View<'v> = &'v Floor;

    fn facts() -> Facts {
        use Workload::{Miss, Open, OpenAfterKill, OpenAfterPowerCut, Remove};
        let settings = "two dependent reads; synced: `pwrite` and `fdatasync` to an allocated file";
        let skips = vec![Miss, Remove, Open, OpenAfterKill, OpenAfterPowerCut];
        Facts { skips, ..Facts::in_memory("the floor", "–", settings) }
    }

    fn open(place: &Place<'_>) -> Result<Floor> {
        let synced = place.durability == Durability::Synced;
        let log = synced.then(|| Log::new(&place.folder.join("log"))).transpose()?;
        Ok(Floor { index: Vec::new(), values: Vec::new(), value_len: place.value_len, log })
    }

    fn put(&mut self, key: &Key, value: &[u8]) -> Result<()> {
        match &mut self.log {
            Some(log) => log.append([(key, value)].into_iter()),
            None => self.store(key, value),
        }
    }

    fn put_batch(&mut self, batch: &Batch) -> Result<()> {
        match &mut self.log {
            Some(log) => log.append(batch.iter()),
            None => batch.iter().try_for_each(|(key, value)| self.store(key, value)),
        }
    }

    fn delete(&mut self, _: &Key) -> Result<()> {
        anyhow::bail!("the floor keeps what it has")
    }

    #[inline]
    fn get<R>(&self, key: &Key, found: impl FnOnce(&[u8]) -> R) -> Result<Option<R>> {
        let Some(&place) = self.index.get(number_of(key) as usize) else { return Ok(None) };
        let start = place as usize * self.value_len;
        Ok(Some(found(&self.values[start..start + self.value_len])))
    }

    fn read<R>(&self, work: impl for<'v> FnOnce(&mut &'v Floor) -> Result<R>) -> Result<R> {
        work(&mut &*self)
    }

    fn sync(&mut self) -> Result<()> {
        Ok(())
    }

    fn close(self) -> Result<()> {
        Ok(())
    }
}

impl View for &Floor {
    #[inline]
    fn get<R>(&mut self, key: &Key, found: impl FnOnce(&[u8]) -> R) -> Result<Option<R>> {
        Peer::get(*self, key, found)
    }

    fn for_each(&mut self, mut entry: impl FnMut(&[u8], &[u8])) -> Result<()> {
        for (number, value) in (0..).zip(self.values.chunks_exact(self.value_len)) {
            entry(&crate::data::key(number), value);
        }
        Ok(())
    }
}
