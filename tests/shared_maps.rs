//! The atomic operations of a `Map` are atomic across processes: nothing is lost, even if others change the same keys.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::collections::BTreeSet;
use std::process::Stdio;
use std::time::{Duration, Instant};

use slotlog::{Map, Store};
use support::{assert_clean, folder, role};

const PROCESSES: u64 = 4;
const EACH: u64 = 25_000;

fn counters(store: &Store) -> Map<str, u64> {
    store.map("counters").unwrap()
}

/// The roles that other tests start in their own processes.
#[test]
#[ignore = "what another test starts in a process of its own"]
fn child_process() {
    let Some((role, path)) = role() else { return };
    let store = Store::open(&path).unwrap();
    let counters = counters(&store);
    match role.as_str() {
        "update" => (0..EACH).for_each(|_| {
            counters.update("all", |count| Some(count.unwrap_or(0) + 1)).unwrap();
        }),
        "entry" => (0..EACH).for_each(|_| {
            counters.entry("all").and_modify(|count| *count += 1).or_insert(1).unwrap();
        }),
        "compare_exchange" => (0..EACH).for_each(|_| {
            let mut current = counters.get("all").unwrap();
            while let Err(there) =
                counters.compare_exchange("all", current.as_ref(), Some(&(current.unwrap_or(0) + 1))).unwrap()
            {
                current = there;
            }
        }),
        "transaction" => (0..EACH / 10).for_each(|_| {
            let mut transaction = store.begin().unwrap();
            let mut map = transaction.of(&counters);
            let count = map.get("all").unwrap().unwrap_or(0);
            map.insert("all", count + 10).unwrap();
            transaction.commit().unwrap();
        }),
        "pop" | "drain" => {
            let jobs = store.map::<u64, ()>("jobs").unwrap();
            counters.update("ready", |count| Some(count.unwrap_or(0) + 1)).unwrap();
            let mut sum = 0;
            let start = Instant::now();
            loop {
                assert!(start.elapsed() < Duration::from_secs(60), "nobody says that it is over");
                let some: Vec<u64> = match role.as_str() {
                    "pop" => jobs.pop().unwrap().into_iter().map(|(job, ())| job).collect(),
                    _ => jobs.drain().unwrap().map(|job| job.unwrap().0).collect(),
                };
                let stopped = some.contains(&u64::MAX);
                let done: Vec<u64> = some.into_iter().filter(|&job| job != u64::MAX).collect();
                sum += done.iter().sum::<u64>();
                counters.update("done", |count| Some(count.unwrap_or(0) + done.len() as u64)).unwrap();
                if stopped {
                    // For the next one.
                    jobs.insert(u64::MAX, ()).unwrap();
                    break;
                }
            }
            counters.update("sum", |count| Some(count.unwrap_or(0) + sum)).unwrap();
        }
        "create" => {
            for number in 0..200_u32 {
                let map = store.map::<u32, u32>(&format!("map {number}")).unwrap();
                map.update(number, |count| Some(count.unwrap_or(0) + 1)).unwrap();
                if number % 3 == 0 {
                    store.map::<str, ()>(&format!("mine {}", std::process::id())).unwrap().insert("here", ()).unwrap();
                    assert!(store.drop_map(&format!("mine {}", std::process::id())).unwrap());
                }
            }
        }
        other => panic!("{other}"),
    }
}

fn run(roles: &[&str], path: &std::path::Path) {
    let mut children: Vec<_> = roles
        .iter()
        .map(|role| support::child_of("child_process", role, path).stdout(Stdio::null()).spawn().unwrap())
        .collect();
    for child in &mut children {
        assert!(child.wait().unwrap().success());
    }
}

/// 100,000 increments by 4 processes, each in a different way.
#[test]
fn no_increment_is_lost() {
    let folder = folder();
    let path = folder.path().join("store");
    let store = Store::open(&path).unwrap();
    run(&["update", "entry", "compare_exchange", "transaction"], &path);
    assert_eq!(counters(&store).get("all").unwrap(), Some(PROCESSES * EACH));
    assert_clean(&store);
}

#[test]
fn each_entry_is_popped_or_drained_once() {
    let folder = folder();
    let path = folder.path().join("store");
    let store = Store::open(&path).unwrap();
    let jobs = store.map::<u64, ()>("jobs").unwrap();
    let all = 20_000;
    std::thread::scope(|scope| {
        scope.spawn(|| run(&["pop", "drain", "pop", "drain"], &path));
        while counters(&store).get("ready").unwrap() != Some(PROCESSES) {
            std::thread::sleep(Duration::from_millis(1));
        }
        for job in 1..=all {
            jobs.insert(job, ()).unwrap();
        }
        for _ in 0..20_000 {
            if counters(&store).get("done").unwrap() == Some(all) {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        jobs.insert(u64::MAX, ()).unwrap();
    });
    assert_eq!(counters(&store).get("sum").unwrap(), Some(all * (all + 1) / 2));
}

/// Commits made while a drain waits for its turn are drained, too.
#[test]
fn a_drain_takes_what_there_is_when_its_turn_comes() {
    let store = Store::in_memory().unwrap();
    let jobs = store.map::<u64, ()>("jobs").unwrap();
    jobs.insert(1, ()).unwrap();
    let mut transaction = store.begin().unwrap();
    transaction.of(&jobs).insert(2, ()).unwrap();
    std::thread::scope(|scope| {
        let drained = scope.spawn(|| jobs.drain().unwrap().map(|job| job.unwrap().0).collect::<BTreeSet<_>>());
        std::thread::sleep(Duration::from_millis(100));
        transaction.commit().unwrap();
        assert_eq!(drained.join().unwrap(), BTreeSet::from([1, 2]));
    });
    assert!(jobs.is_empty().unwrap());
}

/// Processes that open the same maps at the same time get the same ones.
#[test]
fn maps_are_created_once() {
    let folder = folder();
    let path = folder.path().join("store");
    let store = Store::open(&path).unwrap();
    run(&["create"; 4], &path);
    assert_eq!(store.maps().unwrap().iter().filter(|map| map.name.starts_with("map ")).count(), 200);
    for number in 0..200_u32 {
        let map = store.map::<u32, u32>(&format!("map {number}")).unwrap();
        assert_eq!(map.get(number).unwrap(), Some(4));
        assert_eq!(map.len().unwrap(), 1);
    }
    assert_clean(&store);
}

/// A process that is killed while it creates, fills and drops maps leaves each of them whole or not at all.
#[test]
fn a_kill_leaves_maps_whole() {
    let folder = folder();
    let path = folder.path().join("store");
    let store = Store::open(&path).unwrap();
    for round in 0..20 {
        let mut process = support::child_of("child_process", "create", &path).stdout(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(20 + 7 * round));
        process.kill().unwrap();
        process.wait().unwrap();
        assert_clean(&store);
        for info in store.maps().unwrap() {
            if info.types == "u32 -> u32" {
                store.map::<u32, u32>(&info.name).unwrap().len().unwrap();
            }
        }
        store.insert("still", "works").unwrap();
    }
    let copy = folder.path().join("copy");
    std::fs::copy(&path, &copy).unwrap();
    let recovered = Store::open(&copy).unwrap();
    assert_eq!(recovered.maps().unwrap(), store.maps().unwrap());
    assert_clean(&recovered);
}
