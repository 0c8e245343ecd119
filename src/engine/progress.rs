//! Progress of a long recovery.

use std::fs::File;
use std::sync::atomic::Ordering;

use crate::engine::settings::{OnRecovery, RecoveryPhase, RecoveryProgress, Settings};
use crate::error::{OpenerStep, Result};
use crate::file::layout::{live, opener};
use crate::file::mapping::{self, Mapping};

/// Bytes of log between two calls.
const EVERY: u64 = 4 << 20;

/// The words that tell which process opens or closes the store, and how far it is.
const WORDS: [u64; 3] = [live::OPENER, live::OPENER_DONE, live::OPENER_TOTAL];

/// Tells waiting openers which process opens or closes the store, and how far it is. It only informs.
pub(crate) fn note(mapping: &Mapping, step: u64, done: u64, total: u64) {
    for (at, value) in WORDS.into_iter().zip([opener::word(std::process::id(), step), done, total]) {
        let _ = mapping.store_live(at, value, Ordering::Relaxed);
    }
}

/// Takes back on drop what was noted: an opening that fails has then not changed the file.
struct Noting<'r> {
    mapping: &'r Mapping,
    before: [u64; 3],
}

impl<'r> Noting<'r> {
    fn begin(mapping: &'r Mapping) -> Noting<'r> {
        Noting { mapping, before: WORDS.map(|at| mapping.live(at).unwrap_or_default()) }
    }
}

impl Drop for Noting<'_> {
    fn drop(&mut self) {
        for (at, value) in WORDS.into_iter().zip(self.before) {
            let _ = self.mapping.store_live(at, value, Ordering::Relaxed);
        }
    }
}

/// The process that opens or closes the store in this file, and its step, as [noted](note). The file may be anything.
pub(crate) fn opener_of(file: &File) -> Option<(u32, OpenerStep)> {
    let mut words = [0; 24];
    mapping::read_at(file, live::OPENER, &mut words).ok()?;
    let word = |number: usize| u64::from_le_bytes(std::array::from_fn(|byte| words[8 * number + byte]));
    let (pid, step) = opener::parts(word(0))?;
    let (done, total) = (word(1), word(2));
    let step = match step {
        opener::OPENING => OpenerStep::Opening,
        opener::WALKING => OpenerStep::Walking { done, total },
        opener::INDEXING => OpenerStep::Indexing { done, total },
        opener::FLUSHING => OpenerStep::Flushing { done, total },
        opener::CLOSING => OpenerStep::Closing { done, total },
        _ => return None,
    };
    Some((pid, step))
}

/// Notes that no process opens or closes the store any more.
pub(crate) fn note_the_end(mapping: &Mapping) -> Result<()> {
    mapping.store_live(live::OPENER, 0, Ordering::Relaxed)
}

/// Flushes all of the file, and lets others see the progress.
pub(crate) fn flush_all(mapping: &Mapping, step: u64) -> Result<()> {
    let (total, _noting) = (mapping.len(), Noting::begin(mapping));
    mapping.write_back_all(|done| note(mapping, step, done, total))?;
    mapping.flush_all()
}

/// One phase of a recovery.
pub(crate) struct Phase<'r> {
    noting: Noting<'r>,
    on_recovery: Option<OnRecovery>,
    progress: RecoveryProgress,
    told: u64,
}

impl<'r> Phase<'r> {
    pub(crate) fn begin(mapping: &'r Mapping, settings: &Settings, phase: RecoveryPhase, total: u64) -> Phase<'r> {
        let begun = Phase {
            noting: Noting::begin(mapping),
            on_recovery: settings.on_recovery.clone(),
            progress: RecoveryProgress { phase, done: 0, total },
            told: 0,
        };
        begun.tell();
        begun
    }

    fn tell(&self) {
        let RecoveryProgress { phase, done, total } = self.progress;
        let step = match phase {
            RecoveryPhase::Walking => opener::WALKING,
            RecoveryPhase::Indexing => opener::INDEXING,
        };
        note(self.noting.mapping, step, done, total);
        if let Some(OnRecovery(call)) = &self.on_recovery {
            call(self.progress);
        }
    }

    /// This many more bytes are done.
    #[inline]
    pub(crate) fn advance(&mut self, bytes: u64) {
        self.progress.done += bytes;
        if self.progress.done - self.told >= EVERY {
            self.told = self.progress.done;
            self.tell();
        }
    }

    /// All of it is done.
    pub(crate) fn end(mut self) {
        self.progress.total = self.progress.done;
        self.tell();
    }
}
