//! Codecs, and the types of maps: values come out as they went in, undecodable bytes are an error, and a map is opened
//! with its own types.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::borrow::Borrow;
use std::collections::HashMap;
use std::fmt::Debug;

use proptest::prelude::*;
use slotlog::zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, little_endian};
use slotlog::{Access, Codec, CodecError, Error, Map, Pod, Store, ValueRef, View};
use support::{assert_clean, folder};

fn round_trip<T: Codec<Owned = T> + Borrow<T::Borrowed> + PartialEq + Debug>(value: &T) {
    let bytes = T::encode(value.borrow()).unwrap().as_ref().to_vec();
    assert_eq!(&T::decode(&bytes).unwrap(), value);
    if let Some(size) = T::SIZE {
        assert_eq!(bytes.len(), size);
    }
}

/// It must not panic, and the bytes it accepts must equal the encoding of the result.
fn decode_anything<T: Codec<Owned = T> + Borrow<T::Borrowed>>(bytes: &[u8]) {
    if let Ok(value) = T::decode(bytes) {
        assert_eq!(T::encode(value.borrow()).unwrap().as_ref(), bytes, "{} has two encodings", T::name());
    }
}

type Everything = (String, Vec<u8>, Option<(u64, i16)>, [char; 2], Vec<(String, bool)>, (u8, (), i128));

proptest! {
    #[test]
    fn values_come_back(
        text in any::<String>(),
        bytes in any::<Vec<u8>>(),
        pair in any::<Option<(u64, i16)>>(),
        characters in any::<[char; 2]>(),
        list in any::<Vec<(String, bool)>>(),
        number in any::<i128>(),
        words in any::<Vec<u32>>(),
    ) {
        round_trip::<Everything>(&(text.clone(), bytes.clone(), pair, characters, list.clone(), (7, (), number)));
        round_trip(&text);
        round_trip(&bytes);
        round_trip(&words);
        round_trip(&Some(list));
        round_trip(&[text.clone(), text]);
        round_trip::<[u8; 3]>(&[1, 2, 3]);
        round_trip(&());
    }

    #[test]
    fn whatever_the_bytes_are(bytes in any::<Vec<u8>>()) {
        decode_anything::<Everything>(&bytes);
        decode_anything::<String>(&bytes);
        decode_anything::<Vec<String>>(&bytes);
        decode_anything::<[Vec<u16>; 2]>(&bytes);
        decode_anything::<Option<bool>>(&bytes);
        decode_anything::<(Option<u8>, char)>(&bytes);
        decode_anything::<()>(&bytes);
        let _ = <[()]>::decode(&bytes);
        let _ = Pod::<[u8; 3]>::decode(&bytes);
        let _ = Pod::<[little_endian::U32]>::decode(&bytes);
    }
}

/// The bytes of the codecs are part of the file format.
#[test]
fn the_bytes_are_these() {
    fn bytes<T: Codec + ?Sized>(value: &T::Borrowed) -> Vec<u8> {
        T::encode(value).unwrap().as_ref().to_vec()
    }
    assert_eq!(bytes::<str>("é"), [0xc3, 0xa9]);
    assert_eq!(bytes::<u32>(&0x01020304), [4, 3, 2, 1]);
    assert_eq!(bytes::<i16>(&-2), [0xfe, 0xff]);
    assert_eq!(bytes::<f64>(&1.0), [0, 0, 0, 0, 0, 0, 0xf0, 0x3f]);
    assert_eq!(bytes::<char>(&'a'), [97, 0, 0, 0]);
    assert_eq!(bytes::<(String, u16)>(&("ab".into(), 3)), [2, 0, 0, 0, 97, 98, 3, 0]);
    assert_eq!(bytes::<(u16, String)>(&(3, "ab".into())), [3, 0, 97, 98], "the last one needs no length");
    assert_eq!(bytes::<[u16; 2]>(&[1, 2]), [1, 0, 2, 0]);
    assert_eq!(bytes::<Vec<String>>(&["a".to_owned(), String::new()]), [1, 0, 0, 0, 97, 0, 0, 0, 0]);
    assert_eq!(bytes::<Option<u8>>(&None), [0]);
    assert_eq!(bytes::<Option<u8>>(&Some(5)), [1, 5]);
    assert_eq!(bytes::<()>(&()), []);
    assert_eq!(<(String, [u8; 4], Vec<Option<u64>>)>::name(), "(str, [u8; 4], [option(u64)])");
    assert_eq!(<Pod<[little_endian::U32]>>::name(), "[pod(4 bytes, aligned to 1)]");
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Clone, Copy, Debug, PartialEq)]
#[repr(C)]
struct Sample {
    time: u64,
    value: f64,
}

#[test]
fn plain_old_data_is_read_in_place() {
    let folder = folder();
    let path = folder.path().join("store");
    let store = Store::open(&path).unwrap();
    let samples = store.map::<str, Pod<Sample>>("samples").unwrap();
    let series = store.map::<(u8, u8, u8), Pod<[f64]>>("series").unwrap();
    for number in 0..50_u64 {
        // Keys of all lengths: wherever the value lies, it is aligned.
        samples.insert("k".repeat(number as usize), Sample { time: number, value: number as f64 / 4.0 }).unwrap();
    }
    let numbers: Vec<f64> = (0..1000).map(f64::from).collect();
    series.insert((1, 2, 3), numbers.as_slice()).unwrap();
    series.insert_with_expiry((1, 2, 4), &numbers[..3], std::time::SystemTime::now() + YEAR).unwrap();

    let snapshot = store.snapshot().unwrap();
    let read_only = Store::options().access(Access::ReadOnly).open(&path).unwrap();
    let copied = read_only.map::<str, Pod<Sample>>("samples").unwrap();
    for number in 0..50_u64 {
        let expected = Sample { time: number, value: number as f64 / 4.0 };
        let key = "k".repeat(number as usize);
        let in_place: &Sample = snapshot.of(&samples).get_ref(key.as_str()).unwrap().unwrap();
        assert_eq!(in_place, &expected);
        assert_eq!(*samples.get_ref(key.as_str()).unwrap().unwrap(), expected);
        assert_eq!(samples.get_with(key.as_str(), |sample| sample.time).unwrap(), Some(number));
        assert_eq!(samples.get(key.as_str()).unwrap(), Some(expected));
        assert_eq!(*copied.get_ref(key.as_str()).unwrap().unwrap(), expected);
        assert_eq!(copied.get_with(key.as_str(), |sample| sample.time).unwrap(), Some(number));
    }
    let in_place: &[f64] = snapshot.of(&series).get_ref((1, 2, 3)).unwrap().unwrap();
    assert_eq!(in_place, numbers);
    assert_eq!(&*series.get_ref((1, 2, 4)).unwrap().unwrap(), &numbers[..3], "behind a deadline, too");
    assert_eq!(series.get((1, 2, 3)).unwrap(), Some(numbers));
}

const YEAR: std::time::Duration = std::time::Duration::from_secs(365 * 24 * 3600);

/// Borrowed values stay as they are, whatever becomes of the entry, the map and the store.
#[test]
fn a_borrowed_value_stays() {
    let folder = folder();
    let path = folder.path().join("store");
    let store = Store::options().tiny_steps().open(&path).unwrap();
    let pages = store.map::<str, [u8]>("pages").unwrap();
    pages.insert("page", [7; 5000]).unwrap();
    let page: ValueRef<[u8]> = pages.get_ref("page").unwrap().unwrap();
    for number in 0..300_u32 {
        pages.insert("page", vec![number as u8; 5000]).unwrap();
    }
    store.drop_map("pages").unwrap();
    store.compact().unwrap();
    let other = store.map::<u32, [u8]>("other").unwrap();
    for number in 0..300_u32 {
        other.insert(number % 3, vec![9; 5000]).unwrap();
    }
    drop((pages, other, store));
    std::thread::spawn(move || assert_eq!(&*page, &[7; 5000][..])).join().unwrap();
    assert_clean(&Store::open(&path).unwrap());
}

#[test]
fn a_map_is_opened_with_its_types() {
    let folder = folder();
    let path = folder.path().join("store");
    let store = Store::open(&path).unwrap();
    store.map::<str, u64>("counts").unwrap().insert("a", 1).unwrap();
    // Stored alike.
    assert_eq!(store.map::<String, u64>("counts").unwrap().get("a").unwrap(), Some(1));
    let refused = |result: Result<(), Error>| match result {
        Err(Error::TypeMismatch { map, found, wanted, .. }) => (map, found, wanted),
        other => panic!("{other:?}"),
    };
    let found = || "str -> u64".to_owned();
    let wrong = refused(store.map::<str, i64>("counts").map(drop));
    assert_eq!(wrong, ("counts".to_owned(), found(), "str -> i64".to_owned()));
    refused(store.map::<u64, u64>("counts").map(drop));
    let wrong = refused(store.map_versioned::<str, u64>("counts", 2).map(drop));
    assert_eq!(wrong.2, "str -> u64, version 2");
    store.close().unwrap();

    for access in [Access::ReadWrite, Access::ReadOnly] {
        let store = Store::options().access(access).open(&path).unwrap();
        refused(store.map::<str, i64>("counts").map(drop));
        assert_eq!(store.map::<str, u64>("counts").unwrap().get("a").unwrap(), Some(1));
        let message = store.map::<str, i64>("counts").unwrap_err().report();
        assert!(message.contains("\"counts\" holds str -> u64, but was opened as str -> i64"), "{message}");
    }
}

#[test]
fn a_store_that_is_read_only_creates_no_map() {
    let folder = folder();
    let path = folder.path().join("store");
    Store::open(&path).unwrap().close().unwrap();
    let before = std::fs::read(&path).unwrap();
    let store = Store::options().access(Access::ReadOnly).open(&path).unwrap();
    let missing = store.map::<str, u64>("counts").map(drop);
    assert!(matches!(&missing, Err(Error::NoSuchMap { map, .. }) if map == "counts"), "{missing:?}");
    assert_eq!(store.maps().unwrap(), []);
    assert!(matches!(store.drop_map("counts"), Err(Error::ReadOnly { .. })));
    drop(store);
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

/// From one type to another, with a process killed at the worst moment: the old map exists until the new one does.
#[test]
fn a_map_goes_over_to_another_type() {
    let store = Store::in_memory().unwrap();
    let old = store.map::<str, u32>("visits").unwrap();
    old.extend((0..1000).map(|number| (format!("page {number}"), number))).unwrap();
    let move_over = || -> slotlog::Result<()> {
        let new = store.map_versioned::<str, (u64, bool)>("visits.new", 1)?;
        let mut transaction = store.begin()?;
        transaction.of(&new).clear()?;
        for entry in old.iter()? {
            let (page, visits) = entry?;
            transaction.of(&new).insert(page, (visits.into(), true))?;
        }
        transaction.commit()?;
        store.rename_map("visits.new", "visits").map(drop)
    };
    move_over().unwrap();
    let new = store.map_versioned::<str, (u64, bool)>("visits", 1).unwrap();
    assert_eq!(new.len().unwrap(), 1000);
    assert_eq!(new.get("page 7").unwrap(), Some((7, true)));
    assert!(matches!(old.insert("page", 1), Err(Error::NoSuchMap { .. })), "who has the old one open is told");
    assert_eq!(store.maps().unwrap().len(), 1);
    assert_clean(&store);
}

/// A codec whose values do not all encode, nor decode.
#[derive(Debug)]
struct Even;

impl Codec for Even {
    type Borrowed = u32;
    type Owned = u32;

    fn name() -> String {
        "even".into()
    }

    fn encode(value: &u32) -> Result<impl AsRef<[u8]>, CodecError> {
        if value.is_multiple_of(2) { Ok(value.to_le_bytes()) } else { Err(CodecError::new("it is odd")) }
    }

    fn decode(bytes: &[u8]) -> Result<u32, CodecError> {
        let value = u32::decode(bytes)?;
        if value < 100 { Ok(value) } else { Err(CodecError::new("it is too large")) }
    }
}

#[test]
fn what_does_not_fit_is_an_error_that_names_the_map() {
    let store = Store::in_memory().unwrap();
    let map: Map<Even, Even> = store.map("evens").unwrap();
    let message = map.insert(1, 2).unwrap_err().report();
    assert!(message.ends_with("map \"evens\": could not encode a key: it is odd"), "{message}");
    let message = map.insert(2, 1).unwrap_err().report();
    assert!(message.ends_with("map \"evens\": could not encode a value: it is odd"), "{message}");
    assert!(matches!(map.entry(1).or_insert(2), Err(Error::Codec { .. })));
    assert!(matches!(map.get(1), Err(Error::Codec { .. })));
    map.insert(2, 200).unwrap();
    map.insert(4, 4).unwrap();
    let message = map.get(2).unwrap_err().report();
    assert!(message.ends_with("map \"evens\": could not decode a value: it is too large"), "{message}");
    assert!(matches!(map.update(2, |_| Some(6)), Err(Error::Codec { .. })));
    assert!(matches!(map.retain(|_, _| false), Err(Error::Codec { .. })));
    assert_eq!(map.len().unwrap(), 2, "nothing has happened");
    let entries: Vec<_> = map.iter().unwrap().collect();
    assert_eq!(entries.len(), 2);
    assert_eq!(entries.iter().filter(|entry| matches!(entry, Ok((4, 4)))).count(), 1, "the others go on");
    assert!(map.contains_key(2).unwrap());
    assert!(map.remove(2).unwrap(), "it can be removed all the same");
}

#[test]
fn maps_of_another_store_are_told_apart() {
    let (one, other) = (Store::in_memory().unwrap(), Store::in_memory().unwrap());
    let (mine, foreign) = (one.map::<u8, u8>("map").unwrap(), other.map::<u8, u8>("map").unwrap());
    foreign.insert(1, 1).unwrap();
    let mut transaction = one.begin().unwrap();
    assert!(matches!(transaction.of(&foreign).insert(1, 2), Err(Error::ForeignMap { .. })));
    assert!(matches!(transaction.of(&foreign).get(1), Err(Error::ForeignMap { .. })));
    assert!(matches!(transaction.of(&foreign).len(), Err(Error::ForeignMap { .. })));
    transaction.of(&mine).insert(1, 3).unwrap();
    transaction.commit().unwrap();
    assert!(matches!(one.snapshot().unwrap().of(&foreign).get(1), Err(Error::ForeignMap { .. })));
    assert_eq!((mine.get(1).unwrap(), foreign.get(1).unwrap()), (Some(3), Some(1)));
}

#[test]
fn names() {
    let store = Store::in_memory().unwrap();
    assert!(matches!(store.map::<str, str>(""), Err(Error::InvalidName { .. })));
    let longest = "n".repeat(65_535);
    store.map::<str, str>(&longest).unwrap().insert("key", "value").unwrap();
    let too_long = "n".repeat(65_536);
    assert!(matches!(store.map::<str, str>(&too_long), Err(Error::InvalidName { .. })));
    assert!(matches!(store.rename_map(&longest, &too_long), Err(Error::InvalidName { .. })));
    assert!(!store.rename_map(&too_long, "short").unwrap() && !store.drop_map(&too_long).unwrap());
    assert!(store.drop_map(&longest).unwrap());
    assert!(matches!(store.rename_map("a", ""), Err(Error::InvalidName { .. })));
    assert!(!store.rename_map("", "a").unwrap());
    assert!(!store.drop_map("").unwrap());
    let names = ["a", "ä", "a b/c\n", &"x".repeat(65_535)];
    for name in names {
        store.map::<str, str>(name).unwrap().insert("name", name).unwrap();
    }
    let mut sorted: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    sorted.sort();
    assert_eq!(store.maps().unwrap().into_iter().map(|map| map.name).collect::<Vec<_>>(), sorted);
    for name in names {
        assert_eq!(store.map::<str, str>(name).unwrap().get("name").unwrap().as_deref(), Some(name));
    }
    // The default map is not affected.
    assert_eq!(store.len().unwrap(), 0);
    assert_clean(&store);
}

/// Each map has its own index, of one block at first.
#[test]
fn thousands_of_small_maps() {
    let folder = folder();
    let path = folder.path().join("store");
    let store = Store::open(&path).unwrap();
    let before = store.stats().unwrap().file_len;
    const MAPS: u32 = 3000;
    let name = |number: u32| format!("map {number}");
    for number in 0..MAPS {
        store.map::<u32, u32>(&name(number)).unwrap().extend((0..3).map(|key| (key, number))).unwrap();
    }
    let each = (store.stats().unwrap().file_len - before) / u64::from(MAPS);
    assert!(each < 5 << 10, "{each} bytes for each map");
    for number in (0..MAPS).step_by(2) {
        assert!(store.drop_map(&name(number)).unwrap());
    }
    // Ids are not reused, but places in the tables are.
    for number in MAPS..MAPS + MAPS / 2 {
        store.map::<u32, u32>(&name(number)).unwrap().extend((0..3).map(|key| (key, number))).unwrap();
    }
    let stats = store.stats().unwrap();
    let each = (stats.file_len - before) / u64::from(MAPS);
    assert!(each < 7 << 10, "{each} bytes for each map, and as many dropped");
    assert!(stats.maps.iter().any(|map| map.name == "map 1"), "they have their names in the statistics");

    let check = |store: &Store| {
        assert_eq!(store.maps().unwrap().len() as u32, MAPS);
        for number in (0..MAPS + MAPS / 2).filter(|number| *number >= MAPS || number % 2 == 1).step_by(7) {
            let map = store.map::<u32, u32>(&name(number)).unwrap();
            assert_eq!(
                map.iter().unwrap().map(Result::unwrap).collect::<HashMap<_, _>>(),
                HashMap::from([0, 1, 2].map(|key| (key, number)))
            );
        }
        assert_clean(store);
    };
    check(&store);
    let copy = folder.path().join("copy");
    std::fs::copy(&path, &copy).unwrap();
    check(&Store::open(&copy).unwrap());
    store.compact().unwrap();
    check(&store);
    store.close().unwrap();
    check(&Store::open(&path).unwrap());
}

fn views<T: View<Borrowed: PartialEq + Debug> + ?Sized>(store: &Store, value: &T::Borrowed) {
    let map = store.map::<str, T>(&format!("views of {}", T::name())).unwrap();
    // Types with the same encoding share one.
    map.insert("value", value).unwrap();
    assert_eq!(&*map.get_ref("value").unwrap().unwrap(), value);
    assert_eq!(store.snapshot().unwrap().of(&map).get_ref("value").unwrap(), Some(value));
    assert_eq!(map.get_with("value", |there| there == value).unwrap(), Some(true));
    assert!(map.get_ref("nothing").unwrap().is_none());
}

#[test]
fn values_in_place() {
    let store = Store::in_memory().unwrap();
    views::<str>(&store, "text");
    views::<String>(&store, "other text");
    views::<[u8]>(&store, b"bytes");
    views::<Vec<u8>>(&store, b"");
    views::<[u8; 4]>(&store, b"four");
    views::<Pod<u64>>(&store, &7);
    views::<Pod<[u16]>>(&store, &[1, 2, 3]);
}

/// The history of one map, including transactions over several maps, and through compaction, which changes nothing.
#[test]
fn the_changes_of_a_map_are_its_own() {
    use slotlog::MapChange::{Clear, Insert, Remove};

    let store = Store::in_memory().unwrap();
    let (map, other) = (store.map::<str, u32>("map").unwrap(), store.map::<str, u32>("other").unwrap());
    map.insert("before", 0).unwrap();
    let seen = store.seq().unwrap();
    let mut transaction = store.begin().unwrap();
    transaction.of(&map).insert("a", 1).unwrap();
    transaction.of(&other).insert("b", 2).unwrap();
    transaction.of(&map).remove("before").unwrap();
    transaction.commit().unwrap();
    other.clear().unwrap();
    map.insert("c", 3).unwrap();
    let middle = map.changes_since(seen).unwrap().seq();
    map.clear().unwrap();
    map.insert("d", 4).unwrap();
    let of_map = |seq| map.changes_since(seq).unwrap().iter().collect::<slotlog::Result<Vec<_>>>().unwrap();
    let insert = |key: &str, value| Insert { key: key.to_owned(), value };
    let end = [Clear, insert("d", 4)];
    let remove = Remove { key: "before".to_owned() };
    assert_eq!(of_map(seen), [&[insert("a", 1), remove, insert("c", 3)][..], &end].concat());
    assert_eq!(of_map(middle), end);
    assert!(store.rename_map("map", "renamed").unwrap(), "which is no change of what is in it");
    assert_eq!(of_map(middle), end);
    assert!(store.drop_map("renamed").unwrap());
    assert_eq!(of_map(middle), [&end[..], &[Clear]].concat());
}

/// Handles, iterators and borrowed values can be sent between threads, whatever the types: a handle contains no key or
/// value.
#[test]
fn handles_can_be_sent_and_shared() {
    fn everywhere<T: Send + Sync>() {}
    fn sent<T: Send>() {}
    struct NeitherSentNorShared(#[allow(dead_code)] *const ());
    everywhere::<Map<str, u64>>();
    everywhere::<Map<NeitherSentNorShared, std::rc::Rc<str>>>();
    everywhere::<slotlog::MapIter<str, [u8]>>();
    everywhere::<ValueRef<Pod<[u64]>>>();
    everywhere::<slotlog::SnapshotMap<'_, str, u64>>();
    sent::<slotlog::Transaction>();
    sent::<slotlog::TransactionMap<'_, str, u64>>();
}
