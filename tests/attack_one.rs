//! Attacks, first lot.
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout)]
mod support;
use slotlog::{Snapshot, Store};
use support::folder;

fn hold(store: &Store, count: u64) -> Vec<Snapshot> {
    (0..count)
        .map(|n| {
            store.insert("key", n.to_le_bytes()).unwrap();
            store.snapshot().unwrap()
        })
        .collect()
}

/// Verifying and backing up hold a pin one commit below their own; it may be where the table has gone on.
#[test]
fn verify_beside_many_snapshots() {
    let folder = folder();
    let store = Store::open(folder.path().join("s")).unwrap();
    let held = hold(&store, 1500);
    println!(
        "verify of a held commit: {:?}",
        store.verify().map(|r| (r.is_clean(), r.scope())).map_err(|e| e.to_string())
    );
    store.insert("key", "new").unwrap();
    println!("verify: {:?}", store.verify().map(|r| r.is_clean()));
    println!("compact: {:?}", store.compact().map(|_| ()));
    println!("stats: {:?}", store.stats().map(|s| s.pins).err());
    drop(held);
    println!("verify: {:?}", store.verify().map(|r| r.is_clean()));
}

/// A thread that has a transaction with one handle makes the table of pins longer with another.
#[test]
fn another_handle_makes_the_table_longer_in_my_transaction() {
    let folder = folder();
    let path = folder.path().join("s");
    let a = Store::open(&path).unwrap();
    let others: Vec<Store> = (0..100).map(|_| Store::open(&path).unwrap()).collect();
    for (n, b) in others.iter().enumerate() {
        b.insert(format!("b{n}"), "x").unwrap();
    }
    let mut held = hold(&a, 520);
    for n in 0..20 {
        a.insert(format!("big{n}"), vec![7; 100_000]).unwrap();
    }
    let mut tx = a.begin().unwrap();
    for n in 0..200 {
        tx.insert(format!("in{n}"), vec![n as u8; 10_000]).unwrap();
    }
    for b in &others {
        held.push(b.snapshot().unwrap());
    }
    for n in 200..400 {
        tx.insert(format!("in{n}"), vec![n as u8; 10_000]).unwrap();
    }
    println!("commit: {:?}", tx.commit());
    for n in 0..400_u32 {
        a.insert(format!("after{n}"), vec![n as u8; 10_000]).unwrap();
    }
    let report = a.verify().unwrap();
    println!("verify: {:?}", report.findings());
    for s in &held {
        s.get("key").unwrap();
    }
    for b in &others {
        held.push(b.snapshot().unwrap());
    }
    drop(held);
    let report = a.verify().unwrap();
    println!("verify: {:?}", report.findings());
    for n in 0..400_u32 {
        assert_eq!(others[n as usize % 100].get(format!("in{n}")).unwrap(), Some(vec![n as u8; 10_000]));
    }
    assert!(report.is_clean());
}

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};
use support::{Random, role, setting};

/// The 129th opener needs a turn.
#[test]
fn the_opener_that_needs_more_room_beside_a_transaction() {
    let folder = folder();
    let path = folder.path().join("s");
    let a = Store::open(&path).unwrap();
    let _others: Vec<Store> = (0..127).map(|_| Store::open(&path).unwrap()).collect();
    let tx = a.begin().unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            let start = Instant::now();
            let opened = Store::options().lock_timeout(Duration::from_millis(300)).open(&path);
            println!("129th, other thread: {:?} after {:?}", opened.map(drop), start.elapsed());
        });
        scope.spawn(|| {
            thread::sleep(Duration::from_millis(50));
            let start = Instant::now();
            let opened =
                Store::options().access(slotlog::Access::ReadOnly).open_timeout(Duration::from_millis(100)).open(&path);
            println!("a reader meanwhile: {:?} after {:?}", opened.map(drop), start.elapsed());
        });
    });
    let opened = Store::options().lock_timeout(Duration::from_millis(300)).open(&path);
    println!("129th, same thread: {:?}", opened.as_ref().map(|_| ()).map_err(|e| e.to_string()));
    let mut tx = tx;
    for n in 0..100 {
        tx.insert(format!("in{n}"), vec![n as u8; 10_000]).unwrap();
    }
    println!("commit {:?}", tx.commit());
    println!("verify {:?}", a.verify().unwrap().findings());
    drop(opened);
}

/// Superblocks that are read without a lock.
#[test]
fn superblocks_torn() {
    let folder = folder();
    let path = folder.path().join("s");
    let a = Store::open(&path).unwrap();
    let done = AtomicBool::new(false);
    let (reads, points) = (AtomicU64::new(0), AtomicU64::new(0));
    let bad = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                let b = Store::options().access(slotlog::Access::ReadOnly).open(&path).unwrap();
                while !done.load(Ordering::Relaxed) {
                    reads.fetch_add(1, Ordering::Relaxed);
                    if let Err(e) = b.stats() {
                        bad.lock().unwrap().push(e.to_string());
                    }
                }
            });
        }
        scope.spawn(|| {
            let start = Instant::now();
            while start.elapsed() < Duration::from_secs(setting("SECONDS", 20)) {
                a.insert("k", "v").unwrap();
                a.checkpoint().unwrap();
                points.fetch_add(1, Ordering::Relaxed);
            }
            done.store(true, Ordering::Relaxed);
        });
    });
    println!("reads {reads:?}, checkpoints {points:?}, bad: {:?}", bad.lock().unwrap());
}

/// A transaction sent away, and the sender writes through another handle.
#[test]
fn sender_writes_with_another_handle() {
    let folder = folder();
    let path = folder.path().join("s");
    let (a, b) = (Store::open(&path).unwrap(), Store::open(&path).unwrap());
    for pause in [0, 30, 60, 90] {
        let mut tx = a.begin().unwrap();
        let other = thread::spawn(move || {
            thread::sleep(Duration::from_millis(pause));
            tx.insert("x", "y").unwrap();
            thread::sleep(Duration::from_millis(200));
            tx.commit().unwrap();
        });
        println!("pause {pause}: other handle {:?}", b.insert("z", "z"));
        other.join().unwrap();
        let mut tx = a.begin().unwrap();
        let other = thread::spawn(move || {
            thread::sleep(Duration::from_millis(pause));
            tx.insert("x", "y").unwrap();
            thread::sleep(Duration::from_millis(200));
            tx.commit().unwrap();
        });
        println!("pause {pause}: same handle {:?}", a.insert("z", "z"));
        other.join().unwrap();
    }
}

#[test]
fn closed_by_two_threads_at_once() {
    let folder = folder();
    let path = folder.path().join("s");
    let (mut none, mut rounds) = (0, 0);
    for _ in 0..setting("ROUNDS", 2000) {
        let a = Store::open(&path).unwrap();
        a.insert("k", "v").unwrap();
        let b = a.clone();
        let other = thread::spawn(move || b.close_last().is_ok());
        let mine = a.close_last().is_ok();
        let theirs = other.join().unwrap();
        rounds += 1;
        if !mine && !theirs {
            none += 1;
        }
    }
    println!("{none} of {rounds} times nobody was the last");
}

/// Wrong data under shared pins.
#[test]
fn shared_pins_while_space_is_reused() {
    let folder = folder();
    let path = folder.path().join("s");
    let open = || Store::options().tiny_steps().auto_compact(Some(0.2)).open(&path).unwrap();
    let done = Arc::new(AtomicBool::new(false));
    let stores: Vec<Store> = (0..3).map(|_| open()).collect();
    // Snapshots, with the state of one key per writer that they must show.
    let bag: Mutex<Vec<(Snapshot, Vec<(String, u64)>)>> = Mutex::new(Vec::new());
    let checks = AtomicU64::new(0);
    let value = |n: u64| {
        let mut v = n.to_le_bytes().to_vec();
        v.extend(Random(n).bytes((n % 700) as usize));
        v
    };
    let check = |snapshot: &Snapshot, of: &[(String, u64)]| {
        for (key, n) in of {
            let got = snapshot.get(key).unwrap();
            assert_eq!(got, Some(&value(*n)[..]), "{key} at {n}");
        }
        for item in snapshot.iter().take(30) {
            let (_, v) = item.unwrap();
            let n = u64::from_le_bytes(v[..8].try_into().unwrap());
            assert_eq!(v, value(n));
        }
        checks.fetch_add(1, Ordering::Relaxed);
    };
    thread::scope(|scope| {
        for t in 0..4_u64 {
            let (store, bag, done, check) = (&stores[t as usize % 3], &bag, &done, &check);
            scope.spawn(move || {
                let mut random = Random(t);
                let mut have = vec![0_u64; 40];
                for n in 1.. {
                    if done.load(Ordering::Relaxed) {
                        break;
                    }
                    let k = random.below(40) as usize;
                    let number = n * 8 + t;
                    store.insert(format!("{t}/{k}"), value(number)).unwrap();
                    have[k] = number;
                    if random.one_in(3) {
                        let snapshot = store.snapshot().unwrap();
                        let of = have.iter().enumerate().filter(|(_, n)| **n > 0);
                        let of: Vec<_> = of.map(|(k, n)| (format!("{t}/{k}"), *n)).collect();
                        let mut bag = bag.lock().unwrap();
                        bag.push((snapshot, of));
                        let most = 200 + 1000 * (n / 4000 % 2);
                        let mut out = Vec::new();
                        while bag.len() > most as usize {
                            let at = random.below(bag.len() as u64) as usize;
                            out.push(bag.swap_remove(at));
                            if out.len() > 20 {
                                break;
                            }
                        }
                        drop(bag);
                        out.iter().for_each(|(s, of)| check(s, of));
                    }
                    if random.one_in(2000) {
                        store.compact().unwrap();
                    }
                    if random.one_in(3000) {
                        let r = store.verify().unwrap();
                        assert!(r.is_clean(), "{:?}", r.findings());
                    }
                }
            });
        }
        // Readers nested, of short-lived threads.
        for t in 0..2_usize {
            let (stores, done, value) = (&stores, &done, &value);
            scope.spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    thread::scope(|s| {
                        s.spawn(|| {
                            for k in 0..40 {
                                let store = &stores[(k + t) % 3];
                                store
                                    .get_with(format!("1/{k}"), |v| {
                                        let n = u64::from_le_bytes(v[..8].try_into().unwrap());
                                        assert_eq!(v, value(n));
                                        store
                                            .get_with(format!("2/{k}"), |v| {
                                                let n = u64::from_le_bytes(v[..8].try_into().unwrap());
                                                thread::yield_now();
                                                assert_eq!(v, value(n));
                                            })
                                            .unwrap();
                                        assert_eq!(v, value(n));
                                    })
                                    .unwrap();
                            }
                        });
                    });
                }
            });
        }
        thread::sleep(Duration::from_secs(setting("SECONDS", 20)));
        done.store(true, Ordering::Relaxed);
    });
    println!("{checks:?} snapshots checked, {} bytes", std::fs::metadata(&path).unwrap().len());
    bag.lock().unwrap().drain(..).for_each(|(s, of)| check(&s, &of));
    assert!(stores[0].verify().unwrap().is_clean());
    drop(bag);
    drop(stores);
    let store = open();
    println!("opened {:?}", store.opened());
    assert!(store.verify().unwrap().is_clean());
}

// Processes that are killed.

fn crowd(path: &std::path::Path) {
    let seed = setting("SEED", 0);
    let me = std::process::id();
    let mut random = Random(seed ^ u64::from(me));
    let mut stores: Vec<Store> = Vec::new();
    let mut held: Vec<(Snapshot, u64)> = Vec::new();
    let mut last = 0_u64;
    let open = || loop {
        match Store::options().tiny_steps().auto_compact(Some(0.3)).open(path) {
            Ok(s) => return s,
            Err(e) => println!("\n>open: {e:?}"),
        }
    };
    let key = format!("p{}", seed % 8);
    loop {
        match random.below(20) {
            0..=5 if stores.len() < 60 => stores.push(open()),
            0..=1 if !stores.is_empty() => {
                let at = random.below(stores.len() as u64) as usize;
                if let Err(e) = stores.swap_remove(at).close() {
                    println!("\n>close: {e:?}");
                }
            }
            2 if random.one_in(10) => {
                stores.clear();
            }
            3 if random.one_in(10) => {
                held.clear();
            }
            _ if stores.is_empty() => {}
            6..=12 => {
                let store = &stores[random.below(stores.len() as u64) as usize];
                last += 1;
                let mut v = last.to_le_bytes().to_vec();
                v.extend(Random(last).bytes((last % 500) as usize));
                store.insert(format!("{key}/{me}"), &v).unwrap();
                if last % 16 == 0 {
                    store.remove(format!("{key}/{me}")).unwrap();
                    store.insert(format!("{key}/{me}"), &v).unwrap();
                }
                if held.len() < 400 {
                    held.push((store.snapshot().unwrap(), last));
                }
            }
            13..=16 if !held.is_empty() => {
                let (s, n) = held.swap_remove(random.below(held.len() as u64) as usize);
                let v = s.get(format!("{key}/{me}")).unwrap().unwrap();
                assert_eq!(v[..8], n.to_le_bytes());
                assert_eq!(v[8..], Random(n).bytes((n % 500) as usize));
            }
            17 => {
                let store = &stores[random.below(stores.len() as u64) as usize];
                let _ = store.get(format!("{key}/{me}")).unwrap();
            }
            18 if random.one_in(30) => {
                let store = &stores[random.below(stores.len() as u64) as usize];
                match store.verify() {
                    Ok(r) if r.is_clean() => {}
                    Ok(r) => println!("\n>verify: {:?}", r.findings()),
                    Err(e) => println!("\n>verify error: {e:?}"),
                }
            }
            _ => {}
        }
    }
}

#[test]
#[ignore = "plays a role for another test"]
fn child() {
    let Some((_, path)) = role() else { return };
    crowd(&path);
}

#[test]
fn crowds_are_killed() {
    use std::process::Stdio;
    let folder = folder();
    let path = folder.path().join("s");
    drop(Store::options().tiny_steps().open(&path).unwrap());
    let mut random = Random(setting("SEED", 1));
    let start = Instant::now();
    let mut kids: Vec<std::process::Child> = Vec::new();
    let seen = Arc::new(Mutex::new(std::collections::BTreeMap::<String, u64>::new()));
    let (mut kills, mut rounds, mut longest) = (0, 0, 0);
    while start.elapsed() < Duration::from_secs(setting("SECONDS", 60)) {
        while kids.len() < 5 {
            let mut c = support::child("crowd", &path);
            c.env("SEED", random.next().to_string()).stdout(Stdio::piped()).stderr(Stdio::piped());
            let mut kid = c.spawn().unwrap();
            let lines = support::listen(&mut kid);
            let err = kid.stderr.take().unwrap();
            let (seen, seen2) = (Arc::clone(&seen), Arc::clone(&seen));
            thread::spawn(move || {
                for l in lines {
                    *seen.lock().unwrap().entry(l).or_default() += 1;
                }
            });
            thread::spawn(move || {
                use std::io::BufRead;
                for l in std::io::BufReader::new(err).lines().map_while(Result::ok) {
                    *seen2.lock().unwrap().entry(format!("stderr: {l}")).or_default() += 1;
                }
            });
            kids.push(kid);
        }
        thread::sleep(Duration::from_millis(random.below(400)));
        longest = longest.max(std::fs::metadata(&path).unwrap().len());
        let all = random.one_in(6);
        let count = if all { kids.len() } else { 1 };
        for _ in 0..count {
            let mut kid = kids.swap_remove(random.below(kids.len() as u64) as usize);
            if let Ok(Some(status)) = kid.try_wait() {
                println!("a child ended by itself: {status}");
            }
            kid.kill().unwrap();
            kid.wait().unwrap();
            kills += 1;
        }
        if all {
            rounds += 1;
            let mode = random.below(3);
            if mode < 2 {
                let s = Store::options().tiny_steps().open(&path).unwrap();
                let r = s.verify().unwrap();
                assert!(r.is_clean(), "{:?}", r.findings());
                if s.opened() != slotlog::Opened::AfterKill && s.opened() != slotlog::Opened::Clean {
                    println!("opened {:?}", s.opened());
                }
            } else {
                let s = Store::options().access(slotlog::Access::ReadOnly).open(&path).unwrap();
                let r = s.verify().unwrap();
                if !r.is_clean() {
                    println!("read-only: {:?}", r.findings());
                }
            }
        }
    }
    for mut kid in kids {
        kid.kill().unwrap();
        kid.wait().unwrap();
    }
    println!("{kills} kills, {rounds} rounds, longest file {longest}");
    for (l, n) in seen.lock().unwrap().iter() {
        println!("{n} x {l}");
    }
    let s = Store::options().tiny_steps().open(&path).unwrap();
    let r = s.verify().unwrap();
    assert!(r.is_clean(), "{:?}", r.findings());
    println!("{:?}", s.compact());
    println!("at the end {} bytes", std::fs::metadata(&path).unwrap().len());
}
