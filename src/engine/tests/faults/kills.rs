//! SIGKILL at every store of a commit. (At random moments, and among many processes: `tests/processes`.)
//!
//! A child commits numbered singles and transactions, and reports each return through a pipe. It counts its stores; at
//! the nth it stops, says so, and is killed. Then the store is opened again: reported commits are there, and of each
//! unreported one all or nothing.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::{
    Content, NAMED, batch_of, check, content, drop_named, expires, key, map_of, put, rename, seal_agrees, support,
    value,
};
use crate::engine::Engine;
use crate::engine::settings::{Durability, Opened, Settings};
use crate::file::layout::DEFAULT_MAP;
use crate::file::witness::Recorder;

pub(super) const STORES: &str = "SLOTLOG_TEST_STORES";

/// Stops the process at a store.
pub(super) struct Stop {
    pub(super) left: AtomicU64,
}

impl Stop {
    fn count(&self) {
        if self.left.fetch_sub(1, Ordering::SeqCst) == 0 {
            support::say("stopped");
            loop {
                std::thread::sleep(Duration::from_secs(60));
            }
        }
    }
}

impl Recorder for Stop {
    fn write(&self, _offset: u64, _bytes: &[u8]) {
        self.count();
    }
    fn store(&self, _offset: u64, _value: u64) {
        self.count();
    }
    fn flush(&self, _offset: u64, _len: u64) -> std::io::Result<()> {
        self.count();
        Ok(())
    }
    fn set_len(&self, _len: u64) {
        self.count();
    }
}

/// The commits of the child, in this order.
#[derive(Clone)]
enum Commit {
    Put(u16, u32),
    Remove(u16),
    Transaction(Vec<(u16, Option<u32>)>),
    Clear,
    /// The named map gets the other name.
    Rename,
    /// It is dropped.
    Drop,
}

fn before() -> Vec<Commit> {
    (0..270).map(|number| Commit::Put(number, 20)).chain([Commit::Put(1, 50_000), Commit::Remove(9)]).collect()
}

fn commits() -> Vec<Commit> {
    vec![
        Commit::Put(300, 50),
        Commit::Put(3, 700),
        Commit::Remove(4),
        Commit::Put(4, 10),
        Commit::Transaction(vec![(5, Some(30)), (301, Some(9)), (6, None), (5, Some(40)), (4, None)]),
        // To another extent of the log, as a single and in a transaction.
        Commit::Put(7, 70_000),
        Commit::Transaction(vec![(8, Some(40_000)), (302, Some(50_000))]),
        // The index grows.
        Commit::Transaction((303..330).map(|number| (number, Some(5))).collect()),
        Commit::Clear,
        Commit::Put(1, 12),
        // Another map.
        Commit::Put(NAMED | 3, 30),
        Commit::Transaction(vec![(NAMED | 3, None), (5, Some(30)), (NAMED | 4, Some(40)), (NAMED | 6, Some(9))]),
        Commit::Rename,
        Commit::Remove(NAMED | 4),
        Commit::Drop,
        Commit::Put(NAMED | 3, 12),
    ]
}

fn apply(content: &mut Content, commit: &Commit, number: u32) {
    let mut change = |key: u16, len: Option<u32>| match len {
        Some(len) => drop(content.insert(key, (number, len))),
        None => drop(content.remove(&key)),
    };
    match commit {
        &Commit::Put(key, len) => change(key, Some(len)),
        &Commit::Remove(key) => change(key, None),
        Commit::Transaction(changes) => changes.iter().for_each(|&(key, len)| change(key, len)),
        Commit::Clear => content.retain(|key, _| key & NAMED != 0),
        Commit::Rename => {}
        Commit::Drop => content.retain(|key, _| key & NAMED == 0),
    }
}

fn make(engine: &Arc<Engine>, commit: &Commit, number: u32) {
    match commit {
        &Commit::Put(at, len) => put(engine, at, (number, len)).unwrap(),
        &Commit::Remove(at) => assert!(engine.remove(map_of(engine, at).unwrap(), &key(at)).unwrap()),
        Commit::Transaction(changes) => {
            let changes = changes.iter().map(|&(at, len)| (at, len.map(|len| (number, len))));
            batch_of(engine, changes).unwrap().commit(Durability::Buffered).unwrap();
        }
        Commit::Clear => engine.clear(DEFAULT_MAP).unwrap(),
        Commit::Rename => rename(engine).unwrap(),
        Commit::Drop => drop_named(engine).unwrap(),
    }
}

#[test]
#[ignore = "what another test starts in a process of its own"]
fn child() {
    let Some((_, path)) = support::role() else { return };
    let engine = Arc::new(Engine::open(&path, Settings::default()).unwrap());
    before().iter().zip(0..).for_each(|(commit, number)| make(&engine, commit, number));
    let left = AtomicU64::new(std::env::var(STORES).unwrap().parse().unwrap());
    engine.mapping.set_recorder(Arc::new(Stop { left }));
    for (commit, number) in commits().iter().zip(1000..) {
        make(&engine, commit, number);
        support::say(&number.to_string());
    }
    support::say("ended");
    // Killed or not, it never closes.
    std::process::exit(0);
}

/// Runs the child until its nth store. Returns the last commit it reported, and whether it finished.
fn run_until(path: &Path, stores: u64) -> (Option<u32>, bool) {
    let mut child = support::child_of("engine::tests::faults::kills::child", "killed", path);
    let mut child = child.env(STORES, stores.to_string()).stdout(Stdio::piped()).spawn().unwrap();
    let mut reported = None;
    let mut ended = false;
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        match support::said(&line.unwrap()) {
            Some("stopped") => break,
            Some("ended") => ended = true,
            Some(number) => reported = Some(number.parse().unwrap()),
            None => {}
        }
    }
    child.kill().unwrap();
    child.wait().unwrap();
    (reported, ended)
}

#[test]
fn a_kill_at_every_store() {
    let folder = support::folder();
    let mut contents = vec![Content::new()];
    before().iter().zip(0..).for_each(|(commit, number)| apply(&mut contents[0], commit, number));
    for (commit, number) in commits().iter().zip(1000..) {
        let mut next = contents[contents.len() - 1].clone();
        apply(&mut next, commit, number);
        contents.push(next);
    }
    let (mut kills, mut came_through, mut doubts) = (0, 0, 0);
    loop {
        let path = folder.path().join(kills.to_string());
        let (reported, ended) = run_until(&path, kills);
        let reported = reported.map_or(0, |number| number as usize - 999);
        // Between the stores of the seal and of the commit point, both are in doubt.
        let agrees = seal_agrees(&std::fs::read(&path).unwrap());
        doubts += u64::from(!agrees);
        let engine = Engine::open(&path, Settings::default()).unwrap();
        let expected = engine.mapping.identity().is_some() && agrees;
        assert_eq!(engine.opened == Opened::AfterKill, expected, "{:?}", engine.opened);
        let found = content(&engine).unwrap();
        let half = contents.get(reported + 1).is_some_and(|next| *next == found);
        assert!(found == contents[reported] || half, "killed at store {kills}, after {reported} commits had returned");
        came_through += u32::from(half);
        check(&engine).unwrap();
        engine.put(DEFAULT_MAP, &key(77), &value((9999, 20)), expires(77)).unwrap();
        let mut expected = found;
        expected.insert(77, (9999, 20));
        assert_eq!(content(&engine).unwrap(), expected);
        check(&engine).unwrap();
        drop(engine);
        std::fs::remove_file(&path).unwrap();
        if ended {
            break;
        }
        kills += 1;
    }
    println!("{kills} kills; {came_through} commits were there that had not returned");
    // One store for each commit and for each change of the space table, and a few when the file grows.
    assert!(kills > 100 && came_through > 10 && doubts < kills / 6, "{doubts} of {kills} were in doubt");
}
