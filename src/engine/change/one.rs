//! Changes of one key, and of all keys: each is a commit of one record.

use std::borrow::Cow;
use std::cell::Cell;
use std::sync::Arc;

use crate::engine::Engine;
use crate::engine::clock::Moment;
use crate::engine::read::cursor::Cursor;
use crate::engine::read::pins::Pin;
use crate::engine::state::writer::Writing;
use crate::engine::upkeep::evict::Needed;
use crate::engine::write::commit::{Change, Clearing};
use crate::engine::write::reserve::Room;
use crate::engine::write::slots::Place;
use crate::error::{Error, FullReason, Result};
use crate::file::index::Probe;
use crate::file::layout::{KeyHash, Kind, MAX_KEY_LEN, MAX_VALUE_LEN, MapId, Seq, flags, live};
use crate::file::log::{self, Entry, Record};

/// More pieces of room than a change can need one after the other: for the log, an index, a table and the reserve.
const MOST_PIECES: u32 = 8;

/// What to do with a key.
#[derive(Debug)]
pub(crate) enum Action<'a> {
    /// Leave it as it is.
    Keep,
    /// Give it this value, and perhaps a deadline.
    Put(Cow<'a, [u8]>, Option<u64>),
    /// Remove it.
    Remove,
}

impl Engine {
    /// Takes a turn at writing for one change of a map, by a record of this kind, and then does its share of upkeep.
    /// `step` says whether it committed anything.
    #[inline(always)]
    fn change<F>(&self, map: MapId, kind: Kind, step: F) -> Result<bool>
    where
        F: FnMut(&mut Writing<'_>) -> Result<bool> + Copy,
    {
        let committed = self.in_turn(
            #[inline(always)]
            |writing| {
                writing.writer.left = None;
                self.check_can_be(self.settings.durability)?;
                writing.change(map, kind, step)
            },
        )?;
        self.after_turn(committed)?;
        Ok(committed)
    }

    /// Puts one key, perhaps with a deadline.
    pub(crate) fn put(&self, map: MapId, key: &[u8], value: &[u8], expires: Option<u64>) -> Result<()> {
        check_lengths(key, value)?;
        let hash = KeyHash::of(key, self.seed);
        // It is on its way while the lock is taken: no other wait of a put is as long.
        self.prefetch_line_unseen(hash);
        let committed = self.in_turn(
            #[inline(always)]
            |writing| {
                self.check_can_be(self.settings.durability)?;
                let done = if expires.is_none() { writing.put_as_left(map, (hash, key), value) } else { Ok(false) };
                match done {
                    Ok(false) => writing.put_anyhow(map, (hash, key), value, expires),
                    Ok(true) => Ok(true),
                    Err(error) => writing.give_up(error),
                }
            },
        )?;
        self.after_turn(committed)
    }

    /// Removes one key and says whether it was there. If it was not, nothing is written.
    pub(crate) fn remove(&self, map: MapId, key: &[u8]) -> Result<bool> {
        let was_there = Cell::new(false);
        self.change(map, Kind::Remove, |writing| writing.remove(map, key, &was_there))?;
        Ok(was_there.get())
    }

    /// Applies to one key the action that `decide` derives from its record, if it has a value, and returns the answer
    /// of `decide`, which runs before anything is appended, and may read. No other writer comes in between.
    pub(crate) fn modify<'a, R>(
        &self,
        map: MapId,
        key: &[u8],
        decide: impl FnOnce(Option<Record<'_>>) -> Result<(Action<'a>, R)>,
    ) -> Result<R> {
        check_lengths(key, &[])?;
        let turn = self.turn()?;
        self.check_can_be(self.settings.durability)?;
        let (action, answer) = decide(self.value_in_turn(map, key)?)?;
        // `decide` is the user's code, and may have forked.
        self.check_not_forked()?;
        let done = match &action {
            Action::Keep => Ok(false),
            Action::Put(value, expires) => check_lengths(key, value).and_then(|()| {
                let hash = KeyHash::of(key, self.seed);
                turn.write().change(map, Kind::Put, |writing| writing.put(map, (hash, key), value, *expires))
            }),
            Action::Remove => {
                turn.write().change(map, Kind::Remove, |writing| writing.remove(map, key, &Cell::default()))
            }
        };
        drop(turn);
        self.after_turn(done?)?;
        Ok(answer)
    }

    /// Gives the value of a key another deadline, or none, and says whether the key has a value.
    pub(crate) fn set_expiry(&self, map: MapId, key: &[u8], expires: Option<u64>) -> Result<bool> {
        self.modify(map, key, |old| {
            let Some(old) = old else { return Ok((Action::Keep, false)) };
            // A copy: where a full store is cleaned before the change, the record goes.
            let action = match old.expires() == expires {
                true => Action::Keep,
                false => Action::Put(Cow::Owned(old.value().to_vec()), expires),
            };
            Ok((action, true))
        })
    }

    /// Removes some key of a map that has a value, and returns what `take` makes of its record.
    pub(crate) fn pop<R>(&self, map: MapId, take: impl FnOnce(Record<'_>) -> Result<R>) -> Result<Option<R>> {
        let turn = self.turn()?;
        self.check_can_be(self.settings.durability)?;
        let index = self.index_for_writing(map)?;
        let mut cursor = Cursor::from_somewhere(map, Some(&index), self.mapping.live(live::VISIBLE)?);
        let Some(found) = cursor.next(self, Seq::MAX, Moment::NOW) else {
            drop(turn);
            return self.after_turn(false).map(|()| None);
        };
        let record = found?;
        let answer = take(record)?;
        self.check_not_forked()?;
        // A full store is cleaned before the removal is tried again, and cleaning may take the record away.
        let key = record.key().to_vec();
        let done = turn.write().change(map, Kind::Remove, |writing| writing.remove(map, &key, &Cell::default()));
        drop(turn);
        self.after_turn(done?)?;
        Ok(Some(answer))
    }

    /// Removes all keys of a map, and returns a pin that sees the state before.
    pub(crate) fn drain(self: &Arc<Self>, map: MapId) -> Result<Pin<Arc<Engine>>> {
        let turn = self.turn()?;
        self.check_can_be(self.settings.durability)?;
        // No other commit comes between this and the clear.
        let pin = Pin::take(Arc::clone(self))?;
        let done = turn.write().change(map, Kind::Clear, |writing| writing.clear(map));
        drop(turn);
        self.after_turn(done?)?;
        Ok(pin)
    }

    /// Removes all keys of a map: one record, and a fresh region.
    pub(crate) fn clear(&self, map: MapId) -> Result<()> {
        self.change(map, Kind::Clear, |writing| writing.clear(map)).map(drop)
    }
}

impl Writing<'_> {
    /// Takes a step that commits a record of this kind to a map, once more if a full store must be cleaned first, and
    /// then does its share of upkeep. `step` says whether it committed anything.
    #[inline(always)]
    fn change<F>(&mut self, map: MapId, kind: Kind, step: F) -> Result<bool>
    where
        F: FnMut(&mut Self) -> Result<bool> + Copy,
    {
        let before = self.engine.log_totals()?;
        // Each attempt has its own copy, so that the first one can stay in registers.
        let (mut first, mut second) = (step, step);
        let done = match first(self) {
            Err(error) => self.change_at_last(kind, error, &mut second)?,
            Ok(done) => done,
        };
        if done {
            self.upkeep_after(&[map], before, 1);
        }
        Ok(done)
    }

    /// The same after the first attempt has failed.
    #[cold]
    fn change_at_last(
        &mut self,
        kind: Kind,
        error: Error,
        step: &mut dyn FnMut(&mut Self) -> Result<bool>,
    ) -> Result<bool> {
        let room = Room::of(kind);
        let mut first = Some(error);
        let mut attempt = |writing: &mut Self| {
            let done = first.take().map_or_else(|| step(writing), Err);
            done.or_else(|error| writing.abandon().and(Err(error)))
        };
        if self.engine.settings.evict.is_some() {
            return self.change_by_evicting(&mut attempt);
        }
        let done = self.exceeding_at_last(room, |writing| match attempt(writing) {
            Err(Error::Full { .. }) if writing.squeeze(room) => attempt(writing),
            done => done,
        });
        match done {
            // Cleaning has gained nothing, so its reserve is of no use there. Where a removal does not clean, that is
            // left to `compact`.
            Err(Error::Full { .. }) if kind == Kind::Clear || kind == Kind::Remove && self.engine.squeezes() => {
                self.writer.spends_all = true;
                let done = attempt(self);
                self.writer.spends_all = false;
                done
            }
            done => done,
        }
    }

    /// The same in a store that evicts: makes room, once more for each piece that the change needs.
    fn change_by_evicting(&mut self, attempt: &mut dyn FnMut(&mut Self) -> Result<bool>) -> Result<bool> {
        let mut done = attempt(self);
        for _ in 0..MOST_PIECES {
            match done {
                Err(Error::Full { why: FullReason::Entry(_), .. }) => break,
                Err(Error::Full { needed, .. }) if self.make_room(Needed { bytes: needed, cells: 1 })? => {
                    done = attempt(self);
                }
                _ => break,
            }
        }
        done
    }

    /// Forgets a record that was appended and could not be committed.
    #[cold]
    #[inline(never)]
    fn give_up(&mut self, error: Error) -> Result<bool> {
        self.writer.left = None;
        self.abandon().and(Err(error))
    }

    /// Puts one key whatever the state of the store, and notes that state for the next put.
    #[cold]
    #[inline(never)]
    fn put_anyhow(&mut self, map: MapId, key: (KeyHash, &[u8]), value: &[u8], expires: Option<u64>) -> Result<bool> {
        self.writer.left = None;
        let done = self.change(
            map,
            Kind::Put,
            #[inline(always)]
            move |writing| writing.put(map, key, value, expires),
        )?;
        self.leave(map);
        Ok(done)
    }

    #[inline(always)]
    fn put(&mut self, map: MapId, (hash, key): (KeyHash, &[u8]), value: &[u8], expires: Option<u64>) -> Result<bool> {
        let seq = self.seq()?;
        let mut index = self.engine.index_for_writing(map)?;
        let mut probe = self.engine.probe(&index, map, hash, key)?;
        let mut counters = index.counters()?;
        let takes_a_slot = matches!(probe, None | Some(Probe::Vacant(_, false)));
        if takes_a_slot && counters.totals.used() >= index.limit() {
            index = self.make_index_room(map, 1, None)?;
            probe = self.engine.probe(&index, map, hash, key)?;
            counters = index.counters()?;
        }
        let Some(slot) = probe else {
            return Err(self.engine.mapping.corrupt(index.offset(), "the index has no slot left"));
        };
        let newest = if let Probe::Found(_, newest) = slot { Some(newest) } else { None };
        let Change { prev, shortcut, flags, replaced, .. } = self.engine.put_over(newest)?;
        let place = Place { index, map, hash, slot };
        if expires.is_some() {
            self.engine.upkeep.expired.note();
        }
        let expires = expires.map(Into::into);
        let (kind, flags) = (Kind::Put, flags | flags::COMMIT);
        let entry = Entry { kind, flags, seq, prev, map, expires, shortcut, key, value };
        self.commit_one(&place, counters, &entry, replaced)?;
        Ok(true)
    }

    /// Says whether it has committed anything. Sets `was_there` if the key had a value that had not expired.
    fn remove(&mut self, map: MapId, key: &[u8], was_there: &Cell<bool>) -> Result<bool> {
        let seq = self.seq()?;
        let hash = KeyHash::of(key, self.engine.seed);
        let index = self.engine.index_for_writing(map)?;
        let Some(slot @ Probe::Found(_, prev)) = self.engine.probe(&index, map, hash, key)? else {
            return Ok(false);
        };
        let record = log::record(&self.engine.mapping, prev)?;
        if record.kind() == Some(Kind::Remove) {
            return Ok(false);
        }
        was_there.set(record.has_value(Moment::NOW));
        let place = Place { index, map, hash, slot };
        let shortcut = self.engine.shortcut_over(record)?;
        let entry = Entry { flags: flags::COMMIT, prev, map, shortcut, key, ..Entry::bare(Kind::Remove, seq) };
        self.commit_one(&place, index.counters()?, &entry, record.counted_len())?;
        Ok(true)
    }

    fn clear(&mut self, map: MapId) -> Result<bool> {
        let old = self.engine.index_for_writing(map)?;
        if old.totals()?.slots == 0 {
            return Ok(false);
        }
        self.commit_clear(map, old.offset(), Clearing::Keys)?;
        Ok(true)
    }
}

/// Refuses keys and values that the format cannot hold.
pub(crate) fn check_lengths(key: &[u8], value: &[u8]) -> Result<()> {
    if key.len() > MAX_KEY_LEN {
        return Err(Error::KeyTooLong { len: key.len(), max: MAX_KEY_LEN });
    }
    if value.len() as u64 > MAX_VALUE_LEN {
        return Err(Error::ValueTooLong { len: value.len() as u64, max: MAX_VALUE_LEN });
    }
    Ok(())
}
