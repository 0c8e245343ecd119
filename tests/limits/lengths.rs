//! How long keys, values and files are.

use super::*;

#[test]
fn keys_have_at_most_65535_bytes() {
    let store = Store::in_memory().unwrap();
    let (longest, too_long) = (vec![7; 65_535], vec![7; 65_536]);
    store.insert(&longest, "value").unwrap();
    assert_eq!(store.get(&longest).unwrap().unwrap(), b"value");
    assert!(matches!(store.insert(&too_long, "value"), Err(Error::KeyTooLong { len: 65_536, max: 65_535 })));
    // A key that is too long is absent, and asking for it is no error.
    assert_eq!(store.get(&too_long).unwrap(), None);
    assert!(!store.contains_key(&too_long).unwrap());
    assert!(!store.remove(&too_long).unwrap());
    let mut transaction = store.begin().unwrap();
    assert!(matches!(transaction.insert(&too_long, ""), Err(Error::KeyTooLong { .. })));
    assert!(!transaction.remove(&too_long).unwrap());
    transaction.insert("short", "value").unwrap();
    transaction.commit().unwrap();
    assert_eq!(store.len().unwrap(), 2);
    assert!(store.remove(&longest).unwrap());
    assert_clean(&store);
}

#[test]
fn a_value_of_100_mib_is_stored_and_read() {
    let folder = folder();
    let path = folder.path().join("store");
    let value: Vec<u8> = (0..100 << 20).map(|n: u32| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let store = Store::open(&path).unwrap();
    store.insert("before", "small").unwrap();
    store.insert("large", &value).unwrap();
    store.insert("after", "small").unwrap();
    assert!(store.get_with("large", |found| found == value).unwrap().unwrap());
    store.close().unwrap();
    let store = Store::open(&path).unwrap();
    assert!(store.get_with("large", |found| found == value).unwrap().unwrap());
    assert_eq!(store.get("after").unwrap().unwrap(), b"small");
    assert_eq!(store.stats().unwrap().maps[1].entries, 3);
}

#[test]
#[ignore = "needs 10 GiB of memory or disk"]
fn a_value_of_4_gib_less_a_byte_is_stored_and_one_byte_more_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut value = vec![0; u32::MAX as usize];
    value[5] = 5;
    *value.last_mut().unwrap() = 9;
    let store = Store::open(folder.path().join("store")).unwrap();
    store.insert("large", &value).unwrap();
    assert!(store.get_with("large", |found| found == value).unwrap().unwrap());
    value.push(1);
    assert!(matches!(store.insert("larger", &value), Err(Error::ValueTooLong { .. })));
    store.insert("after", "small").unwrap();
    assert_eq!(store.len().unwrap(), 2);
    assert_clean(&store);
}

#[test]
fn blocks_are_the_unit_in_which_a_file_grows() {
    let folder = folder();
    let path = folder.path().join("store");
    make(&path, 10_000);
    assert_eq!(fs::metadata(&path).unwrap().len() % BLOCK, 0);
}
