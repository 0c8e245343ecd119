//! slotlog with its defaults.

use anyhow::Result;
use slotlog::{Durability as Lasts, Snapshot, Store};

use super::{Durability, Facts, Peer, Place, View, version_of};
use crate::data::{Batch, Key};

pub(crate) struct Slotlog {
    store: Store,
}

impl Peer for Slotlog {
    type View<'v> = Snapshot;

    fn facts() -> Facts {
        Facts::on_disk("slotlog", version_of("slotlog"), "default", "`Durability::Synced`")
    }

    fn open(place: &Place<'_>) -> Result<Slotlog> {
        let durability = match place.durability {
            Durability::Buffered => Lasts::Buffered,
            Durability::Synced => Lasts::Synced,
        };
        let store = Store::options().durability(durability).open(place.folder.join("store.slotlog"))?;
        Ok(Slotlog { store })
    }

    fn put(&mut self, key: &Key, value: &[u8]) -> Result<()> {
        Ok(self.store.insert(key, value)?)
    }

    fn put_batch(&mut self, batch: &Batch) -> Result<()> {
        Ok(self.store.bytes().extend(batch.iter())?)
    }

    fn delete(&mut self, key: &Key) -> Result<()> {
        self.store.remove(key)?;
        Ok(())
    }

    fn get<R>(&self, key: &Key, found: impl FnOnce(&[u8]) -> R) -> Result<Option<R>> {
        Ok(self.store.get_with(key, found)?)
    }

    fn read<R>(&self, work: impl for<'v> FnOnce(&mut Snapshot) -> Result<R>) -> Result<R> {
        work(&mut self.store.snapshot()?)
    }

    fn sync(&mut self) -> Result<()> {
        Ok(self.store.sync()?)
    }

    fn close(self) -> Result<()> {
        Ok(self.store.close()?)
    }
}

impl View for Snapshot {
    fn get<R>(&mut self, key: &Key, found: impl FnOnce(&[u8]) -> R) -> Result<Option<R>> {
        Ok(Snapshot::get(self, key)?.map(found))
    }

    fn get_many(&mut self, keys: &[Key], found: impl FnMut(&[u8])) -> Result<()> {
        Snapshot::get_many(self, keys)?.into_iter().flatten().for_each(found);
        Ok(())
    }

    fn for_each(&mut self, mut entry: impl FnMut(&[u8], &[u8])) -> Result<()> {
        for found in self.iter() {
            let (key, value) = found?;
            entry(key, value);
        }
        Ok(())
    }
}
