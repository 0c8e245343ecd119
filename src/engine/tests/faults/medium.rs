//! A disk with a page cache, as far as a store can tell: its possible contents after a power cut.
//!
//! The medium is a [witness](crate::file::witness). It keeps the content of the file as the system shows it (the page
//! cache), the part that is certainly on the disk, and for each sector of 512 bytes the ordered stores since the last
//! flush that covered it, in pieces of at most 8 bytes. When the power is cut, each sector independently has the first
//! k of its pending stores, for any k. A flush that returns makes the sectors of its range durable; one that fails
//! forgets what was pending, since the system then takes the pages for written.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Version;
use super::support::Random;
use crate::file::layout::{BLOCK, EXTENTS, LIVE, MAGIC, SUPERBLOCK_A, SUPERBLOCK_B, live};
use crate::file::witness::Recorder;

/// The unit that a disk writes whole or not at all.
const SECTOR: u64 = 512;

/// Images taken of a sampled generation, by default.
pub(super) const MOST_IMAGES: usize = 24;

/// A piece of a store within one sector: its place there, and its bytes.
#[derive(Clone, Copy)]
struct Piece {
    at: u16,
    len: u8,
    bytes: [u8; 8],
}

impl Piece {
    fn apply(&self, sector: &mut [u8]) {
        let (at, len) = (usize::from(self.at), usize::from(self.len));
        // The file may end within the sector.
        if let Some(place) = sector.get_mut(at..at + len) {
            place.copy_from_slice(&self.bytes[..len]);
        }
    }
}

/// A possible content of the disk after a cut, and what its recovery may yield.
pub(super) struct Image {
    pub(super) bytes: Vec<u8>,
    /// The sectors that were ever written.
    written: Vec<bool>,
    /// The contents that are right, the oldest first.
    pub(super) accepted: Vec<Arc<Version>>,
    /// When and how the power was cut.
    pub(super) cut: String,
}

/// When the power is cut.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Cuts {
    /// Now and then, in all kinds of ways.
    Sampled,
    /// Before each flush, in all ways in which the pending sectors can have reached the disk. Larger windows are taken
    /// in coarser pieces.
    Exhaustive,
}

/// Runs during a flush.
type During = Arc<dyn Fn() + Send + Sync>;

pub(super) struct State {
    /// The file as the system shows it.
    pub(super) cache: Vec<u8>,
    /// The part of it that is on the disk.
    durable: Vec<u8>,
    /// The sectors of it that were ever written.
    written: Vec<bool>,
    pending: BTreeMap<u64, Vec<Piece>>,
    random: Random,
    pub(super) cuts: Cuts,
    pub(super) images: Vec<Image>,
    /// The most images, if they are sampled.
    pub(super) most_images: usize,
    /// How many random ones could have been taken.
    moments: u64,
    /// The contents after each commit that began; a cut may return to the first.
    pub(super) contents: Vec<Arc<Version>>,
    /// How many of them a cut can no longer undo.
    pub(super) durable_commits: usize,
    /// The process dies after this many more stores.
    pub(super) dies_in: Option<u64>,
    /// The process is dead: what it does has no effect any more.
    pub(super) dead: bool,
    /// The next flush fails.
    pub(super) flush_fails: bool,
    /// A flush has failed, and the failure was reported.
    pub(super) flush_failed: bool,
    during: Option<During>,
}

pub(super) struct Medium(Mutex<State>);

impl Image {
    /// The disk of a new store: `mark`, and nothing else.
    pub(super) fn blank(mark: Vec<u8>) -> Image {
        let written = vec![true; mark.len() / SECTOR as usize];
        Image { bytes: mark, written, accepted: vec![Arc::default()], cut: "before everything".into() }
    }
}

fn note(written: &mut Vec<bool>, sector: u64) {
    let sector = sector as usize;
    written.resize(written.len().max(sector + 1), false);
    written[sector] = true;
}

impl Medium {
    /// The disk of an image. Its contents are those that the image may yield.
    pub(super) fn of_image(image: &Image, cuts: Cuts, seed: u64) -> Arc<Medium> {
        Arc::new(Medium(Mutex::new(State {
            cache: image.bytes.clone(),
            durable: image.bytes.clone(),
            written: image.written.clone(),
            pending: BTreeMap::new(),
            random: Random(seed),
            cuts,
            images: Vec::new(),
            most_images: MOST_IMAGES,
            moments: 0,
            contents: image.accepted.clone(),
            durable_commits: 0,
            dies_in: None,
            dead: false,
            flush_fails: false,
            flush_failed: false,
            during: None,
        })))
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets what others do during the next flush.
    pub(super) fn during_next_flush(&self, during: impl Fn() + Send + Sync + 'static) {
        self.state().during = Some(Arc::new(during));
    }

    /// Cuts the power now.
    pub(super) fn cut_now(&self) {
        let mut state = self.state();
        match state.cuts {
            Cuts::Sampled => state.sample("at the end"),
            Cuts::Exhaustive => state.enumerate("at the end"),
        }
    }
}

impl State {
    fn change(&mut self, offset: u64, bytes: &[u8]) {
        if self.dies_in == Some(0) {
            self.dead = true;
            self.dies_in = None;
        }
        if self.dead {
            return;
        }
        self.dies_in = self.dies_in.map(|left| left - 1);
        if self.cuts == Cuts::Sampled && self.random.one_in(10) {
            self.sample("before a store");
        }
        let end = offset as usize + bytes.len();
        self.cache[offset as usize..end].copy_from_slice(bytes);
        let mut rest = bytes;
        let mut at = offset;
        while !rest.is_empty() {
            let (sector, within) = (at / SECTOR, at % SECTOR);
            let pieces = self.pending.entry(sector).or_default();
            let mut within = within;
            while !rest.is_empty() && within < SECTOR {
                let len = (rest.len() as u64).min(8 - within % 8);
                let mut piece = Piece { at: within as u16, len: len as u8, bytes: [0; 8] };
                piece.bytes[..len as usize].copy_from_slice(&rest[..len as usize]);
                pieces.push(piece);
                rest = &rest[len as usize..];
                within += len;
                at += len;
            }
        }
    }

    /// The number of pending stores of each sector of a range.
    fn begin_flush(&mut self, offset: u64, len: u64) -> Vec<(u64, usize)> {
        let (first, end) = (offset / SECTOR, (offset + len).div_ceil(SECTOR));
        self.pending.range(first..end).map(|(&sector, pieces)| (sector, pieces.len())).collect()
    }

    fn end_flush(&mut self, end: u64, begun: Vec<(u64, usize)>, failed: bool) {
        // The length of a file is a multiple of blocks, and reaches the disk with the data at its end.
        let len = (end.next_multiple_of(BLOCK) as usize).min(self.cache.len());
        if !failed && self.durable.len() < len {
            self.durable.resize(len, 0);
        }
        for (sector, count) in begun {
            let Some(pieces) = self.pending.get_mut(&sector) else { continue };
            // Part of a failed flush may have succeeded.
            let keeps = if failed { self.random.one_in(2) } else { true };
            let done: Vec<Piece> = pieces.drain(..count.min(pieces.len())).collect();
            if pieces.is_empty() {
                self.pending.remove(&sector);
            }
            if keeps {
                apply(&mut self.durable, sector, &done);
                note(&mut self.written, sector);
            }
        }
    }

    /// The disk at the last flush, with one of the possible file lengths.
    fn base(&mut self) -> Vec<u8> {
        let (old, new) = (self.durable.len(), self.cache.len());
        let (least, most) = (old.min(new), old.max(new));
        let len = match self.random.below(4) {
            0 => old,
            1 => least + (self.random.below((most - least) as u64 / BLOCK + 1) * BLOCK) as usize,
            _ => new,
        };
        let mut bytes = self.durable.clone();
        bytes.resize(len, 0);
        bytes
    }

    fn take(&mut self, mut bytes: Vec<u8>, written: Vec<bool>, cut: String) {
        // After a reboot the system has a boot id it never had before.
        let boot = live::IDENTITY as usize;
        if let Some(word) = bytes.get_mut(boot..boot + 8) {
            word.copy_from_slice(&self.random.next().to_le_bytes());
        }
        let accepted = self.contents[self.durable_commits..].to_vec();
        self.images.push(Image { bytes, written, accepted, cut });
    }

    /// Takes one random image. Of all possible ones only some are kept, each with the same probability (reservoir
    /// sampling: Vitter, 1985).
    fn sample(&mut self, moment: &str) {
        self.moments += 1;
        if self.images.len() >= self.most_images {
            let index = self.random.below(self.moments) as usize;
            if index >= self.most_images {
                return;
            }
            self.images.swap_remove(index);
        }
        let mut bytes = self.base();
        let mut written = self.written.clone();
        let pending = std::mem::take(&mut self.pending);
        let way = self.random.below(9);
        let random = &mut self.random;
        let pages: BTreeMap<u64, bool> =
            pending.keys().map(|sector| (sector * SECTOR / BLOCK, random.one_in(2))).collect();
        let few: Vec<u64> = (0..3).map(|_| random.below(pending.len() as u64 + 1)).collect();
        let name = match way {
            0 => "all",
            1 => "nothing",
            2 | 3 => "some of each sector",
            4 => "whole sectors",
            5 => "all but few",
            6 => "few",
            7 => "whole pages",
            _ => "hostile",
        };
        for (number, (&sector, pieces)) in pending.iter().enumerate() {
            let chosen = few.contains(&(number as u64));
            let n = pieces.len();
            let some = random.below(n as u64 + 1) as usize;
            let whole = if random.one_in(2) { n } else { 0 };
            let k = match way {
                0 => n,
                1 => 0,
                2 | 3 => some,
                4 => whole,
                5 | 6 if chosen => some,
                5 => n,
                6 => 0,
                7 if pages[&(sector * SECTOR / BLOCK)] => n,
                7 => 0,
                _ => {
                    // Sectors without anything of value may hold anything.
                    let worthless = is_worthless(&self.durable, &self.written, sector);
                    match random.below(3) {
                        0 if worthless => {
                            fill(&mut bytes, sector, |_| 0);
                            continue;
                        }
                        1 if worthless => {
                            fill(&mut bytes, sector, |place| (place as u8).wrapping_mul(37) ^ some as u8);
                            continue;
                        }
                        _ => whole,
                    }
                }
            };
            apply(&mut bytes, sector, &pieces[..k]);
            if k > 0 {
                note(&mut written, sector);
            }
        }
        self.pending = pending;
        self.take(bytes, written, format!("{moment}: {name}"));
    }

    /// Takes images of all ways in which the pending sectors can have reached the disk.
    fn enumerate(&mut self, moment: &str) {
        const MOST: usize = 1 << 10;
        // The live area is never believed, so it is one piece.
        let mut groups: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
        let coarse = self.pending.len() > 40;
        for &sector in self.pending.keys() {
            let at = sector * SECTOR;
            let group = match at {
                LIVE..EXTENTS => LIVE / SECTOR,
                EXTENTS.. if coarse => at / BLOCK * BLOCK / SECTOR,
                _ => sector,
            };
            groups.entry(group).or_default().push(sector);
        }
        let mut groups: Vec<Vec<u64>> = groups.into_values().collect();
        while groups.len() > 10 {
            let last = groups.pop().unwrap_or_default();
            let index = groups.len() - 1;
            groups[index].extend(last);
        }
        // Each store of a sector separately as long as possible, else all or nothing.
        let steps = |group: &Vec<u64>| if let [sector] = group[..] { self.pending[&sector].len() } else { 1 };
        let mut ways: Vec<usize> = groups.iter().map(|group| steps(group) + 1).collect();
        while ways.iter().product::<usize>() > MOST {
            let longest = (0..ways.len()).max_by_key(|&index| ways[index]).unwrap_or(0);
            ways[longest] = 2;
        }
        let mut choice = vec![0; ways.len()];
        loop {
            let mut bytes = self.durable.clone();
            bytes.resize(self.cache.len(), 0);
            for (index, group) in groups.iter().enumerate() {
                for sector in group {
                    let pieces = &self.pending[sector];
                    let all = choice[index] + 1 == ways[index];
                    let k = if all { pieces.len() } else { choice[index] };
                    apply(&mut bytes, *sector, &pieces[..k.min(pieces.len())]);
                }
            }
            self.take(bytes, self.written.clone(), format!("{moment}: {choice:?} of {ways:?}"));
            let Some(index) = (0..ways.len()).find(|&index| choice[index] + 1 < ways[index]) else { break };
            choice[..index].fill(0);
            choice[index] += 1;
        }
    }
}

fn sector_of(bytes: &mut [u8], sector: u64) -> &mut [u8] {
    let len = bytes.len();
    let start = ((sector * SECTOR) as usize).min(len);
    &mut bytes[start..(start + SECTOR as usize).min(len)]
}

fn apply(bytes: &mut [u8], sector: u64, pieces: &[Piece]) {
    let sector = sector_of(bytes, sector);
    pieces.iter().for_each(|piece| piece.apply(sector));
}

fn fill(bytes: &mut [u8], sector: u64, byte: impl Fn(usize) -> u8) {
    sector_of(bytes, sector).iter_mut().enumerate().for_each(|(place, to)| *to = byte(place));
}

/// Whether the disk may hold junk in this sector without loss: it was never written, or is in the live area, or is a
/// superblock that is being written.
fn is_worthless(durable: &[u8], written: &[bool], sector: u64) -> bool {
    let at = sector * SECTOR;
    match at {
        LIVE..EXTENTS => true,
        // At most one is being written, and the other counts. In the place of A there is a mark until B counts.
        SUPERBLOCK_B => true,
        SUPERBLOCK_A => durable.get(SUPERBLOCK_B as usize..).is_some_and(|bytes| bytes.starts_with(&MAGIC)),
        _ => !written.get(sector as usize).is_some_and(|&written| written),
    }
}

impl Recorder for Medium {
    fn write(&self, offset: u64, bytes: &[u8]) {
        self.state().change(offset, bytes);
    }

    fn store(&self, offset: u64, value: u64) {
        self.state().change(offset, &value.to_le_bytes());
    }

    fn flush(&self, offset: u64, len: u64) -> io::Result<()> {
        let (begun, during) = {
            let mut state = self.state();
            if state.dead {
                return Ok(());
            }
            if state.cuts == Cuts::Exhaustive {
                state.enumerate("before a flush");
            } else if state.cuts == Cuts::Sampled && state.random.one_in(2) {
                state.sample("before a flush");
            }
            (state.begin_flush(offset, len), state.during.take())
        };
        if let Some(during) = during {
            during();
        }
        let mut state = self.state();
        if state.dead {
            return Ok(());
        }
        if state.cuts == Cuts::Sampled && state.random.one_in(4) {
            state.sample("inside a flush");
        }
        let failed = std::mem::take(&mut state.flush_fails);
        state.flush_failed |= failed;
        state.end_flush(offset + len, begun, failed);
        if state.cuts == Cuts::Sampled && state.random.one_in(4) {
            state.sample("after a flush");
        }
        if failed { Err(io::Error::other("the disk is broken, says the test")) } else { Ok(()) }
    }

    fn set_len(&self, len: u64) {
        let mut state = self.state();
        if !state.dead {
            let shorter = (len as usize) < state.cache.len();
            state.cache.resize(len as usize, 0);
            if shorter {
                // Pending stores there are lost. The content of the disk stays until the length is flushed.
                state.pending.split_off(&len.div_ceil(SECTOR));
                if state.random.one_in(2) {
                    state.durable.truncate(len as usize);
                    state.written.truncate((len / SECTOR) as usize);
                }
            }
        }
    }
}
