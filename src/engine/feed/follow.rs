//! Following: the changes of a commit of another store, applied as one transaction.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::told::{Told, Unit, What};
use crate::engine::Engine;
use crate::engine::change::batch::Batch;
use crate::engine::change::named::Named;
use crate::error::{Error, Result};
use crate::file::layout::{DEFAULT_MAP, MAX_MAP, MapId, OriginEntry};

/// A commit that is being applied. Dropped before its [end](Follower::end), it has done nothing.
pub(crate) struct Follower {
    batch: Batch,
    unit: Unit,
    /// Maps with changed entries: these cannot be cleared in the same transaction.
    changed: BTreeSet<MapId>,
    /// Maps that were cleared or dropped; nothing else can happen to them in the same transaction.
    cleared: BTreeSet<MapId>,
}

impl Follower {
    /// Begins to apply a commit; `None` if it was applied before.
    pub(crate) fn begin(engine: &Arc<Engine>, unit: Unit) -> Result<Option<Follower>> {
        engine.sweep_drops()?;
        let batch = Batch::begin(Arc::clone(engine))?;
        let origin = batch.origin()?;
        let begins = match origin {
            Some(origin) if origin.uuid != unit.uuid => false,
            Some(origin) => {
                let at = origin.commit();
                if at.seq > unit.last.seq || at.can_be(unit.last) {
                    return Ok(None);
                }
                // In between, a power cut may have undone commits of the leader that this store has.
                let is_between = at.seq > unit.previous.seq && at.seq < unit.last.seq;
                // Numbers may have been skipped, and then there is no record between the two.
                let is_last = at.crc != 0 && at.crc == unit.previous.crc && at.seq <= unit.previous.seq;
                at.can_be(unit.previous) || is_last || is_between && at.seq.incarnation() == unit.last.seq.incarnation()
            }
            None => unit.previous.seq.count() == 0 && engine.is_blank(&batch)?,
        };
        if !begins {
            let is_same = |origin: OriginEntry| origin.uuid == unit.uuid && origin.commit().seq == unit.last.seq;
            let after = if origin.is_some_and(is_same) { unit.last } else { unit.previous };
            return Err(engine.cannot_follow(origin, OriginEntry::of(unit.uuid, after)));
        }
        Ok(Some(Follower { batch, unit, changed: BTreeSet::new(), cleared: BTreeSet::new() }))
    }

    /// Applies a change.
    pub(crate) fn change(&mut self, told: &Told<'_>) -> Result<()> {
        let Told { map, name, what } = *told;
        if map < DEFAULT_MAP || self.cleared.contains(&map) {
            return Err(self.damaged(format!("a change of map {map}, which cannot be changed")));
        }
        if matches!(what, What::Put { .. } | What::Remove(_) | What::Expire(_)) {
            self.changed.insert(map);
        }
        match what {
            What::Put { key, value, deadline } => self.batch.put(map, key, value, deadline),
            What::Remove(key) | What::Expire(key) => self.batch.remove(map, key).map(drop),
            What::Clear => self.clear(map),
            What::Create { version, types } => self.create(name, Named { id: map, version, types: types.to_owned() }),
            What::Drop => {
                self.check_has_name(map, name)?;
                self.cleared.insert(map);
                self.batch.drop_map(name, map)
            }
            What::Rename(from) => {
                let named = self.check_has_name(map, from)?;
                self.check_is_free(name)?;
                self.batch.rename(from, name, &named)
            }
        }
    }

    fn clear(&mut self, map: MapId) -> Result<()> {
        if self.changed.contains(&map) {
            return Err(self.damaged(format!("map {map} is cleared after other changes of it")));
        }
        self.cleared.insert(map);
        self.batch.clear_for_good(map)
    }

    fn create(&mut self, name: &str, named: Named) -> Result<()> {
        self.check_is_free(name)?;
        let next = self.batch.engine().next_id(&self.batch)?;
        // Nothing else gives numbers to the maps of a copy.
        if named.id != next || named.id > MAX_MAP {
            return Err(self.damaged(format!("a new map with the number {}, where {next} is the next one", named.id)));
        }
        self.batch.set_next_id(named.id.next())?;
        self.batch.make_map(name.as_bytes(), &named, 0)
    }

    /// The map with this name, which must have this number.
    fn check_has_name(&self, map: MapId, name: &str) -> Result<Named> {
        let found = self.batch.engine().named_in(&self.batch, name)?;
        let found = found.filter(|named| named.id == map);
        found.ok_or_else(|| self.damaged(format!("a change of map {map}, which does not have the name {name:?} here")))
    }

    fn check_is_free(&self, name: &str) -> Result<()> {
        self.batch.engine().check_name(name)?;
        match self.batch.engine().named_in(&self.batch, name)? {
            None => Ok(()),
            Some(_) => Err(self.damaged(format!("another map with the name {name:?}"))),
        }
    }

    fn damaged(&self, what: String) -> Error {
        self.batch.engine().damaged_changes(what)
    }

    /// Makes all of it visible, with the durability of the store's commits.
    pub(crate) fn end(mut self) -> Result<()> {
        self.batch.set_origin(self.unit.uuid, self.unit.last)?;
        self.batch.commit_as_usual()
    }
}

impl Engine {
    /// Whether the store is as it was created.
    fn is_blank(&self, batch: &Batch) -> Result<bool> {
        Ok(batch.len(DEFAULT_MAP)? == 0 && self.next_id(batch)? == DEFAULT_MAP.next())
    }

    pub(super) fn damaged_changes(&self, what: String) -> Error {
        Error::DamagedChanges { path: self.mapping.path().to_owned(), what: what.into() }
    }
}
