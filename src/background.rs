//! The thread that does the upkeep of a store, for those who ask for one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::engine::Engine;
use crate::{Error, Result};

/// How long the thread works at a time before it looks whether it is to end.
const BUDGET: Duration = Duration::from_millis(5);

/// How long it waits for one who writes: with a transaction open, that may be for ever, and somebody may wait for the
/// thread to end.
const PATIENCE: Duration = Duration::from_millis(20);

/// How long it sleeps if nobody wakes it.
const LONGEST: Duration = Duration::from_secs(1);

/// The thread, which ends when this is dropped. Until then it keeps the store open, as this does.
pub(crate) struct Background {
    engine: Arc<Engine>,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// How many references to the engine there are because of one of these.
pub(crate) const REFERENCES: usize = 2;

impl Background {
    /// Starts it.
    pub(crate) fn start(engine: &Arc<Engine>) -> Result<Background> {
        let ended = Arc::new(AtomicBool::new(false));
        let (of_thread, ended_too) = (Arc::clone(engine), Arc::clone(&ended));
        let thread = std::thread::Builder::new()
            .name("slotlog upkeep".to_owned())
            .spawn(move || run(&of_thread, &ended_too))
            .map_err(|e| Error::io(engine.region.path(), "start a thread", e))?;
        Ok(Background { engine: Arc::clone(engine), ended, thread: Some(thread) })
    }
}

fn run(engine: &Engine, ended: &AtomicBool) {
    while !ended.load(Ordering::Acquire) {
        // What fails here fails again where somebody can be told.
        let more = engine.maintain(BUDGET, PATIENCE).unwrap_or(false);
        if ended.load(Ordering::Acquire) {
            break;
        }
        if more {
            // Writers come first.
            std::thread::yield_now();
        } else {
            engine.upkeep.wait(LONGEST);
        }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Release);
        let Some(thread) = self.thread.take() else { return };
        // A forked child has no such thread.
        if self.engine.is_forked() {
            return;
        }
        self.engine.upkeep.ring();
        // If it has panicked, that was told.
        let _ = thread.join();
    }
}
