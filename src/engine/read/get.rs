//! Reading one key, and counting them.

use std::ops::Deref;

use super::pins::{Pin, View};
use crate::engine::Engine;
use crate::engine::clock::Moment;
use crate::engine::lookup::keys::Sight;
use crate::error::Result;
use crate::file::index::Totals;
use crate::file::layout::{MapId, live};
use crate::file::log::{Record, Wanted};

impl View<'_> {
    /// The record that holds the value of a key.
    pub(crate) fn get(&self, map: MapId, key: &[u8]) -> Result<Option<Record<'_>>> {
        let (engine, seq) = (self.engine(), self.seq());
        match engine.lines_at(map, seq)? {
            Some(lines) => engine.lookup(lines, Wanted { map, key, seq }, Moment::NOW),
            None => Ok(None),
        }
    }
}

impl Engine {
    /// The result of `f` on the value of a key and its deadline, if it has one. `f` sees the value in place, or a copy
    /// if the store was opened for reading.
    #[inline(always)]
    pub(crate) fn read<R>(&self, map: MapId, key: &[u8], f: impl FnOnce(&[u8], Option<u64>) -> R) -> Result<Option<R>> {
        let Some(view) = self.kept_view() else { return self.read_under_any_pin(map, key, f) };
        let window = self.mapping.window();
        let sight = match self.lines_at_a_glance(window, map, view.seq()) {
            Some(lines) => self.sight_of(window, lines, Wanted { map, key, seq: view.seq() }),
            None => Sight::Unclear,
        };
        match sight {
            Sight::Value(value) => Ok(Some(f(value, None))),
            Sight::Nothing => Ok(None),
            Sight::Unclear => {
                drop(view);
                self.read_under_any_pin(map, key, f)
            }
        }
    }

    /// The same for any store and record.
    #[cold]
    #[inline(never)]
    fn read_under_any_pin<R>(
        &self,
        map: MapId,
        key: &[u8],
        f: impl FnOnce(&[u8], Option<u64>) -> R,
    ) -> Result<Option<R>> {
        if self.read_only {
            return Ok(self.get_unpinned(map, key)?.map(|(value, expires)| f(&value, expires)));
        }
        let view = self.view()?;
        Ok(view.get(map, key)?.map(|record| f(record.value(), record.expires())))
    }

    /// How many keys a map has, including expired ones that were not removed yet.
    pub(crate) fn len(&self, map: MapId) -> Result<u64> {
        if self.read_only {
            return self.len_unpinned(map);
        }
        let (_, _, totals) = Pin::with_totals(self, map)?;
        Ok(totals.keys)
    }

    /// The ids of all maps, after a closer look at their regions than a read takes.
    pub(crate) fn map_ids(&self) -> Result<Vec<MapId>> {
        let _view = self.view()?;
        Ok(self.maps()?.into_iter().map(|(map, _)| map).collect())
    }
}

impl<E: Deref<Target = Engine> + Clone> Pin<E> {
    /// A pin, and the counters of a map at its commit. Besides, where the region of the map's index is, if it has one,
    /// as a word of the map table.
    pub(crate) fn with_totals(engine: E, map: MapId) -> Result<(Pin<E>, Option<u64>, Totals)> {
        loop {
            let pin = Pin::take(engine.clone())?;
            let Some(index) = engine.index_at(map, pin.seq())? else { return Ok((pin, None, Totals::default())) };
            if let Some(totals) = index.totals_at(pin.seq())? {
                let extent = index.extent();
                return Ok((pin, Some(extent), totals));
            }
            // Two commits came in between: begin again with a newer view.
            if engine.visible()? == pin.seq() {
                return Err(engine.mapping.corrupt(live::MAP_TABLE, format!("map {map} has lost its counters")));
            }
        }
    }
}
