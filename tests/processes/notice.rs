//! Change notice.

use slotlog::Seq;

use super::*;

pub(super) fn wait_for_a_change(path: &Path, access: Access) {
    let store = Store::options().access(access).open(path).unwrap();
    let mut seq = store.seq().unwrap();
    say("ready");
    while store.wait_for_change(seq, LONG).unwrap() {
        seq = store.seq().unwrap();
        let key = store.get("key").unwrap().unwrap_or_default();
        say(&String::from_utf8(key).unwrap());
        if store.contains_key("stop").unwrap() {
            break;
        }
    }
}

#[test]
fn waiters_are_woken_by_commits_and_by_nothing_else() {
    let folder = folder();
    let path = folder.path().join("store");
    let store = Store::open(&path).unwrap();
    let seq = store.seq().unwrap();
    assert!(!store.wait_for_change(seq, Duration::from_millis(20)).unwrap());
    let waiters: Vec<_> = ["waiter", "read-only waiter"].map(|role| Player::start(role, "", &path)).into();
    waiters.iter().for_each(|waiter| assert_eq!(waiter.next(), "ready"));
    for n in 0..20 {
        let mut undone = store.begin().unwrap();
        undone.insert("key", "never").unwrap();
        undone.rollback();
        thread::sleep(Duration::from_millis(10));
        let value = n.to_string();
        store.insert("key", &value).unwrap();
        let start = Instant::now();
        for waiter in &waiters {
            // A waiter woken by the rollback would repeat the last number.
            assert_eq!(waiter.next(), value);
        }
        assert!(start.elapsed() < Duration::from_millis(400), "{:?}", start.elapsed());
    }
    assert!(store.wait_for_change(seq, Duration::ZERO).unwrap());
    store.insert("stop", "").unwrap();
    for waiter in waiters {
        waiter.stop();
    }
}

/// Without compaction, which keeps only a part of the history.
pub(super) fn whole_history() -> Options {
    Store::options().auto_compact(None)
}

/// Changes its own keys at random, and reports each change.
pub(super) fn change_at_random(path: &Path, seed: u64) {
    let store = whole_history().open(path).unwrap();
    let mut random = Random(seed);
    for n in 0..2000 {
        let key = format!("{seed}:{}", random.below(50));
        if random.one_in(3) {
            if store.remove(&key).unwrap() {
                say(&format!("{key} removed"));
            }
        } else {
            store.insert(&key, value(n)).unwrap();
            say(&format!("{key} {n}"));
        }
    }
}

/// The changes of one process's keys in a part of the history, in the words of [`change_at_random`].
pub(super) fn told(store: &Store, since: Seq, prefix: &str) -> Vec<String> {
    let changes = store.changes_since(since).unwrap();
    let mut last = since;
    let mut told = Vec::new();
    for change in &changes {
        let change = change.unwrap();
        assert!(change.seq >= last && change.seq <= changes.seq());
        last = change.seq;
        let (key, what) = match change.kind {
            ChangeKind::Insert { key, value } => (key, number(value).to_string()),
            ChangeKind::Remove { key } => (key, "removed".to_owned()),
            other => panic!("{other:?}"),
        };
        let key = String::from_utf8(key.to_vec()).unwrap();
        if key.starts_with(prefix) {
            told.push(format!("{key} {what}"));
        }
    }
    told
}

#[test]
fn the_changes_since_are_what_was_done() {
    let folder = folder();
    let path = folder.path().join("store");
    let store = whole_history().open(&path).unwrap();
    let reader = Store::options().access(Access::ReadOnly).open(&path).unwrap();
    let start = store.seq().unwrap();
    let players = [Player::start("changer", 1, &path), Player::start("changer", 2, &path)];
    thread::sleep(Duration::from_millis(60));
    let middle = store.seq().unwrap();
    let [one, two] = players.map(Player::stop);
    for (name, done) in [("1:", one), ("2:", two)] {
        assert_eq!(told(&store, start, name), done);
        assert_eq!(told(&reader, start, name), done);
        let late = told(&store, middle, name);
        assert!(done.ends_with(&late));
    }
    let end = store.seq().unwrap();
    assert!(told(&store, end, "").is_empty());
    for wrong in [u64::from(end) + 1, u64::MAX, (1 << 60) + 5] {
        assert!(matches!(store.changes_since(wrong), Err(Error::HistoryTruncated { .. })));
    }
    store.clear().unwrap();
    let cleared = store.changes_since(end).unwrap();
    assert!(matches!(cleared.iter().next(), Some(Ok(change)) if change.kind == ChangeKind::Clear));
}

/// Followers may have seen changes that a power cut has undone.
#[test]
fn changes_of_a_life_that_was_cut_short_are_told_apart() {
    let folder = folder();
    let (path, copy): (PathBuf, PathBuf) = (folder.path().join("store"), folder.path().join("copy"));
    let store = Store::open(&path).unwrap();
    store.insert("key", "one").unwrap();
    let kept = store.seq().unwrap();
    fs::copy(&path, &copy).unwrap();
    store.insert("key", "two").unwrap();
    let undone = store.seq().unwrap();
    // A copy is recovered as after a power cut.
    let store = Store::open(&copy).unwrap();
    store.insert("key", "three").unwrap();
    let changes = store.changes_since(kept).unwrap();
    let values: Vec<_> = changes.iter().map(|change| change.unwrap().kind).collect();
    assert_eq!(values, [ChangeKind::Insert { key: b"key", value: b"three" }]);
    assert!(matches!(store.changes_since(undone), Err(Error::HistoryTruncated { .. })));
}
