//! Counters that survive a kill: two banks of words, the first of each the sequence number it was counted at.
//!
//! A commit writes the bank that does not count: its number to zero, the totals, then its new number. A kill in between
//! leaves the other bank counting, and the process that finishes the commit sees by the number whether it was done. For
//! readers this is a seqlock (Boehm, *Can Seqlocks Get Along With Programming Language Memory Models?*, 2012).

use std::sync::atomic::{Ordering, fence};

use super::mapping::{Mapping, Word};
use crate::error::Result;

/// The bank that counts: `[seq, totals…]`. The caller holds the writer lock.
#[inline]
pub(crate) fn latest<const N: usize>(mapping: &Mapping, at: u64) -> Result<[u64; N]> {
    Ok(Banks::at(mapping, at)?.latest())
}

/// The newest bank that was counted at `seq` or before, for a reader at `seq`. `None` if commits have overtaken the
/// reader, which should then take a newer view.
pub(crate) fn at_most<const N: usize>(mapping: &Mapping, at: u64, seq: u64) -> Result<Option<[u64; N]>> {
    let banks = [mapping.words::<N>(at)?, mapping.words::<N>(at + 8 * N as u64)?];
    let mut best: Option<(&Word, [u64; N])> = None;
    for words in banks {
        let counted = words[0].load();
        if counted == 0 || counted > seq || best.is_some_and(|(_, best)| best[0] >= counted) {
            continue;
        }
        let found = std::array::from_fn(|index| if index == 0 { counted } else { words[index].relaxed() });
        best = Some((&words[0], found));
    }
    // If its number is still there, the bank was not written meanwhile. Nor was the other one more than once, since
    // they take turns: so no count in between has come and gone.
    fence(Ordering::Acquire);
    Ok(best.filter(|(number, bank)| number.relaxed() == bank[0]).map(|(_, bank)| bank))
}

/// Makes `[seq, totals…]` the bank that counts. The caller holds the writer lock.
#[inline(always)]
pub(crate) fn publish<const N: usize>(mapping: &Mapping, at: u64, bank: [u64; N]) -> Result<()> {
    Banks::at(mapping, at)?.publish(bank)
}

/// Makes `[seq, totals…]` the only bank, before any reader looks.
pub(crate) fn reset<const N: usize>(mapping: &Mapping, at: u64, bank: [u64; N]) -> Result<()> {
    for (index, word) in bank.into_iter().chain([0; N]).enumerate() {
        mapping.store(at + 8 * index as u64, word, Ordering::Relaxed)?;
    }
    Ok(())
}

/// Corrects one word of the bank that counts, which no reader looks at. The caller holds the writer lock.
pub(crate) fn amend<const N: usize>(mapping: &Mapping, at: u64, word: u64, value: u64) -> Result<()> {
    mapping.store(Banks::<N>::at(mapping, at)?.newest().0 + 8 * word, value, Ordering::Relaxed)
}

/// Both banks, located once, to read the one that counts and to replace it. The caller holds the writer lock.
#[derive(Clone, Copy)]
pub(crate) struct Banks<'r, const N: usize> {
    mapping: &'r Mapping,
    at: u64,
    banks: &'r [[Word; N]; 2],
}

impl<'r, const N: usize> Banks<'r, N> {
    /// The banks that begin at `at`.
    #[inline(always)]
    pub(crate) fn at(mapping: &'r Mapping, at: u64) -> Result<Banks<'r, N>> {
        Ok(Banks { mapping, at, banks: mapping.rows(at)? })
    }

    /// The bank that counts, and the other one, each with its offset.
    #[inline(always)]
    fn in_order(self) -> [(u64, &'r [Word; N]); 2] {
        let [first, second] = self.banks;
        let (first, second) = ((self.at, first), (self.at + 8 * N as u64, second));
        if second.1[0].load() > first.1[0].load() { [second, first] } else { [first, second] }
    }

    #[inline(always)]
    fn newest(self) -> (u64, &'r [Word; N]) {
        let [newest, _] = self.in_order();
        newest
    }

    /// What counts: `[seq, totals…]`.
    #[inline(always)]
    pub(crate) fn latest(self) -> [u64; N] {
        self.newest().1.each_ref().map(Word::relaxed)
    }

    /// One word of that.
    #[inline(always)]
    pub(crate) fn latest_of(self, word: usize) -> u64 {
        self.newest().1[word].relaxed()
    }

    /// Makes `[seq, totals…]` the bank that counts.
    #[inline(always)]
    pub(crate) fn publish(self, bank: [u64; N]) -> Result<()> {
        let [_, (start, words)] = self.in_order();
        let door = self.mapping.door()?;
        door.store(&words[0], start, 0, Ordering::Relaxed);
        fence(Ordering::Release);
        for index in 1..N {
            door.store(&words[index], start + 8 * index as u64, bank[index], Ordering::Relaxed);
        }
        door.store(&words[0], start, bank[0], Ordering::Release);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_get_the_bank_of_their_view() {
        let mapping = Mapping::in_memory(4096).unwrap();
        assert_eq!(at_most::<3>(&mapping, 64, 9).unwrap(), None);
        publish(&mapping, 64, [5, 10, 11]).unwrap();
        publish(&mapping, 64, [7, 20, 21]).unwrap();
        assert_eq!(latest(&mapping, 64).unwrap(), [7, 20, 21]);
        assert_eq!(at_most(&mapping, 64, 9).unwrap(), Some([7, 20, 21]));
        assert_eq!(at_most(&mapping, 64, 6).unwrap(), Some([5, 10, 11]));
        assert_eq!(at_most::<3>(&mapping, 64, 4).unwrap(), None);
        publish(&mapping, 64, [8, 30, 31]).unwrap();
        assert_eq!(at_most::<3>(&mapping, 64, 6).unwrap(), None, "overtaken");
    }

    #[test]
    fn a_reader_that_is_overtaken_between_the_banks_does_not_get_an_older_one() {
        let mapping = Mapping::in_memory(1 << 16).unwrap();
        publish(&mapping, 64, [1, 3, 5]).unwrap();
        mapping.store(8, 1, Ordering::Release).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut seq = 1;
                while mapping.load(16).unwrap() == 0 {
                    seq += 1;
                    publish(&mapping, 64, [seq, 3 * seq, 5 * seq]).unwrap();
                    mapping.store(8, seq, Ordering::Release).unwrap();
                }
            });
            // As often as it takes for the two to have met many times, however busy the machine is.
            let (mut found, mut overtaken) = (0, 0);
            while found < 100_000 || overtaken < 1000 {
                let visible = mapping.load(8).unwrap();
                let bank = at_most::<3>(&mapping, 64, visible).unwrap();
                overtaken += u32::from(bank.is_none());
                found += u32::from(bank.is_some());
                if bank.is_some_and(|bank| bank != [visible, 3 * visible, 5 * visible]) {
                    // Else the other thread would go on for ever.
                    mapping.store(16, 1, Ordering::Release).unwrap();
                    panic!("at {visible}: {bank:?}");
                }
            }
            mapping.store(16, 1, Ordering::Release).unwrap();
        });
    }

    #[test]
    fn a_publication_cut_short_leaves_the_other_bank_counting() {
        let mapping = Mapping::in_memory(4096).unwrap();
        publish(&mapping, 64, [5, 10, 11]).unwrap();
        publish(&mapping, 64, [7, 20, 21]).unwrap();
        // The next one goes to the second bank.
        mapping.store(64 + 24, 0, Ordering::Relaxed).unwrap();
        mapping.store(64 + 32, 99, Ordering::Relaxed).unwrap();
        assert_eq!(latest(&mapping, 64).unwrap(), [7, 20, 21]);
        publish(&mapping, 64, [8, 30, 31]).unwrap();
        assert_eq!(latest(&mapping, 64).unwrap(), [8, 30, 31]);
    }
}
