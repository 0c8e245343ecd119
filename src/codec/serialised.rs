//! Keys and values that serde serialises.

use std::marker::PhantomData;

use super::{Codec, no_more};
use crate::error::CodecError;

/// A type that serde serialises, in the format of [postcard](https://docs.rs/postcard). Requires the feature `serde`.
///
/// The name in the file is the same for all types: assign a new version
/// ([`Store::map_versioned`](crate::Store::map_versioned)) when the fields of a type change.
///
/// ```
/// use serde::{Deserialize, Serialize};
/// use slotlog::{Serde, Store};
///
/// #[derive(Serialize, Deserialize, Debug, PartialEq)]
/// struct User {
///     name: String,
///     visits: u32,
/// }
///
/// let store = Store::in_memory()?;
/// let users = store.map::<u64, Serde<User>>("users")?;
/// users.insert(7, User { name: "Ada".into(), visits: 1 })?;
/// users.entry(7).and_modify(|user| user.visits += 1).commit()?;
/// assert_eq!(users.get(7)?, Some(User { name: "Ada".into(), visits: 2 }));
/// # Ok::<(), slotlog::Error>(())
/// ```
#[derive(Debug)]
pub struct Serde<T>(PhantomData<T>);

impl<T: serde::Serialize + serde::de::DeserializeOwned> Codec for Serde<T> {
    type Borrowed = T;
    type Owned = T;

    fn name() -> String {
        "postcard".into()
    }

    fn encode(value: &T) -> Result<impl AsRef<[u8]>, CodecError> {
        postcard::to_stdvec(value).map_err(|error| CodecError::new(error.to_string()))
    }

    fn decode(bytes: &[u8]) -> Result<T, CodecError> {
        match postcard::take_from_bytes(bytes) {
            Ok((value, rest)) => no_more(rest).map(|()| value),
            Err(error) => Err(CodecError::new(error.to_string())),
        }
    }
}
