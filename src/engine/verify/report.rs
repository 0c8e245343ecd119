//! The report of a check, and its progress.

use std::fmt;

/// Findings that are kept; further ones are only counted.
const KEPT: usize = 1000;

/// What [`Store::verify`](crate::Store::verify) found.
///
/// ```
/// # let store = slotlog::Store::in_memory()?;
/// store.insert("Ada", "36")?;
/// store.insert("Ada", "37")?;
/// let report: slotlog::VerifyReport = store.verify()?;
/// assert!(report.is_clean());
/// assert!(report.findings().is_empty());
/// assert_eq!((report.finding_count(), report.keys()), (0, 1));
/// assert!(report.records() >= 2);
/// # Ok::<(), slotlog::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct VerifyReport {
    findings: Vec<Finding>,
    #[cfg_attr(feature = "serde", serde(rename = "finding_count"))]
    count: u64,
    pub(crate) records: u64,
    pub(crate) keys: u64,
    pub(super) scope: VerifyScope,
}

impl VerifyReport {
    /// Whether there are no findings.
    pub fn is_clean(&self) -> bool {
        self.count == 0
    }

    /// The findings; at most the first thousand.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// The number of findings.
    pub fn finding_count(&self) -> u64 {
        self.count
    }

    /// Records of the log that were checked.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// Keys, over all maps, whose values were found.
    pub fn keys(&self) -> u64 {
        self.keys
    }

    /// How much was checked, which depends on whether others were writing.
    pub fn scope(&self) -> VerifyScope {
        self.scope
    }

    pub(crate) fn add(&mut self, offset: impl Into<u64>, what: impl Into<String>) {
        self.count += 1;
        if self.findings.len() < KEPT {
            self.findings.push(Finding { offset: offset.into(), what: what.into() });
        }
    }

    /// Adds the findings of another report.
    pub(crate) fn append(&mut self, other: VerifyReport) {
        self.count += other.count;
        let room = KEPT - self.findings.len();
        self.findings.extend(other.findings.into_iter().take(room));
    }
}

/// How much of a store a [`VerifyReport`] covers.
///
/// ```
/// use std::ops::ControlFlow;
/// use slotlog::VerifyScope;
///
/// # let store = slotlog::Store::in_memory()?;
/// for number in 0..20_000u32 {
///     store.insert(number.to_le_bytes(), [7; 100])?;
/// }
/// assert_eq!(store.verify()?.scope(), VerifyScope::Everything);
///
/// // Another writer is at work meanwhile.
/// let report = store.verify_with(|_| match store.insert("now", "and then") {
///     Ok(()) => ControlFlow::Continue(()),
///     Err(_) => ControlFlow::Break(()),
/// })?;
/// assert_eq!((report.scope(), report.is_clean()), (VerifyScope::Snapshot, true));
/// # Ok::<(), slotlog::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum VerifyScope {
    /// The whole file: no process wrote meanwhile.
    Everything,
    /// One commit: its log, from the first record to the last, and everything the indexes say about it, with their
    /// counters. Others wrote meanwhile, so data without versions could not be checked at any time: an index under
    /// construction and what compaction has left before the head of the log were left out; the tables of extents and
    /// maps were checked if there was a moment for that.
    Snapshot,
    /// The check was [stopped](crate::Store::verify_with) early, or reached damage that it could not get past, which is
    /// then the last finding: parts without findings may not have been checked.
    #[default]
    Part,
}

/// How far a check has come; see [`Store::verify_with`](crate::Store::verify_with).
///
/// ```
/// use std::ops::ControlFlow;
/// use slotlog::{VerifyProgress, VerifyScope};
///
/// # let store = slotlog::Store::in_memory()?;
/// for number in 0..20_000u32 {
///     store.insert(number.to_le_bytes(), [7; 100])?;
/// }
/// let report = store.verify_with(|progress: VerifyProgress| {
///     if 2 * progress.done < progress.total { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
/// })?;
/// assert_eq!(report.scope(), VerifyScope::Part);
/// # Ok::<(), slotlog::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct VerifyProgress {
    /// Bytes of log and indexes checked so far. It starts again, once, if a process writes.
    pub done: u64,
    /// The approximate total.
    pub total: u64,
}

/// One violated invariant.
///
/// ```
/// use slotlog::{Finding, Store};
///
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("app.slotlog");
/// let store = Store::open(&path)?;
/// store.insert("hello", "world")?;
/// store.close()?;
///
/// let mut bytes = std::fs::read(&path)?;
/// let at = bytes.windows(5).position(|five| five == b"world").ok_or("not found")?;
/// bytes[at] ^= 1;
/// std::fs::write(&path, bytes)?;
///
/// let report = Store::open(&path)?.verify()?;
/// let finding: &Finding = &report.findings()[0];
/// assert!(finding.offset <= at as u64);
/// assert_eq!(finding.to_string(), format!("at offset {}: {}", finding.offset, finding.what));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Finding {
    /// Where in the file, in bytes.
    pub offset: u64,
    /// What was expected and what was found.
    pub what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at offset {}: {}", self.offset, self.what)
    }
}
