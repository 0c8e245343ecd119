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
    // Long values make the file larger than what anybody has mapped.
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
