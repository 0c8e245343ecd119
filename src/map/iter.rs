//! Iteration over a typed map.

use std::borrow::Borrow;
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
    pub(super) entries: Entries<Pinned, K, V>,
}

impl<K: ?Sized, V: ?Sized> fmt::Debug for MapIter<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MapIter").field("map", &self.entries.typed).finish_non_exhaustive()
    }
}

impl<K: Codec + ?Sized, V: Codec + ?Sized> Iterator for MapIter<K, V> {
    type Item = Result<(K::Owned, V::Owned)>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        self.entries.next()
    }
}

/// An iteration over a map at a pinned commit, which it holds or borrows.
pub(super) struct Entries<P, K: ?Sized, V: ?Sized> {
    typed: Typed<K, V>,
    cursor: Cursor,
    pinned: P,
}

impl<P: Borrow<Pinned>, K: ?Sized, V: ?Sized> Entries<P, K, V> {
    pub(super) fn new(typed: &Typed<K, V>, pinned: P) -> Result<Entries<P, K, V>> {
        let cursor = Cursor::new(typed.id, pinned.borrow().index(typed.id)?.as_ref());
        Ok(Entries { typed: typed.clone(), cursor, pinned })
    }

    /// Applies `f` to key and value of the next entry.
    #[inline]
    pub(super) fn step<R>(&mut self, f: impl FnOnce(&Typed<K, V>, (&[u8], &[u8])) -> Result<R>) -> Option<Result<R>> {
        let entry = self.pinned.borrow().next_entry(&mut self.cursor)?;
        Some(entry.and_then(|entry| f(&self.typed, entry)))
    }
}

impl<P: Borrow<Pinned>, K: Codec + ?Sized, V: Codec + ?Sized> Entries<P, K, V> {
    /// Keys only.
    pub(super) fn keys(mut self) -> impl Iterator<Item = Result<K::Owned>> + use<P, K, V> {
        std::iter::from_fn(move || self.step(|typed, (key, _)| typed.decode_key(key)))
    }

    /// Values only.
    pub(super) fn values(mut self) -> impl Iterator<Item = Result<V::Owned>> + use<P, K, V> {
        std::iter::from_fn(move || self.step(|typed, (_, value)| typed.decode_value(value)))
    }
}

impl<P: Borrow<Pinned>, K: Codec + ?Sized, V: Codec + ?Sized> Iterator for Entries<P, K, V> {
    type Item = Result<(K::Owned, V::Owned)>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        self.step(|typed, (key, value)| typed.decode_entry(key, value))
    }
}
