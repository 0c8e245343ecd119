//! Keys are read and changed in the same way in a store, in a snapshot and in a transaction.
//!
//! The default map of bytes calls this directly, the typed maps encode and decode around it.

use crate::file::layout::MapId;
use std::time::SystemTime;

use crate::Result;
use crate::engine::change::batch::Batch;
use crate::engine::clock::deadline;
use crate::engine::read::pinned::Pinned;

/// Where keys are read: in the newest commit, in one that is pinned, or in a transaction.
pub(crate) trait ReadKeys {
    /// Applies `f` to the value of a key and its deadline, if it has one.
    fn read<R>(&self, map: MapId, key: &[u8], f: impl FnOnce(&[u8], Option<u64>) -> R) -> Result<Option<R>>;
}

/// Where keys are changed: each change is a commit of its own, or a part of a transaction.
pub(crate) trait ChangeKeys {
    /// Sets the value of a key, perhaps until a deadline.
    fn insert(self, map: MapId, key: &[u8], value: &[u8], until: Option<SystemTime>) -> Result<()>;

    /// Removes a key and returns whether it was there.
    fn remove(self, map: MapId, key: &[u8]) -> Result<bool>;
}

impl ReadKeys for Pinned {
    #[inline]
    fn read<R>(&self, map: MapId, key: &[u8], f: impl FnOnce(&[u8], Option<u64>) -> R) -> Result<Option<R>> {
        Ok(self.find(map, key)?.map(|record| f(record.value(), record.expires())))
    }
}

impl ReadKeys for Batch {
    #[inline]
    fn read<R>(&self, map: MapId, key: &[u8], f: impl FnOnce(&[u8], Option<u64>) -> R) -> Result<Option<R>> {
        Ok(self.get(map, key)?.map(|record| f(record.value(), record.expires())))
    }
}

impl ChangeKeys for &mut Batch {
    fn insert(self, map: MapId, key: &[u8], value: &[u8], until: Option<SystemTime>) -> Result<()> {
        self.put(map, key, value, until.map(deadline))
    }

    fn remove(self, map: MapId, key: &[u8]) -> Result<bool> {
        Batch::remove(self, map, key)
    }
}
