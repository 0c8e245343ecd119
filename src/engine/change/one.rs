//! Changes of one key, and of all: each a commit of one record.

use std::borrow::Cow;
use std::sync::Arc;

use crate::engine::Engine;
use crate::engine::clock::Moment;
use crate::engine::read::cursor::Cursor;
use crate::engine::read::pins::Pin;
use crate::engine::state::writer::{Appended, Writer};
use crate::engine::write::space::Room;
use crate::error::{Error, Result};
use crate::file::index::{Index, Probe, SlotAt, Totals};
use crate::file::layout::{DEFAULT_MAP, JUMP_LEN, KeyHash, Kind, MAX_KEY_LEN, MAX_VALUE_LEN, Shortcut, flags, live};
use crate::file::log::{self, Entry, Record};

/// How a change of one key was recorded, or would be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Change {
    pub(crate) prev: u64,
    pub(crate) shortcut: Option<Shortcut>,
    pub(crate) flags: u8,
    /// The key has to be given a slot.
    pub(crate) new_slot: bool,
}

/// What is to become of a key.
#[derive(Debug)]
pub(crate) enum Action<'a> {
    /// It stays as it is.
    Keep,
    /// It gets this value, and perhaps a deadline.
    Put(Cow<'a, [u8]>, Option<u64>),
    /// It goes.
    Remove,
}

/// Where the record of a change goes in the index.
struct Place<'a> {
    index: Index<'a>,
    totals: Totals,
    hash: KeyHash,
    at: SlotAt,
    new_key: bool,
    was_dead: bool,
}

impl Engine {
    /// Takes a turn at writing for one change of a map, by a record of this kind, and does its share of upkeep behind
    /// it. `step` says whether it committed anything.
    #[inline]
    fn change(&self, map: u32, kind: Kind, step: impl FnMut(&mut Writer) -> Result<bool>) -> Result<bool> {
        let turn = self.turn()?;
        self.check_can_be(self.settings.durability)?;
        let done = self.change_in_turn(map, kind, step);
        drop(turn);
        let committed = done?;
        self.after_turn(committed)?;
        Ok(committed)
    }

    #[inline]
    fn change_in_turn(&self, map: u32, kind: Kind, mut step: impl FnMut(&mut Writer) -> Result<bool>) -> Result<bool> {
        let mut writer = self.writer();
        let before = self.log_totals()?;
        let mut attempt = |writer: &mut Writer| step(writer).or_else(|error| self.abandon(writer).and(Err(error)));
        let room = Room::of(kind);
        let done = self.exceeding_at_last(&mut writer, room, |writer| match attempt(writer) {
            Err(Error::Full { .. }) if self.squeeze(writer, room) => attempt(writer),
            done => done,
        });
        if let Ok(true) = done {
            self.upkeep_after(&mut writer, &[map], before, 1);
        }
        done
    }

    /// Puts one key, perhaps with a deadline.
    pub(crate) fn put(&self, map: u32, key: &[u8], value: &[u8], expires: Option<u64>) -> Result<()> {
        check_lengths(key, value)?;
        self.change(map, Kind::Put, |writer| self.put_in_turn(writer, map, key, value, expires)).map(drop)
    }

    /// Removes one key and says whether it was there. If it was not, nothing is written.
    pub(crate) fn remove(&self, map: u32, key: &[u8]) -> Result<bool> {
        let mut was_there = false;
        self.change(map, Kind::Remove, |writer| self.remove_in_turn(writer, map, key, &mut was_there))?;
        Ok(was_there)
    }

    /// Does to one key what `decide` makes of its record, if it has a value, and returns what else that says. Nobody
    /// writes in between. `decide` runs before anything is appended, and may read.
    pub(crate) fn modify<'a, R>(
        &self,
        map: u32,
        key: &[u8],
        decide: impl FnOnce(Option<Record<'_>>) -> Result<(Action<'a>, R)>,
    ) -> Result<R> {
        check_lengths(key, &[])?;
        let turn = self.turn()?;
        self.check_can_be(self.settings.durability)?;
        let (action, answer) = decide(self.value_in_turn(map, key)?)?;
        // The user's code runs in there, and may have forked.
        self.check_not_forked()?;
        let done = match &action {
            Action::Keep => Ok(false),
            Action::Put(value, expires) => check_lengths(key, value).and_then(|()| {
                self.change_in_turn(map, Kind::Put, |writer| self.put_in_turn(writer, map, key, value, *expires))
            }),
            Action::Remove => {
                self.change_in_turn(map, Kind::Remove, |writer| self.remove_in_turn(writer, map, key, &mut false))
            }
        };
        drop(turn);
        self.after_turn(done?)?;
        Ok(answer)
    }

    /// Removes some key of a map that has a value, and says what `take` makes of its record.
    pub(crate) fn pop<R>(&self, map: u32, take: impl FnOnce(Record<'_>) -> Result<R>) -> Result<Option<R>> {
        let turn = self.turn()?;
        self.check_can_be(self.settings.durability)?;
        let index = self.index_for_writing(map)?;
        let mut cursor = Cursor::from_somewhere(map, Some(&index), self.region.live(live::VISIBLE)?);
        let Some(found) = cursor.next(self, u64::MAX, Moment::NOW) else {
            drop(turn);
            return self.after_turn(false).map(|()| None);
        };
        let record = found?;
        let answer = take(record)?;
        self.check_not_forked()?;
        // A full store is cleaned before the removal is tried again, and the record may be what is cleaned away.
        let key = record.key().to_vec();
        let done = self.change_in_turn(map, Kind::Remove, |writer| self.remove_in_turn(writer, map, &key, &mut false));
        drop(turn);
        self.after_turn(done?)?;
        Ok(Some(answer))
    }

    /// Removes all keys of a map, and returns a pin that sees what was there.
    pub(crate) fn drain(self: &Arc<Self>, map: u32) -> Result<Pin<Arc<Engine>>> {
        let turn = self.turn()?;
        self.check_can_be(self.settings.durability)?;
        // Nobody commits between this and the clear.
        let pin = Pin::take(Arc::clone(self))?;
        let done = self.change_in_turn(map, Kind::Clear, |writer| self.clear_in_turn(writer, map));
        drop(turn);
        self.after_turn(done?)?;
        Ok(pin)
    }

    /// Removes all keys of a map: one record, and a fresh region.
    pub(crate) fn clear(&self, map: u32) -> Result<()> {
        self.change(map, Kind::Clear, |writer| self.clear_in_turn(writer, map)).map(drop)
    }

    /// How a put of a key is recorded whose newest record is at `newest`, or that has no slot.
    #[inline]
    pub(crate) fn put_over(&self, newest: Option<u64>) -> Result<Change> {
        let Some(prev) = newest else {
            return Ok(Change { prev: 0, shortcut: None, flags: flags::NEW, new_slot: true });
        };
        let newest = log::record(&self.region, prev)?;
        let flags = if newest.kind() == Some(Kind::Remove) { flags::NEW } else { 0 };
        Ok(Change { prev, shortcut: self.shortcut_over(newest)?, flags, new_slot: false })
    }

    fn put_in_turn(
        &self,
        writer: &mut Writer,
        map: u32,
        key: &[u8],
        value: &[u8],
        expires: Option<u64>,
    ) -> Result<bool> {
        let seq = self.next_seq()?;
        let hash = KeyHash::of(key, self.seed);
        let mut index = self.index_for_writing(map)?;
        let mut probe = self.probe(&index, map, hash, key)?;
        let mut totals = index.totals()?;
        let takes_a_slot = matches!(probe, None | Some(Probe::Vacant(_, false)));
        if takes_a_slot && totals.used() >= index.limit() {
            index = self.make_index_room(writer, map, 1, seq, None)?;
            probe = self.probe(&index, map, hash, key)?;
            totals = index.totals()?;
        }
        let (at, newest, was_dead) = match probe {
            Some(Probe::Found(at, newest)) => (at, Some(newest), false),
            Some(Probe::Vacant(at, was_dead)) => (at, None, was_dead),
            None => return Err(self.region.corrupt(index.offset(), "the index has no slot left")),
        };
        let Change { prev, shortcut, flags, new_slot: new_key } = self.put_over(newest)?;
        let place = Place { index, totals, hash, at, new_key, was_dead };
        if expires.is_some() {
            self.upkeep.expired.note();
        }
        let expires = expires.map(Into::into);
        let kind = Kind::Put;
        self.commit_one(writer, place, &Entry { kind, flags, seq, prev, map, expires, shortcut, key, value })
    }

    /// Says whether it has committed anything; `was_there`, whether the key had a value that had not expired.
    fn remove_in_turn(&self, writer: &mut Writer, map: u32, key: &[u8], was_there: &mut bool) -> Result<bool> {
        let seq = self.next_seq()?;
        let hash = KeyHash::of(key, self.seed);
        let index = self.index_for_writing(map)?;
        let Some(Probe::Found(at, prev)) = self.probe(&index, map, hash, key)? else {
            return Ok(false);
        };
        let record = log::record(&self.region, prev)?;
        if record.kind() == Some(Kind::Remove) {
            return Ok(false);
        }
        *was_there = record.has_value(Moment::NOW);
        let place = Place { index, totals: index.totals()?, hash, at, new_key: false, was_dead: false };
        let shortcut = self.shortcut_over(record)?;
        self.commit_one(writer, place, &Entry { prev, map, shortcut, key, ..Entry::bare(Kind::Remove, seq) })
    }

    /// Steps 3 to 6 of a commit of one record, whose place in the index is known.
    #[inline]
    fn commit_one(&self, writer: &mut Writer, place: Place<'_>, entry: &Entry<'_>) -> Result<bool> {
        let entry = Entry { flags: entry.flags | flags::COMMIT, ..*entry };
        let mut tail = self.tail(writer)?;
        let jumped = self.make_log_room(writer, &mut tail, entry.len(), entry.seq, Room::of(entry.kind))?;
        let offset = tail.append(&self.region, &entry)?;
        self.store_commit_point(tail.at, entry.seq)?;

        let Place { index, mut totals, hash, at, new_key, was_dead } = place;
        self.publish_slot(&index, entry.map, at, hash, offset, new_key)?;
        let (jump_bytes, jumps) = if jumped { (JUMP_LEN, 1) } else { (0, 0) };
        let mut appended = Appended { bytes: entry.len() + jump_bytes, records: 1 + jumps, ..Appended::default() };
        self.count(&mut totals, log::record(&self.region, offset)?, &mut appended);
        totals.seq = entry.seq;
        totals.dead = totals.dead.saturating_sub(u64::from(was_dead));
        index.set_totals(totals)?;
        self.count_log(entry.seq, appended)?;
        self.show(tail.at, tail.chain, entry.seq)?;
        Ok(true)
    }

    fn clear_in_turn(&self, writer: &mut Writer, map: u32) -> Result<bool> {
        let old = self.index_for_writing(map)?;
        if old.totals()?.slots == 0 {
            return Ok(false);
        }
        self.commit_clear(writer, map, old.offset(), false)?;
        Ok(true)
    }

    /// Clears the default map once more, if it is empty, in another extent of the log. Nobody sees a change.
    pub(crate) fn clear_again(&self, writer: &mut Writer) -> Result<bool> {
        let old = self.index_in_force(DEFAULT_MAP)?;
        if old.totals()?.keys > 0 {
            return Ok(false);
        }
        if let Err(error) = self.commit_clear(writer, DEFAULT_MAP, old.offset(), true) {
            self.abandon(writer)?;
            return Err(error);
        }
        Ok(true)
    }

    fn commit_clear(&self, writer: &mut Writer, map: u32, old: u64, again: bool) -> Result<()> {
        let seq = self.next_seq()?;
        let fresh = self.fresh_region(writer, map, seq, old)?;
        let target = fresh.to_le_bytes();
        let flags = if again { flags::COMMIT | flags::COPY } else { flags::COMMIT };
        let entry = Entry { flags, map, value: &target, ..Entry::bare(Kind::Clear, seq) };
        let mut tail = self.tail(writer)?;
        if again {
            self.leave_extent(writer, &mut tail, entry.len(), seq, Room::Cleaning)?;
        } else {
            self.make_log_room(writer, &mut tail, entry.len(), seq, Room::Removal)?;
        }
        tail.append(&self.region, &entry)?;
        self.store_commit_point(tail.at, seq)?;
        self.finish(writer)
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
