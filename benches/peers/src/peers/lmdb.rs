//! LMDB, through heed.
#![allow(unsafe_code, reason = "opening an environment, and flags that weaken it, are unsafe in heed")]

use anyhow::Result;
use heed::types::Bytes;
use heed::{Database, Env, EnvFlags, EnvOpenOptions, RoTxn, WithTls};

use super::{Durability, Facts, Peer, Place, View, version_of};
use crate::data::{Batch, Key};

/// Address space for its map, of which only the length of the file is used.
const MAP: usize = 1 << 40;

type Table = Database<Bytes, Bytes>;

pub(crate) struct Lmdb {
    env: Env,
    table: Table,
}

pub(crate) struct LmdbView<'v> {
    transaction: RoTxn<'v, WithTls>,
    table: Table,
}

impl Peer for Lmdb {
    type View<'v> = LmdbView<'v>;

    fn facts() -> Facts {
        Facts {
            buffered: "a kill (`MDB_NOSYNC`)".into(),
            ..Facts::on_disk("LMDB", format!("heed {}", version_of("heed")), "default", "default")
        }
    }

    fn open(place: &Place<'_>) -> Result<Lmdb> {
        let mut options = EnvOpenOptions::new();
        options.map_size(MAP);
        if place.durability == Durability::Buffered {
            // SAFETY: without syncs, a power cut can damage the file; the system does not go down during a measurement,
            // and a file from before a crash would be thrown away.
            unsafe { options.flags(EnvFlags::NO_SYNC) };
        }
        // SAFETY: nothing but LMDB changes the file while it is open: the folder is one of this program's own.
        let env = unsafe { options.open(place.folder)? };
        let mut transaction = env.write_txn()?;
        let table = env.create_database(&mut transaction, None)?;
        transaction.commit()?;
        Ok(Lmdb { env, table })
    }

    fn put(&mut self, key: &Key, value: &[u8]) -> Result<()> {
        let mut transaction = self.env.write_txn()?;
        self.table.put(&mut transaction, key, value)?;
        Ok(transaction.commit()?)
    }

    fn put_batch(&mut self, batch: &Batch) -> Result<()> {
        let mut transaction = self.env.write_txn()?;
        batch.iter().try_for_each(|(key, value)| self.table.put(&mut transaction, key, value))?;
        Ok(transaction.commit()?)
    }

    fn delete(&mut self, key: &Key) -> Result<()> {
        let mut transaction = self.env.write_txn()?;
        self.table.delete(&mut transaction, key)?;
        Ok(transaction.commit()?)
    }

    fn get<R>(&self, key: &Key, found: impl FnOnce(&[u8]) -> R) -> Result<Option<R>> {
        let transaction = self.env.read_txn()?;
        Ok(self.table.get(&transaction, key)?.map(found))
    }

    fn read<R>(&self, work: impl for<'v> FnOnce(&mut LmdbView<'v>) -> Result<R>) -> Result<R> {
        work(&mut LmdbView { transaction: self.env.read_txn()?, table: self.table })
    }

    fn sync(&mut self) -> Result<()> {
        Ok(self.env.force_sync()?)
    }

    fn close(self) -> Result<()> {
        self.env.prepare_for_closing().wait();
        Ok(())
    }
}

impl View for LmdbView<'_> {
    fn get<R>(&mut self, key: &Key, found: impl FnOnce(&[u8]) -> R) -> Result<Option<R>> {
        Ok(self.table.get(&self.transaction, key)?.map(found))
    }

    fn for_each(&mut self, mut entry: impl FnMut(&[u8], &[u8])) -> Result<()> {
        for found in self.table.iter(&self.transaction)? {
            let (key, value) = found?;
            entry(key, value);
        }
        Ok(())
    }
}
