//! What a power cut leaves of the file of a store: what was flushed, and nothing else.

use std::fs;
use std::path::Path;

use slotlog::format::live;

/// Offset of the field `next_seq` in a superblock, of which there are two.
const NEXT_SEQ: usize = 96;
const SUPERBLOCKS: [usize; 2] = [0, 4096];
/// Offsets in the header of a record.
const KIND: usize = 14;
const SEQ: usize = 16;
const HEADER: usize = 32;
/// Where the live area ends, and records and indexes begin.
const LOG: usize = 64 << 10;

fn word(file: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(file[at..at + 8].try_into().unwrap())
}

/// The numbers of the last commit that is known to be flushed, and of the last one at all.
pub fn commits(file: &[u8]) -> (u64, u64) {
    let before_checkpoint = SUPERBLOCKS.iter().map(|at| word(file, at + NEXT_SEQ).saturating_sub(1)).max().unwrap();
    (word(file, live::SYNCED as usize).max(before_checkpoint), word(file, live::VISIBLE as usize))
}

/// Makes of a file what a power cut leaves of it if no commit after `last` has reached the disk. Returns how many
/// records are lost.
pub fn cut_after(file: &mut [u8], last: u64) -> usize {
    // One more may have been on its way.
    let end = commits(file).1 + 1;
    // After a power cut this is that of another life of the system, and not believed.
    file[live::COMMIT_POINT as usize..LOG].fill(0);
    let mut lost = 0;
    for at in (LOG..file.len() - HEADER).step_by(8) {
        // What is no record but looks like one is part of an index, and rebuilt.
        if (last + 1..=end).contains(&word(file, at + SEQ)) && (1..=5).contains(&file[at + KIND]) {
            file[at..at + HEADER].fill(0);
            lost += 1;
        }
    }
    lost
}

/// Puts in the place of a store that was killed what a power cut at that moment could have left: what was flushed, and
/// nothing else. Returns how many records were lost.
pub fn cut(path: &Path) -> usize {
    let mut file = fs::read(path).unwrap();
    let (flushed, _) = commits(&file);
    let lost = cut_after(&mut file, flushed);
    // A new file: the store must not take it for the one in the page cache.
    let cut = path.with_extension("cut");
    fs::write(&cut, file).unwrap();
    fs::rename(&cut, path).unwrap();
    lost
}
