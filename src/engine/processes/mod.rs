//! Processes: who has the store open, who of them may write, and who waits for that.

pub(crate) mod entries;
pub(crate) mod gate;
pub(crate) mod lock_word;
pub(crate) mod notice;
