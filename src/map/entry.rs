//! The entry of one key.

use std::borrow::{Borrow, Cow};
use std::convert::identity;
use std::fmt;

use super::handle::Map;
use crate::codec::{Arg, Codec};
use crate::engine::change::one::Action;
use crate::error::Result;

/// A closure given to [`Entry::and_modify`].
type Modification<'m, T> = Box<dyn FnOnce(&mut T) + 'm>;

/// The entry of a key of a [`Map`], for changing it in place; see [`Map::entry`].
///
/// The standard library's entry is a place in a map, borrowed exclusively. This one is a plan:
/// [`and_modify`](Entry::and_modify) adds to it, and the last call carries it out as one operation, atomic across all
/// threads and processes. So the last call returns the value, not a reference to it. Closures run with the writer lock
/// held: they may read from the store but not write to it. A deadline is kept; if nothing changes, nothing is written.
///
/// ```
/// # let store = slotlog::Store::in_memory()?;
/// let visits = store.map::<str, u64>("visits")?;
/// for page in ["home", "about", "home"] {
///     visits.entry(page).and_modify(|visits| *visits += 1).or_insert(1)?;
/// }
/// assert_eq!(visits.get("home")?, Some(2));
/// assert_eq!(visits.entry("imprint").or_default()?, 0);
/// # Ok::<(), slotlog::Error>(())
/// ```
#[must_use = "an entry does nothing until its last call: `or_insert`, `or_insert_with`, `or_default` or `commit`"]
pub struct Entry<'m, K: Codec + ?Sized, V: Codec + ?Sized> {
    map: &'m Map<K, V>,
    /// The encoded key, or why it could not be encoded, which the last call returns.
    key: Result<Vec<u8>>,
    changes: Vec<Modification<'m, V::Owned>>,
}

impl<K: Codec + ?Sized, V: Codec + ?Sized> fmt::Debug for Entry<'_, K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry").field("map", &self.map.name()).finish_non_exhaustive()
    }
}

impl<K: Codec + ?Sized, V: Codec + ?Sized> Map<K, V> {
    /// The entry of a key, for changing it in place: see [`Entry`]. Nothing happens before its last call.
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// let visits = store.map::<str, u64>("visits")?;
    /// assert_eq!(visits.entry("home").and_modify(|visits| *visits += 1).or_insert(1)?, 1);
    /// assert_eq!(visits.entry("home").and_modify(|visits| *visits += 1).or_insert(1)?, 2);
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    pub fn entry(&self, key: impl Arg<K::Borrowed>) -> Entry<'_, K, V> {
        let key = self.typed.encode_key(key.arg()).map(|key| key.as_ref().to_vec());
        Entry { map: self, key, changes: Vec::new() }
    }
}

impl<'m, K: Codec + ?Sized, V: Codec + ?Sized> Entry<'m, K, V> {
    /// If the key has a value, changes it with `f`. Can be called more than once.
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// let carts = store.map::<str, Vec<u32>>("carts")?;
    /// carts.insert("Ada", [3, 1, 2])?;
    /// carts.entry("Ada").and_modify(|cart| cart.push(0)).and_modify(|cart| cart.sort()).commit()?;
    /// assert_eq!(carts.get("Ada")?, Some(vec![0, 1, 2, 3]));
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    pub fn and_modify(mut self, f: impl FnOnce(&mut V::Owned) + 'm) -> Entry<'m, K, V> {
        self.changes.push(Box::new(f));
        self
    }

    /// If the key has no value, sets it to this one. Returns the value that the key has then.
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// let ages = store.map::<str, u32>("ages")?;
    /// assert_eq!(ages.entry("Ada").or_insert(36)?, 36);
    /// assert_eq!(ages.entry("Ada").or_insert(99)?, 36);
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`Map::insert`].
    pub fn or_insert(self, value: impl Arg<V::Borrowed>) -> Result<V::Owned> {
        let map = self.map;
        self.finish(identity, || {
            let bytes = map.typed.encode_value(value.arg())?.as_ref().to_vec();
            let value = map.typed.decode_value(&bytes)?;
            Ok((Action::Put(Cow::Owned(bytes), None), value))
        })
    }

    /// If the key has no value, sets it to the result of `f`. Returns the value that the key has then.
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// let ids = store.map::<str, u64>("ids")?;
    /// let mut next = 7..;
    /// assert_eq!(ids.entry("Ada").or_insert_with(|| next.next().unwrap_or(0))?, 7);
    /// assert_eq!(ids.entry("Ada").or_insert_with(|| next.next().unwrap_or(0))?, 7);
    /// assert_eq!(next.start, 8, "it was needed once");
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`Map::insert`].
    ///
    /// # Panics
    /// Only if a closure does; then nothing has changed.
    pub fn or_insert_with(self, f: impl FnOnce() -> V::Owned) -> Result<V::Owned> {
        let map = self.map;
        self.finish(identity, || {
            let value = f();
            Ok((map.change_to(Some(value.borrow()), None)?, value))
        })
    }

    /// If the key has no value, sets it to the default one. Returns the value that the key has then.
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// let notes = store.map::<str, String>("notes")?;
    /// notes.insert("Ada", "likes tea")?;
    /// assert_eq!(notes.entry("Ada").or_default()?, "likes tea");
    /// assert_eq!(notes.entry("Bob").or_default()?, "");
    /// assert!(notes.contains_key("Bob")?);
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`Map::insert`].
    pub fn or_default(self) -> Result<V::Owned>
    where
        V::Owned: Default,
    {
        self.or_insert_with(V::Owned::default)
    }

    /// If the key has a value, makes the changes of [`and_modify`](Entry::and_modify); otherwise does nothing. Returns
    /// the value that the key has then.
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// let ages = store.map::<str, u32>("ages")?;
    /// ages.insert("Ada", 36)?;
    /// assert_eq!(ages.entry("Ada").and_modify(|age| *age += 1).commit()?, Some(37));
    /// assert_eq!(ages.entry("Bob").and_modify(|age| *age += 1).commit()?, None);
    /// assert_eq!(ages.len()?, 1);
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`Map::insert`].
    ///
    /// # Panics
    /// Only if a closure does; then nothing has changed.
    pub fn commit(self) -> Result<Option<V::Owned>> {
        self.finish(Some, || Ok((Action::Keep, None)))
    }

    /// Makes the changes and returns the resulting value, or follows `absent` if there is none.
    fn finish<R>(
        self,
        answer: impl FnOnce(V::Owned) -> R,
        absent: impl FnOnce() -> Result<(Action<'static>, R)>,
    ) -> Result<R> {
        let Entry { map, key, changes } = self;
        map.modify_encoded(&key?, |old| {
            let Some(mut value) = map.decode_some(old)? else { return absent() };
            if changes.is_empty() {
                return Ok((Action::Keep, answer(value)));
            }
            changes.into_iter().for_each(|change| change(&mut value));
            Ok((map.change_to(Some(value.borrow()), old)?, answer(value)))
        })
    }
}
