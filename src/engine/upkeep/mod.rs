//! Upkeep: resizing, cleaning, reclaiming, as a share of each write or on request.

pub(crate) mod clean;
pub(crate) mod compact;
pub(crate) mod evict;
pub(crate) mod expiry;
pub(crate) mod maintain;
pub(crate) mod quarantine;
pub(crate) mod resize;
mod scrub;
pub(crate) mod share;
