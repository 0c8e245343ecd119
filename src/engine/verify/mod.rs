//! Verifying: everything that the invariants say, held against the file.

pub(crate) mod derived;
pub(crate) mod pace;
pub(crate) mod report;
pub(crate) mod snapshot;
pub(crate) mod store;
pub(crate) mod tables;
