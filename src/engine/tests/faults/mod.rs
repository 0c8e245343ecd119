//! Tests that install a [witness](crate::file::witness) of the engine's changes to its file, and so see every store and
//! every system call: they cut the power, kill the process, or make a call fail, at any of them.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

#[cfg(unix)]
mod backup;
#[cfg(unix)]
mod calls;
#[cfg(target_os = "linux")]
mod copies;
mod kills;
mod life;
mod medium;
mod power_cut;
#[path = "../../../../tests/support/basics.rs"]
pub(super) mod support;
#[cfg(target_os = "linux")]
mod together;
mod upkeep;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use zerocopy::FromBytes;

use crate::engine::Engine;
use crate::engine::change::batch::Batch;
use crate::engine::clock::Moment;
use crate::engine::read::pins::Pin;
use crate::error::{Error, Result};
use crate::file::layout::{CATALOGUE, DEFAULT_MAP, Kind, MapId, Seq, Superblock, live, seal};
use crate::file::log;

/// The value of each key: its number and its length.
type Content = BTreeMap<u16, (u32, u32)>;

/// The content after a commit. In a store that evicts, commits that only evict come between it and the next one: what
/// they may have removed is known once they are done, and may be absent then in any image of the time before.
#[derive(Debug, Default)]
struct Version {
    content: Content,
    evicted: Mutex<BTreeSet<u16>>,
}

impl Version {
    fn new(content: Content) -> Arc<Version> {
        Arc::new(Version { content, evicted: Mutex::default() })
    }

    /// Whether an image of the time from this commit to the next one may show this content.
    fn admits(&self, found: &Content) -> bool {
        let evicted = self.evicted.lock().unwrap_or_else(PoisonError::into_inner);
        is_part_of(found, &self.content)
            && self.content.keys().all(|number| found.contains_key(number) || evicted.contains(number))
    }

    /// Notes that whatever differs in this later content may have been evicted before.
    fn note_evicted(&self, later: &Content) {
        let gone = self.content.iter().filter(|(number, of)| later.get(number) != Some(of)).map(|(&number, _)| number);
        self.evicted.lock().unwrap_or_else(PoisonError::into_inner).extend(gone);
    }
}

/// Whether all that was found is in the whole, with the same value.
fn is_part_of(found: &Content, whole: &Content) -> bool {
    found.iter().all(|(number, of)| whole.get(number) == Some(of))
}

/// Whether all that a content lacks of the whole was evicted. At most `most` entries were; without a number, any.
fn lacks_at_most(found: &Content, whole: &Content, most: Option<u64>) -> bool {
    is_part_of(found, whole) && most.is_none_or(|most| (whole.len() - found.len()) as u64 <= most)
}

/// How many entries an opening of a store has evicted, unless it has cleared everything.
fn evicted_by(engine: &Engine) -> Option<u64> {
    let evicted = &engine.upkeep.evicted;
    (evicted.clears.load(Ordering::Relaxed) == 0).then(|| evicted.entries.load(Ordering::Relaxed))
}

fn key(number: u16) -> Vec<u8> {
    // Various lengths, so that records begin anywhere in a sector. Neither keys nor values are all zeros, for zeros on
    // the disk count as nothing.
    let mut key = (number | 0x8000).to_le_bytes().to_vec();
    key.resize(2 + usize::from(number % 23), b'k');
    key
}

/// A value that contains its number, so that a piece of another value shows.
fn value((number, len): (u32, u32)) -> Vec<u8> {
    let mut value = number.to_le_bytes().to_vec();
    value.extend((4..len).map(|at| (number.wrapping_mul(31).wrapping_add(at) % 251) as u8 + 1));
    value
}

/// Keys with this bit belong to a named map, which is created by the first of them.
const NAMED: u16 = 0x1000;

/// The names that this map may have.
const NAMES: [&str; 2] = ["named", "renamed"];

/// The map that a key belongs to.
fn map_of(engine: &Arc<Engine>, number: u16) -> Result<MapId> {
    if number & NAMED == 0 {
        return Ok(DEFAULT_MAP);
    }
    for name in NAMES {
        if let Some(named) = engine.find_named(name)? {
            return Ok(named.id);
        }
    }
    Ok(engine.create_named(NAMES[0], 0, "test")?.id)
}

/// Gives the named map the other name, or its name to another map with the same entries.
fn rename(engine: &Arc<Engine>) -> Result<()> {
    if engine.visible()?.count() % 2 == 1 {
        return rebuild(engine);
    }
    if !engine.rename_named(NAMES[0], NAMES[1])? {
        engine.rename_named(NAMES[1], NAMES[0])?;
    }
    Ok(())
}

/// Moves the entries of the named map to a map that the same transaction makes, and that gets the name of the first.
/// What it does besides comes to nothing.
fn rebuild(engine: &Arc<Engine>) -> Result<()> {
    let mut batch = Batch::begin(Arc::clone(engine))?;
    let mut found = None;
    for name in NAMES {
        found = found.or(batch.find_map(name)?.map(|named| (name, named.id)));
    }
    let Some((name, old)) = found else { return batch.commit_as_usual() };
    let new = batch.find_or_make_map("new", 0, "test")?.id;
    let mut cursor = batch.cursor(old)?;
    while let Some(record) = batch.next(&mut cursor)? {
        let (key, value, expires) = (record.key().to_vec(), record.value().to_vec(), record.expires());
        batch.put(new, &key, &value, expires)?;
    }
    let saved = batch.save()?;
    let never = batch.find_or_make_map("never", 0, "test")?.id;
    batch.put(never, b"key", b"value", None)?;
    batch.drop_named(name)?;
    batch.roll_back_to(saved)?;
    let soon_gone = batch.find_or_make_map("soon gone", 0, "test")?.id;
    batch.put(soon_gone, b"key", b"value", None)?;
    batch.drop_named("soon gone")?;
    batch.put(old, b"key", b"value", None)?;
    batch.rename_named("new", name)?;
    batch.commit_as_usual()
}

/// Drops the named map.
fn drop_named(engine: &Arc<Engine>) -> Result<()> {
    NAMES.iter().try_for_each(|name| engine.drop_named(name).map(drop))
}

fn put(engine: &Arc<Engine>, number: u16, new: (u32, u32)) -> Result<()> {
    engine.put(map_of(engine, number)?, &key(number), &value(new), expires(number))
}

/// Some keys have values with a deadline, which is far away.
fn expires(number: u16) -> Option<u64> {
    number.is_multiple_of(5).then_some(u64::MAX)
}

/// All that is in the store.
fn content(engine: &Engine) -> std::result::Result<Content, String> {
    let (pin, _, totals) = Pin::with_totals(engine, DEFAULT_MAP).map_err(|error| error.to_string())?;
    let content = content_at(engine, pin.seq())?;
    drop(pin);
    let of_default_map = content.keys().filter(|&&number| number & NAMED == 0).count() as u64;
    let mut counted = vec![(of_default_map, totals.keys)];
    for (_, named) in engine.named_maps().map_err(|error| error.to_string())? {
        let keys = engine.len(named.id).map_err(|error| error.to_string())?;
        counted.push((content.len() as u64 - of_default_map, keys));
    }
    match counted.iter().find(|(found, counted)| found != counted) {
        None => Ok(content),
        Some((found, counted)) => Err(format!("there are {found} keys, and the counter says {counted}")),
    }
}

/// Whether the seal of a file, and the superblock in force, agree with its live area.
pub(super) fn seal_agrees(image: &[u8]) -> bool {
    let word = |at: u64| u64::from_le_bytes(image[at as usize..at as usize + 8].try_into().unwrap());
    let at = word(live::SEAL_AT);
    let changes = word(live::SPACE_CHANGES);
    let superblock = Superblock::read_from_prefix(&image[word(live::SUPERBLOCK) as usize..]).unwrap().0;
    at < image.len() as u64
        && word(live::DURABLE_HEAD) == superblock.log_head.get()
        && word(live::DURABLE_ORDINAL) == superblock.head_ordinal.get()
        && word(at + seal::COMMIT) & 0xff_ffff == word(live::COMMIT_POINT) >> 40
        && word(at + seal::SPACE) == changes + (changes & 1)
}

/// All that a pin at `seq` shows.
fn content_at(engine: &Engine, seq: Seq) -> std::result::Result<Content, String> {
    let text = |error: Error| error.to_string();
    let mut content = of_map(engine, seq, DEFAULT_MAP)?;
    let catalogue = engine.index_at(CATALOGUE, seq).map_err(text)?.ok_or("the catalogue has no region")?;
    for name in NAMES {
        let wanted = log::Wanted { map: CATALOGUE, key: name.as_bytes(), seq };
        let found = engine.value_of(catalogue.as_lines(), wanted, Moment::NOW).map_err(text)?;
        let Some(entry) = found else { continue };
        let id = entry.first_chunk().map(|bytes| MapId(u32::from_le_bytes(*bytes))).ok_or("an entry that is none")?;
        content.extend(of_map(engine, seq, id)?);
    }
    Ok(content)
}

/// All that a pin at `seq` shows of a map.
fn of_map(engine: &Engine, seq: Seq, map: MapId) -> std::result::Result<Content, String> {
    let text = |error: Error| error.to_string();
    let mut content = Content::new();
    let index = engine.index_at(map, seq).map_err(text)?;
    for slot in index.ok_or_else(|| format!("map {map} has no region"))?.iter() {
        let Some(offset) = slot.map_err(text)?.record else { continue };
        let newest = log::record(&engine.mapping, offset).map_err(text)?;
        let Some(record) = engine.version_at(newest, seq, Moment::NOW).map_err(text)? else { continue };
        if record.kind() != Some(Kind::Put) {
            continue;
        }
        let number =
            record.key().first_chunk().map(|bytes| u16::from_le_bytes(*bytes) & 0x7fff).ok_or("a key that is none")?;
        let is = (record.value().first_chunk().map(|bytes| u32::from_le_bytes(*bytes)), record.value().len() as u32);
        let (Some(of), len) = is else { return Err(format!("key {number} has a value that is none")) };
        if record.key() != key(number) || record.value() != value((of, len)) || record.expires() != expires(number) {
            return Err(format!("key {number} has a value of which a piece is wrong"));
        }
        if (number & NAMED != 0) != (map != DEFAULT_MAP) {
            return Err(format!("key {number} is in map {map}"));
        }
        content.insert(number, (of, len));
    }
    Ok(content)
}

fn check(engine: &Engine) -> std::result::Result<(), String> {
    let report = engine.verify().map_err(|error| error.to_string())?;
    if report.is_clean() { Ok(()) } else { Err(format!("verify: {:?}", report.findings())) }
}

/// Begins a transaction and makes its changes: keys to put with the intended value, or to remove.
fn batch_of(engine: &Arc<Engine>, changes: impl IntoIterator<Item = (u16, Option<(u32, u32)>)>) -> Result<Batch> {
    let changes: Vec<_> = changes.into_iter().collect();
    // A map cannot be created within a transaction.
    let mut maps = BTreeMap::new();
    for &(number, _) in &changes {
        maps.insert(number, map_of(engine, number)?);
    }
    let mut batch = Batch::begin(Arc::clone(engine))?;
    for (number, new) in changes {
        match new {
            Some(new) => batch.put(maps[&number], &key(number), &value(new), expires(number))?,
            None => drop(batch.remove(maps[&number], &key(number))?),
        }
    }
    Ok(batch)
}
