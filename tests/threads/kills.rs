//! Kills.

use super::*;

/// A change of commit number `number`: a key, and its new value if it gets one.
pub(super) type Change = (String, Option<Vec<u8>>);

/// The changes of commit number `number`; `None` for a clear. The same on each call.
pub(super) fn commit(number: u64) -> Option<Vec<Change>> {
    let mut random = Random(number);
    let body = |len: usize| Some(value(number, len));
    Some(match number % 16 {
        0 if number.is_multiple_of(2048) => return None,
        // Transactions, small and not so small, that overwrite earlier puts and remove some of them.
        0..4 => {
            let size = if number % 64 == 1 { 300 } else { 6 };
            let mut changes: Vec<Change> =
                (0..size).map(|n| (format!("t/{}", random.below(100) * 300 + n), body(30))).collect();
            changes.push((format!("t/{}", random.below(100) * 300), None));
            changes.push(("last transaction".to_owned(), body(0)));
            changes
        }
        4 => vec![(format!("s/{}", random.below(500)), None)],
        5 => vec![(format!("large/{}", random.below(4)), body(random.below(100_000) as usize))],
        // New keys, so that the index has to grow.
        6..8 => vec![(format!("new/{number}"), body(10))],
        _ => vec![(format!("s/{}", random.below(500)), body(random.below(200) as usize))],
    })
}

/// Makes commit number `number` in the store.
pub(super) fn perform(store: &Store, number: u64) {
    match commit(number) {
        None => store.clear().unwrap(),
        Some(changes) if changes.len() == 1 => match &changes[0] {
            (key, Some(value)) => store.insert(key, value).unwrap(),
            (key, None) => drop(store.remove(key).unwrap()),
        },
        Some(changes) => {
            let mut transaction = store.begin().unwrap();
            for (key, value) in changes {
                match value {
                    Some(value) => transaction.insert(key, value).unwrap(),
                    None => drop(transaction.remove(key).unwrap()),
                }
            }
            transaction.commit().unwrap();
        }
    }
}

/// Applies commit number `number` to the content.
pub(super) fn apply(content: &mut Content, number: u64) {
    match commit(number) {
        None => content.clear(),
        Some(changes) => {
            for (key, value) in changes {
                match value {
                    Some(value) => drop(content.insert(key.into_bytes(), value)),
                    None => drop(content.remove(key.as_bytes())),
                }
            }
        }
    }
}

/// Commits one after the other until it is killed, and reports the number of each when it has returned.
pub(super) fn commit_for_ever(path: &Path, first: u64) {
    let store = Store::options().checkpoint_every(1 << 20).open(path).unwrap();
    for number in first.. {
        perform(&store, number);
        say(&number.to_string());
    }
}

#[test]
fn a_kill_loses_nothing_that_has_returned_and_leaves_nothing_half_done() {
    let folder = folder();
    let path = folder.path().join("store");
    let seed = std::process::id().into();
    eprintln!("random moments from seed {seed}");
    let mut random = Random(seed);
    let mut expected = Content::new();
    let mut done = 0;
    let mut long_roads = 0;
    Store::open(&path).unwrap().close().unwrap();
    for round in 0..20 {
        let mut child =
            support::child(&format!("commit from {}", done + 1), &path).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // It may take a while to start; only the time in which it commits counts.
        let first = lines.find_map(|line| said(&line.unwrap()).map(|said| said.parse::<u64>().unwrap()));
        assert_eq!(first, Some(done + 1));
        let reader = thread::spawn(move || {
            let numbers = lines.filter_map(|line| said(&line.unwrap()).and_then(|said| said.parse::<u64>().ok()));
            numbers.last()
        });
        thread::sleep(Duration::from_micros(random.below(60_000)));
        child.kill().unwrap();
        child.wait().unwrap();
        let reported = reader.join().unwrap().unwrap_or(done + 1);
        for number in done + 1..=reported {
            apply(&mut expected, number);
        }
        done = reported;

        let store = Store::open(&path).unwrap();
        if cfg!(target_os = "linux") && store.opened() != Opened::AfterKill {
            // Killed between the seal and the commit point, which is rare.
            assert!(matches!(store.opened(), Opened::AfterPowerCut { .. }), "round {round}");
            long_roads += 1;
            assert!(long_roads <= 3, "the long road was taken {long_roads} times until round {round}");
        }
        let snapshot = store.snapshot().unwrap();
        let found = content_of(&snapshot);
        if found != expected {
            // One commit may have been made without its report getting out.
            done += 1;
            apply(&mut expected, done);
            assert!(found == expected, "round {round}: neither the content after commit {reported} nor after {done}");
        }
        assert_eq!(snapshot.len(), expected.len() as u64);
        for (key, value) in &expected {
            assert_eq!(snapshot.get(key).unwrap(), Some(&value[..]));
        }
        assert_clean(&store);
        // The log alone gives the same.
        let copy = folder.path().join("copy");
        std::fs::copy(&path, &copy).unwrap();
        let copy = Store::open(&copy).unwrap();
        assert!(matches!(copy.opened(), Opened::AfterPowerCut { .. }));
        let copied = copy.snapshot().unwrap();
        let found: Content = copied.iter().map(|entry| entry.unwrap()).map(|(k, v)| (k.into(), v.into())).collect();
        assert!(found == expected, "round {round}: the copy has another content");
        assert_clean(&copy);
        drop((snapshot, copied));
        // Every third time the next child takes over from this process instead of from the dead one.
        if round % 3 == 0 {
            done += 1;
            perform(&store, done);
            apply(&mut expected, done);
        }
        store.close().unwrap();
    }
    eprintln!("{done} commits, {} keys", expected.len());
    assert!(done > 500, "only {done} commits: too few to prove anything");
}
