//! The optional thread that does the upkeep of a store.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::engine::Engine;
use crate::{Error, Result};

/// How long the thread works before it checks whether to end.
const BUDGET: Duration = Duration::from_millis(5);

/// How long it waits for a writer: an open transaction may hold the lock for ever, and another thread may be waiting
/// for this one to end.
const PATIENCE: Duration = Duration::from_millis(20);

/// How long it sleeps when nothing wakes it.
const LONGEST: Duration = Duration::from_secs(1);

/// The thread, which ends when this is dropped. Until then both keep the store open.
pub(crate) struct Background {
    engine: Arc<Engine>,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// How many references to the engine one of these holds.
pub(crate) const REFERENCES: usize = 2;

impl Background {
    /// Starts it.
    pub(crate) fn start(engine: &Arc<Engine>) -> Result<Background> {
        let ended = Arc::new(AtomicBool::new(false));
        let (of_thread, ended_too) = (Arc::clone(engine), Arc::clone(&ended));
        let thread = thread::Builder::new()
            .name("slotlog upkeep".to_owned())
            .spawn(move || run(&of_thread, &ended_too))
            .map_err(|e| Error::io(engine.mapping.path(), "start a thread", e))?;
        Ok(Background { engine: Arc::clone(engine), ended, thread: Some(thread) })
    }
}

fn run(engine: &Engine, ended: &AtomicBool) {
    engine.upkeep.take_on();
    while !ended.load(Ordering::Acquire) {
        // What fails here fails again in a call that can report it.
        let more = engine.maintain(BUDGET, PATIENCE).unwrap_or(false);
        if ended.load(Ordering::Acquire) {
            break;
        }
        if more {
            // Writers come first.
            thread::yield_now();
        } else {
            thread::park_timeout(LONGEST);
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
        thread.thread().unpark();
        // If the thread panicked, the panic was reported.
        let _ = thread.join();
    }
}
