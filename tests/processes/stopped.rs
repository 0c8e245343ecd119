//! A process that holds the writer lock, or opens the store, and is stopped.

use super::*;

pub(super) fn hold_a_transaction(path: &Path) {
    let store = Store::open(path).unwrap();
    let mut transaction = store.begin().unwrap();
    transaction.insert("half", "done").unwrap();
    say("holding");
    until_stopped();
    transaction.commit().unwrap();
}

#[test]
fn a_stopped_holder_is_named_and_a_dead_one_replaced() {
    let folder = folder();
    let path = folder.path().join("store");
    let store = Store::options().lock_timeout(Duration::from_millis(200)).open(&path).unwrap();
    let holder = Player::start("transaction", "", &path);
    assert_eq!(holder.next(), "holding");
    // It is idle anyway; stopped, it cannot even act.
    #[cfg(unix)]
    signal(&holder, libc::SIGSTOP);
    for _ in 0..2 {
        let start = Instant::now();
        match store.insert("key", "value") {
            Err(Error::LockTimeout { pid, waited, held, .. }) => {
                assert_eq!(pid, holder.child.id());
                assert!(waited >= Duration::from_millis(200) && held >= waited, "{waited:?} {held:?}");
            }
            other => panic!("{other:?}"),
        }
        assert!(start.elapsed() < Duration::from_secs(1));
    }
    assert_eq!(store.stats().unwrap().writing, Some(holder.child.id()));
    assert_eq!(store.get("key").unwrap(), None, "reading goes on");
    store.sync().unwrap();
    assert_eq!(holder.kill(), [""; 0]);
    let start = Instant::now();
    store.insert("key", "value").unwrap();
    assert!(start.elapsed() < Duration::from_secs(1), "the dead are found out soon: {:?}", start.elapsed());
    assert_eq!(store.get("half").unwrap(), None);
    assert_clean(&store);
}

#[cfg(unix)]
pub(super) fn open_again_and_again(path: &Path, access: &str) {
    let access = if access == "read-only" { Access::ReadOnly } else { Access::ReadWrite };
    say("begun");
    loop {
        drop(Store::options().access(access).open(path).unwrap());
    }
}

/// At whatever step it is stopped.
#[cfg(unix)]
#[test]
fn a_stopped_opener_is_in_nobodys_way() {
    for access in ["read-write", "read-only"] {
        let folder = folder();
        let path = folder.path().join("store");
        let store = Store::options().lock_timeout(Duration::from_millis(300)).open(&path).unwrap();
        let opener = Player::start("opener", access, &path);
        assert_eq!(opener.next(), "begun");
        let mut random = Random(7);
        for round in 0..100u32 {
            thread::sleep(Duration::from_micros(random.below(3000)));
            signal(&opener, libc::SIGSTOP);
            store.insert("key", round.to_le_bytes()).unwrap();
            store.checkpoint().unwrap();
            store.stats().unwrap();
            signal(&opener, libc::SIGCONT);
        }
        opener.kill();
        assert_clean(&store);
    }
}
