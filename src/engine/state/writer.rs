//! What the holder of the writer lock knows beyond what the file says.

use std::ops::Deref;
use std::sync::{MutexGuard, PoisonError};

use super::live_area::LogTotals;
use crate::engine::Engine;
use crate::engine::settings::Durability;
use crate::error::Result;
use crate::file::index::{Located, Totals};
use crate::file::layout::{ExtentKind, MapId, Offset, Seq, live};
use crate::file::log::Tail;
use crate::file::mapping::Mapping;
use crate::file::space::{Extent, Space, Waiting};

/// What the holder of the writer lock knows beyond the live words.
pub(crate) struct Writer {
    pub(crate) space: Space,
    /// The extent that the tail is in: start and end.
    pub(crate) extent: (Offset, Offset),
    /// That extent was made from the reserve, or lies beyond the limit: nothing may be appended that makes the store
    /// larger.
    pub(crate) on_reserve: bool,
    /// How far that extent is prepared for being stored to; [`Offset::MAX`] if it will not be any further.
    pub(crate) prepared: Offset,
    /// What lies after this was not in memory since the file was extended.
    pub(crate) fresh: Offset,
    /// Steps that shrink the store have found no room within the limit, and may exceed it.
    pub(crate) exceeds: bool,
    /// Nor have they found room by cleaning: they may use what is held back for that as well.
    pub(crate) spends_all: bool,
    /// Bytes of the longest record that this process has appended.
    pub(crate) longest: u64,
    /// The bytes that were neither in use nor free at the last look.
    pub(crate) waiting: Waiting,
    /// The count below which there are no readers any more, and the count of the last commit when that was found.
    pub(crate) unread_below: (u64, u64),
    /// How much of the log was passed is not known since damage without a known length was passed.
    pub(crate) is_uncounted: bool,
    /// The map whose index could not grow, in a store that evicts.
    pub(crate) refused: Option<MapId>,
    /// The count of the oldest reader that a change has waited for in vain.
    pub(crate) waited_for: u64,
    /// How long new extents of the log should be, if not as long as usual: at least, to fill a free run, and at most.
    pub(crate) run: Option<(u64, u64)>,
    /// What the last put has left; `None` as soon as anything else may have changed the store.
    pub(crate) left: Option<Left>,
}

/// What a put leaves for the next one of this process.
///
/// **Invariant.** It holds in the turn that comes next in the order of all processes, and there until anything is
/// changed: the words that it repeats are stored by the holder of the writer lock only. Whether it is that turn, the
/// lock word says, which counts how often the lock was taken.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Left {
    /// The lock word in the next turn, if that is ours.
    pub(crate) word: u64,
    /// The map that was written to, its index in force and its counters.
    pub(crate) map: MapId,
    pub(crate) index: Located,
    pub(crate) totals: Totals,
    /// The counters of the log.
    pub(crate) log: LogTotals,
    /// Where the log continues, and the number of the next commit.
    pub(crate) tail: Tail,
    /// A record that ends here or before has room, in memory that is prepared for it.
    pub(crate) room_until: Offset,
    /// Cleaning is due once the log has had this many bytes.
    pub(crate) clean_at: u64,
}

impl Writer {
    /// A writer's knowledge of a store whose log continues at `tail`.
    pub(crate) fn new(mapping: &Mapping, space: Space, tail: Offset) -> Result<Writer> {
        let mut writer = Writer { space, ..Writer::unknowing() };
        writer.settle(mapping, tail)?;
        Ok(writer)
    }

    /// A writer that has to look at the space table first.
    pub(crate) fn unknowing() -> Writer {
        Writer {
            space: Space::unknown(),
            extent: (Offset::NONE, Offset::NONE),
            on_reserve: false,
            prepared: Offset::MAX,
            fresh: Offset::MAX,
            exceeds: false,
            spends_all: false,
            longest: 0,
            waiting: Waiting::default(),
            unread_below: (0, 0),
            is_uncounted: false,
            refused: None,
            waited_for: u64::MAX,
            run: None,
            left: None,
        }
    }

    /// Finds the extent that the tail is in.
    pub(crate) fn settle(&mut self, mapping: &Mapping, tail: Offset) -> Result<()> {
        let extent = self.space.log_extent_of(tail).copied();
        let extent = extent.ok_or_else(|| mapping.corrupt(tail, "the tail of the log lies in no extent"))?;
        let prepared = if (extent.offset, extent.end()) == self.extent { self.prepared } else { Offset::MAX };
        self.enter(mapping, extent);
        self.prepared = prepared;
        Ok(())
    }

    /// The log continues in this extent.
    pub(crate) fn enter(&mut self, mapping: &Mapping, extent: Extent) {
        self.extent = (extent.offset, extent.end());
        self.prepared = Offset::MAX;
        self.on_reserve = extent.kind == ExtentKind::ReserveLog || mapping.check_limit(0, 0, extent.end()).is_err();
    }
}

/// The right to change the store.
///
/// A [turn](crate::engine::write::turn::Turn) lends it, and so does an opening, when no other process can write. All
/// that changes anything is a method of this, or takes it; what an [`Engine`] alone can do, any code may at any time.
pub(crate) struct Writing<'e> {
    pub(crate) engine: &'e Engine,
    pub(crate) writer: MutexGuard<'e, Writer>,
}

impl Engine {
    /// The right to change the store, for a turn or an opening to lend.
    #[inline(always)]
    pub(crate) fn lend_writing(&self) -> Writing<'_> {
        let mut writing = self.continue_writing();
        writing.writer.left = None;
        writing
    }

    /// The same for a turn that looks first whether everything is as a put has [left](Left) it.
    #[inline(always)]
    pub(crate) fn continue_writing(&self) -> Writing<'_> {
        Writing { engine: self, writer: self.writer.lock().unwrap_or_else(PoisonError::into_inner) }
    }

    /// What the writer knows, to look at.
    pub(crate) fn writer(&self) -> impl Deref<Target = Writer> {
        self.lend_writing().writer
    }
}

impl Writing<'_> {
    /// The number of the commit that is being made, or that comes next.
    #[inline]
    pub(crate) fn seq(&self) -> Result<Seq> {
        Ok(self.engine.mapping.live_seq(live::VISIBLE)?.next())
    }

    /// Takes a step during which the store may exceed its limit by this many bytes.
    pub(crate) fn exceeding<R>(&mut self, bytes: u64, step: impl FnOnce(&mut Self) -> R) -> R {
        let mapping = &self.engine.mapping;
        mapping.exceeding(bytes, || step(self))
    }

    /// The place where the log continues.
    #[inline(always)]
    pub(crate) fn tail(&self) -> Result<Tail> {
        let front = self.engine.mapping.window();
        let (at, chain) = (Offset(front.live(live::TAIL)), front.live(live::CHAIN) as u32);
        let seq = Seq(front.live(live::VISIBLE)).next();
        let synced = self.engine.settings.durability == Durability::Synced;
        Ok(Tail { at, chain, extent_end: self.writer.extent.1, seq, synced })
    }
}
