//! Keys, values, and the model of a store's content: all derived from numbers, so that whatever a peer returns can be
//! compared with the expected value.

use std::fs;
use std::ops::Range;
use std::path::Path;

use anyhow::{Context, Result, ensure};

/// A key: two scrambled words.
pub(crate) type Key = [u8; 16];

/// Numbers from here on belong to keys that no store has.
const ABSENT: u64 = 1 << 40;
/// Numbers from here on belong to keys that are inserted only by a process before it is killed.
pub(crate) const EXTRA: u64 = 1 << 36;
/// The amount by which each word of a value exceeds the one before it.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
/// The largest part of the values that is made at once: about as much as stays in the processor's caches.
const CHUNK_BYTES: usize = 1 << 20;

/// Element `number` of a sequence of random 64-bit numbers (SplitMix64: Steele, Lea and Flood, 2014).
fn scrambled(number: u64) -> u64 {
    let z = number.wrapping_add(1).wrapping_mul(STEP);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The number whose scrambled word this is.
fn unscrambled(word: u64) -> u64 {
    let z = word ^ (word >> 31) ^ (word >> 62);
    let z = z.wrapping_mul(0x3196_42b2_d24d_8ec3);
    let z = (z ^ (z >> 27) ^ (z >> 54)).wrapping_mul(0x96de_1b17_3f11_9089);
    let z = z ^ (z >> 30) ^ (z >> 60);
    z.wrapping_mul(0xf1de_83e1_9937_733d).wrapping_sub(1)
}

/// The key of a number. Different numbers have different keys, in random order.
pub(crate) fn key(number: u64) -> Key {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&scrambled(number).to_le_bytes());
    key[8..].copy_from_slice(&scrambled(!number).to_le_bytes());
    key
}

/// The number of a key.
#[inline]
pub(crate) fn number_of(key: &[u8]) -> u64 {
    unscrambled(first_word(key))
}

/// Key `number` of those that no store has.
pub(crate) fn absent_key(number: u64) -> Key {
    key(ABSENT + number)
}

#[inline]
fn first_word(bytes: &[u8]) -> u64 {
    bytes.first_chunk().map_or(0, |word| u64::from_le_bytes(*word))
}

/// The start of the words of a value.
fn token(number: u64, version: u32) -> u64 {
    scrambled(number ^ (u64::from(version) << 44))
}

/// Writes the value of a key in that version.
pub(crate) fn write_value(number: u64, version: u32, value: &mut [u8]) {
    let mut word = token(number, version);
    for place in value.chunks_mut(8) {
        place.copy_from_slice(&word.to_le_bytes()[..place.len()]);
        word = word.wrapping_add(STEP);
    }
}

/// The sum over all words of a value: every byte of it is read.
#[inline]
pub(crate) fn checksum(value: &[u8]) -> u64 {
    let (words, tail) = value.as_chunks::<8>();
    let sum = words.iter().fold(0, |sum: u64, word| sum.wrapping_add(u64::from_le_bytes(*word)));
    let mut last = [0; 8];
    last[..tail.len()].copy_from_slice(tail);
    sum.wrapping_add(u64::from_le_bytes(last))
}

/// The checksum of the value of a key in that version, without making the value.
pub(crate) fn expected(number: u64, version: u32, len: usize) -> u64 {
    let (token, words) = (token(number, version), (len / 8) as u64);
    let steps = (u128::from(words) * u128::from(words.saturating_sub(1)) / 2) as u64;
    let whole = token.wrapping_mul(words).wrapping_add(STEP.wrapping_mul(steps));
    let mut last = token.wrapping_add(STEP.wrapping_mul(words)).to_le_bytes();
    last[len % 8..].fill(0);
    whole.wrapping_add(u64::from_le_bytes(last))
}

/// The sums of values read one after the other, in their order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reading {
    sum: u64,
    found: u64,
}

impl Reading {
    #[inline]
    pub(crate) fn add(&mut self, sum: u64) {
        self.sum = self.sum.rotate_left(5) ^ sum;
        self.found += 1;
    }

    #[inline]
    pub(crate) fn value(&mut self, value: &[u8]) {
        self.add(checksum(value));
    }
}

/// The sums of entries read in any order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Contents {
    sum: u64,
    found: u64,
}

impl Contents {
    #[inline]
    pub(crate) fn entry(&mut self, key: &[u8], value: &[u8]) {
        self.add(first_word(key), checksum(value));
    }

    #[inline]
    fn add(&mut self, key: u64, sum: u64) {
        self.sum = self.sum.wrapping_add((key | 1).wrapping_mul(sum | 1));
        self.found += 1;
    }

    pub(crate) fn found(&self) -> u64 {
        self.found
    }
}

/// Keys with their values, made before the clock runs.
pub(crate) struct Batch {
    keys: Vec<Key>,
    values: Vec<u8>,
    value_len: usize,
}

impl Batch {
    /// The keys of these numbers, with their values in these versions.
    pub(crate) fn new(entries: impl IntoIterator<Item = (u64, u32)>, value_len: usize) -> Batch {
        let mut batch = Batch { keys: Vec::new(), values: Vec::new(), value_len };
        for (number, version) in entries {
            batch.keys.push(key(number));
            let at = batch.values.len();
            batch.values.resize(at + value_len, 0);
            write_value(number, version, &mut batch.values[at..]);
        }
        batch
    }

    pub(crate) fn len(&self) -> usize {
        self.keys.len()
    }

    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = (&Key, &[u8])> {
        self.keys.iter().zip(self.values.chunks_exact(self.value_len))
    }
}

/// How many operations on values of that length are prepared at once.
pub(crate) fn chunk(value_len: usize) -> usize {
    (CHUNK_BYTES / value_len).clamp(16, 4096)
}

/// `range` in pieces of at most `len`.
pub(crate) fn pieces(range: Range<u64>, len: usize) -> impl Iterator<Item = Range<u64>> {
    let end = range.end;
    range.step_by(len).map(move |start| start..end.min(start + len as u64))
}

/// All numbers below `count`, each once, in random order: a Feistel network on the next larger square, which is walked
/// until it comes back into the range.
pub(crate) struct Shuffle {
    count: u64,
    half: u32,
    seed: u64,
}

impl Shuffle {
    pub(crate) fn new(count: u64, seed: u64) -> Shuffle {
        let bits = u64::BITS - count.max(2).saturating_sub(1).leading_zeros();
        Shuffle { count, half: bits.div_ceil(2), seed }
    }

    /// The `at`th of them.
    pub(crate) fn at(&self, at: u64) -> u64 {
        assert!(at < self.count, "the {at}th of {}", self.count);
        let mask = (1 << self.half) - 1;
        let mut number = at;
        loop {
            for round in 0..4 {
                let (high, low) = (number >> self.half, number & mask);
                let mixed = scrambled(low ^ (self.seed << 32) ^ (round << 60)) & mask;
                number = (low << self.half) | (high ^ mixed);
            }
            if number < self.count {
                return number;
            }
        }
    }
}

/// The expected content of a store: the version of each key's value, and zero where it has none.
pub(crate) struct Model {
    versions: Vec<u32>,
    value_len: usize,
}

impl Model {
    /// All keys in their first version.
    pub(crate) fn loaded(keys: u64, value_len: usize) -> Model {
        Model { versions: vec![1; keys as usize], value_len }
    }

    pub(crate) fn read(path: &Path, value_len: usize) -> Result<Model> {
        let bytes = fs::read(path).with_context(|| format!("{}", path.display()))?;
        let (words, tail) = bytes.as_chunks::<4>();
        ensure!(tail.is_empty(), "{} is torn", path.display());
        Ok(Model { versions: words.iter().map(|word| u32::from_le_bytes(*word)).collect(), value_len })
    }

    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        let bytes: Vec<u8> = self.versions.iter().flat_map(|version| version.to_le_bytes()).collect();
        fs::write(path, bytes).with_context(|| format!("{}", path.display()))
    }

    pub(crate) fn keys(&self) -> u64 {
        self.versions.len() as u64
    }

    /// The next version of a key, which it has from now on.
    pub(crate) fn next(&mut self, number: u64) -> (u64, u32) {
        let version = &mut self.versions[number as usize];
        *version += 1;
        (number, *version)
    }

    /// The key has no value from now on.
    pub(crate) fn remove(&mut self, number: u64) {
        self.versions[number as usize] = 0;
    }

    /// A number with the version of its value, if it has one.
    pub(crate) fn entry(&self, number: u64) -> Option<(u64, u32)> {
        Some((number, self.versions[number as usize])).filter(|(_, version)| *version > 0)
    }

    /// Adds the expected value of a key to a reading.
    pub(crate) fn expect(&self, number: u64, reading: &mut Reading) {
        if let Some((number, version)) = self.entry(number) {
            reading.add(expected(number, version, self.value_len));
        }
    }

    /// The expected result of reading these keys in turn.
    pub(crate) fn reading(&self, numbers: impl IntoIterator<Item = u64>) -> Reading {
        let mut reading = Reading::default();
        numbers.into_iter().for_each(|number| self.expect(number, &mut reading));
        reading
    }

    /// The expected result of reading all entries.
    pub(crate) fn contents(&self) -> Contents {
        let mut contents = Contents::default();
        for (number, version) in (0..self.keys()).filter_map(|number| self.entry(number)) {
            contents.add(scrambled(number), expected(number, version, self.value_len));
        }
        contents
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_comes_back_from_its_key() {
        for number in (0..1000).chain(ABSENT..ABSENT + 10).chain([u64::MAX]) {
            assert_eq!(number_of(&key(number)), number);
        }
    }

    #[test]
    fn the_expected_sum_is_that_of_the_value() {
        for len in [8, 9, 100, 1024, 65536] {
            let mut value = vec![0; len];
            write_value(7, 3, &mut value);
            assert_eq!(checksum(&value), expected(7, 3, len), "{len}");
            assert_ne!(checksum(&value), expected(7, 2, len), "{len}");
            assert_ne!(checksum(&value), expected(8, 3, len), "{len}");
        }
    }

    #[test]
    fn a_shuffle_has_each_number_once() {
        for count in [1, 2, 3, 1000, 4097] {
            let shuffle = Shuffle::new(count, 5);
            let mut numbers: Vec<u64> = (0..count).map(|at| shuffle.at(at)).collect();
            assert!(count < 1000 || !numbers.is_sorted());
            numbers.sort_unstable();
            assert!(numbers.into_iter().eq(0..count), "{count}");
        }
    }

    #[test]
    fn a_reading_notices_what_is_missing_wrong_or_out_of_order() {
        let model = Model::loaded(10, 100);
        let whole = model.reading(0..10);
        assert_ne!(model.reading(0..9), whole);
        assert_ne!(model.reading([1, 0, 2, 3, 4, 5, 6, 7, 8, 9]), whole);
        let mut changed = Model::loaded(10, 100);
        changed.next(9);
        assert_ne!(changed.reading(0..10), whole);
        assert_ne!(changed.contents(), model.contents());
        changed.remove(9);
        assert_eq!(changed.contents().found(), 9);
    }
}
