//! Writing: the turn at it, room for a commit, and the commit.
//!
//! A [`turn`] lends a [`Writing`](crate::engine::state::writer::Writing), whose methods change the store.

pub(crate) mod commit;
pub(crate) mod reclaim;
pub(crate) mod regions;
pub(crate) mod reserve;
pub(crate) mod slots;
pub(crate) mod space;
pub(crate) mod sync;
pub(crate) mod tables;
pub(crate) mod turn;
