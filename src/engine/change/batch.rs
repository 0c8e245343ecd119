//! Batches: many changes in one commit, which make up a transaction.
//!
//! Records are appended to the log as they come, past the tail where no reader can reach them; the heap holds sixteen
//! bytes for each key touched. All records of a batch have one sequence number, whatever maps they belong to. A batch
//! that is not committed leaves unreachable bytes, and the number is skipped.

use std::collections::BTreeSet;
use std::collections::btree_map::{self, BTreeMap};
use std::io;
use std::sync::Arc;

use hashbrown::HashTable;

use super::named::Made;
use super::one::check_lengths;
use crate::engine::Engine;
use crate::engine::clock::Moment;
use crate::engine::read::cursor::Cursor;
use crate::engine::settings::Durability;
use crate::engine::state::writer::Writing;
use crate::engine::upkeep::evict::Needed;
use crate::engine::write::commit::About;
use crate::engine::write::reserve::{REGION_RESERVE, Room};
use crate::engine::write::turn::LongTurn;
use crate::error::{Error, Result};
use crate::file::index::{self, Index, Probe};
use crate::file::layout::{BLOCK, CATALOGUE, KeyHash, Kind, MapId, Offset, flags};
use crate::file::log::{self, Entry, Record, Tail};

/// The newest record that the batch itself has written for a key.
struct Own {
    /// See [`KeyHash::in_map`].
    hash: u64,
    record: Offset,
}

/// The changes of a batch to one map.
#[derive(Clone, Copy)]
pub(crate) struct Part {
    map: MapId,
    /// Slots that the commit must find.
    new_slots: u64,
    /// Tombstones it replaces, which have slots already.
    over_tombstones: u64,
    /// Keys of the map, the changes of the batch included.
    keys: u64,
}

impl Part {
    /// No changes to a map of so many keys.
    fn untouched(map: MapId, keys: u64) -> Part {
        Part { map, new_slots: 0, over_tombstones: 0, keys }
    }
}

/// What a batch has done so far, besides its newest records.
#[derive(Clone)]
pub(super) struct State {
    pub(super) tail: Tail,
    /// The last record appended. The commit gives it the flag that makes it one.
    pub(super) last: Option<Offset>,
    /// Records appended.
    pub(super) records: u64,
    /// The changes to each map.
    pub(super) parts: BTreeMap<MapId, Part>,
    /// The maps that it has made, also if it has dropped them again: each has an empty index, which only the batch
    /// knows.
    pub(super) made: BTreeMap<MapId, Made>,
    /// The maps that it has dropped.
    pub(super) dropped: BTreeSet<MapId>,
}

/// A batch in progress. It holds the writer lock.
pub(crate) struct Batch {
    pub(super) turn: LongTurn,
    pub(super) now: State,
    /// States that it can be [rolled back](super::savepoint) to, and their numbers, oldest first.
    pub(super) saved: Vec<(u64, State)>,
    own: HashTable<Own>,
    /// A record was appended, or at least attempted.
    touched: bool,
    /// An append has failed after a jump, or a return to a saved state has: the records are not connected.
    pub(super) broken: bool,
    /// A removal found no room.
    refused: bool,
    /// Bytes of the extent for which there was no room, if so.
    short_of: u64,
    /// Bytes of the records and regions that were made, or at least attempted.
    bytes: u64,
    committed: bool,
}

/// The index of a map as it was committed; of one of these, which a batch has made, an empty one.
#[inline]
fn index_of<'e>(engine: &'e Engine, made: &BTreeMap<MapId, Made>, map: MapId) -> Result<Index<'e>> {
    match made.get(&map) {
        Some(made) => Index::open(&engine.mapping, made.region),
        None => engine.index_for_writing(map),
    }
}

/// A position in an iteration over a map as a batch sees it.
pub(crate) struct BatchCursor {
    map: MapId,
    committed: Cursor,
    /// The batch's own records, once the committed ones are done.
    own: Option<std::vec::IntoIter<Offset>>,
}

/// A transaction of fewer records than this that will be synced is appended without the mapping; see
/// [`Mapping::append`](crate::file::mapping::Mapping::append).
const FEW: u64 = 16;

impl Batch {
    /// Takes the writer lock and begins.
    pub(crate) fn begin(engine: Arc<Engine>) -> Result<Batch> {
        let turn = LongTurn::take(engine)?;
        let mut writing = turn.write();
        if writing.engine.settings.evict.is_some() {
            // Nothing can be evicted while it goes on: its records lie past the tail.
            writing.evict_ahead()?;
        }
        let tail = writing.tail()?;
        drop(writing);
        let (parts, made, dropped) = Default::default();
        Ok(Batch {
            turn,
            now: State { tail, last: None, records: 0, parts, made, dropped },
            saved: Vec::new(),
            own: HashTable::new(),
            touched: false,
            broken: false,
            refused: false,
            short_of: 0,
            bytes: 0,
            committed: false,
        })
    }

    /// The store it writes to.
    pub(crate) fn engine(&self) -> &Arc<Engine> {
        self.turn.engine()
    }

    /// Every use begins with this: the calling thread holds the lock from now on.
    pub(super) fn adopt(&self) -> Result<()> {
        self.turn.engine().check_not_forked()?;
        self.turn.adopt();
        Ok(())
    }

    /// The calling thread passes the lock to another one.
    pub(crate) fn hand_over(&self) {
        self.turn.hand_over();
    }

    /// The changes of the batch to a map so far.
    fn part(&self, map: MapId) -> Result<Part> {
        match self.now.parts.get(&map) {
            Some(part) => Ok(*part),
            None => Ok(Part::untouched(map, self.index(map)?.totals()?.keys)),
        }
    }

    /// The same, for changing it. Called before anything is appended, since it may find damage.
    fn take_part(&mut self, map: MapId) -> Result<&mut Part> {
        match self.now.parts.entry(map) {
            btree_map::Entry::Occupied(part) => Ok(part.into_mut()),
            btree_map::Entry::Vacant(place) => {
                let keys = index_of(self.turn.engine(), &self.now.made, map)?.totals()?.keys;
                Ok(place.insert(Part::untouched(map, keys)))
            }
        }
    }

    /// Refuses a map that the batch has dropped.
    fn check_is_there(&self, map: MapId) -> Result<()> {
        if self.now.dropped.contains(&map) { Err(self.turn.engine().no_such_map(map)) } else { Ok(()) }
    }

    /// The index of a map as it was committed; of one that the batch has made, an empty one.
    fn index(&self, map: MapId) -> Result<Index<'_>> {
        self.check_is_there(map)?;
        index_of(self.turn.engine(), &self.now.made, map)
    }

    /// Number of keys of a map, the batch's own changes included.
    pub(crate) fn len(&self, map: MapId) -> Result<u64> {
        self.adopt()?;
        self.check_is_there(map)?;
        Ok(self.part(map)?.keys)
    }

    /// The newest record for a key among the batch's own.
    fn own(&self, map: MapId, hash: KeyHash, key: &[u8]) -> Result<Option<Offset>> {
        let engine = self.turn.engine();
        let mut damage = None;
        let hash = hash.in_map(map);
        let own = self.own.find(hash, |own| {
            own.hash == hash
                && engine.is_key(map, key, own.record).unwrap_or_else(|error| {
                    damage = Some(error);
                    false
                })
        });
        match damage {
            Some(error) => Err(error),
            None => Ok(own.map(|own| own.record)),
        }
    }

    /// The newest record of a key: the batch's own, or else the committed one.
    fn newest(&self, map: MapId, hash: KeyHash, key: &[u8]) -> Result<Option<Record<'_>>> {
        let engine = self.turn.engine();
        self.check_is_there(map)?;
        let offset = match self.own(map, hash, key)? {
            Some(own) => Some(own),
            None => match engine.probe(&self.index(map)?, map, hash, key)? {
                Some(Probe::Found(_, offset)) => Some(offset),
                _ => None,
            },
        };
        offset.map(|offset| log::record(&engine.mapping, offset)).transpose()
    }

    /// The record that holds the value of a key as the batch sees it.
    pub(crate) fn get(&self, map: MapId, key: &[u8]) -> Result<Option<Record<'_>>> {
        self.adopt()?;
        let record = self.newest(map, KeyHash::of(key, self.turn.engine().seed), key)?;
        record.map_or(Ok(()), |record| self.turn.engine().check_undamaged(record))?;
        Ok(record.filter(|record| record.has_value(Moment::NOW)))
    }

    /// Puts a key, perhaps with a deadline.
    pub(crate) fn put(&mut self, map: MapId, key: &[u8], value: &[u8], expires: Option<u64>) -> Result<()> {
        check_lengths(key, value)?;
        self.adopt()?;
        let hash = KeyHash::of(key, self.turn.engine().seed);
        let newest = self.newest(map, hash, key)?.map(|record| record.offset);
        let change = self.turn.engine().put_over(newest)?;
        let (kind, seq, prev, shortcut, flags) =
            (Kind::Put, self.now.tail.seq, change.prev, change.shortcut, change.flags);
        if expires.is_some() {
            self.turn.engine().upkeep.expired.note();
        }
        let expires = expires.map(Into::into);
        self.take_part(map)?;
        self.append_for_key(hash, &Entry { kind, flags, seq, prev, map, expires, shortcut, key, value })?;
        let is_new = flags & flags::NEW != 0;
        let part = self.take_part(map)?;
        part.new_slots += u64::from(change.new_slot);
        part.over_tombstones += u64::from(is_new && !change.new_slot);
        part.keys = part.keys.saturating_add(u64::from(is_new));
        Ok(())
    }

    /// Gives the value of a key another deadline, or none, and says whether the key has a value.
    pub(crate) fn set_expiry(&mut self, map: MapId, key: &[u8], expires: Option<u64>) -> Result<bool> {
        let Some(old) = self.get(map, key)? else { return Ok(false) };
        if old.expires() != expires {
            let value = old.value().to_vec();
            self.put(map, key, &value, expires)?;
        }
        Ok(true)
    }

    /// Removes a key and says whether it was there.
    pub(crate) fn remove(&mut self, map: MapId, key: &[u8]) -> Result<bool> {
        self.adopt()?;
        let hash = KeyHash::of(key, self.turn.engine().seed);
        let newest = self.newest(map, hash, key)?.filter(|record| record.kind() == Some(Kind::Put));
        let Some(newest) = newest else { return Ok(false) };
        let (prev, had_value) = (newest.offset, newest.has_value(Moment::NOW));
        let shortcut = self.turn.engine().shortcut_over(newest)?;
        let entry = Entry { prev, map, shortcut, key, ..Entry::bare(Kind::Remove, self.now.tail.seq) };
        self.take_part(map)?;
        self.append_for_key(hash, &entry)?;
        let part = self.take_part(map)?;
        part.keys = part.keys.saturating_sub(1);
        Ok(had_value)
    }

    /// Removes everything committed to a map, which the batch will not change any more.
    pub(crate) fn clear_for_good(&mut self, map: MapId) -> Result<()> {
        self.adopt()?;
        let old = self.index(map)?.offset();
        self.touched = true;
        self.bytes += REGION_RESERVE * BLOCK;
        let fresh = |writing: &mut Writing<'_>| writing.fresh_region(map, old);
        let fresh = self.turn.write().exceeding_at_last(Room::Removal, fresh);
        let fresh = self.noting_full(fresh)?;
        let target = fresh.0.to_le_bytes();
        let clear = Entry { map, value: &target, ..Entry::bare(Kind::Clear, self.now.tail.seq) };
        if let Err(error) = self.append(&clear) {
            self.turn.write().return_extents(&[fresh])?;
            return Err(error);
        }
        self.now.parts.insert(map, Part::untouched(map, 0));
        Ok(())
    }

    /// Begins to iterate over the keys of a map.
    pub(crate) fn cursor(&self, map: MapId) -> Result<BatchCursor> {
        let index = self.index(map)?;
        Ok(BatchCursor { map, committed: Cursor::new(map, Some(&index)), own: None })
    }

    /// The record of the next key that has a value as the batch sees it. Changes that the batch makes meanwhile may be
    /// seen or not; a key is not seen twice with the same value.
    pub(crate) fn next(&self, cursor: &mut BatchCursor) -> Result<Option<Record<'_>>> {
        self.adopt()?;
        while cursor.own.is_none() {
            let Some(newest) = cursor.committed.next_newest(self.turn.engine()) else {
                let own: Vec<Offset> = self.own.iter().map(|own| own.record).collect();
                cursor.own = Some(own.into_iter());
                break;
            };
            let newest = newest?;
            let hash = newest.hash(self.turn.engine().seed);
            if newest.is_damaged() {
                // Its key may not be known. An error belongs to it; the iteration continues after it.
                let hash = hash.in_map(cursor.map);
                if self.own.find(hash, |own| own.hash == hash).is_none() {
                    self.turn.engine().check_undamaged(newest)?;
                }
            } else if newest.has_value(Moment::NOW) && self.own(cursor.map, hash, newest.key())?.is_none() {
                return Ok(Some(newest));
            }
        }
        for offset in cursor.own.iter_mut().flatten() {
            let record = log::record(&self.turn.engine().mapping, offset)?;
            let hash = KeyHash::of(record.key(), self.turn.engine().seed);
            if record.header.map() == cursor.map
                && record.has_value(Moment::NOW)
                && self.own(cursor.map, hash, record.key())? == Some(offset)
            {
                return Ok(Some(record));
            }
        }
        Ok(None)
    }

    /// Forgets the newest record that the batch has written for a key, and goes back to the one before it.
    pub(super) fn take_back(&mut self, record: Record<'_>) {
        let (engine, seq) = (self.turn.engine(), self.now.tail.seq);
        let hash = record.hash(engine.seed).in_map(record.header.map());
        let Ok(mut own) = self.own.find_entry(hash, |own| own.record == record.offset) else { return };
        // A record of this number is one of the batch's own.
        let before = Some(record.header.prev_offset()).filter(|prev| *prev != Offset::NONE);
        let before = before.and_then(|prev| log::record(&engine.mapping, prev).ok());
        match before.filter(|before| before.seq() == seq) {
            Some(before) => own.get_mut().record = before.offset,
            None => drop(own.remove()),
        }
    }

    fn append_for_key(&mut self, hash: KeyHash, entry: &Entry<'_>) -> Result<()> {
        let record = self.append(entry)?;
        let (engine, map, key) = (self.turn.engine(), entry.map, entry.key);
        let hash = hash.in_map(map);
        let is_key = |own: &Own| own.hash == hash && engine.is_key(map, key, own.record).unwrap_or(false);
        match self.own.find_mut(hash, is_key) {
            Some(own) => own.record = record,
            None => {
                self.own.insert_unique(hash, Own { hash, record }, |own| own.hash);
            }
        }
        Ok(())
    }

    fn append(&mut self, entry: &Entry<'_>) -> Result<Offset> {
        self.check_not_broken()?;
        self.touched = true;
        let (room, len) = (Room::of(entry.kind), entry.len());
        self.bytes += len;
        let tail = &mut self.now.tail;
        let make_room = |writing: &mut Writing<'_>| writing.make_log_room(tail, len, room);
        let jumped = self.turn.write().exceeding_at_last(room, make_room);
        self.refused |= room == Room::Removal && matches!(jumped, Err(Error::Full { .. }));
        let jumped = self.noting_full(jumped)?;
        let record = self.now.tail.append(&self.turn.engine().mapping, entry).inspect_err(|_| self.broken = jumped)?;
        self.now.last = Some(record);
        self.now.records += 1;
        // With many records, a system call for each costs more than the excess that a flush of mapped pages writes.
        self.now.tail.synced &= self.now.records < FEW;
        Ok(record)
    }

    /// Makes the first region of a map that the batch makes, with room for `keys` keys.
    pub(super) fn first_region(&mut self, map: MapId, keys: u64) -> Result<Offset> {
        self.adopt()?;
        self.touched = true;
        self.bytes += index::blocks_for(keys) * BLOCK;
        let region = self.turn.write().first_region(map, keys);
        self.noting_full(region)
    }

    /// Remembers what there was no room for, so that a second attempt finds it in a store that evicts.
    fn noting_full<R>(&mut self, done: Result<R>) -> Result<R> {
        if let Err(Error::Full { needed, .. }) = &done {
            self.short_of = *needed;
        }
        done
    }

    /// Prepares the commit of the maps that the batch has made. One that has outgrown its first region gets another
    /// one, which a second record of the catalogue names.
    fn make_room_for_made(&mut self) -> Result<()> {
        if self.now.made.is_empty() {
            return Ok(());
        }
        let made: BTreeSet<MapId> = self.now.made.keys().copied().collect();
        let room = self.turn.write().make_map_room(&made);
        self.noting_full(room)?;
        let left: Vec<MapId> = made.difference(&self.now.dropped).copied().collect();
        for map in left {
            let (slots, index) = (self.part(map)?.new_slots, self.index(map)?);
            if slots <= index.limit() {
                continue;
            }
            let outgrown = index.offset();
            let region = self.first_region(map, index::roomy(slots))?;
            let made = &self.now.made[&map];
            let (name, value) = (made.name.clone(), made.named.to_value(region));
            self.put(CATALOGUE, &name, &value, None)?;
            self.turn.write().return_extents(&[outgrown])?;
        }
        Ok(())
    }

    /// The room that a second attempt needs in a store that evicts.
    fn needed(&self) -> Needed {
        let engine = self.turn.engine();
        let cell = engine.settings.cell().unwrap_or(u64::MAX);
        let slots =
            |part: &Part| -> Result<u64> { Ok(part.new_slots + engine.index_for_writing(part.map)?.totals()?.slots) };
        let slots: u64 = self.now.parts.values().filter_map(|part| slots(part).ok()).max().unwrap_or(0);
        let bytes = self.short_of.max(index::blocks_for(slots + slots / 8) * BLOCK);
        // As much and half as much again for the gaps at the ends of cells, and an index twice.
        let cells = (self.bytes + self.bytes / 2 + 2 * bytes).div_ceil(cell) + 2;
        Needed { bytes, cells: cells.min(engine.settings.max_size / cell / 4 * 3) }
    }

    pub(super) fn check_not_broken(&self) -> Result<()> {
        if !self.broken {
            return Ok(());
        }
        let source = io::Error::other("an append of this transaction has failed before");
        Err(Error::io(self.turn.engine().mapping.path(), "append to the log", source))
    }

    /// Makes the batch visible, all at once, with the durability of the store's commits.
    pub(crate) fn commit_as_usual(self) -> Result<()> {
        let durability = self.turn.engine().settings.durability;
        self.commit(durability)
    }

    /// Makes the batch visible, all at once, with another durability.
    pub(crate) fn commit(mut self, durability: Durability) -> Result<()> {
        self.adopt()?;
        let engine = Arc::clone(self.turn.engine());
        engine.check_can_be(durability)?;
        self.check_not_broken()?;
        self.make_room_for_made()?;
        if let Some(last) = self.now.last {
            let before = engine.log_totals()?;
            let committed = self.now.parts.values().filter(|part| !self.now.made.contains_key(&part.map));
            let room = self.turn.write().make_index_room_for(committed);
            self.noting_full(room)?;
            let (mut writing, parts) = (self.turn.write(), &self.now.parts);
            self.now.tail.seal(&engine.mapping, last, flags::COMMIT)?;
            let about = if parts.contains_key(&CATALOGUE) { About::Maps } else { About::Entries };
            writing.commit_as_recorded(&self.now.tail, about)?;
            let maps: Vec<MapId> = parts.keys().copied().collect();
            writing.upkeep_after(&maps, before, self.now.records);
        }
        let changed = self.now.last.is_some();
        // If all was taken back, the number is skipped, and what is left in the log can complete nothing.
        self.committed = changed || !self.touched;
        drop(self);
        engine.after_turn_with(changed, durability)
    }
}

impl Writing<'_> {
    /// Makes sure that the maps of a batch have the slots that its commit must find.
    fn make_index_room_for<'p>(&mut self, parts: impl Iterator<Item = &'p Part>) -> Result<()> {
        for part in parts {
            let index = self.engine.index_for_writing(part.map)?;
            let totals = index.totals()?;
            if part.new_slots > 0 && totals.used().saturating_add(part.new_slots) > index.limit() {
                self.make_index_room(part.map, part.new_slots, Some(part.over_tombstones))?;
            }
        }
        Ok(())
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        if self.turn.engine().is_forked() {
            // It belongs to the parent.
            return;
        }
        if !self.committed && self.touched {
            let mut writing = self.turn.write();
            // If this fails, the next writer does it again.
            let abandoned = writing.abandon();
            // Cleaning is impossible within a batch. It is done now, so that a second attempt finds room.
            let evicts = writing.engine.settings.evict.is_some();
            if abandoned.is_ok() && evicts && self.short_of > 0 {
                let _ = writing.make_room(self.needed());
            } else if abandoned.is_ok() && !evicts && self.refused {
                let _ = writing.squeeze_at_last();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// A hash table picks a place by the low bits, and compares the top seven bits before it looks at a key.
    #[test]
    fn a_key_of_many_maps_comes_to_many_places() {
        let hash = KeyHash::of(b"key", 7);
        let hashes: Vec<u64> = (0..10_000).map(|map| hash.in_map(MapId(map))).collect();
        let places: HashSet<u64> = hashes.iter().map(|hash| hash & 0x3fff).collect();
        let tags: HashSet<u64> = hashes.iter().map(|hash| hash >> 57).collect();
        assert!(places.len() > 6_000 && tags.len() == 128, "{} places, {} tags", places.len(), tags.len());
    }
}
