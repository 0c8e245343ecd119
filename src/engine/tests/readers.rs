//! What a reader sees while a writer, or the next opener, stands between any two of its stores.

use std::sync::atomic::AtomicU64;

use super::*;

/// Sees the store from outside at each of its own stores: a reader in another thread could.
struct Onlooker {
    engine: OnceLock<Weak<Engine>>,
    seen: Mutex<Vec<Content>>,
    looking: AtomicBool,
}

impl Onlooker {
    fn look(&self) {
        let Some(engine) = self.engine.get().and_then(Weak::upgrade) else { return };
        // Looking takes a pin, which is a store as well.
        if !self.looking.swap(true, Ordering::SeqCst) {
            self.seen.lock().unwrap().push(content(&engine));
            self.looking.store(false, Ordering::SeqCst);
        }
    }
}

impl Recorder for Onlooker {
    fn write(&self, _offset: u64, _bytes: &[u8]) {
        self.look();
    }
    fn store(&self, _offset: u64, _value: u64) {
        self.look();
    }
}

#[test]
fn a_reader_between_any_two_stores_sees_all_of_a_commit_or_nothing() {
    let (_folder, path) = scratch();
    let engine = Arc::new(open(&path));
    some_keys(&engine);
    let before = content(&engine);
    let onlooker =
        Arc::new(Onlooker { engine: OnceLock::new(), seen: Mutex::default(), looking: AtomicBool::new(false) });
    engine.mapping.set_recorder(onlooker.clone());
    onlooker.engine.set(Arc::downgrade(&engine)).unwrap();
    let mut batch = Batch::begin(Arc::clone(&engine)).unwrap();
    for number in 0..300 {
        batch.put(DEFAULT_MAP, &key(number), b"new", None).unwrap();
    }
    assert!(batch.remove(DEFAULT_MAP, &key(5)).unwrap());
    batch.commit(Durability::Buffered).unwrap();
    let mut after = before.clone();
    after.extend((0..300).map(|number| (key(number), b"new".to_vec())));
    after.remove(&key(5));

    let seen = onlooker.seen.lock().unwrap();
    let turn = seen.iter().position(|content| *content != before).unwrap();
    assert!(seen[turn..].iter().all(|content| *content == after), "half a commit was seen");
    assert!(turn > 1000 && turn < seen.len(), "the reader looked before and after");
}

/// The live area must not vanish under readers that have used it since before the store was closed.
#[test]
fn a_reader_who_stays_sees_all_of_it_at_every_store_of_the_next_opening() {
    let (_folder, path) = scratch();
    let writer = open(&path);
    some_keys(&writer);
    let settings = Settings { access: settings::Access::ReadOnly, ..Settings::default() };
    let reader = Arc::new(Engine::open(&path, settings).unwrap());
    let expected = content(&reader);
    drop(writer);
    let onlooker =
        Arc::new(Onlooker { engine: OnceLock::new(), seen: Mutex::default(), looking: AtomicBool::new(false) });
    onlooker.engine.set(Arc::downgrade(&reader)).unwrap();
    let standing = witness::stand(onlooker.clone());
    let next = open(&path);
    drop(standing);
    assert_eq!((next.opened, content(&next)), (Opened::Clean, expected.clone()));
    let seen = onlooker.seen.lock().unwrap();
    assert!(seen.len() > 5 && seen.iter().all(|content| *content == expected));
}

/// Acts at the moment when a reader has stored its first pin and read nothing yet.
struct AtFirstPin {
    engine: OnceLock<Weak<Engine>>,
    action: fn(&Engine),
    done: AtomicBool,
}

impl AtFirstPin {
    fn watch(engine: &Arc<Engine>, action: fn(&Engine)) -> Arc<AtFirstPin> {
        let watch = Arc::new(AtFirstPin { engine: OnceLock::new(), action, done: AtomicBool::new(false) });
        engine.mapping.set_recorder(watch.clone());
        watch.engine.set(Arc::downgrade(engine)).unwrap();
        watch
    }
}

impl Recorder for AtFirstPin {
    fn store(&self, offset: u64, _value: u64) {
        let Some(engine) = self.engine.get().and_then(Weak::upgrade) else { return };
        if (PIN_TABLE..EXTENTS).contains(&offset) && !self.done.swap(true, Ordering::SeqCst) {
            (self.action)(&engine);
        }
    }
}

#[test]
fn a_reader_that_is_overtaken_by_the_horizon_takes_a_newer_view() {
    let engine = in_memory();
    some_keys(&engine);
    // As if a commit had been made and space reclaimed after it, with no pin yet in sight.
    let watch = AtFirstPin::watch(&engine, |engine| {
        let newer = engine.mapping.live_seq(live::VISIBLE).unwrap().next();
        engine.mapping.store_live(live::VISIBLE, newer.0, Ordering::SeqCst).unwrap();
        engine.mapping.store_live(live::HORIZON, newer.0, Ordering::SeqCst).unwrap();
    });
    let pin = engine.pin().unwrap();
    assert!(watch.done.load(Ordering::SeqCst));
    assert!(pin.seq() >= engine.mapping.live_seq(live::HORIZON).unwrap(), "a reader below the horizon");
}

#[test]
fn a_reader_that_is_overtaken_by_a_clear_reads_the_region_of_its_time() {
    let engine = in_memory();
    some_keys(&engine);
    let before = content(&engine);
    let watch = AtFirstPin::watch(&engine, |engine| engine.clear(DEFAULT_MAP).unwrap());
    assert_eq!(content(&engine), before);
    assert!(watch.done.load(Ordering::SeqCst));
    assert!(content(&engine).is_empty());
}

/// Compares the two ways to read a key, at each store of the engine.
struct BothWays {
    engine: OnceLock<Weak<Engine>>,
    looking: AtomicBool,
    /// How often a key was found, and how often not.
    found: [AtomicU64; 2],
}

impl Recorder for BothWays {
    fn store(&self, _offset: u64, _value: u64) {
        let Some(engine) = self.engine.get().and_then(Weak::upgrade) else { return };
        if self.looking.swap(true, Ordering::SeqCst) {
            return;
        }
        for number in [1, 5, 250] {
            let key = key(number);
            let pin = engine.pin().unwrap();
            let wanted = log::Wanted { map: DEFAULT_MAP, key: &key, seq: pin.seq() };
            let lines = engine.lines_at(DEFAULT_MAP, pin.seq()).unwrap().unwrap();
            let long = engine.lookup(lines, wanted, Moment::NOW).unwrap().map(|record| record.value().to_vec());
            let short = engine.read(DEFAULT_MAP, &key, |value, _| value.to_vec()).unwrap();
            assert_eq!(short, long, "key {number}");
            self.found[usize::from(long.is_none())].fetch_add(1, Ordering::SeqCst);
        }
        self.looking.store(false, Ordering::SeqCst);
    }
}

#[test]
fn a_short_read_sees_what_a_pin_sees_between_any_two_stores() {
    let engine = in_memory();
    some_keys(&engine);
    let found = Default::default();
    let watch = Arc::new(BothWays { engine: OnceLock::new(), looking: AtomicBool::new(false), found });
    engine.mapping.set_recorder(watch.clone());
    watch.engine.set(Arc::downgrade(&engine)).unwrap();
    let mut batch = Batch::begin(Arc::clone(&engine)).unwrap();
    for number in 0..300 {
        batch.put(DEFAULT_MAP, &key(number), b"new", None).unwrap();
    }
    assert!(batch.remove(DEFAULT_MAP, &key(5)).unwrap());
    batch.commit(Durability::Buffered).unwrap();
    engine.put(DEFAULT_MAP, &key(1), b"newer", None).unwrap();
    engine.clear(DEFAULT_MAP).unwrap();
    engine.put(DEFAULT_MAP, &key(5), b"newest", None).unwrap();
    assert!(watch.found.iter().all(|count| count.load(Ordering::SeqCst) > 500), "{:?}", watch.found);
}

/// A thread that has read before takes the short path, with a pin of its own.
#[test]
fn a_short_read_that_is_overtaken_by_the_horizon_takes_a_newer_view() {
    let engine = in_memory();
    some_keys(&engine);
    let pin_and_horizon = || {
        let oldest = engine.pins_in_use().unwrap().1.unwrap();
        (oldest.count, engine.mapping.live_seq(live::HORIZON).unwrap().count())
    };
    let read = || engine.read(DEFAULT_MAP, &key(1), |_, _| pin_and_horizon()).unwrap().unwrap();
    let (_, before) = read();
    // A writer that reclaims space at this moment has not seen the pin.
    let watch = AtFirstPin::watch(&engine, |engine| {
        engine.put(DEFAULT_MAP, &key(2), b"newer", None).unwrap();
        engine.lend_writing().raise_horizon().unwrap();
    });
    let (pin, horizon) = read();
    assert!(pin >= horizon, "a reader below the horizon");
    assert!(watch.done.load(Ordering::SeqCst) && horizon > before);
}

/// A read-only store cannot store a pin, so its reads check afterwards whether they were overtaken.
#[test]
fn a_copy_that_is_overtaken_by_reuse_is_made_again() {
    let (_folder, path) = scratch();
    let engine = open(&path);
    some_keys(&engine);
    let reader = Engine::open(&path, Settings { access: settings::Access::ReadOnly, ..Settings::default() }).unwrap();
    // A writer comes in between the sequence number that a read begins with and its end.
    let looks = std::cell::Cell::new(0);
    let seen = reader.unpinned(|seq| {
        looks.set(looks.get() + 1);
        // The writer comes each time, but the second attempt holds a lock against it.
        engine.put(DEFAULT_MAP, b"new", b"value", None).unwrap();
        let unread_below = engine.lend_writing().raise_horizon().unwrap();
        assert_eq!(unread_below < engine.visible().unwrap().count(), looks.get() == 2);
        Ok(seq)
    });
    assert_eq!((seen.unwrap(), looks.get()), (engine.visible().unwrap().before(), 2));
    // A commit alone does no harm: the replaced record is still there.
    looks.set(0);
    let before = engine.visible().unwrap();
    let seen = reader.unpinned(|seq| {
        looks.set(looks.get() + 1);
        engine.put(DEFAULT_MAP, b"new", b"newer", None).unwrap();
        Ok(seq)
    });
    assert_eq!((seen.unwrap(), looks.get()), (before, 1));
}

/// Superblocks are read without a lock.
#[test]
fn a_superblock_is_read_whole_while_others_take_checkpoints() {
    let (_folder, path) = scratch();
    let engine = open(&path);
    let reader = Engine::open(&path, Settings { access: settings::Access::ReadOnly, ..Settings::default() }).unwrap();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0..40_000 {
                engine.put(DEFAULT_MAP, &key(number % 10), b"", None).unwrap();
                engine.checkpoint().unwrap();
            }
            done.store(true, Ordering::Release);
        });
        let mut last = 0;
        while !done.load(Ordering::Acquire) {
            let generation = reader.superblock().unwrap().generation.get();
            assert!(generation >= last, "{generation} after {last}");
            last = generation;
        }
    });
}
