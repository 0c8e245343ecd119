//! Building: a fresh live area, for a store that is created, or was closed.

use std::io;
use std::sync::atomic::Ordering;

use super::seat::Seated;
use crate::engine::clock::now;
use crate::engine::settings::Opened;
use crate::engine::state::live_area::{LogTotals, distrust_live, set_live};
use crate::engine::state::writer::Writer;
use crate::engine::{Engine, progress};
use crate::error::{Error, Result};
use crate::file::index;
use crate::file::layout::{
    CATALOGUE, DEFAULT_MAP, EXTENTS, ExtentKind, LIVE, Offset, SUPERBLOCK_A, SUPERBLOCK_B, Seq, Superblock, live,
    opener,
};
use crate::file::space::{LogExtent, Space};

/// A known log: its extents, and its end.
pub(crate) struct LogFound {
    pub(crate) extents: Vec<LogExtent>,
    pub(crate) end: Offset,
    pub(crate) chain: u32,
    pub(crate) last: Seq,
    pub(crate) bytes: u64,
    pub(crate) records: u64,
}

/// Builds a fresh live area around a log, with an empty map table and nothing allocated but the log.
pub(crate) fn build(seated: Seated, opened: Opened, superblock: Superblock, log: &LogFound) -> Result<Engine> {
    let mapping = &seated.mapping;
    distrust_live(mapping)?;
    mapping.zero(Offset(LIVE), EXTENTS - LIVE)?;
    set_live(mapping, &superblock, log.end, log.chain, log.last)?;
    // The first superblock of a new store goes to B; otherwise the word is set again later.
    mapping.store_live(live::SUPERBLOCK, SUPERBLOCK_A, Ordering::Relaxed)?;
    // A full store that is recovered may need more than its limit.
    let excess = if opened == Opened::Created { 0 } else { u64::MAX };
    let create = || Space::create(mapping, &log.extents, superblock.head_ordinal.get(), log.last);
    let space = mapping.exceeding(excess, create)?;
    let writer = Writer::new(mapping, space, log.end)?;
    let engine = Engine::assemble(seated, opened, superblock, writer)?;
    {
        let mut writing = engine.lend_writing();
        writing.exceeding(excess, |writing| writing.create_map_table())?;
    }
    Ok(engine)
}

/// Makes an empty store of a mapping that ends after the live area.
pub(super) fn build_empty(seated: Seated) -> Result<Engine> {
    let Seated { mapping, settings, .. } = &seated;
    let seq = Seq::new(1, 1);
    let first_extent =
        LogExtent { start: Offset::EXTENTS, end: Offset::EXTENTS + settings.limits.smallest_log, seq: seq.before() };
    mapping.allocate(first_extent.start, first_extent.end)?;
    let mut random = [0; 24];
    getrandom::fill(&mut random).map_err(|e| Error::io(mapping.path(), "get random bytes", io::Error::other(e)))?;
    let (uuid, seed) = random.split_at(16);
    let mut superblock = Superblock::new_zeroed_for(seq, now());
    superblock.uuid.copy_from_slice(uuid);
    // Version 4, variant 1: a random UUID (RFC 9562).
    superblock.uuid[6] = superblock.uuid[6] & 0x0f | 0x40;
    superblock.uuid[8] = superblock.uuid[8] & 0x3f | 0x80;
    superblock.hash_seed = u64::from_le_bytes(seed.try_into().unwrap_or_default()).into();

    let extents = vec![first_extent];
    let log = LogFound { extents, end: Offset::EXTENTS, chain: 0, last: seq.before(), bytes: 0, records: 0 };
    let initial = settings.initial_capacity;
    let engine = build(seated, Opened::Created, superblock, &log)?;
    let mut writing = engine.lend_writing();
    for (map, slots) in [(CATALOGUE, 0), (DEFAULT_MAP, initial)] {
        writing.create_map(map, index::blocks_for(slots), seq.before())?;
    }
    writing.keep_reserve(0)?;
    drop(writing);
    engine.mapping.flush_all()?;
    {
        let mut superblock = engine.lock_new_superblock();
        let next = Superblock { file_len: engine.mapping.file_len()?.into(), ..*superblock };
        engine.write_superblock(&mut superblock, next)?;
    }
    engine.trust_live()?;
    Ok(engine)
}

/// Opens a store that was closed, by building its live area.
pub(super) fn open_clean(seated: Seated, superblock: Superblock, in_force: usize) -> Result<Engine> {
    let mapping = &seated.mapping;
    let (end, last) = (superblock.log_end(), superblock.last_seq());
    distrust_live(mapping)?;
    mapping.zero(Offset(LIVE), EXTENTS - LIVE)?;
    progress::note(mapping, opener::OPENING, 0, 0);
    set_live(mapping, &superblock, end, superblock.end_chain.get(), last)?;
    mapping.store_live(live::MAP_TABLE, superblock.map_table.get(), Ordering::Relaxed)?;
    mapping.store_live(live::SPACE_TABLE, superblock.space_table.get(), Ordering::Relaxed)?;
    mapping.store_live(live::SUPERBLOCK, in_force as u64 * SUPERBLOCK_B, Ordering::Relaxed)?;
    let (bytes, records) = (superblock.log_bytes.get(), superblock.log_records.get());
    let log_totals = LogTotals { seq: last, bytes, records, live_bytes: superblock.live_bytes.get() };
    log_totals.publish(mapping)?;
    for (word, value) in
        [live::RESIZE_CURSOR, live::RESIZE_TARGET, live::RESIZE_ZEROED].into_iter().zip(superblock.resize)
    {
        mapping.store_live(word, value.get(), Ordering::Relaxed)?;
    }
    mapping.store_live(live::CHECKPOINT_BYTES, superblock.log_bytes.get(), Ordering::Relaxed)?;
    let space = Space::load(mapping, superblock.space_table.get())?;
    let writer = Writer::new(mapping, space, end)?;
    let engine = Engine::assemble(seated, Opened::Clean, superblock, writer)?;
    if superblock.counted_live_bytes().is_none() {
        let live_bytes = engine.sum_of_live_bytes()?;
        LogTotals { live_bytes, ..log_totals }.reset(&engine.mapping)?;
    }
    // The last process may have used a table that had grown.
    if engine.writer().space.extents().any(|extent| extent.kind == ExtentKind::Live) {
        engine.lend_writing().give_tables_back()?;
    }
    engine.trust_live()?;
    Ok(engine)
}
