//! The change feed: what every commit has changed, in all maps; and how another store follows it.
//!
//! The log has it all: the records of one commit share its number and lie one after the other. What is told is what a
//! user has changed; copies made by compaction, and what a store keeps for itself in the catalogue, are left out.
//!
//! **Invariant (maps).** Records name maps by number. Which name a number had at a commit follows from the catalogue of
//! a later one and from the records of the catalogue between the two, taken back one by one ([`names`]).
//!
//! **Invariant (following).** A store that follows another one keeps in its catalogue which commit of which store it is
//! a copy of: its [origin](crate::engine::change::origin). A commit is applied as one transaction, which also moves the
//! origin on. So after a kill each commit is there as a whole or not at all, and none is applied twice. It is applied
//! only if the origin shows that no commit is left out; numbers of maps are the same in both stores.
//!
//! **Invariant (space).** A feed holds everything while it has commits to tell, and nothing while it waits. It lets go
//! after [a bounded part of the log](commits) even if it has more to tell.

pub(crate) mod commits;
pub(crate) mod follow;
pub(crate) mod increment;
pub(crate) mod names;
pub(crate) mod told;
pub(crate) mod wire;
