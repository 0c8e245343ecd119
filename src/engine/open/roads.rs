//! Opening: what is in the file, who else has it open, and in what state was it left?

use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use super::aside::{self, Aside};
use super::build::{build_empty, open_clean};
use super::path::{
    Made, check_is_file, check_path, check_settings, creation_error, is_at, open_again, open_file, opening_error,
    sync_folder,
};
use super::recovery;
use super::seat::{Seat, Seated, attach};
use crate::engine::processes::entries;
use crate::engine::settings::{Access, Opened, Settings};
use crate::engine::state::live_area::{
    SAME_FILE, forget_the_dead, is_closed, live_counts, live_identity, live_is_as_closed, live_is_current,
    live_is_vouched_for, live_is_whole,
};
use crate::engine::state::superblocks::{Superblocks, generation, in_force, inspect_in_use, newest, which};
use crate::engine::state::words::AtRest;
use crate::engine::state::writer::Writer;
use crate::engine::write::tables::tables_have_grown;
use crate::engine::write::turn::SENDING;
use crate::engine::{Engine, progress};
use crate::error::{Error, HeldBy, Result};
use crate::file::layout::{BLOCK, CREATION_MAGIC, SUPERBLOCK_B, Seq, Superblock, live};
use crate::file::locks::{self, Locks, OPENING, PRIVATE, READERS, Sharing};
use crate::file::mapping::{self, Mapping, Protection};
use crate::telemetry::{self, Watch};

/// What an opening believes of a store that was not closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trust {
    /// The memory that a dead process has left.
    Memory,
    /// Only the superblock and the log.
    LogOnly,
}

impl Engine {
    /// Opens the store at `path`, or creates it.
    pub(crate) fn open(path: &Path, mut settings: Settings) -> Result<Engine> {
        check_path(path, &settings)?;
        let (start, watch) = (Instant::now(), Watch::start());
        let mut trust = Trust::Memory;
        loop {
            let Some(opening) = Opening::begin(path, None, &mut settings)? else { continue };
            match opening.proceed(trust) {
                Ok(Some(engine)) => {
                    telemetry::on_opened(path, &engine.opened, watch);
                    return Ok(engine);
                }
                // The killed process left an inconsistent state. The log decides.
                Ok(None) => trust = Trust::LogOnly,
                // Waiting happens here, where nothing is held that others need to open or close the store.
                Err(error) if start.elapsed() < grace(&error, &settings) => thread::sleep(GRACE / 20),
                Err(Error::LockTimeout { path, pid, held, .. }) => {
                    return Err(Error::LockTimeout { path, waited: start.elapsed(), pid, held });
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Opens the store in a file once more, for reading.
    fn open_again(file: &File, path: &Path, mut settings: Settings) -> Result<Engine> {
        let missing = || Error::NotFound { path: path.to_owned() };
        let opening = Opening::begin(path, Some(file), &mut settings)?.ok_or_else(missing)?;
        opening.proceed(Trust::Memory)?.ok_or_else(missing)
    }

    /// A store in memory.
    pub(crate) fn in_memory(settings: Settings) -> Result<Engine> {
        let mapping = Mapping::in_memory(settings.max_size)?;
        check_settings(mapping.path(), &settings)?;
        if settings.access == Access::ReadOnly {
            let what = "a store in memory that is read-only would stay empty; open it for writing";
            return Err(Error::InvalidOptions { path: mapping.path().to_owned(), what });
        }
        build_empty(Seated { mapping, seat: Seat::alone(None), settings })?.end_opening(Sharing::Shared)
    }

    /// The store as opened beside writers that have come since, if any. If they are gone again, and have left a state
    /// that this process cannot take over, it is recovered once more.
    #[cold]
    pub(crate) fn follow(&self) -> Option<Engine> {
        let (aside, file) = (self.aside.as_ref()?, self.mapping.file_behind()?);
        let id = aside.newcomer(file)?;
        // This call does not wait for another process that opens or closes the store.
        let settings = Settings { open_timeout: Some(Duration::ZERO), on_recovery: None, ..self.settings.clone() };
        match Engine::open_again(file, self.mapping.path(), settings) {
            Ok(mut next) => {
                next.origin = self.origin;
                Some(next)
            }
            // These errors pass, and the next call tries again.
            Err(Error::Locked { .. } | Error::Io { .. }) => None,
            Err(_) => {
                aside.0.store(id, Ordering::Relaxed);
                None
            }
        }
    }
}

/// How long an opening waits for readers that stand in its way.
const GRACE: Duration = Duration::from_millis(200);

/// How long an opening is retried after this error.
fn grace(error: &Error, settings: &Settings) -> Duration {
    match error {
        // Readers come and go; while they are there, some openings are impossible.
        Error::Locked { by: HeldBy::Readers | HeldBy::Private, .. } => GRACE,
        // A process must leave, or end its transaction, before there is an entry in the process table.
        Error::LockTimeout { .. } => settings.lock_timeout,
        Error::WouldDeadlock { .. } => SENDING.min(settings.lock_timeout),
        _ => Duration::ZERO,
    }
}

/// An opening that has begun: the file is open, and no other process can open or close it meanwhile.
struct Opening<'s> {
    pub(super) path: PathBuf,
    pub(super) settings: &'s Settings,
    file: File,
    pub(super) locks: Arc<Locks>,
    /// The file was created for us, and is removed again if it does not become a store.
    made: Option<Made>,
    /// How the whole file is locked: exclusively if no other process has it open, except for those that are opening it.
    pub(super) whole: Sharing,
}

impl<'s> Opening<'s> {
    /// Opens the file and takes the locks that its access mode requires. `None` if the file was replaced meanwhile.
    fn begin(path: &Path, again: Option<&File>, settings: &'s mut Settings) -> Result<Option<Opening<'s>>> {
        let to_file = settings.access.is_to_file();
        let (file, place) = match again {
            Some(file) => (open_again(file, path).map_err(|error| opening_error(path, error))?, None),
            None => open_file(path, settings)?,
        };
        // Another machine does not see the shared memory of this one.
        settings.exclusive |= to_file && locks::network_file_system(&file).is_some();
        let mut options = OpenOptions::new();
        options.read(true).write(to_file);
        let open = || again.map_or_else(|| options.open(path), |file| open_again(file, path));
        let locks = match Locks::open(&file, open) {
            Ok(locks) => Arc::new(locks),
            Err(error) => {
                drop(place.map(|place| Made::new(place, Arc::new(Locks::of(file)))));
                return Err(opening_error(path, error));
            }
        };
        let made = place.map(|place| Made::new(place, Arc::clone(&locks)));
        let locking = |error| Error::io(path, "lock the file", error);
        let looking = |error| Error::io(path, "look at the file", error);
        check_is_file(path, &file.metadata().map_err(looking)?)?;

        let sharing = if to_file { Sharing::Exclusive } else { Sharing::Shared };
        let patience = settings.open_timeout.unwrap_or(settings.lock_timeout);
        wait_for_opener(path, &file, patience, || locks.try_lock(OPENING, sharing).map_err(locking))?;
        // A process that makes the file shorter holds this for a moment.
        let reading = || locks.try_lock(READERS, Sharing::Shared).map_err(locking);
        if !to_file && !entries::poll(patience, reading)? {
            return Err(Error::Locked { path: path.to_owned(), by: HeldBy::Unknown });
        }
        let start = Instant::now();
        let whole = loop {
            // A reader does not need exclusive access unless it asks for that.
            if (settings.exclusive || to_file) && locks.try_whole(Sharing::Exclusive).map_err(locking)? {
                break Sharing::Exclusive;
            }
            if !settings.exclusive && locks.try_whole(Sharing::Shared).map_err(locking)? {
                break Sharing::Shared;
            }
            let wanted = if settings.exclusive { Sharing::Exclusive } else { Sharing::Shared };
            let by = who_holds(path, &file, &locks, wanted);
            // A reader may be about to leave, like a program that prints statistics.
            if !matches!(by, HeldBy::Readers | HeldBy::Private) || start.elapsed() >= GRACE {
                return Err(Error::Locked { path: path.to_owned(), by });
            }
            thread::sleep(GRACE / 20);
        };
        // Readers that have recovered it in their own memory do not lock the whole file.
        if settings.exclusive && !aside::is_nobody(&locks).map_err(locking)? {
            return Err(Error::Locked { path: path.to_owned(), by: HeldBy::Private });
        }
        // Was the file deleted or replaced before we had the lock?
        if !locks::is_same_file(&file, locks.file()).map_err(looking)? || again.is_none() && !is_at(&file, path) {
            return Ok(None);
        }
        Ok(Some(Opening { path: path.to_owned(), settings, file, locks, made, whole }))
    }

    /// Determines what is in the file, and opens it. `None` if the memory that a dead process left cannot be trusted,
    /// and everything has to be done again without it.
    fn proceed(mut self, trust: Trust) -> Result<Option<Engine>> {
        let access = self.settings.access;
        let found = inspect_in_use(&mut self.file, &self.path)?;
        match found {
            None if !access.is_to_file() || !self.settings.create => {
                Err(Error::NotAStore { path: self.path, what: "it is empty, or its creation was cut short" })
            }
            None if self.whole == Sharing::Shared => Err(Error::Locked { path: self.path, by: HeldBy::Readers }),
            None => {
                // Held until the file is gone: once they are released, another process may create a store in it.
                let (locks, made, whole) = (Arc::clone(&self.locks), self.made.take(), self.whole);
                let engine = self.create();
                if let (Err(_), Some(made)) = (&engine, &made) {
                    made.remove();
                }
                drop((made, locks));
                engine?.end_opening(whole).map(Some)
            }
            Some(_) if self.settings.create_new => Err(Error::AlreadyExists { path: self.path }),
            Some(superblocks) => match access {
                Access::ReadWrite => self.open_for_writing(superblocks, trust),
                Access::ReadOnly => self.open_for_reading(superblocks).map(Some),
                Access::CopyOnWrite => self.open_copy(superblocks, trust),
            },
        }
    }

    /// Takes a seat among the writers.
    fn seat(locks: Arc<Locks>, mapping: &Mapping, settings: &Settings) -> Result<Seat> {
        let entry = entries::claim(mapping, &locks)?;
        Ok(Seat { locks: Some(locks), held: None, entry, exclusive: settings.exclusive })
    }

    /// Takes a seat in memory: the content of the file becomes that of this process, up to `max_len`, which no other
    /// process shares. Until it is dropped, the file must not be written to: what was not copied yet would change.
    fn seat_in_memory(mapping: Mapping, locks: Arc<Locks>, settings: &Settings, max_len: u64) -> Result<Seated> {
        // This lock is never taken exclusively, so it cannot be refused. From here on it keeps writers out, and others
        // need not wait until the opening is complete.
        (locks.try_lock(PRIVATE, Sharing::Shared))
            .and_then(|_| locks.unlock(OPENING))
            .map_err(|e| entries::lock_error(&mapping, e))?;
        let (mapping, seat) = (mapping.into_private(max_len)?, Seat::alone(Some(locks)));
        Ok(Seated { mapping, seat, settings: settings.clone() })
    }

    /// Creates a store in an empty file.
    ///
    /// First a mark that says "creation has begun" goes to the disk, in the place of superblock A, and then the folder;
    /// superblock B is written when everything else is flushed. The mark stays until B is known to be flushed as well,
    /// so a cut at any moment, even in the middle of copying a superblock, leaves a file that is recognised.
    pub(super) fn create(mut self) -> Result<Engine> {
        let (path, settings) = (&self.path, self.settings);
        // Writing the mark must not exceed a limit.
        mapping::check_file_size(path, settings.max_size, BLOCK)?;
        let mut mark = [0; BLOCK as usize];
        mark[..CREATION_MAGIC.len()].copy_from_slice(&CREATION_MAGIC);
        (self.file.set_len(0))
            .and_then(|()| self.file.seek(SeekFrom::Start(0)))
            .and_then(|_| self.file.write_all(&mark))
            .and_then(|()| self.file.sync_all())
            .map_err(|e| creation_error(path, e))?;
        sync_folder(path)?;
        let mapping = Mapping::of_file(self.file, self.path, Protection::ReadWrite, settings.max_size)?;
        let seat = Opening::seat(self.locks, &mapping, settings)?;
        build_empty(Seated { mapping, seat, settings: settings.clone() })
    }

    /// Opens an existing store for reading.
    fn open_for_reading(self, superblocks: Superblocks) -> Result<Engine> {
        let Opening { path, settings, file, locks, whole, .. } = self;
        let mapping = Mapping::of_file(file, path, Protection::ReadOnly, settings.max_size)?;
        let identity = mapping.identity();
        let writers = entries::living(&mapping, &locks)?;
        let newest = newest(&superblocks);
        if settings.untrusted {
            refuse_beside(&writers, &mapping)?;
        }
        let has_writers = !writers.is_empty();
        let is_current = live_is_vouched_for(&mapping, has_writers)?;
        let (_, in_force) = in_force(&mapping)?;
        let seat = |locks| Seat { locks: Some(locks), held: None, entry: 0, exclusive: settings.exclusive };
        let is_believed = is_current && !settings.untrusted;
        let of_live = in_force.filter(|superblock| is_believed && live_counts(&mapping, superblock, has_writers));
        // Beside a writer, or in memory as a dead one left it, the live area is right.
        if let Some(superblock) = of_live {
            if superblock.is_clean() {
                check_len(&mapping, &superblock)?;
            }
            let opened = if has_writers { Opened::Attached } else { Opened::AfterKill };
            let is_closing = mapping.live(live::STATE)? & live::STATE_CLOSING != 0;
            let is_closed = is_closed(&mapping, &superblock)? && !is_closing;
            let opened = if is_closed { Opened::Clean } else { opened };
            let seated = Seated { mapping, seat: seat(locks), settings: settings.clone() };
            return Engine::assemble(seated, opened, superblock, Writer::unknowing())?.end_opening(whole);
        }
        let Some(superblock) = superblocks[newest] else {
            return Err(mapping.corrupt(newest as u64 * SUPERBLOCK_B, "the superblock in force is damaged"));
        };
        // A reader of a closed store looks at the live area to see when it is opened again, so that must not be wrong.
        let is_closed = is_closed(&mapping, &superblock)? && !is_current && !settings.untrusted;
        if !is_closed {
            if superblock.is_clean() {
                check_len(&mapping, &superblock)?;
            }
            // The file must not be written to, so it is recovered in memory of this process.
            refuse_beside(&writers, &mapping)?;
            if settings.untrusted {
                // Other processes may believe something else of the file.
                let seated = Opening::seat_in_memory(mapping, locks, settings, u64::MAX)?;
                return recovery::after_power_cut(seated, superblock, newest)?.end_opening(whole);
            }
            let (aside, seat) = (Aside::begin(&mapping)?, Seat::alone(Some(locks)));
            let seated = Seated { mapping: mapping.into_private(u64::MAX)?, seat, settings: settings.clone() };
            return recovery::after_power_cut(seated, superblock, newest)?
                .end_opening(whole)?
                .step_aside(aside, superblock.log_head());
        }
        let at_rest = AtRest {
            visible: superblock.last_seq(),
            map_table: superblock.map_table.get(),
            space_table: superblock.space_table.get(),
            identity,
            found: live_identity(&mapping)?,
        };
        let seated = Seated { mapping, seat: seat(locks), settings: settings.clone() };
        Engine::open_at_rest(seated, superblock, at_rest)?.end_opening(whole)
    }

    /// Opens an existing store for changes that stay in memory of this process.
    fn open_copy(self, superblocks: Superblocks, trust: Trust) -> Result<Option<Engine>> {
        let Opening { path, settings, file, locks, .. } = self;
        let mapping = Mapping::of_file(file, path, Protection::ReadOnly, settings.max_size)?;
        refuse_beside(&entries::living(&mapping, &locks)?, &mapping)?;
        let found = Found::in_file(&mapping, &superblocks, &[], settings)?;
        let seated = Opening::seat_in_memory(mapping, locks, settings, settings.max_size)?;
        // Readers of the file see nothing of what happens here.
        found.take_up(seated, trust, Sharing::Exclusive)
    }

    /// Opens an existing store for reading and writing.
    fn open_for_writing(self, superblocks: Superblocks, trust: Trust) -> Result<Option<Engine>> {
        let Opening { path, settings, file, locks, whole, .. } = self;
        let mapping = Mapping::of_file(file, path.clone(), Protection::ReadWrite, settings.max_size)?;
        let writers = entries::living(&mapping, &locks)?;
        if whole == Sharing::Exclusive
            && let Some(other) = writers.first()
        {
            // The lock on the file does not cover them, but the lock on their entry does.
            return Err(Error::Locked { path, by: other.holder() });
        }
        if locks.is_held(PRIVATE).map_err(|e| entries::lock_error(&mapping, e))? {
            return Err(Error::Locked { path, by: HeldBy::Private });
        }
        if settings.untrusted {
            refuse_beside(&writers, &mapping)?;
        }
        let found = Found::in_file(&mapping, &superblocks, &writers, settings)?;
        let seat = Opening::seat(locks, &mapping, settings)?;
        let seated = Seated { mapping, seat, settings: settings.clone() };
        if !found.has_writers {
            return found.take_up(seated, trust, whole);
        }
        if !found.same_cache {
            let what = "other processes have the store open, and its live area says nothing that can be used";
            return Err(seated.mapping.corrupt(live::VERSION_WORD, what));
        }
        attach(seated, Opened::Attached, found.superblock)?.end_opening(whole).map(Some)
    }
}

/// The file of a store that no process has open, and none can open as long as this lives.
pub(crate) struct Seized {
    _locks: Arc<Locks>,
}

impl Seized {
    /// Seizes the file at `path`, if there is one, to replace or remove it: a store in whatever state, or the beginning
    /// of one. Any other file is refused.
    pub(crate) fn at(path: &Path) -> Result<Option<Seized>> {
        let mut settings = Settings { create: false, exclusive: true, ..Settings::default() };
        // It may be replaced between two looks at its path; that settles after a few rounds.
        for _ in 0..16 {
            check_path(path, &settings)?;
            let mut opening = match Opening::begin(path, None, &mut settings) {
                Ok(Some(opening)) => opening,
                Ok(None) => continue,
                Err(Error::NotFound { .. }) => return Ok(None),
                Err(error) => return Err(error),
            };
            return match inspect_in_use(&mut opening.file, path) {
                Err(error @ (Error::NotAStore { .. } | Error::Io { .. })) => Err(error),
                // Empty, sound or damaged, and of whatever version.
                _ => Ok(Some(Seized { _locks: opening.locks })),
            };
        }
        Err(Error::Locked { path: path.to_owned(), by: HeldBy::Opening })
    }
}

/// The state in which the file of a store was found.
struct Found {
    pub(super) superblock: Superblock,
    /// Which of the two superblocks that is.
    pub(super) in_force: usize,
    /// Other processes have it open for writing.
    has_writers: bool,
    /// The live area is as the last process that had the store open left it.
    same_cache: bool,
    /// The live area belongs to the file in its current state.
    is_whole: bool,
    /// The store was closed, and not changed since.
    is_closed: bool,
    /// [`live::STATE`], if it can be trusted.
    state: u64,
    identity: Option<[u64; 6]>,
}

impl Found {
    /// Inspects the file, which `writers` have open for writing. If it is untrusted, its live area is ignored.
    fn in_file(
        mapping: &Mapping,
        superblocks: &Superblocks,
        writers: &[entries::Process],
        settings: &Settings,
    ) -> Result<Found> {
        let identity = mapping.identity();
        let has_writers = !writers.is_empty();
        let current = !settings.untrusted && live_is_vouched_for(mapping, has_writers)?;
        let (place, of_live) = in_force(mapping)?;
        let of_live = of_live.filter(|superblock| current && live_counts(mapping, superblock, has_writers));
        let same_cache = of_live.is_some();
        let state = if current { mapping.live(live::STATE)? } else { 0 };
        let newest = newest(superblocks);
        let (in_force, superblock) = if same_cache { (which(place), of_live) } else { (newest, superblocks[newest]) };
        let Some(mut superblock) = superblock else {
            return Err(mapping.corrupt(in_force as u64 * SUPERBLOCK_B, "the superblock in force is damaged"));
        };
        // A live area that is in use is whole.
        let is_whole = same_cache || has_writers || live_is_whole(mapping, &superblock).unwrap_or(false);
        let is_closed = is_closed(mapping, &superblock)? && state & live::STATE_CLOSING == 0;
        // The next superblock must be newer than both.
        superblock.generation = generation(&superblocks[newest]).into();

        if superblock.is_clean() {
            check_len(mapping, &superblock)?;
        }
        Ok(Found { superblock, in_force, has_writers, same_cache, is_whole, is_closed, state, identity })
    }

    /// Takes up a store without other writers, in the quickest safe way. The mapping is its file, or has the same
    /// content. `whole`: how the whole file is locked; exclusively if it has no readers either. `None` if the memory
    /// that a dead process left cannot be trusted, and everything has to be done again without it.
    fn take_up(self, seated: Seated, trust: Trust, whole: Sharing) -> Result<Option<Engine>> {
        let Found { superblock, in_force, state, identity, .. } = self;
        let Seated { mapping, seat, settings } = &seated;
        let same_cache = self.same_cache && trust == Trust::Memory && !settings.untrusted;
        let is_closed = self.is_closed && !settings.untrusted;
        // Believed whatever its origin: it costs only time.
        let is_poisoned = mapping.live(live::STATE)? & live::STATE_POISONED != 0;
        // The live area of a closed store must not vanish under its readers. If nothing tells this page cache from
        // another, the presence of readers means that it may be theirs.
        let may_be_read = match identity {
            Some(_) => live_is_current(mapping, identity, SAME_FILE)?,
            None => whole == Sharing::Shared,
        };
        let as_closed = is_closed && self.is_whole && may_be_read && live_is_as_closed(mapping, &superblock)?;
        let as_left = same_cache && !is_poisoned;
        if let Some(locks) = &seat.locks {
            // Readers that have recovered it in their own memory continue to use the log.
            let stays = if is_closed {
                aside::none_is_beyond(locks, superblock.last_seq())
            } else if as_left {
                let visible = mapping.live_seq(live::VISIBLE)?;
                aside::none_is_beyond(locks, Seq::of_commit_word(mapping.live(live::COMMIT_POINT)?, visible))
            } else {
                aside::all_began_at(locks, superblock.log_head())
            };
            if !stays.map_err(|e| entries::lock_error(mapping, e))? {
                return Err(Error::Locked { path: mapping.path().to_owned(), by: HeldBy::Private });
            }
        }
        let engine = if as_closed && trust == Trust::Memory && !is_poisoned {
            forget_the_dead(mapping)?;
            let engine = attach(seated, Opened::Clean, superblock)?;
            if tables_have_grown(&engine.mapping)? {
                engine.lend_writing().give_tables_back()?;
            }
            if identity.is_none() {
                engine.trust_live()?;
            }
            engine
        } else if is_closed {
            open_clean(seated, superblock, in_force)?
        } else if as_left {
            match recovery::after_kill(seated, superblock, state) {
                Err(Error::Corrupt { .. }) => return Ok(None),
                engine => engine?,
            }
        } else if whole == Sharing::Exclusive {
            recovery::after_power_cut(seated, superblock, in_force)?
        } else {
            // Everything would be written anew under the eyes of readers.
            return Err(Error::Locked { path: mapping.path().to_owned(), by: HeldBy::Readers });
        };
        engine.end_opening(whole).map(Some)
    }
}

/// Takes the lock that an opening begins with. Waits for its holder as long as that makes progress, and then for
/// `patience`.
fn wait_for_opener(path: &Path, file: &File, patience: Duration, mut lock: impl FnMut() -> Result<bool>) -> Result<()> {
    let mut opener = None;
    let mut is_taken = false;
    loop {
        let before = opener;
        let is_further = entries::poll(patience, || {
            is_taken = lock()?;
            if !is_taken {
                opener = progress::opener_of(file);
            }
            Ok(is_taken || opener != before)
        })?;
        if is_taken {
            return Ok(());
        }
        if !is_further {
            let by = opener.map_or(HeldBy::Opening, |(pid, step)| HeldBy::Opener { pid, step });
            return Err(Error::Locked { path: path.to_owned(), by });
        }
    }
}

/// Refuses a private copy of a store that has writers.
fn refuse_beside(writers: &[entries::Process], mapping: &Mapping) -> Result<()> {
    match writers.first() {
        Some(writer) => Err(Error::Locked { path: mapping.path().to_owned(), by: writer.holder() }),
        None => Ok(()),
    }
}

/// The process that keeps us from locking the whole file in the mode `wanted`, as far as the file tells.
fn who_holds(path: &Path, file: &File, locks: &Locks, wanted: Sharing) -> HeldBy {
    let found = (|| {
        let file = file.try_clone().ok()?;
        let mapping = Mapping::of_file(file, path.to_owned(), Protection::ReadOnly, u64::MAX).ok()?;
        match entries::living(&mapping, locks) {
            Ok(writers) => writers.first().map(entries::Process::holder),
            Err(Error::Locked { by, .. }) => Some(by),
            Err(_) => None,
        }
    })();
    match found {
        Some(by) => by,
        None if locks.is_held(PRIVATE).unwrap_or(false) => HeldBy::Private,
        // Readers only prevent exclusive access.
        None if wanted == Sharing::Exclusive => HeldBy::Readers,
        None => HeldBy::Unknown,
    }
}

/// Whether a closed store still has the length it was closed with.
fn check_len(mapping: &Mapping, superblock: &Superblock) -> Result<()> {
    let (len, expected) = (mapping.file_len()?, superblock.file_len.get());
    if len < expected { Err(Error::Truncated { path: mapping.path().to_owned(), len, expected }) } else { Ok(()) }
}
