//! The live area as an opener finds it, or sets it up: whether to trust it, and what it says.

use std::sync::atomic::Ordering;

use super::head::{self, LogHead};
use super::superblocks::{fields_are_sane, is_sane};
use crate::error::Result;
use crate::file::layout::{
    JUMP_LEN, Offset, PIN_LEN, PIN_TABLE, PINS, Seq, Superblock, commit_seq, commit_word, live, pin, seal, writer_lock,
};
use crate::file::log::{Head, Walk};
use crate::file::mapping::Mapping;
use crate::file::totals::{self, Banks};

/// How many words of the [identity](live::IDENTITY) say that it is the same file, under the same kernel.
pub(crate) const SAME_FILE: usize = 5;

/// How many say that it stayed mounted. In another mount namespace it is another mount.
const SAME_MOUNT: usize = 6;

/// Whether the live area was declared valid, under this very page cache as far as `words` of the identity tell.
pub(crate) fn live_is_current(mapping: &Mapping, identity: Option<[u64; 6]>, words: usize) -> Result<bool> {
    if mapping.live(live::VERSION_WORD)? != live::VERSION {
        return Ok(false);
    }
    for (index, word) in identity.into_iter().flatten().take(words).enumerate() {
        if mapping.live(live::IDENTITY + 8 * index as u64)? != word {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The identity that the live area has.
pub(crate) fn live_identity(mapping: &Mapping) -> Result<[u64; live::IDENTITY_WORDS as usize]> {
    let mut identity = [0; live::IDENTITY_WORDS as usize];
    for (index, word) in identity.iter_mut().enumerate() {
        *word = mapping.live(live::IDENTITY + 8 * index as u64)?;
    }
    Ok(identity)
}

/// Whether the live area can be that of the store whose superblock is in force.
fn live_is_sane(mapping: &Mapping, superblock: &Superblock) -> Result<bool> {
    // The visible number comes last: others may commit meanwhile, and neither the horizon nor the head ever passes it.
    let Ok(head) = head::read(mapping) else { return Ok(false) };
    let horizon = mapping.live_seq(live::HORIZON)?;
    let commit = mapping.live(live::COMMIT_POINT)?;
    let visible = mapping.live_seq(live::VISIBLE)?;
    // A superblock can be ahead by a commit whose writer was stopped or killed before showing it.
    let is_ahead = Seq::of_commit_word(commit, visible) == visible.next() && visible.next() >= superblock.last_seq();
    Ok(is_sane(visible)
        && (visible >= superblock.last_seq() || is_ahead)
        && visible.incarnation() == superblock.next_seq().incarnation()
        && horizon <= visible
        && fields_are_sane(&Superblock { next_seq: visible.next().to_field(), ..head.put_into(*superblock) })
        && mapping.live_offset(live::TAIL)? >= Offset::EXTENTS)
}

/// Whether the live area that a killed process left fits all of the file. If the file is a copy: nothing was committed,
/// and no space given away, between the reading of its front and of its end.
pub(crate) fn live_is_whole(mapping: &Mapping, superblock: &Superblock) -> Result<bool> {
    let commit = mapping.live(live::COMMIT_POINT)?;
    let visible = mapping.live_seq(live::VISIBLE)?;
    let changes = mapping.live(live::SPACE_CHANGES)?;
    let agrees = is_sane(visible)
        && mapping.ends_with_a_block()?
        && mapping.seal_in_force(seal::COMMIT)? == commit_seq(commit, visible.0)
        // Odd, if it was killed in the middle of a change.
        && mapping.seal_in_force(seal::SPACE)? == changes.wrapping_add(changes & 1)
        // The same place may have been the head of the log before.
        && mapping.live_offset(live::DURABLE_HEAD)? == superblock.log_head()
        && mapping.live(live::DURABLE_ORDINAL)? == superblock.head_ordinal.get()
        // The clean flag goes before the first change of a store that was closed.
        && (!superblock.is_clean() || head::read(mapping)?.head == LogHead::of_superblock(superblock).head);
    Ok(agrees && (!is_at_rest(mapping)? || ends_the_log(mapping)?))
}

/// Whether the live area is that of this page cache, to be trusted if it [counts](live_counts). A living writer vouches
/// for it, in whatever mount it sees the file. Without one, it must not be that of a disk that was pulled out and
/// plugged in again: it is in the same mount, or, seen from another namespace, has the mark that is kept with the page
/// cache alone.
pub(crate) fn live_is_vouched_for(mapping: &Mapping, has_writers: bool) -> Result<bool> {
    if has_writers {
        return live_is_current(mapping, None, 0);
    }
    let identity = mapping.identity();
    let words = if mapping.is_marked() { SAME_FILE } else { SAME_MOUNT };
    Ok(identity.is_some() && live_is_current(mapping, identity, words)?)
}

/// Whether the live area is plausible, and fits all of the file.
pub(crate) fn live_counts(mapping: &Mapping, superblock: &Superblock, has_writers: bool) -> bool {
    live_is_sane(mapping, superblock).unwrap_or(false)
        && (has_writers || live_is_whole(mapping, superblock).unwrap_or(false))
}

/// Whether no process was writing, nor has left anything for the next writer to look at.
fn is_at_rest(mapping: &Mapping) -> Result<bool> {
    Ok(writer_lock::holder(mapping.live(live::WRITER_LOCK)?) == writer_lock::FREE)
}

/// Whether the log ends where the live area of a store at rest says, and no record of a later commit follows.
fn ends_the_log(mapping: &Mapping) -> Result<bool> {
    let (at, visible) = (mapping.live_offset(live::TAIL)?, mapping.live_seq(live::VISIBLE)?);
    let tail = Head { at, chain: mapping.live(live::CHAIN)? as u32, seq: visible.next() };
    let goes_on = Walk::new(mapping, tail, None).next().is_some_and(|record| record.seq() > visible);
    Ok(!goes_on && mapping.live(live::COMMIT_POINT)? == commit_word(at.0, visible.0))
}

/// Whether the store was closed with this superblock, and not changed since.
pub(crate) fn is_closed(mapping: &Mapping, superblock: &Superblock) -> Result<bool> {
    Ok(superblock.is_clean()
        && mapping.ends_with_a_block()?
        && mapping.file_len()? == superblock.file_len.get()
        && mapping.seal(seal::CLOSED)? == superblock.generation.get())
}

/// The commit that is known to be durable, beyond those that the superblock vouches for. Nothing else of the live area
/// is trusted after a power cut; this word is true if it is there.
pub(crate) fn synced(mapping: &Mapping, superblock: &Superblock) -> Result<Option<Seq>> {
    let (synced, next) = (mapping.live_seq(live::SYNCED)?, superblock.next_seq());
    let is_of_now = synced.incarnation() == next.incarnation() && is_sane(synced);
    Ok((live_is_current(mapping, None, 0)? && is_of_now && synced >= next).then_some(synced))
}

/// The counters of the whole log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LogTotals {
    /// The commit that they were counted at.
    pub(crate) seq: Seq,
    /// Bytes ever appended.
    pub(crate) bytes: u64,
    /// Records ever appended.
    pub(crate) records: u64,
    /// Bytes of the records that hold a value, over all maps.
    pub(crate) live_bytes: u64,
}

impl LogTotals {
    /// The counters in force. The caller holds the writer lock.
    #[inline]
    pub(crate) fn latest(mapping: &Mapping) -> Result<LogTotals> {
        Ok(LogTotals::of_words(LogTotals::banks(mapping)?.latest()))
    }

    /// The bytes of the counters in force. Without the writer lock, it may be those of the next commit.
    #[inline(always)]
    pub(crate) fn bytes_now(mapping: &Mapping) -> Result<u64> {
        LogTotals::banks(mapping).map(|banks| banks.latest_of(1))
    }

    /// Both banks of the counters. The caller holds the writer lock.
    #[inline(always)]
    pub(crate) fn banks(mapping: &Mapping) -> Result<Banks<'_, 4>> {
        Banks::at(mapping, live::LOG_TOTALS)
    }

    /// The counters as of `seq`; `None` if commits have overtaken the reader.
    pub(crate) fn at_most(mapping: &Mapping, seq: Seq) -> Result<Option<LogTotals>> {
        Ok(totals::at_most(mapping, live::LOG_TOTALS, seq.0)?.map(LogTotals::of_words))
    }

    /// Makes these the counters in force. The caller holds the writer lock.
    #[inline(always)]
    pub(crate) fn publish(self, mapping: &Mapping) -> Result<()> {
        totals::publish(mapping, live::LOG_TOTALS, self.words())
    }

    /// Makes these the only counters, before any reader looks.
    pub(crate) fn reset(self, mapping: &Mapping) -> Result<()> {
        totals::reset(mapping, live::LOG_TOTALS, self.words())
    }

    #[inline(always)]
    pub(crate) fn of_words([seq, bytes, records, live_bytes]: [u64; live::LOG_TOTALS_WORDS as usize]) -> LogTotals {
        LogTotals { seq: Seq(seq), bytes, records, live_bytes }
    }

    /// These and what the commit of this number adds.
    #[inline(always)]
    pub(crate) fn plus(self, seq: Seq, appended: Appended) -> LogTotals {
        LogTotals {
            seq,
            bytes: self.bytes.saturating_add(appended.bytes),
            records: self.records.saturating_add(appended.records),
            live_bytes: self.live_bytes.saturating_add(appended.live).saturating_sub(appended.gone),
        }
    }

    #[inline(always)]
    pub(crate) fn words(self) -> [u64; live::LOG_TOTALS_WORDS as usize] {
        [self.seq.0, self.bytes, self.records, self.live_bytes]
    }
}

/// What a commit adds to the counters of the log.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Appended {
    /// Bytes and number of its records.
    pub(crate) bytes: u64,
    pub(crate) records: u64,
    /// Bytes of its records that hold a value.
    pub(crate) live: u64,
    /// Bytes of records that held a value until then.
    pub(crate) gone: u64,
}

impl Appended {
    /// Adds a record of `len` bytes, and the jump before it if the log had to go on elsewhere.
    #[inline(always)]
    pub(crate) fn add(&mut self, len: u64, jumped: bool) {
        let (jump_bytes, jumps) = if jumped { (JUMP_LEN, 1) } else { (0, 0) };
        self.bytes += len + jump_bytes;
        self.records += 1 + jumps;
    }
}

/// Whether the live area says what the superblock of a closed store does.
pub(crate) fn live_is_as_closed(mapping: &Mapping, superblock: &Superblock) -> Result<bool> {
    let LogTotals { seq: counted, bytes, records, live_bytes } = LogTotals::latest(mapping)?;
    let Ok(head) = head::read(mapping) else { return Ok(false) };
    let size = (bytes.wrapping_sub(head.bytes), records.wrapping_sub(head.records), live_bytes);
    let last = superblock.last_seq();
    Ok(mapping.live_seq(live::VISIBLE)? == last
        && mapping.live_offset(live::TAIL)? == superblock.log_end()
        && mapping.live(live::COMMIT_POINT)? == commit_word(superblock.log_end.get(), last.0)
        && mapping.live(live::CHAIN)? == u64::from(superblock.end_chain.get())
        && LogHead { bytes: 0, records: 0, ..head } == LogHead::of_superblock(superblock)
        && mapping.live_offset(live::DURABLE_HEAD)? == superblock.log_head()
        && mapping.live(live::DURABLE_ORDINAL)? == superblock.head_ordinal.get()
        && resize_words(mapping)? == superblock.resize.map(|word| word.get())
        && mapping.live(live::MAP_TABLE)? == superblock.map_table.get()
        && mapping.live(live::SPACE_TABLE)? == superblock.space_table.get()
        && mapping.live_seq(live::HORIZON)? <= last
        && mapping.live_seq(live::CHANGED)? <= last
        && counted <= last
        && size == (superblock.log_bytes.get(), superblock.log_records.get(), superblock.live_bytes.get()))
}

/// The words of a resize in progress, as a superblock keeps them.
pub(crate) fn resize_words(mapping: &Mapping) -> Result<[u64; 3]> {
    Ok([mapping.live(live::RESIZE_CURSOR)?, mapping.live(live::RESIZE_TARGET)?, mapping.live(live::RESIZE_ZEROED)?])
}

/// Marks the live area as not to be trusted: it is about to be rebuilt.
pub(crate) fn distrust_live(mapping: &Mapping) -> Result<()> {
    mapping.store_live(live::VERSION_WORD, 0, Ordering::SeqCst)
}

/// Writes the words of the live area that every road sets alike.
pub(crate) fn set_live(mapping: &Mapping, superblock: &Superblock, end: Offset, chain: u32, last: Seq) -> Result<()> {
    mapping.find_seal()?;
    mapping.store_seal(seal::COMMIT, last.0)?;
    mapping.store_seal(seal::SPACE, mapping.live(live::SPACE_CHANGES)?)?;
    for (offset, value) in [
        (live::HORIZON, last.0),
        (live::REUSED_BELOW, last.count()),
        (live::DURABLE_HEAD, superblock.log_head.get()),
        (live::DURABLE_ORDINAL, superblock.head_ordinal.get()),
        (live::COMMIT_POINT, commit_word(end.0, last.0)),
        (live::TAIL, end.0),
        (live::CHAIN, u64::from(chain)),
        (live::CHANGED, last.0),
        (live::VISIBLE, last.0),
    ] {
        mapping.store(offset, value, Ordering::Release)?;
    }
    head::publish(mapping, &LogHead::of_superblock(superblock))
}

/// Clears the words of writers and readers, before any other opener is let in. The extents of the pin table are left to
/// [`Writing`](crate::engine::state::writer::Writing).
pub(crate) fn forget_the_dead(mapping: &Mapping) -> Result<()> {
    for number in 0..PINS {
        mapping.store_live(PIN_TABLE + number * PIN_LEN + pin::CLAIM, 0, Ordering::Relaxed)?;
    }
    let word = mapping.live(live::WRITER_LOCK)?;
    if writer_lock::holder(word) != writer_lock::FREE {
        mapping.store_live(live::WRITER_LOCK, writer_lock::freed(word, writer_lock::ABANDONED), Ordering::Relaxed)?;
    }
    for word in [live::NEXT_TURN, live::WRITING_SINCE, live::WATCHERS] {
        mapping.store_live(word, 0, Ordering::Relaxed)?;
    }
    let changes = mapping.live(live::SPACE_CHANGES)?;
    mapping.store_live(live::SPACE_CHANGES, changes.wrapping_add(changes & 1), Ordering::Release)
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;
    use crate::engine::Engine;
    use crate::engine::settings::Settings;

    #[test]
    #[allow(clippy::unwrap_used)]
    fn a_live_area_is_sane_while_others_commit() {
        let engine = Engine::in_memory(Settings::default()).unwrap();
        let (mapping, superblock) = (&engine.mapping, engine.superblock().unwrap());
        let first = mapping.live_seq(live::VISIBLE).unwrap();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            // As a commit does, and after it a reclaimer.
            scope.spawn(|| {
                for seq in first.0.. {
                    mapping.store_live(live::VISIBLE, seq, Ordering::Release).unwrap();
                    mapping.store_live(live::HORIZON, seq, Ordering::Release).unwrap();
                    if done.load(Ordering::Relaxed) {
                        break;
                    }
                }
            });
            for _ in 0..200_000 {
                assert!(live_is_sane(mapping, &superblock).unwrap());
            }
            done.store(true, Ordering::Relaxed);
        });
        mapping.store_live(live::HORIZON, first.0, Ordering::Release).unwrap();
        mapping.store_live(live::VISIBLE, first.0, Ordering::Release).unwrap();
    }
}
