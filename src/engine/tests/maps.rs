//! Creating and dropping maps.

use super::*;

/// The id of a dropped map is not given to another: a remaining handle would write to that.
#[test]
fn map_numbers_end_and_everything_else_goes_on() {
    use crate::error::Numbers;
    use crate::file::layout::{CATALOGUE, MAX_MAP};

    let (_folder, path) = scratch();
    let engine = Arc::new(open(&path));
    let old = engine.create_named("old", 0, "types").unwrap().id;
    engine.put(CATALOGUE, b"", &MAX_MAP.0.to_le_bytes(), None).unwrap();
    let last = engine.create_named("last", 0, "types").unwrap().id;
    assert_eq!(last, MAX_MAP);
    engine.put(last, b"key", b"value", None).unwrap();
    assert!(engine.drop_named("old").unwrap());
    engine.sweep_dropped_maps().unwrap();
    let refused = |engine: &Arc<Engine>| {
        let refused = engine.create_named("one more", 0, "types");
        assert!(matches!(refused, Err(Error::NumbersExhausted { what: Numbers::Maps, .. })), "{refused:?}");
    };
    refused(&engine);
    assert!(matches!(engine.put(old, b"key", b"value", None), Err(Error::NoSuchMap { .. })));
    assert!(engine.rename_named("last", "renamed").unwrap());
    drop(engine);
    let engine = Arc::new(open(&path));
    refused(&engine);
    assert_eq!(engine.find_named("renamed").unwrap().unwrap().id, last);
    engine.put(last, b"key", b"newer", None).unwrap();
    assert!(engine.verify().unwrap().is_clean(), "{:?}", engine.verify().unwrap().findings());
}

/// A map of the log whose id was never given out would become the next map that is created.
#[test]
fn a_log_with_records_of_a_map_that_was_never_made_is_refused() {
    let (_folder, path) = scratch();
    let engine = Arc::new(open(&path));
    let made = engine.create_named("made", 0, "types").unwrap().id;
    for (map, is_refused) in [(made, false), (made.next(), true)] {
        if is_refused {
            let turn = engine.turn().unwrap();
            let mut writing = turn.write();
            let seq = writing.seq().unwrap();
            writing.create_map(map, 1, seq).unwrap();
        }
        engine.put(map, b"key", b"value", None).unwrap();
        let recovered = Engine::open(&copied(&path), Settings::default());
        let refused = matches!(&recovered, Err(Error::Corrupt { what, .. }) if what.contains("records of map"));
        assert_eq!(refused, is_refused, "map {map}: {:?}", recovered.err());
    }
}

/// One opener creates the maps, and another drops them.
#[test]
fn maps_that_another_drops_do_not_pile_up() {
    let (_folder, path) = scratch();
    let (makes, drops) = (Arc::new(open(&path)), Arc::new(open(&path)));
    for number in 0..300 {
        let name = format!("map {number}");
        makes.create_named(&name, 0, "types").unwrap();
        assert!(drops.drop_named(&name).unwrap());
        let entries = drops.map_table().unwrap().iter().unwrap().count();
        assert!(entries <= 5, "{entries} maps are listed after {number} were dropped");
    }
}
