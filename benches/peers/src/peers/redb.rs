//! redb.

use anyhow::{Result, bail};
use redb::{
    Builder, Database, Durability as Lasts, ReadOnlyDatabase, ReadOnlyTable, ReadableDatabase, ReadableTable,
    TableDefinition, WriteTransaction,
};

use super::{Access, Durability, Facts, Peer, Place, View, version_of};
use crate::data::{Batch, Key};

const TABLE: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("table");

enum Handle {
    Write(Database),
    Read(ReadOnlyDatabase),
}

pub(crate) struct Redb {
    database: Handle,
    durability: Lasts,
}

impl Redb {
    fn begin(&self) -> Result<WriteTransaction> {
        let Handle::Write(database) = &self.database else { bail!("this was opened to read") };
        let mut transaction = database.begin_write()?;
        transaction.set_durability(self.durability)?;
        Ok(transaction)
    }

    fn table(&self) -> Result<ReadOnlyTable<&'static [u8], &'static [u8]>> {
        let transaction = match &self.database {
            Handle::Write(database) => database.begin_read()?,
            Handle::Read(database) => database.begin_read()?,
        };
        Ok(transaction.open_table(TABLE)?)
    }
}

impl Peer for Redb {
    type View<'v> = RedbView;

    fn facts() -> Facts {
        let settings = "a cache that holds everything";
        Facts {
            buffered: "nothing (`Durability::None`)".into(),
            survives_kill: false,
            longest_value: 3 << 30,
            ..Facts::on_disk("redb", version_of("redb"), settings, "`Durability::Immediate`, the default")
        }
    }

    fn open(place: &Place<'_>) -> Result<Redb> {
        let path = place.folder.join("store.redb");
        let mut builder = Builder::new();
        // The default is one gibibyte.
        builder.set_cache_size((place.data_bytes() as usize * 2).max(1 << 30));
        let durability = match place.durability {
            Durability::Buffered => Lasts::None,
            Durability::Synced => Lasts::Immediate,
        };
        let database = match place.access {
            Access::Write => Handle::Write(builder.create(path)?),
            Access::Read => Handle::Read(builder.open_read_only(path)?),
        };
        let redb = Redb { database, durability };
        if place.access == Access::Write {
            // So that readers find the table.
            let transaction = redb.begin()?;
            transaction.open_table(TABLE)?;
            transaction.commit()?;
        }
        Ok(redb)
    }

    fn put(&mut self, key: &Key, value: &[u8]) -> Result<()> {
        let transaction = self.begin()?;
        transaction.open_table(TABLE)?.insert(&key[..], value)?;
        Ok(transaction.commit()?)
    }

    fn put_batch(&mut self, batch: &Batch) -> Result<()> {
        let transaction = self.begin()?;
        let mut table = transaction.open_table(TABLE)?;
        for (key, value) in batch.iter() {
            table.insert(&key[..], value)?;
        }
        drop(table);
        Ok(transaction.commit()?)
    }

    fn delete(&mut self, key: &Key) -> Result<()> {
        let transaction = self.begin()?;
        transaction.open_table(TABLE)?.remove(&key[..])?;
        Ok(transaction.commit()?)
    }

    fn get<R>(&self, key: &Key, found: impl FnOnce(&[u8]) -> R) -> Result<Option<R>> {
        Ok(self.table()?.get(&key[..])?.map(|value| found(value.value())))
    }

    fn read<R>(&self, work: impl for<'v> FnOnce(&mut RedbView) -> Result<R>) -> Result<R> {
        work(&mut RedbView(self.table()?))
    }

    fn sync(&mut self) -> Result<()> {
        let Handle::Write(database) = &self.database else { bail!("this was opened to read") };
        // An immediate commit makes those before it durable as well.
        Ok(database.begin_write()?.commit()?)
    }

    fn close(self) -> Result<()> {
        match self.database {
            Handle::Write(database) => database.close()?,
            Handle::Read(database) => database.close()?,
        }
        Ok(())
    }
}

pub(crate) struct RedbView(ReadOnlyTable<&'static [u8], &'static [u8]>);

impl View for RedbView {
    fn get<R>(&mut self, key: &Key, found: impl FnOnce(&[u8]) -> R) -> Result<Option<R>> {
        Ok(self.0.get(&key[..])?.map(|value| found(value.value())))
    }

    fn for_each(&mut self, mut entry: impl FnMut(&[u8], &[u8])) -> Result<()> {
        for found in self.0.iter()? {
            let (key, value) = found?;
            entry(key.value(), value.value());
        }
        Ok(())
    }
}
