//! Batches: many changes in one commit, what a transaction is made of.
//!
//! The records go to the log as they come, behind the tail where nobody can reach them; the heap holds sixteen bytes
//! for each key that was touched. All records of a batch have one sequence number. A batch that is not committed leaves
//! bytes that nobody can reach, and the number is skipped.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use hashbrown::HashTable;

use super::Engine;
use super::change::check_lengths;
use super::commit::Writer;
use super::settings::Durability;
use crate::error::{Error, Result};
use crate::file::index::Probe;
use crate::file::layout::{KeyHash, Kind, commit_word, flags, live};
use crate::file::log::{self, Entry, Record, Tail};

/// The newest record that the batch itself has written for a key.
struct Own {
    hash: KeyHash,
    record: u64,
}

/// A batch that is being written. It holds the writer lock.
pub(crate) struct Batch {
    engine: Arc<Engine>,
    map: u32,
    seq: u64,
    tail: Tail,
    /// The last record appended, whose flags are not final before the next one comes.
    last: Option<u64>,
    own: HashTable<Own>,
    /// Slots that the commit will have to find.
    new_slots: u64,
    /// Tombstones that it replaces, whose slots are there already.
    over_tombstones: u64,
    keys: u64,
    /// Records appended.
    records: u64,
    /// Something was appended, or there was an attempt.
    touched: bool,
    /// An append has failed behind a jump: the records do not hang together any more.
    broken: bool,
    committed: bool,
}

/// A transaction of fewer records than this, which is to be synced, is appended without the mapping; see
/// [`Region::append`](crate::file::region::Region::append).
const FEW: u64 = 16;

impl Batch {
    /// Takes the writer lock and begins.
    pub(crate) fn begin(engine: Arc<Engine>, map: u32) -> Result<Batch> {
        engine.acquire()?;
        engine.begin_long_turn();
        let prepared = (|| {
            let writer = engine.writer();
            let keys = engine.index_for_writing(map)?.totals()?.keys;
            Ok((engine.next_seq()?, engine.tail(&writer)?, keys))
        })();
        match prepared {
            Ok((seq, tail, keys)) => Ok(Batch {
                engine,
                map,
                seq,
                tail,
                last: None,
                own: HashTable::new(),
                new_slots: 0,
                over_tombstones: 0,
                keys,
                records: 0,
                touched: false,
                broken: false,
                committed: false,
            }),
            Err(error) => {
                engine.end_long_turn();
                Err(error)
            }
        }
    }

    /// Keys that there are, the batch's own changes included.
    pub(crate) fn len(&self) -> u64 {
        self.keys
    }

    /// The newest record of a key, the batch's own before what was committed.
    fn newest(&self, hash: KeyHash, key: &[u8]) -> Result<Option<Record<'_>>> {
        let (engine, map) = (&*self.engine, self.map);
        let mut damage = None;
        let own = self.own.find(hash.bits(), |own| {
            own.hash == hash
                && engine.is_key(map, key, own.record).unwrap_or_else(|error| {
                    damage = Some(error);
                    false
                })
        });
        if let Some(error) = damage {
            return Err(error);
        }
        let offset = match own {
            Some(own) => Some(own.record),
            None => match engine.probe(&engine.index_for_writing(map)?, map, hash, key)? {
                Some(Probe::Found(_, offset)) => Some(offset),
                _ => None,
            },
        };
        offset.map(|offset| log::record(&engine.region, offset)).transpose()
    }

    /// The value of a key as the batch sees it.
    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<&[u8]>> {
        self.engine.check_not_forked()?;
        self.engine.adopt_turn();
        let record = self.newest(KeyHash::of(key, self.engine.seed), key)?;
        Ok(record.filter(|record| record.kind() == Some(Kind::Put)).map(|record| record.value()))
    }

    /// Puts a key.
    pub(crate) fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        self.engine.check_not_forked()?;
        check_lengths(key, value)?;
        self.engine.adopt_turn();
        let hash = KeyHash::of(key, self.engine.seed);
        let newest = self.newest(hash, key)?.map(|record| record.offset);
        let change = self.engine.put_over(newest)?;
        let (kind, seq, map) = (Kind::Put, self.seq, self.map);
        self.append(hash, &Entry { kind, flags: change.flags, seq, prev: change.prev, map, key, value })?;
        let is_new = change.flags & flags::NEW != 0;
        self.new_slots += u64::from(change.new_slot);
        self.over_tombstones += u64::from(is_new && !change.new_slot);
        self.keys = self.keys.saturating_add(u64::from(is_new));
        Ok(())
    }

    /// Removes a key and says whether it was there.
    pub(crate) fn remove(&mut self, key: &[u8]) -> Result<bool> {
        self.engine.check_not_forked()?;
        self.engine.adopt_turn();
        let hash = KeyHash::of(key, self.engine.seed);
        let newest = self.newest(hash, key)?.filter(|record| record.kind() == Some(Kind::Put));
        let Some(prev) = newest.map(|record| record.offset) else {
            return Ok(false);
        };
        let (kind, seq, map) = (Kind::Remove, self.seq, self.map);
        self.append(hash, &Entry { kind, flags: 0, seq, prev, map, key, value: &[] })?;
        self.keys = self.keys.saturating_sub(1);
        Ok(true)
    }

    fn append(&mut self, hash: KeyHash, entry: &Entry<'_>) -> Result<()> {
        self.check_not_broken()?;
        self.touched = true;
        let region = &self.engine.region;
        if let Some(last) = self.last {
            self.tail.seal(region, last, 0)?;
        }
        let mut writer = self.engine.writer();
        let shrinks = entry.kind == Kind::Remove;
        let jumped = self.engine.make_log_room(&mut writer, &mut self.tail, entry.len(), self.seq, shrinks)?;
        let record = self.tail.append_open(region, entry).inspect_err(|_| self.broken = jumped)?;
        self.last = Some(record);
        self.records += 1;
        // For many records, what the flush writes too much is less than what so many system calls cost.
        self.tail.synced &= self.records < FEW;

        let (engine, map, key) = (&*self.engine, self.map, entry.key);
        let is_key = |own: &Own| own.hash == hash && engine.is_key(map, key, own.record).unwrap_or(false);
        match self.own.find_mut(hash.bits(), is_key) {
            Some(own) => own.record = record,
            None => {
                self.own.insert_unique(hash.bits(), Own { hash, record }, |own| own.hash.bits());
            }
        }
        Ok(())
    }

    fn check_not_broken(&self) -> Result<()> {
        if !self.broken {
            return Ok(());
        }
        let source = io::Error::other("an append of this transaction has failed before");
        Err(Error::io(self.engine.region.path(), "append to the log", source))
    }

    /// The durability that the store's commits have.
    pub(crate) fn default_durability(&self) -> Durability {
        self.engine.settings.durability
    }

    /// Makes all of it seen, at once.
    pub(crate) fn commit(mut self, durability: Durability) -> Result<()> {
        self.engine.check_not_forked()?;
        self.engine.adopt_turn();
        let engine = Arc::clone(&self.engine);
        engine.check_can_be(durability)?;
        self.check_not_broken()?;
        if let Some(last) = self.last {
            let mut writer = engine.writer();
            let before = engine.log_totals()?;
            self.commit_in_turn(&mut writer, last)?;
            engine.upkeep_after(&mut writer, self.map, before, self.records);
        }
        self.committed = true;
        let changed = self.last.is_some();
        engine.changed.fetch_or(changed, Ordering::Relaxed);
        drop(self);
        match durability {
            Durability::Synced if changed => engine.sync()?,
            _ => {}
        }
        engine.checkpoint_if_due();
        Ok(())
    }

    fn commit_in_turn(&mut self, writer: &mut Writer, last: u64) -> Result<()> {
        let engine = &self.engine;
        let index = engine.index_for_writing(self.map)?;
        let totals = index.totals()?;
        if totals.used().saturating_add(self.new_slots) > index.limit() {
            engine.make_index_room(writer, self.map, self.new_slots, self.seq, Some(self.over_tombstones))?;
        }
        self.tail.seal(&engine.region, last, flags::COMMIT)?;
        engine.region.store_live(live::COMMIT_POINT, commit_word(self.tail.at, self.seq), Ordering::Release)?;
        engine.finish(writer)
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        if self.engine.is_forked() {
            // It is the parent's.
            return;
        }
        if !self.committed && self.touched {
            let mut writer = self.engine.writer();
            // Should this fail, the next writer does it again.
            let _ = self.engine.abandon(&mut writer);
        }
        self.engine.end_long_turn();
    }
}
