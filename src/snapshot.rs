//! One commit's view of the store.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use crate::Result;
use crate::engine::pins::Pin;
use crate::engine::{Engine, now};
use crate::file::index::{Index, Slots};
use crate::file::layout::KeyHash;
use crate::file::log::{self, Record};
use crate::file::region::Region;

/// The store as one commit left it, whatever others write meanwhile.
///
/// Values are borrowed straight from the file, and the borrows live as long as the snapshot. It is `Send + Sync`, may
/// outlive the [`Store`](crate::Store) that it came from, and keeps the file open. It holds up nobody; held for long, it
/// keeps space from being reused.
///
/// ```
/// # let store = slotlog::Store::in_memory()?;
/// store.insert("key", "before")?;
/// let snapshot = store.snapshot()?;
/// store.insert("key", "after")?;
/// assert_eq!(snapshot.get("key")?, Some(&b"before"[..]));
/// assert_eq!(snapshot.len(), 1);
/// for entry in snapshot.iter() {
///     let (key, value) = entry?;
///     assert_eq!((key, value), (&b"key"[..], &b"before"[..]));
/// }
/// # Ok::<(), slotlog::Error>(())
/// ```
pub struct Snapshot {
    engine: Arc<Engine>,
    map: u32,
    pin: Pin,
    /// Where the region of the index is, if the map exists, as a word of the map table.
    region: Option<u64>,
    len: u64,
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot").field("len", &self.len).finish_non_exhaustive()
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        if self.engine.is_forked() {
            // It is the parent's.
            return;
        }
        // It only informs; without it the pin looks older than it is.
        let _ = self.engine.date_pin(&self.pin, 0);
        self.engine.unpin(&self.pin);
    }
}

/// How many records an iteration asks the memory for ahead of their use.
const AHEAD: usize = 32;

/// Asks for the first cache lines of a record; all of it, if it is a small one.
fn prefetch_record(region: &Region, record: u64) {
    for line in 0..3 {
        region.prefetch(record + 64 * line);
    }
}

/// How many keys [`Snapshot::get_many`] looks up side by side.
const ABREAST: usize = 32;

impl Snapshot {
    pub(crate) fn new(engine: Arc<Engine>, map: u32) -> Result<Snapshot> {
        let (pin, index, totals) = engine.pin_with_totals(map)?;
        let region = index.map(|index| index.extent());
        let snapshot = Snapshot { map, pin, region, len: totals.keys, engine: Arc::clone(&engine) };
        engine.date_pin(&snapshot.pin, now())?;
        Ok(snapshot)
    }

    #[inline(always)]
    fn index(&self) -> Result<Option<Index<'_>>> {
        self.engine.check_not_forked()?;
        self.region.map(|extent| Index::of_extent(&self.engine.region, extent)).transpose()
    }

    /// The value of a key, borrowed.
    ///
    /// # Errors
    /// [`Corrupt`](crate::Error::Corrupt) if the file is damaged.
    #[inline]
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<&[u8]>> {
        let Some(index) = self.index()? else { return Ok(None) };
        let record = self.engine.lookup(&index, self.map, self.pin.seq, key.as_ref())?;
        Ok(record.map(|record| record.value()))
    }

    /// Whether a key has a value.
    ///
    /// # Errors
    /// [`Corrupt`](crate::Error::Corrupt) if the file is damaged.
    pub fn contains_key(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        Ok(self.get(key)?.is_some())
    }

    /// The values of many keys, in their order. The memory accesses of different keys overlap, so that with cold data
    /// this is a good deal faster than one [`get`](Snapshot::get) after the other.
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// store.insert("a", "1")?;
    /// let snapshot = store.snapshot()?;
    /// assert_eq!(snapshot.get_many(&["a", "b"])?, [Some(&b"1"[..]), None]);
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Corrupt`](crate::Error::Corrupt) if the file is damaged.
    pub fn get_many<K: AsRef<[u8]>>(&self, keys: &[K]) -> Result<Vec<Option<&[u8]>>> {
        let Some(index) = self.index()? else { return Ok(vec![None; keys.len()]) };
        let region = &self.engine.region;
        let mut values = Vec::with_capacity(keys.len());
        for keys in keys.chunks(ABREAST) {
            let hash = |key: &K| KeyHash::of(key.as_ref(), self.engine.seed);
            keys.iter().for_each(|key| index.prefetch(hash(key)));
            for key in keys {
                // The first slot whose tag fits is nearly always the right one.
                if let Some(record) = index.find(hash(key), |record| Ok(Some(record)))? {
                    prefetch_record(region, record);
                }
            }
            for key in keys {
                values.push(self.get(key)?);
            }
        }
        Ok(values)
    }

    /// All keys and values, in no particular order.
    pub fn iter(&self) -> Iter<'_> {
        let (slots, error) = match self.index() {
            Ok(index) => (index.map(|index| index.iter()), None),
            Err(error) => (None, Some(error)),
        };
        Iter { snapshot: self, slots, ahead: VecDeque::with_capacity(AHEAD), error }
    }

    /// All keys, in no particular order.
    pub fn keys(&self) -> impl Iterator<Item = Result<&[u8]>> {
        self.iter().map(|entry| Ok(entry?.0))
    }

    /// All values, in no particular order.
    pub fn values(&self) -> impl Iterator<Item = Result<&[u8]>> {
        self.iter().map(|entry| Ok(entry?.1))
    }

    /// How many keys there are.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there are no keys.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl<'a> IntoIterator for &'a Snapshot {
    type Item = Result<(&'a [u8], &'a [u8])>;
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

/// An iteration over all keys and values of a [`Snapshot`]; see [`Snapshot::iter`].
///
/// An item is an error if the file is damaged at that place; the iteration goes on behind it where it can.
pub struct Iter<'a> {
    snapshot: &'a Snapshot,
    slots: Option<Slots<'a>>,
    /// Records that were asked for and not yet looked at.
    ahead: VecDeque<(u64, KeyHash)>,
    error: Option<crate::Error>,
}

impl fmt::Debug for Iter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Iter").finish_non_exhaustive()
    }
}

impl<'a> Iter<'a> {
    fn look_ahead(&mut self) {
        let region = &self.snapshot.engine.region;
        while self.ahead.len() < AHEAD {
            match self.slots.as_mut().and_then(Iterator::next) {
                Some(Ok(slot)) => {
                    if let Some(record) = slot.record {
                        prefetch_record(region, record);
                        self.ahead.push_back((record, slot.hash));
                    }
                }
                Some(Err(error)) => self.error = Some(error),
                None => break,
            }
        }
    }

    fn version(&self, (offset, hash): (u64, KeyHash)) -> Result<Option<Record<'a>>> {
        let engine: &'a Engine = &self.snapshot.engine;
        let newest = log::record(&engine.region, offset)?;
        // Here nobody asks for a key, so it is the slot that says whether the record has the right one.
        if KeyHash::of(newest.key(), engine.seed) != hash {
            return Err(engine.region.corrupt(offset, "the record has another key than its slot says"));
        }
        engine.version_at(newest, self.snapshot.pin.seq)
    }
}

impl<'a> Iterator for Iter<'a> {
    type Item = Result<(&'a [u8], &'a [u8])>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            self.look_ahead();
            if let Some(error) = self.error.take() {
                return Some(Err(error));
            }
            let newest = self.ahead.pop_front()?;
            match self.version(newest) {
                Ok(Some(record)) => return Some(Ok((record.key(), record.value()))),
                Ok(None) => {}
                Err(error) => return Some(Err(error)),
            }
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, usize::try_from(self.snapshot.len).ok())
    }
}
