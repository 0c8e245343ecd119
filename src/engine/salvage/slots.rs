//! What the index of a damaged file tells: for each key, where its newest record is, or was.
//!
//! It is needed only where something is missing in the log. No checksum protects it, so it is asked with care: a slot
//! that leads to a record of the key confirms that record; one that leads into a hole says that the newest record of
//! its key is lost. That a key has no slot means something only if its region counts as many slots as it has, and none
//! of them leads astray.
//!
//! A checkpoint does not flush the index, so after a power cut it may be an older one than the log, and so may be that
//! of a copy of a store in use. It is current only if the store was closed and not changed since; or else it says
//! nothing about keys.

use std::collections::{BTreeMap, BTreeSet};

use zerocopy::FromBytes;

use super::front::Front;
use super::reader::{Reader, Window};
use crate::file::layout::{
    BLOCK, DROPPED, KeyHash, LINE, MAP_ENTRY, MAP_TABLE_MAGIC, MAX_MAP, MapId, REGION_HEADER, REGION_MAGIC,
    RegionHeader, SLOTS, TABLE_HEADER, TableHeader, entries_of_blocks, extent_blocks, extent_offset, lines_of_blocks,
    slot,
};

/// A used slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Used {
    hash: u64,
    /// Where it leads, in units of 8 bytes; the top bit says that it leads to a record that is believed.
    leads_to: u64,
}

const CONFIRMED: u64 = 1 << 63;

impl Used {
    fn offset(self) -> u64 {
        (self.leads_to & !CONFIRMED) * 8
    }
}

/// The slots of one map, by their hashes.
struct OfMap {
    used: Vec<Used>,
    /// The region counts as many as there are.
    agrees: bool,
}

/// What the index says about a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Says {
    /// Its newest record is this one.
    This,
    /// It is there.
    Elsewhere(u64),
    /// It has none.
    Nothing,
    /// No index says anything.
    Unknown,
}

/// The index of a file, as far as it holds.
pub(crate) struct Slots {
    seed: Option<u64>,
    maps: BTreeMap<MapId, OfMap>,
    /// The extents of the regions: where they begin, and end.
    extents: BTreeMap<u64, u64>,
    /// The map table holds, so a map that it does not list is gone.
    lists_all: bool,
    /// It is as new as the log.
    pub(crate) is_current: bool,
}

impl Slots {
    pub(crate) fn read_from(reader: &Reader, front: &Front) -> Slots {
        let mut slots = Slots {
            seed: front.seed,
            maps: BTreeMap::new(),
            extents: BTreeMap::new(),
            lists_all: false,
            is_current: true,
        };
        let Some(word) = front.map_table else { return slots };
        let (at, blocks) = (extent_offset(word), extent_blocks(word));
        if blocks == 0 || at + blocks * BLOCK > reader.source_len() {
            return slots;
        }
        let bytes = reader.piece(at, blocks * BLOCK);
        let Ok((header, _)) = TableHeader::read_from_prefix(&bytes) else { return slots };
        let capacity = entries_of_blocks(blocks, MAP_ENTRY);
        if header.magic != MAP_TABLE_MAGIC || header.capacity.get() != capacity {
            return slots;
        }
        slots.lists_all = true;
        let mut window = Window::over(reader);
        // Regions do not overlap, unless the file is hostile.
        let mut left = reader.source_len();
        for entry in bytes[TABLE_HEADER as usize..].as_chunks::<{ MAP_ENTRY as usize }>().0 {
            let (id, extent) = entry.split_at(8);
            let word = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().unwrap_or_default());
            let (id, extent) = (word(id), word(extent));
            if id == 0 || id & DROPPED != 0 {
                continue;
            }
            let map = (id - 1).try_into().map(MapId).ok().filter(|&map| map <= MAX_MAP);
            let Some(map) = map else {
                slots.lists_all = false;
                continue;
            };
            let of_map = of_region(&mut window, map, extent, &mut left).filter(|_| !slots.maps.contains_key(&map));
            match of_map {
                Some(of_map) => drop(slots.maps.insert(map, of_map)),
                None => slots.lists_all = false,
            }
            let start = extent_offset(extent);
            slots.extents.insert(start, start + extent_blocks(extent) * BLOCK);
        }
        slots
    }

    /// Whether the map table holds and does not list this map.
    pub(crate) fn is_gone(&self, map: MapId) -> bool {
        self.is_current && self.lists_all && !self.maps.contains_key(&map)
    }

    /// Whether the keys of this map can be asked for.
    pub(crate) fn tells_of(&self, map: MapId) -> bool {
        self.is_current && self.seed.is_some() && self.maps.contains_key(&map)
    }

    /// Whether the region of this map holds, so that its lost records are counted.
    pub(crate) fn counts(&self, map: MapId) -> bool {
        self.maps.contains_key(&map)
    }

    /// Where slots lead, for finding out which records they lead to.
    pub(crate) fn targets(&self) -> BTreeSet<u64> {
        self.maps.values().flat_map(|of_map| of_map.used.iter().map(|used| used.offset())).collect()
    }

    /// What the index says about the record at `at`.
    pub(crate) fn ask(&mut self, map: MapId, key: &[u8], at: u64) -> Says {
        self.seed.map_or(Says::Unknown, |seed| self.ask_for(map, KeyHash::of(key, seed).bits(), at))
    }

    /// The same for a key of which only the hash is known.
    pub(crate) fn ask_for(&mut self, map: MapId, hash: u64, at: u64) -> Says {
        let Some(of_map) = self.maps.get_mut(&map) else { return Says::Unknown };
        let from = of_map.used.partition_point(|used| used.hash < hash);
        if !self.is_current {
            // Its slots are not counted as those of a lost key.
            let of_key = of_map.used[from..].iter_mut().take_while(|used| used.hash == hash);
            of_key.for_each(|used| used.leads_to |= CONFIRMED);
            return Says::Unknown;
        }
        let mut says = Says::Nothing;
        for used in of_map.used[from..].iter_mut().take_while(|used| used.hash == hash) {
            if used.offset() == at {
                used.leads_to |= CONFIRMED;
                return Says::This;
            }
            if used.leads_to & CONFIRMED == 0 {
                says = Says::Elsewhere(used.offset());
            }
        }
        says
    }

    /// Whether an offset lies in a region.
    pub(crate) fn is_in_region(&self, at: u64) -> bool {
        self.extents.range(..=at).next_back().is_some_and(|(_, &end)| at < end)
    }

    /// For each map: how many of its slots lead to what is lost, and whether it can be relied on that it has one for
    /// each of its keys.
    pub(crate) fn sum_up(&self, is_lost: impl Fn(u64) -> bool) -> BTreeMap<MapId, (u64, bool)> {
        let sum_up = |of_map: &OfMap| {
            let left = of_map.used.iter().filter(|used| used.leads_to & CONFIRMED == 0);
            let (lost, astray): (Vec<&Used>, Vec<&Used>) = left.partition(|used| is_lost(used.offset()));
            (lost.len() as u64, self.is_current && of_map.agrees && astray.is_empty())
        };
        self.maps.iter().map(|(&map, of_map)| (map, sum_up(of_map))).collect()
    }
}

/// Reads the region of a map, if it is one of at most `left` bytes.
fn of_region(window: &mut Window<'_>, map: MapId, extent: u64, left: &mut u64) -> Option<OfMap> {
    let (at, blocks) = (extent_offset(extent), extent_blocks(extent));
    if blocks == 0 || at + blocks * BLOCK > window.reader.source_len() {
        return None;
    }
    let header = RegionHeader::read_from_bytes(window.look(at, REGION_HEADER)).ok()?;
    let lines = lines_of_blocks(blocks);
    if header.magic != REGION_MAGIC || header.map.get() != u64::from(map) || header.lines.get() != lines {
        return None;
    }
    *left = left.checked_sub(blocks * BLOCK)?;
    let (mut used, mut dead) = (Vec::new(), 0);
    for line in 0..lines {
        let words = window.look(at + REGION_HEADER + line * LINE, LINE).as_chunks::<8>().0;
        let word = |number: usize| words.get(number).map_or(0, |bytes| u64::from_le_bytes(*bytes));
        for place in 0..SLOTS {
            let value = word(place);
            match value {
                slot::EMPTY => {}
                slot::DEAD => dead += 1,
                _ => {
                    let further = word(SLOTS + place / 3) >> (KeyHash::FURTHER_BITS * (place % 3) as u32);
                    let further = further & ((1 << KeyHash::FURTHER_BITS) - 1);
                    let hash = KeyHash::from_parts(slot::tag(value), further).bits();
                    used.push(Used { hash, leads_to: slot::offset(value) / 8 });
                }
            }
        }
    }
    used.sort_unstable();
    let [_, _, _, slots, counted_dead] = *header.totals.iter().max_by_key(|bank| bank[0].get())?;
    let agrees = (slots.get(), counted_dead.get()) == (used.len() as u64, dead);
    Some(OfMap { used, agrees })
}
