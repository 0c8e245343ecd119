//! State: what the file says, and what this process knows of it.
//!
//! Words of the live area, superblocks, where the log begins, which maps there are. State that belongs to one process
//! alone and knows no engine is here as well: the [`ledger`] of upkeep, its [`rest`], the estimates of what has
//! [`expired`], and what the [`writer`] knows. Nothing in the file changes here, except what an opener sets up.

pub(crate) mod expired;
pub(crate) mod head;
pub(crate) mod ledger;
pub(crate) mod live_area;
pub(crate) mod maps;
pub(crate) mod rest;
pub(crate) mod superblocks;
pub(crate) mod words;
pub(crate) mod writer;
