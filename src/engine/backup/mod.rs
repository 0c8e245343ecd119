//! Backup: the content of one commit, written to a store of its own while others write.
//!
//! A backup is a store like any other. It is written by the library's own writer, in transactions of bounded size, to a
//! new file beside the place that it is meant for, and closed. Then it gets its name. So whatever is proven of commits,
//! closing and opening holds for backups too, and there is no second writer of the format.
//!
//! **Invariant (content).** A pin holds one commit from the first record that is read to the last. Everything in the
//! backup is read at that commit: the catalogue, with each map's number, name, types and version and the number of the
//! next map; and of each map all entries that have a value, with their deadlines. Each record is checked against its
//! CRC before it is copied, since the copy gets a CRC of its own: damage ends the backup.
//!
//! **Invariant (name).** A file is under the name of the backup only if it is complete and durable: [`place`] keeps it.
//!
//! **Cost.** One pass over the index and the live records. The pin delays reuse of the space that becomes free
//! meanwhile, as that of a snapshot does; writers do nothing for a backup and never wait for it. What it takes from
//! them is time of the processors and of the memory, so while they write it rests most of the time.

pub(crate) mod copy;
pub(crate) mod options;
pub(crate) mod report;

#[cfg(doc)]
use crate::engine::open::place;
