//! Growth.

use super::*;

pub(super) fn idle(path: &Path, access: Access) {
    let store = Store::options().access(access).open(path).unwrap();
    let snapshot = store.snapshot().unwrap();
    let before: Vec<_> = snapshot.iter().map(|entry| entry.unwrap().0.to_vec()).collect();
    say("ready");
    until_stopped();
    let after: Vec<_> = snapshot.iter().map(|entry| entry.unwrap().0.to_vec()).collect();
    assert_eq!(before, after);
    assert_eq!(store.len().unwrap(), 40_000);
    for n in [0, 1, 19_999, 39_999] {
        assert_eq!(number(&store.get(format!("key {n}")).unwrap().unwrap()), n);
    }
    let now = store.snapshot().unwrap();
    assert_eq!(now.iter().map(|entry| number(entry.unwrap().1)).sum::<u64>(), 39_999 * 40_000 / 2);
    if access == Access::ReadWrite {
        store.insert("mine", "too").unwrap();
        assert_clean(&store);
    }
}

pub(super) fn grow(path: &Path) {
    let store = Store::open(path).unwrap();
    for n in 0..40_000 {
        store.insert(format!("key {n}"), value(n)).unwrap();
    }
    // Long values make the file larger than any process has mapped.
    store.insert("long", vec![7; 300 << 20]).unwrap();
    store.remove("long").unwrap();
}

#[test]
fn growth_is_seen_by_those_who_were_idle() {
    let folder = folder();
    let path = folder.path().join("store");
    let store = Store::open(&path).unwrap();
    store.insert("key 0", value(0)).unwrap();
    let before = fs::metadata(&path).unwrap().len();
    let idlers = [Player::start("read-only idler", "", &path), Player::start("idler", "", &path)];
    idlers.iter().for_each(|idler| assert_eq!(idler.next(), "ready"));
    Player::start("grower", "", &path).stop();
    assert!(fs::metadata(&path).unwrap().len() > 1024 * before, "the file was to double ten times");
    for idler in idlers {
        idler.stop();
    }
    assert_eq!(store.len().unwrap(), 40_001);
    assert_clean(&store);
}

#[test]
fn each_of_two_goes_on_behind_what_the_other_has_appended() {
    let folder = folder();
    let path = folder.path().join("store");
    let stores = [Store::open(&path).unwrap(), Store::open(&path).unwrap()];
    let long = |n: u64| {
        let mut long = [7; 1000];
        long[..8].copy_from_slice(&n.to_le_bytes());
        long
    };
    let mut keys = 0_u64;
    // Of all lengths, so that one begins anywhere in an extent that the other has reached first.
    for turn in 0..200 {
        for _ in 0..1 + turn * 7919 % 400 {
            stores[turn % 2].insert(keys.to_le_bytes(), long(keys)).unwrap();
            keys += 1;
        }
    }
    for n in 0..keys {
        assert_eq!(stores[0].get(n.to_le_bytes()).unwrap().unwrap(), long(n), "key {n} of {keys}");
    }
    assert_clean(&stores[1]);
}
