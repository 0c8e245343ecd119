//! Readers that have recovered a store in their own memory after a power cut, while others write to its file, are
//! killed, close it and recover it in turn.
#![cfg(unix)]
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stderr)]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use slotlog::{Changes, Error, HeldBy, Map, Opened, Options, Snapshot, Store};
use support::{Content, Random, content, content_of, folder, listen, read_only, say, setting};

fn options(random: &mut Random) -> Options {
    let options = Store::options();
    if random.one_in(2) { options.tiny_steps() } else { options }
}

fn is_aside(store: &Store) -> bool {
    // A follower is beside a process that writes, or has written.
    store.stats().is_ok_and(|stats| matches!(stats.opened, Opened::AfterPowerCut { .. }))
}

/// Said by a process that may be killed at any time.
const IN_THE_MIDDLE: &str = "in the middle";

/// A random change of a store.
fn change(store: &Store, random: &mut Random, count: u64) {
    let numbers: Map<u64, u64> = store.map("numbers").unwrap();
    for _ in 0..count {
        let key = random.below(150).to_le_bytes();
        match random.below(200) {
            0 => store.clear().unwrap(),
            1 => store.sync().unwrap(),
            2 => store.checkpoint().unwrap(),
            3 => drop(store.compact().unwrap()),
            4 | 5 => drop(store.maintain(Duration::from_millis(5)).unwrap()),
            6 => {
                let mut transaction = store.begin().unwrap();
                (0..5_u64).for_each(|key| transaction.insert(key.to_le_bytes(), b"in a transaction").unwrap());
                transaction.commit().unwrap();
            }
            7..30 => drop(store.remove(key).unwrap()),
            30..50 => numbers.insert(random.below(50), random.next()).unwrap(),
            _ => {
                let longest = if random.one_in(20) { 20_000 } else { 400 };
                let len = random.below(longest) as usize;
                store.insert(key, random.bytes(len)).unwrap();
            }
        }
    }
}

#[test]
#[ignore = "only a part of other tests"]
fn child() {
    let Some((role, path)) = support::role() else { return };
    let mut random = Random(role.parse().unwrap());
    // Most of them open it as usual, and all of those count as one kind.
    let how = random.below(8).min(3);
    let mut options = options(&mut random);
    match how {
        0 => options = options.exclusive(true),
        1 | 2 => options = options.untrusted(true),
        _ => {}
    }
    let store = match options.open(&path) {
        Ok(store) => store,
        Err(Error::Locked { by: by @ (HeldBy::Private | HeldBy::Readers), .. }) => {
            return say(&format!("refused {how} {by:?}"));
        }
        Err(error) => panic!("{error}"),
    };
    assert_ne!(how, 0, "this one had to be alone");
    say(&format!("{how} {:?}", store.opened()));
    let count = random.below(1500);
    change(&store, &mut random, count);
    match random.below(6) {
        0 => store.close().unwrap(),
        1 => {
            let mut transaction = store.begin().unwrap();
            transaction.insert("never", "committed").unwrap();
            std::process::abort();
        }
        2 => {
            say(IN_THE_MIDDLE);
            std::thread::spawn(move || {
                let mut random = Random(random.next());
                change(&store, &mut random, u64::MAX);
            });
            std::thread::sleep(Duration::from_micros(200 + u64::from(std::process::id()) % 2000));
            std::process::abort();
        }
        3 => {
            // Again in the same process, beside the first opening.
            let other = Store::open(&path).unwrap();
            change(&other, &mut random, count);
        }
        _ => std::process::abort(),
    }
}

/// A reader, and the snapshots it holds.
struct Reader {
    store: Store,
    numbers: Map<u64, u64>,
    held: Vec<(Snapshot, Content)>,
    changes: Vec<(Changes, usize)>,
    /// It only looks at its snapshots, so it does not notice newcomers.
    sleeps: bool,
}

impl Reader {
    fn open(path: &Path) -> Reader {
        let store = read_only(path).unwrap();
        let numbers = store.map("numbers").unwrap();
        let mut reader = Reader { store, numbers, held: Vec::new(), changes: Vec::new(), sleeps: false };
        reader.hold();
        reader
    }

    fn hold(&mut self) {
        let snapshot = self.store.snapshot().unwrap();
        let seen = content_of(&snapshot);
        self.held.push((snapshot, seen));
        if let Ok(changes) = self.store.changes_since(0) {
            let count = changes.iter().filter(|change| change.is_ok()).count();
            assert!(changes.iter().all(|change| change.is_ok()));
            self.changes.push((changes, count));
        }
    }

    /// Its snapshots are unchanged.
    fn check(&self, random: &mut Random) {
        for (snapshot, seen) in &self.held {
            if random.one_in(4) {
                assert!(content_of(snapshot) == *seen, "what a snapshot sees has changed");
            }
            let key = random.below(150).to_le_bytes();
            assert_eq!(snapshot.get(key).unwrap(), seen.get(&key[..]).map(|value| &value[..]));
            snapshot.of(&self.numbers).get(random.below(50)).unwrap();
        }
        for (changes, count) in &self.changes {
            if random.one_in(8) {
                assert_eq!(changes.iter().filter(|change| change.is_ok()).count(), *count);
            }
        }
        if self.sleeps {
            return;
        }
        let key = random.below(150);
        self.store.get(key.to_le_bytes()).unwrap();
        self.numbers.get(key).unwrap();
        self.store.len().unwrap();
    }
}

/// One round; notes what was seen.
fn round(seed: u64, seen: &mut BTreeSet<String>) {
    let mut random = Random(seed);
    let folder = folder();
    let (path, cut) = (folder.path().join("store"), folder.path().join("cut"));
    let store = options(&mut random).open(&path).unwrap();
    let count = random.below(2000);
    change(&store, &mut random, count);
    if random.one_in(2) {
        store.sync().unwrap();
    }
    fs::copy(&path, &cut).unwrap();
    drop(store);

    let mut readers = vec![Reader::open(&cut)];
    readers[0].sleeps = random.one_in(2);
    assert!(matches!(readers[0].store.opened(), Opened::AfterPowerCut { .. }), "seed {seed}");
    let mut was_in_the_middle = false;
    for _ in 0..random.below(5) + 2 {
        let mut life = support::child(&random.next().to_string(), &cut);
        life.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        let mut life = life.spawn().unwrap();
        let said = listen(&mut life);
        while life.try_wait().unwrap().is_none() {
            readers.iter().for_each(|reader| reader.check(&mut random));
            if random.one_in(30) && readers.len() < 4 {
                // Beside an opener or a recovery, it may have to wait too long.
                match read_only(&cut) {
                    Ok(store) if store.map::<u64, u64>("numbers").is_ok() => drop(store),
                    Ok(_) | Err(Error::Locked { .. }) => {}
                    Err(error) => panic!("seed {seed}: {error}"),
                }
            }
        }
        let said: Vec<String> = said.iter().collect();
        let mut errors = String::new();
        std::io::Read::read_to_string(&mut life.stderr.take().unwrap(), &mut errors).unwrap();
        assert!(!errors.contains("panicked"), "seed {seed}: {errors}");
        let is_in_the_middle = said.last().is_some_and(|said| said == IN_THE_MIDDLE);
        let said = said.first().unwrap_or_else(|| panic!("seed {seed}: {errors}"));
        let is_refused = said.starts_with("refused");
        // A kill between the seal and the commit point leaves a state that only the log explains, and nothing is
        // rebuilt under the eyes of readers.
        let may_be_refused =
            was_in_the_middle || ["refused 0", "refused 1", "refused 2"].contains(&&said[..9.min(said.len())]);
        assert!(!is_refused || may_be_refused, "seed {seed}: {said}");
        was_in_the_middle = is_in_the_middle || is_refused && was_in_the_middle;
        seen.insert(said.split_inclusive([' ', '{']).take(3).collect());

        let other = read_only(&cut).unwrap();
        let now = content(&other);
        // A recovery from the log takes what was killed right before the commit point for a commit.
        let is_in_doubt = is_in_the_middle && matches!(other.opened(), Opened::AfterPowerCut { .. });
        for reader in &mut readers {
            reader.check(&mut random);
            if !is_refused && !reader.sleeps && !is_in_doubt {
                assert!(content(&reader.store) == now, "seed {seed}: a reader has not followed");
                let report = reader.store.verify().unwrap();
                assert!(report.is_clean(), "seed {seed}: {:?}", report.findings());
            }
            match random.below(6) {
                0 => reader.hold(),
                1 => {
                    reader.held.clear();
                    reader.changes.clear();
                }
                2 => {
                    seen.insert(format!("aside: {}", is_aside(&reader.store)));
                    reader.sleeps = !reader.sleeps;
                }
                _ => {}
            }
        }
        drop(other);
        if random.one_in(2) {
            readers.push(Reader::open(&cut));
        }
        if random.one_in(4) && readers.len() > 1 {
            readers.swap_remove(random.below(readers.len() as u64) as usize);
        }
    }
    drop(readers);
    let store = Store::options().exclusive(true).open(&cut).unwrap();
    assert!(store.verify().unwrap().is_clean(), "seed {seed}");
}

#[test]
fn writers_come_and_go_beside_readers_that_have_recovered_for_themselves() {
    let (mut seen, first) = (BTreeSet::new(), setting("SLOTLOG_TEST_SEED", 1));
    for seed in first..first + setting("SLOTLOG_TEST_ROUNDS", 30) {
        round(seed, &mut seen);
    }
    // All situations of interest have occurred.
    for what in
        ["3 AfterPowerCut {", "3 AfterKill", "3 Clean", "1 AfterPowerCut {", "refused 1 ", "refused 0 ", "aside: false"]
    {
        assert!(seen.iter().any(|seen| seen.starts_with(what)), "{what} is missing in {seen:?}");
    }
}
