//! Named, typed maps.
//!
//! `typed` holds what the three views of a map have in common: it encodes, asks for the bytes of a key
//! ([`crate::keys`]), and decodes. A view only says where to ask: `handle` in the newest commit of the store,
//! `snapshot` in a pinned one, `transaction` in an open transaction. The last four files each add a method to the type
//! by which their own is made, such as `Store::map`, so that a file only uses those before it in this list.

mod typed;

mod changes;
mod iter;
mod value_ref;

mod handle;

pub(crate) mod catalogue;
mod entry;
mod snapshot;
mod transaction;

pub use catalogue::MapInfo;
pub use changes::{MapChange, MapChanges, MapChangesIter};
pub use entry::Entry;
pub use handle::Map;
pub use iter::{MapIter, MapKeys, MapValues, SnapshotMapIter, SnapshotMapKeys, SnapshotMapRefs, SnapshotMapValues};
pub use snapshot::SnapshotMap;
pub use transaction::{TransactionMap, TransactionMapIter};
pub use value_ref::ValueRef;
