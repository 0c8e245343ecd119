//! The names of maps at a commit, and what a commit does to them.
//!
//! A commit of the catalogue is read as it was written by [`maps`](crate::engine::change::maps): the next number and
//! then a name for a new map, and at the end that name once more if the map has outgrown its first region; a clear and
//! the removal of a name for a dropped one; the removal of a name and another name for a renamed one.

use std::collections::BTreeMap;

use crate::engine::Engine;
use crate::error::Result;
use crate::file::layout::{CATALOGUE, DEFAULT_MAP, Kind, MapId, NEXT_ID, Offset, Seq, flags};
use crate::file::log::Record;

/// What a commit does to a map as a whole, and the record that says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Deed {
    pub(super) at: Offset,
    pub(super) map: MapId,
    /// As in [`Told`](super::told::Told).
    pub(super) name: String,
    pub(super) kind: DeedKind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum DeedKind {
    Clear,
    Create { version: u32, types: String },
    Drop,
    Rename { from: String },
}

/// Reads the records of a commit that are about maps.
#[derive(Debug, Default)]
pub(super) struct Reading {
    pub(super) deeds: Vec<Deed>,
    cleared: Option<(Offset, MapId)>,
    removed: Option<String>,
}

impl Reading {
    /// Reads the next record of the commit.
    pub(super) fn read(&mut self, engine: &Engine, record: Record<'_>) -> Result<()> {
        let in_catalogue = record.header.map() == CATALOGUE;
        match record.kind() {
            Some(Kind::Put) if in_catalogue && record.key() == NEXT_ID => self.end(),
            _ if !record.tells() => {}
            Some(Kind::Clear) => {
                engine.check_crc(record)?;
                self.end();
                self.cleared = Some((record.offset, record.header.map()));
            }
            Some(Kind::Remove) if in_catalogue => {
                engine.check_crc(record)?;
                if self.removed.is_some() {
                    self.end();
                }
                self.removed = Some(name_in(engine, record)?);
            }
            Some(Kind::Put) if in_catalogue => self.enter(engine, record)?,
            _ => {}
        }
        Ok(())
    }

    fn enter(&mut self, engine: &Engine, record: Record<'_>) -> Result<()> {
        let (named, name) = (engine.named_by(record)?, name_in(engine, record)?);
        let (at, map) = (record.offset, named.id);
        let is_there = record.header.flags & flags::NEW == 0;
        if is_there {
            // It names another region of a new map.
            self.end();
            return Ok(());
        }
        let removed = self.removed.take();
        self.end();
        let kind = match removed {
            Some(from) => DeedKind::Rename { from },
            None => DeedKind::Create { version: named.version, types: named.types },
        };
        self.deeds.push(Deed { at, map, name, kind });
        Ok(())
    }

    /// What was read is complete.
    pub(super) fn end(&mut self) {
        let Some((at, map)) = self.cleared.take() else { return };
        let (name, kind) = match self.removed.take() {
            Some(name) => (name, DeedKind::Drop),
            None => (String::new(), DeedKind::Clear),
        };
        self.deeds.push(Deed { at, map, name, kind });
    }
}

fn name_in(engine: &Engine, record: Record<'_>) -> Result<String> {
    let name = std::str::from_utf8(record.key());
    name.map(str::to_owned).map_err(|_| engine.mapping.corrupt(record.offset, "expected the name of a map"))
}

/// The names of the maps at a commit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Names(BTreeMap<MapId, String>);

impl Names {
    /// The names at a commit that the caller holds.
    pub(super) fn at(engine: &Engine, seq: Seq) -> Result<Names> {
        let named = engine.named_maps_at(seq)?.into_iter().map(|(name, named)| (named.id, name));
        Ok(Names(std::iter::once((DEFAULT_MAP, String::new())).chain(named).collect()))
    }

    pub(super) fn of(&self, map: MapId) -> Option<&str> {
        self.0.get(&map).map(String::as_str)
    }

    /// Goes to the commit after these deeds.
    pub(super) fn apply(&mut self, deeds: &[Deed]) {
        for deed in deeds {
            match deed.kind {
                DeedKind::Clear => {}
                DeedKind::Create { .. } | DeedKind::Rename { .. } => drop(self.0.insert(deed.map, deed.name.clone())),
                DeedKind::Drop => drop(self.0.remove(&deed.map)),
            }
        }
    }

    /// Goes to the commit before these deeds.
    pub(super) fn take_back(&mut self, deeds: &[Deed]) {
        for deed in deeds.iter().rev() {
            match &deed.kind {
                DeedKind::Clear => {}
                DeedKind::Create { .. } => drop(self.0.remove(&deed.map)),
                DeedKind::Rename { from } => drop(self.0.insert(deed.map, from.clone())),
                DeedKind::Drop => drop(self.0.insert(deed.map, deed.name.clone())),
            }
        }
    }
}
