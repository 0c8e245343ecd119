//! The store itself.

use std::fmt;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::background::{self, Background};
use crate::codec::Codec;
use crate::engine::Engine;
use crate::engine::expiry::deadline;
use crate::engine::recovery::Opened;
use crate::engine::settings::Settings;
use crate::engine::verify::{VerifyProgress, VerifyReport};
use crate::file::layout::DEFAULT_MAP;
use crate::source::{EngineRef, Source};
use crate::{
    Changes, CompactProgress, CompactReport, Error, Map, MapInfo, Options, Result, Snapshot, Stats, Transaction,
};

/// An open store: a persistent map from byte strings to byte strings.
///
/// A handle is cheap to clone, and all clones are one store. It can be used from any number of threads, and other
/// processes may have the same file open: reads take no lock and never wait; changes take turns. When the last handle,
/// snapshot and transaction are gone the store is closed; [`close`](Store::close) does the same and can report what
/// went wrong.
///
/// Each call is atomic, and one that changes something is a commit of its own. Every call may block for as long as the
/// disk takes; from asynchronous code use something like `spawn_blocking`.
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
    source: Source,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("path", &self.engine().region.path()).finish_non_exhaustive()
    }
}

impl Store {
    /// Opens the store at `path` for reading and writing, and creates it if it is missing: [`Store::options`] with
    /// everything at its default.
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

    /// Begins to say how a store is to be opened.
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

    /// A store in memory, with nothing on disk. It vanishes with its last handle. [`Options::in_memory`] makes one with
    /// settings.
    ///
    /// ```
    /// let store = slotlog::Store::in_memory()?;
    /// store.insert("key", "value")?;
    /// assert_eq!(store.len()?, 1);
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Full`](crate::Error::Full) if the system gives no addresses for it.
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

    /// The value of a key, copied. One index line and one record are read: two cache misses if they are cold.
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

    /// What `f` makes of the value of a key, which it sees in place, without a copy.
    ///
    /// `f` may read from the store. Space that the store has moved on from is not reused while it runs. With
    /// [`Access::ReadOnly`](crate::Access::ReadOnly) `f` sees a copy.
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
    /// When this returns, the change survives the death of the process, and with
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
    /// [`WouldDeadlock`](crate::Error::WouldDeadlock), [`Corrupt`](crate::Error::Corrupt): nothing has happened.
    /// [`Io`](crate::Error::Io) or [`Poisoned`](crate::Error::Poisoned) if the change was to be synced and a flush has
    /// failed, now or before: it may be there, but may not survive a power cut.
    pub fn insert(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<()> {
        self.engine().put(DEFAULT_MAP, key.as_ref(), value.as_ref(), None)
    }

    /// Sets the value of a key for a time: from `at` on, by the clock of whoever looks, it counts as absent. See
    /// [`Map::insert_with_expiry`].
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
        self.engine().put(DEFAULT_MAP, key.as_ref(), value.as_ref(), Some(deadline(at)))
    }

    /// When the value of a key expires: `None` if it has none, `Some(None)` if never.
    ///
    /// ```
    /// use std::time::{Duration, SystemTime};
    ///
    /// # let store = slotlog::Store::in_memory()?;
    /// let in_2100 = SystemTime::UNIX_EPOCH + Duration::from_secs(4_102_444_800);
    /// store.insert_with_expiry("token", "7", in_2100)?;
    /// store.insert("service", "8")?;
    /// assert_eq!(store.expiry("token")?, Some(Some(in_2100)));
    /// assert_eq!(store.expiry("service")?, Some(None));
    /// assert_eq!(store.expiry("nobody")?, None);
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`get`](Store::get).
    pub fn expiry(&self, key: impl AsRef<[u8]>) -> Result<Option<Option<SystemTime>>> {
        self.source.read(DEFAULT_MAP, key.as_ref(), |_, expires| expires.map(crate::engine::time))
    }

    /// Removes a key, and says whether it was there. If it was not, nothing is written. A full store can still do this.
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
        self.engine().remove(DEFAULT_MAP, key.as_ref())
    }

    /// How many keys there are. Takes constant time: it is a counter, and counters know nothing of time, so entries
    /// that have [expired](Store::insert_with_expiry) count until compaction removes them, though nobody sees them any
    /// more. How many there are that can be read, only a pass over them tells; about how much has expired,
    /// [`MapStats::expired_bytes`](crate::MapStats::expired_bytes).
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

    /// Whether [`len`](Store::len) is zero. Entries that have expired and were not removed yet count.
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

    /// Removes all keys: one record in the log, whatever their number. Snapshots keep what they see.
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

    /// The store as it is now, for as long as you like. See [`Snapshot`].
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
    /// [`WouldDeadlock`](crate::Error::WouldDeadlock) if this thread has one open already,
    /// [`Corrupt`](crate::Error::Corrupt).
    pub fn begin(&self) -> Result<Transaction> {
        Transaction::begin(&self.engine())
    }

    #[inline(always)]
    pub(crate) fn source(&self) -> &Source {
        &self.source
    }

    #[inline(always)]
    pub(crate) fn engine(&self) -> EngineRef<'_> {
        self.source.engine()
    }

    /// Opens the map of this name, with keys of type `K` and values of type `V`, and creates it if it is missing. See
    /// [`Map`], and [`Codec`] for the types that there are.
    ///
    /// Each map has its own index and takes 4 KiB and a few bytes when it is empty, so there may be thousands. Opening
    /// one is one lookup. The map without a name, that of [`get`](Store::get) and [`insert`](Store::insert), is not
    /// among them.
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// let ports = store.map::<str, u16>("ports")?;
    /// ports.insert("http", 80)?;
    /// assert_eq!(ports.get("http")?, Some(80));
    ///
    /// let wrong = store.map::<str, u32>("ports");
    /// assert!(matches!(wrong, Err(slotlog::Error::TypeMismatch { .. })));
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Other types
    ///
    /// The file knows the types of a map by [their names](Codec::name), and a [version](Store::map_versioned) that you
    /// give. To go over to other types, move the map to a new one and give that the old name; readers see either.
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// # store.map::<str, u16>("ports")?.insert("http", 80)?;
    /// let old = store.map::<str, u16>("ports")?;
    /// let new = store.map_versioned::<str, (u16, String)>("ports.new", 1)?;
    /// for entry in old.iter()? {
    ///     let (name, port) = entry?;
    ///     new.insert(name, (port, "tcp".to_owned()))?;
    /// }
    /// store.rename_map("ports.new", "ports")?;
    ///
    /// let ports = store.map_versioned::<str, (u16, String)>("ports", 1)?;
    /// assert_eq!(ports.get("http")?, Some((80, "tcp".to_owned())));
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`TypeMismatch`](crate::Error::TypeMismatch) if the map has other types;
    /// [`InvalidName`](crate::Error::InvalidName) if the name is empty; [`NoSuchMap`](crate::Error::NoSuchMap) if it is
    /// missing and the store was opened for reading; when it is created, those of [`insert`](Store::insert).
    pub fn map<K: Codec + ?Sized, V: Codec + ?Sized>(&self, name: &str) -> Result<Map<K, V>> {
        self.map_versioned(name, 0)
    }

    /// [Opens a map](Store::map) whose types have a version besides their names: for codecs whose names say nothing of
    /// the fields of a type, like [`Pod`](crate::Pod) and `Serde`.
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// let ports = store.map_versioned::<str, u16>("ports", 1)?;
    /// ports.insert("http", 80)?;
    /// assert_eq!(store.map_versioned::<str, u16>("ports", 1)?.get("http")?, Some(80));
    ///
    /// let wrong = store.map_versioned::<str, u16>("ports", 2);
    /// assert!(matches!(wrong, Err(slotlog::Error::TypeMismatch { .. })));
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`map`](Store::map).
    pub fn map_versioned<K: Codec + ?Sized, V: Codec + ?Sized>(&self, name: &str, version: u32) -> Result<Map<K, V>> {
        Map::open(self, name, version)
    }

    /// The named maps that there are, sorted by name.
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// store.map::<str, u16>("ports")?;
    /// let maps = store.maps()?;
    /// assert_eq!((maps[0].name.as_str(), maps[0].types.as_str()), ("ports", "str -> u16"));
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`get`](Store::get).
    pub fn maps(&self) -> Result<Vec<MapInfo>> {
        let maps = self.engine().named_maps()?.into_iter();
        let mut maps: Vec<MapInfo> =
            maps.map(|(name, map)| MapInfo { name, types: map.types, version: map.version }).collect();
        maps.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(maps)
    }

    /// Removes a map with all that it has, whatever its types, and says whether it was there. One commit. Snapshots
    /// keep what they see; a [`Map`] that somebody still holds reads as empty, and writing to it is
    /// [`NoSuchMap`](crate::Error::NoSuchMap).
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// let ports = store.map::<str, u16>("ports")?;
    /// ports.insert("http", 80)?;
    /// assert!(store.drop_map("ports")?);
    /// assert!(!store.drop_map("ports")?);
    /// assert_eq!(ports.get("http")?, None);
    /// assert!(matches!(ports.insert("http", 80), Err(slotlog::Error::NoSuchMap { .. })));
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`insert`](Store::insert).
    pub fn drop_map(&self, name: &str) -> Result<bool> {
        Ok(!name.is_empty() && self.engine().drop_named(name)?)
    }

    /// Gives the map `from` the name `to`, and says whether it was there. A map that had that name is dropped. One
    /// commit.
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// store.map::<str, u16>("prots")?.insert("http", 80)?;
    /// assert!(store.rename_map("prots", "ports")?);
    /// assert!(!store.rename_map("prots", "ports")?);
    /// assert_eq!(store.map::<str, u16>("ports")?.get("http")?, Some(80));
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`insert`](Store::insert); [`InvalidName`](crate::Error::InvalidName) if `to` is empty or too long.
    pub fn rename_map(&self, from: &str, to: &str) -> Result<bool> {
        self.engine().check_name(to)?;
        Ok(!from.is_empty() && self.engine().rename_map(from, to)?)
    }

    /// Makes everything that is committed survive a power cut: one flush of what of the log is not flushed yet. Threads
    /// that call this at the same time share one.
    ///
    /// ```
    /// # let folder = tempfile::tempdir()?;
    /// # let store = slotlog::Store::open(folder.path().join("orders.slotlog"))?;
    /// store.insert("order 1", "tea")?;
    /// store.insert("order 2", "cake")?;
    /// store.sync()?;                                         // from here on both survive a power cut
    /// assert_eq!(store.len()?, 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Io`](crate::Error::Io) if the flush fails. After that, in all processes and until all have closed the store,
    /// [`Poisoned`](crate::Error::Poisoned): a second flush would succeed, and say nothing of what the first has lost.
    pub fn sync(&self) -> Result<()> {
        self.engine().sync()
    }

    /// [Syncs](Store::sync), and writes down how far the log is durable, so that less than that is recognised as
    /// damage. Writers go on meanwhile. Taken by itself every [`checkpoint_every`](Options::checkpoint_every) bytes.
    ///
    /// ```
    /// # let folder = tempfile::tempdir()?;
    /// # let store = slotlog::Store::open(folder.path().join("orders.slotlog"))?;
    /// store.insert("order 1", "tea")?;
    /// assert!(store.stats()?.since_checkpoint > 0);
    /// store.checkpoint()?;
    /// assert_eq!(store.stats()?.since_checkpoint, 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`sync`](Store::sync).
    pub fn checkpoint(&self) -> Result<()> {
        self.engine().checkpoint()
    }

    /// Makes the file as small as it can be, while others read and write: the values that are left and the indexes move
    /// to its beginning, the indexes are made to fit, and the file is cut off at its end. Takes time in proportion to
    /// what is left, and keeps no writer waiting for more than about a millisecond, a checkpoint excepted. The next
    /// writes make the file a little longer again.
    ///
    /// Killed or stopped ([`compact_with`](Store::compact_with)) it loses nothing, and another call goes on from there.
    /// What snapshots still see stays, and is [held back](CompactReport::held_back) until they are gone. As long as
    /// somebody has the store open with [`Access::ReadOnly`](crate::Access::ReadOnly), the file does not get shorter.
    ///
    /// ```
    /// # let folder = tempfile::tempdir()?;
    /// # let store = slotlog::Store::open(folder.path().join("store"))?;
    /// for number in 0..20_000u32 {
    ///     store.insert(number.to_le_bytes(), [7; 100])?;
    /// }
    /// store.clear()?;
    /// let report = store.compact()?;
    /// assert!(report.finished && report.file_len < 300_000 && report.freed_bytes > 2_000_000);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`ReadOnly`](crate::Error::ReadOnly); [`Full`](crate::Error::Full) if there is no room to move even a part;
    /// [`Corrupt`](crate::Error::Corrupt) if a record is damaged, which is then not moved; those of
    /// [`checkpoint`](Store::checkpoint).
    pub fn compact(&self) -> Result<CompactReport> {
        self.compact_with(|_| ControlFlow::Continue(()))
    }

    /// [Compacts](Store::compact), and asks `on_progress` now and then whether to go on.
    ///
    /// ```
    /// use std::ops::ControlFlow;
    ///
    /// # let store = slotlog::Store::in_memory()?;
    /// let report = store.compact_with(|progress| {
    ///     println!("round {}: {} of {} bytes", progress.round, progress.done, progress.total);
    ///     ControlFlow::Continue(())
    /// })?;
    /// assert!(report.finished);
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`compact`](Store::compact).
    ///
    /// # Panics
    /// Only if `on_progress` does.
    pub fn compact_with(
        &self,
        mut on_progress: impl FnMut(CompactProgress) -> ControlFlow<()>,
    ) -> Result<CompactReport> {
        self.engine().compact(&mut on_progress)
    }

    /// Does upkeep that is pending, in this thread and for about as long as `budget`: moves a resize on, cleans the log
    /// if more of it is dead than [shall be](Options::auto_compact), takes a checkpoint that is due, makes the file
    /// shorter; and [compacts](Store::compact) a store of which most is free. Says whether there is more to do. What is
    /// done here, writers need not do; others can write in between.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// # let store = slotlog::Store::in_memory()?;
    /// while store.maintain(Duration::from_millis(5))? {}
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`LockTimeout`](crate::Error::LockTimeout), [`WouldDeadlock`](crate::Error::WouldDeadlock),
    /// [`Corrupt`](crate::Error::Corrupt), those of [`checkpoint`](Store::checkpoint). With
    /// [`Access::ReadOnly`](crate::Access::ReadOnly) there is nothing to do.
    pub fn maintain(&self, budget: Duration) -> Result<bool> {
        self.engine().maintain(budget, self.engine().settings.lock_timeout)
    }

    /// Gives the space of everything that is free in the file back to the file system, and says how many bytes. What
    /// lies at the end makes the file shorter; what lies in the middle becomes a hole, where system and file system
    /// know that (Linux: ext4, xfs, btrfs, tmpfs), and gets real space again before it is used. Takes a system call for
    /// each hole.
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// let given_back = store.release_free_space()?;
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`ReadOnly`](crate::Error::ReadOnly), [`LockTimeout`](crate::Error::LockTimeout),
    /// [`WouldDeadlock`](crate::Error::WouldDeadlock), [`Io`](crate::Error::Io).
    pub fn release_free_space(&self) -> Result<u64> {
        self.engine().release_free_space()
    }

    /// The sequence number of the last visible commit: what [`wait_for_change`](Store::wait_for_change) and
    /// [`changes_since`](Store::changes_since) go on from. It only goes up, and a commit may skip numbers.
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
    pub fn seq(&self) -> Result<u64> {
        self.engine().check_not_forked()?;
        self.engine().visible()
    }

    /// Waits until a commit is visible that is newer than `seq`, made by any process, and says whether there is one;
    /// `false` after `timeout`.
    ///
    /// The thread sleeps, and the writer wakes it; with [`Access::ReadOnly`](crate::Access::ReadOnly), and where the
    /// system cannot wake other processes, it looks every few milliseconds. Writers make no system call for this as
    /// long as nobody waits.
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
    pub fn wait_for_change(&self, seq: u64, timeout: Duration) -> Result<bool> {
        self.source.wait_for_change(seq, timeout)
    }

    /// What was committed after `seq`, up to now, to the map without a name, oldest first, straight from the log: each
    /// change of each key, not only the last one; the removal of what has expired is one, too. (Of another map:
    /// [`Map::changes_since`].) Takes time in proportion to what was written since, give or take an extent of the log
    /// (one sixteenth of the file).
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
    /// The log goes back as far as nothing was compacted: by a write that cleans a piece of it
    /// ([`auto_compact`](crate::Options::auto_compact)), by [`compact`](Store::compact), or when the last one
    /// [closed](Store::close) a small store. With `auto_compact(None)` only [`compact`](Store::compact) shortens it.
    ///
    /// # Errors
    /// [`HistoryTruncated`](crate::Error::HistoryTruncated) if the log does not go back that far, or `seq` is of a
    /// commit that a power cut has undone; [`Corrupt`](crate::Error::Corrupt);
    /// [`PinsExhausted`](crate::Error::PinsExhausted).
    pub fn changes_since(&self, seq: u64) -> Result<Changes> {
        Changes::new(Arc::clone(&self.engine()), DEFAULT_MAP, seq)
    }

    /// Checks the whole file: superblocks, extents, every record of the log, every slot of every index, and the
    /// counters. Damage is a finding of the report, not an error. It takes one pass over the log and one over the
    /// indexes.
    ///
    /// Others can read and write meanwhile; nobody waits for more than a slice of the check (256 KiB of log, or 4,096
    /// slots). What is checked depends on whether somebody does write, and [`VerifyReport::scope`] says which it was:
    ///
    /// * *Nobody writes:* all of it, as the list above says, and what compaction has left in front of the log that a
    ///   recovery may still need, and an index that is being built.
    /// * *Somebody writes, in whatever process:* one commit, as a [`Snapshot`] of it would see it. Every record of its
    ///   log is there with its checksum, in the order of the log; every key leads to its record and every slot to a
    ///   record of the log; the counters of maps and log are those of that commit, unless two more commits came before
    ///   they could be read. The superblocks are checked, too; the tables of extents and maps are if there is a moment
    ///   within about 20 ms in which nobody writes. The rest is left out. As a snapshot does, it holds back the space
    ///   that becomes free meanwhile.
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// let report = store.verify()?;
    /// assert!(report.is_clean(), "{:?}", report.findings());
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Errors
    /// Only if the check cannot be made: [`WouldDeadlock`](crate::Error::WouldDeadlock) in a thread that has a
    /// transaction open, [`PinsExhausted`](crate::Error::PinsExhausted), [`LockTimeout`](crate::Error::LockTimeout) if
    /// others commit so fast that not one commit could be had.
    pub fn verify(&self) -> Result<VerifyReport> {
        self.engine().verify()
    }

    /// [Checks the file](Store::verify), and asks `on_progress` now and then whether to go on: after each slice, when
    /// nothing is locked, so it may use the store, and wait for others who do. Of a check that it has stopped, the
    /// report has what was found until then, and its [scope](VerifyReport::scope) says so.
    ///
    /// ```
    /// use std::ops::ControlFlow;
    /// use slotlog::VerifyScope;
    ///
    /// # let store = slotlog::Store::in_memory()?;
    /// # for number in 0..20_000u32 {
    /// #     store.insert(number.to_le_bytes(), [7; 100])?;
    /// # }
    /// let report = store.verify_with(|progress| {
    ///     println!("{} of {} bytes", progress.done, progress.total);
    ///     ControlFlow::Continue(())
    /// })?;
    /// assert_eq!((report.is_clean(), report.scope()), (true, VerifyScope::Everything));
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`verify`](Store::verify).
    ///
    /// # Panics
    /// Only if `on_progress` does.
    pub fn verify_with(&self, mut on_progress: impl FnMut(VerifyProgress) -> ControlFlow<()>) -> Result<VerifyReport> {
        self.engine().verify_with(&mut on_progress)
    }

    /// Sizes and counters. Takes time in proportion to the number of maps and extents, not of keys.
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// store.insert("Ada", "36")?;
    /// assert_eq!(store.stats()?.dead_bytes, 0);
    /// store.insert("Ada", "37")?;
    /// let stats = store.stats()?;
    /// assert!(stats.live_bytes > 0 && stats.dead_bytes > 0);
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Corrupt`](crate::Error::Corrupt) if the file is damaged; [`LockTimeout`](crate::Error::LockTimeout).
    pub fn stats(&self) -> Result<Stats> {
        Stats::of(&self.engine())
    }

    /// How many lines of the index a search for a key loads: the number of keys that take 1, 2, 3 … of them, the last
    /// element standing for all longer searches too. A removed key counts as long as the index keeps its tombstone. One
    /// pass over the index.
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// for number in 0..100u32 {
    ///     store.insert(number.to_le_bytes(), "…")?;
    /// }
    /// let lengths = store.probe_lengths()?;
    /// assert_eq!(lengths.iter().sum::<u64>(), 100);
    /// assert!(lengths[0] > 50, "most keys are in the first line");
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`get`](Store::get).
    pub fn probe_lengths(&self) -> Result<[u64; 8]> {
        crate::stats::probe_lengths(&self.engine(), DEFAULT_MAP)
    }

    /// In what state the store was found when it was opened, and so what opening it had to do. It stays the same, also
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

    /// Gives up this handle, and says what went wrong.
    ///
    /// * If it was the last [handle](Store::handles) of this process, the file is no longer open here. If no other
    ///   process has it open for writing either, the store is closed: everything is flushed, and the next opening has
    ///   nothing to do.
    /// * If there are others, in a [`Map`], a [`Snapshot`] or a clone, this is a [checkpoint](Store::checkpoint), `Ok`
    ///   means that it was taken, and *the file stays open* until the last of them is gone. Where that must not be,
    ///   call [`close_last`](Store::close_last).
    ///
    /// What is free at the end of the file is cut off then, and a store with at most 8 MiB in use is
    /// [compacted](Store::compact) if its file is longer by an eighth than it has to be, unless
    /// [`auto_compact`](crate::Options::auto_compact) is `None`; its indexes keep room for a quarter more keys. So
    /// closing takes bounded time besides what is to be flushed. Like any compaction, this can shorten what
    /// [`changes_since`](Store::changes_since) reaches.
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
    /// Those of [`sync`](Store::sync). Dropping the last handle does the same and cannot report.
    pub fn close(self) -> Result<()> {
        self.give_up().map(drop)
    }

    /// [Closes](Store::close) the store and makes sure that it no longer is open in this process: that this was its
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
    /// // Whatever has a handle goes first.
    /// let store = Store::open(&path)?;
    /// drop((ages, before));
    /// store.close_last()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`StillOpen`](crate::Error::StillOpen) if there are other handles: a checkpoint was taken, this handle is gone,
    /// and the file stays open until they are. Of several threads that close the last handles at the same time, exactly
    /// one is not told that. Those of [`sync`](Store::sync).
    pub fn close_last(self) -> Result<()> {
        let path = self.engine().region.path().to_owned();
        match self.give_up()? {
            0 => Ok(()),
            handles => Err(Error::StillOpen { path, handles }),
        }
    }

    /// How many handles of the store there are in this process, this one included: [`Store`]s, [`Map`]s, [`Snapshot`]s,
    /// transactions and iterators, and whatever else keeps the file open. [`Store::open`] of the same path makes
    /// another store with handles of its own.
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

    /// Gives up this handle and says how many others there are: none if the store was closed. Of several who give up
    /// the last handles at the same time, it is exactly one who closes it.
    fn give_up(self) -> Result<usize> {
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

/// Gives up a share in an engine, of which others are held, and says how many still are. Of several who do so at the
/// same time, exactly one closes it.
fn close(engine: Arc<Engine>, others: usize) -> Result<usize> {
    engine.check_not_forked()?;
    if Arc::strong_count(&engine) > 1 {
        engine.checkpoint()?;
    }
    // The others may have gone meanwhile.
    match Arc::into_inner(engine) {
        Some(engine) => engine.close().map(|()| 0),
        None => Ok(others.max(1)),
    }
}
