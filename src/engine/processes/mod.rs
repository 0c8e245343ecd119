//! Processes: which have the store open, which of them may write, and which wait for that.

pub(crate) mod entries;
pub(crate) mod gate;
pub(crate) mod lock_word;
pub(crate) mod notice;
