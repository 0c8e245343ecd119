//! What a store is opened with.

use std::time::Duration;

use super::progress::OnRecovery;

/// How a store is opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Access {
    /// Reading and writing; changes go to the file.
    #[default]
    ReadWrite,
    /// Reading only: not a byte of the file is changed, and every change is refused with
    /// [`Error::ReadOnly`](crate::Error::ReadOnly). Works on a file without write permission, and beside others who write,
    /// whose commits are seen at once. A single read copies what it finds. After a power cut the store is recovered into
    /// memory of this process, which takes as much of it as the index needs; as long as that lasts, nobody can open the
    /// store for writing.
    ReadOnly,
}

/// What a commit has survived when it returns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Durability {
    /// It survives the death of the process, at once; a power cut only after the next
    /// [`sync`](crate::Store::sync), checkpoint or close.
    #[default]
    Buffered,
    /// It survives a power cut.
    Synced,
}

/// Everything that [`Options`](crate::Options) can set.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) access: Access,
    pub(crate) create: bool,
    pub(crate) create_new: bool,
    pub(crate) exclusive: bool,
    pub(crate) durability: Durability,
    pub(crate) initial_capacity: u64,
    pub(crate) max_size: u64,
    pub(crate) lock_timeout: Duration,
    pub(crate) verify_reads: bool,
    pub(crate) checkpoint_every: u64,
    pub(crate) on_recovery: Option<OnRecovery>,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            access: Access::ReadWrite,
            create: true,
            create_new: false,
            exclusive: false,
            durability: Durability::Buffered,
            initial_capacity: 0,
            max_size: u64::MAX,
            lock_timeout: Duration::from_secs(10),
            verify_reads: false,
            checkpoint_every: 64 << 20,
            on_recovery: None,
        }
    }
}
