//! Repairing: what can be [salvaged](crate::engine::salvage) of a damaged file goes to a new store.

pub(crate) mod catalogue;
pub(crate) mod report;
pub(crate) mod run;
pub(crate) mod target;
