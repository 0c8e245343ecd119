//! Reads at the very end of a thread.

use super::*;

/// Runs a closure when the locals of a thread are dropped.
#[derive(Default)]
pub(super) struct AtTheEnd(RefCell<Option<Box<dyn FnOnce()>>>);

impl Drop for AtTheEnd {
    fn drop(&mut self) {
        if let Some(work) = self.0.take() {
            work();
        }
    }
}

thread_local! {
    static ONE: AtTheEnd = AtTheEnd::default();
    static TWO: AtTheEnd = AtTheEnd::default();
}

/// Messages of a thread that is ending.
pub(super) enum Told {
    /// It begins to look; holds the number of the next look.
    Starts(Arc<AtomicU64>),
    /// Whether the value stayed the same.
    Stays(bool),
}

/// Takes some nanoseconds.
pub(super) fn dawdle(time: u64) {
    for step in 0..time {
        std::hint::black_box(step);
    }
}

/// Looks at a value until all keys were written `rounds` more times, and says whether the value stayed the same.
pub(super) fn stays_the_same(store: &Store, key: u64, rounds: u64, written: &AtomicU64) -> bool {
    let stays = store.get_with(key.to_le_bytes(), |bytes| {
        let before = bytes.to_vec();
        counter(&before);
        let until = written.load(Ordering::SeqCst) + rounds;
        while written.load(Ordering::SeqCst) < until && bytes == before {
            thread::yield_now();
        }
        bytes == before
    });
    stays.unwrap().unwrap()
}

#[test]
fn a_thread_may_read_until_its_very_end() {
    const KEYS: u64 = 2;
    let store = Store::options().tiny_steps().in_memory().unwrap();
    let elsewhere = Store::in_memory().unwrap();
    elsewhere.insert("key", "value").unwrap();
    for key in 0..KEYS {
        store.insert(key.to_le_bytes(), value(key, 3000)).unwrap();
    }
    let (written, done) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let writer = {
        let (store, written, done) = (store.clone(), Arc::clone(&written), Arc::clone(&done));
        thread::spawn(move || {
            for round in 1.. {
                if done.load(Ordering::SeqCst) {
                    break;
                }
                for key in 0..KEYS {
                    store.insert(key.to_le_bytes(), value(KEYS * round + key, 3000)).unwrap();
                }
                written.store(round, Ordering::SeqCst);
            }
        })
    };
    let (mut looks, mut changed) = (0, Vec::new());
    // A letter for each action of a thread before it ends: a read from this store, or from another; or the first use of
    // one of its two locals. The order in which these are dropped depends on that.
    for order in ["1r", "r1", "1r2", "2r1", "1ro", "1or", "o1r2", "12", "1", "ro1r2"] {
        let (tell, told) = std::sync::mpsc::channel();
        let at_the_end = {
            let (store, written) = (store.clone(), Arc::clone(&written));
            move |local: &'static LocalKey<AtTheEnd>| {
                let (store, written, tell) = (store.clone(), Arc::clone(&written), tell.clone());
                let work = move || {
                    let starts = Arc::new(AtomicU64::new(0));
                    tell.send(Told::Starts(Arc::clone(&starts))).unwrap();
                    let mut random = Random(7);
                    for look in (2..).step_by(2).take(setting("SLOTLOG_LAST_LOOKS", 60) as usize) {
                        // The newcomer reads at about the same time.
                        starts.store(look, Ordering::SeqCst);
                        while starts.load(Ordering::SeqCst) == look {
                            std::hint::spin_loop();
                        }
                        dawdle(random.below(100));
                        tell.send(Told::Stays(stays_the_same(&store, look % KEYS, 3, &written))).unwrap();
                    }
                    starts.store(u64::MAX - 1, Ordering::SeqCst);
                };
                local.with(|local| local.0.replace(Some(Box::new(work))));
            }
        };
        let (of_thread, elsewhere) = (store.clone(), elsewhere.clone());
        let ends = thread::spawn(move || {
            for step in order.chars() {
                match step {
                    '1' => at_the_end(&ONE),
                    '2' => at_the_end(&TWO),
                    'r' => assert!(of_thread.contains_key(0_u64.to_le_bytes()).unwrap()),
                    _ => assert!(elsewhere.contains_key("key").unwrap()),
                }
            }
        });
        // Newcomers may take the pin that the thread has given back.
        let mut newcomers = Vec::new();
        for told in told {
            match told {
                Told::Starts(starts) => {
                    let store = store.clone();
                    newcomers.push(thread::spawn(move || {
                        let mut random = Random(8);
                        for look in (2..).step_by(2) {
                            store.get_with(0_u64.to_le_bytes(), <[u8]>::len).unwrap();
                            while starts.load(Ordering::SeqCst) < look {
                                thread::yield_now();
                            }
                            if starts.fetch_add(1, Ordering::SeqCst) == u64::MAX - 1 {
                                break;
                            }
                            dawdle(random.below(100));
                        }
                    }));
                }
                Told::Stays(stays) => {
                    looks += 1;
                    if !stays {
                        changed.push((order, looks));
                    }
                }
            }
        }
        newcomers.into_iter().chain([ends]).for_each(|thread| thread.join().unwrap());
    }
    done.store(true, Ordering::SeqCst);
    writer.join().unwrap();
    assert!(changed.is_empty(), "values changed while they were looked at (order, look): {changed:?}");
    assert_eq!(store.stats().unwrap().pins, 0, "all pins were given back");
    assert_clean(&store);
}
