//! Where the handles of a store have their engine from.

use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use crate::engine::Engine;
use crate::engine::recovery::Opened;
use crate::error::Result;

/// How long those who wait for changes sleep before they look again whether somebody has come to write.
const POLL: Duration = Duration::from_millis(5);

/// The engine of a store, for all its handles.
#[derive(Clone)]
pub(crate) enum Source {
    /// The same one for as long as there are handles.
    Lasting(Arc<Engine>),
    /// One that stands [aside](crate::engine::aside) until somebody comes to write.
    Following(Arc<Following>),
}

/// An engine that stands aside, and the one that takes its place.
pub(crate) struct Following {
    opened: Opened,
    now: Mutex<Arc<Engine>>,
    /// The one that stood aside, as long as somebody reads from it.
    before: Weak<Engine>,
    /// The one in its place, once it is there.
    next: OnceLock<Arc<Engine>>,
}

/// An engine, for one call.
pub(crate) enum EngineRef<'s> {
    Lent(&'s Arc<Engine>),
    Shared(Arc<Engine>),
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
        let (opened, engine) = (engine.opened, Arc::new(engine));
        let before = Arc::downgrade(&engine);
        Source::Following(Arc::new(Following { opened, now: Mutex::new(engine), before, next: OnceLock::new() }))
    }

    /// What `f` makes of the value of a key, and its deadline, if it has one: see [`Engine::read`].
    #[inline(always)]
    pub(crate) fn read<R>(&self, map: u32, key: &[u8], f: impl FnOnce(&[u8], Option<u64>) -> R) -> Result<Option<R>> {
        match self {
            Source::Lasting(engine) => engine.read(map, key, f),
            // It only reads. Said here, so that what reads under a pin is in this place once.
            Source::Following(following) => {
                let found = following.engine().get_unpinned(map, key)?;
                Ok(found.map(|(value, expires)| f(&value, expires)))
            }
        }
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

    /// How many hold a share in it, this one included.
    pub(crate) fn handles(&self) -> usize {
        match self {
            Source::Lasting(engine) => Arc::strong_count(engine),
            Source::Following(following) => Arc::strong_count(following) + following.users(),
        }
    }

    /// Waits until there is a commit that is newer than `seq` and changed something, and says whether there is one.
    pub(crate) fn wait_for_change(&self, seq: u64, timeout: Duration) -> Result<bool> {
        let start = Instant::now();
        loop {
            let engine = self.engine();
            let left = timeout.saturating_sub(start.elapsed());
            let piece = if engine.is_aside() { left.min(POLL) } else { left };
            if engine.wait_for_change(seq, piece)? || piece == left {
                return engine.wait_for_change(seq, Duration::ZERO);
            }
        }
    }
}

impl Following {
    #[cold]
    fn engine(&self) -> EngineRef<'_> {
        if let Some(next) = self.next.get() {
            return EngineRef::Lent(next);
        }
        let mut now = self.now();
        if let Some(next) = now.follow() {
            *now = Arc::clone(self.next.get_or_init(|| Arc::new(next)));
        }
        EngineRef::Shared(Arc::clone(&now))
    }

    /// How many views there are of both engines.
    pub(crate) fn users(&self) -> usize {
        // What is held here does not count.
        match (self.now(), self.next.get()) {
            (_, Some(next)) => Arc::strong_count(next) - 2 + self.before.strong_count(),
            (now, None) => Arc::strong_count(&now) - 1,
        }
    }

    fn now(&self) -> MutexGuard<'_, Arc<Engine>> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
