//! Values composed of others: options, slices, arrays, tuples.

use std::borrow::{Borrow, Cow};

use super::{Codec, View, no_more, wrong_size};
use crate::error::CodecError;

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
            put_last::<T>(value, &mut bytes)?;
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

/// Appends a value that is not the last one: after its length, unless its size is fixed.
fn put<T: Codec>(value: &T::Owned, out: &mut Vec<u8>) -> Result<(), CodecError> {
    let bytes = T::encode(value.borrow())?;
    let bytes = bytes.as_ref();
    if T::SIZE.is_none() {
        let len = u32::try_from(bytes.len()).map_err(|_| CodecError::new("a part is longer than 4 GiB"))?;
        out.extend_from_slice(&len.to_le_bytes());
    }
    out.extend_from_slice(bytes);
    Ok(())
}

/// Appends the last value, which needs no length: it ends where the bytes end.
fn put_last<T: Codec>(value: &T::Owned, out: &mut Vec<u8>) -> Result<(), CodecError> {
    out.extend_from_slice(T::encode(value.borrow())?.as_ref());
    Ok(())
}

/// Splits off a value that is not the last one.
fn take<T: Codec>(bytes: &mut &[u8]) -> Result<T::Owned, CodecError> {
    let len = match T::SIZE {
        Some(size) => size,
        None => u32::decode(split_off(bytes, 4)?)? as usize,
    };
    T::decode(split_off(bytes, len)?)
}

/// Takes all remaining bytes as the last value.
fn take_last<T: Codec>(bytes: &[u8]) -> Result<T::Owned, CodecError> {
    match T::SIZE {
        Some(size) if size != bytes.len() => Err(wrong_size(size, bytes.len())),
        _ => T::decode(bytes),
    }
}

fn split_off<'b>(bytes: &mut &'b [u8], len: usize) -> Result<&'b [u8], CodecError> {
    bytes.split_off(..len).ok_or_else(|| wrong_size(len, bytes.len()))
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
            put::<T>(value, &mut bytes)?;
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
            values.push(take::<T>(&mut bytes)?);
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
                let values = (0..N).map(|_| take::<T>(&mut bytes)).collect::<Result<Vec<T>, _>>()?;
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
                $(put::<$first>(&value.$index, &mut bytes)?;)*
                put_last::<$last>(&value.$last_index, &mut bytes)?;
                Ok(bytes)
            }

            #[inline]
            #[allow(unused_mut)]
            fn decode(mut bytes: &[u8]) -> Result<Self, CodecError> {
                Ok(($(take::<$first>(&mut bytes)?,)* take_last::<$last>(bytes)?,))
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
