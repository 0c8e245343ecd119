//! Verifying: the file is checked against all invariants.

pub(crate) mod derived;
pub(crate) mod pace;
pub(crate) mod report;
pub(crate) mod snapshot;
pub(crate) mod store;
pub(crate) mod tables;
