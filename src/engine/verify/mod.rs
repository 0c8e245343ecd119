//! Verifying: everything that the invariants say, held against the file.

pub(crate) mod pace;
pub(crate) mod snapshot;
pub(crate) mod store;
