//! What a long recovery tells of itself.

use std::fmt;
use std::sync::Arc;

use super::settings::Settings;

/// How far a recovery after a power cut has come; see [`Options::on_recovery`](crate::Options::on_recovery).
///
/// ```
/// use std::sync::mpsc;
/// use slotlog::{RecoveryProgress, Store};
///
/// # let folder = tempfile::tempdir()?;
/// # let (path, copy) = (folder.path().join("app.slotlog"), folder.path().join("copy.slotlog"));
/// let store = Store::open(&path)?;
/// store.insert("hello", "world")?;
/// std::fs::copy(&path, &copy)?;
///
/// let (tell, told) = mpsc::channel();
/// Store::options().on_recovery(move |progress| drop(tell.send(progress))).open(&copy)?;
/// let told: Vec<RecoveryProgress> = told.try_iter().collect();
/// let last = told.last().ok_or("a copy is recovered")?;
/// assert!(last.done > 0 && last.done == last.total);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecoveryProgress {
    /// What is being done.
    pub phase: RecoveryPhase,
    /// Bytes of the log that this phase has passed.
    pub done: u64,
    /// Bytes that it has to pass. While the log is walked its end is not known; then this is the length of the file, which
    /// may be much more.
    pub total: u64,
}

/// The two passes of a recovery over the log.
///
/// ```
/// use std::sync::mpsc;
/// use slotlog::RecoveryPhase::{Indexing, Walking};
/// use slotlog::Store;
///
/// # let folder = tempfile::tempdir()?;
/// # let (path, copy) = (folder.path().join("app.slotlog"), folder.path().join("copy.slotlog"));
/// let store = Store::open(&path)?;
/// store.insert("hello", "world")?;
/// std::fs::copy(&path, &copy)?;
///
/// let (tell, told) = mpsc::channel();
/// Store::options().on_recovery(move |progress| drop(tell.send(progress.phase))).open(&copy)?;
/// let mut phases: Vec<_> = told.try_iter().collect();
/// phases.dedup();
/// assert_eq!(phases, [Walking, Indexing]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RecoveryPhase {
    /// Every record is checked until one does not hold: there the log ends.
    Walking,
    /// The index is built anew.
    Indexing,
}

/// What is called now and then in a recovery.
#[derive(Clone)]
pub(crate) struct OnRecovery(pub(crate) Arc<dyn Fn(RecoveryProgress) + Send + Sync>);

impl fmt::Debug for OnRecovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnRecovery")
    }
}

/// So many bytes of log lie between two calls.
const EVERY: u64 = 4 << 20;

/// One phase of a recovery.
pub(crate) struct Phase {
    on_recovery: Option<OnRecovery>,
    progress: RecoveryProgress,
    told: u64,
}

impl Phase {
    pub(crate) fn begin(settings: &Settings, phase: RecoveryPhase, total: u64) -> Phase {
        let begun = Phase {
            on_recovery: settings.on_recovery.clone(),
            progress: RecoveryProgress { phase, done: 0, total },
            told: 0,
        };
        begun.tell();
        begun
    }

    fn tell(&self) {
        if let Some(OnRecovery(call)) = &self.on_recovery {
            call(self.progress);
        }
    }

    /// So many more bytes are done.
    #[inline]
    pub(crate) fn advance(&mut self, bytes: u64) {
        self.progress.done += bytes;
        if self.progress.done - self.told >= EVERY {
            self.told = self.progress.done;
            self.tell();
        }
    }

    /// All of it is done.
    pub(crate) fn end(mut self) {
        self.progress.total = self.progress.done;
        self.tell();
    }
}
