//! Reading: pins, and reads under a pin.
//!
//! This stands above writing, since lengthening a table without a free pin takes a turn at writing.

pub(crate) mod cursor;
pub(crate) mod get;
pub(crate) mod history;
pub(crate) mod kept;
pub(crate) mod pinned;
pub(crate) mod pins;
pub(crate) mod sharing;
pub(crate) mod unpinned;
