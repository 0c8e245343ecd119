//! What a repair is asked for, how far it is, and what it found.

use std::fmt;
use std::ops::ControlFlow;

use crate::engine::open::place::Existing;
use crate::engine::verify::report::Finding;
use crate::file::layout::Seq;

/// Findings that are kept, and commits that are named; further ones are only counted.
const KEPT: usize = 1000;

/// How to repair a store; see [`repair_with`](crate::repair_with).
///
/// ```
/// use std::ops::ControlFlow;
/// use slotlog::{RepairOptions, Store};
///
/// # let folder = tempfile::tempdir()?;
/// # let (path, repaired) = (folder.path().join("damaged.slotlog"), folder.path().join("repaired.slotlog"));
/// # Store::open(&path)?.close()?;
/// # Store::open(&repaired)?.close()?;
/// let mut calls = 0;
/// let options = RepairOptions::new().overwrite(true).older_versions(true).on_progress(|_| {
///     calls += 1;
///     ControlFlow::Continue(())
/// });
/// slotlog::repair_with(&path, &repaired, options)?;
/// assert!(calls > 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "options do nothing until they are passed to `repair_with`"]
pub struct RepairOptions<'p> {
    pub(super) older_versions: bool,
    pub(super) existing: Existing,
    pub(super) on_progress: Box<dyn FnMut(RepairProgress) -> ControlFlow<()> + 'p>,
}

impl Default for RepairOptions<'_> {
    fn default() -> Self {
        RepairOptions {
            older_versions: false,
            existing: Existing::Kept,
            on_progress: Box::new(|_| ControlFlow::Continue(())),
        }
    }
}

impl<'p> RepairOptions<'p> {
    /// The defaults: nothing is overwritten, only the newest version of a key is kept, and no progress is reported.
    pub fn new() -> RepairOptions<'p> {
        RepairOptions::default()
    }

    /// Whether a key whose newest record is lost comes back as its newest older version, if there is one. That record
    /// may have been a removal, so a key may come back that had been removed. Default: `false`; then the key is
    /// [lost](RepairReport::lost_keys).
    pub fn older_versions(mut self, older: bool) -> RepairOptions<'p> {
        self.older_versions = older;
        self
    }

    /// Whether an existing file may be replaced. Default: `false`; then it is
    /// [`Error::AlreadyExists`](crate::Error::AlreadyExists). The old file stays until the new one is complete and
    /// takes its place, in one step. Only a store is replaced, damaged or not, or an empty file; any other file is
    /// [`Error::NotAStore`](crate::Error::NotAStore), and a store that a process has open is
    /// [`Error::Locked`](crate::Error::Locked). A symbolic link is followed.
    pub fn overwrite(mut self, overwrite: bool) -> RepairOptions<'p> {
        self.existing = if overwrite { Existing::Replaced } else { Existing::Kept };
        self
    }

    /// A callback for progress, called every few megabytes. If it returns [`Break`](ControlFlow::Break), the repair
    /// stops, removes its file, and reports that it is not [finished](RepairReport::finished).
    pub fn on_progress(mut self, call: impl FnMut(RepairProgress) -> ControlFlow<()> + 'p) -> RepairOptions<'p> {
        self.on_progress = Box::new(call);
        self
    }
}

impl fmt::Debug for RepairOptions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RepairOptions { older_versions, existing, .. } = self;
        let mut debug = f.debug_struct("RepairOptions");
        debug.field("older_versions", older_versions).field("existing", existing).finish_non_exhaustive()
    }
}

/// How far a repair has come; see [`RepairOptions::on_progress`].
///
/// ```
/// use std::ops::ControlFlow;
/// use slotlog::{RepairOptions, RepairProgress, Store};
///
/// # let folder = tempfile::tempdir()?;
/// # let (path, repaired) = (folder.path().join("damaged.slotlog"), folder.path().join("repaired.slotlog"));
/// # Store::open(&path)?.close()?;
/// let stop = |progress: RepairProgress| {
///     if progress.done < progress.total { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
/// };
/// let report = slotlog::repair_with(&path, &repaired, RepairOptions::new().on_progress(stop))?;
/// assert!(!report.finished() && !repaired.exists());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RepairProgress {
    /// Bytes read so far. The file is read once to find the records, and what is believed once more to copy it.
    pub done: u64,
    /// The approximate total.
    pub total: u64,
}

/// What a [repair](crate::repair()) has read, kept and lost, and what it doubts.
///
/// ```
/// use slotlog::{RepairReport, Store};
///
/// # let folder = tempfile::tempdir()?;
/// # let (path, repaired) = (folder.path().join("app.slotlog"), folder.path().join("repaired.slotlog"));
/// let store = Store::open(&path)?;
/// store.insert("Ada", "36")?;
/// store.insert("Bob", "42")?;
/// store.close()?;
/// let report: RepairReport = slotlog::repair(&path, &repaired)?;
/// assert!(report.is_whole());
/// assert_eq!((report.keys(), report.records(), report.lost_keys()), (2, 2, 0));
/// assert!(report.commit().is_some());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct RepairReport {
    findings: Vec<Finding>,
    #[cfg_attr(feature = "serde", serde(rename = "finding_count"))]
    count: u64,
    incomplete: Vec<u64>,
    incomplete_count: u64,
    pub(super) bytes: u64,
    #[cfg_attr(feature = "serde", serde(rename = "unreadable_bytes"))]
    pub(super) unreadable: u64,
    pub(super) records: u64,
    pub(super) doubtful_records: u64,
    pub(super) maps: u64,
    pub(super) keys: u64,
    pub(super) older_keys: u64,
    pub(super) doubtful_keys: u64,
    pub(super) lost_keys: u64,
    pub(super) commit: Option<u64>,
    pub(super) finished: bool,
}

impl RepairReport {
    /// Whether the repair came to its end. If its [callback](RepairOptions::on_progress) stopped it, there is no new
    /// store, and the report counts what was looked at until then.
    pub fn finished(&self) -> bool {
        self.finished
    }

    /// Whether nothing was found to be missing: the new store is what the [commit](RepairReport::commit) saw.
    pub fn is_whole(&self) -> bool {
        self.finished && self.count == 0 && self.commit.is_some()
    }

    /// The number of the commit that the new store shows, if it shows exactly one: the log is whole from its beginning
    /// to that commit. This is so for an undamaged file, and often for a copy of a store in use, which then is repaired
    /// to the last commit that it has as a whole; a finding tells if it also has pieces of later ones. `None` if
    /// something is missing in between.
    pub fn commit(&self) -> Option<u64> {
        self.commit
    }

    /// What is damaged, missing or strange, and where; at most the first thousand.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// The number of findings.
    pub fn finding_count(&self) -> u64 {
        self.count
    }

    /// The numbers of commits that lost a record, in ascending order; at most the first thousand. Their other records
    /// are kept. If a hole of the log ends within a commit, that one is named as well, since it may have begun in the
    /// hole.
    pub fn incomplete(&self) -> &[u64] {
        &self.incomplete
    }

    /// How many commits lost a record.
    pub fn incomplete_count(&self) -> u64 {
        self.incomplete_count
    }

    /// Bytes of the source.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes of the source that the system could not read. They count as zeros.
    pub fn unreadable_bytes(&self) -> u64 {
        self.unreadable
    }

    /// Records that are believed, replaced and removed versions included.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// Records whose checksum holds, and of which nothing else tells that they were a part of this store's log: what
    /// lies inside a damaged value may look like one. They were left out.
    pub fn doubtful_records(&self) -> u64 {
        self.doubtful_records
    }

    /// Named maps in the new store.
    pub fn maps(&self) -> u64 {
        self.maps
    }

    /// Keys in the new store, over all maps.
    pub fn keys(&self) -> u64 {
        self.keys
    }

    /// Of these, keys that came back as an older version; see [`RepairOptions::older_versions`].
    pub fn older_keys(&self) -> u64 {
        self.older_keys
    }

    /// Of these, keys that may have been replaced or removed since: records newer than theirs are lost, and nothing
    /// tells whose they were.
    pub fn doubtful_keys(&self) -> u64 {
        self.doubtful_keys
    }

    /// Keys known to have been in the store, or to have been removed from it, by a record that is lost. They are not in
    /// the new store unless [older versions](RepairOptions::older_versions) were asked for.
    pub fn lost_keys(&self) -> u64 {
        self.lost_keys
    }

    pub(super) fn note(&mut self, offset: u64, what: impl Into<String>) {
        self.count += 1;
        if self.findings.len() < KEPT {
            self.findings.push(Finding { offset, what: what.into() });
        }
    }

    /// Names the commits from `first` to `last`, each after those named before.
    pub(super) fn note_incomplete(&mut self, first: Seq, last: Seq) {
        let first = first.0.max(self.incomplete.last().map_or(0, |&last| last + 1));
        self.incomplete_count += (last.0 + 1).saturating_sub(first);
        let room = KEPT - self.incomplete.len();
        self.incomplete.extend((first..=last.0).take(room));
    }
}
