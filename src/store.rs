//! The store itself.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::background::{self, Background};
use crate::engine::Engine;
use crate::engine::settings::{Opened, Settings};
use crate::file::layout::DEFAULT_MAP;
use crate::keys::{ChangeKeys, Expiry, ReadKeys};
use crate::seq::Seq;
use crate::source::{EngineRef, Source};
use crate::{Changes, Error, Options, Result, Snapshot, Transaction};

/// An open store: a persistent map from byte strings to byte strings.
///
/// Handles are cheap to clone, and all clones are the same store. Any number of threads can use it, and other processes
/// can have the same file open: reads take no lock and never wait; changes take turns. When the last handle, snapshot
/// and transaction are gone, the store is closed; [`close`](Store::close) does the same and reports errors.
///
/// Each call is atomic, and each change is a commit of its own. Every call may block for as long as the disk takes;
/// from asynchronous code use something like `spawn_blocking`.
///
/// ```
/// use slotlog::Store;
///
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("app.slotlog");
/// let store = Store::open(&path)?;
/// store.insert("hello", "world")?;
/// store.close()?;
///
/// let store = Store::open(&path)?;
/// assert_eq!(store.get("hello")?.as_deref(), Some(&b"world"[..]));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Store {
    /// Before the engine, so that the thread ends before the store is closed.
    background: Option<Arc<Background>>,
    pub(crate) source: Source,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("path", &self.engine().mapping.path()).finish_non_exhaustive()
    }
}

impl Options {
    /// Opens the store at `path`.
    ///
    /// After a [close](Store::close) or a kill this takes constant time. After a power cut, or for a file that was
    /// copied while its store was open, the index is rebuilt, in one pass over the log to find its end and one to read
    /// its keys.
    ///
    /// A store can be created wherever a file can: through a dangling link (not with
    /// [`create_new`](Options::create_new), for which a link is something that exists), in a folder that can be written
    /// but not read, in an empty file without a name (`O_TMPFILE`, `memfd_create`) by its path `/proc/self/fd/N`. When
    /// this returns, the new file survives a power cut, and so does its entry in the folder, unless the system refuses
    /// to flush the folder: because the folder is unreadable, or its file system has no such call. A failed opening
    /// leaves no new file.
    ///
    /// # Errors
    /// * [`NotFound`](crate::Error::NotFound), [`AlreadyExists`](crate::Error::AlreadyExists),
    ///   [`NotAFile`](crate::Error::NotAFile), [`PermissionDenied`](crate::Error::PermissionDenied),
    ///   [`Io`](crate::Error::Io): the path does not lead to a file that can be opened in this way.
    /// * [`NotAStore`](crate::Error::NotAStore), [`UnsupportedVersion`](crate::Error::UnsupportedVersion),
    ///   [`UnsupportedFeature`](crate::Error::UnsupportedFeature): this build cannot read the file. It was not touched.
    /// * [`Locked`](crate::Error::Locked): an incompatible opener has the store, and the error names it: one that is
    ///   [exclusive](Options::exclusive) or on another machine; a writer, for
    ///   [`Access::CopyOnWrite`](crate::Access::CopyOnWrite), and vice versa. Also if the index has to be rebuilt while
    ///   a reader has the store open.
    /// * [`ProcessesExhausted`](crate::Error::ProcessesExhausted): many openers write to the store, and the file has no
    ///   room to go beyond 128, 256, 512 … of them.
    /// * [`Truncated`](crate::Error::Truncated), [`Corrupt`](crate::Error::Corrupt): the file is damaged.
    /// * [`Full`](crate::Error::Full): there is no room for an empty store, or for the index in a recovery; or the disk
    ///   has no space to fill a hole of a sparse copy that must be written to.
    pub fn open(self, path: impl AsRef<Path>) -> Result<Store> {
        Store::open_with(Some(path.as_ref()), self.settings)
    }

    /// Makes an empty store in memory, with nothing on disk. It vanishes with its last handle.
    ///
    /// Options about the file and about other openers have no effect.
    ///
    /// ```
    /// use slotlog::{Error, Store};
    ///
    /// let cache = Store::options().max_size(1 << 20).initial_capacity(1000).in_memory()?;
    /// cache.insert("key", "value")?;
    /// assert!(matches!(cache.insert("large", vec![0; 2 << 20]), Err(Error::Full { .. })));
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Full`](crate::Error::Full) if [`max_size`](Options::max_size) does not even allow an empty store, or the
    /// system has no address space for it; [`InvalidOptions`](crate::Error::InvalidOptions) for
    /// [`Access::ReadOnly`](crate::Access::ReadOnly).
    pub fn in_memory(self) -> Result<Store> {
        Store::open_with(None, self.settings)
    }
}

impl Store {
    /// Opens the store at `path` for reading and writing, and creates it if it is missing: [`Store::options`] with its
    /// defaults.
    ///
    /// ```
    /// use slotlog::Store;
    ///
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("app.slotlog");
    /// let store = Store::open(&path)?;
    /// store.insert("hello", "world")?;
    /// let other = Store::open(&path)?;
    /// assert_eq!(other.get("hello")?.as_deref(), Some(&b"world"[..]));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`Options::open`].
    pub fn open(path: impl AsRef<Path>) -> Result<Store> {
        Store::options().open(path)
    }

    /// Options for opening a store.
    ///
    /// ```
    /// use slotlog::Store;
    ///
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("app.slotlog");
    /// let missing = Store::options().create(false).open(&path);
    /// assert!(matches!(missing, Err(slotlog::Error::NotFound { .. })));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn options() -> Options {
        Options::default()
    }

    /// A store in memory, with nothing on disk. It vanishes with its last handle. [`Options::in_memory`] takes options
    /// as well.
    ///
    /// ```
    /// let store = slotlog::Store::in_memory()?;
    /// store.insert("key", "value")?;
    /// assert_eq!(store.len()?, 1);
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Full`](crate::Error::Full) if the system has no address space for it.
    pub fn in_memory() -> Result<Store> {
        Store::options().in_memory()
    }

    /// At a path, or in memory.
    pub(crate) fn open_with(path: Option<&Path>, settings: Settings) -> Result<Store> {
        let wants_background = settings.background_maintenance && settings.access != crate::Access::ReadOnly;
        let source = Source::new(match path {
            Some(path) => Engine::open(path, settings)?,
            None => Engine::in_memory(settings)?,
        });
        let background = if wants_background { Some(Arc::new(Background::start(&source.engine())?)) } else { None };
        Ok(Store { background, source })
    }

    /// The value of a key, copied. It reads one index line and one record: two cache misses when cold.
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// assert_eq!(store.get("key")?, None);
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Corrupt`](crate::Error::Corrupt) if the file is damaged; [`PinsExhausted`](crate::Error::PinsExhausted) if
    /// all pins are taken and there is no room for more.
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Vec<u8>>> {
        self.get_with(key, <[u8]>::to_vec)
    }

    /// Applies `f` to the value of a key in place, without a copy, and returns its result.
    ///
    /// `f` may read from the store. While it runs, no space that it can see is reused. With
    /// [`Access::ReadOnly`](crate::Access::ReadOnly), `f` gets a copy.
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// store.insert("key", "value")?;
    /// assert_eq!(store.get_with("key", |value| value.len())?, Some(5));
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`get`](Store::get).
    ///
    /// # Panics
    /// Only if `f` does.
    #[inline]
    pub fn get_with<R>(&self, key: impl AsRef<[u8]>, f: impl FnOnce(&[u8]) -> R) -> Result<Option<R>> {
        self.source.read(DEFAULT_MAP, key.as_ref(), |value, _| f(value))
    }

    /// Whether a key has a value.
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// store.insert("colour", "green")?;
    /// assert!(store.contains_key("colour")?);
    /// assert!(!store.contains_key("size")?);
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`get`](Store::get).
    pub fn contains_key(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        Ok(self.get_with(key, |_| ())?.is_some())
    }

    /// Sets the value of a key: one append to the log.
    ///
    /// Once this returns, the change survives the death of the process, and with
    /// [`Durability::Synced`](crate::Durability::Synced) a power cut.
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// store.insert("key", "one")?;
    /// store.insert("key", "two")?;
    /// assert_eq!(store.get("key")?.as_deref(), Some(&b"two"[..]));
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`KeyTooLong`](crate::Error::KeyTooLong), [`ValueTooLong`](crate::Error::ValueTooLong),
    /// [`Full`](crate::Error::Full), [`ReadOnly`](crate::Error::ReadOnly), [`LockTimeout`](crate::Error::LockTimeout),
    /// [`WouldDeadlock`](crate::Error::WouldDeadlock), [`Corrupt`](crate::Error::Corrupt): nothing has changed.
    /// [`Io`](crate::Error::Io) or [`Poisoned`](crate::Error::Poisoned) if the change was to be synced and a flush
    /// failed, now or earlier: the change may be there, but may not survive a power cut.
    pub fn insert(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<()> {
        self.source.insert(DEFAULT_MAP, key.as_ref(), value.as_ref(), None)
    }

    /// Sets the value of a key until a deadline: from `at` on, by the reader's clock, the key counts as absent. See
    /// [`Map::insert_with_expiry`](crate::Map::insert_with_expiry).
    ///
    /// ```
    /// use std::time::{Duration, SystemTime};
    ///
    /// # let store = slotlog::Store::in_memory()?;
    /// store.insert_with_expiry("page", "…", SystemTime::now() + Duration::from_secs(60))?;
    /// assert!(store.contains_key("page")?);
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`insert`](Store::insert).
    pub fn insert_with_expiry(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>, at: SystemTime) -> Result<()> {
        self.source.insert(DEFAULT_MAP, key.as_ref(), value.as_ref(), Some(at))
    }

    /// When the value of a key expires: `None` if it has no value.
    ///
    /// ```
    /// use std::time::{Duration, SystemTime};
    ///
    /// # let store = slotlog::Store::in_memory()?;
    /// let in_2100 = SystemTime::UNIX_EPOCH + Duration::from_secs(4_102_444_800);
    /// store.insert_with_expiry("token", "7", in_2100)?;
    /// store.insert("service", "8")?;
    /// assert_eq!(store.expiry("token")?, Some(slotlog::Expiry::At(in_2100)));
    /// assert_eq!(store.expiry("service")?, Some(slotlog::Expiry::Never));
    /// assert_eq!(store.expiry("nobody")?, None);
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`get`](Store::get).
    pub fn expiry(&self, key: impl AsRef<[u8]>) -> Result<Option<Expiry>> {
        self.source.read(DEFAULT_MAP, key.as_ref(), |_, expires| Expiry::of_record(expires))
    }

    /// Changes when the value of a key expires, and returns whether the key has a value. The value stays the same; the
    /// log gets a copy of it, since a record there never changes.
    ///
    /// ```
    /// use std::time::{Duration, SystemTime};
    /// use slotlog::Expiry;
    ///
    /// # let store = slotlog::Store::in_memory()?;
    /// store.insert_with_expiry("session", "7", SystemTime::now() + Duration::from_secs(60))?;
    /// assert!(store.set_expiry("session", SystemTime::now() + Duration::from_secs(3600))?);
    /// assert!(store.set_expiry("session", Expiry::Never)?);
    /// assert!(!store.set_expiry("nobody", Expiry::Never)?);
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`insert`](Store::insert).
    pub fn set_expiry(&self, key: impl AsRef<[u8]>, when: impl Into<Expiry>) -> Result<bool> {
        self.engine().set_expiry(DEFAULT_MAP, key.as_ref(), when.into().to_record())
    }

    /// Removes a key and returns whether it was there. If not, nothing is written. This works on a full store too.
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// store.insert("key", "value")?;
    /// assert!(store.remove("key")?);
    /// assert!(!store.remove("key")?);
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`insert`](Store::insert).
    pub fn remove(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        self.source.remove(DEFAULT_MAP, key.as_ref())
    }

    /// The number of keys, in constant time. It is a counter and does not depend on the clock: entries that have
    /// [expired](Store::insert_with_expiry) count until compaction removes them, although reads no longer see them.
    /// Only a pass over the entries tells how many can be read;
    /// [`MapStats::expired_bytes`](crate::MapStats::expired_bytes) estimates how much has expired.
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// store.insert("Ada", "36")?;
    /// store.insert("Grace", "85")?;
    /// store.insert("Ada", "37")?;
    /// assert_eq!(store.len()?, 2);
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`get`](Store::get).
    pub fn len(&self) -> Result<u64> {
        self.engine().len(DEFAULT_MAP)
    }

    /// Whether [`len`](Store::len) is zero. Expired entries that were not removed yet count.
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// assert!(store.is_empty()?);
    /// store.insert("Ada", "36")?;
    /// assert!(!store.is_empty()?);
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`get`](Store::get).
    pub fn is_empty(&self) -> Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Removes all keys with one record in the log, whatever their number. Existing snapshots keep them.
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// store.insert("Ada", "36")?;
    /// let before = store.snapshot()?;
    /// store.clear()?;
    /// assert!(store.is_empty()?);
    /// assert_eq!(before.get("Ada")?, Some(&b"36"[..]));
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`insert`](Store::insert).
    pub fn clear(&self) -> Result<()> {
        self.engine().clear(DEFAULT_MAP)
    }

    /// The store as it is now, for as long as the snapshot lives. See [`Snapshot`].
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// store.insert("colour", "green")?;
    /// let snapshot = store.snapshot()?;
    /// store.insert("colour", "red")?;
    /// assert_eq!(snapshot.get("colour")?, Some(&b"green"[..]));
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`get`](Store::get).
    pub fn snapshot(&self) -> Result<Snapshot> {
        Snapshot::new(&self.engine())
    }

    /// Begins a transaction: many changes in one commit. It holds the writer lock until it is committed or dropped. See
    /// [`Transaction`].
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// let mut transfer = store.begin()?;
    /// transfer.insert("Ada", "90")?;
    /// transfer.insert("Bob", "110")?;
    /// assert!(store.is_empty()?);
    /// transfer.commit()?;
    /// assert_eq!(store.len()?, 2);
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`ReadOnly`](crate::Error::ReadOnly), [`LockTimeout`](crate::Error::LockTimeout),
    /// [`WouldDeadlock`](crate::Error::WouldDeadlock) if this thread already has one open,
    /// [`Corrupt`](crate::Error::Corrupt).
    pub fn begin(&self) -> Result<Transaction> {
        Transaction::begin(&self.engine())
    }

    #[inline(always)]
    pub(crate) fn engine(&self) -> EngineRef<'_> {
        self.source.engine()
    }

    /// The sequence number of the last visible commit: the starting point for
    /// [`wait_for_change`](Store::wait_for_change) and [`changes_since`](Store::changes_since). It only increases, and
    /// may skip numbers.
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// let before = store.seq()?;
    /// store.insert("job", "wash")?;
    /// assert!(store.seq()? > before);
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Forked`](crate::Error::Forked).
    pub fn seq(&self) -> Result<Seq> {
        self.engine().check_not_forked()?;
        self.engine().visible()
    }

    /// Waits until a commit newer than `seq` is visible, made by any process, and returns whether there is one; `false`
    /// after `timeout`.
    ///
    /// The thread sleeps, and the writer wakes it; with [`Access::ReadOnly`](crate::Access::ReadOnly), and where the
    /// system cannot wake other processes, it polls every few milliseconds. Writers make no system call for this while
    /// no thread waits.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// # let store = slotlog::Store::in_memory()?;
    /// let mut seen = store.seq()?;
    /// store.insert("job", "1")?;
    /// while store.wait_for_change(seen, Duration::from_millis(10))? {
    ///     let changes = store.changes_since(seen)?;
    ///     for change in &changes {
    ///         println!("{:?}", change?.kind);
    ///     }
    ///     seen = changes.seq();
    /// }
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Forked`](crate::Error::Forked).
    pub fn wait_for_change(&self, seq: impl Into<Seq>, timeout: Duration) -> Result<bool> {
        self.source.wait_for_change(seq.into(), timeout)
    }

    /// What was committed to the default map after `seq`, up to now, oldest first, straight from the log: every change
    /// of each key, not only the last one, including the removal of expired entries. (For another map:
    /// [`Map::changes_since`](crate::Map::changes_since).) It takes time proportional to what was written since, give
    /// or take an extent of the log (one sixteenth of the file).
    ///
    /// ```
    /// use slotlog::ChangeKind::Insert;
    ///
    /// # let store = slotlog::Store::in_memory()?;
    /// let seen = store.seq()?;
    /// store.insert("job", "wash")?;
    /// store.insert("job", "dry")?;
    /// let changes = store.changes_since(seen)?;
    /// let kinds = changes.iter().map(|change| Ok(change?.kind)).collect::<slotlog::Result<Vec<_>>>()?;
    /// assert_eq!(kinds, [Insert { key: b"job", value: b"wash" }, Insert { key: b"job", value: b"dry" }]);
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// The log reaches back as far as nothing was compacted: by a write that cleans a piece of it
    /// ([`auto_compact`](crate::Options::auto_compact)), by [`compact`](Store::compact), or by the last process to
    /// [close](Store::close) a small store. With `auto_compact(None)` only [`compact`](Store::compact) shortens it.
    ///
    /// # Errors
    /// [`HistoryTruncated`](crate::Error::HistoryTruncated) if the log does not reach back that far, or `seq` belongs
    /// to a commit that a power cut has undone; [`Corrupt`](crate::Error::Corrupt);
    /// [`PinsExhausted`](crate::Error::PinsExhausted).
    pub fn changes_since(&self, seq: impl Into<Seq>) -> Result<Changes> {
        Changes::new(Arc::clone(&self.engine()), DEFAULT_MAP, seq.into())
    }

    /// The path that the store was opened by, as it was given; `None` for a store in memory.
    ///
    /// ```
    /// use slotlog::Store;
    ///
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("app.slotlog");
    /// assert_eq!(Store::open(&path)?.path(), Some(path));
    /// assert_eq!(Store::in_memory()?.path(), None);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn path(&self) -> Option<PathBuf> {
        let engine = self.engine();
        engine.mapping.file_behind().map(|_| engine.mapping.path().to_owned())
    }

    /// The state in which the store was found when it was opened, and so what opening had to do. It never changes, even
    /// for a reader that [follows](crate::Access::ReadOnly) a writer after a power cut.
    ///
    /// ```
    /// use slotlog::{Opened, Store};
    ///
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("app.slotlog");
    /// let store = Store::open(&path)?;
    /// assert_eq!(store.opened(), Opened::Created);
    /// assert_eq!(Store::open(&path)?.opened(), Opened::Attached);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn opened(&self) -> Opened {
        self.source.opened()
    }

    /// Gives up this handle and reports errors.
    ///
    /// * If it was the last [handle](Store::handles) of this process, the file is no longer open here. If no other
    ///   process has it open for writing either, the store is closed: everything is flushed, and the next opener has
    ///   nothing to do.
    /// * If other handles remain, in a [`Map`](crate::Map), a [`Snapshot`] or a clone, this takes a
    ///   [checkpoint](Store::checkpoint), `Ok` means that it succeeded, and *the file stays open* until the last of
    ///   them is gone. Where that is not acceptable, call [`close_last`](Store::close_last).
    ///
    /// Closing cuts off the free space at the end of the file, and [compacts](Store::compact) a store with at most 8
    /// MiB in use if its file is longer by an eighth than necessary, unless
    /// [`auto_compact`](crate::Options::auto_compact) is `None`; its indexes keep room for a quarter more keys. So
    /// closing takes bounded time besides the flush. Like any compaction, this can shorten the reach of
    /// [`changes_since`](Store::changes_since).
    ///
    /// ```
    /// use slotlog::{Opened, Store};
    ///
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("app.slotlog");
    /// let store = Store::open(&path)?;
    /// store.insert("hello", "world")?;
    /// store.close()?;
    /// assert_eq!(Store::open(&path)?.opened(), Opened::Clean);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`sync`](Store::sync). Dropping the last handle does the same but cannot report errors.
    pub fn close(self) -> Result<()> {
        self.give_up().map(drop)
    }

    /// [Closes](Store::close) the store and makes sure that it is no longer open in this process: that this was its
    /// last handle.
    ///
    /// ```
    /// use slotlog::{Error, Store};
    ///
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("app.slotlog");
    /// let store = Store::open(&path)?;
    /// let ages = store.map::<str, u32>("ages")?;
    /// let before = store.snapshot()?;
    /// let forgotten = store.close_last();
    /// assert!(matches!(forgotten, Err(Error::StillOpen { handles: 2, .. })), "the map and the snapshot");
    ///
    /// // Every other handle goes first.
    /// let store = Store::open(&path)?;
    /// drop((ages, before));
    /// store.close_last()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`StillOpen`](crate::Error::StillOpen) if there are other handles: a checkpoint was taken, this handle is gone,
    /// and the file stays open until the others are. Of several threads that close the last handles at the same time,
    /// exactly one does not get this error. Those of [`sync`](Store::sync).
    pub fn close_last(self) -> Result<()> {
        let path = self.engine().mapping.path().to_owned();
        match self.give_up()? {
            0 => Ok(()),
            handles => Err(Error::StillOpen { path, handles }),
        }
    }

    /// The number of handles of the store in this process, including this one: [`Store`]s, [`Map`](crate::Map)s,
    /// [`Snapshot`]s, transactions and iterators, and anything else that keeps the file open. [`Store::open`] of the
    /// same path makes another store with handles of its own.
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// assert_eq!(store.handles(), 1);
    /// let other = store.clone();
    /// let snapshot = store.snapshot()?;
    /// let transaction = store.begin()?;
    /// assert_eq!(store.handles(), 4);
    /// drop((other, snapshot, transaction));
    /// assert_eq!(store.handles(), 1);
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    pub fn handles(&self) -> usize {
        let of_background = if self.background.is_some() { background::REFERENCES } else { 0 };
        self.source.handles() - of_background
    }

    /// Gives up this handle and returns how many others there are: zero if the store was closed. Of several threads
    /// that give up the last handles at the same time, exactly one closes the store.
    fn give_up(self) -> Result<usize> {
        self.engine().check_not_forked()?;
        let others = self.handles() - 1;
        drop(self.background);
        match self.source {
            Source::Lasting(engine) => close(engine, others),
            // It only reads, so there is nothing to make durable.
            Source::Following(following) => {
                Ok(Arc::into_inner(following).map_or(others.max(1), |following| following.users()))
            }
        }
    }
}

/// Gives up a reference to an engine, of which `others` remain, and returns how many still do. Of several threads that
/// do so at the same time, exactly one closes it.
fn close(engine: Arc<Engine>, others: usize) -> Result<usize> {
    if Arc::strong_count(&engine) > 1 {
        engine.checkpoint()?;
    }
    // The others may be gone by now.
    match Arc::into_inner(engine) {
        Some(engine) => engine.close().map(|()| 0),
        None => Ok(others.max(1)),
    }
}
