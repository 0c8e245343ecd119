//! RocksDB.

use anyhow::Result;
use rocksdb::{ColumnFamilyDescriptor, DB, DEFAULT_COLUMN_FAMILY_NAME, Options, WriteBatch, WriteOptions};

use super::{Access, Durability, Facts, Peer, Place, View, version_of};
use crate::data::{Batch, Key};

/// Values from this length on are stored in their own files.
const LARGE: usize = 1024;

pub(crate) struct Rocksdb {
    database: DB,
    writes: WriteOptions,
    access: Access,
}

impl Peer for Rocksdb {
    /// Without a snapshot, which a read-only database does not support. An iterator has its own.
    type View<'v> = &'v DB;

    fn facts() -> Facts {
        let settings =
            "`optimize_for_point_lookup`, a cache that holds everything, no compression; blob files from 1 KiB on";
        Facts::on_disk("RocksDB", version_of("librocksdb-sys"), settings, "`WriteOptions::sync`")
    }

    fn open(place: &Place<'_>) -> Result<Rocksdb> {
        let mut options = Options::default();
        options.create_if_missing(true);
        options.increase_parallelism(std::thread::available_parallelism()?.get() as i32);
        options.optimize_for_point_lookup((place.data_bytes() >> 19).max(64));
        // As advised for large values (BlobDB).
        if place.value_len >= LARGE {
            options.set_enable_blob_files(true);
            options.set_enable_blob_gc(true);
        }
        // Named, since only then many keys can be read at once.
        let families = [ColumnFamilyDescriptor::new(DEFAULT_COLUMN_FAMILY_NAME, options.clone())];
        let database = match place.access {
            Access::Write => DB::open_cf_descriptors(&options, place.folder, families)?,
            Access::Read => DB::open_cf_descriptors_read_only(&options, place.folder, families, false)?,
        };
        let mut writes = WriteOptions::default();
        writes.set_sync(place.durability == Durability::Synced);
        Ok(Rocksdb { database, writes, access: place.access })
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

    fn read<R>(&self, work: impl for<'v> FnOnce(&mut &'v DB) -> Result<R>) -> Result<R> {
        work(&mut &self.database)
    }

    fn sync(&mut self) -> Result<()> {
        Ok(self.database.flush_wal(true)?)
    }

    fn close(self) -> Result<()> {
        // Closing alone does not sync the log, and a read-only database has none.
        if self.access == Access::Write {
            self.database.flush_wal(true)?;
        }
        self.database.cancel_all_background_work(true);
        Ok(())
    }
}

impl View for &DB {
    fn get<R>(&mut self, key: &Key, found: impl FnOnce(&[u8]) -> R) -> Result<Option<R>> {
        Ok(self.get_pinned(key)?.map(|value| found(&value)))
    }

    fn get_many(&mut self, keys: &[Key], mut found: impl FnMut(&[u8])) -> Result<()> {
        let family = self.cf_handle(DEFAULT_COLUMN_FAMILY_NAME);
        let family = family.ok_or_else(|| anyhow::anyhow!("there is no default column family"))?;
        for value in self.batched_multi_get_cf(&family, keys, false) {
            if let Some(value) = value? {
                found(&value);
            }
        }
        Ok(())
    }

    fn for_each(&mut self, mut entry: impl FnMut(&[u8], &[u8])) -> Result<()> {
        let mut cursor = self.raw_iterator();
        cursor.seek_to_first();
        while let Some((key, value)) = cursor.item() {
            entry(key, value);
            cursor.next();
        }
        Ok(cursor.status()?)
    }
}
