//! sled.

use anyhow::Result;
use sled::{Batch as Writes, Config, Db, Mode};

use super::{Durability, Facts, Peer, Place, View, version_of};
use crate::data::{Batch, Key};

pub(crate) struct Sled {
    database: Db,
    durability: Durability,
}

impl Sled {
    fn flush(&self) -> Result<()> {
        if self.durability == Durability::Synced {
            self.database.flush()?;
        }
        Ok(())
    }
}

impl Peer for Sled {
    type View<'v> = &'v Db;

    fn facts() -> Facts {
        let settings = "`HighThroughput`, a cache that holds everything";
        // It calls `sync_file_range`, which flushes neither the disk's own cache nor the length of the file.
        let synced = "`flush` after each, which does not flush the disk's cache";
        Facts {
            buffered: "nothing for half a second".into(),
            survives_kill: false,
            shares: false,
            ..Facts::on_disk("sled", version_of("sled"), settings, synced)
        }
    }

    fn open(place: &Place<'_>) -> Result<Sled> {
        let cache = (place.data_bytes() * 2).max(1 << 30);
        let config = Config::new().path(place.folder.join("sled")).mode(Mode::HighThroughput).cache_capacity(cache);
        Ok(Sled { database: config.open()?, durability: place.durability })
    }

    fn put(&mut self, key: &Key, value: &[u8]) -> Result<()> {
        self.database.insert(key, value)?;
        self.flush()
    }

    fn put_batch(&mut self, batch: &Batch) -> Result<()> {
        let mut writes = Writes::default();
        batch.iter().for_each(|(key, value)| writes.insert(key, value));
        self.database.apply_batch(writes)?;
        self.flush()
    }

    fn delete(&mut self, key: &Key) -> Result<()> {
        self.database.remove(key)?;
        self.flush()
    }

    fn get<R>(&self, key: &Key, found: impl FnOnce(&[u8]) -> R) -> Result<Option<R>> {
        Ok(self.database.get(key)?.map(|value| found(&value)))
    }

    fn read<R>(&self, work: impl for<'v> FnOnce(&mut &'v Db) -> Result<R>) -> Result<R> {
        work(&mut &self.database)
    }

    fn sync(&mut self) -> Result<()> {
        self.database.flush()?;
        Ok(())
    }

    fn close(self) -> Result<()> {
        self.database.flush()?;
        Ok(())
    }
}

impl View for &Db {
    fn get<R>(&mut self, key: &Key, found: impl FnOnce(&[u8]) -> R) -> Result<Option<R>> {
        Ok(sled::Tree::get(self, key)?.map(|value| found(&value)))
    }

    fn for_each(&mut self, mut entry: impl FnMut(&[u8], &[u8])) -> Result<()> {
        for found in self.iter() {
            let (key, value) = found?;
            entry(&key, &value);
        }
        Ok(())
    }
}
