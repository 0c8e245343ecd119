//! The live area: the words of a running store, its processes and its pins.

/// File offsets of the words of the live page, grouped by writer and time of writing; a group is one cache line.
pub mod live {
    use crate::file::layout::LIVE;

    /// The commit point: see [`commit_word`](crate::file::layout::commit_word). Once it is stored, the commit survives
    /// a kill. It and [`SPACE_CHANGES`] come first of all words, since the [seal](crate::format#the-seal) vouches
    /// for what a copy from front to back reads between them and itself.
    pub const COMMIT_POINT: u64 = LIVE;
    /// End offset of the last commit whose slots are all published.
    pub const TAIL: u64 = LIVE + 8;
    /// The CRC of the last record before [`TAIL`].
    pub const CHAIN: u64 = LIVE + 16;
    /// Counts changes of the space table, for processes that cache it: odd while a change is in progress.
    pub const SPACE_CHANGES: u64 = LIVE + 24;

    /// Version of the live area; other versions are not trusted.
    pub const VERSION_WORD: u64 = LIVE + 192;
    /// The value of [`VERSION_WORD`] in this build.
    pub const VERSION: u64 = u64::from_le_bytes(*b"live\x06\0\0\0");
    /// Six words that identify the page cache: boot id (two words), device, inode, birth time, mount.
    pub const IDENTITY: u64 = LIVE + 200;
    /// Words in [`IDENTITY`].
    pub const IDENTITY_WORDS: u64 = 6;
    /// Bits that survive a kill; see the constants `STATE_*`.
    pub const STATE: u64 = LIVE + 248;
    /// In [`STATE`]: a flush has failed, so nothing since is known to be durable.
    pub const STATE_POISONED: u64 = 1;
    /// In [`STATE`]: a superblock that says CLEAN may be on its way to the disk.
    pub const STATE_CLOSING: u64 = 2;

    /// In [`STATE`]: a process was killed while it flushed the log, since the last checkpoint. The flush may have
    /// failed, and the system does not report that a second time.
    pub const STATE_LOG_UNSURE: u64 = 4;
    /// In [`STATE`]: the same, while everything was flushed.
    pub const STATE_ALL_UNSURE: u64 = 8;
    /// The unit of the counter in the high half of [`STATE`], which counts how often one of these two was set: a
    /// process that has written everything once more clears them only if the count is unchanged.
    pub const STATE_UNSURE_COUNT: u64 = 1 << 32;

    /// Sequence number below which space may have been reused: no reader may start below it.
    pub const HORIZON: u64 = LIVE + 64;
    /// The place of the map table; see [`table_word`](crate::file::layout::table_word).
    pub const MAP_TABLE: u64 = LIVE + 72;
    /// The place of the space table.
    pub const SPACE_TABLE: u64 = LIVE + 80;
    /// Offset of the superblock in force, the one that is known to be flushed.
    pub const SUPERBLOCK: u64 = LIVE + 88;
    /// The `log_head` of the superblock in force, or of one before it: nothing of the log from there on is reused.
    /// Stored before [`DURABLE_ORDINAL`]: with an older ordinal, it only claims less.
    pub const DURABLE_HEAD: u64 = LIVE + 96;
    /// Offset of the [seal](crate::format#the-seal). Only the holder of the writer lock changes it.
    pub const SEAL_AT: u64 = LIVE + 104;
    /// The highest sequence number of a commit that is known to be durable. It only grows.
    pub const SYNCED: u64 = LIVE + 112;
    /// The `head_ordinal` that belongs to [`DURABLE_HEAD`].
    pub const DURABLE_ORDINAL: u64 = LIVE + 120;

    /// The writer lock word: see [`writer_lock`](super::writer_lock).
    pub const WRITER_LOCK: u64 = LIVE + 128;
    /// The opener that has waited long for the writer lock and gets it next: its process-table entry plus one in the
    /// high 32 bits; in the low 32, how often the lock had been taken when it began to wait. Zero if there is none.
    pub const NEXT_TURN: u64 = LIVE + 136;
    /// When the transaction that holds the writer lock began: milliseconds since 1970, zero if none does.
    pub const WRITING_SINCE: u64 = LIVE + 144;

    /// Sequence number of the last visible commit.
    pub const VISIBLE: u64 = LIVE + 256;
    /// Sequence number of the last commit that changed visible contents: threads that wait for changes sleep on it. It
    /// is stored before [`TAIL`] and [`VISIBLE`].
    pub const CHANGED: u64 = LIVE + 264;
    /// Nonzero if a thread sleeps on [`CHANGED`].
    pub const WATCHERS: u64 = LIVE + 272;

    /// Two banks of {seq, bytes, records, live bytes}; the one with the larger seq counts. Bytes and records are those
    /// ever appended, live bytes those of the records that hold a value, over all maps.
    pub const LOG_TOTALS: u64 = LIVE + 320;
    /// Words of one bank of [`LOG_TOTALS`].
    pub const LOG_TOTALS_WORDS: u64 = 4;

    /// The index resize in progress: see [`resize_cursor`](super::resize_cursor). Zero when there is none.
    pub const RESIZE_CURSOR: u64 = LIVE + 384;
    /// The region that a resize builds, as an [`extent_word`](crate::file::layout::extent_word). The `previous` field
    /// of its header names the source region.
    pub const RESIZE_TARGET: u64 = LIVE + 392;
    /// The bytes ever appended to the log when the last checkpoint was taken.
    pub const CHECKPOINT_BYTES: u64 = LIVE + 400;
    /// How many blocks of the region that a resize builds are zeroed. No line moves before all are.
    pub const RESIZE_ZEROED: u64 = LIVE + 416;

    /// Two banks that say where the log begins; the one with the larger number counts. See [`head`](super::head).
    pub const HEAD: u64 = LIVE + 448;
    /// Words of one bank of [`HEAD`].
    pub const HEAD_WORDS: u64 = 8;

    /// The counting part of a sequence number: no record of the log with a larger one has been overwritten.
    pub const REUSED_BELOW: u64 = LIVE + 592;

    /// When the last scrub of the log began: milliseconds since 1970. Nothing relies on it.
    pub const SCRUBBED: u64 = LIVE + 608;
    /// How far it has come: the ordinal of an extent above the offset of a record, in units of 8 bytes, in the low 40
    /// bits. Zero if it has come to its end. Nothing relies on it.
    pub const SCRUB_AT: u64 = LIVE + 616;
    /// How many records were put into quarantine, and how much damage was found in all, since the live area was set up.
    pub const QUARANTINED: u64 = LIVE + 624;
    /// See [`QUARANTINED`].
    pub const DAMAGE: u64 = LIVE + 632;

    /// The extents that continue the pin table, each an [`extent_word`](crate::file::layout::extent_word); zero for
    /// those that do not exist. Only the holder of the writer lock changes them.
    pub const PIN_EXTENTS: u64 = LIVE + 640;
    /// The extents that continue the process table.
    pub const PROCESS_EXTENTS: u64 = LIVE + 768;

    /// The process that opens or closes the store, for processes that wait for it: see [`opener`](super::opener). Zero
    /// if none is named.
    pub const OPENER: u64 = LIVE + 896;
    /// Progress of a long step, in bytes: done, and in total.
    pub const OPENER_DONE: u64 = LIVE + 904;
    /// See [`OPENER_DONE`].
    pub const OPENER_TOTAL: u64 = LIVE + 912;
    /// A random number of the last opening for writing: it tells processes that have recovered the store into their own
    /// memory that a writer has come.
    pub const OPENING_ID: u64 = LIVE + 920;
}

/// The words of the seal, the last block of a file: see [the seal](crate::format#the-seal).
pub mod seal {
    /// The sequence number of the commit point, stored right before it.
    pub const COMMIT: u64 = 0;
    /// The value of [`SPACE_CHANGES`](super::live::SPACE_CHANGES) after the last change, stored right before that
    /// change.
    pub const SPACE: u64 = 8;
    /// The generation of the superblock that says that the store is closed; zero while it is open.
    pub const CLOSED: u64 = 16;
    /// All of these words.
    pub const WORDS: [u64; 3] = [COMMIT, SPACE, CLOSED];
}

/// The words of a bank of [`HEAD`](live::HEAD).
pub mod head {
    /// Counts the moves of the head.
    pub const NUMBER: usize = 0;
    /// Offset of the first record of the log.
    pub const AT: usize = 1;
    /// The `chain` of the first record.
    pub const CHAIN: usize = 2;
    /// The smallest sequence number that the first record may have.
    pub const SEQ: usize = 3;
    /// The highest sequence number among the records before the head, which compaction has removed.
    pub const BEHIND: usize = 4;
    /// Bytes of the records before the head, counted as in [`LOG_TOTALS`](super::live::LOG_TOTALS).
    pub const BYTES: usize = 5;
    /// The number of these records.
    pub const RECORDS: usize = 6;
    /// The ordinal of the extent that holds the first record.
    pub const ORDINAL: usize = 7;
}

/// The word of an index resize: whether tombstones are left out (bit 63), the map plus one (bits 32 to 62), the next
/// line to move (bits 0 to 31).
#[inline]
pub const fn resize_cursor(map: super::MapId, line: u64, drops_tombstones: bool) -> u64 {
    ((drops_tombstones as u64) << 63) | ((map.0 as u64 + 1) << 32) | line
}

/// The word that names the process that opens or closes the store: the process id plus one in the low 33 bits, its step
/// above.
pub mod opener {
    /// Opening the store, which takes almost no time.
    pub const OPENING: u64 = 0;
    /// Walking the log.
    pub const WALKING: u64 = 1;
    /// Building the index.
    pub const INDEXING: u64 = 2;
    /// Flushing what was found.
    pub const FLUSHING: u64 = 3;
    /// Flushing the store to close it.
    pub const CLOSING: u64 = 4;

    /// The word of process `pid`.
    #[inline]
    pub const fn word(pid: u32, step: u64) -> u64 {
        (step << 33) | (pid as u64 + 1)
    }

    /// The process id and the step, if the word names a process.
    #[inline]
    pub const fn parts(word: u64) -> Option<(u32, u64)> {
        match word & ((1 << 33) - 1) {
            0 => None,
            pid => Some(((pid - 1) as u32, word >> 33)),
        }
    }
}

/// The writer lock word: its holder in the high 32 bits, how often it was taken in the low 32.
pub mod writer_lock {
    /// A thread sleeps until the word changes.
    pub const WAITERS: u64 = 1 << 63;
    /// As the holder: free. A holder is named by its process-table entry plus one.
    pub const FREE: u64 = 0;
    /// As the holder: free, but the last holder died or panicked. The next one has to clean up after it.
    pub const ABANDONED: u64 = 0x7fff_ffff;

    /// The holder.
    #[inline]
    pub const fn holder(word: u64) -> u64 {
        (word >> 32) & 0x7fff_ffff
    }

    /// Whether the lock can be taken.
    #[inline]
    pub(crate) const fn is_free(word: u64) -> bool {
        matches!(holder(word), FREE | ABANDONED)
    }

    /// The word when `entry` has taken the lock. Sleeping threads stay asleep.
    #[inline]
    pub const fn taken(word: u64, entry: u64) -> u64 {
        (word & WAITERS) | ((entry + 1) << 32) | (word as u32).wrapping_add(1) as u64
    }

    /// The word when the lock is given back and all sleeping threads are woken.
    #[inline]
    pub const fn freed(word: u64, holder: u64) -> u64 {
        (holder << 32) | (word as u32) as u64
    }
}

/// Word offsets inside an entry of the process table. Only the process that holds the [lock](crate::format#locks) of an
/// entry writes to it.
pub mod process {
    /// The process id plus one, zero while the entry is free.
    pub const PID: u64 = 0;
    /// When the store was opened: milliseconds since 1970.
    pub const SINCE: u64 = 8;
    /// The mode in which it was opened: one of the constants below.
    pub const MODE: u64 = 16;
    /// In [`MODE`]: reading and writing, shared.
    pub const SHARED: u64 = 1;
    /// In [`MODE`]: reading and writing, exclusive.
    pub const EXCLUSIVE: u64 = 3;
    /// The boot id of the system that holds the entry, first word.
    pub const BOOT: u64 = 24;
    /// 1 if readers of this process need a barrier from a process that reuses space, 0 if they have one of their own.
    pub const ASYMMETRIC: u64 = 32;
    /// What the process is flushing without knowing the result yet: bits of [`STATE`](super::live::STATE) for the
    /// process that finds it dead.
    pub const FLUSHING: u64 = 40;
    /// 1 if the system has denied this process the barrier that it owes to readers, so that it reuses no space; else 0.
    pub const REFUSED: u64 = 48;
}

/// Words of a pin: the claim and, for pins that are held for long, the time at which it was taken.
pub mod pin {
    use crate::file::layout::{COUNT_BITS, COUNT_MASK};

    /// Word offset of the claim: process-table entry plus one above [`COUNT_BITS`], the counting part of the pinned
    /// sequence number below, or [`COUNT_MASK`] while a thread keeps the pin without using it; zero while it is free.
    pub const CLAIM: u64 = 0;
    /// Word offset of the time at which a snapshot took the pin: milliseconds since 1970, zero for a single read.
    pub const SINCE: u64 = 8;

    /// The claim of `entry` at sequence number `seq`.
    #[inline]
    pub const fn claim(entry: u64, seq: u64) -> u64 {
        ((entry + 1) << COUNT_BITS) | (seq & COUNT_MASK)
    }

    /// The process-table entry of the claim's owner.
    #[inline]
    pub const fn owner(claim: u64) -> u64 {
        (claim >> COUNT_BITS).wrapping_sub(1)
    }

    /// The counting part of the sequence number in a claim.
    #[inline]
    pub const fn count(claim: u64) -> u64 {
        claim & COUNT_MASK
    }
}

/// The commit point word: the end offset of the commit in the low 40 bits, in units of 8 bytes, and the low 24 bits of
/// its sequence number above. Since it is never more than a few ahead of the visible sequence number, these bits
/// determine all of it.
#[inline]
pub const fn commit_word(end: u64, seq: u64) -> u64 {
    (end / 8) | (seq << 40)
}

/// The end offset in a [`commit_word`].
#[inline]
pub(crate) const fn commit_end(word: u64) -> u64 {
    (word & ((1 << 40) - 1)) * 8
}

/// The sequence number in a [`commit_word`], given the visible one.
#[inline]
pub(crate) const fn commit_seq(word: u64, visible: u64) -> u64 {
    let ahead = (word >> 40).wrapping_sub(visible) & 0xff_ffff;
    // In a damaged file it can be anything.
    visible.wrapping_add(ahead)
}
