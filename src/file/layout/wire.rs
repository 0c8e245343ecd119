//! The changes of one commit, as they are sent from one store to another.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The first bytes of a [`SentCommit`].
pub const COMMIT_MAGIC: [u8; 8] = *b"slotfeed";

/// The head of a commit that is sent. The changes follow, one after the other, and then a change of the kind
/// [`END`](sent::END).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct SentCommit {
    /// [`COMMIT_MAGIC`].
    pub magic: [u8; 8],
    /// The random identity of the store that it is a commit of.
    pub uuid: [u8; 16],
    /// The number of a commit before it: between the two, nothing has changed.
    pub previous: U64,
    /// Its number.
    pub seq: U64,
    /// The CRC of the last record up to the commit before, which tells histories apart that have the same numbers; 0 if
    /// that is not known.
    pub previous_crc: U32,
    /// The same for the commit itself.
    pub crc: U32,
}
const _: () = assert!(size_of::<SentCommit>() == 48);

/// The head of a change that is sent. The bytes of the key and of the value follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct SentChange {
    /// Which of the kinds in [`sent`] it is.
    pub kind: U16,
    /// Bytes of the key; or of the name of the map.
    pub key_len: U16,
    /// Bytes of the value; or of the names of the map's types, or of the name that it had.
    pub value_len: U32,
    /// The number of the map.
    pub map: U32,
    /// The version of the map's types; at the end, the CRC-32 of all bytes of the commit before this field.
    pub version_or_crc: U32,
    /// When the entry expires, in milliseconds since 1970, if the kind says that it does.
    pub deadline: U64,
}
const _: () = assert!(size_of::<SentChange>() == 24);

/// The kinds of [`SentChange`].
pub mod sent {
    /// There are no more changes.
    pub const END: u16 = 0;
    /// A key has a value that does not expire.
    pub const PUT: u16 = 1;
    /// A key was removed.
    pub const REMOVE: u16 = 2;
    /// A key was removed because it had expired.
    pub const EXPIRE: u16 = 3;
    /// All keys of the map were removed.
    pub const CLEAR: u16 = 4;
    /// There is a new map.
    pub const CREATE: u16 = 5;
    /// The map was dropped.
    pub const DROP: u16 = 6;
    /// The map has another name.
    pub const RENAME: u16 = 7;
    /// A key has a value that expires.
    pub const PUT_UNTIL: u16 = 8;
}
