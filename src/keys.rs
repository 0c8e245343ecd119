//! Keys are read and changed in the same way in a store, in a snapshot and in a transaction.
//!
//! The default map of bytes calls this directly, the typed maps encode and decode around it.

use std::time::SystemTime;

use crate::Result;
use crate::engine::change::batch::Batch;
use crate::engine::clock::{deadline, time};
use crate::engine::read::pinned::Pinned;
use crate::file::layout::MapId;

/// When an entry expires.
///
/// ```
/// use std::time::{Duration, SystemTime};
/// use slotlog::Expiry;
///
/// # let store = slotlog::Store::in_memory()?;
/// let in_2100 = SystemTime::UNIX_EPOCH + Duration::from_secs(4_102_444_800);
/// store.insert_with_expiry("token", "7", in_2100)?;
/// assert_eq!(store.expiry("token")?, Some(Expiry::At(in_2100)));
/// store.set_expiry("token", Expiry::Never)?;
/// assert_eq!(store.expiry("token")?, Some(Expiry::Never));
/// # Ok::<(), slotlog::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Expiry {
    /// It stays until it is removed.
    Never,
    /// From this time on, by the reader's clock, it counts as absent. The file has whole milliseconds.
    At(SystemTime),
}

impl Expiry {
    /// The time, if it expires.
    ///
    /// ```
    /// use slotlog::Expiry;
    ///
    /// let now = std::time::SystemTime::now();
    /// assert_eq!((Expiry::At(now).time(), Expiry::Never.time()), (Some(now), None));
    /// ```
    pub fn time(self) -> Option<SystemTime> {
        match self {
            Expiry::Never => None,
            Expiry::At(time) => Some(time),
        }
    }

    /// As a record has it.
    pub(crate) fn to_record(self) -> Option<u64> {
        self.time().map(deadline)
    }

    /// From a record.
    pub(crate) fn of_record(expires: Option<u64>) -> Expiry {
        expires.map(time).into()
    }
}

impl From<SystemTime> for Expiry {
    fn from(at: SystemTime) -> Expiry {
        Expiry::At(at)
    }
}

/// `None` stands for [`Never`](Expiry::Never).
impl From<Option<SystemTime>> for Expiry {
    fn from(at: Option<SystemTime>) -> Expiry {
        at.map_or(Expiry::Never, Expiry::At)
    }
}

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
