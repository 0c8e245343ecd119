//! The common part of a typed map, its views and its iterators: encoding, decoding, and errors that name the map.

use std::fmt;
use std::marker::PhantomData;
use std::path::Path;
use std::sync::Arc;

use crate::codec::{Codec, View};
use crate::engine::Engine;
use crate::error::{CodecError, CodecPart, CodecStep, Error, Result};

/// A map and its types, independent of the view of it.
pub(crate) struct Typed<K: ?Sized, V: ?Sized> {
    pub(crate) id: u32,
    name: Arc<str>,
    /// The file of the store, for messages.
    path: Arc<Path>,
    types: PhantomData<fn(&K, &V)>,
}

impl<K: ?Sized, V: ?Sized> Clone for Typed<K, V> {
    fn clone(&self) -> Typed<K, V> {
        Typed { id: self.id, name: Arc::clone(&self.name), path: Arc::clone(&self.path), types: PhantomData }
    }
}

impl<K: ?Sized, V: ?Sized> fmt::Debug for Typed<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Map").field("name", &self.name).finish_non_exhaustive()
    }
}

impl<K: ?Sized, V: ?Sized> Typed<K, V> {
    pub(crate) fn new(engine: &Engine, id: u32, name: &str) -> Typed<K, V> {
        Typed { id, name: name.into(), path: engine.region.path().into(), types: PhantomData }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    #[cold]
    fn codec_error(&self, part: CodecPart, step: CodecStep, what: CodecError) -> Error {
        Error::Codec { path: self.path.to_path_buf(), map: self.name.to_string(), part, step, what }
    }

    /// An error of the engine, which knows maps by number only, with the name of the map.
    pub(crate) fn named<T>(&self, result: Result<T>) -> Result<T> {
        result.map_err(|error| match error {
            Error::NoSuchMap { path, .. } => Error::NoSuchMap { path, map: self.name.to_string() },
            other => other,
        })
    }

    #[cold]
    pub(crate) fn foreign(&self, engine: &Engine) -> Error {
        Error::ForeignMap { path: engine.region.path().to_owned(), map: self.name.to_string() }
    }
}

impl<K: Codec + ?Sized, V: ?Sized> Typed<K, V> {
    #[inline]
    pub(crate) fn encode_key<'a>(&self, key: &'a K::Borrowed) -> Result<impl AsRef<[u8]> + use<'a, K, V>> {
        K::encode(key).map_err(|what| self.codec_error(CodecPart::Key, CodecStep::Encode, what))
    }

    #[inline]
    pub(crate) fn decode_key(&self, bytes: &[u8]) -> Result<K::Owned> {
        K::decode(bytes).map_err(|what| self.codec_error(CodecPart::Key, CodecStep::Decode, what))
    }
}

impl<K: ?Sized, V: Codec + ?Sized> Typed<K, V> {
    #[inline]
    pub(crate) fn encode_value<'a>(&self, value: &'a V::Borrowed) -> Result<impl AsRef<[u8]> + use<'a, K, V>> {
        V::encode(value).map_err(|what| self.codec_error(CodecPart::Value, CodecStep::Encode, what))
    }

    #[inline]
    pub(crate) fn decode_value(&self, bytes: &[u8]) -> Result<V::Owned> {
        V::decode(bytes).map_err(|what| self.codec_error(CodecPart::Value, CodecStep::Decode, what))
    }
}

impl<K: ?Sized, V: View + ?Sized> Typed<K, V> {
    #[inline]
    pub(crate) fn view_value<'a>(&self, bytes: &'a [u8]) -> Result<&'a V::Borrowed> {
        V::view(bytes).map_err(|what| self.codec_error(CodecPart::Value, CodecStep::Decode, what))
    }
}

impl<K: Codec + ?Sized, V: Codec + ?Sized> Typed<K, V> {
    pub(crate) fn decode_entry(&self, key: &[u8], value: &[u8]) -> Result<(K::Owned, V::Owned)> {
        Ok((self.decode_key(key)?, self.decode_value(value)?))
    }
}
