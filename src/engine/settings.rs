//! The settings that a store is opened with.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::file::layout::BLOCK;

/// How a store is opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Access {
    /// Reading and writing; changes go to the file, and all other openers see them.
    ///
    /// ```
    /// use slotlog::{Access, Store};
    ///
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("shared.slotlog");
    /// let store = Store::options().access(Access::ReadWrite).open(&path)?;
    /// let other = Store::open(&path)?; // the same: it is the default
    /// store.insert("key", "value")?;
    /// assert_eq!(other.get("key")?.as_deref(), Some(&b"value"[..]));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[default]
    ReadWrite,
    /// Reading only: not a byte of the file is changed, and every change is rejected with
    /// [`Error::ReadOnly`](crate::Error::ReadOnly). Works on a file without write permission, and beside writers, whose
    /// commits are visible at once. A single read copies what it finds.
    ///
    /// After a power cut, the store is recovered into the memory of this process, as much as the index takes. Others
    /// can still open it for writing, and the next call after that sees what they commit. Until then, and as long as a
    /// snapshot, an iterator or a value from before lives, space that was in use is not reused, and once the log begins
    /// elsewhere, a writer that has to rebuild the index from the log is refused.
    ///
    /// ```
    /// use slotlog::{Access, Error, Store};
    ///
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("watched.slotlog");
    /// let writer = Store::open(&path)?;
    /// let reader = Store::options().access(Access::ReadOnly).open(&path)?;
    /// writer.insert("key", "value")?;
    /// assert_eq!(reader.get("key")?.as_deref(), Some(&b"value"[..]));
    /// assert!(matches!(reader.remove("key"), Err(Error::ReadOnly { .. })));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ReadOnly,
    /// Reading and writing; changes stay in the memory of this process, invisible to others, and vanish with it: for an
    /// experiment, for a test with real data, for a template from which each process continues. The file stays as it
    /// is, bit for bit. Works on a file without write permission.
    ///
    /// It opens in constant time like any other store, and takes memory for changes and additions, in pages;
    /// [`Options::max_size`](crate::Options::max_size) limits its length like that of a file. Nothing is made durable:
    /// [`Durability::Synced`] costs nothing and means nothing. As long as the copy is open, no process can open the
    /// store for writing, since unchanged parts are still those of the file; and opening a copy fails while a writer
    /// has the store open.
    ///
    /// ```
    /// use slotlog::{Access, Store};
    ///
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("template.slotlog");
    /// let store = Store::open(&path)?;
    /// store.insert("key", "value")?;
    /// store.close()?;
    ///
    /// let trial = Store::options().access(Access::CopyOnWrite).open(&path)?;
    /// trial.clear()?;
    /// trial.insert("another", "value")?;
    /// trial.close()?;
    ///
    /// let store = Store::open(&path)?;
    /// assert_eq!(store.get("key")?.as_deref(), Some(&b"value"[..]));
    /// assert_eq!(store.len()?, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    CopyOnWrite,
}

impl Access {
    /// Whether changes go to the file: only then is it opened for writing, and created.
    pub(crate) fn is_to_file(self) -> bool {
        self == Access::ReadWrite
    }
}

/// What a commit survives once it has returned.
///
/// ```
/// use slotlog::{Durability, Store};
///
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("orders.slotlog");
/// assert_eq!(Durability::default(), Durability::Buffered);
/// let store = Store::options().durability(Durability::Synced).open(&path)?;
/// store.insert("order 1", "tea")?;                       // survives a power cut from here on
/// assert_eq!(store.get("order 1")?.as_deref(), Some(&b"tea"[..]));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Durability {
    /// It survives the death of the process, at once; a power cut only after the next [`sync`](crate::Store::sync),
    /// checkpoint or close.
    #[default]
    Buffered,
    /// It survives a power cut.
    Synced,
}

/// The sizes from which upkeep is worthwhile, and how much of it one write does. Tests make them tiny, so that some
/// upkeep is always in progress.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Bytes of the first extent of the log.
    pub(crate) smallest_log: u64,
    /// Bytes of the smallest extent of a log that is longer than that.
    pub(crate) usual_log: u64,
    /// A shorter log is not compacted automatically.
    pub(crate) least_log: u64,
    /// The smallest piece that is cut off an extent, in bytes.
    pub(crate) piece: u64,
    /// Bytes of the log that one step passes, and moves as one commit, not counting one record.
    pub(crate) most_bytes: u64,
    /// Records that one step passes.
    pub(crate) most_records: u64,
    /// Bytes that are appended from one step to the next.
    pub(crate) clean_every: u64,
    /// Less waiting space than this gets no checkpoint of its own.
    pub(crate) least_waiting: u64,
    /// An index of up to this many lines is rebuilt by one write.
    pub(crate) lines_at_once: u64,
    /// Lines of a larger index that one write moves.
    pub(crate) lines_a_step: u64,
    /// Blocks of an index being built that one write zeroes.
    pub(crate) blocks_a_step: u64,
    /// How many commits lie between two scans of all pins for the sake of a tombstone.
    pub(crate) commits_a_look: u64,
    /// Bytes of the log after which a feed lets go of what it holds.
    pub(crate) most_held: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            smallest_log: 4 << 10,
            usual_log: 64 << 10,
            least_log: 192 << 10,
            piece: 64 << 10,
            most_bytes: 64 << 10,
            most_records: 256,
            clean_every: 4 << 10,
            least_waiting: 1 << 20,
            lines_at_once: 512,
            lines_a_step: 16,
            blocks_a_step: 16,
            commits_a_look: 1024,
            most_held: 64 << 20,
        }
    }
}

impl Limits {
    /// Bytes of the smallest extents of a log: of the first, and of those in a longer log.
    pub(crate) fn log_extents(&self) -> (u64, u64) {
        (self.smallest_log, self.usual_log.max(self.smallest_log))
    }

    /// The smallest possible limits.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn tiny() -> Limits {
        Limits {
            smallest_log: 4 << 10,
            usual_log: 4 << 10,
            least_log: 4 << 10,
            piece: 4 << 10,
            most_bytes: 2 << 10,
            most_records: 16,
            clean_every: 1,
            least_waiting: 8 << 10,
            lines_at_once: 0,
            lines_a_step: 4,
            blocks_a_step: 1,
            commits_a_look: 1,
            most_held: 2 << 10,
        }
    }
}

/// What a store that [evicts](crate::Options::evict) removes when it is full.
///
/// ```
/// use slotlog::{Policy, Store};
///
/// let cache = Store::options().max_size(1 << 20).evict(Policy::SecondChance).in_memory()?;
/// let mut computed = 0;
/// for number in 0..10_000u32 {
///     cache.insert(number.to_le_bytes(), [0; 1000])?;
///     if !cache.contains_key("read again and again")? {
///         computed += 1;
///         cache.insert("read again and again", [0; 1000])?;
///     }
/// }
/// assert!(computed < 50 && !cache.contains_key(1u32.to_le_bytes())?);
/// # Ok::<(), slotlog::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Policy {
    /// The entry that was written first (FIFO). Reading changes nothing.
    Oldest,
    /// The same, but an entry that was read is spared, once for each time, and at most three times until it is read
    /// again (second chance: Corbató, *A Paging Experiment with the Multics System*, 1968; with counters: Smith,
    /// *Sequentiality and Prefetching in Database Systems*, 1978). A process counts what it has read in its own memory,
    /// a 256th of the limit and at most 16 MiB. Two bits in the file for each six slots of the index say what all
    /// processes have read that have this policy; where several have the store open, those count as well, and an entry
    /// is sometimes spared since another one was read.
    SecondChance,
}

/// The limit of a store that evicts is this many times as long as an extent of its log.
const CELLS: u64 = 32;

/// The longest extent of the log of a store that evicts.
const LARGEST_CELL: u64 = 64 << 20;

/// Everything that [`Options`](crate::Options) can set.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) access: Access,
    pub(crate) create: bool,
    pub(crate) create_new: bool,
    /// For a new file. `None`: the system's default.
    pub(crate) mode: Option<u32>,
    pub(crate) exclusive: bool,
    pub(crate) untrusted: bool,
    pub(crate) durability: Durability,
    pub(crate) initial_capacity: u64,
    pub(crate) max_size: u64,
    pub(crate) evict: Option<Policy>,
    pub(crate) lock_timeout: Duration,
    pub(crate) open_timeout: Option<Duration>,
    pub(crate) verify_reads: bool,
    pub(crate) checkpoint_every: u64,
    pub(crate) auto_compact: Option<f64>,
    pub(crate) background_maintenance: bool,
    /// How often the log is scrubbed.
    pub(crate) scrub: Option<Duration>,
    pub(crate) limits: Limits,
    pub(crate) on_recovery: Option<OnRecovery>,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            access: Access::ReadWrite,
            create: true,
            create_new: false,
            mode: None,
            exclusive: false,
            untrusted: false,
            durability: Durability::Buffered,
            initial_capacity: 0,
            max_size: u64::MAX,
            evict: None,
            lock_timeout: Duration::from_secs(10),
            open_timeout: None,
            verify_reads: false,
            checkpoint_every: 64 << 20,
            auto_compact: Some(0.5),
            background_maintenance: false,
            scrub: None,
            limits: Limits::default(),
            on_recovery: None,
        }
    }
}

impl Settings {
    /// The length of all new extents of the log, if the store evicts.
    pub(crate) fn cell(&self) -> Option<u64> {
        self.evict.map(|_| (self.max_size / CELLS / BLOCK * BLOCK).clamp(BLOCK, LARGEST_CELL))
    }
}

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
    /// The current phase.
    pub phase: RecoveryPhase,
    /// Bytes of the log that this phase has passed.
    pub done: u64,
    /// Bytes that it has to pass. While the log is walked, its end is unknown; then this is the length of the file,
    /// which may be much more.
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RecoveryPhase {
    /// Every record is checked until one is invalid: there the log ends.
    Walking,
    /// The index is rebuilt.
    Indexing,
}

/// The callback of a recovery, called now and then.
#[derive(Clone)]
pub(crate) struct OnRecovery(pub(crate) Arc<dyn Fn(RecoveryProgress) + Send + Sync>);

impl fmt::Debug for OnRecovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnRecovery")
    }
}

/// How a store was found when it was opened.
///
/// ```
/// use slotlog::{Opened, Store};
///
/// # let folder = tempfile::tempdir()?;
/// # let (path, copy) = (folder.path().join("app.slotlog"), folder.path().join("copy.slotlog"));
/// let store = Store::open(&path)?;
/// store.insert("hello", "world")?;
/// std::fs::copy(&path, &copy)?;
/// let copied = Store::open(&copy)?;
/// assert!(matches!(copied.opened(), Opened::AfterPowerCut { records, .. } if records > 0));
///
/// store.close()?;
/// assert_eq!(Store::open(&path)?.opened(), Opened::Clean);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Opened {
    /// There was no store; it was created.
    Created,
    /// It had been closed. Nothing had to be done.
    Clean,
    /// The processes that had it open were killed. The last commit was completed, in constant time.
    AfterKill,
    /// Other processes have it open. Nothing had to be done.
    Attached,
    /// The power was cut, or the file is a copy. The index was rebuilt from the log.
    AfterPowerCut {
        /// Records found in the log.
        records: u64,
        /// Their bytes.
        bytes: u64,
    },
}
