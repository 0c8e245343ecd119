//! Plain old data as keys and values.

use std::marker::PhantomData;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{Codec, View, wrong_size};
use crate::error::CodecError;

/// Plain old data: a `T`, or a slice of them, stored with its memory layout, and read in place as `&T`.
///
/// `T` is any type for which the derives of [`zerocopy`] (re-exported by this crate) prove that every byte is data and
/// that any bytes are a valid value: `FromBytes`, `IntoBytes`, `KnownLayout` and `Immutable`. Its alignment is at most
/// 8.
///
/// The name in the file gives size and alignment of `T`, and nothing else, so assign a new version
/// ([`Store::map_versioned`](crate::Store::map_versioned)) when its fields change. Numbers are stored in the byte order
/// of the machine, and opening the map on a machine with the other one fails; the numbers of `zerocopy::little_endian`,
/// whose alignment is 1, work on both.
///
/// ```
/// use slotlog::zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};
/// use slotlog::{Pod, Store};
///
/// #[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Debug, PartialEq)]
/// #[zerocopy(crate = "slotlog::zerocopy")] // not needed where `zerocopy` is a dependency of your own
/// #[repr(C)]
/// struct Sample {
///     time: u64,
///     value: f64,
/// }
///
/// let store = Store::in_memory()?;
/// let samples = store.map::<str, Pod<Sample>>("samples")?;
/// samples.insert("a", Sample { time: 7, value: 0.5 })?;
///
/// let snapshot = store.snapshot()?;
/// let sample: &Sample = snapshot.of(&samples).get_ref("a")?.expect("it was just inserted");
/// assert_eq!((sample.time, sample.value), (7, 0.5));
/// # Ok::<(), slotlog::Error>(())
/// ```
#[derive(Debug)]
pub struct Pod<T: ?Sized>(PhantomData<T>);

/// Values begin at multiples of this, in the file and in memory.
const VALUE_ALIGN: usize = 8;

fn pod_name<T>() -> String {
    const { assert!(align_of::<T>() <= VALUE_ALIGN, "values are aligned to 8 bytes, but this type needs more") };
    let order = match align_of::<T>() {
        1 => "",
        _ if cfg!(target_endian = "big") => ", big-endian",
        _ => ", little-endian",
    };
    format!("pod({} bytes, aligned to {}{order})", size_of::<T>(), align_of::<T>())
}

impl<T: FromBytes + IntoBytes + KnownLayout + Immutable> Codec for Pod<T> {
    type Borrowed = T;
    type Owned = T;

    const SIZE: Option<usize> = Some(size_of::<T>());

    fn name() -> String {
        pod_name::<T>()
    }

    #[inline]
    fn encode(value: &T) -> Result<impl AsRef<[u8]>, CodecError> {
        Ok(value.as_bytes())
    }

    #[inline]
    fn decode(bytes: &[u8]) -> Result<T, CodecError> {
        T::read_from_bytes(bytes).map_err(|_| wrong_size(size_of::<T>(), bytes.len()))
    }
}

impl<T: FromBytes + IntoBytes + KnownLayout + Immutable> View for Pod<T> {
    #[inline]
    fn view(bytes: &[u8]) -> Result<&T, CodecError> {
        T::ref_from_bytes(bytes).map_err(|_| wrong_size(size_of::<T>(), bytes.len()))
    }
}

impl<T: FromBytes + IntoBytes + KnownLayout + Immutable> Codec for Pod<[T]> {
    type Borrowed = [T];
    type Owned = Vec<T>;

    fn name() -> String {
        format!("[{}]", pod_name::<T>())
    }

    #[inline]
    fn encode(values: &[T]) -> Result<impl AsRef<[u8]>, CodecError> {
        Ok(values.as_bytes())
    }

    #[inline]
    fn decode(bytes: &[u8]) -> Result<Vec<T>, CodecError> {
        const { assert!(size_of::<T>() > 0, "the number of zero-sized values cannot be stored") };
        let mut values = Vec::with_capacity(bytes.len() / size_of::<T>());
        let parts = bytes.chunks_exact(size_of::<T>());
        if !parts.remainder().is_empty() {
            return Err(CodecError::new(format!("{} bytes are not a multiple of {}", bytes.len(), size_of::<T>())));
        }
        for part in parts {
            values.push(Pod::<T>::decode(part)?);
        }
        Ok(values)
    }
}

impl<T: FromBytes + IntoBytes + KnownLayout + Immutable> View for Pod<[T]> {
    #[inline]
    fn view(bytes: &[u8]) -> Result<&[T], CodecError> {
        const { assert!(size_of::<T>() > 0, "the number of zero-sized values cannot be stored") };
        <[T]>::ref_from_bytes(bytes)
            .map_err(|_| CodecError::new(format!("{} bytes are not a multiple of {}", bytes.len(), size_of::<T>())))
    }
}
