//! How keys and values of a typed map are stored as bytes.

mod arg;
mod pod;
#[cfg(feature = "serde")]
mod serialised;

use std::borrow::{Borrow, Cow};

pub use arg::Arg;
pub use pod::Pod;
#[cfg(feature = "serde")]
pub use serialised::Serde;

use crate::error::CodecError;

/// A type of keys or values, and how it is stored.
///
/// Implemented for byte strings (`[u8]`, `Vec<u8>`), strings (`str`, `String`), booleans, characters, integers and
/// floating-point numbers (little-endian), and arrays, slices, vectors, tuples and options of these; for `()`, whose
/// maps are sets; for plain-old-data structs as [`Pod`](crate::Pod); and, with the feature `serde`, for everything that
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

    /// The bytes of many values, if they are stored as they are: so that byte strings need not be taken apart.
    #[doc(hidden)]
    #[inline]
    fn bytes_of(_values: &[Self]) -> Option<&[u8]>
    where
        Self: Sized,
    {
        None
    }

    /// Many values, if bytes are stored as they are.
    #[doc(hidden)]
    #[inline]
    fn values_of(_bytes: &[u8]) -> Option<Vec<Self>>
    where
        Self: Sized,
    {
        None
    }
}

/// A type whose values can be read in place in the file, without a copy: byte strings, strings, [`Pod`](crate::Pod).
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
pub(crate) fn wrong_size(expected: usize, found: usize) -> CodecError {
    CodecError::new(format!("expected {expected} bytes, found {found}"))
}

#[inline]
fn exactly<const N: usize>(bytes: &[u8]) -> Result<[u8; N], CodecError> {
    bytes.try_into().map_err(|_| wrong_size(N, bytes.len()))
}

impl Codec for str {
    type Borrowed = str;
    type Owned = String;

    fn name() -> String {
        "str".into()
    }

    #[inline]
    fn encode(value: &str) -> Result<impl AsRef<[u8]>, CodecError> {
        Ok(value.as_bytes())
    }

    #[inline]
    fn decode(bytes: &[u8]) -> Result<String, CodecError> {
        str::view(bytes).map(Into::into)
    }
}

impl View for str {
    #[inline]
    fn view(bytes: &[u8]) -> Result<&str, CodecError> {
        std::str::from_utf8(bytes).map_err(|error| CodecError::new(format!("expected UTF-8: {error}")))
    }
}

impl Codec for String {
    type Borrowed = str;
    type Owned = String;

    fn name() -> String {
        str::name()
    }

    #[inline]
    fn encode(value: &str) -> Result<impl AsRef<[u8]>, CodecError> {
        str::encode(value)
    }

    #[inline]
    fn decode(bytes: &[u8]) -> Result<String, CodecError> {
        str::decode(bytes)
    }
}

impl View for String {
    #[inline]
    fn view(bytes: &[u8]) -> Result<&str, CodecError> {
        str::view(bytes)
    }
}

macro_rules! numbers {
    ($($number:ident)*) => {$(
        impl Codec for $number {
            type Borrowed = $number;
            type Owned = $number;

            const SIZE: Option<usize> = Some(size_of::<$number>());

            fn name() -> String {
                stringify!($number).into()
            }

            #[inline]
            fn encode(value: &$number) -> Result<impl AsRef<[u8]>, CodecError> {
                Ok(value.to_le_bytes())
            }

            #[inline]
            fn decode(bytes: &[u8]) -> Result<$number, CodecError> {
                exactly(bytes).map($number::from_le_bytes)
            }
        }
    )*};
}

numbers! { u16 u32 u64 u128 i8 i16 i32 i64 i128 f32 f64 }

impl Codec for u8 {
    type Borrowed = u8;
    type Owned = u8;

    const SIZE: Option<usize> = Some(1);

    fn name() -> String {
        "u8".into()
    }

    #[inline]
    fn encode(value: &u8) -> Result<impl AsRef<[u8]>, CodecError> {
        Ok([*value])
    }

    #[inline]
    fn decode(bytes: &[u8]) -> Result<u8, CodecError> {
        exactly(bytes).map(u8::from_le_bytes)
    }

    #[inline]
    fn bytes_of(values: &[u8]) -> Option<&[u8]> {
        Some(values)
    }

    #[inline]
    fn values_of(bytes: &[u8]) -> Option<Vec<u8>> {
        Some(bytes.into())
    }
}

impl Codec for bool {
    type Borrowed = bool;
    type Owned = bool;

    const SIZE: Option<usize> = Some(1);

    fn name() -> String {
        "bool".into()
    }

    #[inline]
    fn encode(value: &bool) -> Result<impl AsRef<[u8]>, CodecError> {
        Ok([u8::from(*value)])
    }

    #[inline]
    fn decode(bytes: &[u8]) -> Result<bool, CodecError> {
        match exactly(bytes)? {
            [0] => Ok(false),
            [1] => Ok(true),
            [other] => Err(CodecError::new(format!("expected 0 or 1, found {other}"))),
        }
    }
}

impl Codec for char {
    type Borrowed = char;
    type Owned = char;

    const SIZE: Option<usize> = Some(4);

    fn name() -> String {
        "char".into()
    }

    #[inline]
    fn encode(value: &char) -> Result<impl AsRef<[u8]>, CodecError> {
        Ok(u32::from(*value).to_le_bytes())
    }

    #[inline]
    fn decode(bytes: &[u8]) -> Result<char, CodecError> {
        let number = u32::decode(bytes)?;
        char::from_u32(number).ok_or_else(|| CodecError::new(format!("{number:#x} is not a character")))
    }
}

impl Codec for () {
    type Borrowed = ();
    type Owned = ();

    const SIZE: Option<usize> = Some(0);

    fn name() -> String {
        "()".into()
    }

    #[inline]
    fn encode((): &()) -> Result<impl AsRef<[u8]>, CodecError> {
        Ok([])
    }

    #[inline]
    fn decode(bytes: &[u8]) -> Result<(), CodecError> {
        exactly(bytes).map(|[]| ())
    }
}

impl<T: Codec<Owned = T>> Codec for Option<T> {
    type Borrowed = Option<T>;
    type Owned = Option<T>;

    fn name() -> String {
        format!("option({})", T::name())
    }

    #[inline]
    fn encode(value: &Option<T>) -> Result<impl AsRef<[u8]>, CodecError> {
        let mut bytes = vec![u8::from(value.is_some())];
        if let Some(value) = value {
            put::<T>(value, true, &mut bytes)?;
        }
        Ok(bytes)
    }

    #[inline]
    fn decode(bytes: &[u8]) -> Result<Option<T>, CodecError> {
        match bytes {
            [0] => Ok(None),
            [1, value @ ..] => T::decode(value).map(Some),
            _ => Err(CodecError::new("expected 0, or 1 and a value")),
        }
    }
}

/// Appends one of several values.
fn put<T: Codec>(value: &T::Owned, is_last: bool, out: &mut Vec<u8>) -> Result<(), CodecError> {
    let bytes = T::encode(value.borrow())?;
    let bytes = bytes.as_ref();
    if T::SIZE.is_none() && !is_last {
        let len = u32::try_from(bytes.len()).map_err(|_| CodecError::new("a part is longer than 4 GiB"))?;
        out.extend_from_slice(&len.to_le_bytes());
    }
    out.extend_from_slice(bytes);
    Ok(())
}

/// Splits off one of several values.
fn take<T: Codec>(bytes: &mut &[u8], is_last: bool) -> Result<T::Owned, CodecError> {
    let len = match T::SIZE {
        Some(size) => size,
        None if is_last => bytes.len(),
        None => {
            let (len, rest) = bytes.split_at_checked(4).ok_or_else(|| wrong_size(4, bytes.len()))?;
            *bytes = rest;
            u32::decode(len)? as usize
        }
    };
    let (value, rest) = bytes.split_at_checked(len).ok_or_else(|| wrong_size(len, bytes.len()))?;
    *bytes = rest;
    T::decode(value)
}

pub(crate) fn no_more(bytes: &[u8]) -> Result<(), CodecError> {
    if bytes.is_empty() { Ok(()) } else { Err(CodecError::new(format!("{} bytes too many", bytes.len()))) }
}

impl<T: Codec<Owned = T>> Codec for [T] {
    type Borrowed = [T];
    type Owned = Vec<T>;

    fn name() -> String {
        format!("[{}]", T::name())
    }

    #[inline]
    fn encode(values: &[T]) -> Result<impl AsRef<[u8]>, CodecError> {
        if let Some(bytes) = T::bytes_of(values) {
            return Ok(Cow::Borrowed(bytes));
        }
        let mut bytes = Vec::with_capacity(values.len() * T::SIZE.unwrap_or(16));
        for value in values {
            put::<T>(value, false, &mut bytes)?;
        }
        Ok(Cow::Owned(bytes))
    }

    #[inline]
    fn decode(mut bytes: &[u8]) -> Result<Vec<T>, CodecError> {
        if let Some(values) = T::values_of(bytes) {
            return Ok(values);
        }
        if T::SIZE == Some(0) {
            return Err(CodecError::new("a vector of zero-sized values does not store their number; use an array"));
        }
        let mut values = Vec::new();
        while !bytes.is_empty() {
            values.push(take::<T>(&mut bytes, false)?);
        }
        Ok(values)
    }
}

impl View for [u8] {
    #[inline]
    fn view(bytes: &[u8]) -> Result<&[u8], CodecError> {
        Ok(bytes)
    }
}

impl<T: Codec<Owned = T>> Codec for Vec<T> {
    type Borrowed = [T];
    type Owned = Vec<T>;

    fn name() -> String {
        <[T]>::name()
    }

    #[inline]
    fn encode(values: &[T]) -> Result<impl AsRef<[u8]>, CodecError> {
        <[T]>::encode(values)
    }

    #[inline]
    fn decode(bytes: &[u8]) -> Result<Vec<T>, CodecError> {
        <[T]>::decode(bytes)
    }
}

impl View for Vec<u8> {
    #[inline]
    fn view(bytes: &[u8]) -> Result<&[u8], CodecError> {
        Ok(bytes)
    }
}

impl<T: Codec<Owned = T>, const N: usize> Codec for [T; N] {
    type Borrowed = [T; N];
    type Owned = [T; N];

    const SIZE: Option<usize> = match T::SIZE {
        Some(size) => Some(size * N),
        None => None,
    };

    fn name() -> String {
        format!("[{}; {N}]", T::name())
    }

    #[inline]
    fn encode(values: &[T; N]) -> Result<impl AsRef<[u8]>, CodecError> {
        <[T]>::encode(values)
    }

    #[inline]
    fn decode(mut bytes: &[u8]) -> Result<[T; N], CodecError> {
        let values = match T::values_of(bytes) {
            Some(values) => values,
            None => {
                let values = (0..N).map(|_| take::<T>(&mut bytes, false)).collect::<Result<Vec<T>, _>>()?;
                no_more(bytes)?;
                values
            }
        };
        values.try_into().map_err(|values: Vec<T>| wrong_size(N, values.len()))
    }
}

impl<const N: usize> View for [u8; N] {
    #[inline]
    fn view(bytes: &[u8]) -> Result<&[u8; N], CodecError> {
        bytes.try_into().map_err(|_| wrong_size(N, bytes.len()))
    }
}

/// The sum of the sizes, if all are fixed.
const fn sum<const N: usize>(sizes: [Option<usize>; N]) -> Option<usize> {
    let (mut sum, mut index) = (0, 0);
    while index < N {
        match sizes[index] {
            Some(size) => sum += size,
            None => return None,
        }
        index += 1;
    }
    Some(sum)
}

macro_rules! tuples {
    ($(($($first:ident.$index:tt)* | $last:ident.$last_index:tt))*) => {$(
        impl<$($first: Codec<Owned = $first>,)* $last: Codec<Owned = $last>> Codec for ($($first,)* $last,) {
            type Borrowed = ($($first,)* $last,);
            type Owned = ($($first,)* $last,);

            const SIZE: Option<usize> = sum([$($first::SIZE,)* $last::SIZE]);

            fn name() -> String {
                format!("({})", [$($first::name(),)* $last::name()].join(", "))
            }

            #[inline]
            fn encode(value: &Self) -> Result<impl AsRef<[u8]>, CodecError> {
                let mut bytes = Vec::with_capacity(Self::SIZE.unwrap_or(64));
                $(put::<$first>(&value.$index, false, &mut bytes)?;)*
                put::<$last>(&value.$last_index, true, &mut bytes)?;
                Ok(bytes)
            }

            #[inline]
            fn decode(mut bytes: &[u8]) -> Result<Self, CodecError> {
                let value = ($(take::<$first>(&mut bytes, false)?,)* take::<$last>(&mut bytes, true)?,);
                no_more(bytes)?;
                Ok(value)
            }
        }
    )*};
}

tuples! {
    (| A.0)
    (A.0 | B.1)
    (A.0 B.1 | C.2)
    (A.0 B.1 C.2 | D.3)
    (A.0 B.1 C.2 D.3 | E.4)
    (A.0 B.1 C.2 D.3 E.4 | F.5)
}
