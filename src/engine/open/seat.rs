//! The seat: the locks and the entry of an opener, and the engine that is made with them.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crate::engine::clock::now;
use crate::engine::durable::flusher::Flusher;
use crate::engine::durable::once_more::OnceMore;
use crate::engine::durable::reach::{Durable, Reach};
use crate::engine::durable::slices::Slices;
use crate::engine::lookup::marks::Marks;
use crate::engine::lookup::pin_table::{Claims, Search};
use crate::engine::lookup::versions::OldReaders;
use crate::engine::processes::entries;
use crate::engine::processes::gate::Gate;
use crate::engine::read::kept::KeptPins;
use crate::engine::read::sharing::{SharedPins, SnapshotLocks};
use crate::engine::settings::{Access, Opened, Policy, Settings};
use crate::engine::state::ledger::Upkeep;
use crate::engine::state::words::AtRest;
use crate::engine::state::writer::Writer;
use crate::engine::{Engine, progress};
use crate::error::{Error, HeldBy, Result};
use crate::file::layout::{Superblock, live, opener, process};
use crate::file::locks::{Locks, OPENING, Sharing, fork};
use crate::file::mapping::Mapping;
use crate::file::space::Space;

/// How many stores this process has opened.
static ORIGINS: AtomicU64 = AtomicU64::new(0);

/// What an opener holds.
pub(crate) struct Seat {
    /// Used by the engine.
    pub(crate) locks: Option<Arc<Locks>>,
    /// Only held.
    pub(super) held: Option<Arc<Locks>>,
    /// The entry of the process table whose byte is locked.
    pub(crate) entry: u64,
    /// No other process can open the store meanwhile.
    pub(crate) exclusive: bool,
}

impl Seat {
    /// In memory there are no other processes. `held` keeps them from a file that the memory is a copy of.
    pub(super) fn alone(held: Option<Arc<Locks>>) -> Seat {
        Seat { locks: None, held, entry: 0, exclusive: true }
    }
}

/// A mapping with a seat: every opening begins with this.
pub(crate) struct Seated {
    pub(crate) mapping: Mapping,
    pub(crate) seat: Seat,
    pub(crate) settings: Settings,
}

impl Engine {
    /// Puts the pieces together. `writer`: what is already known of the state that only writers need.
    pub(crate) fn assemble(seated: Seated, opened: Opened, superblock: Superblock, writer: Writer) -> Result<Engine> {
        let Seated { mapping, seat, settings } = seated;
        let gate = match &seat.locks {
            Some(locks) => Gate::listed(locks.id().map_err(|e| entries::lock_error(&mapping, e))?, seat.entry),
            None => Arc::default(),
        };
        // Anything past the superblock's end counts as not flushed.
        let durable = Durable::up_to(superblock.log_end(), superblock.last_seq());
        Ok(Engine {
            seed: superblock.hash_seed.get(),
            locks: seat.locks,
            held: seat.held,
            // Forks are noticed from the first opening on, even in a process with stores in memory only.
            generation: fork::guarded(|_| fork::generation()),
            process: seat.entry,
            exclusive: seat.exclusive,
            read_only: settings.access == Access::ReadOnly,
            plain_reads: !settings.verify_reads && settings.evict != Some(Policy::SecondChance),
            marks: (settings.evict == Some(Policy::SecondChance)).then(|| Marks::new(settings.max_size)),
            at_rest: None,
            woken: AtomicBool::new(false),
            aside: None,
            origin: ORIGINS.fetch_add(1, Ordering::Relaxed),
            claims: Claims::of(seat.entry),
            pin_search: Search::of(seat.entry),
            kept_pins: KeptPins::new(),
            shared_pins: SharedPins::default(),
            snapshot_locks: SnapshotLocks::default(),
            gate,
            old_readers: OldReaders::default(),
            last_index: AtomicU64::new(0),
            flusher: Flusher::new(durable),
            slices: Slices::new(durable),
            once_more: OnceMore::new(durable),
            reach: Reach::unknown(),
            writer: Mutex::new(writer),
            closed: AtomicBool::new(superblock.is_clean()),
            upkeep: Upkeep::default(),
            superblock: Mutex::new(superblock),
            changed: AtomicBool::new(false),
            drops: AtomicBool::new(true),
            left_something: AtomicBool::new(false),
            ready: AtomicBool::new(false),
            mapping,
            settings,
            opened,
        })
    }

    /// An engine that reads a closed store at rest.
    pub(super) fn open_at_rest(seated: Seated, superblock: Superblock, at_rest: AtRest) -> Result<Engine> {
        // A damaged table must show now.
        let space = Space::load(&seated.mapping, at_rest.space_table)?;
        let writer = Writer::new(&seated.mapping, space, superblock.log_end())?;
        let mut engine = Engine::assemble(seated, Opened::Clean, superblock, writer)?;
        engine.at_rest = Some(at_rest);
        Ok(engine)
    }

    /// Marks the live area as valid as long as this page cache lives.
    pub(crate) fn trust_live(&self) -> Result<()> {
        let identity = match self.mapping.identity() {
            Some(identity) => identity,
            None => random_identity(self.mapping.path())?,
        };
        for (index, word) in identity.into_iter().enumerate() {
            self.mapping.store_live(live::IDENTITY + 8 * index as u64, word, Ordering::Relaxed)?;
        }
        self.mapping.store_live(live::VERSION_WORD, live::VERSION, Ordering::Release)?;
        self.ready.store(true, Ordering::Release);
        Ok(())
    }

    /// The last steps of every opening: the process table, and letting others in again. `whole`: how the whole file is
    /// locked.
    pub(super) fn end_opening(self, whole: Sharing) -> Result<Engine> {
        if !self.read_only {
            // The previous owner of our entry is dead, for we hold its byte.
            self.clean_entry(self.process)?;
            if !self.sweep()? {
                self.lend_writing().give_tables_of_the_dead_back()?;
            }
            self.mapping.mark();
        }
        if let Some(locks) = &self.locks {
            let locking = |error| Error::io(self.mapping.path(), "lock the file", error);
            if whole == Sharing::Exclusive && !self.exclusive && !self.read_only {
                // No other process can come in between: it would need the lock for opening, which is still ours.
                locks.unlock_whole().map_err(locking)?;
                if !locks.try_whole(Sharing::Shared).map_err(locking)? {
                    return Err(Error::Locked { path: self.mapping.path().to_owned(), by: HeldBy::Unknown });
                }
            }
        }
        // From here on superblocks are locked and read as in any open store.
        self.ready.store(true, Ordering::Release);
        if !self.read_only
            && let Err(error) = self.make_room_for_entry().and_then(|()| self.enter())
        {
            self.ready.store(false, Ordering::Release);
            self.clean_entry(self.process)?;
            progress::note_the_end(&self.mapping)?;
            return Err(error);
        }
        if let Some(locks) = &self.locks {
            if !self.read_only {
                let number = random(self.mapping.path())?;
                self.mapping.store_live(live::OPENING_ID, number, Ordering::Release)?;
                progress::note_the_end(&self.mapping)?;
            }
            locks.unlock(OPENING).map_err(|error| Error::io(self.mapping.path(), "lock the file", error))?;
        }
        Ok(self)
    }

    /// Writes our entry, whose lock we hold.
    pub(crate) fn enter(&self) -> Result<()> {
        let at = self.entry()?;
        let mode = if self.exclusive { process::EXCLUSIVE } else { process::SHARED };
        let mapping = &self.mapping;
        mapping.store(at + process::SINCE, now(), Ordering::Relaxed)?;
        mapping.store(at + process::MODE, mode, Ordering::Relaxed)?;
        mapping.store(at + process::BOOT, mapping.identity().unwrap_or_default()[0], Ordering::Relaxed)?;
        mapping.store(at + process::ASYMMETRIC, u64::from(self.kept_pins.is_asymmetric()), Ordering::Relaxed)?;
        mapping.store(at + process::REFUSED, 0, Ordering::Relaxed)?;
        mapping.store(at + process::PID, u64::from(std::process::id()) + 1, Ordering::SeqCst)
    }
}

/// Opens a store whose live area is valid, because others use it or have left it so.
pub(super) fn attach(seated: Seated, opened: Opened, superblock: Superblock) -> Result<Engine> {
    progress::note(&seated.mapping, opener::OPENING, 0, 0);
    // The space table changes while others write; it is read when the writer lock is held.
    Engine::assemble(seated, opened, superblock, Writer::unknowing())
}

/// Replaces the identity where the system has none: it tells readers of a closed store, which know the previous value,
/// that it was opened. It proves nothing about the page cache.
fn random_identity(path: &Path) -> Result<[u64; 6]> {
    let mut words = [0; 6];
    for word in &mut words {
        *word = random(path)?;
    }
    Ok(words)
}

pub(super) fn random(path: &Path) -> Result<u64> {
    getrandom::u64().map_err(|e| Error::io(path, "get random bytes", io::Error::other(e)))
}
