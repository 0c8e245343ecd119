//! The engine that the handles of a store use.

use crate::file::layout::{MapId, Seq};
use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::{ArcSwap, Guard};

use crate::engine::Engine;
use crate::engine::clock::deadline;
use crate::engine::settings::Opened;
use crate::error::Result;
use crate::keys::{ChangeKeys, ReadKeys};

/// How long a thread that waits for changes sleeps before it looks again whether a process has opened the store for
/// writing.
const POLL: Duration = Duration::from_millis(5);

/// The engine of a store, for all its handles.
#[derive(Clone)]
pub(crate) enum Source {
    /// The same one for as long as there are handles.
    Lasting(Arc<Engine>),
    /// An engine that stands [aside](crate::engine::open::aside) until a process opens the store for writing.
    Following(Arc<Following>),
}

/// An engine that stands aside, and those that replace it.
pub(crate) struct Following {
    opened: Opened,
    now: ArcSwap<Engine>,
    /// The engines before, as long as they have readers. Locked while the next one is opened.
    before: Mutex<Vec<Weak<Engine>>>,
}

/// An engine, for one call.
pub(crate) enum EngineRef<'s> {
    Lent(&'s Arc<Engine>),
    Shared(Guard<Arc<Engine>>),
}

impl Deref for EngineRef<'_> {
    type Target = Arc<Engine>;

    #[inline(always)]
    fn deref(&self) -> &Arc<Engine> {
        match self {
            EngineRef::Lent(engine) => engine,
            EngineRef::Shared(engine) => engine,
        }
    }
}

impl Source {
    pub(crate) fn new(engine: Engine) -> Source {
        if !engine.is_aside() {
            return Source::Lasting(Arc::new(engine));
        }
        let (opened, now) = (engine.opened, ArcSwap::from_pointee(engine));
        Source::Following(Arc::new(Following { opened, now, before: Mutex::default() }))
    }

    /// Whether the store was opened for reading.
    #[inline(always)]
    pub(crate) fn is_read_only(&self) -> bool {
        match self {
            Source::Lasting(engine) => engine.read_only,
            Source::Following(_) => true,
        }
    }

    #[inline(always)]
    pub(crate) fn engine(&self) -> EngineRef<'_> {
        match self {
            Source::Lasting(engine) => EngineRef::Lent(engine),
            Source::Following(following) => following.engine(),
        }
    }

    /// How the store was found when it was opened.
    pub(crate) fn opened(&self) -> Opened {
        match self {
            Source::Lasting(engine) => engine.opened,
            Source::Following(following) => following.opened,
        }
    }

    /// The number of references to it, including this one.
    pub(crate) fn handles(&self) -> usize {
        match self {
            Source::Lasting(engine) => Arc::strong_count(engine),
            Source::Following(following) => Arc::strong_count(following) + following.users(),
        }
    }

    /// Waits until there is a commit that is newer than `seq` and changed something, and returns whether there is one.
    pub(crate) fn wait_for_change(&self, seq: Seq, timeout: Duration) -> Result<bool> {
        let start = Instant::now();
        loop {
            let engine = self.engine();
            let left = timeout.saturating_sub(start.elapsed());
            let piece = if engine.is_aside() { left.min(POLL) } else { left };
            let has_changed = engine.wait_for_change(seq, piece)?;
            if has_changed || piece == left {
                return Ok(has_changed);
            }
        }
    }
}

impl ReadKeys for Source {
    /// See [`Engine::read`].
    #[inline(always)]
    fn read<R>(&self, map: MapId, key: &[u8], f: impl FnOnce(&[u8], Option<u64>) -> R) -> Result<Option<R>> {
        match self {
            Source::Lasting(engine) => engine.read(map, key, f),
            // It only reads. Handled here, so that reading under a pin is compiled in once.
            Source::Following(following) => {
                let found = following.engine().get_unpinned(map, key)?;
                Ok(found.map(|(value, expires)| f(&value, expires)))
            }
        }
    }
}

impl ChangeKeys for &Source {
    #[inline(always)]
    fn insert(self, map: MapId, key: &[u8], value: &[u8], until: Option<SystemTime>) -> Result<()> {
        match self {
            Source::Lasting(engine) => engine.put(map, key, value, until.map(deadline)),
            Source::Following(following) => following.engine().put(map, key, value, until.map(deadline)),
        }
    }

    fn remove(self, map: MapId, key: &[u8]) -> Result<bool> {
        self.engine().remove(map, key)
    }
}

impl Following {
    #[cold]
    fn engine(&self) -> EngineRef<'_> {
        let now = self.now.load();
        // In a forked child, the lock may belong to a thread that is not there.
        if !now.is_aside() || now.is_forked() {
            return EngineRef::Shared(now);
        }
        let mut before = self.before.lock().unwrap_or_else(PoisonError::into_inner);
        // Another thread may have followed meanwhile.
        let now = self.now.load();
        let Some(next) = now.follow() else { return EngineRef::Shared(now) };
        before.retain(|engine| engine.strong_count() > 0);
        before.push(Arc::downgrade(&now));
        self.now.store(Arc::new(next));
        EngineRef::Shared(self.now.load())
    }

    /// The number of references to all engines.
    pub(crate) fn users(&self) -> usize {
        let now = self.now.load_full();
        if now.is_forked() {
            return 0;
        }
        let before = self.before.lock().unwrap_or_else(PoisonError::into_inner);
        // References held here do not count.
        before.iter().map(Weak::strong_count).sum::<usize>() + Arc::strong_count(&now).saturating_sub(2)
    }
}
