//! Sizes and counters of a store.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use crate::engine::Engine;
use crate::engine::change::named::Named;
use crate::engine::change::origin::uuid_text;
use crate::engine::clock::time;
use crate::engine::read::pins::Pin;
use crate::engine::settings::{Opened, Policy};
use crate::engine::state::ledger::Evicted;
use crate::engine::state::words::LogSize;
use crate::engine::verify::report::Finding;
use crate::file::index::Index;
use crate::file::layout::{BLOCK, CATALOGUE, DEFAULT_MAP, ExtentKind, MapId, Offset, SLOTS, VERSION, live};
use crate::{Bookmark, Origin, Result};

/// Sizes and counters of a store; see [`Store::stats`](crate::Store::stats). All sizes are in bytes.
///
/// The resident part of the file is page cache, which the system reclaims when it needs memory; only a few hundred
/// kilobytes are private to the process.
///
/// ```
/// # let store = slotlog::Store::in_memory()?;
/// let ages = store.map::<str, u32>("ages")?;
/// ages.insert("Ada", 36)?;
/// ages.insert("Ada", 37)?;
/// let snapshot = store.snapshot()?;
/// let stats: slotlog::Stats = store.stats()?;
/// let of_ages = stats.maps.iter().find(|map| map.name == "ages");
/// assert_eq!(of_ages.map(|map| (map.entries, map.types.as_str())), Some((1, "str -> u32")));
/// assert_eq!(stats.log_bytes, stats.live_bytes + stats.dead_bytes);
/// assert_eq!(stats.pins, 1, "the snapshot");
/// # Ok::<(), slotlog::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Stats {
    /// The file.
    #[cfg_attr(feature = "serde", serde(serialize_with = "super::serial::path"))]
    pub path: PathBuf,
    /// The store's random identity, as a UUID.
    pub uuid: String,
    /// Version of the file format.
    pub format_version: u32,
    /// When the store was created.
    #[cfg_attr(feature = "serde", serde(serialize_with = "super::serial::date"))]
    pub created: SystemTime,
    /// The state in which it was found when it was opened.
    pub opened: Opened,
    /// Length of the file.
    pub file_len: u64,
    /// How often the store was recovered after a power cut or as a copy.
    pub incarnation: u64,
    /// Commits since it was created, including those that were abandoned.
    pub commits: u64,
    /// Records in the log.
    pub log_records: u64,
    /// Their size.
    pub log_bytes: u64,
    /// Size of the records that hold a current value.
    pub live_bytes: u64,
    /// Size of the others: replaced values, removals, jumps.
    pub dead_bytes: u64,
    /// Their share of the log, limited by [`auto_compact`](crate::Options::auto_compact).
    pub dead_share: f64,
    /// Space that is no longer in use and not yet free, and what it waits for.
    pub waiting: WaitingStats,
    /// The index resize in progress, if there is one.
    pub resize: Option<ResizeStats>,
    /// Bytes of log that compaction has cleaned since the store was last closed or recovered.
    pub cleaned_bytes: u64,
    /// The upkeep that this process has done for the store.
    pub upkeep: UpkeepStats,
    /// What this process has evicted.
    pub eviction: EvictionStats,
    /// The damage that was found.
    pub damage: DamageStats,
    /// Why this process currently does no upkeep, if so: an error. Meanwhile the log grows.
    pub resting: Option<RestingStats>,
    /// The extents of the file, by kind, `Free` last.
    pub extents: Vec<ExtentStats>,
    /// The maps.
    pub maps: Vec<MapStats>,
    /// When the last checkpoint was written.
    #[cfg_attr(feature = "serde", serde(serialize_with = "super::serial::date"))]
    pub last_checkpoint: SystemTime,
    /// Bytes of log since then: if a power cut loses them, that is not recognised as damage.
    pub since_checkpoint: u64,
    /// Pins in use: one for each read in progress, and one for each commit seen by the snapshots, iterators and [values
    /// in place](crate::ValueRef) of a process, however many; threads that start to read at the same time may take a
    /// few.
    pub pins: u64,
    /// When the oldest snapshot was taken.
    #[cfg_attr(feature = "serde", serde(serialize_with = "super::serial::maybe_date"))]
    pub oldest_snapshot: Option<SystemTime>,
    /// The reader or snapshot that sees the oldest commit, and so holds back the most space. Snapshots of read-only
    /// processes leave no name, and are not included.
    pub oldest_pin: Option<PinStats>,
    /// The bookmarks for which the log is kept, sorted by name.
    pub bookmarks: Vec<Bookmark>,
    /// Of which commit of which store this one is a copy, if it is one.
    pub origin: Option<Origin>,
    /// The processes that have the store open for writing; read-only processes leave no name.
    pub processes: Vec<ProcessStats>,
    /// The process that is writing at this moment.
    pub writing: Option<u32>,
    /// When it began, if it is a transaction.
    #[cfg_attr(feature = "serde", serde(serialize_with = "super::serial::maybe_date"))]
    pub writing_since: Option<SystemTime>,
    /// Whether another process waits for its turn to write.
    pub writer_waits: bool,
    /// The process whose turn is next, if one has waited for more than a millisecond.
    pub next_writer: Option<u32>,
    /// Whether a flush has failed.
    pub poisoned: bool,
}

/// Space that is no longer in use and not yet free, in bytes. It includes dead space in the log only as described at
/// [`pins`](WaitingStats::pins).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct WaitingStats {
    /// Waits for a checkpoint: a recovery after a power cut would still need it.
    pub checkpoint: u64,
    /// Waits for readers and snapshots that may see it: those as old as the [oldest pin](Stats::oldest_pin), or
    /// snapshots of read-only processes. Once this reaches half of the live bytes, the log is no longer cleaned, since
    /// the space gained would have to wait too; from then on this includes all [dead bytes](Stats::dead_bytes) of the
    /// log.
    pub pins: u64,
    /// Ready: the next writer that needs space will use it.
    pub next_use: u64,
}

/// An index resize in progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct ResizeStats {
    /// The map whose index is rebuilt.
    pub map: u32,
    /// Lines of the current index.
    pub lines: u64,
    /// How many of them have moved.
    pub moved: u64,
    /// Lines of the new index.
    pub target_lines: u64,
}

/// Why a process does no upkeep.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct RestingStats {
    /// The error.
    pub why: String,
    /// Since when every attempt has failed.
    #[cfg_attr(feature = "serde", serde(serialize_with = "super::serial::date"))]
    pub since: SystemTime,
    /// The time until the next attempt. `None` if a retry would be pointless: the store is damaged, and
    /// [`verify`](crate::Store::verify) says where.
    #[cfg_attr(feature = "serde", serde(serialize_with = "super::serial::maybe_seconds"))]
    pub left: Option<Duration>,
}

/// Work counted per write, with total and maximum: the upkeep that one process has done since it opened the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct UpkeepStats {
    /// Index lines moved by resizes.
    pub lines: u64,
    /// Maximum for one write: 16 for each change in an index that is resized step by step; 512 in an index so small
    /// that it is rebuilt at once.
    pub most_lines: u64,
    /// Blocks of 4 KiB zeroed for resizes.
    pub blocks: u64,
    /// Maximum for one write: 16 for each change, or all those of a small index that is rebuilt at once.
    pub most_blocks: u64,
    /// Bytes of records moved by compaction.
    pub moved_bytes: u64,
    /// Maximum for one write: (9 / [dead share](crate::Options::auto_compact)) times what it appended itself and 4 KiB,
    /// which is 18 times by default, and at most the whole log; and one record.
    pub most_moved_bytes: u64,
    /// Bytes of log handed to the disk by slices and checkpoints, not counting synced commits.
    pub flushed_bytes: u64,
    /// Maximum for one write: 17 slices and what it appended itself. (A slice is a sixteenth of
    /// [`checkpoint_every`](crate::Options::checkpoint_every), and at most 256 KiB.)
    pub most_flushed_bytes: u64,
}

/// What this process has evicted since it opened the store, to keep it within [`max_size`](crate::Options::max_size);
/// see [`Options::evict`](crate::Options::evict).
///
/// ```
/// use slotlog::{EvictionStats, Policy, Store};
///
/// let cache = Store::options().max_size(1 << 20).evict(Policy::Oldest).in_memory()?;
/// for number in 0..2000u32 {
///     cache.insert(number.to_le_bytes(), [7; 1000])?;
/// }
/// let eviction: EvictionStats = cache.stats()?.eviction;
/// assert_eq!(eviction.evicted + cache.len()?, 2000);
/// assert_eq!((eviction.spared, eviction.clears), (0, 0));
/// # Ok::<(), slotlog::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct EvictionStats {
    /// The policy of this process, if it evicts.
    pub policy: Option<Policy>,
    /// Entries removed to make room.
    pub evicted: u64,
    /// Bytes of their records.
    pub evicted_bytes: u64,
    /// How often an entry was spared since it was read: hits of [`Policy::SecondChance`].
    pub spared: u64,
    /// How often all maps were cleared, since eviction made no room.
    pub clears: u64,
}

/// The damage that was found; see [`Stats::damage`].
///
/// ```
/// # let store = slotlog::Store::in_memory()?;
/// let damage: slotlog::DamageStats = store.stats()?.damage;
/// assert_eq!((damage.found, damage.quarantined_records), (0, 0));
/// # Ok::<(), slotlog::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct DamageStats {
    /// Damaged records that compaction has put into quarantine since the store was last closed or recovered: their keys
    /// are kept, and reading them is an error until they are written again. [`verify`](crate::Store::verify) lists
    /// those that still are.
    pub quarantined_records: u64,
    /// How often compaction and [scrubbing](crate::Options::scrub) have come upon damage since then. A process counts
    /// the same place again only if it has found 16 others.
    pub found: u64,
    /// When a process last began to scrub the log, if one has since then.
    #[cfg_attr(feature = "serde", serde(serialize_with = "super::serial::maybe_date"))]
    pub last_scrub: Option<SystemTime>,
    /// Bytes of log that this process has scrubbed.
    pub scrubbed_bytes: u64,
    /// The first places of damage that this process has found, 16 at most. Compaction may have moved what was there.
    pub findings: Vec<Finding>,
}

/// A process that has the store open for writing.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct ProcessStats {
    /// Its process id, as that process sees it.
    pub pid: u32,
    /// When it opened the store.
    #[cfg_attr(feature = "serde", serde(serialize_with = "super::serial::date"))]
    pub since: SystemTime,
    /// Whether it excludes all other openers.
    pub exclusive: bool,
    /// Whether the process reuses no space, so that the file grows with everything it writes, because the system denies
    /// it the call `membarrier`, which was allowed when it opened the store: usually because a filter (seccomp) was
    /// installed later. Remedies: reopen the store under the filter, since readers then do without that call; allow the
    /// call in the filter; or have another process write from time to time, or [maintain](crate::Store::maintain) the
    /// store.
    pub reuse_refused: bool,
}

/// A pin: a reader or a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct PinStats {
    /// How many commits were made since the one that it sees.
    pub behind: u64,
    /// When it was taken, if it is a snapshot.
    #[cfg_attr(feature = "serde", serde(serialize_with = "super::serial::maybe_date"))]
    pub since: Option<SystemTime>,
    /// The process that holds it, if that process still has the store open.
    pub pid: Option<u32>,
}

/// Extents of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct ExtentStats {
    /// Their use: `Log`, `Index`, `Table`, `Reserve`, `Retired`, `ReserveLog`, `Emptied`, `Live` (pins and
    /// processes beyond the first tables) or `Free`.
    pub kind: String,
    /// Their number.
    pub count: u64,
    /// Their total size.
    pub bytes: u64,
    /// How many commits were made since the oldest of them got its kind, and since the youngest did. Unknown for free
    /// space.
    pub ages: Option<(u64, u64)>,
}

/// One map.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct MapStats {
    /// Its number in the file.
    pub id: u32,
    /// Its name. The names of the catalogue (number 0), the default map (number 1) and dropped maps that may still have
    /// readers are in parentheses.
    pub name: String,
    /// The names of its key and value types.
    pub types: String,
    /// The [version](crate::Store::map_versioned) of its types.
    pub version: u32,
    /// Keys that have a value, including expired ones that were not removed yet: the same as
    /// [`Map::len`](crate::Map::len).
    pub entries: u64,
    /// Size of the records that hold the values, including expired ones.
    pub live_bytes: u64,
    /// How much of that has expired: an estimate from 64 lines of the index, so exact for a map with few keys.
    /// [Upkeep](crate::Options::auto_compact) counts it as dead, by the same kind of estimate.
    pub expired_bytes: u64,
    /// Slots of its index.
    pub slots: u64,
    /// Slots in use: by values and tombstones, and vacated ones.
    pub used_slots: u64,
    /// Share of the slots that are in use.
    pub load: f64,
    /// Size of the index.
    pub index_bytes: u64,
}

/// Lines of each index in the sample that estimates expired bytes.
const LINES: u64 = 64;

impl Stats {
    pub(crate) fn of(engine: &Engine) -> Result<Stats> {
        engine.check_not_forked()?;
        let superblock = engine.superblock()?;
        let LogSize { bytes: log_bytes, records: log_records } = engine.log_size()?;
        let visible = engine.visible()?;
        let maps = maps(engine, visible.count())?;
        let upkeep = &engine.upkeep;
        let done = upkeep.done();
        let live_bytes = maps.iter().fold(0u64, |sum, map| sum.saturating_add(map.live_bytes));
        let (pins, oldest) = engine.pins_in_use()?;
        let processes = engine.processes()?;
        let writing = engine.writing()?;
        let (writer_waits, next_writer) = engine.waiting_to_write()?;
        let pid = |entry| processes.iter().find(|process| process.entry == entry).map(|process| process.pid);
        Ok(Stats {
            path: engine.mapping.path().to_owned(),
            uuid: uuid_text(superblock.uuid),
            format_version: VERSION,
            created: time(superblock.created.get()),
            opened: engine.opened,
            file_len: engine.mapping.file_len()?,
            incarnation: visible.incarnation().saturating_sub(1),
            commits: visible.count(),
            log_records,
            log_bytes,
            live_bytes,
            dead_bytes: log_bytes.saturating_sub(live_bytes),
            dead_share: if log_bytes == 0 { 0.0 } else { 1.0 - (live_bytes as f64 / log_bytes as f64).min(1.0) },
            waiting: waiting(engine)?,
            resize: engine.resize_progress()?.map(|progress| ResizeStats {
                map: progress.map.0,
                lines: progress.lines,
                moved: progress.moved,
                target_lines: progress.target_lines,
            }),
            cleaned_bytes: engine.head()?.bytes,
            upkeep: UpkeepStats {
                lines: done.lines.all,
                most_lines: done.lines.most,
                blocks: done.blocks.all,
                most_blocks: done.blocks.most,
                moved_bytes: done.moved.all,
                most_moved_bytes: done.moved.most,
                flushed_bytes: done.flushed.all,
                most_flushed_bytes: done.flushed.most,
            },
            eviction: eviction(engine),
            damage: damage(engine)?,
            resting: upkeep.rest.resting().map(|rest| RestingStats {
                left: rest.left(),
                why: rest.why,
                since: rest.since,
            }),
            extents: extents(engine, visible.count())?,
            maps,
            last_checkpoint: time(superblock.written.get()),
            since_checkpoint: engine.log_since_checkpoint()?,
            pins,
            oldest_snapshot: oldest.filter(|oldest| oldest.since > 0).map(|oldest| time(oldest.since)),
            oldest_pin: oldest.map(|oldest| PinStats {
                behind: visible.count().saturating_sub(oldest.count),
                since: (oldest.since > 0).then(|| time(oldest.since)),
                pid: pid(oldest.entry),
            }),
            bookmarks: engine.bookmarks()?,
            origin: engine.origin()?.map(Origin::from),
            writer_waits,
            next_writer: next_writer.and_then(pid),
            writing: writing.and_then(|(entry, _)| pid(entry)),
            writing_since: writing.and_then(|(_, since)| (since > 0).then(|| time(since))),
            processes: processes
                .iter()
                .map(|process| ProcessStats {
                    pid: process.pid,
                    since: time(process.since),
                    exclusive: process.exclusive,
                    reuse_refused: process.is_refused,
                })
                .collect(),
            poisoned: engine.is_poisoned(),
        })
    }
}

/// What was evicted.
fn eviction(engine: &Engine) -> EvictionStats {
    let Evicted { entries, bytes, spared, clears } = &engine.upkeep.evicted;
    let [evicted, evicted_bytes, spared, clears] =
        [entries, bytes, spared, clears].map(|counter| counter.load(Ordering::Relaxed));
    EvictionStats { policy: engine.settings.evict, evicted, evicted_bytes, spared, clears }
}

/// The damage that was found.
fn damage(engine: &Engine) -> Result<DamageStats> {
    let seen = &engine.upkeep.damage;
    let is_live = engine.is_live()?;
    let word = |at| if is_live { engine.mapping.live(at) } else { Ok(0) };
    let began = word(live::SCRUBBED)?;
    Ok(DamageStats {
        quarantined_records: word(live::QUARANTINED)?,
        last_scrub: (began > 0).then(|| time(began)),
        found: word(live::DAMAGE)?,
        scrubbed_bytes: seen.scrubbed.load(Ordering::Relaxed),
        findings: seen
            .first()
            .iter()
            .map(|defect| Finding { offset: defect.offset, what: defect.what.into() })
            .collect(),
    })
}

/// All maps of a store whose last visible commit has this count.
fn maps(engine: &Engine, visible: u64) -> Result<Vec<MapStats>> {
    let mut maps = Vec::new();
    let mut named: BTreeMap<MapId, (String, Named)> =
        engine.named_maps()?.into_iter().map(|(name, map)| (map.id, (name, map))).collect();
    for id in engine.map_ids()? {
        let (_pin, extent, totals) = Pin::with_totals(engine, id)?;
        let Some(extent) = extent else { continue };
        let index = Index::of_extent(&engine.mapping, extent)?;
        let slots = index.lines() * SLOTS as u64;
        let used_slots = totals.used();
        let found = named.remove(&id);
        let name = name_of(id, found.as_ref().map(|(name, _)| name));
        let (types, version) = match (id, found) {
            (CATALOGUE, _) => ("str -> map".to_owned(), 0),
            (DEFAULT_MAP, _) => ("[u8] -> [u8]".to_owned(), 0),
            (_, Some((_, map))) => (map.types, map.version),
            (_, None) => (String::new(), 0),
        };
        maps.push(MapStats {
            id: id.0,
            name,
            types,
            version,
            entries: totals.keys,
            live_bytes: totals.bytes,
            expired_bytes: engine.expired_bytes(&index, totals.bytes, (LINES, visible))?,
            slots,
            used_slots,
            load: used_slots as f64 / slots as f64,
            index_bytes: index.lines() * 64 + crate::file::layout::REGION_HEADER,
        });
    }
    Ok(maps)
}

/// What the reports call a map.
pub(super) fn name_of(id: MapId, name: Option<&String>) -> String {
    match (id, name) {
        (CATALOGUE, _) => "(catalogue)".to_owned(),
        (DEFAULT_MAP, _) => "(default)".to_owned(),
        (_, Some(name)) => name.clone(),
        (_, None) => "(dropped)".to_owned(),
    }
}

fn waiting(engine: &Engine) -> Result<WaitingStats> {
    let (waiting, next_use) = engine.waiting()?;
    Ok(WaitingStats { checkpoint: waiting.checkpoint, pins: waiting.pins, next_use })
}

fn extents(engine: &Engine, visible: u64) -> Result<Vec<ExtentStats>> {
    let kinds = [
        ExtentKind::Log,
        ExtentKind::Index,
        ExtentKind::Table,
        ExtentKind::Reserve,
        ExtentKind::Retired,
        ExtentKind::ReserveLog,
        ExtentKind::Emptied,
        ExtentKind::Live,
    ];
    let used = engine.extents()?;
    let mut stats: Vec<ExtentStats> = Vec::new();
    for kind in kinds {
        let of_kind = used.iter().filter(|extent| extent.kind == kind);
        let count = of_kind.clone().count() as u64;
        if count > 0 {
            let bytes = of_kind.clone().map(|extent| extent.blocks * BLOCK).sum();
            let ages = of_kind.map(|extent| visible.saturating_sub(extent.count));
            let ages = ages.clone().max().zip(ages.min());
            stats.push(ExtentStats { kind: format!("{kind:?}"), count, bytes, ages });
        }
    }
    let (mut end, mut count, mut bytes) = (Offset::EXTENTS, 0, 0);
    let runs = used.iter().map(|extent| (extent.offset, extent.end()));
    for (start, next) in runs.chain([(Offset(engine.mapping.len()), Offset::NONE)]) {
        if start > end {
            count += 1;
            bytes += start - end;
        }
        end = next;
    }
    stats.push(ExtentStats { kind: "Free".to_owned(), count, bytes, ages: None });
    Ok(stats)
}

/// The number of keys of a map that are found in the first line, the second …
pub(crate) fn probe_lengths(engine: &Engine, map: MapId) -> Result<[u64; 8]> {
    let view = engine.view()?;
    let mut lengths = [0; 8];
    let Some(index) = engine.index_at(map, view.seq())? else { return Ok(lengths) };
    for slot in index.iter() {
        let slot = slot?;
        if slot.record.is_some() {
            lengths[(slot.probes as usize - 1).min(7)] += 1;
        }
    }
    Ok(lengths)
}
