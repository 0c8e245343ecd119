//! How a backup is made.

use std::fmt;
use std::ops::ControlFlow;

use super::report::BackupProgress;
use crate::engine::open::place::Existing;
use crate::engine::settings::Durability;

/// Options for a [backup](crate::Store::backup_with).
///
/// ```
/// use slotlog::{BackupOptions, Store};
///
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("nightly.slotlog");
/// let store = Store::in_memory()?;
/// store.insert("hello", "world")?;
/// let report = store.backup_with(&path, BackupOptions::new().overwrite(true))?;
/// assert!(report.finished);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "options do nothing until they are passed to `backup_with`"]
pub struct BackupOptions<'f> {
    pub(crate) existing: Existing,
    pub(crate) durability: Durability,
    pub(super) pace: Pace,
    pub(crate) on_progress: Box<dyn FnMut(BackupProgress) -> ControlFlow<()> + 'f>,
}

/// How fast a backup goes beside writers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    /// It rests most of the time while others write.
    Considerate,
    FullSpeed,
}

impl fmt::Debug for BackupOptions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let BackupOptions { existing, durability, pace, .. } = self;
        let mut debug = f.debug_struct("BackupOptions");
        debug.field("existing", existing).field("durability", durability).field("pace", pace).finish_non_exhaustive()
    }
}

impl Default for BackupOptions<'_> {
    fn default() -> Self {
        BackupOptions {
            existing: Existing::Kept,
            durability: Durability::Synced,
            pace: Pace::Considerate,
            on_progress: Box::new(|_| ControlFlow::Continue(())),
        }
    }
}

impl<'f> BackupOptions<'f> {
    /// The defaults: nothing is overwritten, the backup survives a power cut, and no progress is reported.
    pub fn new() -> BackupOptions<'f> {
        BackupOptions::default()
    }

    /// Whether an existing file may be replaced. Default: `false`; then it is
    /// [`Error::AlreadyExists`](crate::Error::AlreadyExists). The old file stays until the new one is complete and
    /// takes its place, in one step. Only a store is replaced, damaged or not, or an empty file; any other file is
    /// [`Error::NotAStore`](crate::Error::NotAStore), and a store that a process has open is
    /// [`Error::Locked`](crate::Error::Locked). A symbolic link is followed.
    ///
    /// ```
    /// use slotlog::{BackupOptions, Error, Store};
    ///
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("nightly.slotlog");
    /// let store = Store::in_memory()?;
    /// store.backup(&path)?;
    /// store.insert("hello", "world")?;
    /// assert!(matches!(store.backup(&path), Err(Error::AlreadyExists { .. })));
    /// let report = store.backup_with(&path, BackupOptions::new().overwrite(true))?;
    /// assert_eq!(report.keys, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn overwrite(mut self, overwrite: bool) -> BackupOptions<'f> {
        self.existing = if overwrite { Existing::Replaced } else { Existing::Kept };
        self
    }

    /// What the backup survives once the call has returned. Default: [`Durability::Synced`], a power cut. With
    /// [`Durability::Buffered`] the folder is not flushed: after a power cut the backup may be missing, or the one that
    /// it replaced may be back. In both cases the content is flushed before the file gets its name, so a file of that
    /// name is always a whole backup.
    ///
    /// ```
    /// use slotlog::{BackupOptions, Durability, Store};
    ///
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("for-a-test.slotlog");
    /// let store = Store::in_memory()?;
    /// let report = store.backup_with(&path, BackupOptions::new().durability(Durability::Buffered))?;
    /// assert!(report.finished && path.exists());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn durability(mut self, durability: Durability) -> BackupOptions<'f> {
        self.durability = durability;
        self
    }

    /// Whether to copy without rest. Default: `false`; then the backup rests for four fifths of the time as long as
    /// others write, so that it takes no more than a tenth or so of their throughput, and five times as long.
    ///
    /// ```
    /// use slotlog::{BackupOptions, Store};
    ///
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("before-an-update.slotlog");
    /// let store = Store::in_memory()?;
    /// assert!(store.backup_with(&path, BackupOptions::new().full_speed(true))?.finished);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn full_speed(mut self, full_speed: bool) -> BackupOptions<'f> {
        self.pace = if full_speed { Pace::FullSpeed } else { Pace::Considerate };
        self
    }

    /// A callback for progress: called before the first entry is copied, then after about every mebibyte, and after the
    /// last entry. It runs in the thread of the backup while nothing is locked, so it may use the store. If it returns
    /// [`Break`](ControlFlow::Break), the backup stops, removes its file, and reports that it is not
    /// [finished](crate::BackupReport::finished).
    ///
    /// ```
    /// use std::ops::ControlFlow;
    /// use slotlog::{BackupOptions, Store};
    ///
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("nightly.slotlog");
    /// let store = Store::in_memory()?;
    /// let stopped = store.backup_with(&path, BackupOptions::new().on_progress(|_| ControlFlow::Break(())))?;
    /// assert!(!stopped.finished && !path.exists());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn on_progress(mut self, call: impl FnMut(BackupProgress) -> ControlFlow<()> + 'f) -> BackupOptions<'f> {
        self.on_progress = Box::new(call);
        self
    }
}
