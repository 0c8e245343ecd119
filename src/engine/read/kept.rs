//! The pins that threads keep between their reads: which thread has which one, of which store.
//!
//! A thread remembers its pins by the number of the store, which does not keep the store alive. When it ends, its pins
//! are returned for the next thread to take.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::file::mapping::barrier;

/// The pins of a store that threads keep between their reads.
pub(crate) struct KeptPins {
    /// A number that no other store of this process has or had.
    store: u64,
    /// Readers need no barrier, since a reclaimer can make them execute one.
    asymmetric: bool,
    /// Places of pins whose threads have ended.
    returned: Arc<Mutex<Vec<u64>>>,
}

/// What the calling thread keeps here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Here {
    /// A pin in this place.
    Pin(u64),
    /// None yet.
    Nothing,
    /// It can keep none: it is ending.
    Ending,
}

impl KeptPins {
    /// None yet.
    pub(crate) fn new() -> KeptPins {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        KeptPins {
            store: NEXT.fetch_add(1, Ordering::Relaxed),
            asymmetric: barrier::register(),
            returned: Arc::default(),
        }
    }

    /// Whether readers here rely on a reclaimer for their barrier.
    #[inline(always)]
    pub(crate) fn is_asymmetric(&self) -> bool {
        self.asymmetric
    }

    /// The pin of the calling thread, if it has read from this store last.
    #[inline(always)]
    pub(super) fn last(&self) -> Option<u64> {
        let (store, place) = LAST.try_with(Cell::get).unwrap_or_default();
        (store == self.store).then_some(place)
    }

    /// Notes that the calling thread reads from this store with the pin that it keeps. Returns whether it could.
    pub(super) fn note_last(&self, place: u64) -> bool {
        LAST.try_with(|last| last.set((self.store, place))).is_ok()
    }

    /// The pin that the calling thread keeps, whatever store it has read from last.
    pub(super) fn here(&self) -> Here {
        match KEPT.try_with(|kept| kept.borrow().pins.get(&self.store).map(|kept| kept.place)) {
            Ok(Some(place)) => Here::Pin(place),
            Ok(None) => Here::Nothing,
            Err(_) => Here::Ending,
        }
    }

    /// A pin that was kept by a thread that has ended.
    pub(super) fn take_returned(&self) -> Option<u64> {
        self.returned.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    /// Makes the calling thread keep a pin, and returns the one it keeps: another, if there was one already. `None` if
    /// it cannot keep any. A pin that is not kept is returned for others.
    pub(super) fn keep(&self, place: u64) -> Option<u64> {
        let pin = Kept { store: self.store, place, returned: Arc::downgrade(&self.returned) };
        KEPT.try_with(|kept| kept.borrow_mut().keep(pin)).ok()
    }
}

/// A pin that this thread keeps. It is returned when it is dropped.
struct Kept {
    store: u64,
    place: u64,
    returned: Weak<Mutex<Vec<u64>>>,
}

impl Drop for Kept {
    fn drop(&mut self) {
        // Locals of the thread that are dropped later may read, and another thread may have this pin by then.
        let _ = LAST.try_with(|last| {
            if last.get() == (self.store, self.place) {
                last.set((0, 0));
            }
        });
        if let Some(returned) = self.returned.upgrade() {
            returned.lock().unwrap_or_else(PoisonError::into_inner).push(self.place);
        }
    }
}

/// The pins that a thread keeps, by the number of the store.
#[derive(Default)]
struct KeptHere {
    pins: HashMap<u64, Kept, BuildHasherDefault<StoreHasher>>,
    /// At this many pins, it is time to drop those whose stores are gone.
    crowded: usize,
}

impl KeptHere {
    /// Keeps a pin, and returns which: the present one, if there is one.
    fn keep(&mut self, pin: Kept) -> u64 {
        if self.pins.len() >= self.crowded {
            self.pins.retain(|_, kept| kept.returned.strong_count() > 0);
            // Half of them will be new by then, so that it costs each of them the same.
            self.crowded = 2 * self.pins.len() + 8;
        }
        // A surplus pin is given back here.
        self.pins.entry(pin.store).or_insert(pin).place
    }
}

/// Store numbers count up. They are mixed with one multiplication, for a map that looks at the low and at the high
/// bits.
#[derive(Default)]
struct StoreHasher(u64);

impl Hasher for StoreHasher {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.write_u64(u64::from(byte)));
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

thread_local! {
    /// The store that this thread read from last, and the place of its pin there.
    static LAST: Cell<(u64, u64)> = const { Cell::new((0, 0)) };
    static KEPT: RefCell<KeptHere> = RefCell::default();
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    struct AtTheEnd(Option<Box<dyn FnOnce()>>);

    impl Drop for AtTheEnd {
        fn drop(&mut self) {
            if let Some(work) = self.0.take() {
                work();
            }
        }
    }

    /// The calling thread reads with this pin.
    fn read_with(pins: &KeptPins, place: u64) {
        assert_eq!(pins.keep(place), Some(place));
        assert!(pins.note_last(place));
        assert_eq!((pins.last(), pins.here()), (Some(place), Here::Pin(place)));
    }

    #[test]
    fn a_pin_goes_back_when_its_thread_ends() {
        let pins = KeptPins::new();
        assert_eq!((pins.last(), pins.here(), pins.take_returned()), (None, Here::Nothing, None));
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                read_with(&pins, 100);
                assert_eq!(pins.take_returned(), None, "it still lives");
            });
            // The scope itself does not wait for what a thread drops at its end.
            thread.join().unwrap();
        });
        assert_eq!((pins.last(), pins.here()), (None, Here::Nothing), "another thread");
        assert_eq!([pins.take_returned(), pins.take_returned()], [Some(100), None]);
    }

    #[test]
    fn a_pin_that_a_thread_has_given_back_is_its_own_no_more() {
        thread_local! {
            static BEFORE: RefCell<AtTheEnd> = const { RefCell::new(AtTheEnd(None)) };
        }

        let pins = Arc::new(KeptPins::new());
        let (tell, told) = mpsc::channel();
        let of_thread = Arc::clone(&pins);
        thread::spawn(move || {
            let pins = Arc::clone(&of_thread);
            // Used first, and so, where the order is that of a stack, dropped last.
            BEFORE.with(|before| {
                before.borrow_mut().0 = Some(Box::new(move || {
                    let returned = pins.take_returned();
                    tell.send((pins.last(), pins.here(), returned)).unwrap();
                }));
            });
            read_with(&of_thread, 100);
        })
        .join()
        .unwrap();
        let (last, here, returned) = told.recv().unwrap();
        assert!(last.is_none() || returned.is_none(), "two threads may have one pin: {last:?} and {returned:?}");
        if cfg!(target_os = "linux") {
            assert_eq!((here, returned), (Here::Ending, Some(100)), "the pin was given back before that read");
        }
    }

    #[test]
    fn a_thread_keeps_one_pin_of_each_store() {
        thread::spawn(|| {
            let (one, other) = (KeptPins::new(), KeptPins::new());
            read_with(&one, 100);
            read_with(&other, 200);
            assert_eq!((one.last(), one.here()), (None, Here::Pin(100)), "it has read from another one last");
            assert_eq!(one.keep(300), Some(100), "it has one already");
            assert_eq!((one.take_returned(), other.take_returned()), (Some(300), None));
            drop(other);
            assert_eq!(one.here(), Here::Pin(100));
        })
        .join()
        .unwrap();
    }

    /// Leftovers of stores that are gone do not pile up, nor are they looked through each time.
    #[test]
    fn a_thread_forgets_the_stores_that_are_gone() {
        thread::spawn(|| {
            let kept = || KEPT.with(|kept| kept.borrow().pins.len());
            let stores: Vec<_> = (0..300).map(|_| KeptPins::new()).collect();
            stores.iter().zip(1..).for_each(|(pins, place)| read_with(pins, place));
            assert_eq!(kept(), 300);
            assert!(stores.iter().zip(1..).all(|(pins, place)| pins.here() == Here::Pin(place)));
            drop(stores);
            (0..2000).for_each(|_| read_with(&KeptPins::new(), 100));
            assert!(kept() < 700, "{}", kept());
        })
        .join()
        .unwrap();
    }
}
