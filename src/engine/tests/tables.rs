//! The tables of the live area: when they grow, and when the growth is given back.

use super::*;

/// A reader may be the writer itself, in the middle of a transaction, and then cannot wait for a turn.
#[test]
fn tables_grow_under_a_transaction() {
    let (_folder, path) = scratch();
    let engine = Arc::new(open(&path));
    some_keys(&engine);
    for commits in [false, true] {
        let before = content(&engine);
        let mut batch = Batch::begin(Arc::clone(&engine)).unwrap();
        batch.put(DEFAULT_MAP, b"before", b"value", None).unwrap();
        let entries = PIN.parts(&engine.mapping).unwrap().entries();
        assert_eq!(engine.lengthen(&PIN, entries, Duration::ZERO).unwrap(), Lengthened::Done);
        batch.put(DEFAULT_MAP, b"after", b"value", None).unwrap();
        let elsewhere = std::thread::scope(|scope| {
            scope.spawn(|| engine.lengthen(&PIN, 2 * entries, Duration::from_millis(5)).unwrap()).join().unwrap()
        });
        assert_eq!(elsewhere, Lengthened::Busy, "another thread has to wait");
        if commits {
            batch.commit(Durability::Buffered).unwrap();
            assert_eq!(content(&engine).len(), before.len() + 2);
        } else {
            drop(batch);
            assert_eq!(content(&engine), before);
        }
        assert_eq!(PIN.parts(&engine.mapping).unwrap().entries(), 2 * entries);
        assert!(engine.verify().unwrap().is_clean());
    }
}

/// After a power cut the live area is not believed, nor the places of its grown tables.
#[test]
fn tables_are_small_again_when_nobody_is_there() {
    let (folder, path) = scratch();
    let engine = open(&path);
    some_keys(&engine);
    lengthen_tables(&engine, 1);
    let expected = content(&engine);
    let image = fs::read(&path).unwrap();
    let small = |engine: &Engine, opened: &str| {
        assert!(format!("{:?}", engine.opened).starts_with(opened), "{:?}", engine.opened);
        assert_eq!((kinds(engine, ExtentKind::Live), content(engine)), (0, expected.clone()), "{opened}");
        assert_eq!(PIN.parts(&engine.mapping).unwrap().entries(), PIN.first());
        assert!(engine.verify().unwrap().is_clean());
    };
    if engine.mapping.identity().is_some() {
        let killed = folder.path().join("killed");
        put_back(&killed, &image);
        small(&open(&killed), "AfterKill");
    }
    let copy = folder.path().join("copy");
    fs::write(&copy, &image).unwrap();
    small(&open(&copy), "AfterPowerCut");
    drop(engine);
    small(&open(&path), "Clean");
    fs::copy(&path, &copy).unwrap();
    small(&open(&copy), "Clean");
}

/// An opener of a killed store may have to pin something before the dead are swept away, and the only free pin may be
/// in the grown part of the table.
#[test]
fn a_table_in_which_a_pin_is_kept_is_not_given_back() {
    let (folder, path) = scratch();
    let engine = open(&path);
    some_keys(&engine);
    lengthen_tables(&engine, 1);
    for place in PIN.parts(&engine.mapping).unwrap().places().take(PIN.first() as usize) {
        engine.mapping.store_live(place, crate::file::layout::pin::claim(5, 1), Ordering::Relaxed).unwrap();
    }
    let killed = folder.path().join("killed");
    put_back(&killed, &fs::read(&path).unwrap());
    for pins_early in [false, true] {
        let engine = open(&killed);
        if !pins_early && engine.opened != Opened::AfterKill {
            // Without an identity every opener recovers.
            return;
        }
        if pins_early {
            // As if the recovery had done so.
            let _view = engine.view().unwrap();
            lengthen_tables(&engine, 1);
            let place = PIN.parts(&engine.mapping).unwrap().places().last().unwrap();
            let claim = crate::file::layout::pin::claim(0, COUNT_MASK);
            engine.mapping.store(place, claim, Ordering::Relaxed).unwrap();
        }
        engine.lend_writing().give_tables_of_the_dead_back().unwrap();
        assert_eq!(kinds(&engine, ExtentKind::Live), if pins_early { 2 } else { 0 });
        assert_eq!(engine.pins_in_use().unwrap().0, 0);
        assert!(engine.verify().unwrap().is_clean());
    }
}

/// A process whose entry is in the grown part of the table cannot give that back; the next opener does.
#[test]
fn the_last_one_may_have_an_entry_where_the_table_went_on() {
    let (folder, path) = scratch();
    let first = open(&path);
    some_keys(&first);
    let expected = content(&first);
    let others: Vec<Engine> = (0..PROCESSES).map(|_| open(&path)).collect();
    drop(first);
    let mut others = others;
    let last = others.pop().unwrap();
    drop(others);
    assert_eq!((last.processes().unwrap().len(), kinds(&last, ExtentKind::Live)), (1, 1));
    drop(last);
    // In the same page cache, and in another.
    let copy = folder.path().join("copy");
    fs::copy(&path, &copy).unwrap();
    for path in [&path, &copy] {
        let engine = open(path);
        assert_eq!(engine.opened, Opened::Clean);
        assert_eq!((kinds(&engine, ExtentKind::Live), content(&engine)), (0, expected.clone()));
        assert!(engine.verify().unwrap().is_clean());
    }
}
