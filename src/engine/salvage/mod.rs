//! Salvaging: which records of a damaged file were the log, and which of these are the newest of their keys.
//!
//! The file is only read. First the [`front`] says what it knows of the log; a [`survey`] then finds every record whose
//! CRC holds; the [`strands`] tell which of them were the log; and the [`judge`] goes through that backwards, and asks
//! the [`slots`] of the index where something is missing.
//!
//! **Invariants.**
//!
//! * *What is believed.* A CRC alone proves nothing: stale space is full of records that hold, and so may be a value. A
//!   record is believed if it is a part of the log: if links that only the store can have made, from record to record
//!   by chain and jump, connect it with where the log is known to begin or to end, or with a record that a slot of the
//!   index leads to; or if it lies in a run of whole commits that fits into a hole of the log with room on both sides
//!   ([`strands`]). Nothing is ever added to a log without a hole. Records with numbers before the beginning of the log
//!   are stale; those behind the last commit were not committed; what lies inside a record that holds is not looked at.
//!   All else is doubtful, counted, and left out.
//! * *What is newest.* Of each key, the believed record with the largest number counts, and a removal, a clear or a
//!   drop hides everything before it. A lost record may have been any of these. So behind a hole a record needs a
//!   witness that it is still the newest: the index leads to it. If the index leads into the hole, the key is lost; if
//!   the index holds and does not know the key, it is gone. The key of a single damaged record is believed if the older
//!   version that it names has the same. Where no witness is left, the record is kept and counted as doubtful, so that
//!   nothing comes back silently.
//! * *What is complete.* A commit is complete if its records are linked and end with `COMMIT`. If the log is whole up
//!   to a commit that is at least the last one that the front knows, the result is exactly that commit, and nothing
//!   from behind it. Otherwise the whole records of commits that lost one are kept, and these commits are named. At the
//!   end of the log, a commit without its end was not committed, unless the front says so.

pub(crate) mod front;
pub(crate) mod judge;
pub(crate) mod reader;
pub(crate) mod slots;
pub(crate) mod strands;
pub(crate) mod survey;
