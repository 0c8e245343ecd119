//! A persistent map in one memory-mapped file: an append-log and a fixed-slot hash index over it.
//!
//! ```
//! use slotlog::Store;
//!
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("visits.slotlog");
//! let store = Store::open(&path)?;                       // created if it is missing
//! store.insert("alice", "3 visits")?;                    // survives a kill from here on
//! store.sync()?;                                         // … and a power cut
//! assert_eq!(store.get("alice")?.as_deref(), Some(&b"3 visits"[..]));
//!
//! let mut transaction = store.begin()?;                  // many changes, all or nothing
//! transaction.insert("bob", "1 visit")?;
//! transaction.remove("alice")?;
//! transaction.commit()?;
//!
//! for entry in store.snapshot()?.iter() {                // one commit's view, borrowed from the file
//!     let (name, visits) = entry?;
//!     assert_eq!((name, visits), (&b"bob"[..], &b"1 visit"[..]));
//! }
//! # store.close()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Maps with names and types, that feel like the standard `HashMap`: [`Store::map`].
//!
//! ```
//! # let store = slotlog::Store::in_memory()?;
//! let ages = store.map::<str, u32>("ages")?;
//! ages.insert("Ada", 36)?;
//! ages.entry("Ada").and_modify(|age| *age += 1).or_insert(0)?;
//! assert_eq!(ages.get("Ada")?, Some(37));
//! # Ok::<(), slotlog::Error>(())
//! ```
//!
//! # One sentence
//!
//! **The log is the truth; everything else is derived from it.** A change is one record appended to the log. The index
//! says where the newest record of each key is, and could be thrown away at any time: recovery after a power cut does
//! just that, and builds it anew. So there is one thing whose durability has to be thought about, one thing to flush, one
//! thing to walk when in doubt, and two data structures never have to be kept in step on the disk. When a question about
//! this crate comes up, that sentence usually answers it.
//!
//! # The file
//!
//! ```text
//!  0      4 KiB    8 KiB                           64 KiB
//!  ├──────┼────────┼──────────┬──────────┬─────────┼───────────────┬────────┬──────────────┬───────┬┈┈
//!  │ super│ super  │ live     │ process  │ pin     │ log extent    │ index  │ log extent   │ free  │
//!  │ block│ block  │ page     │ table    │ table   │ ▤▤▤▤▤▤▤▤▤▤▤ ⤳ │ ▦▦▦▦▦  │ ▤▤▤▤         │       │
//!  │ A    │ B      │          │          │         │ records  jump │ lines  │ records tail │       │
//!  └──────┴────────┴──────────┴──────────┴─────────┴───────────────┴────────┴──────────────┴───────┴┈┈
//! ```
//!
//! * The **superblocks** say who the store is and how far its log is known to be durable. A checkpoint writes them in
//!   turn.
//! * The **live area** holds what changes while the store is open, as atomic words: the commit point, the visible
//!   sequence number, the tail of the log, and the pins of readers. It lives in the page cache; after a power cut it is
//!   rebuilt and not believed.
//! * **Extents** of 4 KiB blocks hold the log, the indexes, two small tables, or nothing. The log's extents are a chain:
//!   each ends in a record that jumps to the next.
//! * The **seal**, the last block, repeats the number of the last commit. A program that copies the file reads it last: if
//!   it does not agree with the front, somebody committed in between, and only the log is believed.
//!
//! Every byte is specified in [`mod@format`], beside the code that reads it.
//!
//! # A read
//!
//! The key is hashed to 45 bits. They choose a *line* of the index, 64 bytes, one cache line with six *slots*; each slot
//! is one word with 24 of the hash bits and the offset of a record. A slot whose bits fit leads to a record, whose key is
//! compared. That is two memory accesses, if the line is not full; a full line overflows into the next (at three quarters
//! full, 1.15 lines for a key that is there). No lock, no system call, no allocation, and with two accesses to wait for
//! little else to do, so that the processor overlaps those of one read with those of the next.
//!
//! A reader *pins* the visible sequence number first. A record newer than that leads by its `prev` to the version before.
//! So a [`Snapshot`] is nothing but a pin that is held: it costs the same whatever the size of the store. Each thread keeps a pin
//! for its reads; all views of one commit that may wander between threads, of one process, share one.
//!
//! **The invariants of a slot.** It points at the newest committed record of its key, a value or a tombstone. It is
//! published by one release store, its further hash bits before it. It never goes back to never-used in place, so a search
//! may stop at the first slot that was never used. It is given to another key only when its tombstone is older than every
//! pin.
//!
//! **The invariant of pins.** The reader writes its pin at the visible number N, then looks whether the *horizon* is above
//! N, and only then loads where the index is. Whoever wants to reuse space raises the horizon, then looks at all pins.
//! Between the two steps there is a full barrier on either side, so one of the two sees the other.
//!
//! # A commit
//!
//! 1. Take the writer lock. If a commit was left half published, by a panic or a kill, finish it.
//! 2. Make room, in the index and in the log. What can fail fails here.
//! 3. Append the records behind the tail, where nobody can reach them. The last one carries the flag `COMMIT`.
//! 4. Store the **commit point**, one word: from here on the commit survives a kill.
//! 5. Publish the slots; then the counters, the chain and the tail.
//! 6. Store the **visible sequence number**, one word: from here on the commit is seen, all of it at once.
//!
//! Between 4 and 6 everything is derived from the records in the log. So a writer who dies there has committed: whoever
//! takes the lock next does 5 and 6 again, and doing them twice is the same as doing them once. A writer who dies before 4
//! leaves bytes that nobody can reach; the next one wipes their head, flushes that, and skips their sequence number, so
//! that they can never be taken for, nor complete, a commit.
//!
//! # Nothing stops the world
//!
//! Growth, resizing and compaction are paid for in small steps, by the writes that make them necessary. Behind its commit,
//! with the writer lock still held, each write does its share:
//!
//! * **Resize.** When an index is three quarters full, a larger one is begun beside it. Each write zeroes a block of it or
//!   moves 16 lines; the old one stays in force and up to date, and what changes in lines that were moved already changes in
//!   both. When all are moved, one word switches. The switch consumes a sequence number: readers from before go on with the
//!   old one. So an index also shrinks when most of a map was removed, and loses dead slots. (An index of up to 512 lines
//!   is built anew by one write.)
//! * **Compaction.** The log is a queue. When more than half of it is dead ([`auto_compact`](Options::auto_compact)), each
//!   write also cleans a piece at its head, in proportion to what it has appended: records that the index still leads to are
//!   appended again at the tail, as a commit like any other; the others are left behind. A tombstone at the head has nothing
//!   older to hide, and is dropped.
//! * **Reuse.** What is emptied is used again when the superblock that is flushed has the log begin behind it, and no pin is
//!   below the number at which it became empty. When an eighth of what is alive waits for that (at least 1 MiB), a checkpoint
//!   is taken. Space is taken from the lowest place, so what is alive drifts down, and the file is cut off at its end.
//!
//! How much one write does is counted ([`UpkeepStats`]), and tested over a growth to five million keys: at most 512 lines of
//! an index, 18 times as many bytes of log as it has appended itself, and 17 slices of the log, of a quarter of a mebibyte each, handed to the disk. A
//! transaction does the share of all its changes; if its new keys do not fit into what the index has left, it builds the
//! larger one itself. On a full disk an index is filled further, up to fifteen sixteenths.
//!
//! What compaction costs is *write amplification*: bytes appended for each byte that a user's writes append. If a share d of
//! the log may be dead, it is at most 1 / d, that is 2 by default: that is reached if what is overwritten is always the same,
//! and the rest has to be carried along each time. If all keys are overwritten alike, most of what comes to the head is dead
//! by then. `cargo bench --bench space` measures it; the README has the figures.
//!
//! [`maintain`](Store::maintain) does upkeep from a thread of yours, so that writers need not,
//! [`background_maintenance`](Options::background_maintenance) starts one for that, and [`compact`](Store::compact) makes the
//! file as small as it can be while others read and write. A snapshot that is held for long keeps space from being reused
//! and nothing else; when much waits for it, compaction waits, too.
//!
//! # Many maps
//!
//! All maps share the log; each has an index of its own. The *catalogue*, map 0, is an ordinary map from the name of a map to its
//! number and the names of its types. So which maps there are is as durable and as transactional as what is in them, and comes
//! back from the log like anything else. Numbers are never used again: the records of a map that was dropped are dead, whatever
//! its name stands for now.
//!
//! **The invariant of the catalogue.** The commit that names a map makes its first region known, and not before; the commit that
//! drops it clears it, so that readers of older commits find what they need by way of its last region, which stays until there
//! is none of them left.
//!
//! An entry can have a deadline ([`Map::insert_with_expiry`]): 8 bytes in its record. From it on it counts as absent for whoever
//! looks, by the clock of that system; a snapshot looks at the time at which it was taken. Cleaning removes it by an
//! ordinary remove. The counters know nothing of time, so writers sample the index now and then, and what they estimate to have
//! expired counts as dead when it is decided whether to clean.
//!
//! # Many processes
//!
//! Any number of readers and up to 32,768 writers may have one store open, in as many processes. Who opens it for writing
//! gets an entry in the *process table* and locks one byte for it, far above the data. The kernel gives that lock up when
//! the process ends, however it ends: so a locked byte is a living process, and that is all that file locks are for.
//!
//! * The **writer lock** is a word in the file, taken by compare-and-swap. Who waits for it sleeps, and asks now and then
//!   whether the holder's byte is still locked. If not, the holder is dead, and whoever takes the lock next finishes or
//!   wipes what it had begun. After a millisecond of waiting the next turn is yours, so that nobody waits for ever.
//! * **Readers** take no lock and make no system call. The pins of a dead reader are cleared by whoever needs the space,
//!   under the lock of its byte.
//! * The tables of **processes and pins** have room for 128 and 704. When one is full it goes on in an extent, under the writer
//!   lock; that is given back when nobody has the store open any more.
//! * **Growth** by one process is noticed by another when it meets an offset beyond the end that it knows.
//! * With [`Access::ReadOnly`] not a byte is written, so there are no pins: a single read copies the value and looks
//!   afterwards whether anything can have been reused meanwhile; a snapshot is a shared lock on a byte whose place says the
//!   sequence number.
//! * After a **fork** the store belongs to the parent; in the child every call is [`Error::Forked`], and opening it anew
//!   works. The child does not inherit locks, and gives back nothing that is the parent's. What it has borrowed from the
//!   file it must not look at any more: it stays as it is for only as long as the parent has it borrowed.
//! * [`wait_for_change`](Store::wait_for_change) sleeps until somebody commits, in whatever process, and
//!   [`changes_since`](Store::changes_since) reads what that was, straight from the log.
//!
//! | opened as | goes together with |
//! | --- | --- |
//! | [`Access::ReadWrite`] (the default) | others like it, and readers |
//! | the same with [`exclusive`](Options::exclusive), and always on a network file system | nobody |
//! | [`Access::ReadOnly`] | everybody who is not exclusive |
//! | the same, after a power cut: recovered in memory of its own | readers, and private copies; writers are kept out |
//! | [`Access::CopyOnWrite`] | readers, and others like it; writers are kept out |
//!
//! A private copy ([`Access::CopyOnWrite`]) is a store in memory whose first content is the file's. Its pages are those of
//! the file until they are written to, so the file must not change meanwhile: a shared lock on one byte tells that to those
//! who open it for writing. Everything else in it, the process table, the writer lock, the superblocks, is memory of this
//! process, where nobody else is. So it is opened on the same roads as the file, and no flush, lock or truncation leads
//! back to it.
//!
//! # Opening
//!
//! | found | done | time |
//! | --- | --- | --- |
//! | open in other processes | nothing | constant |
//! | closed, nothing changed since | nothing | constant |
//! | killed, but provably the same page cache (boot, device, inode, birth, mount) | the half-published commit is finished | constant |
//! | power cut, copied file, failed flush, any doubt | the log is walked from its head as far as it holds, and the index built anew | in proportion to the log |
//!
//! A walk believes a record only if its CRC holds, its `chain` is the CRC of the record before it, and its sequence number
//! belongs to an *incarnation* that the log has declared; and a commit only when its last record is reached. Each recovery
//! after a power cut begins a new incarnation, durably, before anything else is written: a record of an earlier life that
//! lies behind the end of the log, however valid it looks, can never continue it.
//!
//! # What survives what
//!
//! | | the process is killed | the power is cut |
//! | --- | --- | --- |
//! | a commit that returned, [`Durability::Buffered`] | survives | survives after the next [`sync`](Store::sync), checkpoint or close |
//! | a commit that returned, [`Durability::Synced`] | survives | survives |
//! | a commit that did not return | all of it or nothing | all of it or nothing |
//!
//! Assumed of the medium: a 512-byte sector is written whole or not at all, and a flush that returned has happened. A flush
//! that *failed* is never tried again and called durable: the system reports a failure once, and then takes the pages for
//! written. So the store is [`Poisoned`](Error::Poisoned), in memory and in the file, until everybody has closed it; then a
//! full recovery writes the whole log once more. A process that is killed in the middle of a flush may have been told of a
//! failure and not have passed it on; the next sync writes once more what that flush was about.
//!
//! Concurrent callers of [`sync`](Store::sync), and concurrent synced commits, share flushes. A synced commit flushes the tail
//! of the log and nothing else. The log of buffered commits is written back in slices while it grows, each by the commit that
//! completes it, and a checkpoint is taken every 64 MiB ([`checkpoint_every`](Options::checkpoint_every)).
//!
//! # Memory mapping, and what speaks against it
//!
//! Crotty, Leis and Pavlo, *Are You Sure You Want to Use MMAP in Your Database Management System?* (CIDR 2022), name four
//! problems. Of each, what is done here and what is not:
//!
//! * **Transactional safety.** The system may write any dirty page at any time. Nothing here depends on the order: the log
//!   is only appended to and every record proves itself; the index is never believed after a power cut; a superblock is
//!   written over the one that is not in force.
//! * **I/O stalls.** A page that is not in memory is read when it is touched, and the thread waits.
//!   [`Snapshot::get_many`] and iteration ask ahead for cache lines, not for pages. With a store much larger than memory
//!   and random reads, every read is a page fault: expect the latency of the disk, on the thread that reads. From
//!   asynchronous code, use `spawn_blocking`.
//! * **Error handling.** Checksums: every record has one; [`verify`](Store::verify) checks all,
//!   [`verify_reads`](Options::verify_reads) each one that is read. A store into a mapping on a full disk would be a
//!   signal (SIGBUS): so space is really allocated before it is used, and a full disk is [`Error::Full`]. A medium that
//!   cannot *read* a page any more still is that signal, as it is for every program that maps a file.
//! * **Performance under eviction.** Page-table contention and TLB shootdowns come with a working set larger than memory
//!   and many threads; nothing here avoids them.
//!
//! # Trust boundary
//!
//! The interface is safe under one condition, the one that every mapping of a file has: while a store is open, nobody but
//! this crate writes to its file or truncates it. Programs that use this crate keep out of each other's way; a program that
//! does not ask cannot be kept out.
//!
//! A file that was damaged *before* it was opened is another matter: every offset and length in it is checked before use, and
//! what does not hold is an [`Error`]. So it is with a copy that was made while the store was in use: it opens as the content of
//! one commit, or it is refused.
//!
//! A file that somebody *made up*, with checksums that hold, can lie about where its log ends: it may say that the store was
//! closed, and have an index that leads to what lies behind the end. What a reader borrows from there changes when something is
//! appended. So, for a file from somebody who is not trusted:
//!
//! | opened | promised |
//! | --- | --- |
//! | in any way, with [`untrusted`](Options::untrusted) | all comes from a log that was checked; nothing borrowed changes |
//! | [`ReadOnly`](Access::ReadOnly), without | nothing borrowed changes while nobody writes; keys may be hidden |
//! | to be written to, or [`CopyOnWrite`](Access::CopyOnWrite), without | what is borrowed may change: undefined behaviour |
//!
//! In none of them anything outside the file is accessed.
//!
//! Whoever may *read* the file sees all of its content, also what was removed and not yet overwritten, and the seed of the hash
//! that spreads the keys over an index. [`Options::mode`] says who may read a new file.
//!
//! *Keys* from somebody who is not trusted are another question. Where a key begins its search in the index comes from
//! a hash with a random seed, so who does not know that cannot choose keys that all begin at one place. But the seed is
//! in the file, as it must be for others to find the keys, and XXH3 is no cryptographic hash: *who can read the file,
//! and has keys of his choice inserted*, can make each insert and each lookup of these keys go over a part of the index
//! that grows with their number. Other keys that happen to begin in that part pay for it, too; nothing else goes wrong.
//! `cargo bench --bench chosen_keys` prints what it comes to. Where that matters, let nobody else read the file, or
//! store such keys under a keyed hash with a secret of your own.
//!
//! # In this version
//!
//! At most 32,768 openers write to one store at a time. Keys have at most 65,535 bytes, values 4 GiB − 1, a store 8 TiB; at most
//! 2.8 million threads and commits are pinned at the same time. One index is resized at a time. There are no ordered range scans (a hash index
//! has no order), no server, and no background threads but the one that [you ask for](Options::background_maintenance).
//!
//! # Reading the source
//!
//! Three floors; imports run downwards only. Begin at the top for what a user sees, at the bottom for what is on the disk:
//! `format` (every byte), `file/region` (the mapping, and the one door through which the file changes), `file/log` and
//! `file/index` (which do not know each other), `file/locks` (who is alive), `engine/commit` (the order that everything rests on), `engine/recovery`
//! (the three roads), `engine/turn` (the writer lock among processes), `engine/pins` (why a reader's space is not reused),
//! `engine/upkeep` (what each write does beyond its commit: `engine/resize`, `engine/clean`, `engine/reclaim`), `engine/catalogue`
//! (which maps there are).

mod arg;
mod background;
mod changes;
mod codec;
mod engine;
mod entry;
mod error;
mod file;
mod map;
mod map_changes;
mod map_iter;
mod options;
mod pod;
#[cfg(feature = "serde")]
mod serialised;
mod snapshot;
mod snapshot_map;
mod source;
mod stats;
mod store;
mod transaction;
mod transaction_map;
mod typed;
mod value_ref;

pub use arg::Arg;
pub use changes::{Change, ChangeKind, Changes, ChangesIter};
pub use codec::{Codec, View};
pub use engine::compact::{CompactProgress, CompactReport};
pub use engine::progress::{RecoveryPhase, RecoveryProgress};
pub use engine::recovery::Opened;
pub use engine::settings::{Access, Durability};
pub use engine::verify::{Finding, VerifyProgress, VerifyReport, VerifyScope};
pub use entry::Entry;
pub use error::{CodecError, CodecPart, CodecStep, Error, FullReason, HeldBy, Numbers, OpenerStep, Result};
pub use file::layout as format;
pub use map::{Map, MapInfo};
pub use map_changes::{MapChange, MapChanges};
pub use map_iter::MapIter;
pub use options::Options;
pub use pod::Pod;
#[cfg(feature = "serde")]
pub use serialised::Serde;
pub use snapshot::{Iter, Snapshot};
pub use snapshot_map::SnapshotMap;
pub use stats::{
    ExtentStats, MapStats, PinStats, ProcessStats, ResizeStats, RestingStats, Stats, UpkeepStats, WaitingStats,
};
pub use store::Store;
pub use transaction::Transaction;
pub use transaction_map::TransactionMap;
pub use value_ref::ValueRef;
/// The crate whose derives make a type [plain old data](Pod).
pub use zerocopy;

#[cfg(all(test, not(loom)))]
#[path = "../tests/door/mod.rs"]
mod door;

/// The program in the README has to compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
