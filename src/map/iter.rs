//! Iteration over a typed map.

use std::fmt;

use super::typed::Typed;
use crate::Result;
use crate::codec::Codec;
use crate::engine::read::cursor::Cursor;
use crate::engine::read::pinned::Pinned;

/// An iteration over the keys and values of a [`Map`](crate::Map); see [`Map::iter`](crate::Map::iter) and
/// [`Map::drain`](crate::Map::drain). It keeps the commit that it sees, like a [`Snapshot`](crate::Snapshot).
///
/// ```
/// # let store = slotlog::Store::in_memory()?;
/// let jobs = store.map::<u64, str>("jobs")?;
/// jobs.insert(1, "wash")?;
/// let mut to_do: slotlog::MapIter<u64, str> = jobs.iter()?;
/// jobs.clear()?;
/// assert_eq!(to_do.next().transpose()?, Some((1, "wash".to_owned())));
/// assert!(to_do.next().is_none());
/// # Ok::<(), slotlog::Error>(())
/// ```
pub struct MapIter<K: ?Sized, V: ?Sized> {
    typed: Typed<K, V>,
    cursor: Cursor,
    pinned: Pinned,
}

impl<K: ?Sized, V: ?Sized> fmt::Debug for MapIter<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MapIter").field("map", &self.typed).finish_non_exhaustive()
    }
}

impl<K: Codec + ?Sized, V: Codec + ?Sized> MapIter<K, V> {
    pub(crate) fn over(typed: Typed<K, V>, pinned: Pinned, cursor: Cursor) -> MapIter<K, V> {
        MapIter { typed, cursor, pinned }
    }

    /// Keys only.
    pub(crate) fn keys(mut self) -> impl Iterator<Item = Result<K::Owned>> + use<K, V> {
        std::iter::from_fn(move || self.step(|typed, key, _| typed.decode_key(key)))
    }

    /// Values only.
    pub(crate) fn values(mut self) -> impl Iterator<Item = Result<V::Owned>> + use<K, V> {
        std::iter::from_fn(move || self.step(|typed, _, value| typed.decode_value(value)))
    }

    fn step<R>(&mut self, decode: impl FnOnce(&Typed<K, V>, &[u8], &[u8]) -> Result<R>) -> Option<Result<R>> {
        let record = self.pinned.next(&mut self.cursor)?;
        Some(record.and_then(|record| decode(&self.typed, record.key(), record.value())))
    }
}

impl<K: Codec + ?Sized, V: Codec + ?Sized> Iterator for MapIter<K, V> {
    type Item = Result<(K::Owned, V::Owned)>;

    fn next(&mut self) -> Option<Self::Item> {
        self.step(Typed::decode_entry)
    }
}
