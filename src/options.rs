//! How to open a store.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::engine::progress::{OnRecovery, RecoveryProgress};
use crate::engine::settings::{Access, Durability, Limits, Settings};
use crate::{Result, Store};

/// A builder for opening a store: [`Store::options`] begins it, [`open`](Options::open) ends it.
///
/// ```
/// use std::time::Duration;
/// use slotlog::{Durability, Store};
///
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("settings.slotlog");
/// let store = Store::options()
///     .durability(Durability::Synced)
///     .lock_timeout(Duration::from_secs(1))
///     .open(&path)?;
/// store.insert("colour", "green")?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "options do nothing until `open` is called"]
pub struct Options {
    settings: Settings,
}

impl Options {
    /// Whether the store can be changed, and whether changes go to the file. Default: [`Access::ReadWrite`].
    ///
    /// ```
    /// use slotlog::{Access, Store};
    ///
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("prices.slotlog");
    /// let store = Store::open(&path)?;
    /// store.insert("apple", "2")?;
    /// store.close()?;
    ///
    /// let what_if = Store::options().access(Access::CopyOnWrite).open(&path)?;
    /// what_if.insert("apple", "3")?;
    /// let store = Store::options().access(Access::ReadOnly).open(&path)?;
    /// assert_eq!(store.get("apple")?.as_deref(), Some(&b"2"[..]));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn access(mut self, access: Access) -> Options {
        self.settings.access = access;
        self
    }

    /// Whether a store that does not exist is created. Default: `true`. Only [`Access::ReadWrite`] ever creates one.
    ///
    /// ```
    /// use slotlog::{Error, Store};
    ///
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("missing.slotlog");
    /// let outcome = Store::options().create(false).open(&path);
    /// assert!(matches!(outcome, Err(Error::NotFound { .. })));
    /// assert!(!path.exists());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn create(mut self, create: bool) -> Options {
        self.settings.create = create;
        self
    }

    /// Whether the store must not exist yet: if it does, the error is
    /// [`Error::AlreadyExists`](crate::Error::AlreadyExists). Default: `false`.
    ///
    /// ```
    /// use slotlog::{Error, Store};
    ///
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("new.slotlog");
    /// let store = Store::options().create_new(true).open(&path)?;
    /// let outcome = Store::options().create_new(true).open(&path);
    /// assert!(matches!(outcome, Err(Error::AlreadyExists { .. })));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn create_new(mut self, create_new: bool) -> Options {
        self.settings.create_new = create_new;
        self.settings.create |= create_new;
        self
    }

    /// The permissions of a file that is created by this, as `open(2)` takes them: those that the umask of the process
    /// has are left out. Default: `0o666`, which a usual umask makes `0o644`, readable by everybody. A file that exists
    /// keeps what it has.
    ///
    /// Who may read the file knows the seed of its hash as well, and can [choose keys](crate::design#trust-boundary)
    /// that make a store slow. The owner must be able to read and write: a mode without that is refused with
    /// [`InvalidOptions`](crate::Error::InvalidOptions).
    ///
    /// ```
    /// use std::os::unix::fs::PermissionsExt;
    /// use slotlog::Store;
    ///
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("secret.slotlog");
    /// let store = Store::options().mode(0o600).open(&path)?;
    /// assert_eq!(std::fs::metadata(&path)?.permissions().mode() & 0o777, 0o600);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[cfg(unix)]
    pub fn mode(mut self, mode: u32) -> Options {
        self.settings.mode = Some(mode);
        self
    }

    /// What every commit has survived when it returns; a single transaction can ask for something else with
    /// [`commit_with`](crate::Transaction::commit_with). Default: [`Durability::Buffered`].
    pub fn durability(mut self, durability: Durability) -> Options {
        self.settings.durability = durability;
        self
    }

    /// How many keys a store that is created by this has room for before its index grows for the first time. The space
    /// is really allocated. Default: 0, which means the smallest index there is. No effect on a store that exists.
    ///
    /// ```
    /// use slotlog::Store;
    ///
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("roomy.slotlog");
    /// let store = Store::options().initial_capacity(100_000).open(&path)?;
    /// let slots = store.stats()?.maps.iter().map(|map| map.slots).max();
    /// assert!(slots >= Some(100_000));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn initial_capacity(mut self, keys: u64) -> Options {
        self.settings.initial_capacity = keys;
        self
    }

    /// The most bytes that the file may have. A change that would need more is refused with
    /// [`Error::Full`](crate::Error::Full); reading and removing go on. Default: no limit but that of the format, 8
    /// TiB. The same for a store in memory, and for a private copy ([`Access::CopyOnWrite`]).
    ///
    /// What makes a full store smaller is not refused: removing, clearing and cleaning use what is held back for that,
    /// and where it does not suffice, they exceed the limit for a while, with a quarter more in use at most, and half
    /// as long a file. [`Store::compact`](crate::Store::compact) brings that back. On a full disk, and under a limit of
    /// the system, there is only what is held back.
    ///
    /// A file that is longer opens all the same. Rather than refuse a full store after a power cut, a recovery makes
    /// its file longer, each by at most twice what its index takes, and a few blocks. What lies behind the limit is
    /// used by nothing that makes the store larger.
    ///
    /// ```
    /// use slotlog::{Error, Store};
    ///
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("limited.slotlog");
    /// let store = Store::options().max_size(1 << 20).open(&path)?;
    /// store.insert("small", "value")?;
    /// assert!(matches!(store.insert("large", vec![0; 1 << 20]), Err(Error::Full { .. })));
    /// assert!(store.remove("small")?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn max_size(mut self, bytes: u64) -> Options {
        self.settings.max_size = bytes;
        self
    }

    /// Whether nobody else may have the store open meanwhile, not even to read. Default: `false`. An insert is slightly
    /// faster then, since the writer lock is held all the time. On a network file system, and on one that is shared
    /// with a virtual machine, whoever opens a store for writing has it alone in any case.
    ///
    /// ```
    /// use slotlog::{Access, Error, Store};
    ///
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("mine.slotlog");
    /// let store = Store::options().exclusive(true).open(&path)?;
    /// let outcome = Store::options().access(Access::ReadOnly).open(&path);
    /// assert!(matches!(outcome, Err(Error::Locked { .. })));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn exclusive(mut self, exclusive: bool) -> Options {
        self.settings.exclusive = exclusive;
        self
    }

    /// How long a change waits for another thread or process that is writing, before it gives up with
    /// [`Error::LockTimeout`](crate::Error::LockTimeout). Default: 10 seconds.
    ///
    /// ```
    /// use std::time::Duration;
    /// use slotlog::{Error, Store};
    ///
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("busy.slotlog");
    /// let store = Store::open(&path)?;
    /// let impatient = Store::options().lock_timeout(Duration::from_millis(5)).open(&path)?;
    /// let transaction = store.begin()?;
    /// std::thread::scope(|scope| {
    ///     scope.spawn(|| assert!(matches!(impatient.insert("key", "value"), Err(Error::LockTimeout { .. }))));
    /// });
    /// drop(transaction);
    /// impatient.insert("key", "value")?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn lock_timeout(mut self, timeout: Duration) -> Options {
        self.settings.lock_timeout = timeout;
        self
    }

    /// How long an opening waits for somebody else who is opening or closing the store and does not get any further,
    /// before it gives up with [`Error::Locked`](crate::Error::Locked), which names that process and says how far it
    /// is. As long as a recovery or the flush of a closing makes progress, it is waited for. Default: as long as
    /// [`lock_timeout`](Options::lock_timeout).
    ///
    /// ```
    /// use std::time::Duration;
    /// use slotlog::{Error, HeldBy, Store};
    ///
    /// # let folder = tempfile::tempdir()?;
    /// # let (path, copy) = (folder.path().join("store"), folder.path().join("copy"));
    /// let store = Store::open(&path)?;
    /// store.insert("key", "value")?;
    /// std::fs::copy(&path, &copy)?; // of a store in use: it is recovered when it is opened
    ///
    /// let of_copy = copy.clone();
    /// let recovered = Store::options().on_recovery(move |_| {
    ///     let opened = Store::options().open_timeout(Duration::from_millis(5)).open(&of_copy);
    ///     let Err(Error::Locked { by: HeldBy::Opener { pid, .. }, .. }) = opened else { panic!("{opened:?}") };
    ///     assert_eq!(pid, std::process::id());
    /// });
    /// recovered.open(&copy)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn open_timeout(mut self, timeout: Duration) -> Options {
        self.settings.open_timeout = Some(timeout);
        self
    }

    /// Whether the CRC of a record is checked each time its value is read: then a value that the medium has damaged is
    /// never returned, the error being [`Error::Corrupt`](crate::Error::Corrupt). It costs a pass over the whole
    /// record. Default: `false`; then damage can show as wrong bytes within a value, never as anything worse.
    pub fn verify_reads(mut self, verify: bool) -> Options {
        self.settings.verify_reads = verify;
        self
    }

    /// After how many bytes of log a [checkpoint](Store::checkpoint) is taken by whoever commits. Default: 64 MiB.
    /// Until then each commit that completes a slice of the log (a sixteenth of this, at most 256 KiB) asks the system
    /// to write it back, and waits for the slice sixteen before: so the disk keeps up, and no commit waits for much at
    /// once.
    pub fn checkpoint_every(mut self, bytes: u64) -> Options {
        self.settings.checkpoint_every = bytes;
        self
    }

    /// What share of the log may be dead (replaced or removed values) before each write also cleans a piece of it: more
    /// than 0 and less than 1; `None` for never. Default: 0.5. A smaller share makes the file smaller and writes
    /// dearer: in the worst case, that of values most of which never change, 1 / share bytes are written for each byte,
    /// 2 by default. A log of less than 192 KiB is left alone until the store is [closed](Store::close). Whatever is
    /// cleaned, be it then, is beyond the reach of [`changes_since`](Store::changes_since).
    ///
    /// Without it, the space of replaced and removed values comes back only with [`compact`](Store::compact), and
    /// [closing](Store::close) moves nothing.
    pub fn auto_compact(mut self, dead_share: Option<f64>) -> Options {
        self.settings.auto_compact = dead_share;
        self
    }

    /// Whether this process does the upkeep of the store in a thread of its own, so that writers need not: resizing
    /// indexes, cleaning the log, checkpoints. It ends with the last handle of the [`Store`]. Writers help when it does
    /// not keep up. Default: `false`; the library starts no other thread.
    pub fn background_maintenance(mut self, background: bool) -> Options {
        self.settings.background_maintenance = background;
        self
    }

    /// Upkeep in the smallest steps, and always some of it going on: for tests.
    #[doc(hidden)]
    pub fn tiny_steps(mut self) -> Options {
        self.settings.limits = Limits::tiny();
        self
    }

    /// What is to be called now and then while [`open`](Options::open) recovers a store after a power cut: at the
    /// beginning and the end of each of the two passes over the log, and after every 4 MiB of it in between. It runs in
    /// the thread that opens. Default: nothing.
    ///
    /// ```
    /// use slotlog::Store;
    ///
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("large.slotlog");
    /// let store = Store::options()
    ///     .on_recovery(|progress| eprintln!("{:?}: {} of {} bytes", progress.phase, progress.done, progress.total))
    ///     .open(&path)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn on_recovery(mut self, call: impl Fn(RecoveryProgress) + Send + Sync + 'static) -> Options {
        self.settings.on_recovery = Some(OnRecovery(Arc::new(call)));
        self
    }

    /// Whether the file may come from somebody who is not trusted. Default: `false`. Then nothing in it is believed but
    /// its log, whose records are checked one by one: neither that the store was closed, nor its index, which is built
    /// anew as after a power cut, in time that grows with the length of the log. A store that is opened so for reading
    /// only, or copy-on-write, is rebuilt in memory of this process. What such a file can do is said
    /// [here](crate::design#trust-boundary).
    ///
    /// It is refused with [`Locked`](crate::Error::Locked) while others have the store open for writing, or, where it
    /// is to be written to, at all.
    ///
    /// ```
    /// use slotlog::{Access, Opened, Store};
    ///
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("received.slotlog");
    /// # let store = Store::open(&path)?;
    /// # store.insert("key", "value")?;
    /// # store.close()?;
    /// let store = Store::options().access(Access::ReadOnly).untrusted(true).open(&path)?;
    /// assert!(matches!(store.opened(), Opened::AfterPowerCut { .. }));
    /// assert_eq!(store.get("key")?.as_deref(), Some(&b"value"[..]));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn untrusted(mut self, untrusted: bool) -> Options {
        self.settings.untrusted = untrusted;
        self
    }

    /// Opens the store at `path`.
    ///
    /// After a [close](Store::close) or a kill this takes constant time. After a power cut, or for a file that was
    /// copied while its store was open, the index is built anew, in one pass over the log to find its end and one to
    /// read its keys.
    ///
    /// A store is created wherever a file can be: through a link that leads to nothing yet (not with
    /// [`create_new`](Options::create_new), for which a link is something that exists), in a folder that may be written
    /// to and not read, in an empty file without a name (`O_TMPFILE`, `memfd_create`) by its path `/proc/self/fd/N`.
    /// When this returns, the new file survives a power cut, and so does its entry in the folder, unless the system
    /// refuses to flush the folder: one that may not be read, or of a file system that knows no such call. An opening
    /// that fails leaves no new file.
    ///
    /// # Errors
    /// * [`NotFound`](crate::Error::NotFound), [`AlreadyExists`](crate::Error::AlreadyExists),
    ///   [`NotAFile`](crate::Error::NotAFile), [`PermissionDenied`](crate::Error::PermissionDenied),
    ///   [`Io`](crate::Error::Io): the path does not lead to a file that can be opened so.
    /// * [`NotAStore`](crate::Error::NotAStore), [`UnsupportedVersion`](crate::Error::UnsupportedVersion),
    ///   [`UnsupportedFeature`](crate::Error::UnsupportedFeature): the file is not ours. It was not touched.
    /// * [`Locked`](crate::Error::Locked): another opener has it in a way that excludes this one, and the error names
    ///   it: one that is [exclusive](Options::exclusive), or one on another machine; one that writes, for
    ///   [`Access::CopyOnWrite`], and the other way round. Also if the index has to be built anew while somebody reads.
    /// * [`ProcessesExhausted`](crate::Error::ProcessesExhausted): many openers write to it already, and there is no
    ///   room in the file for more than 128, 256, 512 …
    /// * [`Truncated`](crate::Error::Truncated), [`Corrupt`](crate::Error::Corrupt): the file is damaged.
    /// * [`Full`](crate::Error::Full): no room for an empty store, or for the index in a recovery; or no space on the
    ///   disk for what is a hole in a sparse copy, which is to be written to.
    pub fn open(self, path: impl AsRef<Path>) -> Result<Store> {
        Store::open_with(Some(path.as_ref()), self.settings)
    }

    /// Makes an empty store in memory, with nothing on disk. It vanishes with its last handle.
    ///
    /// What is set about the file and about others who have it open has no effect: there is neither.
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
    /// [`Full`](crate::Error::Full) if not even an empty store is allowed by [`max_size`](Options::max_size), or the
    /// system gives no addresses for it; [`InvalidOptions`](crate::Error::InvalidOptions) for [`Access::ReadOnly`].
    pub fn in_memory(self) -> Result<Store> {
        Store::open_with(None, self.settings)
    }
}
