//! Backups while others write: each is one commit.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use slotlog::Expiry;

use super::*;

/// Keys of a writer that exist at a time.
const WINDOW: u64 = 40;

const WRITERS: u64 = 3;

fn value(n: u64) -> Vec<u8> {
    Random(n).bytes(n as usize % 400)
}

/// Step `n` of a writer: one transaction, which leaves everything in a state that only this number has.
fn step(store: &Store, writer: u64, n: u64) {
    let counts = store.map::<u64, u64>("counts").unwrap();
    let mut transaction = store.begin().unwrap();
    transaction.insert_with_expiry(format!("{writer}:{n}"), value(n), in_2100() + Duration::from_secs(n)).unwrap();
    if n > WINDOW {
        assert!(transaction.remove(format!("{writer}:{}", n - WINDOW)).unwrap());
    }
    transaction.insert(format!("count:{writer}"), n.to_le_bytes()).unwrap();
    transaction.of(&counts).insert(writer, n).unwrap();
    transaction.commit().unwrap();
    if n.is_multiple_of(50) {
        store.rename_map(&format!("even {writer}"), &format!("odd {writer}")).unwrap();
        store.map::<u64, u64>(&format!("even {writer}")).unwrap().insert(0, n).unwrap();
    }
}

pub(super) fn write_on(path: &Path, writer: u64) {
    let stop = stop_flag();
    let store = Store::options().tiny_steps().open(path).unwrap();
    for n in 1.. {
        if stop.load(Ordering::SeqCst) {
            break;
        }
        step(&store, writer, n);
        if n == 100 {
            say("ready");
        }
    }
    store.close().unwrap();
}

/// Checks that a copy has the state after some step of each writer. Returns the sum of these.
fn check(copy: &Store) -> u64 {
    assert_clean(copy);
    let counts = copy.map::<u64, u64>("counts").unwrap();
    let (mut sum, mut keys) = (0, 0);
    for writer in 0..WRITERS {
        let Some(count) = copy.get(format!("count:{writer}")).unwrap() else {
            assert_eq!(counts.get(writer).unwrap(), None);
            continue;
        };
        let n = u64::from_le_bytes(count.try_into().unwrap());
        assert_eq!(counts.get(writer).unwrap(), Some(n), "half a transaction");
        for step in (n + 1).saturating_sub(WINDOW).max(1)..=n {
            let key = format!("{writer}:{step}");
            assert_eq!(copy.get(&key).unwrap(), Some(value(step)), "step {step} of {n}");
            assert_eq!(copy.expiry(&key).unwrap(), Some(Expiry::At(in_2100() + Duration::from_secs(step))));
            keys += 1;
        }
        (sum, keys) = (sum + n, keys + 1);
    }
    assert_eq!(copy.len().unwrap(), keys);
    sum
}

/// Waits until an opener sees more than this sum of steps. With more writers than processors it may take some time
/// until the next one has its turn.
fn wait_for_steps_after(opener: &Store, sum: u64) {
    let counts = opener.map::<u64, u64>("counts").unwrap();
    let steps = || (0..WRITERS).map(|writer| counts.get(writer).unwrap().unwrap_or_default()).sum::<u64>();
    let start = Instant::now();
    while steps() <= sum {
        assert!(start.elapsed() < Duration::from_secs(60), "the writers go on");
        thread::yield_now();
    }
}

/// Tells the writers to stop, also if a check fails.
struct Stopping<'s>(&'s AtomicBool);

impl Drop for Stopping<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn prepared(path: &Path) -> Store {
    let store = Store::options().tiny_steps().open(path).unwrap();
    store.map::<u64, u64>("counts").unwrap();
    // Enough that a backup takes several transactions, and writers commit in between.
    store.map::<u64, u64>("still").unwrap().extend((0..20_000).map(|n| (n, n))).unwrap();
    store
}

#[test]
fn it_equals_one_commit_of_threads_that_write() {
    let folder = folder();
    let (path, copied) = (folder.path().join("store"), folder.path().join("copy"));
    let store = prepared(&path);
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let _stopping = Stopping(&stop);
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let (store, stop) = (&store, &stop);
                scope.spawn(move || {
                    (1..).take_while(|_| !stop.load(Ordering::Relaxed)).for_each(|n| step(store, writer, n));
                })
            })
            .collect();
        let (mut before, mut meanwhile) = (0, 0);
        for round in 0..setting("SLOTLOG_TEST_ROUNDS", 20) {
            let snapshot = store.snapshot().unwrap();
            let mut seqs = Vec::new();
            let options = overwriting().on_progress(|_| {
                seqs.push(store.seq().unwrap());
                ControlFlow::Continue(())
            });
            // As often of a commit that is looked at otherwise, too.
            let report = match round % 2 {
                0 => snapshot.backup_with(&copied, options),
                _ => store.backup_with(&copied, options),
            };
            let report = report.unwrap();
            meanwhile += u64::from(seqs[seqs.len() - 1]) - u64::from(seqs[0]);
            let copy = Store::open(&copied).unwrap();
            let sum = check(&copy);
            assert!(sum >= before, "a later backup is of a later commit");
            before = sum;
            assert_eq!(copy.map::<u64, u64>("still").unwrap().len().unwrap(), 20_000);
            if round % 2 == 0 {
                assert_eq!(report.seq, snapshot.seq());
                assert!(content(&copy) == content_of(&snapshot));
                assert_eq!(copy.len().unwrap(), snapshot.len());
            }
            assert!(writers.iter().all(|writer| !writer.is_finished()));
        }
        assert!(meanwhile > 0, "others commit during a backup");
    });
    assert_clean(&store);
}

#[test]
fn it_equals_one_commit_of_a_process_that_writes() {
    let folder = folder();
    let (path, copied) = (folder.path().join("store"), folder.path().join("copy"));
    prepared(&path).close().unwrap();
    for round in 0..3 {
        let writers: Vec<Player> = (0..WRITERS).map(|writer| Player::start("writer", writer, &path)).collect();
        writers.iter().for_each(|writer| assert_eq!(writer.next(), "ready"));
        let store = Store::open(&path).unwrap();
        let reader = Store::options().access(Access::ReadOnly).open(&path).unwrap();
        let mut before = 0;
        for opener in [&store, &reader, &store, &reader] {
            wait_for_steps_after(opener, before);
            opener.backup_with(&copied, overwriting()).unwrap();
            let sum = check(&Store::open(&copied).unwrap());
            assert!(sum > before, "it is of a commit that was there when it began");
            before = sum;
        }
        wait_for_steps_after(&store, before);
        // Killed in the middle of whatever they do, they leave the last commit.
        if round == 1 {
            writers.into_iter().for_each(|writer| drop(writer.kill()));
        } else {
            writers.into_iter().for_each(|writer| drop(writer.stop()));
        }
        store.backup_with(&copied, overwriting()).unwrap();
        let copy = Store::open(&copied).unwrap();
        assert!(check(&copy) > before);
        assert!(content(&copy) == content(&store));
        // The steps begin anew.
        store.clear().unwrap();
        store.map::<u64, u64>("counts").unwrap().clear().unwrap();
    }
}
