//! Opening: whose file is this, who else has it, and in what state was it left?

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use zerocopy::FromBytes;

use super::checkpoint::Flusher;
use super::commit::Writer;
use super::lock::Gate;
use super::pins::KeptPins;
use super::recovery::Opened;
use super::settings::{Access, Settings};
use super::{Engine, Frozen, now};
use crate::error::{Error, Result};
use crate::file::layout::{
    BLOCK, CATALOGUE, COUNT_BITS, COUNT_MASK, CREATION_MAGIC, DEFAULT_MAP, EXTENTS, KNOWN_INCOMPATIBLE, MAGIC,
    PROCESS_TABLE, SUPERBLOCK_A, SUPERBLOCK_B, Superblock, VERSION, commit_word, live, process,
};
use crate::file::region::{self, Region};
use crate::file::space::{SMALLEST_LOG, Space};
use crate::file::totals;

/// Our entry of the process table: a read-write opener is alone.
const PROCESS: u64 = 0;

/// The two superblocks of a store, those of them that are valid.
type Superblocks = [Option<Superblock>; 2];

impl Engine {
    /// Opens the store at `path`, or creates it.
    pub(crate) fn open(path: &Path, settings: Settings) -> Result<Engine> {
        let read_only = settings.access == Access::ReadOnly;
        let (mut file, created) = open_file(path, &settings)?;
        let found = inspect(&mut file, path)?;
        match found {
            None if read_only || !settings.create => {
                Err(Error::NotAStore { path: path.to_owned(), what: "it is empty, or its creation was cut short" })
            }
            None => {
                // Of one file both hold the lock, so it is ours until we have tidied up.
                let lock = file.try_clone().map_err(|e| Error::io(path, "duplicate the file's handle", e))?;
                let result = create(file, path, settings);
                if result.is_err() && created {
                    // It holds nothing. Should this fail, the next opening recognises what is left.
                    let _ = fs::remove_file(path);
                }
                drop(lock);
                result
            }
            Some(_) if settings.create_new => Err(Error::AlreadyExists { path: path.to_owned() }),
            Some(superblocks) => open_store(file, path, settings, superblocks),
        }
    }

    /// A store in memory.
    pub(crate) fn in_memory(settings: Settings) -> Result<Engine> {
        build_empty(Region::in_memory(settings.max_size)?, settings)
    }

    /// Puts the pieces together.
    #[expect(clippy::too_many_arguments, reason = "the one place where an engine is made")]
    pub(crate) fn assemble(
        region: Region,
        settings: Settings,
        opened: Opened,
        superblock: Superblock,
        frozen: Option<Frozen>,
        space: Space,
        tail: u64,
        unflushed: Vec<(u64, u64)>,
    ) -> Result<Engine> {
        let writer = Writer::new(&region, space, tail)?;
        // What the superblock does not vouch for counts as not flushed.
        let durable = (superblock.log_end.get(), superblock.next_seq.get() - 1);
        Ok(Engine {
            seed: superblock.hash_seed.get(),
            process: PROCESS,
            frozen,
            kept_pins: KeptPins::new(PROCESS),
            gate: Gate::default(),
            writing_since: AtomicU64::new(0),
            flusher: Flusher::new(unflushed, writer.extent, durable.0, durable.1),
            writer: Mutex::new(writer),
            clean: AtomicBool::new(superblock.is_clean()),
            superblock: Mutex::new(superblock),
            poisoned: AtomicBool::new(false),
            ready: AtomicBool::new(false),
            region,
            settings,
            opened,
        })
    }
}

/// Opens and locks the file, and says whether it was made for us.
fn open_file(path: &Path, settings: &Settings) -> Result<(File, bool)> {
    let read_only = settings.access == Access::ReadOnly;
    if read_only && settings.create_new {
        return Err(Error::InvalidOptions {
            path: path.to_owned(),
            what: "a store that is opened read-only cannot be created",
        });
    }
    // Before opening: to open a FIFO may wait for ever.
    if let Ok(metadata) = fs::metadata(path) {
        check_is_file(path, &metadata)?;
    }
    let mut options = OpenOptions::new();
    options.read(true).write(!read_only);
    // A file may appear or vanish between two looks at its path; that settles after a few rounds.
    for _ in 0..16 {
        let (file, created) = match options.clone().create_new(false).open(path) {
            Ok(_) if settings.create_new => return Err(Error::AlreadyExists { path: path.to_owned() }),
            Ok(file) => (file, false),
            Err(error) if error.kind() == io::ErrorKind::NotFound && settings.create && !read_only => {
                match options.clone().create_new(true).open(path) {
                    Ok(file) => (file, true),
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                    Err(error) => return Err(opening_error(path, error)),
                }
            }
            Err(error) => return Err(opening_error(path, error)),
        };
        let metadata = file.metadata().map_err(|e| Error::io(path, "look at the file", e))?;
        check_is_file(path, &metadata)?;
        let alone = !read_only || settings.exclusive;
        let locked = if alone { fs2::FileExt::try_lock_exclusive(&file) } else { fs2::FileExt::try_lock_shared(&file) };
        match locked {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == fs2::lock_contended_error().raw_os_error() => {
                return Err(Error::Locked { path: path.to_owned() });
            }
            Err(error) => return Err(Error::io(path, "lock the file", error)),
        }
        // Was it deleted or replaced before we had the lock?
        if is_at(&metadata, path) {
            return Ok((file, created));
        }
    }
    Err(Error::NotFound { path: path.to_owned() })
}

fn check_is_file(path: &Path, metadata: &fs::Metadata) -> Result<()> {
    let kind = metadata.file_type();
    if kind.is_file() {
        return Ok(());
    }
    let what = if kind.is_dir() { "a directory" } else { special_kind(kind) };
    Err(Error::NotAFile { path: path.to_owned(), what })
}

#[cfg(unix)]
fn special_kind(kind: fs::FileType) -> &'static str {
    use std::os::unix::fs::FileTypeExt;

    match kind {
        kind if kind.is_fifo() => "a FIFO",
        kind if kind.is_socket() => "a socket",
        _ => "a device",
    }
}

#[cfg(not(unix))]
fn special_kind(_kind: fs::FileType) -> &'static str {
    "a device"
}

#[cfg(unix)]
fn is_at(metadata: &fs::Metadata, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;

    fs::metadata(path).is_ok_and(|there| (there.dev(), there.ino()) == (metadata.dev(), metadata.ino()))
}

#[cfg(not(unix))]
fn is_at(_metadata: &fs::Metadata, path: &Path) -> bool {
    // An open file can be neither deleted nor replaced there.
    path.exists()
}

fn opening_error(path: &Path, error: io::Error) -> Error {
    let path = path.to_owned();
    match error.kind() {
        io::ErrorKind::NotFound => Error::NotFound { path },
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Error::PermissionDenied { path },
        io::ErrorKind::AlreadyExists => Error::AlreadyExists { path },
        io::ErrorKind::IsADirectory => Error::NotAFile { path, what: "a directory" },
        _ => Error::Io { path, doing: "open the file", source: error },
    }
}

/// Looks at the superblocks, and refuses what is not ours to touch. `None` if the file is empty, or what a creation that
/// did not end has left.
fn inspect(file: &mut File, path: &Path) -> Result<Option<Superblocks>> {
    let not_a_store = |what| Err(Error::NotAStore { path: path.to_owned(), what });
    let mut pages = Vec::new();
    file.seek(SeekFrom::Start(0))
        .and_then(|_| file.take(2 * BLOCK).read_to_end(&mut pages))
        .map_err(|e| Error::io(path, "read the superblocks", e))?;
    let len = file.metadata().map_err(|e| Error::io(path, "read the length", e))?.len();
    // A new file is one page of zeros before its mark is on the disk.
    if pages.is_empty() || (len == BLOCK && pages.iter().all(|&byte| byte == 0)) {
        return Ok(None);
    }
    let found = [SUPERBLOCK_A, SUPERBLOCK_B].map(|at| {
        let bytes = pages.get(at as usize..)?;
        Superblock::read_from_prefix(bytes).ok().map(|(superblock, _)| superblock)
    });
    // Behind the mark there are zeros until the first superblock takes its place.
    if pages.starts_with(&CREATION_MAGIC) && pages[CREATION_MAGIC.len()..].iter().all(|&byte| byte == 0) {
        return Ok(None);
    }
    let mut ours = found.iter().flatten().filter(|superblock| superblock.magic == MAGIC).peekable();
    if ours.peek().is_none() {
        return not_a_store("its first bytes are not those of one");
    }
    // The version comes first: of another one, not even the place of the CRC is known.
    if let Some(other) = ours.find(|superblock| superblock.version.get() != VERSION) {
        let found = other.version.get();
        return Err(Error::UnsupportedVersion { path: path.to_owned(), found, supported: VERSION });
    }
    let valid = found.map(|superblock| superblock.filter(|s| s.magic == MAGIC && s.crc.get() == s.expected_crc()));
    if valid.iter().all(Option::is_none) {
        return Err(Error::corrupt(path, SUPERBLOCK_A, "neither superblock has a CRC that holds"));
    }
    if let Some(superblock) = valid.iter().flatten().find(|s| s.incompatible.get() & !KNOWN_INCOMPATIBLE != 0) {
        let features = superblock.incompatible.get() & !KNOWN_INCOMPATIBLE;
        return Err(Error::UnsupportedFeature { path: path.to_owned(), features });
    }
    if len < EXTENTS {
        return Err(Error::Truncated { path: path.to_owned(), len, expected: EXTENTS });
    }
    for superblock in valid.iter().flatten() {
        check_fields(superblock, path)?;
    }
    Ok(Some(valid))
}

/// Whether what a superblock says can be true. Its CRC holds, so this is about hostile files.
fn check_fields(superblock: &Superblock, path: &Path) -> Result<()> {
    let (head, extent) = (superblock.log_head.get(), superblock.head_extent.get());
    let sane = u64::from(superblock.block.get()) == BLOCK
        && extent >= EXTENTS
        && extent.is_multiple_of(BLOCK)
        && head >= extent
        && head.is_multiple_of(8)
        && superblock.log_end.get().is_multiple_of(8)
        && is_sane(superblock.head_seq.get())
        && is_sane(superblock.next_seq.get())
        && superblock.generation.get() < u64::MAX / 2
        && superblock.next_seq.get() >= superblock.head_seq.get();
    if sane { Ok(()) } else { Err(Error::corrupt(path, SUPERBLOCK_A, "the superblock contradicts itself")) }
}

/// Whether a sequence number is one that a store can have reached, with many more to come.
fn is_sane(seq: u64) -> bool {
    seq >> COUNT_BITS > 0 && seq & COUNT_MASK < COUNT_MASK / 2
}

/// Creates a store in an empty file.
///
/// First a mark goes to the disk that says "creation has begun", and the folder after it; the superblock takes its
/// place only when everything else is flushed. So a cut leaves a file that is recognised.
fn create(mut file: File, path: &Path, settings: Settings) -> Result<Engine> {
    // The mark itself must not be what runs into a limit.
    region::check_file_size(path, settings.max_size, BLOCK)?;
    let mut mark = [0; BLOCK as usize];
    mark[..CREATION_MAGIC.len()].copy_from_slice(&CREATION_MAGIC);
    file.set_len(0)
        .and_then(|()| file.seek(SeekFrom::Start(0)))
        .and_then(|_| file.write_all(&mark))
        .and_then(|()| file.sync_all())
        .map_err(|e| creation_error(path, e))?;
    sync_folder(path)?;
    let region = Region::of_file(file, path.to_owned(), false, settings.max_size)?;
    build_empty(region, settings)
}

/// A full disk may show before anything is mapped.
fn creation_error(path: &Path, error: io::Error) -> Error {
    use crate::error::FullReason;

    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            Error::Full { path: path.to_owned(), needed: BLOCK, why: FullReason::Disk }
        }
        _ => Error::io(path, "write the new file", error),
    }
}

#[cfg(unix)]
fn sync_folder(path: &Path) -> Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent).and_then(|folder| folder.sync_all()).map_err(|e| Error::io(path, "flush the folder", e))
}

#[cfg(not(unix))]
fn sync_folder(_path: &Path) -> Result<()> {
    // Elsewhere a folder cannot be flushed; creating a file is made durable by flushing the file.
    Ok(())
}

/// Makes an empty store of a region that has nothing behind the live area.
fn build_empty(region: Region, settings: Settings) -> Result<Engine> {
    let first_extent = (EXTENTS, EXTENTS + SMALLEST_LOG);
    region.extend(first_extent.1)?;
    let seq = (1 << COUNT_BITS) + 1;
    let mut random = [0; 24];
    getrandom::fill(&mut random).map_err(|e| Error::io(region.path(), "get random bytes", io::Error::other(e)))?;
    let (uuid, seed) = random.split_at(16);
    let mut superblock = Superblock::new_zeroed_for(seq, now());
    superblock.uuid.copy_from_slice(uuid);
    // Version 4, variant 1: a random UUID (RFC 9562).
    superblock.uuid[6] = superblock.uuid[6] & 0x0f | 0x40;
    superblock.uuid[8] = superblock.uuid[8] & 0x3f | 0x80;
    superblock.hash_seed = u64::from_le_bytes(seed.try_into().unwrap_or_default()).into();

    let log =
        LogFound { extents: vec![(first_extent.0, first_extent.1, seq - 1)], end: EXTENTS, chain: 0, last: seq - 1 };
    let initial = settings.initial_capacity;
    let engine = build(region, settings, Opened::Created, superblock, &log)?;
    let mut writer = engine.writer();
    for (map, slots) in [(CATALOGUE, 0), (DEFAULT_MAP, initial)] {
        engine.create_map(&mut writer, map, slots, seq - 1)?;
    }
    engine.keep_reserve(&mut writer, seq - 1)?;
    drop(writer);
    engine.region.flush_all()?;
    {
        let mut superblock = engine.lock_superblock();
        let next = Superblock { file_len: engine.region.len().into(), ..*superblock };
        engine.write_superblock(&mut superblock, next)?;
    }
    engine.trust_live()?;
    Ok(engine)
}

impl Superblock {
    /// The superblock of an empty store whose first commit will have the number `seq`.
    fn new_zeroed_for(seq: u64, created: u64) -> Superblock {
        let mut superblock = <Superblock as zerocopy::FromZeros>::new_zeroed();
        superblock.magic = MAGIC;
        superblock.version = VERSION.into();
        superblock.block = (BLOCK as u32).into();
        superblock.log_head = EXTENTS.into();
        superblock.head_extent = EXTENTS.into();
        superblock.head_seq = seq.into();
        superblock.log_end = EXTENTS.into();
        superblock.next_seq = seq.into();
        superblock.created = created.into();
        superblock
    }
}

/// A log that is known: its extents (start, end, sequence number), and how it ends.
pub(crate) struct LogFound {
    pub(crate) extents: Vec<(u64, u64, u64)>,
    pub(crate) end: u64,
    pub(crate) chain: u32,
    pub(crate) last: u64,
}

/// Sets the live area up anew around a log, with an empty map table and nothing allocated but the log.
pub(crate) fn build(
    region: Region,
    settings: Settings,
    opened: Opened,
    superblock: Superblock,
    log: &LogFound,
) -> Result<Engine> {
    distrust_live(&region)?;
    region.zero(live::VERSION_WORD, EXTENTS - live::VERSION_WORD)?;
    set_live(&region, &superblock, log.end, log.chain, log.last)?;
    // The first superblock of a new store goes to A; in any other case the word is set again.
    region.store_live(live::SUPERBLOCK, SUPERBLOCK_B, Ordering::Relaxed)?;
    let space = Space::create(&region, &log.extents, log.last)?;
    let engine = Engine::assemble(region, settings, opened, superblock, None, space, log.end, Vec::new())?;
    {
        let mut writer = engine.writer();
        engine.create_map_table(&mut writer, log.last)?;
    }
    Ok(engine)
}

/// Opens a file that is a store.
fn open_store(file: File, path: &Path, settings: Settings, superblocks: Superblocks) -> Result<Engine> {
    let read_only = settings.access == Access::ReadOnly;
    let again = file.try_clone().map_err(|e| Error::io(path, "duplicate the file's handle", e))?;
    let region = Region::of_file(file, path.to_owned(), read_only, settings.max_size)?;
    let generation = |superblock: &Option<Superblock>| superblock.map_or(0, |s| s.generation.get());
    let newest = usize::from(generation(&superblocks[1]) > generation(&superblocks[0]));

    let which = |place: u64| usize::from(place == SUPERBLOCK_B);
    let same_cache = live_is_current(&region)?
        && superblocks[which(region.live(live::SUPERBLOCK)?)]
            .is_some_and(|s| live_is_sane(&region, &s).unwrap_or(false));
    let state = if same_cache { region.live(live::STATE)? } else { 0 };
    let in_force = if same_cache { which(region.live(live::SUPERBLOCK)?) } else { newest };
    let Some(mut superblock) = superblocks[in_force] else {
        return Err(region.corrupt(in_force as u64 * SUPERBLOCK_B, "the superblock in force is damaged"));
    };
    // The next one has to be newer than both.
    superblock.generation = generation(&superblocks[newest]).into();

    if superblock.is_clean() && state & live::STATE_CLOSING == 0 {
        return open_clean(region, settings, superblock, in_force);
    }
    if read_only {
        return Err(Error::NeedsRecovery { path: path.to_owned() });
    }
    if same_cache && state & live::STATE_POISONED == 0 {
        match super::recovery::after_kill(region, settings.clone(), superblock, state) {
            // What was killed left something behind that does not add up. The log decides.
            Err(Error::Corrupt { .. }) => {}
            opened => return opened,
        }
        let region = Region::of_file(again, path.to_owned(), read_only, settings.max_size)?;
        return super::recovery::after_power_cut(region, settings, superblock, in_force);
    }
    super::recovery::after_power_cut(region, settings, superblock, in_force)
}

/// Whether the live area can be that of the store whose superblock is in force.
fn live_is_sane(region: &Region, superblock: &Superblock) -> Result<bool> {
    let visible = region.live(live::VISIBLE)?;
    Ok(is_sane(visible)
        && visible >= superblock.next_seq.get() - 1
        && visible >> COUNT_BITS == superblock.next_seq.get() >> COUNT_BITS
        && region.live(live::HORIZON)? <= visible
        && region.live(live::LOG_HEAD)? >= EXTENTS
        && region.live(live::TAIL)? >= EXTENTS)
}

/// Opens a store that was closed: there is nothing to do but to set the live area up.
fn open_clean(region: Region, settings: Settings, superblock: Superblock, in_force: usize) -> Result<Engine> {
    let expected = superblock.file_len.get();
    if region.len() < expected {
        return Err(Error::Truncated { path: region.path().to_owned(), len: region.len(), expected });
    }
    let (end, last) = (superblock.log_end.get(), superblock.next_seq.get() - 1);
    if region.is_read_only() {
        let frozen = Frozen { visible: last, map_table: superblock.map_table.get() };
        let space = Space::load(&region, superblock.space_table.get())?;
        return Engine::assemble(region, settings, Opened::Clean, superblock, Some(frozen), space, end, Vec::new());
    }
    distrust_live(&region)?;
    region.zero(live::VERSION_WORD, EXTENTS - live::VERSION_WORD)?;
    set_live(&region, &superblock, end, superblock.end_chain.get(), last)?;
    region.store_live(live::MAP_TABLE, superblock.map_table.get(), Ordering::Relaxed)?;
    region.store_live(live::SPACE_TABLE, superblock.space_table.get(), Ordering::Relaxed)?;
    region.store_live(live::SUPERBLOCK, in_force as u64 * SUPERBLOCK_B, Ordering::Relaxed)?;
    totals::publish(&region, live::LOG_TOTALS, [last, superblock.log_bytes.get(), superblock.log_records.get()])?;
    region.store_live(live::CHECKPOINT_BYTES, superblock.log_bytes.get(), Ordering::Relaxed)?;
    let space = Space::load(&region, superblock.space_table.get())?;
    let engine = Engine::assemble(region, settings, Opened::Clean, superblock, None, space, end, Vec::new())?;
    engine.trust_live()?;
    Ok(engine)
}

/// Writes the words of the live area that every road sets alike.
fn set_live(region: &Region, superblock: &Superblock, end: u64, chain: u32, last: u64) -> Result<()> {
    for (offset, value) in [
        (live::HORIZON, last),
        (live::LOG_HEAD, superblock.log_head.get()),
        (live::HEAD_EXTENT, superblock.head_extent.get()),
        (live::HEAD_CHAIN, u64::from(superblock.head_chain.get())),
        (live::HEAD_SEQ, superblock.head_seq.get()),
        (live::BEHIND_SEQ, superblock.behind_seq.get()),
        (live::COMMIT_POINT, commit_word(end, last)),
        (live::TAIL, end),
        (live::CHAIN, u64::from(chain)),
        (live::VISIBLE, last),
    ] {
        region.store(offset, value, Ordering::Relaxed)?;
    }
    Ok(())
}

/// Says that the live area must not be believed: it is about to be rebuilt.
fn distrust_live(region: &Region) -> Result<()> {
    region.store_live(live::VERSION_WORD, 0, Ordering::SeqCst)
}

/// Whether the live area was written under this very page cache.
fn live_is_current(region: &Region) -> Result<bool> {
    let Some(identity) = region.identity() else { return Ok(false) };
    if region.live(live::VERSION_WORD)? != live::VERSION {
        return Ok(false);
    }
    for (index, word) in identity.into_iter().enumerate() {
        if region.live(live::IDENTITY + 8 * index as u64)? != word {
            return Ok(false);
        }
    }
    Ok(true)
}

impl Engine {
    /// Ends the opening: says that the live area can be believed as long as this page cache lives, and enters us in the
    /// process table.
    pub(crate) fn trust_live(&self) -> Result<()> {
        let entry = PROCESS_TABLE;
        let identity = self.region.identity().unwrap_or_default();
        self.region.store(entry + process::SINCE, now(), Ordering::Relaxed)?;
        self.region.store(entry + process::MODE, process::EXCLUSIVE, Ordering::Relaxed)?;
        self.region.store(entry + process::BOOT, identity[0], Ordering::Relaxed)?;
        self.region.store(entry + process::PID, u64::from(std::process::id()) + 1, Ordering::Relaxed)?;
        for (index, word) in identity.into_iter().enumerate() {
            self.region.store_live(live::IDENTITY + 8 * index as u64, word, Ordering::Relaxed)?;
        }
        self.region.store_live(live::VERSION_WORD, live::VERSION, Ordering::Release)?;
        self.ready.store(true, Ordering::Release);
        Ok(())
    }
}
