//! Copies made while a process wrote to the store, or began to: put back over the file, or opened beside it.
//!
//! Another process writes numbered commits, each of which changes several keys, and reports its progress after each
//! sync. Meanwhile this one copies the file, at once or slowly. Such a copy opens as the content of one commit, and of
//! none before the last sync before the copy began; or it is refused, with an error that says what it is.

#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout)]

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use slotlog::{Error, Opened, Store};

mod support;

use support::{Player, Random, folder, role, say, setting, stop_flag};

/// Keys that the commits change.
const KEYS: u64 = 400;

fn rounds() -> u64 {
    setting("SLOTLOG_TEST_ROUNDS", 6)
}

/// The changes of the commit with this number: keys, and the lengths of their values; `None` removes.
fn changes(number: u64) -> Vec<(u64, Option<usize>)> {
    let mut random = Random(number);
    (0..1 + random.below(6))
        .map(|_| (random.below(KEYS), (!random.one_in(4)).then(|| random.below(1500) as usize)))
        .collect()
}

fn key(number: u64) -> Vec<u8> {
    format!("key {number}").into_bytes()
}

fn value(commit: u64, len: usize) -> Vec<u8> {
    let mut value = commit.to_le_bytes().to_vec();
    value.resize(8 + len, commit as u8);
    value
}

const COUNTER: &[u8] = b"the last commit";

/// The content after this commit.
fn content_after(commit: u64) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut content = BTreeMap::new();
    for number in 1..=commit {
        for (at, new) in changes(number) {
            match new {
                Some(len) => drop(content.insert(key(at), value(number, len))),
                None => drop(content.remove(&key(at))),
            }
        }
        content.insert(COUNTER.to_vec(), value(number, 0));
    }
    content
}

/// The number of the last commit, and whether the content is as expected after it.
fn last_commit(store: &Store) -> Result<u64, String> {
    let text = |error: Error| error.to_string();
    let last = store.get(COUNTER).map_err(text)?.map_or(0, |value| u64::from_le_bytes(value[..8].try_into().unwrap()));
    let mut content = BTreeMap::new();
    for entry in store.snapshot().map_err(text)?.iter() {
        let (key, value) = entry.map_err(text)?;
        content.insert(key.to_vec(), value.to_vec());
    }
    let expected = content_after(last);
    if store.len().map_err(text)? != expected.len() as u64 {
        return Err(format!("len is {} after commit {last}, not {}", store.len().map_err(text)?, expected.len()));
    }
    if content != expected {
        let wrong = expected.iter().filter(|(key, value)| content.get(*key) != Some(value)).count();
        return Err(format!("{wrong} of {} keys are not as after commit {last}", expected.len()));
    }
    let report = store.verify().map_err(text)?;
    if report.is_clean() { Ok(last) } else { Err(format!("verify: {:?}", report.findings())) }
}

/// Commits repeatedly from where the store is, until it is told to stop; then closes the store.
fn write_on(path: &Path) {
    let stop = stop_flag();
    let store = Store::options().checkpoint_every(256 << 10).open(path).unwrap();
    let mut number = store.get(COUNTER).unwrap().map_or(0, |value| u64::from_le_bytes(value[..8].try_into().unwrap()));
    say("open");
    while !stop.load(Ordering::SeqCst) {
        number += 1;
        let mut transaction = store.begin().unwrap();
        for (at, new) in changes(number) {
            match new {
                Some(len) => transaction.insert(key(at), value(number, len)).unwrap(),
                None => drop(transaction.remove(key(at)).unwrap()),
            }
        }
        transaction.insert(COUNTER, value(number, 0)).unwrap();
        transaction.commit().unwrap();
        if Random(number).one_in(20) {
            store.sync().unwrap();
            say(&number.to_string());
        }
    }
    store.close().unwrap();
    say(&number.to_string());
}

#[test]
#[ignore = "plays a role for another test"]
fn child() {
    let Some((_, path)) = role() else { return };
    write_on(&path);
}

/// The process that writes.
struct Writer {
    player: Player,
    synced: u64,
}

impl Writer {
    fn start(path: &Path) -> Writer {
        let player = Player::start("writer", "", path);
        assert_eq!(player.next(), "open");
        Writer { player, synced: 0 }
    }

    /// Waits until it has synced `commits` commits.
    fn wait_for(&mut self, commits: u64) {
        while self.synced < commits {
            self.synced = self.player.next().parse().unwrap();
        }
    }

    /// The last commit that is known to be synced.
    fn synced(&mut self) -> u64 {
        if let Some(last) = self.player.so_far().last() {
            self.synced = last.parse().unwrap();
        }
        self.synced
    }

    fn kill(self) {
        self.player.kill();
    }

    /// Makes it close the store. Returns its last commit.
    fn stop(self) -> u64 {
        self.player.stop().last().map_or(self.synced, |last| last.parse().unwrap())
    }
}

/// Copies from front to back, in blocks and with pauses; `at` is called before each block.
fn copy_slowly(from: &Path, to: &Path, random: &mut Random, mut at: impl FnMut(u64)) {
    let (mut from, mut to) = (File::open(from).unwrap(), File::create(to).unwrap());
    let (mut block, mut number) = ([0; 4096], 0);
    let pause_every = 1 + random.below(30);
    loop {
        at(number);
        let read = from.read(&mut block).unwrap();
        if read == 0 {
            return;
        }
        to.write_all(&block[..read]).unwrap();
        if number % pause_every == 0 {
            thread::sleep(Duration::from_micros(random.below(1500)));
        }
        number += 1;
    }
}

fn copy(from: &Path, to: &Path, random: &mut Random) {
    if random.one_in(3) {
        fs::copy(from, to).unwrap();
    } else {
        copy_slowly(from, to, random, |_| {});
    }
}

/// Puts a copy back over the file, which stays the same file.
fn put_back(copy: &Path, path: &Path) {
    let bytes = fs::read(copy).unwrap();
    let mut file = OpenOptions::new().write(true).truncate(true).open(path).unwrap();
    file.write_all(&bytes).unwrap();
}

/// The outcomes of the copies, and the defects of some.
#[derive(Default)]
struct Outcomes {
    counts: BTreeMap<&'static str, u64>,
    wrong: Vec<String>,
}

impl Outcomes {
    /// Opens a copy, which must hold at least commit `synced`.
    fn look(&mut self, path: &Path, synced: u64) {
        let store = match Store::open(path) {
            Ok(store) => store,
            Err(error) if error.to_string().contains("a copy of a store in use") => {
                *self.counts.entry("refused").or_default() += 1;
                return;
            }
            Err(error) => return self.wrong.push(format!("does not open: {error}")),
        };
        let opened = match store.opened() {
            Opened::Clean => "Clean",
            Opened::AfterKill => "AfterKill",
            Opened::AfterPowerCut { .. } => "AfterPowerCut",
            _ => "otherwise",
        };
        *self.counts.entry(opened).or_default() += 1;
        let found = match last_commit(&store) {
            Ok(found) if found < synced => {
                return self.wrong.push(format!("{opened}: commit {synced} was synced, and {found} is the last one"));
            }
            Ok(found) => found,
            Err(wrong) => return self.wrong.push(format!("{opened}: {wrong}")),
        };
        store.insert("another key", "value").unwrap();
        store.remove("another key").unwrap();
        store.close().unwrap();
        let store = Store::open(path).unwrap();
        if store.opened() != Opened::Clean || last_commit(&store) != Ok(found) {
            self.wrong.push(format!("{opened}, and then {:?}: {:?}", store.opened(), last_commit(&store)));
        }
    }

    fn judge(self, what: &str) {
        println!("{what}: {:?}, wrong: {}", self.counts, self.wrong.len());
        assert!(self.wrong.is_empty(), "{what}: {:?}, wrong: {:#?}", self.counts, self.wrong);
    }
}

/// Copies a store in use, once in each round. `end` decides what becomes of the writer, of the store and of the copy
/// beside it, and has one of them checked.
fn copied_in_use(what: &str, seed: u64, end: impl Fn(Writer, &Path, &Path, &mut dyn FnMut(&Path))) {
    let folder = folder();
    let mut outcomes = Outcomes::default();
    for round in 0..rounds() {
        let mut random = Random(seed + round);
        let (path, beside) = (folder.path().join(format!("{round}")), folder.path().join("copy"));
        let mut writer = Writer::start(&path);
        writer.wait_for(20 + random.below(2000));
        let synced = writer.synced();
        copy(&path, &beside, &mut random);
        end(writer, &path, &beside, &mut |path| outcomes.look(path, synced));
        fs::remove_file(&path).unwrap();
    }
    outcomes.judge(what);
}

#[test]
fn a_copy_put_back_after_a_kill() {
    copied_in_use("put back after a kill", 0, |writer, path, beside, look| {
        writer.kill();
        put_back(beside, path);
        look(path);
    });
}

#[test]
fn a_copy_put_back_after_closing() {
    copied_in_use("put back after closing", 1000, |writer, path, beside, look| {
        writer.stop();
        put_back(beside, path);
        look(path);
    });
}

#[test]
fn a_copy_opened_beside_the_store() {
    copied_in_use("opened beside", 2000, |writer, _, beside, look| {
        look(beside);
        writer.kill();
    });
}

#[test]
fn a_copy_begun_while_the_store_was_closed() {
    let folder = folder();
    let mut outcomes = Outcomes::default();
    for round in 0..rounds() {
        let mut random = Random(3000 + round);
        let (path, beside) = (folder.path().join(format!("{round}")), folder.path().join("copy"));
        let mut writer = Writer::start(&path);
        writer.wait_for(20 + random.below(1000));
        let closed_after = writer.stop();
        let begin_at = random.below(fs::metadata(&path).unwrap().len() / 4096);
        let more = 1 + random.below(500);
        let mut writer = None;
        copy_slowly(&path, &beside, &mut random, |block| {
            if block == begin_at {
                let mut begun = Writer::start(&path);
                begun.wait_for(closed_after + more);
                writer = Some(begun);
            }
        });
        if let Some(writer) = writer {
            writer.kill();
        }
        if round % 2 == 0 {
            outcomes.look(&beside, closed_after);
        } else {
            put_back(&beside, &path);
            outcomes.look(&path, closed_after);
        }
        fs::remove_file(&path).unwrap();
    }
    outcomes.judge("begun while closed");
}

#[test]
fn a_copy_of_a_closed_store_opens_at_once() {
    let folder = folder();
    let (path, beside) = (folder.path().join("store"), folder.path().join("copy"));
    let mut writer = Writer::start(&path);
    writer.wait_for(500);
    let last = writer.stop();
    fs::copy(&path, &beside).unwrap();
    let bytes = fs::read(&beside).unwrap();
    for access in [slotlog::Access::ReadOnly, slotlog::Access::CopyOnWrite, slotlog::Access::ReadWrite] {
        for path in [&beside, &path] {
            let store = Store::options().access(access).open(path).unwrap();
            assert_eq!(store.opened(), Opened::Clean, "{access:?}");
            assert_eq!(last_commit(&store), Ok(last));
        }
        assert!(access == slotlog::Access::ReadWrite || fs::read(&beside).unwrap() == bytes);
    }
}
