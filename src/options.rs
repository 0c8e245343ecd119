//! How to open a store.

use std::sync::Arc;
use std::time::Duration;

use crate::engine::settings::{Access, Durability, OnRecovery, Policy, RecoveryProgress, Settings};

/// A builder for opening a store, made by [`Store::options`](crate::Store::options) and finished by
/// [`open`](Options::open).
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
    pub(crate) settings: Settings,
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

    /// Whether to create a store that does not exist. Default: `true`. Only [`Access::ReadWrite`] ever creates one.
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

    /// Whether the store must not exist yet: if it does, opening fails with
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

    /// The permissions of a file created by this call, as `open(2)` takes them; the umask of the process applies.
    /// Default: `0o666`, which a usual umask turns into `0o644`, readable by everyone. An existing file keeps its
    /// permissions.
    ///
    /// A user with read permission also knows the seed of the hash, and can [choose keys](crate::design#trust-boundary)
    /// that make the store slow. The owner needs permission to read and write: a mode without it is rejected with
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

    /// What every commit survives once it has returned; a single transaction can override it with
    /// [`commit_with`](crate::Transaction::commit_with). Default: [`Durability::Buffered`].
    pub fn durability(mut self, durability: Durability) -> Options {
        self.settings.durability = durability;
        self
    }

    /// How many keys a store created by this call holds before its index grows for the first time. The space is
    /// allocated at once. Default: 0, the smallest index. Existing stores ignore it.
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

    /// The maximum length of the file in bytes. A change that needs more is rejected with
    /// [`Error::Full`](crate::Error::Full); reading and removing still work. Default: the limit of the format, 8 TiB.
    /// It also applies to a store in memory and to a private copy ([`Access::CopyOnWrite`]).
    ///
    /// Operations that shrink a full store still work: removing, clearing and cleaning use space reserved for them, and
    /// where that is not enough they exceed the limit for a while, by at most a quarter more space in use and half as
    /// much file length again. [`Store::compact`](crate::Store::compact) brings the file back below the limit. On a
    /// full disk, and under a limit of the system, only the reserved space is available, which is enough for removals
    /// one by one, clearing and compacting.
    ///
    /// A longer file still opens. After a power cut, a recovery grows the file of a full store rather than fail, each
    /// time by at most twice the size of its index and a few blocks. Nothing that enlarges the store uses space beyond
    /// the limit.
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

    /// Makes the store a cache of at most [`max_size`](Options::max_size) bytes, 1 MiB at least: when it is full, it
    /// removes entries by this policy rather than reject a change, so that a change is never
    /// [`Full`](crate::Error::Full) and the file never longer than that, but for a while after a recovery from a power
    /// cut, if an index found no place within it. Default: none.
    ///
    /// * An entry takes at most a 32nd of `max_size` with its key (and at most 64 MiB); a larger one is rejected:
    ///   [`FullReason::Entry`](crate::FullReason::Entry).
    /// * A transaction fits if it takes at most a 128th of `max_size`. A larger one may be `Full`, since nothing can be
    ///   evicted while it goes on; then room is made for it, and it fits when it is tried again, up to about a third of
    ///   `max_size`.
    /// * What a [`Snapshot`](crate::Snapshot), an iterator or a borrowed value sees is kept. While that fills the
    ///   store, a change is `Full`, the first time after waiting for a second. A
    ///   [bookmark](crate::Store::set_bookmark) keeps nothing there.
    /// * Entries of all maps leave in the order in which they were written, some with each write, by ordinary removals,
    ///   which [`changes_since`](crate::Store::changes_since) tells. As long as replaced and removed values fill more
    ///   of the store than [`auto_compact`](Options::auto_compact) says, those make room, and what is alive is moved.
    ///   If there is no room to evict anything, which takes keys much longer than their values, all maps are cleared.
    ///   [`Stats::eviction`](crate::Stats::eviction) counts all of that.
    ///
    /// It is not a property of the file: any store can be opened so, where a longer file becomes shorter little by
    /// little; and a process that opens it without this gets
    /// `Full` where another would evict. All of them should have the same limit. Where limits differ, each process goes
    /// by its own, and by its own policy: one that evicts is not `Full` whatever the others do, and makes the file no
    /// longer than its limit or than it finds it; so the one with the smallest limit evicts what the others have added
    /// beyond that.
    ///
    /// ```
    /// use slotlog::{Policy, Store};
    ///
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("cache.slotlog");
    /// let cache = Store::options().max_size(1 << 20).evict(Policy::SecondChance).open(&path)?;
    /// for number in 0..10_000u32 {
    ///     cache.insert(number.to_le_bytes(), [7; 1000])?; // ten times as much as fits
    /// }
    /// let stats = cache.stats()?;
    /// assert!(stats.file_len <= 1 << 20 && cache.len()? > 500);
    /// assert_eq!(stats.eviction.evicted + cache.len()?, 10_000);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn evict(mut self, policy: Policy) -> Options {
        self.settings.evict = Some(policy);
        self
    }

    /// Whether to exclude all other openers, including readers. Default: `false`. It makes inserts slightly faster,
    /// since the writer lock is held all the time. On a network file system, or one shared with a virtual machine,
    /// opening for writing is always exclusive.
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

    /// How long a change waits for another thread or process that is writing before it fails with
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

    /// How long opening waits for another process that is opening or closing the store and makes no progress, before it
    /// fails with [`Error::Locked`](crate::Error::Locked), which names that process and says how far it is. As long as
    /// the other process's recovery or final flush makes progress, the wait goes on. Default: the same as
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

    /// Whether every read of a value checks the CRC of its record: then a value damaged on the medium is never
    /// returned; the read fails with [`Error::Corrupt`](crate::Error::Corrupt). It costs a pass over the whole record.
    /// Default: `false`; then damage can show as wrong bytes within a value, never as anything worse.
    pub fn verify_reads(mut self, verify: bool) -> Options {
        self.settings.verify_reads = verify;
        self
    }

    /// After how many bytes of log the committing process takes a [checkpoint](crate::Store::checkpoint). Default: 64
    /// MiB. Until then, each commit that completes a slice of the log (a sixteenth of this, at most 256 KiB) asks the
    /// system to write it back, and waits for the slice sixteen before it: so the disk keeps up, and no commit waits
    /// for much at once.
    pub fn checkpoint_every(mut self, bytes: u64) -> Options {
        self.settings.checkpoint_every = bytes;
        self
    }

    /// The share of the log that may be dead (replaced or removed values) before each write also cleans a piece of it:
    /// more than 0 and less than 1; `None` turns cleaning off. Default: 0.5. A smaller share makes the file smaller and
    /// writes more expensive: in the worst case, when most values never change, 1 / share bytes are written for each
    /// byte, 2 by default. A log of less than 192 KiB is left alone until the store is [closed](crate::Store::close).
    /// Cleaning at any time, including on close, shortens the reach of [`changes_since`](crate::Store::changes_since).
    ///
    /// With `None`, only [`compact`](crate::Store::compact) reclaims the space of replaced and removed values, and
    /// [closing](crate::Store::close) moves nothing.
    pub fn auto_compact(mut self, dead_share: Option<f64>) -> Options {
        self.settings.auto_compact = dead_share;
        self
    }

    /// Whether this process does the upkeep of the store in a thread of its own, so that writers need not: resizing
    /// indexes, cleaning the log, taking checkpoints. The thread ends with the last handle of the
    /// [`Store`](crate::Store). Writers help when it does not keep up. Default: `false`; the library starts no other
    /// thread.
    pub fn background_maintenance(mut self, background: bool) -> Options {
        self.settings.background_maintenance = background;
        self
    }

    /// How often [maintenance](crate::Store::maintain), on request or [in the
    /// background](Options::background_maintenance), reads the whole log and checks the CRC of each record: the disk
    /// may have lost some of what is rarely read. Default: `None`, never.
    ///
    /// Each call reads 1 MiB at least, and more if its budget allows: in the background up to 5 ms each second. Writers
    /// do not wait for it, and all processes that do it share the work. What is found is in
    /// [`Stats::damage`](crate::Stats::damage) of the process that found it, and never an error.
    /// [`verify`](crate::Store::verify) checks everything at once, and more.
    ///
    /// ```
    /// use std::time::Duration;
    /// use slotlog::Store;
    ///
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("app.slotlog");
    /// let store = Store::options().scrub(Some(Duration::from_secs(24 * 60 * 60))).open(&path)?;
    /// store.insert("hello", "world")?;
    /// store.maintain(Duration::from_millis(5))?;
    /// let damage = store.stats()?.damage;
    /// assert!(damage.scrubbed_bytes > 0 && damage.findings.is_empty());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn scrub(mut self, every: Option<Duration>) -> Options {
        self.settings.scrub = every;
        self
    }

    /// Upkeep in the smallest steps, with some always in progress: for tests.
    #[cfg(feature = "testing")]
    pub fn tiny_steps(mut self) -> Options {
        self.settings.limits = crate::engine::settings::Limits::tiny();
        self
    }

    /// A callback for progress while [`open`](Options::open) recovers a store after a power cut: called at the
    /// beginning and the end of each of the two passes over the log, and after every 4 MiB in between. It runs in the
    /// opening thread. Default: none.
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

    /// Whether the file may come from an untrusted source. Default: `false`. If set, only the log is believed, and its
    /// records are checked one by one: neither the mark of a clean close nor the index counts, and the index is rebuilt
    /// as after a power cut, in time proportional to the length of the log. With read-only or copy-on-write access, the
    /// store is rebuilt in memory of this process. [The trust boundary](crate::design#trust-boundary) says what such a
    /// file can do.
    ///
    /// Opening fails with [`Locked`](crate::Error::Locked) while others have the store open for writing, or, if this
    /// opening is for writing, while others have it open at all.
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
}
