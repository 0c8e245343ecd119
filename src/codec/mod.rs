//! How keys and values of a typed map are stored as bytes.

mod arg;
mod compound;
mod owned;
mod plain;
#[cfg(feature = "zerocopy")]
mod pod;
#[cfg(feature = "serde")]
mod schema;
#[cfg(feature = "serde")]
mod serialised;

use std::borrow::Borrow;

pub use arg::Arg;
#[cfg(feature = "zerocopy")]
pub use pod::Pod;
#[cfg(feature = "serde")]
pub use serialised::Serde;

use crate::error::CodecError;

/// A type of keys or values, and how it is stored.
///
/// Implemented for byte strings (`[u8]`, `Vec<u8>`), strings (`str`, `String`), booleans, characters, integers and
/// floating-point numbers (little-endian), and arrays, slices, vectors, tuples and options of these; for `()`, whose
/// maps are sets; for plain-old-data structs as [`Pod`]; and, with the feature `serde`, for everything that
/// serde serialises, as `Serde`.
///
/// `str` and `String` are stored in the same way, and so are `[T]` and `Vec<T>`; arguments are always borrowed, and
/// results are owned.
///
/// # A codec of your own
///
/// ```
/// use slotlog::{Codec, CodecError};
///
/// #[derive(Clone, Copy, Debug, PartialEq)]
/// struct Celsius(f32);
///
/// impl Codec for Celsius {
///     type Borrowed = Celsius;
///     type Owned = Celsius;
///     fn name() -> String {
///         "celsius".into()
///     }
///     fn encode(value: &Celsius) -> Result<impl AsRef<[u8]>, CodecError> {
///         Ok(value.0.to_le_bytes())
///     }
///     fn decode(bytes: &[u8]) -> Result<Celsius, CodecError> {
///         Ok(Celsius(f32::decode(bytes)?))
///     }
/// }
///
/// let store = slotlog::Store::in_memory()?;
/// let temperatures = store.map::<str, Celsius>("temperatures")?;
/// temperatures.insert("cellar", Celsius(11.5))?;
/// assert_eq!(temperatures.get("cellar")?, Some(Celsius(11.5)));
/// # Ok::<(), slotlog::Error>(())
/// ```
pub trait Codec {
    /// The borrowed form that arguments have: `str` for `String`.
    type Borrowed: ?Sized;
    /// The owned form that reads return: `String` for `str`.
    type Owned: Borrow<Self::Borrowed>;

    /// The size of every value in bytes, if it is fixed. Within tuples and arrays, other values are stored after their
    /// length.
    const SIZE: Option<usize> = None;

    /// The name of the type in the file: opening a map with types of other names fails. It must not depend on where the
    /// type is defined, nor on compiler or machine; change it when the encoding changes.
    fn name() -> String;

    /// Encodes a value. Keys are equal if their bytes are.
    ///
    /// # Errors
    /// If the value cannot be stored.
    fn encode(value: &Self::Borrowed) -> Result<impl AsRef<[u8]>, CodecError>;

    /// Decodes a value.
    ///
    /// # Errors
    /// If the bytes do not encode a value. It must not panic on any bytes.
    fn decode(bytes: &[u8]) -> Result<Self::Owned, CodecError>;

    /// The bytes of many values, if each is stored as the one byte that it is in memory, as with `u8`: slices and
    /// arrays of them then need not be taken apart. Leave it as it is for all other types.
    #[inline]
    fn bytes_of(_values: &[Self]) -> Option<&[u8]>
    where
        Self: Sized,
    {
        None
    }

    /// The other direction of [`bytes_of`](Codec::bytes_of).
    #[inline]
    fn values_of(_bytes: &[u8]) -> Option<Vec<Self>>
    where
        Self: Sized,
    {
        None
    }
}

/// A type whose values can be read in place in the file, without a copy: byte strings, strings, [`Pod`].
///
/// ```
/// use slotlog::{Codec, CodecError, Store, View};
///
/// /// The name of a host.
/// struct Host;
///
/// impl Codec for Host {
///     type Borrowed = str;
///     type Owned = String;
///     fn name() -> String {
///         "host".into()
///     }
///     fn encode(value: &str) -> Result<impl AsRef<[u8]>, CodecError> {
///         str::encode(value)
///     }
///     fn decode(bytes: &[u8]) -> Result<String, CodecError> {
///         Host::view(bytes).map(Into::into)
///     }
/// }
///
/// impl View for Host {
///     fn view(bytes: &[u8]) -> Result<&str, CodecError> {
///         str::view(bytes)
///     }
/// }
///
/// let store = Store::in_memory()?;
/// let hosts = store.map::<u32, Host>("hosts")?;
/// hosts.insert(7, "example.org")?;
/// assert_eq!(hosts.get_ref(7)?.as_deref(), Some("example.org"));
/// # Ok::<(), slotlog::Error>(())
/// ```
pub trait View: Codec {
    /// The value in these bytes, which begin at a multiple of eight.
    ///
    /// # Errors
    /// If the bytes do not encode a value.
    fn view(bytes: &[u8]) -> Result<&Self::Borrowed, CodecError>;
}

#[cold]
fn wrong_size(expected: usize, found: usize) -> CodecError {
    CodecError::new(format!("expected {expected} bytes, found {found}"))
}

#[inline]
fn exactly<const N: usize>(bytes: &[u8]) -> Result<[u8; N], CodecError> {
    bytes.try_into().map_err(|_| wrong_size(N, bytes.len()))
}

fn no_more(bytes: &[u8]) -> Result<(), CodecError> {
    if bytes.is_empty() { Ok(()) } else { Err(CodecError::new(format!("{} bytes too many", bytes.len()))) }
}
