//! Keys and values that serde serialises.

use std::marker::PhantomData;

use super::schema::describe;
use super::{Codec, no_more};
use crate::error::CodecError;

/// A type that serde serialises, in the format of [postcard](https://docs.rs/postcard). Requires the feature `serde`.
///
/// The name in the file tells types apart: it has the name that the type has for serde, and a checksum of all that it
/// is made of (names and types of fields, variants of enums, types within). A map of users does not open as a map of
/// orders, nor as one of users with another field: [`TypeMismatch`](crate::Error::TypeMismatch). Two types
/// that serde sees as the same, such as `u8` and `NonZero<u8>`, have one name. Of a type that refuses the small values
/// that it is tried with (`1`, `"a"`), what follows the refused value counts by the names of its fields only. If the
/// meaning of a field changes and nothing else, assign a new version
/// ([`Store::map_versioned`](crate::Store::map_versioned)).
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
///
/// # When a type changes
///
/// Keep the old type under another name in the program, with `#[serde(rename = …)]`, and convert the map in one
/// transaction: others see the old map or the new one.
///
/// ```
/// use serde::{Deserialize, Serialize};
/// use slotlog::{Error, Serde, Store};
///
/// #[derive(Serialize, Deserialize)]
/// #[serde(rename = "User")]
/// struct OldUser {
///     name: String,
/// }
///
/// #[derive(Serialize, Deserialize, Debug, PartialEq)]
/// struct User {
///     name: String,
///     visits: u32,
/// }
///
/// # let store = Store::in_memory()?;
/// # store.map::<u64, Serde<OldUser>>("users")?.insert(7, OldUser { name: "Ada".into() })?;
/// if let Err(Error::TypeMismatch { .. }) = store.map::<u64, Serde<User>>("users") {
///     let old = store.map::<u64, Serde<OldUser>>("users")?;
///     let mut conversion = store.begin()?;
///     let mut converted = conversion.map::<u64, Serde<User>>("users, converted")?;
///     for user in old.iter()? {
///         let (id, OldUser { name }) = user?;
///         converted.insert(id, User { name, visits: 0 })?;
///     }
///     conversion.rename_map("users, converted", "users")?;
///     conversion.commit()?;
/// }
/// let users = store.map::<u64, Serde<User>>("users")?;
/// assert_eq!(users.get(7)?, Some(User { name: "Ada".into(), visits: 0 }));
/// # Ok::<(), slotlog::Error>(())
/// ```
#[derive(Debug)]
pub struct Serde<T>(PhantomData<T>);

impl<T: serde::Serialize + serde::de::DeserializeOwned> Codec for Serde<T> {
    type Borrowed = T;
    type Owned = T;

    fn name() -> String {
        let (name, description) = describe::<T>();
        format!("postcard({name} {:08x})", crc32fast::hash(description.as_bytes()))
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
