//! smoke
#![allow(missing_docs, clippy::unwrap_used)]
use slotlog::*;
#[test]
fn smoke() {
    let d = tempfile::tempdir().unwrap();
    let p = d.path().join("a");
    let s = Store::open(&p).unwrap();
    for i in 0..100000u32 { s.insert(i.to_le_bytes(), [i as u8; 100]).unwrap(); }
    for i in 0..100000u32 { assert_eq!(s.get(i.to_le_bytes()).unwrap().unwrap(), [i as u8; 100]); }
    let r = s.verify().unwrap(); assert!(r.is_clean(), "{r:?}");
    std::fs::copy(&p, d.path().join("b")).unwrap();
    let mut t = s.begin().unwrap();
    for i in 0..50000u32 { t.remove(i.to_le_bytes()).unwrap(); t.insert((i+200000).to_le_bytes(), b"x").unwrap(); t.insert((i+200000).to_le_bytes(), b"y").unwrap(); }
    t.commit().unwrap();
    let r = s.verify().unwrap(); assert!(r.is_clean(), "{r:?}");
    assert_eq!(s.len().unwrap(), 100000);
    assert_eq!(s.snapshot().unwrap().iter().count(), 100000);
    println!("{:#?}", s.stats().unwrap());
    s.close().unwrap();
    let s = Store::open(&p).unwrap();
    assert_eq!(s.opened(), Opened::Clean);
    let r = s.verify().unwrap(); assert!(r.is_clean(), "{r:?}");
    s.clear().unwrap();
    assert!(s.is_empty().unwrap());
    s.insert("a","b").unwrap();
    let r = s.verify().unwrap(); assert!(r.is_clean(), "{r:?}");
    drop(s);
    let s = Store::options().access(Access::ReadOnly).open(&p).unwrap();
    assert_eq!(s.get("a").unwrap().unwrap(), b"b");
    let s = Store::open(d.path().join("b")).unwrap();
    println!("{:?}", s.opened());
    let r = s.verify().unwrap(); assert!(r.is_clean(), "{r:?}");
    assert_eq!(s.len().unwrap(), 100000);
}
