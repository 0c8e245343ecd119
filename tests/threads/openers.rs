//! Openers.

use super::*;

#[test]
fn an_exclusive_reader_is_alone() {
    let folder = folder();
    let path = folder.path().join("store");
    Store::open(&path).unwrap().close().unwrap();
    let reader = || Store::options().access(Access::ReadOnly);
    let alone = reader().exclusive(true).open(&path).unwrap();
    assert!(matches!(reader().open(&path), Err(Error::Locked { .. })));
    drop(alone);
    let first = reader().open(&path).unwrap();
    let second = reader().open(&path).unwrap();
    assert!(matches!(reader().exclusive(true).open(&path), Err(Error::Locked { .. })));
    drop((first, second));
}

#[test]
fn many_threads_open_a_new_path_at_once() {
    let folder = folder();
    for round in 0..30 {
        let path = folder.path().join(format!("store {round}"));
        let barrier = Barrier::new(8);
        let outcomes: Vec<_> = thread::scope(|scope| {
            let open = || {
                barrier.wait();
                Store::open(&path)
            };
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(open)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let stores: Vec<Store> = outcomes.into_iter().map(Result::unwrap).collect();
        let created = stores.iter().filter(|store| store.opened() == Opened::Created).count();
        assert_eq!(created, 1);
        stores[0].insert("key", "value").unwrap();
        assert!(stores.iter().all(|store| store.get("key").unwrap().is_some()), "it is one store");
        drop(stores);
        let store = Store::open(&path).unwrap();
        assert_eq!(store.get("key").unwrap().unwrap(), b"value");
        assert_clean(&store);
    }
}

#[test]
fn many_processes_open_a_new_path_at_once() {
    let folder = folder();
    let path = folder.path().join("store");
    let mut children: Vec<_> = (0..4)
        .map(|_| support::child("open at once", &path).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap())
        .collect();
    let mut outputs: Vec<_> =
        children.iter_mut().map(|child| BufReader::new(child.stdout.take().unwrap()).lines()).collect();
    let mut next = |child: usize| outputs[child].find_map(|line| said(&line.unwrap()).map(str::to_owned)).unwrap();
    for child in 0..4 {
        assert_eq!(next(child), "ready");
    }
    // They start at a given time, and hold what they have until all of them have tried.
    let start = std::time::SystemTime::now() + Duration::from_millis(50);
    let start = start.duration_since(std::time::UNIX_EPOCH).unwrap().as_micros();
    for child in &mut children {
        use std::io::Write;
        writeln!(child.stdin.as_mut().unwrap(), "{start}").unwrap();
    }
    let said: Vec<String> = (0..4).map(&mut next).collect();
    assert_eq!(said, ["opened"; 4]);
    for child in &mut children {
        drop(child.stdin.take());
        assert!(child.wait().unwrap().success());
    }
    let store = Store::open(&path).unwrap();
    assert_eq!(store.opened(), Opened::Clean);
    assert_eq!(store.get("key").unwrap().unwrap(), b"value");
    assert_clean(&store);
}

pub(super) fn open_at_once(path: &Path) {
    say("ready");
    let mut lines = std::io::stdin().lines();
    let start = Duration::from_micros(lines.next().unwrap().unwrap().parse().unwrap());
    while std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap() < start {}
    let outcome = Store::open(path);
    match &outcome {
        Ok(store) => {
            store.insert("key", "value").unwrap();
            say("opened");
        }
        Err(error) => say(&error.to_string()),
    }
    assert!(lines.next().is_none());
}

#[test]
fn processes_go_together_unless_one_wants_to_be_alone() {
    let folder = folder();
    let path = folder.path().join("store");
    let store = Store::open(&path).unwrap();
    store.insert("key", "value").unwrap();
    assert_eq!(run_child("try to open", &path), ["write: 1 keys", "read: 1 keys"]);
    assert_eq!(Store::open(&path).unwrap().len().unwrap(), 1, "and this process may open it twice");
    store.close().unwrap();

    let alone = Store::options().exclusive(true).open(&path).unwrap();
    assert_eq!(run_child("try to open", &path), ["write: locked", "read: locked"]);
    let again = Store::open(&path).unwrap_err();
    assert!(again.to_string().contains(&format!("process {}", std::process::id())), "{again}");
    drop(alone);

    let one = Store::options().access(Access::ReadOnly).open(&path).unwrap();
    let two = Store::options().access(Access::ReadOnly).open(&path).unwrap();
    assert_eq!(run_child("try to open", &path), ["write: 1 keys", "read: 1 keys"]);
    assert_eq!(one.get("key").unwrap(), two.get("key").unwrap());
    drop(one);
    let alone = Store::options().exclusive(true).open(&path);
    assert!(matches!(alone, Err(Error::Locked { .. })), "one reader is left: {alone:?}");
    drop(two);
    assert_eq!(run_child("try to open", &path), ["write: 1 keys", "read: 1 keys"]);
}

pub(super) fn try_to_open(path: &Path) {
    for (name, access) in [("write", Access::ReadWrite), ("read", Access::ReadOnly)] {
        match Store::options().access(access).open(path) {
            Ok(store) => say(&format!("{name}: {} keys", store.len().unwrap())),
            Err(Error::Locked { .. }) => say(&format!("{name}: locked")),
            Err(error) => say(&format!("{name}: {error}")),
        }
    }
}
