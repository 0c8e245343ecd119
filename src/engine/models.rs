//! Models of the protocols among processes: `loom` goes through the orders in which the steps of their threads can be
//! taken and their memory accesses take effect. The protocols are those that the store runs, word for word; only their
//! surroundings are modelled.
//!
//! `RUSTFLAGS="--cfg loom" cargo test --release --lib models`

use std::time::Duration;

use loom::cell::{Cell, UnsafeCell};
use loom::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use loom::sync::{Arc, Mutex};
use loom::thread;

use crate::engine::lookup::protocol::{self, Words};
use crate::engine::processes::lock_word::{self, Handover, Shared};
use crate::engine::read::sharing::{SharedPin, SharedPins, Table, Unused};
use crate::error::{Error, Result};
use crate::file::layout::{Offset, Seq, live, writer_lock};

fn check(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(model);
}

// The writer lock.

const PROCESSES: usize = 3;

/// The writer lock and the entries of some processes.
struct World {
    lock: AtomicU64,
    next: AtomicU64,
    /// The byte of each entry, and whether its owner has died without its entry having been cleaned.
    bytes: [Mutex<()>; PROCESSES],
    dead: [AtomicBool; PROCESSES],
    /// Only the holder touches this: loom sees if two do.
    held: UnsafeCell<()>,
    cleaned: AtomicU64,
}

impl World {
    fn new() -> Arc<World> {
        Arc::new(World {
            lock: AtomicU64::new(0),
            next: AtomicU64::new(0),
            bytes: std::array::from_fn(|_| Mutex::new(())),
            dead: std::array::from_fn(|_| AtomicBool::new(false)),
            held: UnsafeCell::new(()),
            cleaned: AtomicU64::new(0),
        })
    }

    fn touch(&self) {
        self.held.with_mut(|_| ());
    }
}

/// A process of the model.
struct Process {
    world: Arc<World>,
    me: u64,
    /// Each look at the clock takes some of it, so that all that depends on time happens.
    time: Cell<u64>,
}

impl Process {
    fn new(world: &Arc<World>, me: u64) -> Process {
        Process { world: Arc::clone(world), me, time: Cell::new(0) }
    }

    fn word(&self, at: u64) -> &AtomicU64 {
        if at == live::WRITER_LOCK { &self.world.lock } else { &self.world.next }
    }

    fn take(&self) -> Option<Handover> {
        lock_word::take(self, self.me, Duration::from_millis(60)).unwrap()
    }

    fn give_back(&self) {
        lock_word::give_back(self, self.load(live::WRITER_LOCK).unwrap(), Handover::Orderly).unwrap();
    }

    /// Dies: the kernel gives its byte back.
    fn die(self) {
        self.world.dead[self.me as usize].store(true, Ordering::SeqCst);
    }
}

impl Shared for Process {
    fn load(&self, at: u64) -> Result<u64> {
        Ok(self.word(at).load(Ordering::SeqCst))
    }

    fn compare_exchange(&self, at: u64, current: u64, new: u64) -> Result<bool> {
        Ok(self.word(at).compare_exchange(current, new, Ordering::SeqCst, Ordering::SeqCst).is_ok())
    }

    fn swap(&self, at: u64, new: u64) -> Result<u64> {
        Ok(self.word(at).swap(new, Ordering::SeqCst))
    }

    fn clear_up_after(&self, entry: u64) -> Result<bool> {
        let dead = &self.world.dead[entry as usize];
        let Ok(_byte) = self.world.bytes[entry as usize].try_lock() else { return Ok(false) };
        if !dead.load(Ordering::SeqCst) {
            return Ok(false);
        }
        lock_word::disown(self, entry)?;
        dead.store(false, Ordering::SeqCst);
        self.world.cleaned.fetch_add(1, Ordering::SeqCst);
        Ok(true)
    }

    fn sleep(&self, _seen: u64, _timeout: Duration) -> Result<()> {
        thread::yield_now();
        Ok(())
    }

    fn wake(&self) -> Result<()> {
        Ok(())
    }

    fn clock(&self) -> Duration {
        self.time.set(self.time.get() + 7);
        Duration::from_millis(self.time.get())
    }
}

#[test]
fn two_writers_exclude_each_other() {
    check(|| {
        let world = World::new();
        let other = Process::new(&world, 1);
        let other = thread::spawn(move || {
            if other.take().is_some() {
                other.world.touch();
                other.give_back();
            }
        });
        let me = Process::new(&world, 0);
        if let Some(taken) = me.take() {
            assert_eq!(taken, Handover::Orderly, "nobody has died");
            me.world.touch();
            me.give_back();
        }
        other.join().unwrap();
        assert_eq!(writer_lock::holder(world.lock.load(Ordering::SeqCst)), writer_lock::FREE);
        assert_eq!(world.next.load(Ordering::SeqCst), 0, "nobody waits any more");
    });
}

#[test]
fn the_lock_of_a_dead_one_is_taken_once_and_never_that_of_a_living_one() {
    check(|| {
        let world = World::new();
        // Dies while it holds the lock.
        let dying = Process::new(&world, 2);
        assert_eq!(dying.take(), Some(Handover::Orderly));
        let death = thread::spawn(move || {
            dying.world.touch();
            dying.die();
        });
        let writer = |me: u64| {
            let writer = Process::new(&world, me);
            move || {
                let taken = writer.take();
                if taken.is_some() {
                    writer.world.touch();
                    writer.give_back();
                }
                taken
            }
        };
        let other = thread::spawn(writer(1));
        let outcomes = [writer(0)(), other.join().unwrap()];
        death.join().unwrap();
        let abandoned = outcomes.iter().filter(|taken| **taken == Some(Handover::Abandoned)).count() as u64;
        let cleaned = world.cleaned.load(Ordering::SeqCst);
        assert!(cleaned <= 1);
        assert_eq!(abandoned, cleaned.min(abandoned), "abandoned without a death");
        // The first to come after the cleaning is told, and no other.
        assert!(outcomes.iter().all(|taken| taken.is_none()) || abandoned == 1, "{outcomes:?}");
    });
}

#[test]
fn an_entry_that_was_given_to_another_is_not_taken_for_the_dead_one() {
    check(|| {
        let world = World::new();
        let dead = Process::new(&world, 2);
        assert_eq!(dead.take(), Some(Handover::Orderly));
        dead.world.touch();
        dead.die();
        // A new process cleans the entry and keeps it.
        let newcomer = Process::new(&world, 2);
        let newcomer = thread::spawn(move || {
            let world = Arc::clone(&newcomer.world);
            let Ok(_byte) = world.bytes[2].try_lock() else { return };
            lock_word::disown(&newcomer, 2).unwrap();
            world.dead[2].store(false, Ordering::SeqCst);
            if newcomer.take().is_some() {
                world.touch();
                newcomer.give_back();
            }
        });
        let me = Process::new(&world, 0);
        if me.take().is_some() {
            me.world.touch();
            me.give_back();
        }
        newcomer.join().unwrap();
    });
}

// Pins, reuse, and the switch to another index.

const GARBAGE: u64 = 99;
/// The place of the first pin.
const PIN: u64 = 1;
/// The claim of a pin that is kept and not used.
const IDLE: u64 = u64::MAX;

/// A store with one key, in index 0, with value 1 of commit 1; and pins.
struct Store {
    visible: AtomicU64,
    horizon: AtomicU64,
    pins: [AtomicU64; 2],
    /// Which index is in force.
    index: AtomicU64,
    /// The space of each index. Loom sees if it is written during a read.
    indexes: [UnsafeCell<()>; 2],
    /// The slot of the key in each index: the number of its newest record.
    slots: [AtomicU64; 2],
    /// The space of the first record, which commit 2 replaces.
    first_record: UnsafeCell<()>,
}

impl Store {
    fn new() -> Arc<Store> {
        Arc::new(Store {
            visible: AtomicU64::new(1),
            horizon: AtomicU64::new(0),
            pins: [AtomicU64::new(0), AtomicU64::new(0)],
            index: AtomicU64::new(0),
            indexes: [UnsafeCell::new(()), UnsafeCell::new(())],
            slots: [AtomicU64::new(1), AtomicU64::new(0)],
            first_record: UnsafeCell::new(()),
        })
    }

    /// Pins, as `Engine::pin_here` does where a reader has a barrier of its own.
    fn pin(&self) -> Seq {
        let seq = Seq(self.visible.load(Ordering::Acquire));
        self.pins[0].store(self.claim(seq), Ordering::Release);
        fence(Ordering::SeqCst);
        protocol::settle(self, PIN, seq).unwrap()
    }

    /// The value of the key at `seq`.
    fn get(&self, seq: Seq) -> Seq {
        let index = self.index.load(Ordering::Acquire) as usize;
        self.indexes[index].with(|_| ());
        // Record number n was written by commit n, and leads to the one before.
        let record = self.slots[index].load(Ordering::Acquire).min(seq.0);
        if record == 1 {
            self.first_record.with(|_| ());
        }
        Seq(record)
    }

    /// Whether no pin lies below `seq`.
    fn unread_below(&self, seq: Seq) -> bool {
        let mut claims = self.pins.iter().map(|pin| pin.load(Ordering::SeqCst));
        claims.all(|claim| claim == 0 || claim >= seq.0)
    }

    /// Commit 2, for which the index is built anew; the old one is reused as soon as that may be.
    fn commit_with_a_new_index(&self) {
        self.indexes[1].with_mut(|_| ());
        self.slots[1].store(1, Ordering::Relaxed);
        self.index.store(1, Ordering::Release);
        self.slots[1].store(2, Ordering::Release);
        self.visible.store(2, Ordering::Release);

        protocol::raise(self, Seq(2)).unwrap();
        if self.unread_below(Seq(2)) {
            self.indexes[0].with_mut(|_| ());
            self.first_record.with_mut(|_| ());
            self.slots[0].store(GARBAGE, Ordering::Relaxed);
        }
    }
}

impl Words for Store {
    fn load(&self, at: u64) -> Result<u64> {
        Ok(match at {
            live::HORIZON => self.horizon.load(Ordering::SeqCst),
            live::VISIBLE => self.visible.load(Ordering::SeqCst),
            place => self.pins[(place - PIN) as usize].load(Ordering::SeqCst),
        })
    }

    fn store(&self, at: u64, value: u64) -> Result<()> {
        if at == live::HORIZON {
            self.horizon.store(value, Ordering::SeqCst);
        } else {
            self.pins[(at - PIN) as usize].store(value, Ordering::SeqCst);
            in_the_total_order();
        }
        Ok(())
    }

    fn publish(&self, _at: u64, _value: u64) -> Result<()> {
        unreachable!("readers move no tail")
    }

    fn fence(&self) {
        fence(Ordering::SeqCst);
    }

    fn claim(&self, seq: Seq) -> u64 {
        seq.0
    }

    fn impossible(&self) -> Error {
        unreachable!("the horizon lies beyond what is visible")
    }
}

#[test]
fn nothing_is_reused_under_a_reader() {
    check(|| {
        let store = Store::new();
        let writer = Arc::clone(&store);
        let writer = thread::spawn(move || writer.commit_with_a_new_index());
        let seq = store.pin();
        assert_eq!(store.get(seq), seq, "the view of commit {seq}");
        store.pins[0].store(0, Ordering::Release);
        writer.join().unwrap();
    });
}

#[test]
fn a_snapshot_stays_what_it_is_while_the_index_is_switched() {
    check(|| {
        let store = Store::new();
        let seq = store.pin();
        let writer = Arc::clone(&store);
        let writer = thread::spawn(move || writer.commit_with_a_new_index());
        // Each look may find another index.
        assert_eq!([store.get(seq), store.get(seq)], [Seq(1); 2]);
        store.pins[0].store(0, Ordering::Release);
        let newer = store.pin();
        assert_eq!(store.get(newer), newer);
        writer.join().unwrap();
    });
}

/// Loom takes an access in the total order for one that acquires and releases. This adds the rest, for a pin that is
/// written in that order before the horizon is loaded.
fn in_the_total_order() {
    fence(Ordering::SeqCst);
}

impl Table for Store {
    fn search(&self, claim: u64) -> Result<u64> {
        let take = |pin: &AtomicU64| pin.compare_exchange(0, claim, Ordering::SeqCst, Ordering::SeqCst).is_ok();
        let place = PIN + self.pins.iter().position(take).expect("a pin is free") as u64;
        in_the_total_order();
        Ok(place)
    }

    fn let_go(&self, place: u64, unused: Unused) {
        let claim = match unused {
            Unused::Kept => IDLE,
            Unused::Free => 0,
        };
        self.pins[(place - PIN) as usize].store(claim, Ordering::Release);
    }
}

/// All pins are in one list.
fn join(store: &Store, pins: &SharedPins) -> SharedPin {
    pins.join_in(0, store).unwrap()
}

fn leave(store: &Store, pins: &SharedPins, pin: SharedPin) {
    pins.leave(store, pin.share, pin.seq);
}

#[test]
fn nothing_is_reused_under_one_who_shares_a_pin() {
    check(|| {
        let store = Store::new();
        let pins = Arc::new(SharedPins::default());
        let first = join(&store, &pins);
        let writer = Arc::clone(&store);
        let writer = thread::spawn(move || writer.commit_with_a_new_index());
        let (other_store, other_pins) = (Arc::clone(&store), Arc::clone(&pins));
        // Leaves while another joins: the same pin, one that stayed behind, or a new one.
        let other = thread::spawn(move || leave(&other_store, &other_pins, first));
        let pin = join(&store, &pins);
        assert_eq!(store.get(pin.seq), pin.seq, "the view of commit {}", pin.seq);
        leave(&store, &pins, pin);
        other.join().unwrap();
        // No holder is left: the pin is settled anew.
        let pin = join(&store, &pins);
        assert_eq!(store.get(pin.seq), pin.seq, "the view of commit {}", pin.seq);
        leave(&store, &pins, pin);
        writer.join().unwrap();
        assert!(store.unread_below(Seq(2)));
    });
}

// The end of a commit.

/// The words that say where the log continues.
struct End {
    commit_point: AtomicU64,
    chain: AtomicU64,
    tail: AtomicU64,
}

impl End {
    fn word(&self, at: u64) -> &AtomicU64 {
        match at {
            live::COMMIT_POINT => &self.commit_point,
            live::CHAIN => &self.chain,
            _ => &self.tail,
        }
    }
}

impl Words for End {
    fn load(&self, at: u64) -> Result<u64> {
        Ok(self.word(at).load(Ordering::Acquire))
    }

    fn store(&self, _at: u64, _value: u64) -> Result<()> {
        unreachable!("nobody pins")
    }

    fn publish(&self, at: u64, value: u64) -> Result<()> {
        self.word(at).store(value, Ordering::Release);
        Ok(())
    }

    fn fence(&self) {
        fence(Ordering::SeqCst);
    }

    fn claim(&self, seq: Seq) -> u64 {
        seq.0
    }

    fn impossible(&self) -> Error {
        unreachable!("nobody pins")
    }
}

/// A look at any time finds what a writer killed at that time would leave.
#[test]
fn who_finds_the_tail_of_a_commit_finds_its_crc_and_its_commit_point() {
    check(|| {
        let end = Arc::new(End { commit_point: AtomicU64::new(1), chain: AtomicU64::new(1), tail: AtomicU64::new(1) });
        let writer = Arc::clone(&end);
        let writer = thread::spawn(move || {
            writer.publish(live::COMMIT_POINT, 2).unwrap();
            protocol::move_tail(&*writer, Offset(2), 2).unwrap();
        });
        let [tail, chain, commit] = [live::TAIL, live::CHAIN, live::COMMIT_POINT].map(|at| end.load(at).unwrap());
        assert!(tail <= chain && chain <= commit, "tail {tail}, CRC {chain}, commit point {commit}");
        writer.join().unwrap();
    });
}
