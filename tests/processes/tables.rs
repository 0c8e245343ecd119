//! Openers on another system, and tables that grow with the openers.

use super::*;

#[test]
fn an_opener_on_another_system_is_refused() {
    let folder = folder();
    let path = folder.path().join("store");
    let player = Player::start("open", "shared", &path);
    assert_eq!(player.next(), "ready");
    // As if the entry, whose lock is held, had been written under another kernel.
    overwrite(&path, format::PROCESS_TABLE + format::process::BOOT, &[7; 8]);
    for how in ["shared", "exclusive", "read-only"] {
        let Err(Error::Locked { by, .. }) = open_as(&path, how) else { panic!("{how}") };
        assert_eq!(by, HeldBy::OtherSystem { pid: player.child.id() }, "{how}");
    }
    // A process that could not determine its kernel does not count as running under another.
    overwrite(&path, format::PROCESS_TABLE + format::process::BOOT, &[0; 8]);
    assert_eq!(open_as(&path, "shared").unwrap().opened(), Opened::Attached);
    player.kill();
    Store::open(&path).unwrap();
}

pub(super) fn live_bytes(store: &Store) -> u64 {
    store.stats().unwrap().extents.iter().filter(|extent| extent.kind == "Live").map(|extent| extent.bytes).sum()
}

#[test]
fn there_is_room_for_many_openers() {
    const MANY: u64 = 200;

    let folder = folder();
    let path = folder.path().join("store");
    let mut stores: Vec<_> = (0..MANY).map(|_| Store::open(&path).unwrap()).collect();
    for (store, number) in stores.iter().zip(0..MANY) {
        store.insert(number.to_le_bytes(), number.to_string()).unwrap();
    }
    assert!(stores.iter().all(|store| store.len().unwrap() == MANY), "all see what each has written");
    let stats = stores[150].stats().unwrap();
    assert_eq!(stats.processes.len() as u64, MANY);
    assert_eq!(live_bytes(&stores[150]), format::PROCESSES * format::PROCESS_LEN, "the table goes on in one extent");
    let reader = Store::options().access(Access::ReadOnly).open(&path).unwrap();
    assert_eq!((reader.stats().unwrap().processes.len() as u64, reader.len().unwrap()), (MANY, MANY));
    // The processes with entries before the extents leave first, and a newcomer takes one of these.
    stores.drain(..100);
    assert_eq!(Store::open(&path).unwrap().opened(), Opened::Attached);
    assert!(matches!(Store::options().exclusive(true).open(&path), Err(Error::Locked { .. })));
    let report = stores[99].verify().unwrap();
    assert!(report.is_clean(), "{:?}", report.findings());
    stores.drain(..).for_each(|store| store.close().unwrap());
    let store = Store::open(&path).unwrap();
    assert_eq!((store.opened(), store.len().unwrap(), live_bytes(&store)), (Opened::Clean, MANY, 0));
}

/// A table grows by an extent, and only the holder of the turn knows the free space.
#[test]
fn the_tables_do_not_grow_in_the_turn_of_another_opening() {
    let folder = folder();
    let path = folder.path().join("store");
    let stores: Vec<_> = (0..128).map(|_| Store::open(&path).unwrap()).collect();
    for (store, number) in stores.iter().zip(0..128_u64) {
        store.insert(number.to_le_bytes(), "x").unwrap();
    }
    let mut snapshots = snapshots_of_commits(&stores[0], 510);
    let mut transaction = stores[0].begin().unwrap();
    let write = |transaction: &mut Transaction, from: u32| {
        for number in from..from + 200 {
            transaction.insert(number.to_le_bytes(), vec![number as u8; 10_000]).unwrap();
        }
    };
    write(&mut transaction, 0);
    // This thread has the turn, so it cannot wait for it; and another opening's knowledge of the free space is stale.
    snapshots.extend(stores[1..].iter().map(|store| store.snapshot().unwrap()));
    assert!(matches!(Store::open(&path), Err(Error::WouldDeadlock { .. })));
    let open = || Store::options().lock_timeout(Duration::from_millis(100)).open(&path).map(drop);
    let of_another_thread = thread::scope(|scope| scope.spawn(open).join().unwrap());
    assert!(matches!(of_another_thread, Err(Error::LockTimeout { .. })), "{of_another_thread:?}");
    write(&mut transaction, 200);
    transaction.commit().unwrap();
    snapshots.extend(stores[1..].iter().map(|store| store.snapshot().unwrap()));
    assert_clean(&Store::open(&path).unwrap());
    drop(snapshots);
    for number in 0..400_u32 {
        assert_eq!(stores[7].get(number.to_le_bytes()).unwrap(), Some(vec![number as u8; 10_000]));
    }
}

/// An opener that needs a longer table of processes needs a turn for it. Others that open or close the store do not
/// wait for that.
#[test]
fn one_who_waits_for_an_entry_holds_nobody_up_who_needs_none() {
    let folder = folder();
    let path = folder.path().join("store");
    let mut stores: Vec<_> = (0..128).map(|_| Store::open(&path).unwrap()).collect();
    let mut transaction = stores[0].begin().unwrap();
    transaction.insert("key", "value").unwrap();
    let (long, short) = (Duration::from_secs(60), Duration::from_secs(5));
    let one_more = || Store::options().lock_timeout(long).open(&path).unwrap();
    let reader = || Store::options().access(Access::ReadOnly).open_timeout(short).open(&path).map(drop);
    thread::scope(|scope| {
        let waiting = scope.spawn(one_more);
        for _ in 0..20 {
            thread::sleep(Duration::from_millis(10));
            reader().unwrap();
        }
        assert!(!waiting.is_finished());
        // It gets the entry of an opener that leaves, even while another one writes.
        stores.swap_remove(5).close().unwrap();
        stores.push(waiting.join().unwrap());
        let waiting = scope.spawn(one_more);
        thread::sleep(Duration::from_millis(100));
        reader().unwrap();
        assert!(!waiting.is_finished());
        transaction.commit().unwrap();
        stores.push(waiting.join().unwrap());
    });
    assert_eq!(stores.len(), 129);
    stores[128].insert("key", "other").unwrap();
    assert_eq!(stores[0].stats().unwrap().processes.len(), 129);
    assert_clean(&stores[0]);
    stores.into_iter().for_each(|store| store.close().unwrap());
    assert_eq!(Store::open(&path).unwrap().opened(), Opened::Clean);
}

#[test]
fn a_full_store_has_room_for_so_many_openers_and_no_more() {
    let folder = folder();
    let path = folder.path().join("store");
    let open = || Store::options().max_size(512 << 10).open(&path);
    let mut stores: Vec<_> = (0..format::PROCESSES).map(|_| open().unwrap()).collect();
    for len in [16 << 10, 4 << 10, 1000] {
        while stores[0].insert(format!("{len} {}", stores[0].len().unwrap()), vec![1; len]).is_ok() {}
    }
    let one_more = open();
    assert!(matches!(one_more, Err(Error::ProcessesExhausted { max: format::PROCESSES, .. })), "{one_more:?}");
    Store::options().access(Access::ReadOnly).open(&path).unwrap();
    stores.swap_remove(17).close().unwrap();
    assert!(open().unwrap().len().unwrap() > 10);
    assert_clean(&stores[99]);
}
