//! Named, typed maps.
//!
//! `typed` holds what the three views of a map have in common, which is most of it: it encodes, asks for the bytes of a
//! key, and decodes. A view only says where to ask: `handle` in the newest commit of the store, `snapshot` in a pinned
//! one, `transaction` in an open transaction; see `crate::keys`. What stands on `handle` adds a method to the type that
//! it is made by, so each file uses only what stands above it in this list.

mod typed;

mod changes;
mod iter;
mod value_ref;

mod handle;

mod catalogue;
mod entry;
mod snapshot;
mod transaction;

pub use catalogue::MapInfo;
pub use changes::{MapChange, MapChanges};
pub use entry::Entry;
pub use handle::Map;
pub use iter::MapIter;
pub use snapshot::SnapshotMap;
pub use transaction::TransactionMap;
pub use value_ref::ValueRef;
