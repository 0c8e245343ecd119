//! Types that serde serialises, as values and as keys.
#![allow(missing_docs, clippy::unwrap_used)]

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde::{Deserialize, Serialize};
use slotlog::{Codec, Error, Serde, Store};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Shape {
    Point,
    Circle { radius: f64 },
    Polygon(Vec<(i32, i32)>),
    Named(BTreeMap<String, Option<Box<Shape>>>),
}

fn shapes() -> impl Strategy<Value = Shape> {
    let leaf = prop_oneof![
        Just(Shape::Point),
        (0.0..1e9).prop_map(|radius| Shape::Circle { radius }),
        any::<Vec<(i32, i32)>>().prop_map(Shape::Polygon),
    ];
    leaf.prop_recursive(3, 20, 4, |inner| {
        prop::collection::btree_map(any::<String>(), prop::option::of(inner.prop_map(Box::new)), 0..4)
            .prop_map(Shape::Named)
    })
}

proptest! {
    #[test]
    fn values_come_back(shapes in prop::collection::vec(shapes(), 1..20)) {
        let store = Store::in_memory().unwrap();
        let map = store.map::<Serde<(u32, String)>, Serde<Shape>>("shapes").unwrap();
        for (number, shape) in (0..).zip(&shapes) {
            map.insert((number, "key".to_owned()), shape).unwrap();
        }
        for (number, shape) in (0..).zip(&shapes) {
            assert_eq!(map.get((number, "key".to_owned())).unwrap().as_ref(), Some(shape));
        }
        assert_eq!(map.iter().unwrap().filter(|entry| entry.is_ok()).count(), shapes.len());
    }

    /// Never a panic, and no memory for missing bytes.
    #[test]
    fn whatever_the_bytes_are(bytes in any::<Vec<u8>>()) {
        let _ = Serde::<Shape>::decode(&bytes);
        let _ = Serde::<Vec<Vec<u64>>>::decode(&bytes);
    }
}

#[test]
fn what_does_not_decode_is_an_error() {
    let store = Store::in_memory().unwrap();
    store.map::<u8, Serde<u64>>("map").unwrap().insert(1, 1 << 40).unwrap();
    let other = store.map::<u8, Serde<(u64, u64)>>("map").map(drop);
    assert!(matches!(other, Err(Error::TypeMismatch { .. })));
    store.map_as_bytes("map").unwrap().insert(&[2][..], &[0x80][..]).unwrap();
    let map = store.map::<u8, Serde<u64>>("map").unwrap();
    assert_eq!(map.get(1).unwrap(), Some(1 << 40));
    assert!(matches!(map.get(2), Err(Error::Codec { .. })));
    assert!(matches!(store.map_versioned::<u8, Serde<u64>>("map", 1), Err(Error::TypeMismatch { .. })));
}
