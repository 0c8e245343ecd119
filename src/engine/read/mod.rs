//! Reading: pins, and what is read under one.
//!
//! This stands above writing, since a table that has no free pin is made longer by one who takes a turn at writing.

pub(crate) mod cursor;
pub(crate) mod get;
pub(crate) mod history;
pub(crate) mod kept;
pub(crate) mod pinned;
pub(crate) mod pins;
pub(crate) mod sharing;
pub(crate) mod unpinned;
