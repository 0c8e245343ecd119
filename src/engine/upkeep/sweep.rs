//! Sweeping: forgetting the maps that were dropped, when no reader can see them any more.

use std::sync::atomic::Ordering;

use crate::engine::Engine;
use crate::engine::state::writer::Writing;
use crate::error::Result;
use crate::file::layout::ExtentKind;

impl Engine {
    /// [Forgets](Engine::sweep_dropped_maps) the dropped maps that this process knows of, if it knows of any.
    pub(crate) fn sweep_drops(&self) -> Result<()> {
        if self.drops.load(Ordering::Relaxed) { self.sweep_dropped_maps() } else { Ok(()) }
    }

    /// Forgets the maps that were dropped and that no reader can see any more.
    pub(crate) fn sweep_dropped_maps(&self) -> Result<()> {
        // Cleared before the look: a map that is dropped meanwhile is noted after it.
        self.drops.store(false, Ordering::Relaxed);
        if !self.map_table()?.iter()?.any(|entry| entry.dropped) {
            return Ok(());
        }
        // Readers may hold some of them.
        self.drops.store(true, Ordering::Relaxed);
        self.turn()?.write().sweep_in_turn()
    }
}

impl<'e> Writing<'e> {
    pub(crate) fn sweep_in_turn(&mut self) -> Result<()> {
        let table = self.engine.map_table()?;
        let dropped: Vec<_> = table.iter()?.filter(|entry| entry.dropped).collect();
        if dropped.is_empty() {
            return Ok(());
        }
        let unread_below = self.raise_horizon()?;
        let seq = self.seq()?;
        let mut swept = false;
        for entry in dropped {
            if self.engine.index_in_force(entry.map)?.since().count() <= unread_below {
                table.remove(entry)?;
                self.writer.space.set_kind(&self.engine.mapping, entry.region(), ExtentKind::Retired, seq)?;
                swept = true;
            }
        }
        // Readers that start from now on reach none of them.
        if swept { self.skip_number() } else { Ok(()) }
    }
}
