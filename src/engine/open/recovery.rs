//! Recovery: what opening does for a store that was not closed.
//!
//! * *After a kill* the page cache is as the dead process left it. A half-published commit is finished, what the dead
//!   writer had appended without a commit is made unreachable for good, and that is all.
//! * *After a power cut*, for a copied file, and in any doubt, only the newest valid superblock and the log count. A
//!   first walk along the valid log finds its end and its extents; then a second pass rebuilds the regions in space
//!   that the log does not use; then an incarnation record begins a new life, so that no leftover of an earlier one
//!   past the end can ever continue the log.
//!
//! An interrupted recovery has the same result when it is done again: until its last step it changes nothing of the log
//! but the space past its end.

use std::collections::btree_map::{BTreeMap, Entry};
use std::ops::Range;
use std::sync::atomic::Ordering;

use super::build::{LogFound, build};
use super::seat::Seated;
use crate::engine::Engine;
use crate::engine::processes::entries::some_were_flushing;
use crate::engine::progress::{self, Phase};
use crate::engine::settings::{Opened, RecoveryPhase, Settings};
use crate::engine::state::head::LogHead;
use crate::engine::state::live_area::{
    Appended, LogTotals, SAME_FILE, distrust_live, forget_the_dead, live_is_current, synced,
};
use crate::engine::state::writer::{Writer, Writing};
use crate::engine::write::reserve::Room;
use crate::engine::write::slots::Tombstones;
use crate::error::{Error, Numbers, Result};
use crate::file::index::{self, Index, NewRegion, Probe, Totals};
use crate::file::layout::{
    BLOCK, CATALOGUE, COUNT_MASK, DEFAULT_MAP, ExtentKind, JUMP_LEN, KeyHash, Kind, MAX_INCARNATION, MapId, Offset,
    RECORD_HEADER, SUPERBLOCK_B, Seq, Superblock, flags, live, opener, seal, writer_lock,
};
use crate::file::log::{self, Record, Scan, Tail, Walk};
use crate::file::mapping::Mapping;
use crate::file::space::{Extent, LogExtent, LogPoint, Space};
use crate::telemetry::{self, Watch};

/// Takes over from a process that was killed. Other processes may be reading.
pub(crate) fn after_kill(seated: Seated, superblock: Superblock, state: u64) -> Result<Engine> {
    let mapping = &seated.mapping;
    let mut space = Space::load(mapping, mapping.live(live::SPACE_TABLE)?)?;
    space.mend(mapping)?;
    let writer = Writer::new(mapping, space, mapping.live_offset(live::TAIL)?)?;
    let engine = Engine::assemble(seated, Opened::AfterKill, superblock, writer)?;
    let mapping = &engine.mapping;
    progress::note(mapping, opener::OPENING, 0, 0);
    forget_the_dead(mapping)?;
    if state & live::STATE_CLOSING != 0 {
        // A superblock with the clean flag may be on its way to the disk, or there already and not in force yet. It is
        // the one that this overwrites.
        let mut superblock = engine.lock_new_superblock();
        let next = Superblock { flags: 0.into(), ..*superblock };
        engine.write_superblock(&mut superblock, next)?;
        mapping.change_bits(live::STATE, 0, live::STATE_CLOSING)?;
    }
    mapping.store_seal(seal::CLOSED, 0)?;
    let mut writing = engine.lend_writing();
    writing.finish()?;
    let lock = mapping.live(live::WRITER_LOCK)?;
    if writer_lock::holder(lock) != writer_lock::FREE {
        writing.bury()?;
    }
    writing.retire_unreferenced()?;
    writing.reclaim()?;
    mapping.store_live(live::WRITER_LOCK, writer_lock::freed(lock, writer_lock::FREE), Ordering::Release)?;
    drop(writing);
    engine.trust_live()?;
    Ok(engine)
}

/// Rebuilds everything from the log.
pub(crate) fn after_power_cut(seated: Seated, superblock: Superblock, in_force: usize) -> Result<Engine> {
    let (mapping, watch) = (&seated.mapping, Watch::start());
    telemetry::on_recovery_begun(mapping.path(), mapping.len());
    mapping.unseal()?;
    let (mut log, counted) = find_end(mapping, &superblock, &seated.settings)?;
    // In memory of this process, nothing past the end could ever continue the log, so the same life continues there.
    let begins_a_life = mapping.file().is_some();
    if begins_a_life && log.last.incarnation() >= MAX_INCARNATION {
        let (path, what) = (mapping.path().to_owned(), Numbers::Recoveries);
        return Err(Error::NumbersExhausted { path, what, max: MAX_INCARNATION });
    }
    // The length of the last extent is unknown, but it had room for a jump.
    if let Some(last) = log.extents.last_mut() {
        last.end = (log.end + JUMP_LEN).align(BLOCK);
    }
    if mapping.file().is_some() {
        if may_have_failed_to_flush(mapping)? {
            // The system believes that pages whose flush has failed are on the disk. The superblock in force really is.
            let place = in_force as u64 * SUPERBLOCK_B;
            if mapping.live(live::SUPERBLOCK)? != place {
                mapping.rewrite(Offset(place), size_of::<Superblock>() as u64)?;
            }
            for &LogExtent { start, end, .. } in &log.extents {
                mapping.rewrite(start, end.min(Offset(mapping.len())) - start)?;
            }
        }
        // The data read may exist in the page cache only.
        progress::flush_all(mapping, opener::FLUSHING)?;
        // The live area is not needed any more. If this is interrupted, it must not be believed.
        distrust_live(mapping)?;
    }
    let ranges: Vec<Range<Offset>> = log.extents.iter().map(|extent| extent.start..extent.end).collect();
    mapping.seal_up(&ranges)?;
    if superblock.is_clean() {
        mapping.flush_seal()?;
    }
    if let Some(last) = log.extents.last() {
        // The space past the end may be unallocated: the file may be a copy.
        mapping.allocate(log.end.align(BLOCK).min(Offset(mapping.len())), last.end)?;
    }

    let LogFound { bytes, records, .. } = log;
    let engine = build(seated, Opened::AfterPowerCut { records, bytes }, superblock, &log)?;
    engine.mapping.store_live(live::SUPERBLOCK, in_force as u64 * SUPERBLOCK_B, Ordering::Relaxed)?;
    {
        let mut writing = engine.lend_writing();
        writing.writer.longest = counted.longest;
        writing.exceeding(u64::MAX, Writing::hold_a_block)?;
    }
    let keys = counted.keys.into_iter().map(|(map, (_, most))| (map, most)).collect();
    engine.rebuild_maps(keys, log.last, bytes)?;
    let live_bytes = engine.sum_of_live_bytes()?;
    LogTotals { seq: log.last, bytes, records, live_bytes }.reset(&engine.mapping)?;
    if begins_a_life {
        engine.begin_incarnation(log.last)?;
    } else {
        engine.go_on()?;
    }
    engine.trust_live()?;
    telemetry::on_recovered(engine.mapping.path(), (records, bytes), watch);
    Ok(engine)
}

/// Whether a flush of this very page cache may have failed. A different page cache holds what was read from the disk,
/// or still has to write it.
fn may_have_failed_to_flush(mapping: &Mapping) -> Result<bool> {
    const FAILED: u64 = live::STATE_POISONED | live::STATE_LOG_UNSURE | live::STATE_ALL_UNSURE;

    let identity = mapping.identity();
    let same_cache = identity.is_none() || live_is_current(mapping, identity, SAME_FILE)?;
    Ok(same_cache && (mapping.live(live::STATE)? & FAILED != 0 || some_were_flushing(mapping)?))
}

/// Records that are looked up at the same time.
const BATCH: usize = 64;

/// What a walk along the log counts for the rebuild.
#[derive(Default)]
struct Counted {
    /// For each map, its number of keys, and the most it ever had.
    keys: BTreeMap<MapId, (u64, u64)>,
    /// Length of the longest record, in bytes.
    longest: u64,
    /// The pieces of the log walked so far, from jump to jump: start and end.
    pieces: BTreeMap<Offset, Offset>,
    /// The current piece of the walk.
    piece: Range<Offset>,
}

impl Counted {
    /// Counts a record.
    fn count(&mut self, record: Record<'_>) {
        if record.offset != self.piece.end {
            self.pieces.insert(self.piece.start, self.piece.end);
            self.piece.start = record.offset;
        }
        self.piece.end = record.end();
        self.longest = self.longest.max(record.len());
        let replaces = self.replaces(record);
        let (now, most) = match record.kind() {
            Some(Kind::Put | Kind::Remove | Kind::Clear) => self.keys.entry(record.header.map()).or_default(),
            _ => return,
        };
        match record.kind() {
            Some(Kind::Put) if !replaces => *now += 1,
            Some(Kind::Remove) if replaces && !record.is_copy() => *now = now.saturating_sub(1),
            Some(Kind::Clear) => *now = 0,
            _ => {}
        }
        *most = (*most).max(*now);
    }

    /// Whether the walk has passed the value that a record replaces or copies. That value is still at its place:
    /// without a newer record of its key, the space could not be reused.
    fn replaces(&self, record: Record<'_>) -> bool {
        let prev = record.header.prev_offset();
        let lies_in = |(&start, &end): (&Offset, &Offset)| (start..end).contains(&prev);
        record.header.flags & flags::NEW == 0
            && ((self.piece.start..record.offset).contains(&prev)
                || self.pieces.range(..=prev).next_back().is_some_and(lies_in))
    }
}

/// Walks the log to its end. Returns the log, and what was counted.
fn find_end(mapping: &Mapping, superblock: &Superblock, settings: &Settings) -> Result<(LogFound, Counted)> {
    let mut phase = Phase::begin(mapping, settings, RecoveryPhase::Walking, mapping.len());
    let mut walk = Walk::new(mapping, LogHead::of_superblock(superblock).head, None);
    let durable_end = superblock.log_end();
    let mut reached = walk.at() == durable_end;
    let mut end = (walk.at(), walk.last_crc(), walk.last_seq());
    // The part of the first extent before the head may have been cut off and reused.
    let mut extents = vec![LogExtent { start: walk.at().align_down(BLOCK), end: Offset::NONE, seq: walk.last_seq() }];
    // Extents, keys and totals count once their commit is complete.
    let (mut committed_extents, mut committed_bytes, mut committed_records) = (1, 0, 0);
    let (mut bytes, mut records) = (0, 0);
    let mut counted = Counted::default();
    while let Some(record) = walk.next() {
        phase.advance(record.len());
        bytes += record.len();
        records += 1;
        counted.count(record);
        if record.kind() == Some(Kind::Jump) {
            if let Some(last) = extents.last_mut() {
                last.end = record.end().align(BLOCK);
            }
            if !walk.at().is_aligned(BLOCK) || walk.at() < Offset::EXTENTS {
                break;
            }
            extents.push(LogExtent { start: walk.at(), end: Offset::NONE, seq: record.seq() });
        }
        if walk.is_between_commits() && record.kind() != Some(Kind::Jump) {
            end = (walk.at(), walk.last_crc(), walk.last_seq());
            (committed_extents, committed_bytes, committed_records) = (extents.len(), bytes, records);
            reached |= walk.at() == durable_end;
        }
    }
    let (end, chain, last) = end;
    let missing = match synced(mapping, superblock)? {
        _ if !reached => Some(format!("the last checkpoint, at offset {durable_end}")),
        Some(synced) if last < synced => {
            Some(format!("the last commit that was synced, number {synced} (it is at {last})"))
        }
        _ => None,
    };
    if let Some(missing) = missing {
        return Err(mapping.corrupt(walk.at(), like_a_copy(&format!("the log ends before {missing}: {}", walk.stop()))));
    }
    extents.truncate(committed_extents);
    check_extents(mapping, &extents, end)?;
    phase.end();
    Ok((LogFound { extents, end, chain, last, bytes: committed_bytes, records: committed_records }, counted))
}

/// The error message about an inconsistent log.
fn like_a_copy(what: &str) -> String {
    format!("{what}; this looks like a copy of a store in use: copy it while it is closed, or copy it again")
}

/// Whether the extents of a log are disjoint. One may have been reused while a copy was made.
fn check_extents(mapping: &Mapping, extents: &[LogExtent], end: Offset) -> Result<()> {
    let mut sorted = extents.to_vec();
    if let Some(last) = sorted.last_mut() {
        last.end = (end + JUMP_LEN).align(BLOCK);
    }
    sorted.sort_unstable_by_key(|extent| (extent.start, extent.end));
    match sorted.windows(2).find(|pair| pair[0].end > pair[1].start) {
        Some(pair) => Err(mapping.corrupt(pair[1].start, like_a_copy("two extents of the log overlap"))),
        None => Ok(()),
    }
}

/// Sizes of the regions of a store that is being recovered.
#[derive(Clone, Copy)]
struct Sizes<'a> {
    /// How many keys each map may have; missing if it is not named.
    keys: &'a BTreeMap<MapId, u64>,
    fit: Fit,
}

/// How much room the regions have besides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fit {
    Roomy,
    /// The store is full: they are as small as possible.
    Tight,
}

/// The maps of a store that is being recovered: the index of each, and its counters.
type Maps<'a> = BTreeMap<MapId, (Index<'a>, Totals)>;

impl Engine {
    /// Rebuilds the regions of all maps from the log of `bytes` bytes. `keys` says how many keys each may have.
    ///
    /// In a full store, where the regions or the reserve do not fit, it starts again with the smallest possible
    /// regions, and with a larger one if one of them was too small.
    fn rebuild_maps(&self, mut keys: BTreeMap<MapId, u64>, seq: Seq, bytes: u64) -> Result<()> {
        let mut writing = self.lend_writing();
        let mut fit = Fit::Roomy;
        loop {
            match writing.rebuild_once(Sizes { keys: &keys, fit }, seq, bytes) {
                Ok(Some((map, slots))) => {
                    keys.insert(map, slots + slots / 16 + 1);
                }
                Ok(None) => {
                    // There are no readers yet, so nothing has to wait.
                    writing.writer.space.reclaim(&self.mapping, COUNT_MASK, LogPoint::default())?;
                    if writing.refill_reserve()? || std::mem::replace(&mut fit, Fit::Tight) == Fit::Tight {
                        return Ok(());
                    }
                }
                Err(Error::Full { .. }) if fit == Fit::Roomy => fit = Fit::Tight,
                Err(error) => return Err(error),
            }
            let table = self.map_table()?;
            table.iter()?.try_for_each(|entry| table.remove(entry))?;
            let made = |extent: &&Extent| matches!(extent.kind, ExtentKind::Index | ExtentKind::Retired);
            let made: Vec<Offset> = writing.writer.space.extents().filter(made).map(|extent| extent.offset).collect();
            made.into_iter().try_for_each(|offset| writing.writer.space.free(&self.mapping, offset))?;
        }
    }

    /// Takes the next records of the log that change something, with their hashes. Their cache misses overlap: each
    /// costs a line of the index and the record that it replaces.
    fn take_batch<'a>(
        &self,
        batch: &mut Vec<(Record<'a>, KeyHash)>,
        scan: &mut Scan<'a>,
        maps: &Maps<'_>,
        phase: &mut Phase<'_>,
    ) -> Result<()> {
        batch.clear();
        for record in scan.take(BATCH) {
            let record = record?;
            phase.advance(record.len());
            if !matches!(record.kind(), Some(Kind::Put | Kind::Remove | Kind::Clear)) {
                continue;
            }
            let hash = record.hash(self.seed);
            if let Some((index, _)) = maps.get(&record.header.map()) {
                index.prefetch(hash);
            }
            if record.header.prev_offset() != Offset::NONE {
                self.mapping.prefetch(record.header.prev_offset());
            }
            batch.push((record, hash));
        }
        Ok(())
    }

    /// Points the slot of a record's key at the record, and says whether a slot was left. The record it replaces is
    /// where the slot points, not `prev`: that may lie before the head.
    fn publish_recovered(
        &self,
        index: &Index<'_>,
        totals: &mut Totals,
        record: Record<'_>,
        hash: KeyHash,
    ) -> Result<bool> {
        let is_put = record.kind() == Some(Kind::Put);
        match index.probe(hash, |offset| self.has_key_of(record, offset))? {
            Some(Probe::Found(at, newest)) => {
                let newest = log::record(&self.mapping, newest)?;
                totals.keys -= 1;
                totals.bytes -= newest.counted_len();
                if is_put {
                    index.publish(at, hash, record.offset)?;
                } else {
                    // There is no reader yet that could need the tombstone.
                    index.retire(at)?;
                    totals.slots -= 1;
                    totals.dead += 1;
                }
            }
            // A tombstone of an absent key changes nothing.
            Some(Probe::Vacant(..)) if !is_put => {}
            Some(Probe::Vacant(at, was_dead)) => {
                index.give(at, hash, record.offset)?;
                totals.slots += 1;
                totals.dead -= u64::from(was_dead);
            }
            None => return Ok(false),
        }
        if is_put {
            totals.keys += 1;
            totals.bytes += record.counted_len();
        }
        Ok(true)
    }

    /// Begins a new life of the store past the end of the log that was found, durably, before anything is committed.
    fn begin_incarnation(&self, last: Seq) -> Result<()> {
        let seq = Seq::new(last.incarnation() + 1, last.count() + 1);
        let mut writing = self.lend_writing();
        // A jump belongs to the life that ends here.
        let mut tail = Tail { seq: last, ..writing.tail()? };
        // A torn jump or incarnation record could become whole again under its own first words.
        tail.wipe(&self.mapping)?;
        writing.let_go_of_the_block()?;
        let tail_to = &mut tail;
        let make_room = |writing: &mut Writing<'_>| writing.make_log_room(tail_to, RECORD_HEADER, Room::Cleaning);
        let jumped = writing.exceeding(u64::MAX, make_room)?;
        let entry = log::Entry { flags: flags::COMMIT, ..log::Entry::bare(Kind::Incarnation, seq) };
        tail.append(&self.mapping, &entry)?;
        let mut appended = Appended::default();
        appended.add(RECORD_HEADER, jumped);
        writing.count_log(seq, appended)?;
        writing.store_commit_point(&Tail { seq, ..tail })?;
        for (offset, value) in [
            (live::CHAIN, u64::from(tail.chain)),
            (live::TAIL, tail.at.0),
            (live::HORIZON, seq.0),
            (live::REUSED_BELOW, seq.count()),
            (live::CHANGED, seq.0),
            (live::VISIBLE, seq.0),
        ] {
            self.mapping.store(offset, value, Ordering::Release)?;
        }
        drop(writing);
        self.go_on()
    }

    /// The last step of a recovery: the reserve, and a superblock that says how far it came.
    fn go_on(&self) -> Result<()> {
        // A full store is still opened, with a smaller reserve.
        let mut writing = self.lend_writing();
        writing.refill_reserve()?;
        writing.checkpoint_new()
    }
}

impl<'e> Writing<'e> {
    /// Gives a map its first region, with room for its keys; a tight one has longer searches. If even that does not
    /// fit, since the index takes other extents than before, the file exceeds its limit: better than not being opened.
    fn recover_map(&mut self, map: MapId, sizes: Sizes<'_>, seq: Seq) -> Result<Index<'e>> {
        let keys = sizes.keys.get(&map).copied().unwrap_or(0);
        if sizes.fit == Fit::Roomy {
            let slots = if map == DEFAULT_MAP { keys.max(self.engine.settings.initial_capacity) } else { keys };
            return self.create_map(map, index::blocks_for(slots), seq);
        }
        let blocks = index::tight_blocks_for(keys);
        match self.create_map(map, blocks, seq) {
            Err(Error::Full { .. }) => self.exceeding(u64::MAX, |writing| writing.create_map(map, blocks, seq)),
            made => made,
        }
    }

    /// Attempts it with regions of these sizes. If a map had no slot left, returns that map and how many slots it has.
    fn rebuild_once(&mut self, sizes: Sizes<'_>, seq: Seq, bytes: u64) -> Result<Option<(MapId, u64)>> {
        let (start, end) = (self.engine.head()?.head.at, self.engine.mapping.live_offset(live::TAIL)?);
        let mut maps = Maps::new();
        // The others when they are met: what was counted may be of a commit that is not complete.
        for map in [CATALOGUE, DEFAULT_MAP] {
            maps.insert(map, (self.recover_map(map, sizes, seq)?, Totals::default()));
        }
        let mut phase = Phase::begin(&self.engine.mapping, &self.engine.settings, RecoveryPhase::Indexing, bytes);
        let mut scan = Scan::new(&self.engine.mapping, start, end);
        let mut batch = Vec::with_capacity(BATCH);
        while !scan.is_at_end() {
            self.engine.take_batch(&mut batch, &mut scan, &maps, &mut phase)?;
            for &(record, hash) in &batch {
                if let Some(slots) = self.recover_record(&mut maps, (record, hash), sizes, seq)? {
                    return Ok(Some((record.header.map(), slots)));
                }
            }
        }
        for (index, totals) in maps.values() {
            index.reset_totals(Totals { seq, ..*totals })?;
        }
        phase.end();
        self.go_by_the_catalogue(sizes, seq)?;
        Ok(None)
    }

    /// Applies a record to the index of its map. If no slot is left, returns how many it has.
    fn recover_record(
        &mut self,
        maps: &mut Maps<'e>,
        (record, hash): (Record<'_>, KeyHash),
        sizes: Sizes<'_>,
        seq: Seq,
    ) -> Result<Option<u64>> {
        let map = record.header.map();
        let (index, totals) = match maps.entry(map) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert((self.recover_map(map, sizes, seq)?, Totals::default())),
        };
        if record.kind() == Some(Kind::Clear) {
            let blocks = (index.lines() * 64 + crate::file::layout::REGION_HEADER).div_ceil(BLOCK);
            let (offset, empty) = (index.offset(), Totals::default());
            let new = NewRegion { offset, blocks, map, since: seq, previous: Offset::NONE, totals: empty };
            *index = Index::create(&self.engine.mapping, new)?;
            *totals = Totals::default();
            return Ok(None);
        }
        if totals.used() >= index.limit() && sizes.fit == Fit::Roomy {
            index.reset_totals(Totals { seq, ..*totals })?;
            match self.rebuild_at_once(map, index::roomy(totals.slots + 1), seq, Tombstones::Kept) {
                Ok(larger) => *index = larger,
                // As long as a slot is left at all, the smaller index will do.
                Err(Error::Full { .. }) => {}
                Err(error) => return Err(error),
            }
            let counted = index.totals()?;
            (totals.slots, totals.dead) = (counted.slots, counted.dead);
        }
        let is_published = self.engine.publish_recovered(index, totals, record, hash)?;
        Ok((!is_published).then_some(totals.used()))
    }

    /// Frees the regions of maps that are not in the catalogue, whose records are dead, and makes regions for maps that
    /// are in it but have no records.
    fn go_by_the_catalogue(&mut self, sizes: Sizes<'_>, seq: Seq) -> Result<()> {
        let mut known = self.engine.maps_of_catalogue()?;
        for &map in &known {
            if self.engine.index(map)?.is_none() {
                self.recover_map(map, sizes, seq)?;
            }
        }
        known.extend([CATALOGUE, DEFAULT_MAP]);
        let table = self.engine.map_table()?;
        for entry in table.iter()?.filter(|entry| !known.contains(&entry.map)) {
            self.engine.check_was_made(entry.map)?;
            table.remove(entry)?;
            self.writer.space.free(&self.engine.mapping, entry.region())?;
        }
        Ok(())
    }
}
