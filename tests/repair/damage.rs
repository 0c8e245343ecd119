//! Whatever is damaged: every key whose records are whole comes back with the right value, and nothing that never was.

use std::collections::BTreeSet;

use super::*;

/// What the log says about each key, and about each map.
#[derive(Default)]
struct Truth {
    /// By map and key: the records that put or remove it, the oldest first. A clear of the map counts as one.
    keys: BTreeMap<(u32, Vec<u8>), Vec<usize>>,
}

impl Truth {
    fn of(log: &[Logged]) -> Truth {
        let mut truth = Truth::default();
        for (number, record) in log.iter().enumerate() {
            let map = u32::from(record.header.map());
            match record.kind() {
                Kind::Put | Kind::Remove => truth.keys.entry((map, record.key.clone())).or_default().push(number),
                Kind::Clear => {
                    let of_map = truth.keys.iter_mut().filter(|((of, _), _)| *of == map);
                    of_map.for_each(|(_, records)| records.push(number));
                }
                _ => {}
            }
        }
        truth
    }

    /// The record that names a map, and the name.
    fn name_of(&self, map: u32, log: &[Logged]) -> Option<(String, usize)> {
        if map == 1 {
            return Some((String::new(), usize::MAX));
        }
        let of_catalogue = self.keys.iter().filter(|((of, name), _)| *of == 0 && !name.is_empty());
        of_catalogue
            .filter_map(|((_, name), records)| Some((name, *records.last()?)))
            .find(|&(_, newest)| log[newest].kind() == Kind::Put && log[newest].value[..4] == map.to_le_bytes())
            .map(|(name, newest)| (String::from_utf8(name.clone()).unwrap(), newest))
    }

    /// The map that the newest whole record of a name gives it to; where a newer one is damaged, those before as well.
    fn maps_called(&self, name: &str, log: &[Logged], touched: &BTreeSet<usize>) -> Vec<u32> {
        let records = &self.keys[&(0, name.as_bytes().to_vec())];
        let is_whole = touched.is_disjoint(&records.iter().copied().collect());
        let puts = records.iter().rev().filter(|&&record| log[record].kind() == Kind::Put);
        let maps = puts.map(|&record| u32::from_le_bytes(*log[record].value.first_chunk().unwrap()));
        if is_whole { maps.take(1).collect() } else { maps.collect() }
    }
}

/// The records that are not what they were.
fn touched(log: &[Logged], whole: &[u8], damaged: &[u8]) -> BTreeSet<usize> {
    let is_touched = |record: &Logged| damaged.get(record.at..record.end()) != Some(&whole[record.at..record.end()]);
    (0..log.len()).filter(|&number| is_touched(&log[number])).collect()
}

/// A report in a few words.
fn say(report: &RepairReport) -> String {
    let (keys, lost, doubtful) = (report.keys(), report.lost_keys(), report.doubtful_keys());
    let findings: Vec<String> = report.findings().iter().take(8).map(ToString::to_string).collect();
    let records = report.doubtful_records();
    format!("{keys} keys, {lost} lost, {doubtful} doubtful, {records} doubtful records, {findings:?}")
}

/// Whether the index still tells of each key.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Index {
    Whole,
    Damaged,
}

/// Checks a repaired store.
#[track_caller]
fn check(whole: &[u8], damaged: &[u8], index: Index, what: &str) -> RepairReport {
    let log = log(whole);
    let truth = Truth::of(&log);
    let touched = touched(&log, whole, damaged);
    let (store, report) = repaired(damaged, RepairOptions::new());
    let found = everything(&store);
    let what = format!("{what}: {} of {} records are damaged, {}", touched.len(), log.len(), say(&report));
    let mut expected = 0;
    for ((map, key), records) in truth.keys.iter().filter(|((map, _), _)| *map > 0) {
        let newest = *records.last().unwrap();
        let Some((name, named)) = truth.name_of(*map, &log) else { continue };
        let (lost_name, is_named) = (format!("lost map {map}"), !touched.contains(&named));
        let of_map = found.get(&name).filter(|_| is_named || name.is_empty()).or_else(|| found.get(&lost_name));
        let found = of_map.and_then(|of_map| of_map.get(key));
        let right = (log[newest].kind() == Kind::Put).then_some(&log[newest].value);
        let text = String::from_utf8_lossy(key);
        if !touched.contains(&newest) {
            if is_named {
                assert_eq!(found, right, "{what}: {name:?} {text}");
                expected += u64::from(right.is_some());
            }
        } else if let Some(found) = found {
            let is_older = records.iter().any(|&older| log[older].kind() == Kind::Put && log[older].value == *found);
            assert!(is_older, "{what}: {name:?} {text} never had this value");
            assert!(index == Index::Damaged && report.doubtful_keys() > 0, "{what}: {name:?} {text} is an older one");
        }
    }
    for (name, of_map) in found {
        let maps = match name.strip_prefix("lost map ") {
            _ if name.is_empty() => vec![1],
            Some(map) => vec![map.parse().unwrap()],
            None => truth.maps_called(&name, &log, &touched),
        };
        assert!(!maps.is_empty(), "{what}: no map {name:?}");
        for key in of_map.keys() {
            let was_there = maps.iter().any(|&map| truth.keys.contains_key(&(map, key.clone())));
            assert!(was_there, "{what}: {name:?} never had this key");
        }
    }
    assert!(report.keys() >= expected, "{what}");
    assert_eq!(report.is_whole(), touched.is_empty() && report.findings().is_empty(), "{what}");
    report
}

fn store(seed: u64) -> Vec<u8> {
    closed_store(|store| change(store, &mut Random(seed), 4000, 400))
}

/// How many times to try.
fn rounds(usual: u64) -> u64 {
    std::env::var("SLOTLOG_TEST_ROUNDS").map_or(usual, |rounds| rounds.parse().unwrap())
}

/// A byte of the log, more often one of a header, and of the newest records.
fn place_in_log(log: &[Logged], random: &mut Random) -> usize {
    let newest = log.len() as u64 >> random.below(5);
    let back = random.below(newest);
    let record = &log[log.len() - 1 - back as usize];
    let bytes = if random.one_in(2) { RECORD_HEADER } else { record.header.record_len() };
    record.at + random.below(bytes) as usize
}

#[test]
fn one_damaged_byte_loses_at_most_one_key() {
    for seed in 0..rounds(200) {
        let mut random = Random(seed);
        let whole = store(seed / 40);
        let mut damaged = whole.clone();
        let at = place_in_log(&log(&whole), &mut random);
        damaged[at] ^= 1 << random.below(8);
        let report = check(&whole, &damaged, Index::Whole, &format!("seed {seed}, byte {at}"));
        assert!(report.lost_keys() <= 1 && report.doubtful_keys() == 0, "seed {seed}, byte {at}: {report:#?}");
    }
}

#[test]
fn many_damaged_bytes_lose_no_other_keys() {
    for seed in 0..rounds(40) {
        let mut random = Random(seed);
        let whole = store(seed / 10);
        let (mut damaged, log) = (whole.clone(), log(&whole));
        for _ in 0..1 + random.below(200) {
            let at = place_in_log(&log, &mut random);
            damaged[at] ^= 1 << random.below(8);
        }
        check(&whole, &damaged, Index::Whole, &format!("seed {seed}"));
    }
}

/// What else is damaged.
fn damage_more(damaged: &mut [u8], random: &mut Random) -> Index {
    let mut index = Index::Whole;
    if random.one_in(2) {
        damaged[..8192].fill(random.next() as u8);
    }
    if random.one_in(4) {
        // The live page: now nothing leads to the index.
        damaged[8192..12288].fill(random.next() as u8);
        index = Index::Damaged;
    }
    index
}

#[test]
fn whole_pages_lose_no_other_keys() {
    for seed in 0..rounds(60) {
        let mut random = Random(seed);
        let whole = store(seed / 10);
        let mut damaged = whole.clone();
        damage_more(&mut damaged, &mut random);
        for _ in 0..1 + random.below(3) {
            // Anywhere, in the index and the tables as well.
            let page = 16 + random.below(whole.len() as u64 / 4096 - 16) as usize;
            let filled = if random.one_in(2) { vec![0; 4096] } else { random.bytes(4096) };
            damaged[page * 4096..][..4096].copy_from_slice(&filled);
        }
        check(&whole, &damaged, Index::Damaged, &format!("seed {seed}"));
    }
}

#[test]
fn bytes_of_everything_lose_no_other_keys() {
    for seed in 0..rounds(60) {
        let mut random = Random(seed);
        let whole = store(seed / 10);
        let mut damaged = whole.clone();
        damage_more(&mut damaged, &mut random);
        for _ in 0..random.below(300) {
            let at = random.below(whole.len() as u64) as usize;
            damaged[at] ^= 1 << random.below(8);
        }
        check(&whole, &damaged, Index::Damaged, &format!("seed {seed}"));
    }
}

/// The used slots of all regions, current or not: where each is, and where it leads.
fn slots(whole: &[u8]) -> Vec<(usize, u64)> {
    let mut found = Vec::new();
    for region in (0..whole.len()).step_by(BLOCK as usize) {
        let (header, _) = RegionHeader::read_from_prefix(&whole[region..]).unwrap();
        let lines = if header.magic == REGION_MAGIC { header.lines.get() as usize } else { 0 };
        let start = region + REGION_HEADER as usize;
        let slots = (0..lines).flat_map(|line| (0..SLOTS).map(move |slot| start + line * LINE as usize + slot * 8));
        found.extend(slots.filter_map(|at| {
            let slot = u64::from_le_bytes(*whole.get(at..)?.first_chunk()?);
            Some((at, slot::offset(slot))).filter(|&(_, leads_to)| leads_to > 0)
        }));
    }
    found
}

#[test]
fn a_flipped_bit_in_a_slot_loses_no_whole_record() {
    let mut tried = 0;
    for seed in 0..rounds(20) {
        let mut random = Random(seed);
        let whole = store(seed);
        let (mut damaged, log) = (whole.clone(), log(&whole));
        let at: BTreeMap<u64, &Logged> = log.iter().map(|record| (record.at as u64, record)).collect();
        for (slot, leads_to) in slots(&whole) {
            // Now it leads to a record that is damaged itself, but for its header.
            let bit = 3 + random.below(17);
            let other = at.get(&(leads_to ^ (1 << bit))).filter(|other| other.end() - other.at > 48);
            if let Some(other) = other.filter(|_| at.contains_key(&leads_to) && random.one_in(8)) {
                damaged[slot + (bit as usize - 3) / 8] ^= 1 << ((bit - 3) % 8);
                damaged[other.end() - 9] ^= 1;
                tried += 1;
            }
        }
        check(&whole, &damaged, Index::Damaged, &format!("seed {seed}"));
    }
    assert!(tried > 50, "{tried}");
}

#[test]
fn superblocks_and_live_area_are_not_needed() {
    for (seed, len) in [(1, 8192), (2, 12288), (3, 65536)] {
        let whole = store(seed);
        let mut damaged = whole.clone();
        damaged[..len].fill(0xa5);
        let report = check(&whole, &damaged, Index::Damaged, &format!("the first {len} bytes"));
        assert_eq!(report.lost_keys(), 0);
        assert!(report.finding_count() > 0, "it is said");
    }
}
