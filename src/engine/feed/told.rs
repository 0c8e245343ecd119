//! What is told of one change.

use crate::engine::read::history::CommitId;
use crate::file::layout::MapId;

/// A change of a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Told<'c> {
    pub(crate) map: MapId,
    /// The name of the map after it, or if it is dropped, before; empty for the default map.
    pub(crate) name: &'c str,
    pub(crate) what: What<'c>,
}

/// What was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What<'c> {
    Put {
        key: &'c [u8],
        value: &'c [u8],
        /// In milliseconds since 1970.
        deadline: Option<u64>,
    },
    Remove(&'c [u8]),
    /// The key was removed because it had expired.
    Expire(&'c [u8]),
    Clear,
    Create {
        version: u32,
        types: &'c str,
    },
    Drop,
    /// The map had this name.
    Rename(&'c str),
}

/// A commit of a store, and what it follows: all commits between the two are of no interest to others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unit {
    pub(crate) uuid: [u8; 16],
    pub(crate) previous: CommitId,
    pub(crate) last: CommitId,
}
