//! A census: every entry is looked at, for what counters do not say.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::ops::ControlFlow;
use std::sync::atomic::{Ordering, fence};

use super::distribution::{Distribution, Histogram};
use super::report::name_of;
use crate::engine::Engine;
use crate::engine::clock::{Moment, now};
use crate::engine::read::pins::Hold;
use crate::error::{Error, Result};
use crate::file::index::Index;
use crate::file::layout::{Kind, MapId, Offset, SLOTS, Seq};
use crate::file::log::{self, Record, Scan};

/// Records that are prefetched before they are looked at.
const AHEAD: usize = 48;

/// How often to look for the head of the log while others commit.
const ATTEMPTS: u32 = 100;

/// Entries between two calls of the callback.
const PACE: u64 = 1 << 14;

/// The largest entries of a map that are named.
const LARGEST: usize = 5;

/// How to take a census; see [`Store::census_with`](crate::Store::census_with).
///
/// ```
/// use std::ops::ControlFlow;
/// use slotlog::CensusOptions;
///
/// # let store = slotlog::Store::in_memory()?;
/// for number in 0..10_000u32 {
///     store.insert(number.to_le_bytes(), "…")?;
/// }
/// let mut calls = 0;
/// let options = CensusOptions::new().at_most(1000).on_progress(|_| {
///     calls += 1;
///     ControlFlow::Continue(())
/// });
/// let census = store.census_with(options)?;
/// assert!((500..2000).contains(&census.maps[1].values.count) && census.maps[1].looked_at < 0.2);
/// assert!(calls > 0);
/// # Ok::<(), slotlog::Error>(())
/// ```
#[must_use = "options do nothing until they are passed to `census_with`"]
pub struct CensusOptions<'p> {
    at_most: u64,
    on_progress: Box<dyn FnMut(CensusProgress) -> ControlFlow<()> + 'p>,
}

impl Default for CensusOptions<'_> {
    fn default() -> Self {
        CensusOptions { at_most: u64::MAX, on_progress: Box::new(|_| ControlFlow::Continue(())) }
    }
}

impl<'p> CensusOptions<'p> {
    /// The defaults: every entry is looked at, and no progress is reported.
    pub fn new() -> CensusOptions<'p> {
        CensusOptions::default()
    }

    /// Looks at about this many entries in all. A map that has more than its part of that is judged by a sample: the
    /// entries in a part of its index, where they are in random order. Default: no limit.
    pub fn at_most(mut self, entries: u64) -> CensusOptions<'p> {
        self.at_most = entries;
        self
    }

    /// A callback for progress, called every few thousand entries. If it returns [`Break`](ControlFlow::Break), the
    /// census is of what was looked at until then.
    pub fn on_progress(mut self, call: impl FnMut(CensusProgress) -> ControlFlow<()> + 'p) -> CensusOptions<'p> {
        self.on_progress = Box::new(call);
        self
    }
}

impl fmt::Debug for CensusOptions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CensusOptions").field("at_most", &self.at_most).finish_non_exhaustive()
    }
}

/// How far a census has come; see [`CensusOptions::on_progress`].
///
/// ```
/// use std::ops::ControlFlow;
/// use slotlog::{CensusOptions, CensusProgress};
///
/// # let store = slotlog::Store::in_memory()?;
/// # store.insert("key", "value")?;
/// let mut last = None;
/// store.census_with(CensusOptions::new().on_progress(|progress: CensusProgress| {
///     last = Some(progress);
///     ControlFlow::Continue(())
/// }))?;
/// assert!(last.is_some_and(|last| last.done <= last.total));
/// # Ok::<(), slotlog::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CensusProgress {
    /// Slots of indexes looked at so far.
    pub done: u64,
    /// The approximate total.
    pub total: u64,
}

/// What the entries of a store are like, and what each part of its file is used for; see
/// [`Store::census`](crate::Store::census).
///
/// ```
/// # let store = slotlog::Store::in_memory()?;
/// store.insert("Ada", "36")?;
/// store.insert("Grace", "85 or so")?;
/// let census: slotlog::Census = store.census()?;
/// let (default, log) = (&census.maps[1], census.extents.iter().find(|extent| extent.kind == "Log"));
/// assert_eq!((default.keys.max, default.values.min, default.values.max), (5, 2, 8));
/// assert!(log.is_some_and(|log| log.live_bytes > 0));
/// # Ok::<(), slotlog::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Census {
    /// The maps, in the order of [`Stats::maps`](crate::Stats::maps).
    pub maps: Vec<MapCensus>,
    /// The extents of the file and the free space between them, in their order. None if they changed faster than they
    /// could be read.
    pub extents: Vec<ExtentCensus>,
}

/// The entries of one map; see [`Census`].
///
/// ```
/// # let store = slotlog::Store::in_memory()?;
/// store.map::<str, Vec<u8>>("images")?.insert("large", &vec![7; 100_000])?;
/// let census = store.census()?;
/// let images: Option<&slotlog::MapCensus> = census.maps.iter().find(|map| map.name == "images");
/// let largest = images.and_then(|map| map.largest.first());
/// assert!(largest.is_some_and(|entry| entry.key == b"large" && entry.value_len >= 100_000));
/// # Ok::<(), slotlog::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct MapCensus {
    /// Its number in the file.
    pub id: u32,
    /// Its name, as in [`MapStats::name`](crate::MapStats::name).
    pub name: String,
    /// The share of its index that was looked at: 1 if all entries were, less for a [sample](CensusOptions::at_most).
    pub looked_at: f64,
    /// Lengths of the keys, in bytes.
    pub keys: Distribution,
    /// Lengths of the values, in bytes.
    pub values: Distribution,
    /// How many commits were made since each entry was written, or moved by compaction.
    pub ages: Distribution,
    /// Entries that have a deadline.
    pub with_deadline: u64,
    /// Of these, entries that have expired and were not removed yet.
    pub expired: u64,
    /// Size of their records.
    pub expired_bytes: u64,
    /// Entries whose record is damaged. They are left out of everything else.
    pub damaged: u64,
    /// How many keys are found in the first line of the index, the second …; see
    /// [`Store::probe_lengths`](crate::Store::probe_lengths).
    pub search_lengths: [u64; 8],
    /// The entries with the longest keys and values together, the longest first; five at most.
    pub largest: Vec<LargeEntry>,
}

/// One of the largest entries of a map; see [`MapCensus::largest`].
///
/// ```
/// # let store = slotlog::Store::in_memory()?;
/// store.insert("small", "…")?;
/// store.insert("large", vec![7; 100_000])?;
/// let census = store.census()?;
/// let largest: &slotlog::LargeEntry = &census.maps[1].largest[0];
/// assert_eq!((largest.key.as_slice(), largest.value_len), (&b"large"[..], 100_000));
/// # Ok::<(), slotlog::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct LargeEntry {
    /// Its key.
    #[cfg_attr(feature = "serde", serde(serialize_with = "super::serial::bytes"))]
    pub key: Vec<u8>,
    /// Length of its value, in bytes.
    pub value_len: u64,
    /// Length of its record.
    pub bytes: u64,
}

/// One extent of the file, or free space; see [`Census`].
///
/// ```
/// # let store = slotlog::Store::in_memory()?;
/// store.insert("Ada", "36")?;
/// let census = store.census()?;
/// for extent in &census.extents {
///     let extent: &slotlog::ExtentCensus = extent;
///     println!("{:>12} {:>12} {}", extent.offset, extent.bytes, extent.kind);
/// }
/// assert!(census.extents.is_sorted_by_key(|extent| extent.offset));
/// # Ok::<(), slotlog::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct ExtentCensus {
    /// Where it begins in the file.
    pub offset: u64,
    /// Its size.
    pub bytes: u64,
    /// Its use, as in [`ExtentStats::kind`](crate::ExtentStats::kind).
    pub kind: String,
    /// How many commits were made since it got that use. Unknown for free space.
    pub age: Option<u64>,
    /// For an extent of the log: its place in the log, which begins with the lowest.
    pub ordinal: Option<u64>,
    /// For an index in force: the number of its map.
    pub map: Option<u32>,
    /// For the log: the size of the records in it that hold a current value. For an index: its slots in use, as a part
    /// of its size. An estimate where only a sample was looked at.
    pub live_bytes: u64,
    /// For the log: what nothing was appended to yet, and what was too short for the next record. In a
    /// [sample](CensusOptions::at_most), the latter is left out.
    pub unwritten_bytes: u64,
}

/// An entry of the index whose record was prefetched.
struct Due {
    record: Offset,
    probes: u64,
}

/// A census under way.
struct Taking<'e, 'p> {
    engine: &'e Engine,
    seq: Seq,
    at: Moment,
    extents: Vec<ExtentCensus>,
    /// The extent of the last record.
    here: usize,
    options: CensusOptions<'p>,
    progress: CensusProgress,
    stopped: bool,
}

/// The part of a census about one map.
struct OfMap {
    id: MapId,
    /// Which share of its index is looked at.
    share: f64,
    keys: Histogram,
    values: Histogram,
    ages: Histogram,
    census: MapCensus,
}

pub(crate) fn take(engine: &Engine, options: CensusOptions<'_>) -> Result<Census> {
    engine.check_not_forked()?;
    let (hold, head) = hold(engine)?;
    let tail = engine.last_commit_end()?;
    let mut extents = extents(engine, tail)?;
    if let Some(head) = head.filter(|_| options.at_most == u64::MAX) {
        note_written(engine, &mut extents, (head, tail));
    }
    let progress = CensusProgress { done: 0, total: 0 };
    let (seq, at) = (hold.seq(), Moment::fixed(now()));
    let mut taking = Taking { engine, seq, at, extents, here: 0, options, progress, stopped: false };
    let mut indexes = Vec::new();
    for id in engine.map_ids()? {
        if let Some(index) = engine.index_at(id, seq)? {
            indexes.push((id, index, index.totals()?.used()));
        }
    }
    let names = engine.named_maps()?.into_iter().map(|(name, map)| (map.id, name)).collect();
    let shares = shares(&indexes, taking.options.at_most);
    taking.progress.total =
        indexes.iter().zip(&shares).map(|(&(_, _, used), &share)| (used as f64 * share).ceil() as u64).sum();
    let mut maps = Vec::new();
    for ((id, index, used), share) in indexes.into_iter().zip(shares) {
        taking.note_index(id, &index, used);
        maps.push(taking.map(OfMap::new(id, &names, share), &index)?);
    }
    Ok(Census { maps, extents: taking.extents })
}

/// Holds the last commit, and finds where its log begins. Beside writers that never rest, it may be impossible to say.
fn hold(engine: &Engine) -> Result<(Hold<&Engine>, Option<Offset>)> {
    for _ in 0..ATTEMPTS {
        let hold = Hold::take(engine)?;
        let head = engine.head()?;
        fence(Ordering::Acquire);
        if engine.visible()? == hold.seq() {
            return Ok((hold, Some(head.head.at)));
        }
    }
    Ok((Hold::take(engine)?, None))
}

/// Says what was appended to each extent of the log. A damaged log cannot be followed to its end; then its extents
/// count as written.
fn note_written(engine: &Engine, extents: &mut [ExtentCensus], (head, tail): (Offset, Offset)) {
    let mut written: BTreeMap<usize, u64> = BTreeMap::new();
    for record in Scan::new(&engine.mapping, head, tail) {
        let Ok(record) = record else { return };
        let place = extents.partition_point(|extent| extent.offset <= record.offset.0).saturating_sub(1);
        // What the head has passed in its extent was written, too.
        *written.entry(place).or_default() = record.end().0;
    }
    for (place, end) in written {
        if let Some(extent) = extents.get_mut(place) {
            extent.unwritten_bytes = (extent.offset + extent.bytes).saturating_sub(end);
        }
    }
}

/// Which share of each index is looked at, so that small ones are looked at as a whole.
fn shares(indexes: &[(MapId, Index<'_>, u64)], at_most: u64) -> Vec<f64> {
    let mut by_size: Vec<usize> = (0..indexes.len()).collect();
    by_size.sort_by_key(|&place| indexes[place].2);
    let (mut left, mut shares) = (at_most, vec![1.0; indexes.len()]);
    for (number, &place) in by_size.iter().enumerate() {
        let used = indexes[place].2;
        let part = left / (indexes.len() - number) as u64;
        if used > part {
            shares[place] = part as f64 / used as f64;
        }
        left -= used.min(part);
    }
    shares
}

impl OfMap {
    fn new(id: MapId, names: &BTreeMap<MapId, String>, share: f64) -> OfMap {
        let census = MapCensus {
            id: id.0,
            name: name_of(id, names.get(&id)),
            looked_at: 1.0,
            keys: Distribution::default(),
            values: Distribution::default(),
            ages: Distribution::default(),
            with_deadline: 0,
            expired: 0,
            expired_bytes: 0,
            damaged: 0,
            search_lengths: [0; 8],
            largest: Vec::new(),
        };
        OfMap { id, share, keys: Histogram::new(), values: Histogram::new(), ages: Histogram::new(), census }
    }

    /// Takes an entry into account.
    #[inline]
    fn add(&mut self, record: Record<'_>, visible: Seq, at: Moment) {
        self.keys.add(record.key().len() as u64);
        let value_len = record.value().len() as u64;
        self.values.add(value_len);
        self.ages.add(visible.count().saturating_sub(record.seq().count()));
        if record.expires().is_some() {
            self.census.with_deadline += 1;
            if record.is_expired(at) {
                self.census.expired += 1;
                self.census.expired_bytes += record.counted_len();
            }
        }
        let len_of = |entry: &LargeEntry| entry.key.len() as u64 + entry.value_len;
        let (len, largest) = (record.key().len() as u64 + value_len, &mut self.census.largest);
        if largest.len() < LARGEST || largest.last().is_some_and(|last| len_of(last) < len) {
            let place = largest.partition_point(|other| len_of(other) >= len);
            let bytes = record.counted_len();
            largest.insert(place, LargeEntry { key: record.key().to_vec(), value_len, bytes });
            largest.truncate(LARGEST);
        }
    }
}

impl Taking<'_, '_> {
    fn map(&mut self, mut of_map: OfMap, index: &Index<'_>) -> Result<MapCensus> {
        let lines = ((index.lines() as f64 * of_map.share).ceil() as u64).clamp(1, index.lines());
        let window = self.engine.mapping.window();
        let mut ahead = VecDeque::with_capacity(AHEAD + 1);
        let (mut seen, mut last) = (0u64, lines);
        for slot in index.slots_of_lines(0, lines) {
            let slot = slot?;
            seen += 1;
            if seen.is_multiple_of(PACE) && !self.goes_on(PACE) {
                last = slot.at.line();
                break;
            }
            let Some(record) = slot.record else { continue };
            // Its header is enough.
            window.prefetch(record);
            ahead.push_back(Due { record, probes: slot.probes });
            if ahead.len() > AHEAD
                && let Some(due) = ahead.pop_front()
            {
                self.entry(&mut of_map, due)?;
            }
        }
        for due in ahead {
            self.entry(&mut of_map, due)?;
        }
        self.goes_on(seen % PACE);
        let mut census = of_map.census;
        census.looked_at = last as f64 / index.lines() as f64;
        (census.keys, census.values) = (of_map.keys.distribution(), of_map.values.distribution());
        census.ages = of_map.ages.distribution();
        Ok(census)
    }

    /// Says how far it is, and whether it is to go on.
    fn goes_on(&mut self, slots: u64) -> bool {
        self.progress.done += slots;
        let CensusProgress { done, total } = self.progress;
        if !self.stopped {
            let progress = CensusProgress { done, total: total.max(done) };
            self.stopped = (self.options.on_progress)(progress).is_break();
        }
        !self.stopped
    }

    /// Looks at the record of a slot.
    #[inline]
    fn entry(&mut self, of_map: &mut OfMap, due: Due) -> Result<()> {
        let found = log::record(&self.engine.mapping, due.record).and_then(|newest| {
            // A damaged header may say anything.
            if newest.header.map() == of_map.id && matches!(newest.kind(), Some(Kind::Put | Kind::Remove)) {
                self.engine.older_version(newest, self.seq)
            } else {
                Err(self.engine.mapping.corrupt(due.record, "the record of another map"))
            }
        });
        let record = match found {
            Ok(Some(record)) if record.is_damaged() => {
                of_map.census.damaged += 1;
                return Ok(());
            }
            Ok(Some(record)) => record,
            Ok(None) => return Ok(()),
            Err(Error::Corrupt { .. } | Error::Truncated { .. }) => {
                of_map.census.damaged += 1;
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        of_map.census.search_lengths[(due.probes as usize - 1).min(7)] += 1;
        if record.kind() == Some(Kind::Put) {
            of_map.add(record, self.seq, self.at);
            self.note_live(record, of_map.share);
        }
        Ok(())
    }

    /// Counts a record as alive in its extent.
    #[inline]
    fn note_live(&mut self, record: Record<'_>, share: f64) {
        let offset = record.offset.0;
        let is_here = |extent: &ExtentCensus| (extent.offset..extent.offset + extent.bytes).contains(&offset);
        if !self.extents.get(self.here).is_some_and(is_here) {
            self.here = self.extents.partition_point(|extent| extent.offset <= offset).saturating_sub(1);
        }
        if let Some(extent) = self.extents.get_mut(self.here).filter(|extent| is_here(extent)) {
            let estimate =
                if share < 1.0 { (record.counted_len() as f64 / share) as u64 } else { record.counted_len() };
            extent.live_bytes = extent.live_bytes.saturating_add(estimate).min(extent.bytes);
        }
    }

    /// Says which extent holds the index of a map, and how full it is.
    fn note_index(&mut self, id: MapId, index: &Index<'_>, used: u64) {
        let slots = (index.lines() * SLOTS as u64).max(1);
        if let Some(extent) = self.extents.iter_mut().find(|extent| extent.offset == index.offset().0) {
            extent.map = Some(id.0);
            extent.live_bytes = (u128::from(extent.bytes) * u128::from(used.min(slots)) / u128::from(slots)) as u64;
        }
    }
}

/// The extents in use and the free space between them, nothing of them alive yet.
fn extents(engine: &Engine, tail: Offset) -> Result<Vec<ExtentCensus>> {
    let visible = engine.visible()?.count();
    let used = engine.extents()?;
    if used.is_empty() {
        return Ok(Vec::new());
    }
    let free = |from: Offset, to: Offset| ExtentCensus {
        offset: from.0,
        bytes: to - from,
        kind: "Free".to_owned(),
        age: None,
        ordinal: None,
        map: None,
        live_bytes: 0,
        unwritten_bytes: 0,
    };
    let (mut end, mut extents) = (Offset::EXTENTS, Vec::with_capacity(used.len()));
    for extent in used {
        if extent.offset > end {
            extents.push(free(end, extent.offset));
        }
        end = extent.end();
        extents.push(ExtentCensus {
            bytes: extent.len(),
            kind: format!("{:?}", extent.kind),
            age: Some(visible.saturating_sub(extent.count)),
            ordinal: extent.has_records().then_some(extent.ordinal),
            unwritten_bytes: if extent.is_log() && extent.contains(tail) { extent.end() - tail } else { 0 },
            ..free(extent.offset, extent.end())
        });
    }
    let len = Offset(engine.mapping.len());
    if len > end {
        extents.push(free(end, len));
    }
    Ok(extents)
}
