//! The common part of a typed map, its views and its iterators: its types, errors that name the map, and the operations
//! that are the same in the newest commit, in a snapshot and in a transaction.

use std::fmt;
use std::marker::PhantomData;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use crate::codec::{Arg, Codec, View};
use crate::engine::Engine;
use crate::engine::change::batch::Batch;
use crate::engine::read::pinned::Pinned;
use crate::error::{CodecError, CodecPart, CodecStep, Error, Result};
use crate::file::layout::{DEFAULT_MAP, MapId};
use crate::file::log::Record;
use crate::keys::{ChangeKeys, Expiry, ReadKeys};

/// A map and its types, independent of the view of it.
pub(super) struct Typed<K: ?Sized, V: ?Sized> {
    pub(super) id: MapId,
    name: Arc<str>,
    /// The file of the store, for messages.
    path: Arc<Path>,
    /// The opening of the store that it belongs to.
    origin: u64,
    types: PhantomData<fn(&K, &V)>,
}

impl<K: ?Sized, V: ?Sized> Clone for Typed<K, V> {
    fn clone(&self) -> Typed<K, V> {
        let (name, path) = (Arc::clone(&self.name), Arc::clone(&self.path));
        Typed { id: self.id, name, path, origin: self.origin, types: PhantomData }
    }
}

impl<K: ?Sized, V: ?Sized> fmt::Debug for Typed<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Map").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Typed<[u8], [u8]> {
    /// The default map, which has no name.
    pub(super) fn default_map(engine: &Engine) -> Typed<[u8], [u8]> {
        Typed::new(engine, DEFAULT_MAP, "")
    }
}

impl<K: ?Sized, V: ?Sized> Typed<K, V> {
    pub(super) fn new(engine: &Engine, id: MapId, name: &str) -> Typed<K, V> {
        Typed { id, name: name.into(), path: engine.mapping.path().into(), origin: engine.origin, types: PhantomData }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    #[cold]
    fn codec_error(&self, part: CodecPart, step: CodecStep, what: CodecError) -> Error {
        Error::Codec { path: self.path.to_path_buf(), map: self.name.to_string(), part, step, what }
    }

    /// An error of the engine, which knows maps by number only, with the name of the map.
    pub(super) fn named<T>(&self, result: Result<T>) -> Result<T> {
        result.map_err(|error| match error {
            Error::NoSuchMap { path, .. } => Error::NoSuchMap { path, map: self.name.to_string() },
            other => other,
        })
    }

    /// Refuses a snapshot or a transaction of another store.
    #[inline]
    pub(super) fn check_is_of(&self, engine: &Engine) -> Result<()> {
        if self.origin == engine.origin { Ok(()) } else { Err(self.foreign(engine)) }
    }

    #[cold]
    fn foreign(&self, engine: &Engine) -> Error {
        Error::ForeignMap { path: engine.mapping.path().to_owned(), map: self.name.to_string() }
    }

    /// Removes the entries for which `is_doomed` returns `true`, one after the other, and returns how many there were.
    pub(super) fn remove_if(
        &self,
        batch: &mut Batch,
        mut is_doomed: impl FnMut(Record<'_>) -> Result<bool>,
    ) -> Result<u64> {
        let mut cursor = self.named(batch.cursor(self.id))?;
        let mut removed = 0;
        while let Some(record) = batch.next(&mut cursor)? {
            if is_doomed(record)? {
                let key = record.key().to_vec();
                removed += u64::from(batch.remove(self.id, &key)?);
            }
        }
        Ok(removed)
    }
}

impl<K: ?Sized, V: View + ?Sized> Typed<K, V> {
    #[inline]
    pub(super) fn view_value<'a>(&self, bytes: &'a [u8]) -> Result<&'a V::Borrowed> {
        V::view(bytes).map_err(|what| self.codec_error(CodecPart::Value, CodecStep::Decode, what))
    }
}

impl<K: View + ?Sized, V: ?Sized> Typed<K, V> {
    #[inline]
    pub(super) fn view_key<'a>(&self, bytes: &'a [u8]) -> Result<&'a K::Borrowed> {
        K::view(bytes).map_err(|what| self.codec_error(CodecPart::Key, CodecStep::Decode, what))
    }
}

impl<K: Codec + ?Sized, V: Codec + ?Sized> Typed<K, V> {
    #[inline]
    pub(super) fn encode_key<'a>(&self, key: &'a K::Borrowed) -> Result<impl AsRef<[u8]> + use<'a, K, V>> {
        K::encode(key).map_err(|what| self.codec_error(CodecPart::Key, CodecStep::Encode, what))
    }

    #[inline]
    pub(super) fn decode_key(&self, bytes: &[u8]) -> Result<K::Owned> {
        K::decode(bytes).map_err(|what| self.codec_error(CodecPart::Key, CodecStep::Decode, what))
    }

    #[inline]
    pub(super) fn encode_value<'a>(&self, value: &'a V::Borrowed) -> Result<impl AsRef<[u8]> + use<'a, K, V>> {
        V::encode(value).map_err(|what| self.codec_error(CodecPart::Value, CodecStep::Encode, what))
    }

    #[inline]
    pub(super) fn decode_value(&self, bytes: &[u8]) -> Result<V::Owned> {
        V::decode(bytes).map_err(|what| self.codec_error(CodecPart::Value, CodecStep::Decode, what))
    }

    pub(super) fn decode_entry(&self, key: &[u8], value: &[u8]) -> Result<(K::Owned, V::Owned)> {
        Ok((self.decode_key(key)?, self.decode_value(value)?))
    }

    /// Applies `f` to the bytes of the value of a key and its deadline, if it has one.
    #[inline(always)]
    pub(super) fn read<R>(
        &self,
        from: &impl ReadKeys,
        key: &K::Borrowed,
        f: impl FnOnce(&[u8], Option<u64>) -> R,
    ) -> Result<Option<R>> {
        let key = self.encode_key(key)?;
        from.read(self.id, key.as_ref(), f)
    }

    #[inline]
    pub(super) fn get(&self, from: &impl ReadKeys, key: &K::Borrowed) -> Result<Option<V::Owned>> {
        self.read(from, key, |value, _| self.decode_value(value))?.transpose()
    }

    #[inline]
    pub(super) fn contains_key(&self, from: &impl ReadKeys, key: &K::Borrowed) -> Result<bool> {
        Ok(self.read(from, key, |_, _| ())?.is_some())
    }

    pub(super) fn expiry(&self, from: &impl ReadKeys, key: &K::Borrowed) -> Result<Option<Expiry>> {
        self.read(from, key, |_, expires| Expiry::of_record(expires))
    }

    pub(super) fn get_many<Q: Arg<K::Borrowed>>(&self, from: &Pinned, keys: &[Q]) -> Result<Vec<Option<V::Owned>>> {
        let keys = keys.iter().map(|key| self.encode_key(key.arg())).collect::<Result<Vec<_>>>()?;
        let mut values = Vec::with_capacity(keys.len());
        let lines = from.index(self.id)?.map(|index| index.as_lines());
        from.values_of(lines, self.id, &keys, |value| {
            values.push(value.map(|value| self.decode_value(value)).transpose()?);
            Ok(())
        })?;
        Ok(values)
    }

    /// Sets the value of a key, perhaps until a deadline.
    pub(super) fn insert(
        &self,
        into: impl ChangeKeys,
        key: &K::Borrowed,
        value: &V::Borrowed,
        until: Option<SystemTime>,
    ) -> Result<()> {
        let (key, value) = (self.encode_key(key)?, self.encode_value(value)?);
        self.named(into.insert(self.id, key.as_ref(), value.as_ref(), until))
    }

    pub(super) fn remove(&self, from: impl ChangeKeys, key: &K::Borrowed) -> Result<bool> {
        let key = self.encode_key(key)?;
        self.named(from.remove(self.id, key.as_ref()))
    }

    /// Removes the entries for which `f` returns `false`, and returns how many there were.
    pub(super) fn retain(&self, batch: &mut Batch, mut f: impl FnMut(&K::Owned, &V::Owned) -> bool) -> Result<u64> {
        self.remove_if(batch, |record| {
            let (key, value) = self.decode_entry(record.key(), record.value())?;
            Ok(!f(&key, &value))
        })
    }
}
