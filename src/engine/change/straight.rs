//! The straight way of a put: into a store that is as the last put of this process has [left](Left) it.
//!
//! Nearly every put of a busy process finds all words as the one before has stored them. Then it need not look at them:
//! it looks the key up, appends, and commits as any other does. Where anything is unusual, it says so before it has
//! changed anything, and the put takes the way that looks at everything, and leaves word for the next.

use std::ops::ControlFlow;
use std::sync::atomic::Ordering;

use crate::engine::settings::Durability;
use crate::engine::state::live_area::{Appended, LogTotals};
use crate::engine::state::writer::{Left, Writing};
use crate::engine::write::commit::{Effect, Tally};
use crate::engine::write::space::SHORTCUT_LEN;
use crate::error::Result;
use crate::file::index::{Index, Sought};
use crate::file::layout::{JUMP_LEN, KeyHash, Kind, MapId, Offset, Seq, flags, live, record_len};
use crate::file::log::{self, Entry, Glance, Wanted};

impl Writing<'_> {
    /// Puts one key that does not expire, if the store is as the last put has left it and nothing else is unusual.
    /// Otherwise nothing has changed.
    #[inline(always)]
    pub(super) fn put_as_left(&mut self, map: MapId, (hash, key): (KeyHash, &[u8]), value: &[u8]) -> Result<bool> {
        let engine = self.engine;
        let mapping = &engine.mapping;
        let Some(left) = &self.writer.left else { return Ok(false) };
        let len = record_len(key.len() as u64, value.len() as u64);
        if left.map != map || left.tail.at + len > left.room_until {
            return Ok(false);
        }
        let (mut tail, mut totals, before) = (left.tail, left.totals, left.log);
        let index = Index::again(mapping, left.index);
        let window = mapping.window();
        let wanted = Wanted { map, key, seq: Seq::MAX };
        let sought = index.as_lines().seek(
            window,
            hash,
            #[inline(always)]
            |offset| match log::glance(window, offset, wanted) {
                Glance::Value(value) => ControlFlow::Break(Some(record_len(key.len() as u64, value.len() as u64))),
                Glance::Another => ControlFlow::Continue(()),
                Glance::Unclear => ControlFlow::Break(None),
            },
        );
        let (spot, prev, replaced) = match sought {
            Sought::Found(spot, newest, Some(replaced)) => {
                let Some(seq) = log::seq_of(window, newest) else { return Ok(false) };
                if !engine.has_no_older_readers(seq)? {
                    return Ok(false);
                }
                (spot, newest, replaced)
            }
            Sought::Vacant(spot) if totals.used() < index.limit() => (spot, Offset::NONE, 0),
            _ => return Ok(false),
        };
        let is_new = prev == Offset::NONE;
        let (kind, seq) = (Kind::Put, tail.seq);
        let flags = if is_new { flags::COMMIT | flags::NEW } else { flags::COMMIT };
        let record = tail.append(mapping, &Entry { flags, prev, map, key, value, ..Entry::bare(kind, seq) })?;
        let mut appended = Appended { bytes: len, records: 1, ..Appended::default() };
        Tally { kind, is_new, new_slot: is_new, len, replaced }.count(&mut totals, &mut appended);
        totals.seq = seq;
        let log = before.plus(seq, appended);
        self.commit(
            &tail,
            Effect::Seen,
            #[inline(always)]
            |writing| {
                // No index is being built that would have to get the slot as well.
                let door = writing.engine.mapping.door()?;
                if is_new {
                    spot.give(door, hash, record)
                } else {
                    spot.publish(door, hash, record)
                }
                index.counters_of(totals)?.publish(totals)?;
                Ok(Some(log))
            },
        )?;
        tail.seq = seq.next();
        self.writer.longest = self.writer.longest.max(len + SHORTCUT_LEN);
        if let Some(left) = &mut self.writer.left {
            left.word = engine.lock_word_in_next_turn(left.word);
            (left.tail, left.totals, left.log) = (tail, totals, log);
            if log.bytes >= left.clean_at || replaced > len {
                self.upkeep_and_leave(map, before);
            }
        }
        Ok(true)
    }

    #[cold]
    #[inline(never)]
    fn upkeep_and_leave(&mut self, map: MapId, before: LogTotals) {
        self.writer.left = None;
        self.upkeep_after(&[map], before, 1);
        self.leave(map);
    }

    /// Notes the state of the store for the next put to this map, if that may be able to take the straight way.
    pub(super) fn leave(&mut self, map: MapId) {
        // What is wrong here shows in the next put, which looks at everything.
        self.writer.left = self.state_for_next(map).unwrap_or(None);
    }

    fn state_for_next(&self, map: MapId) -> Result<Option<Left>> {
        let engine = self.engine;
        if engine.settings.durability != Durability::Buffered || self.writer.on_reserve || engine.resize_cursor()? != 0
        {
            return Ok(None);
        }
        let Some(index) = engine.index(map)? else { return Ok(None) };
        engine.last_index.store(index.extent(), Ordering::Relaxed);
        let (tail, log) = (self.tail()?, engine.log_totals()?);
        let prepared = Offset(self.writer.extent.1.bytes_since(Offset(JUMP_LEN))).min(self.writer.prepared);
        let step = engine.settings.limits.clean_every;
        Ok(Some(Left {
            word: engine.lock_word_in_next_turn(engine.mapping.live(live::WRITER_LOCK)?),
            map,
            index: index.located(),
            totals: index.totals()?,
            log,
            tail,
            room_until: Offset(prepared.bytes_since(Offset(SHORTCUT_LEN))),
            // The counters may come from a damaged file.
            clean_at: (log.bytes - log.bytes % step).saturating_add(step),
        }))
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use crate::engine::Engine;
    use crate::engine::settings::{Limits, Settings};
    use crate::engine::state::live_area::LogTotals;
    use crate::file::layout::DEFAULT_MAP;

    /// Puts a key, and says whether something was left for the next one.
    fn put(engine: &Engine, key: u32, value: &[u8]) -> bool {
        engine.put(DEFAULT_MAP, &key.to_le_bytes(), value, None).unwrap();
        engine.continue_writing().writer.left.is_some()
    }

    #[test]
    fn puts_leave_word_for_each_other_and_other_changes_take_it_away() {
        let engine = Engine::in_memory(Settings::default()).unwrap();
        let left = (0..100).filter(|&key| put(&engine, key, &[7; 100])).count();
        assert!(left > 90, "{left}");
        let is_left = || engine.continue_writing().writer.left.is_some();
        let changes: [&dyn Fn(); 4] = [
            &|| assert!(engine.remove(DEFAULT_MAP, &3u32.to_le_bytes()).unwrap()),
            &|| drop(engine.turn().unwrap().write()),
            &|| engine.checkpoint().unwrap(),
            &|| engine.clear(DEFAULT_MAP).unwrap(),
        ];
        for (number, change) in changes.into_iter().enumerate() {
            assert!(put(&engine, 200, b"value") && is_left());
            change();
            // A checkpoint changes nothing that is left.
            assert_eq!(is_left(), number == 2);
        }
    }

    #[test]
    fn an_index_grows_before_it_is_full() {
        let engine = Engine::in_memory(Settings::default()).unwrap();
        for key in 0..20_000 {
            put(&engine, key, b"");
            let index = engine.index(DEFAULT_MAP).unwrap().unwrap();
            let is_growing = engine.resize_cursor().unwrap() != 0;
            assert!(is_growing || index.totals().unwrap().used() <= index.limit(), "{key} keys");
        }
    }

    #[test]
    fn damaged_counters_are_no_obstacle() {
        let engine = Engine::in_memory(Settings::default()).unwrap();
        let seq = engine.visible().unwrap().next();
        let damaged = LogTotals { seq, bytes: u64::MAX - 100, records: u64::MAX, live_bytes: u64::MAX - 100 };
        damaged.publish(&engine.mapping).unwrap();
        put(&engine, 1, b"");
        damaged.publish(&engine.mapping).unwrap();
        for key in 0..100 {
            put(&engine, key, &[7; 100]);
        }
        assert_eq!(engine.len(DEFAULT_MAP).unwrap(), 100);
    }

    #[test]
    fn what_is_dead_is_cleaned_behind_each_put() {
        let engine = Engine::in_memory(Settings { limits: Limits::tiny(), ..Settings::default() }).unwrap();
        for round in 0..2000u32 {
            put(&engine, round % 10, &[7; 100]);
        }
        let (log, live) = (engine.log_size().unwrap().bytes, engine.live_bytes().unwrap());
        assert!(log < 20 * live, "{log} bytes of log, {live} alive");
    }
}
