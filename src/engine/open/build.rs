//! Building: the live area set up anew, for a store that is created, or was closed.

use std::io;
use std::sync::atomic::Ordering;

use super::seat::Seat;
use crate::engine::clock::now;
use crate::engine::settings::{Opened, Settings};
use crate::engine::state::live_area::{distrust_live, set_live};
use crate::engine::{Engine, progress};
use crate::error::{Error, Result};
use crate::file::layout::{
    CATALOGUE, COUNT_BITS, DEFAULT_MAP, EXTENTS, ExtentKind, LIVE, SUPERBLOCK_A, SUPERBLOCK_B, Superblock, live, opener,
};
use crate::file::region::Region;
use crate::file::space::Space;
use crate::file::{index, totals};

/// A log that is known: its extents (start, end, sequence number), and how it ends.
pub(crate) struct LogFound {
    pub(crate) extents: Vec<(u64, u64, u64)>,
    pub(crate) end: u64,
    pub(crate) chain: u32,
    pub(crate) last: u64,
}

/// Sets the live area up anew around a log, with an empty map table and nothing allocated but the log.
pub(crate) fn build(
    region: Region,
    seat: Seat,
    settings: Settings,
    opened: Opened,
    superblock: Superblock,
    log: &LogFound,
) -> Result<Engine> {
    distrust_live(&region)?;
    region.zero(LIVE, EXTENTS - LIVE)?;
    set_live(&region, &superblock, log.end, log.chain, log.last)?;
    // The first superblock of a new store goes to B; in any other case the word is set again.
    region.store_live(live::SUPERBLOCK, SUPERBLOCK_A, Ordering::Relaxed)?;
    // A full store that is recovered may need more than its limit.
    let excess = if opened == Opened::Created { 0 } else { u64::MAX };
    let create = || Space::create(&region, &log.extents, superblock.head_ordinal.get(), log.last);
    let space = region.exceeding(excess, create)?;
    let engine = Engine::assemble(region, seat, settings, opened, superblock, None, Some(space), log.end)?;
    {
        let mut writing = engine.lend_writing();
        writing.exceeding(excess, |writing| writing.create_map_table())?;
    }
    Ok(engine)
}

/// Makes an empty store of a region that has nothing behind the live area.
pub(super) fn build_empty(region: Region, seat: Seat, settings: Settings) -> Result<Engine> {
    let first_extent = (EXTENTS, EXTENTS + settings.limits.smallest_log);
    region.allocate(EXTENTS, first_extent.1)?;
    let seq = (1 << COUNT_BITS) + 1;
    let mut random = [0; 24];
    getrandom::fill(&mut random).map_err(|e| Error::io(region.path(), "get random bytes", io::Error::other(e)))?;
    let (uuid, seed) = random.split_at(16);
    let mut superblock = Superblock::new_zeroed_for(seq, now());
    superblock.uuid.copy_from_slice(uuid);
    // Version 4, variant 1: a random UUID (RFC 9562).
    superblock.uuid[6] = superblock.uuid[6] & 0x0f | 0x40;
    superblock.uuid[8] = superblock.uuid[8] & 0x3f | 0x80;
    superblock.hash_seed = u64::from_le_bytes(seed.try_into().unwrap_or_default()).into();

    let log =
        LogFound { extents: vec![(first_extent.0, first_extent.1, seq - 1)], end: EXTENTS, chain: 0, last: seq - 1 };
    let initial = settings.initial_capacity;
    let engine = build(region, seat, settings, Opened::Created, superblock, &log)?;
    let mut writing = engine.lend_writing();
    for (map, slots) in [(CATALOGUE, 0), (DEFAULT_MAP, initial)] {
        writing.create_map(map, index::blocks_for(slots), seq - 1)?;
    }
    writing.keep_reserve(0)?;
    drop(writing);
    engine.region.flush_all()?;
    {
        let mut superblock = engine.lock_new_superblock();
        let next = Superblock { file_len: engine.region.file_len()?.into(), ..*superblock };
        engine.write_superblock(&mut superblock, next)?;
    }
    engine.trust_live()?;
    Ok(engine)
}

/// Opens a store that was closed: there is nothing to do but to set the live area up.
pub(super) fn open_clean(
    region: Region,
    seat: Seat,
    settings: Settings,
    superblock: Superblock,
    in_force: usize,
) -> Result<Engine> {
    let (end, last) = (superblock.log_end.get(), superblock.next_seq.get() - 1);
    distrust_live(&region)?;
    region.zero(LIVE, EXTENTS - LIVE)?;
    progress::note(&region, opener::OPENING, 0, 0);
    set_live(&region, &superblock, end, superblock.end_chain.get(), last)?;
    region.store_live(live::MAP_TABLE, superblock.map_table.get(), Ordering::Relaxed)?;
    region.store_live(live::SPACE_TABLE, superblock.space_table.get(), Ordering::Relaxed)?;
    region.store_live(live::SUPERBLOCK, in_force as u64 * SUPERBLOCK_B, Ordering::Relaxed)?;
    let (bytes, records) = (superblock.log_bytes.get(), superblock.log_records.get());
    totals::publish(&region, live::LOG_TOTALS, [last, bytes, records, superblock.live_bytes.get()])?;
    for (word, value) in
        [live::RESIZE_CURSOR, live::RESIZE_TARGET, live::RESIZE_ZEROED].into_iter().zip(superblock.resize)
    {
        region.store_live(word, value.get(), Ordering::Relaxed)?;
    }
    region.store_live(live::CHECKPOINT_BYTES, superblock.log_bytes.get(), Ordering::Relaxed)?;
    let space = Space::load(&region, superblock.space_table.get())?;
    let engine = Engine::assemble(region, seat, settings, Opened::Clean, superblock, None, Some(space), end)?;
    if superblock.counted_live_bytes().is_none() {
        let live_bytes = engine.sum_of_live_bytes()?;
        totals::reset(&engine.region, live::LOG_TOTALS, [last, bytes, records, live_bytes])?;
    }
    // Whoever was the last one may have been in a table that had grown.
    if engine.writer().space.extents().any(|extent| extent.kind == ExtentKind::Live) {
        engine.lend_writing().give_tables_back()?;
    }
    engine.trust_live()?;
    Ok(engine)
}
