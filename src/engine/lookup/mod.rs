//! Look-up: where the record of a key is, and how far back reads go.
//!
//! The caller brings the right: a pin, or a turn at writing. Neither is taken here.

pub(crate) mod bookmarks;
pub(crate) mod horizon;
pub(crate) mod keys;
pub(crate) mod marks;
pub(crate) mod pin_table;
pub(crate) mod protocol;
pub(crate) mod versions;
