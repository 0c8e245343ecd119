//! Slots: what a commit, or compaction, changes in the index of a map, and in the one that is being built beside it.
//!
//! **Invariants.** The index in force is always up to date. What the one beside it has of a key is the same, and it has
//! all keys whose slots lie in lines that were moved already; see [`resize`](crate::engine::upkeep::resize). So every
//! change of a slot goes through here.

use crate::engine::Engine;
use crate::error::Result;
use crate::file::index::{Index, Placed, Probe, SlotAt};
use crate::file::layout::KeyHash;
use crate::file::log;

impl Engine {
    /// Points a slot at the newest record of its key.
    #[inline]
    pub(crate) fn publish_slot(
        &self,
        index: &Index<'_>,
        map: u32,
        at: SlotAt,
        hash: KeyHash,
        record: u64,
        new_key: bool,
    ) -> Result<()> {
        index.publish(at, hash, record, new_key)?;
        self.mirror_slot(index, map, at, hash, record)
    }

    /// Does in the index that is being built what was done in the one in force.
    #[inline]
    pub(crate) fn mirror_slot(
        &self,
        index: &Index<'_>,
        map: u32,
        at: SlotAt,
        hash: KeyHash,
        record: u64,
    ) -> Result<()> {
        if self.resize_cursor()? == 0 { Ok(()) } else { self.mirror_slowly(index, map, at, hash, record) }
    }

    #[cold]
    fn mirror_slowly(&self, index: &Index<'_>, map: u32, at: SlotAt, hash: KeyHash, record: u64) -> Result<()> {
        let Some((target, cursor)) = self.resize_to_mirror(index, map)? else { return Ok(()) };
        let key = log::record(&self.region, record)?.key();
        let is_key = |offset| self.is_key(map, key, offset);
        if at.line() < cursor {
            // A tombstone may have been left out that has a value now.
            if target.place(hash, record, is_key)? == Placed::Full {
                self.give_up_resize()?;
            }
        } else if let Some(Probe::Found(there, _)) = target.probe(hash, is_key)? {
            // A step that was cut short has moved it already.
            target.publish(there, hash, record, false)?;
        }
        Ok(())
    }

    /// Marks the slot of a tombstone dead that no reader needs, and counts it so.
    pub(crate) fn retire_slot(
        &self,
        index: &Index<'_>,
        map: u32,
        at: SlotAt,
        hash: KeyHash,
        record: u64,
    ) -> Result<()> {
        index.retire_counted(at)?;
        if let Some((target, _)) = self.resize_to_mirror(index, map)?
            && let Some(Probe::Found(there, _)) = target.probe(hash, |offset| Ok(offset == record))?
        {
            target.retire_counted(there)?;
        }
        Ok(())
    }
}
