//! A log of forged records, with valid CRCs and a valid chain.
//!
//! A recovery believes the log. Whatever it contains, the result is an error, or a store that is clean, stays so, and
//! is the same however it is opened. Only forged entries of the catalogue, and forged marks of damage, are not
//! corrected by a recovery, but verify sees them.
//!
//! An input: two bytes of a head (the bits [`options`](bits), and the number of the record where the last checkpoint
//! ended), then a record for each 16 bytes:
//!
//! | byte | what |
//! | --- | --- |
//! | 0 | kind |
//! | 1 | flags |
//! | 2 | the key |
//! | 3 | what is odd about the record: see [`odd`] |
//! | 4..8 | length of the value |
//! | 8..10 | how much larger the sequence number is than the last one |
//! | 10..12 | map |
//! | 12 | the record that it replaces: how many records before it |
//! | 13 | block that a jump leads to |
//! | 14 | by how much the incarnation is raised |
//! | 15 | what the value consists of |
#![no_main]

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use slotlog::format::{
    BLOCK, COUNT_BITS, EXTENTS, Kind, MapId, RECORD_HEADER, RecordHeader, SUPERBLOCK_A, SUPERBLOCK_B, Superblock,
    align8, flags,
};
use slotlog::{Access, Opened, Store};
use slotlog_fuzz::image::{ORIGINALS, PATH, State, key, newest, put};
use slotlog_fuzz::uses::{Used, apply, not_damaged, verify};
use slotlog_fuzz::{head, instructions, scratch};
use zerocopy::IntoBytes;

/// Bits of the first byte.
mod bits {
    pub const VERIFY_READS: u8 = 1;
    pub const NOT_READ: u8 = 2;
    pub const NOT_ASIDE: u8 = 4;
    /// The last checkpoint ended at the record in the second byte, and not at the beginning of the log.
    pub const END: u8 = 8;
    /// The size of the store is limited, so that little is left.
    pub const LIMIT: u8 = 16;
}

/// Bits of the fourth byte of a record.
mod odd {
    pub const CRC: u8 = 1;
    pub const CHAIN: u8 = 2;
    /// The value has fewer bytes than it should.
    pub const SHORT: u8 = 4;
    /// The sequence number is smaller by that amount.
    pub const BACK: u8 = 8;
    /// A jump leads to eight bytes past the start of the block.
    pub const UNALIGNED: u8 = 16;
    /// The length of the key is the number of the map.
    pub const KEY_LEN: u8 = 32;
    /// The offset of the replaced record is wrong.
    pub const PREV: u8 = 64;
}

/// Blocks of the image after the fixed part.
const BLOCKS: u64 = 40;

/// Writes a log, and keeps the places of its records.
struct Forge {
    image: Vec<u8>,
    at: u64,
    chain: u32,
    seq: u64,
    offsets: Vec<u64>,
}

impl Forge {
    fn add(&mut self, record: &[u8; 16]) {
        let [kind, flags, key_number, odd, ..] = *record;
        let [.., prev, block, incarnations, fill] = *record;
        let half = |at: usize| u16::from_le_bytes([record[at], record[at + 1]]);
        let is = |bit| odd & bit != 0;
        let kind = kind % 7;
        let by = u64::from(half(8)) + (u64::from(incarnations % 4) << COUNT_BITS);
        let seq = if is(odd::BACK) { self.seq.wrapping_sub(by) } else { self.seq.wrapping_add(by) };
        let mut key = key(key_number);
        if is(odd::KEY_LEN) {
            key.resize(usize::from(half(10)), key_number);
        }
        let value_len = u32::from_le_bytes(record[4..8].try_into().unwrap());
        let there = if is(odd::SHORT) { value_len % 64 } else { value_len % (20 * BLOCK as u32) };
        let target = EXTENTS + u64::from(block) % (BLOCKS + 1) * BLOCK + if is(odd::UNALIGNED) { 8 } else { 0 };
        let (key, value) = match Kind::from_u8(kind) {
            Some(Kind::Jump | Kind::Clear) if !is(odd::SHORT) => (Vec::new(), target.to_le_bytes().to_vec()),
            _ => (key, vec![fill; there as usize]),
        };
        let before = self.offsets.len().checked_sub(usize::from(prev)).and_then(|at| self.offsets.get(at));
        let prev = if is(odd::PREV) { u64::from(prev) * 512 } else { before.copied().unwrap_or(0) };
        let header = RecordHeader {
            crc: 0.into(),
            chain: if is(odd::CHAIN) { 1 } else { self.chain }.into(),
            value_len: if is(odd::SHORT) { value_len } else { value.len() as u32 }.into(),
            key_len: (key.len() as u16).into(),
            kind,
            flags,
            seq: seq.into(),
            prev_and_map: RecordHeader::pack_prev_and_map(prev, MapId(u32::from(half(10)))),
        };
        let mut bytes = header.as_bytes().to_vec();
        bytes.resize((RECORD_HEADER + header.optional_len()) as usize, fill);
        bytes.extend(&key);
        bytes.resize(header.value_start() as usize, 0);
        bytes.extend(&value);
        bytes.resize(align8(bytes.len() as u64) as usize, 0);
        if bytes.len() as u64 > (self.image.len() as u64).saturating_sub(self.at) {
            return;
        }
        put(&mut self.image, self.at, &bytes);
        // A record shorter than it claims continues with the bytes after it.
        let len = header.record_len().min(self.image.len() as u64 - self.at) as usize;
        let crc = crc32fast::hash(&self.image[self.at as usize..][4..len]) ^ u32::from(is(odd::CRC));
        put(&mut self.image, self.at, &crc.to_le_bytes());
        self.offsets.push(self.at);
        (self.chain, self.seq) = (crc, seq);
        self.at = if kind == Kind::Jump as u8 { target.min(self.image.len() as u64) } else { self.at + len as u64 };
    }
}

/// The image of a store with the log that an input describes.
fn forge(bits: u8, checkpoint: u8, records: &[u8]) -> Vec<u8> {
    let mut image = ORIGINALS[1].image(State::Cut);
    let superblock = newest(&image);
    image.truncate(EXTENTS as usize);
    image.resize((EXTENTS + BLOCKS * BLOCK) as usize, 0);
    let mut forge = Forge { image, at: EXTENTS, chain: 0, seq: superblock.next_seq.get() - 1, offsets: Vec::new() };
    instructions(records).take(64).for_each(|record| forge.add(record));
    let end = forge.offsets.get(usize::from(checkpoint)).filter(|_| bits & bits::END != 0).copied();
    let superblock = Superblock {
        log_head: EXTENTS.into(),
        head_seq: superblock.next_seq,
        head_chain: 0.into(),
        log_end: end.unwrap_or(EXTENTS).into(),
        flags: 0.into(),
        ..superblock
    };
    let mut image = forge.image;
    for at in [SUPERBLOCK_A, SUPERBLOCK_B] {
        put(&mut image, at, superblock.sealed().as_bytes());
    }
    image
}

/// The content of the default map, and how many of its entries are damaged.
fn content(store: &Store) -> (BTreeMap<Vec<u8>, Vec<u8>>, usize) {
    let snapshot = store.snapshot().unwrap();
    let (entries, damaged): (Vec<_>, Vec<_>) = snapshot.iter().partition(|entry| entry.is_ok());
    let entries = entries.into_iter().flatten().map(|(key, value)| (key.to_vec(), value.to_vec()));
    (entries.collect(), damaged.len())
}

fuzz_target!(|input: &[u8]| {
    let Some(([bits, checkpoint], records)) = head::<2>(input) else { return };
    let image = forge(bits, checkpoint, records);
    scratch::write(&PATH, &image);
    let open = |access| {
        let options = Store::options().access(access).lock_timeout(Duration::from_millis(50));
        let max_size = if bits & bits::LIMIT != 0 { image.len() as u64 + 4 * BLOCK } else { 16 << 20 };
        options.max_size(max_size).verify_reads(bits & bits::VERIFY_READS != 0).open(&*PATH)
    };
    let uncorrected = instructions::<16>(records).any(|record| {
        let catalogue = record[10..12] == [0, 0] && matches!(record[0] % 7, 1 | 2);
        catalogue || record[1] & flags::DAMAGED != 0
    });
    let check = |store: &Store, when: &str| {
        let clean = verify(store, true);
        assert!(clean || uncorrected, "{when}: {:#?}", store.verify());
        clean
    };
    let mut seen = Vec::new();
    for (skip, access) in [(bits::NOT_READ, Access::ReadOnly), (bits::NOT_ASIDE, Access::CopyOnWrite)] {
        if bits & skip != 0 {
            continue;
        }
        if let Ok(store) = open(access) {
            check(&store, "recovered aside");
            for number in 0..255 {
                let _ = store.get(key(number));
            }
            seen.push(content(&store));
            let _ = store.stats();
        }
        assert!(fs::read(&*PATH).unwrap() == image, "an opening for {access:?} has changed the file");
    }
    let Ok(store) = open(Access::ReadWrite) else { return };
    assert!(matches!(store.opened(), Opened::AfterPowerCut { .. }), "{:?}", store.opened());
    let clean = check(&store, "recovered");
    let (_, damaged) = content(&store);
    assert!(damaged == 0 || !clean, "verify overlooks {damaged} damaged entries");
    // Deadlines pass at different times, but none of them during the check.
    assert!(seen.iter().all(|seen| *seen == content(&store)), "another opening had another content");
    let mut used = Used { expiring: true };
    // The records also serve as the program that works on the result.
    for step in instructions(records).take(24) {
        if let Err(error) = apply(&store, &mut used, *step)
            && clean
        {
            not_damaged(&error);
        }
    }
    assert!(check(&store, "worked on") || !clean, "clean no more: {:#?}", store.verify());
    if let Err(error) = store.close() {
        assert!(!clean, "it could not be closed: {error}");
        return;
    }
    let store = open(Access::ReadWrite).unwrap();
    assert!(check(&store, "closed") || !clean, "clean no more: {:#?}", store.verify());
});
