//! The two superblocks of a file: whether there is a store, of what version, and which of them counts.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use zerocopy::FromBytes;

use crate::error::{Error, Result};
use crate::file::layout::{
    BLOCK, CREATION_MAGIC, EXTENTS, KNOWN_INCOMPATIBLE, MAGIC, MAX_COUNT, MAX_FILE_LEN, Offset, SUPERBLOCK_A,
    SUPERBLOCK_B, Seq, Superblock, VERSION, live,
};
use crate::file::mapping::Mapping;

/// The two superblocks of a store; `None` for one that is not valid.
pub(crate) type Superblocks = [Option<Superblock>; 2];

pub(crate) fn generation(superblock: &Option<Superblock>) -> u64 {
    superblock.map_or(0, |s| s.generation.get())
}

/// Which of the two superblocks is the newer one.
pub(crate) fn newest(superblocks: &Superblocks) -> usize {
    usize::from(generation(&superblocks[1]) > generation(&superblocks[0]))
}

/// Which superblock is at this offset.
pub(crate) fn which(place: u64) -> usize {
    usize::from(place == SUPERBLOCK_B)
}

/// The superblock at this place of the file, if it holds.
fn superblock_at(mapping: &Mapping, place: u64) -> Result<Option<Superblock>> {
    let mut bytes = [0; size_of::<Superblock>()];
    mapping.read(Offset(place), &mut bytes)?;
    Ok(Superblock::read_from_bytes(&bytes).ok().filter(Superblock::holds))
}

/// How often a superblock that looks damaged is read, since it may just be written.
const TRIES: u32 = 3;

/// The superblock in force, and its place. It needs no lock: the superblock in force is never written over, and a word
/// names it. If the word stayed the same during the read, the superblock was in force, and is whole unless it is
/// damaged, or the reader was held up for two checkpoints: then the word is the same again, and a second look tells.
pub(crate) fn in_force(mapping: &Mapping) -> Result<(u64, Option<Superblock>)> {
    let mut tries = TRIES;
    loop {
        let place = mapping.live(live::SUPERBLOCK)?;
        let read = if let SUPERBLOCK_A | SUPERBLOCK_B = place { superblock_at(mapping, place)? } else { None };
        // Another one took its place meanwhile, which takes a flush; so this ends soon.
        if mapping.live(live::SUPERBLOCK)? == place {
            tries -= 1;
            if read.is_some() || tries == 0 {
                return Ok((place, read));
            }
        }
    }
}

/// [Inspects](inspect) a file that others may be writing to: between two reads, each of the superblocks may have been
/// the one that is being written.
pub(crate) fn inspect_in_use(file: &mut File, path: &Path) -> Result<Option<Superblocks>> {
    let mut inspected = inspect(file, path);
    for _ in 1..TRIES {
        if !matches!(inspected, Err(Error::Corrupt { .. })) {
            break;
        }
        inspected = inspect(file, path);
    }
    inspected
}

/// Looks at the superblocks, and refuses files that are not ours to touch. `None` if the file is empty, or was left by
/// a creation that did not end.
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
    // The mark is there until the second superblock takes its place; until the first one holds, there is no store.
    let first_page = &pages[..pages.len().min(BLOCK as usize)];
    if first_page.starts_with(&CREATION_MAGIC)
        && first_page[CREATION_MAGIC.len()..].iter().all(|&byte| byte == 0)
        && !found[1].as_ref().is_some_and(Superblock::holds)
    {
        return Ok(None);
    }
    let ours = || found.iter().flatten().filter(|superblock| superblock.magic == MAGIC);
    if ours().next().is_none() {
        return not_a_store("its first bytes are not those of one");
    }
    let valid = found.map(|superblock| superblock.filter(Superblock::holds));
    if valid.iter().all(Option::is_none) {
        // In another version, not even the place of the CRC is known. If one superblock holds, the file is of this
        // version; of the other, only the first bytes may have reached the disk, before older content.
        if let Some(other) = ours().find(|superblock| superblock.version.get() != VERSION) {
            let found = other.version.get();
            return Err(Error::UnsupportedVersion { path: path.to_owned(), found, supported: VERSION });
        }
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
    let sane = fields_are_sane(superblock);
    if sane { Ok(()) } else { Err(Error::corrupt(path, SUPERBLOCK_A, "the superblock contradicts itself")) }
}

/// The same for a superblock in use or yet to be written.
pub(crate) fn fields_are_sane(superblock: &Superblock) -> bool {
    let head = superblock.log_head();
    u64::from(superblock.block.get()) == BLOCK
        && (Offset::EXTENTS..Offset(MAX_FILE_LEN)).contains(&head)
        && head.is_aligned(8)
        && superblock.log_end() <= Offset(MAX_FILE_LEN)
        && superblock.log_end().is_aligned(8)
        && is_sane(superblock.head_seq())
        && is_sane(superblock.next_seq())
        && superblock.generation.get() < u64::MAX / 2
        && (1..u64::MAX / 2).contains(&superblock.head_ordinal.get())
        && superblock.next_seq() >= superblock.head_seq()
        && superblock.next_seq() > superblock.behind_seq()
}

/// Whether a store can have reached a sequence number.
pub(super) fn is_sane(seq: Seq) -> bool {
    seq.incarnation() > 0 && seq.count() <= MAX_COUNT
}

impl Superblock {
    /// The superblock of an empty store whose first commit will have the number `seq`.
    pub(crate) fn new_zeroed_for(seq: Seq, created: u64) -> Superblock {
        let mut superblock = <Superblock as zerocopy::FromZeros>::new_zeroed();
        superblock.magic = MAGIC;
        superblock.version = VERSION.into();
        superblock.block = (BLOCK as u32).into();
        superblock.log_head = EXTENTS.into();
        superblock.head_ordinal = 1.into();
        superblock.head_seq = seq.to_field();
        superblock.log_end = EXTENTS.into();
        superblock.next_seq = seq.to_field();
        superblock.created = created.into();
        superblock
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Other offsets derive from these, as that of a lock byte.
    #[test]
    fn a_log_beyond_the_longest_file_is_refused() {
        let sane = Superblock::new_zeroed_for(Seq::new(1, 1), 0);
        assert!(fields_are_sane(&sane));
        for beyond in [MAX_FILE_LEN + 8, 1 << 60, u64::MAX - 7] {
            assert!(!fields_are_sane(&Superblock { log_head: beyond.into(), ..sane }), "{beyond}");
            assert!(!fields_are_sane(&Superblock { log_end: beyond.into(), ..sane }), "{beyond}");
        }
    }
}
