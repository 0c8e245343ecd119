//! Marks: which keys this process has read, in a store that evicts what is not read.
//!
//! The marks in the [index](crate::file::index) are what all processes know. There are two to a line, so what is not
//! read is spared with what is. A process that has the store for itself goes by its own marks, which count how often a
//! key was read, up to three times: a key that is read often survives more turns (the clock algorithm with counters:
//! Smith, *Sequentiality and Prefetching in Database Systems*, 1978). They are hints, lost when it closes the store;
//! some keys share one.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::file::layout::{KeyHash, MapId};

/// Bits of a mark.
const BITS: u64 = 2;
/// How often a key was read, at most.
const MOST: u64 = (1 << BITS) - 1;
/// Marks in a word.
const IN_A_WORD: u64 = 64 / BITS;

/// There is a mark for so many bytes of the limit: entries are longer.
const BYTES_A_MARK: u64 = 64;
/// Words: half a KiB and 16 MiB.
const LEAST: u64 = 64;
const LARGEST: u64 = 2 << 20;

/// See the module.
pub(crate) struct Marks {
    words: Box<[AtomicU64]>,
}

impl Marks {
    /// For a store of at most `max_size` bytes.
    pub(crate) fn new(max_size: u64) -> Marks {
        let words = (max_size / BYTES_A_MARK / IN_A_WORD).clamp(LEAST, LARGEST);
        Marks { words: (0..words).map(|_| AtomicU64::new(0)).collect() }
    }

    /// The word with the mark of a key, and where in it.
    fn place(&self, map: MapId, hash: KeyHash) -> (&AtomicU64, u64) {
        let marks = self.words.len() as u64 * IN_A_WORD;
        let place = ((u128::from(hash.in_map(map)) * u128::from(marks)) >> 64) as u64;
        (&self.words[(place / IN_A_WORD) as usize], place % IN_A_WORD * BITS)
    }

    /// Notes that a key was read.
    pub(crate) fn note(&self, map: MapId, hash: KeyHash) {
        let (word, shift) = self.place(map, hash);
        let seen = word.load(Ordering::Relaxed);
        if seen >> shift & MOST < MOST {
            // If another thread comes in between, the mark is that of one read less.
            let _ = word.compare_exchange(seen, seen + (1 << shift), Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    /// Whether a key was read, one time of which is forgotten.
    pub(crate) fn take(&self, map: MapId, hash: KeyHash) -> bool {
        let (word, shift) = self.place(map, hash);
        let seen = word.load(Ordering::Relaxed);
        if seen >> shift & MOST == 0 {
            return false;
        }
        let _ = word.compare_exchange(seen, seen - (1 << shift), Ordering::Relaxed, Ordering::Relaxed);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_spared_as_often_as_it_was_read_and_at_most_three_times() {
        let marks = Marks::new(1 << 20);
        let hash = |number: u64| KeyHash::of(&number.to_le_bytes(), 7);
        for (number, reads) in [(1, 0), (2, 1), (3, 2), (4, 3), (5, 9)] {
            (0..reads).for_each(|_| marks.note(MapId(1), hash(number)));
            let spared = (0..9).take_while(|_| marks.take(MapId(1), hash(number))).count();
            assert_eq!(spared, reads.min(3), "read {reads} times");
        }
        marks.note(MapId(1), hash(6));
        assert!(!marks.take(MapId(2), hash(6)), "another map");
    }

    #[test]
    fn few_keys_share_a_mark() {
        let marks = Marks::new(1 << 24);
        let read = |number: u64| KeyHash::of(&number.to_le_bytes(), 3);
        // As many as there can be, with the shortest values, of which every second one is read.
        let keys = (1 << 24) / 128;
        (0..keys).step_by(2).for_each(|number| marks.note(MapId(1), read(number)));
        let wrong = (1..keys).step_by(2).filter(|&number| marks.take(MapId(1), read(number))).count() as u64;
        assert!(wrong * 4 < keys / 2, "{wrong} of {}", keys / 2);
    }
}
