//! Opening: from a file to an engine, whatever state the file was left in; and closing.

pub(crate) mod aside;
pub(crate) mod build;
pub(crate) mod close;
pub(crate) mod path;
pub(crate) mod place;
pub(crate) mod recovery;
pub(crate) mod roads;
pub(crate) mod seat;
