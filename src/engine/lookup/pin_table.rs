//! The table of pins: words of the file that say which process reads at which commit.
//!
//! [`pins`](crate::engine::read::pins) tells how a reader gets a pin, and [`horizon`](super::horizon) when all of them
//! are looked at.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::Result;
use crate::file::layout::{COUNT_MASK, EXTENTS, Seq, pin};
use crate::file::live_table::PIN;
use crate::file::mapping::{Mapping, Word};

/// The claim of a pin, or when it was taken.
#[inline(always)]
pub(crate) fn word(mapping: &Mapping, place: u64) -> Result<&Word> {
    if place < EXTENTS { mapping.live_word(place) } else { far_word(mapping, place) }
}

/// The same where the table continues in an extent.
#[cold]
fn far_word(mapping: &Mapping, place: u64) -> Result<&Word> {
    mapping.word(place)
}

#[inline(always)]
pub(crate) fn store(mapping: &Mapping, place: u64, value: u64, order: Ordering) -> Result<()> {
    if place < EXTENTS { mapping.store_live(place, value, order) } else { store_far(mapping, place, value, order) }
}

#[cold]
fn store_far(mapping: &Mapping, place: u64, value: u64, order: Ordering) -> Result<()> {
    mapping.store(place, value, order)
}

/// The claims of the pins of one process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Claims {
    /// Of a pin that is kept and not used: a number that no commit reaches holds nothing back.
    pub(crate) idle: u64,
}

impl Claims {
    /// The claims of the entry `process` of the process table.
    pub(crate) fn of(process: u64) -> Claims {
        Claims { idle: pin::claim(process, COUNT_MASK) }
    }

    /// The claim of a pin at a sequence number.
    #[inline(always)]
    pub(crate) fn at(self, seq: Seq) -> u64 {
        self.idle & !COUNT_MASK | seq.count()
    }
}

/// Where free pins are searched for.
pub(crate) struct Search {
    /// Where the next search begins: after the pin that was found last.
    next: AtomicU64,
    /// How many pins were looked at.
    #[cfg(test)]
    pub(crate) looked_at: AtomicU64,
}

/// The outcome of a search.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// This pin, which is now the caller's, the number of its entry, and how many entries there are.
    Pin { place: u64, number: u64, entries: u64 },
    /// None of this many entries is free.
    Nothing { entries: u64 },
}

impl Search {
    /// The search of the entry `process` of the process table.
    pub(crate) fn of(process: u64) -> Search {
        Search {
            // Processes begin at different places, so that they do not look at each other's pins.
            next: AtomicU64::new(process.wrapping_mul(67)),
            #[cfg(test)]
            looked_at: AtomicU64::new(0),
        }
    }

    /// Claims a free pin.
    pub(crate) fn claim(&self, mapping: &Mapping, claim: u64) -> Result<Found> {
        let parts = PIN.parts(mapping)?;
        let entries = parts.entries();
        let first = self.next.load(Ordering::Relaxed) % entries;
        for number in (first..entries).chain(0..first) {
            #[cfg(test)]
            self.looked_at.fetch_add(1, Ordering::Relaxed);
            let Some(place) = parts.place(number) else { continue };
            if word(mapping, place)?.load() == 0 && mapping.compare_exchange(place, 0, claim, Ordering::SeqCst)? {
                self.next.store(number + 1, Ordering::Relaxed);
                return Ok(Found::Pin { place, number, entries });
            }
        }
        Ok(Found::Nothing { entries })
    }
}

/// Whether most pins are taken.
pub(crate) fn few_are_free(mapping: &Mapping) -> Result<bool> {
    let parts = PIN.parts(mapping)?;
    let mut free = 0;
    for place in parts.places() {
        free += u64::from(word(mapping, place)?.relaxed() == 0);
    }
    Ok(free < parts.entries() / 4)
}

/// The lowest count below `visible` that a pin is at, or else that of `visible`. The caller has raised the horizon. If
/// the pins of a process are in the way, `clean` cleans them if it is dead.
pub(crate) fn lowest(mapping: &Mapping, visible: Seq, mut clean: impl FnMut(u64) -> Result<()>) -> Result<u64> {
    let mut lowest = visible.count();
    PIN.parts(mapping)?.at_each(|place| {
        let word = word(mapping, place + pin::CLAIM)?;
        let claim = word.seq_cst();
        if claim != 0 && pin::count(claim) < lowest {
            clean(pin::owner(claim))?;
            if word.seq_cst() != 0 {
                lowest = pin::count(claim);
            }
        }
        Ok(())
    })?;
    Ok(lowest)
}

/// A pin as others see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Held {
    /// The counting part of the sequence number that its holder reads at.
    pub(crate) count: u64,
    /// When a snapshot took it: milliseconds since 1970; zero for a single read.
    pub(crate) since: u64,
    /// Process-table entry of its holder.
    pub(crate) entry: u64,
}

/// How many pins are in use, and the one with the lowest count.
pub(crate) fn in_use(mapping: &Mapping) -> Result<(u64, Option<Held>)> {
    let (mut used, mut oldest) = (0, None);
    for place in PIN.parts(mapping)?.places() {
        let claim = mapping.load(place + pin::CLAIM)?;
        if claim != 0 && pin::count(claim) != COUNT_MASK {
            used += 1;
            let since = mapping.load(place + pin::SINCE)?;
            let held = Held { count: pin::count(claim), since, entry: pin::owner(claim) };
            oldest = Some(oldest.map_or(held, |oldest: Held| oldest.min(held)));
        }
    }
    Ok((used, oldest))
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// A table of pins before the extents, and a search of the process with entry 3.
    fn table() -> (Mapping, Search, u64) {
        let mapping = Mapping::in_memory(1 << 24).unwrap();
        let entries = PIN.parts(&mapping).unwrap().entries();
        (mapping, Search::of(3), entries)
    }

    fn claim(mapping: &Mapping, search: &Search, claim: u64) -> Option<u64> {
        match search.claim(mapping, claim).unwrap() {
            Found::Pin { place, .. } => Some(place),
            Found::Nothing { .. } => None,
        }
    }

    fn clear(mapping: &Mapping, place: u64) {
        store(mapping, place, 0, Ordering::SeqCst).unwrap();
    }

    #[test]
    fn each_search_finds_a_pin_of_its_own_and_begins_behind_the_last() {
        let (mapping, search, entries) = table();
        let claims = Claims::of(3);
        let places: BTreeSet<u64> =
            (0..entries).map(|n| claim(&mapping, &search, claims.at(Seq(n))).unwrap()).collect();
        assert_eq!(places.len() as u64, entries);
        assert_eq!(search.looked_at.load(Ordering::Relaxed), entries, "none was looked at twice");
        assert_eq!(search.claim(&mapping, claims.idle).unwrap(), Found::Nothing { entries });
        let free = *places.iter().nth(5).unwrap();
        clear(&mapping, free);
        assert_eq!(claim(&mapping, &search, claims.idle), Some(free), "it goes round");
        assert_eq!(word(&mapping, free).unwrap().load(), claims.idle);
    }

    #[test]
    fn two_never_get_the_same_pin() {
        let (mapping, search, entries) = table();
        let other = Search::of(3);
        let found: Vec<u64> = std::thread::scope(|scope| {
            let threads = [&search, &other].map(|search| {
                let mapping = &mapping;
                scope.spawn(move || (0..entries / 2).filter_map(|n| claim(mapping, search, 1 + n)).collect::<Vec<_>>())
            });
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(found.len() as u64, entries / 2 * 2);
        assert_eq!(found.iter().collect::<BTreeSet<_>>().len(), found.len());
    }

    #[test]
    fn the_oldest_pin_is_found_and_one_that_is_not_used_holds_nothing_back() {
        let (mapping, search, entries) = table();
        let nobody_is_dead = |_| Ok(());
        assert_eq!((in_use(&mapping).unwrap(), lowest(&mapping, Seq(100), nobody_is_dead).unwrap()), ((0, None), 100));
        let claims = Claims::of(3);
        let at = |count| Seq::new(5, count);
        let places = [70, 50, 60].map(|count| claim(&mapping, &search, claims.at(at(count))).unwrap());
        claim(&mapping, &search, claims.idle).unwrap();
        store(&mapping, places[1] + pin::SINCE, 7, Ordering::Relaxed).unwrap();
        let oldest = Held { count: 50, since: 7, entry: 3 };
        assert_eq!(in_use(&mapping).unwrap(), (3, Some(oldest)));
        assert_eq!(lowest(&mapping, at(100), nobody_is_dead).unwrap(), 50);
        assert_eq!(lowest(&mapping, at(40), nobody_is_dead).unwrap(), 40, "those are of later commits");
        clear(&mapping, places[1]);
        assert_eq!(lowest(&mapping, at(100), nobody_is_dead).unwrap(), 60);
        assert!(!few_are_free(&mapping).unwrap());
        while claim(&mapping, &search, claims.idle).is_some() {}
        assert!(few_are_free(&mapping).unwrap());
        assert_eq!(in_use(&mapping).unwrap().0, 2, "of {entries}");
    }

    #[test]
    fn the_pins_of_the_dead_hold_nothing_back() {
        let (mapping, search, _) = table();
        let dead = claim(&mapping, &search, Claims::of(8).at(Seq(20))).unwrap();
        claim(&mapping, &search, Claims::of(9).at(Seq(30))).unwrap();
        let mut asked = Vec::new();
        let clean = |owner| {
            asked.push(owner);
            if owner == 8 {
                clear(&mapping, dead);
            }
            Ok(())
        };
        assert_eq!(lowest(&mapping, Seq(100), clean).unwrap(), 30);
        assert_eq!(asked, [8, 9], "only those that stand in the way are asked");
    }
}
