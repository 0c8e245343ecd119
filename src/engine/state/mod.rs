//! State: what the file says, and what this process knows of it.
//!
//! Words of the live area, superblocks, where the log begins, which maps there are. What belongs to one process alone
//! and knows no engine is here as well: the [`ledger`] of upkeep, its [`rest`], what is believed to have
//! [`expired`], and what the [`writer`] knows. Nothing of the file changes here, but for what an opener sets up.

pub(crate) mod expired;
pub(crate) mod head;
pub(crate) mod ledger;
pub(crate) mod live_area;
pub(crate) mod maps;
pub(crate) mod rest;
pub(crate) mod superblocks;
pub(crate) mod words;
pub(crate) mod writer;
