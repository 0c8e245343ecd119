//! The writer lock among the threads of a process: which of them may append.
//!
//! A lock that a transaction can hold while it moves from thread to thread, that can be waited for with a limit, and
//! that tells a thread that it would wait for itself. It is unfair while that is cheap, since each handover between
//! threads costs a context switch, and fair as soon as a thread has waited for a millisecond: the scheme of Go's
//! `sync.Mutex` ("starvation mode").

use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use crate::file::locks::{FileId, fork};
use crate::telemetry::LONG_WAIT;

/// After this wait, newcomers may not go first.
const PATIENCE: Duration = Duration::from_millis(1);

/// How often a thread in the queue looks again, should a wake-up be missed.
const TICK: Duration = Duration::from_millis(50);

/// A gate of this process, with the file and the process-table entry that it belongs to.
struct Listed {
    file: FileId,
    entry: u64,
    gate: Weak<Gate>,
    /// In a forked child, the parent's gates mean nothing.
    generation: u64,
}

/// All gates. Locked only while no other thread forks, so that a child never finds it locked.
static GATES: Mutex<Vec<Listed>> = Mutex::new(Vec::new());

/// Whether the calling thread has the turn of another opening of this process, with this entry.
#[cold]
pub(crate) fn is_own_turn(file: FileId, entry: u64) -> bool {
    fork::guarded(|_| {
        let gates = GATES.lock().unwrap_or_else(PoisonError::into_inner);
        let of_entry = gates.iter().filter(|gate| (gate.file, gate.entry) == (file, entry));
        of_entry
            .filter(|listed| listed.generation == fork::generation())
            .filter_map(|listed| listed.gate.upgrade())
            .any(|gate| gate.owner.load(Ordering::Relaxed) == thread_number())
    })
}

/// See the module.
#[derive(Default)]
pub(crate) struct Gate {
    held: AtomicBool,
    /// A thread in the queue has lost patience.
    starving: AtomicBool,
    /// Number of the thread that holds the lock; zero if none does, or if it is not known.
    owner: AtomicU64,
    /// How often the lock was taken.
    taken: AtomicU64,
    waiting: AtomicUsize,
    /// The waiting threads, in the order of arrival.
    queue: Mutex<VecDeque<u64>>,
    freed: Condvar,
}

/// Why the lock was not taken.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The calling thread holds it.
    Mine,
    /// It did not become free in this time.
    TimedOut(Duration),
}

impl Gate {
    /// The gate of an opening of a file that others of this process may have open as well.
    pub(crate) fn listed(file: FileId, entry: u64) -> Arc<Gate> {
        let gate = Arc::new(Gate::default());
        let listed = Listed { file, entry, gate: Arc::downgrade(&gate), generation: fork::generation() };
        fork::guarded(|_| {
            let mut gates = GATES.lock().unwrap_or_else(PoisonError::into_inner);
            gates.retain(|listed| listed.gate.strong_count() > 0);
            gates.push(listed);
        });
        gate
    }

    /// Takes the lock, waiting at most `timeout`. A [long wait](LONG_WAIT) is told while it lasts, once.
    #[inline(always)]
    pub(crate) fn acquire(&self, timeout: Duration, on_long_wait: impl Fn(Duration)) -> Result<(), Refusal> {
        let me = thread_number();
        if !self.starving.load(Ordering::Relaxed) && self.take(me) {
            return Ok(());
        }
        self.acquire_slowly(me, timeout, &on_long_wait)
    }

    #[inline(always)]
    fn take(&self, me: u64) -> bool {
        let taken = self.held.compare_exchange(false, true, Ordering::SeqCst, Ordering::Relaxed).is_ok();
        if taken {
            self.owner.store(me, Ordering::Relaxed);
            // Only the holder comes here.
            self.taken.store(self.taken.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        }
        taken
    }

    #[cold]
    fn acquire_slowly(&self, me: u64, timeout: Duration, on_long_wait: &dyn Fn(Duration)) -> Result<(), Refusal> {
        let (start, mut is_told) = (Instant::now(), false);
        if self.owner.load(Ordering::Relaxed) == me {
            return Err(Refusal::Mine);
        }
        for _ in 0..100 {
            if !self.starving.load(Ordering::Relaxed) && self.take(me) {
                return Ok(());
            }
            std::hint::spin_loop();
        }
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.push_back(me);
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let result = loop {
            let first = queue.front() == Some(&me);
            if first && self.take(me) {
                break Ok(());
            }
            let waited = start.elapsed();
            if waited >= timeout {
                break Err(Refusal::TimedOut(waited));
            }
            if waited >= PATIENCE {
                self.starving.store(true, Ordering::Relaxed);
            }
            if waited >= LONG_WAIT && !is_told {
                is_told = true;
                drop(queue);
                on_long_wait(waited);
                queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
                // It may be free by now.
                continue;
            }
            let tick = if waited < PATIENCE { PATIENCE } else { TICK }.min(timeout - waited);
            queue = self.freed.wait_timeout(queue, tick).unwrap_or_else(PoisonError::into_inner).0;
        };
        queue.retain(|&waiter| waiter != me);
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        if queue.is_empty() || result.is_ok() {
            // Threads that still wait and have waited long set it again.
            self.starving.store(false, Ordering::Relaxed);
        }
        if !queue.is_empty() {
            self.freed.notify_all();
        }
        result
    }

    /// Whether the lock is held.
    pub(crate) fn is_held(&self) -> bool {
        self.held.load(Ordering::Relaxed)
    }

    /// Whether the calling thread holds the lock.
    pub(crate) fn is_mine(&self) -> bool {
        self.owner.load(Ordering::Relaxed) == thread_number()
    }

    /// How often the lock was taken. The caller holds it.
    pub(crate) fn times_taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    /// Says that the calling thread now acts for the holder: a transaction has moved here.
    #[inline]
    pub(crate) fn adopt(&self) {
        self.owner.store(thread_number(), Ordering::Relaxed);
    }

    /// Says that another thread, which will say so itself, acts for the holder from now on.
    pub(crate) fn hand_over(&self) {
        self.owner.store(0, Ordering::Relaxed);
    }

    /// Gives the lock back. The caller holds it.
    #[inline(always)]
    pub(crate) fn release(&self) {
        self.owner.store(0, Ordering::Relaxed);
        self.held.store(false, Ordering::SeqCst);
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.wake_all();
        }
    }

    #[cold]
    fn wake_all(&self) {
        let _queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        self.freed.notify_all();
    }
}

/// A number of the calling thread's own, never zero.
#[inline]
pub(crate) fn thread_number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    thread_local! {
        static NUMBER: Cell<u64> = const { Cell::new(0) };
    }
    // While a thread is being torn down its locals may be gone; then it gets a new number at each call, which only
    // means that it is not warned of waiting for itself.
    NUMBER
        .try_with(|number| {
            if number.get() == 0 {
                number.set(NEXT.fetch_add(1, Ordering::Relaxed));
            }
            number.get()
        })
        .unwrap_or_else(|_| NEXT.fetch_add(1, Ordering::Relaxed))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn it_excludes() {
        let gate = Arc::new(Gate::default());
        let count = Arc::new(AtomicU64::new(0));
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let (gate, count) = (gate.clone(), count.clone());
                thread::spawn(move || {
                    for _ in 0..10_000 {
                        gate.acquire(LONG, |_| ()).unwrap();
                        let seen = count.load(Ordering::Relaxed);
                        count.store(seen + 1, Ordering::Relaxed);
                        gate.release();
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(count.load(Ordering::Relaxed), 40_000);
    }

    #[test]
    fn waiting_ends_and_waiting_for_oneself_is_refused() {
        let gate = Gate::default();
        gate.acquire(LONG, |_| ()).unwrap();
        assert_eq!(gate.acquire(LONG, |_| ()), Err(Refusal::Mine));
        thread::scope(|scope| {
            let waiter = scope.spawn(|| gate.acquire(Duration::from_millis(20), |_| ()));
            assert!(matches!(waiter.join().unwrap(), Err(Refusal::TimedOut(waited)) if waited.as_millis() >= 20));
        });
        gate.release();
        gate.acquire(LONG, |_| ()).unwrap();
    }

    #[test]
    fn a_long_wait_is_told_once_while_it_lasts() {
        let (gate, told) = (Gate::default(), AtomicUsize::new(0));
        gate.acquire(LONG, |_| ()).unwrap();
        thread::scope(|scope| {
            let waiter = scope.spawn(|| {
                gate.acquire(LONG, |waited| {
                    assert!(waited >= LONG_WAIT && gate.is_held());
                    told.fetch_add(1, Ordering::Relaxed);
                })
            });
            while told.load(Ordering::Relaxed) == 0 {
                thread::yield_now();
            }
            thread::sleep(2 * LONG_WAIT);
            gate.release();
            waiter.join().unwrap().unwrap();
        });
        assert_eq!(told.into_inner(), 1);
    }

    #[test]
    fn somebody_who_waits_is_served_although_others_never_rest() {
        let gate = Gate::default();
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !done.load(Ordering::Relaxed) {
                        gate.acquire(LONG, |_| ()).unwrap();
                        std::hint::spin_loop();
                        gate.release();
                    }
                });
            }
            for _ in 0..50 {
                gate.acquire(LONG, |_| ()).unwrap();
                gate.release();
            }
            done.store(true, Ordering::Relaxed);
        });
    }
}
