//! A value read in place in the file.

use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;

use zerocopy::IntoBytes;

use super::typed::Typed;
use crate::Result;
use crate::codec::View;
use crate::engine::read::pinned::Pinned;
use crate::file::layout::Offset;

/// A value of a [`Map`](crate::Map), borrowed from the file: see [`Map::get_ref`](crate::Map::get_ref).
///
/// It protects the value from later writes; held for long, it keeps space from being reused, like a
/// [`Snapshot`](crate::Snapshot). It is `Send + Sync` and may outlive map and store.
///
/// ```
/// # let store = slotlog::Store::in_memory()?;
/// let pages = store.map::<str, str>("pages")?;
/// pages.insert("index", "Hello")?;
/// let page: Option<slotlog::ValueRef<str>> = pages.get_ref("index")?;
/// pages.insert("index", "Good-bye")?;
/// drop((pages, store));
/// assert_eq!(page.as_deref(), Some("Hello"));
/// # Ok::<(), slotlog::Error>(())
/// ```
pub struct ValueRef<V: View + ?Sized> {
    bytes: Bytes,
    value: PhantomData<fn() -> Box<V>>,
}

enum Bytes {
    /// In the file, at a commit that sees it.
    InPlace { pinned: Pinned, offset: Offset, len: u64 },
    /// A copy, for a read-only store, which cannot keep a single value from being reused: in words, so that it is
    /// aligned as in the file.
    Copied { words: Box<[u64]>, len: usize },
}

impl<V: View + ?Sized> ValueRef<V> {
    /// The value of a key at a pinned commit.
    pub(super) fn in_place<K: ?Sized>(typed: &Typed<K, V>, pinned: Pinned, key: &[u8]) -> Result<Option<ValueRef<V>>> {
        let Some(record) = pinned.find(typed.id, key)? else { return Ok(None) };
        typed.view_value(record.value())?;
        let (offset, len) = (record.offset + record.header.value_start(), record.value().len() as u64);
        Ok(Some(ValueRef { bytes: Bytes::InPlace { pinned, offset, len }, value: PhantomData }))
    }

    /// A copied value.
    pub(super) fn copied<K: ?Sized>(typed: &Typed<K, V>, value: &[u8]) -> Result<ValueRef<V>> {
        let len = value.len();
        let mut words = vec![0; len.div_ceil(8)].into_boxed_slice();
        words.as_mut_bytes()[..len].copy_from_slice(value);
        let copied: ValueRef<V> = ValueRef { bytes: Bytes::Copied { words, len }, value: PhantomData };
        typed.view_value(copied.as_bytes())?;
        Ok(copied)
    }

    fn as_bytes(&self) -> &[u8] {
        match &self.bytes {
            // It was there when this was made, and a pinned commit does not change.
            Bytes::InPlace { pinned, offset, len } => pinned.engine().mapping.frozen(*offset, *len).unwrap_or_default(),
            Bytes::Copied { words, len } => &words.as_bytes()[..*len],
        }
    }
}

impl<V: View + ?Sized> Deref for ValueRef<V> {
    type Target = V::Borrowed;

    fn deref(&self) -> &V::Borrowed {
        V::view(self.as_bytes()).expect("these bytes were viewed when this was made, and have not changed")
    }
}

impl<V: View<Borrowed: fmt::Debug> + ?Sized> fmt::Debug for ValueRef<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}
