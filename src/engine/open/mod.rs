//! Opening: from a file to an engine, whatever state the file was left in; and closing.

pub(crate) mod aside;
pub(crate) mod path;
pub(crate) mod recovery;
pub(crate) mod roads;
