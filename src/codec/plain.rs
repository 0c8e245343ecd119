//! Strings, numbers, booleans, characters, and nothing.

use super::{Codec, View, exactly};
use crate::error::CodecError;

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

macro_rules! numbers {
    ($($number:ident $({ $($bytes:item)* })?)*) => {$(
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

            $($($bytes)*)?
        }
    )*};
}

numbers! {
    u8 {
        #[inline]
        fn bytes_of(values: &[u8]) -> Option<&[u8]> {
            Some(values)
        }

        #[inline]
        fn values_of(bytes: &[u8]) -> Option<Vec<u8>> {
            Some(bytes.into())
        }
    }
    u16 u32 u64 u128 i8 i16 i32 i64 i128 f32 f64
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
