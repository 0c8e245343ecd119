//! Changes: the users' writes to a store. Each is a turn at writing, with a commit and its share of upkeep.

pub(crate) mod batch;
pub(crate) mod bookmarks;
pub(crate) mod bounded;
pub(crate) mod maps;
pub(crate) mod named;
pub(crate) mod one;
pub(crate) mod origin;
mod savepoint;
pub(crate) mod straight;
