//! Strings and vectors, which are stored like their borrowed forms.

use super::{Codec, View};
use crate::error::CodecError;

macro_rules! owned {
    ($([$($generics:tt)*] $owned:ty: $lent:ty;)*) => {$(
        impl<$($generics)*> Codec for $owned {
            type Borrowed = $lent;
            type Owned = $owned;

            fn name() -> String {
                <$lent>::name()
            }

            #[inline]
            fn encode(value: &$lent) -> Result<impl AsRef<[u8]>, CodecError> {
                <$lent>::encode(value)
            }

            #[inline]
            fn decode(bytes: &[u8]) -> Result<$owned, CodecError> {
                <$lent>::decode(bytes)
            }
        }
    )*};
}

owned! {
    [] String: str;
    [T: Codec<Owned = T>] Vec<T>: [T];
}

impl View for String {
    #[inline]
    fn view(bytes: &[u8]) -> Result<&str, CodecError> {
        str::view(bytes)
    }
}

impl View for Vec<u8> {
    #[inline]
    fn view(bytes: &[u8]) -> Result<&[u8], CodecError> {
        Ok(bytes)
    }
}
