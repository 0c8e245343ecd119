//! RocksDB.

use anyhow::Result;
use rocksdb::{DB, Options, SnapshotWithThreadMode, WriteBatch, WriteOptions};

use super::{Access, Durability, Facts, Peer, Place, View, version_of};
use crate::data::{Batch, Key};

pub(crate) struct Rocksdb {
    database: DB,
    writes: WriteOptions,
}

pub(crate) struct RocksdbView<'v> {
    database: &'v DB,
    snapshot: SnapshotWithThreadMode<'v, DB>,
}

impl Peer for Rocksdb {
    type View<'v> = RocksdbView<'v>;

    fn facts() -> Facts {
        Facts {
            name: "RocksDB",
            version: version_of("librocksdb-sys"),
            settings: "`optimize_for_point_lookup`, a cache that holds everything, no compression",
            buffered: "a kill",
            survives_kill: true,
            synced: "`WriteOptions::sync`",
            is_lasting: true,
            shares: true,
            longest_value: u32::MAX as usize,
            skips: &[],
        }
    }

    fn open(place: &Place<'_>) -> Result<Rocksdb> {
        let mut options = Options::default();
        options.create_if_missing(true);
        options.increase_parallelism(std::thread::available_parallelism()?.get() as i32);
        options.optimize_for_point_lookup((place.data_bytes() * 2 >> 20).max(64));
        let database = match place.access {
            Access::Write => DB::open(&options, place.folder)?,
            Access::Read => DB::open_for_read_only(&options, place.folder, false)?,
        };
        let mut writes = WriteOptions::default();
        writes.set_sync(place.durability == Durability::Synced);
        Ok(Rocksdb { database, writes })
    }

    fn put(&mut self, key: &Key, value: &[u8]) -> Result<()> {
        Ok(self.database.put_opt(key, value, &self.writes)?)
    }

    fn put_batch(&mut self, batch: &Batch) -> Result<()> {
        let mut writes = WriteBatch::default();
        batch.iter().for_each(|(key, value)| writes.put(key, value));
        Ok(self.database.write_opt(writes, &self.writes)?)
    }

    fn delete(&mut self, key: &Key) -> Result<()> {
        Ok(self.database.delete_opt(key, &self.writes)?)
    }

    fn get<R>(&self, key: &Key, found: impl FnOnce(&[u8]) -> R) -> Result<Option<R>> {
        Ok(self.database.get_pinned(key)?.map(|value| found(&value)))
    }

    fn read<R>(&self, work: impl for<'v> FnOnce(&mut RocksdbView<'v>) -> Result<R>) -> Result<R> {
        work(&mut RocksdbView { database: &self.database, snapshot: self.database.snapshot() })
    }

    fn sync(&mut self) -> Result<()> {
        Ok(self.database.flush_wal(true)?)
    }

    fn close(self) -> Result<()> {
        self.database.flush_wal(true)?;
        self.database.cancel_all_background_work(true);
        Ok(())
    }
}

impl View for RocksdbView<'_> {
    fn get<R>(&mut self, key: &Key, found: impl FnOnce(&[u8]) -> R) -> Result<Option<R>> {
        Ok(self.snapshot.get_pinned(key)?.map(|value| found(&value)))
    }

    fn get_many(&mut self, keys: &[Key], mut found: impl FnMut(&[u8])) -> Result<()> {
        let family = self.database.cf_handle(rocksdb::DEFAULT_COLUMN_FAMILY_NAME);
        let family = family.ok_or_else(|| anyhow::anyhow!("there is no default column family"))?;
        for value in self.database.batched_multi_get_cf(&family, keys, false) {
            if let Some(value) = value? {
                found(&value);
            }
        }
        Ok(())
    }

    fn for_each(&mut self, mut entry: impl FnMut(&[u8], &[u8])) -> Result<()> {
        let mut cursor = self.snapshot.raw_iterator();
        cursor.seek_to_first();
        while let Some((key, value)) = cursor.item() {
            entry(key, value);
            cursor.next();
        }
        Ok(cursor.status()?)
    }
}
