//! slotlog

mod engine;
mod error;
mod file;
mod options;
mod snapshot;
mod stats;
mod store;
mod transaction;

pub use engine::recovery::Opened;
pub use engine::settings::{Access, Durability};
pub use engine::verify::{Finding, VerifyReport};
pub use error::{Error, FullReason, Result};
pub use file::layout as format;
pub use options::Options;
pub use snapshot::{Iter, Snapshot};
pub use stats::{ExtentStats, MapStats, Stats};
pub use store::Store;
pub use transaction::Transaction;
