//! Iteration over a typed map.

use std::borrow::Borrow;
use std::fmt;
use std::iter::FusedIterator;

use super::typed::Typed;
use crate::Result;
use crate::codec::{Codec, View};
use crate::engine::read::cursor::Cursor;
use crate::engine::read::pinned::Pinned;
use crate::keys::Expiry;

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

/// The iterators over a map at a commit, which differ in what they make of an entry. Each is given its documentation,
/// what it holds the commit by, its items, and how one is decoded.
macro_rules! iterators {
    ($($(#[$doc:meta])* $name:ident<$($life:lifetime)?> ($pinned:ty) -> $item:ty, $decode:expr;)*) => {$(
        $(#[$doc])*
        pub struct $name<$($life,)? K: ?Sized, V: ?Sized> {
            pub(super) entries: Entries<$pinned, K, V>,
        }

        impl<$($life,)? K: ?Sized, V: ?Sized> fmt::Debug for $name<$($life,)? K, V> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($name)).field("map", &self.entries.typed).finish_non_exhaustive()
            }
        }

        impl<$($life,)? K: Codec + ?Sized, V: Codec + ?Sized> Iterator for $name<$($life,)? K, V> {
            type Item = Result<$item>;

            #[inline]
            fn next(&mut self) -> Option<Self::Item> {
                self.entries.step($decode)
            }
        }

        impl<$($life,)? K: Codec + ?Sized, V: Codec + ?Sized> FusedIterator for $name<$($life,)? K, V> {}
    )*};
}

iterators! {
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
    MapIter<> (Pinned) -> (K::Owned, V::Owned), |typed, (key, value)| typed.decode_entry(key, value);

    /// An iteration over the keys of a [`Map`](crate::Map); see [`Map::keys`](crate::Map::keys).
    MapKeys<> (Pinned) -> K::Owned, |typed, (key, _)| typed.decode_key(key);

    /// An iteration over the values of a [`Map`](crate::Map); see [`Map::values`](crate::Map::values).
    MapValues<> (Pinned) -> V::Owned, |typed, (_, value)| typed.decode_value(value);

    /// An iteration over the keys and values of a [`SnapshotMap`](crate::SnapshotMap); see
    /// [`SnapshotMap::iter`](crate::SnapshotMap::iter).
    SnapshotMapIter<'s> (&'s Pinned) -> (K::Owned, V::Owned), |typed, (key, value)| typed.decode_entry(key, value);

    /// An iteration over the keys of a [`SnapshotMap`](crate::SnapshotMap); see
    /// [`SnapshotMap::keys`](crate::SnapshotMap::keys).
    SnapshotMapKeys<'s> (&'s Pinned) -> K::Owned, |typed, (key, _)| typed.decode_key(key);

    /// An iteration over the values of a [`SnapshotMap`](crate::SnapshotMap); see
    /// [`SnapshotMap::values`](crate::SnapshotMap::values).
    SnapshotMapValues<'s> (&'s Pinned) -> V::Owned, |typed, (_, value)| typed.decode_value(value);
}

/// An iteration over the keys and values of a [`SnapshotMap`](crate::SnapshotMap) in place; see
/// [`SnapshotMap::iter_ref`](crate::SnapshotMap::iter_ref).
pub struct SnapshotMapRefs<'s, K: ?Sized, V: ?Sized> {
    entries: Entries<&'s Pinned, K, V>,
}

impl<'s, K: ?Sized, V: ?Sized> SnapshotMapRefs<'s, K, V> {
    pub(super) fn new(entries: Entries<&'s Pinned, K, V>) -> SnapshotMapRefs<'s, K, V> {
        SnapshotMapRefs { entries }
    }
}

impl<K: ?Sized, V: ?Sized> fmt::Debug for SnapshotMapRefs<'_, K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SnapshotMapRefs").field("map", &self.entries.typed).finish_non_exhaustive()
    }
}

impl<'s, K: View + ?Sized, V: View + ?Sized> Iterator for SnapshotMapRefs<'s, K, V>
where
    K::Borrowed: 's,
    V::Borrowed: 's,
{
    type Item = Result<(&'s K::Borrowed, &'s V::Borrowed, Expiry)>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let Entries { typed, cursor, pinned } = &mut self.entries;
        let entry = pinned.next_with_deadline(cursor)?;
        Some(entry.and_then(|(key, value, expires)| {
            Ok((typed.view_key(key)?, typed.view_value(value)?, Expiry::of_record(expires)))
        }))
    }
}

impl<'s, K: View + ?Sized, V: View + ?Sized> FusedIterator for SnapshotMapRefs<'s, K, V>
where
    K::Borrowed: 's,
    V::Borrowed: 's,
{
}
