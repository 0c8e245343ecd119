//! Copies of a store: backups and increments, the change feed and the stores that follow it, and everything as bytes.

mod export;
mod feed;
mod import;
mod store;

pub use export::{Export, ExportEntry};
pub use feed::{Commit, CommitIter, Feed, FeedChange, FeedChangeKind};
pub use import::Import;
