//! The maps of a damaged store: their names and types.
//!
//! A map whose entry of the catalogue is lost comes back under a name of its own, `lost map` and its number, with the
//! types of an older entry if there is one. A map without an entry is not lost but dropped if the index does not have
//! it either, or if the record that removed its name ended its commit: a renamed map gets its new name after that.

use std::collections::{BTreeMap, BTreeSet};

use xxhash_rust::xxh3::xxh3_64;

use crate::engine::salvage::judge::{Grade, Judge, Seen, Verdict};
use crate::engine::write::regions::entry_of;
use crate::error::Result;
use crate::file::layout::{CATALOGUE, DEFAULT_MAP, Kind, MAX_MAP, MapId, flags, is_name};

/// What the catalogue says about a map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) id: MapId,
    pub(super) version: u32,
    pub(super) types: String,
}

impl Entry {
    /// The entry in a record, if it is one.
    fn read_in(record: &Seen<'_>) -> Option<Entry> {
        let (entry, types) = entry_of(record.its_value()).filter(|_| is_name(record.its_key()))?;
        let name = std::str::from_utf8(record.its_key()).ok()?.to_owned();
        let types = std::str::from_utf8(types).ok()?.to_owned();
        let holds = entry.fingerprint.get() == xxh3_64(types.as_bytes());
        let is_id = entry.id() > DEFAULT_MAP && entry.id() <= MAX_MAP;
        (holds && is_id).then(|| Entry { name, id: entry.id(), version: entry.version.get(), types })
    }
}

/// The maps of the store.
#[derive(Debug, Default)]
pub(super) struct Catalogue {
    pub(super) entries: BTreeMap<MapId, Entry>,
    /// How sure the entries are that are not.
    pub(super) grades: Vec<Grade>,
    /// Older entries of maps, for their types.
    known: BTreeMap<MapId, Entry>,
    dropped: BTreeSet<MapId>,
}

impl Catalogue {
    /// Goes through the records of the catalogue.
    pub(super) fn read_from(judge: &mut Judge<'_>) -> Result<Catalogue> {
        let mut catalogue = Catalogue::default();
        let mut later = Vec::new();
        let mut removed: BTreeSet<Vec<u8>> = BTreeSet::new();
        judge.start_over();
        for number in (0..judge.log.pieces.len()).rev() {
            let piece = judge.log.pieces[number];
            let run = &judge.runs[piece.run];
            for &at in run.catalogue.iter().rev().filter(|&&at| at >= piece.from) {
                let len = judge.reader.raw_header(at).record_len().min(judge.reader.source_len());
                let bytes = judge.reader.piece(at, len);
                let Some(record) = Seen::read_in(at, &bytes) else { continue };
                let verdict = judge.judge(&record);
                let entry = Entry::read_in(&record);
                if let Some(entry) = &entry {
                    catalogue.known.entry(entry.id).or_insert_with(|| entry.clone());
                    if removed.contains(record.its_key()) {
                        catalogue.dropped.insert(entry.id);
                    }
                }
                let ends_commit = record.header.flags & flags::COMMIT != 0;
                if record.what() == Some(Kind::Remove) && ends_commit {
                    removed.insert(record.its_key().to_vec());
                } else {
                    removed.remove(record.its_key());
                }
                match (verdict, entry) {
                    (Verdict::Keep(grade), Some(entry)) => catalogue.enter(entry, grade),
                    (Verdict::Later, Some(entry)) => later.push(entry),
                    _ => {}
                }
            }
            for hole in judge.log.holes.iter().filter(|hole| hole.before == number) {
                judge.pass_hole(hole, |map| map == CATALOGUE);
            }
        }
        let is_reliable = judge.sum_up().get(&CATALOGUE).is_some_and(|&(_, reliable)| reliable);
        for entry in later {
            match (is_reliable, judge.keeps_older) {
                (true, false) => {}
                (true, true) => catalogue.enter(entry, Grade::Older),
                (false, _) => catalogue.enter(entry, Grade::Doubtful),
            }
        }
        Ok(catalogue)
    }

    /// Enters a map, unless a newer entry has it under another name.
    fn enter(&mut self, entry: Entry, grade: Grade) {
        if self.entries.contains_key(&entry.id) {
            return;
        }
        self.dropped.remove(&entry.id);
        if grade != Grade::Sure {
            self.grades.push(grade);
        }
        self.entries.insert(entry.id, entry);
    }

    /// The entry of a map that has records and no entry, if it is lost and not dropped.
    pub(super) fn find_lost(&mut self, map: MapId, judge: &Judge<'_>) -> Option<&Entry> {
        let is_gone = judge.slots.as_ref().is_some_and(|slots| slots.is_gone(map));
        let nothing_is_lost = judge.log.holes.is_empty() && !judge.log.lacks_its_end && !judge.log.lacks_its_beginning;
        if map <= DEFAULT_MAP || is_gone || nothing_is_lost || self.dropped.contains(&map) {
            return None;
        }
        let name = format!("lost map {map}");
        let known = self.known.get(&map);
        let (version, types) =
            known.map_or((0, "[u8] -> [u8]".to_owned()), |known| (known.version, known.types.clone()));
        Some(self.entries.entry(map).or_insert(Entry { name, id: map, version, types }))
    }
}
