//! The report of a backup, and its progress.

use crate::seq::Seq;

/// How far a backup has come; see [`BackupOptions::on_progress`](crate::BackupOptions::on_progress).
///
/// ```
/// use std::ops::ControlFlow;
/// use slotlog::{BackupOptions, BackupProgress, Store};
///
/// # let folder = tempfile::tempdir()?;
/// let store = Store::in_memory()?;
/// store.insert("hello", "world")?;
/// let mut last = None;
/// let options = BackupOptions::new().on_progress(|progress: BackupProgress| {
///     last = Some(progress);
///     ControlFlow::Continue(())
/// });
/// store.backup_with(folder.path().join("app.backup"), options)?;
/// let last = last.ok_or("it is called at least once")?;
/// assert!(last.done > 0 && last.done == last.total);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BackupProgress {
    /// Bytes of records copied so far.
    pub done: u64,
    /// How many there are. It is approximate if entries have expired, or if others commit very much at the beginning.
    pub total: u64,
}

/// What [`Store::backup_with`](crate::Store::backup_with) has done.
///
/// ```
/// use slotlog::{BackupOptions, BackupReport, Store};
///
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("app.backup");
/// let store = Store::in_memory()?;
/// store.map::<str, u32>("ages")?.insert("Ada", 36)?;
/// let report: BackupReport = store.backup_with(&path, BackupOptions::new())?;
/// assert!(report.finished);
/// assert_eq!((report.seq, report.maps, report.keys), (store.seq()?, 1, 1));
/// assert_eq!(report.file_len, std::fs::metadata(&path)?.len());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct BackupReport {
    /// The backup is complete. Otherwise it was [stopped](crate::BackupOptions::on_progress), and left no file.
    pub finished: bool,
    /// The sequence number of the commit whose content it has: the starting point for
    /// [`Store::changes_since`](crate::Store::changes_since) of the store that it was taken of. The backup itself
    /// counts its commits anew.
    pub seq: Seq,
    /// The number of named maps; of an [increment](crate::Store::backup_since), that of the maps that it changes.
    pub maps: u64,
    /// The number of entries in all maps, the default map included; of an increment, that of the changes.
    pub keys: u64,
    /// Bytes of their records; of an increment, those of the changes.
    pub bytes: u64,
    /// Length in bytes of the new file; zero if it was stopped.
    pub file_len: u64,
}
