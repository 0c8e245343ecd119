//! Figures of a store: counters that are at hand, and a census of its entries.

pub(crate) mod census;
pub(crate) mod distribution;
#[cfg(feature = "metrics")]
mod published;
pub(crate) mod report;
#[cfg(feature = "serde")]
pub(crate) mod serial;
