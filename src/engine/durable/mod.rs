//! Durability: flushing the log, and superblocks.
//!
//! **Invariants.** A superblock is overwritten only when the other one is known to be flushed; the live word that names
//! the one in force changes only after its flush has returned. A superblock says `log_end` only after the log up to
//! there was flushed. The clean flag is gone from the disk before anything changes. A flush that failed is never tried
//! again and called durable: the failure is remembered, in memory and in the file, and only a recovery that writes all
//! of the log once more ends that ("fsyncgate": PostgreSQL, 2018). A process killed during a flush may have seen a
//! failure and not passed it on; so its successor writes once more what that flush covered.
//!
//! The parts that take a turn at writing are above, in [`sync`](crate::engine::write::sync).

pub(crate) mod checkpoint;
pub(crate) mod flusher;
pub(crate) mod once_more;
pub(crate) mod reach;
pub(crate) mod slices;
pub(crate) mod superblock;
