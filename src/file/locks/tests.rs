use std::path::{Path, PathBuf};

use super::*;

fn file() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("locked");
    File::create(&path).unwrap();
    (folder, path)
}

fn open(path: &Path) -> Locks {
    let data = File::options().read(true).write(true).open(path).unwrap();
    // The descriptor of the data may close: only a fork looks at it.
    Locks::open(&data, || File::options().read(true).write(true).open(path)).unwrap()
}

#[test]
fn bytes_exclude_and_are_shared() {
    let (_folder, path) = file();
    let (one, other) = (open(&path), open(&path));
    assert!(one.try_lock(entry(3), Sharing::Exclusive).unwrap());
    assert!(!other.try_lock(entry(3), Sharing::Exclusive).unwrap());
    assert!(!other.try_lock(entry(3), Sharing::Shared).unwrap());
    assert!(other.try_lock(entry(4), Sharing::Exclusive).unwrap(), "the next byte is another lock");
    one.unlock(entry(3)).unwrap();
    assert!(other.try_lock(entry(3), Sharing::Shared).unwrap());
    assert!(one.try_lock(entry(3), Sharing::Shared).unwrap());
    assert!(!one.try_lock(entry(3), Sharing::Exclusive).unwrap());
}

#[test]
fn a_byte_is_locked_once_however_often_one_asks() {
    let (_folder, path) = file();
    let (one, other) = (open(&path), open(&path));
    for sharing in [Sharing::Exclusive, Sharing::Exclusive, Sharing::Shared, Sharing::Shared] {
        assert!(one.try_lock(CHECKPOINT, sharing).unwrap());
    }
    assert!(other.try_lock(CHECKPOINT, Sharing::Shared).unwrap());
    assert!(!one.try_lock(CHECKPOINT, Sharing::Exclusive).unwrap());
    other.unlock(CHECKPOINT).unwrap();
    assert!(!other.try_lock(CHECKPOINT, Sharing::Exclusive).unwrap(), "who was refused keeps what he had");
    one.unlock(CHECKPOINT).unwrap();
    assert!(other.try_lock(CHECKPOINT, Sharing::Exclusive).unwrap());
}

#[test]
fn ones_own_locks_look_free() {
    let (_folder, path) = file();
    let (one, other) = (open(&path), open(&path));
    assert!(one.try_lock(OPENING, Sharing::Exclusive).unwrap());
    assert!(!one.is_held(OPENING).unwrap());
    assert!(other.is_held(OPENING).unwrap());
    assert!(!other.is_held(CHECKPOINT).unwrap());
    assert!(one.try_lock(entry(7), Sharing::Exclusive).unwrap());
    assert!(!one.is_held(entry(7)).unwrap());
    assert!(other.is_held(entry(7)).unwrap());
    assert!(other.try_lock(snapshot(30), Sharing::Shared).unwrap());
    assert!(one.try_lock(snapshot(20), Sharing::Shared).unwrap());
    assert_eq!(one.lowest_held(snapshot(0)..snapshot(99)).unwrap(), Some(snapshot(30)));
}

#[test]
fn a_file_is_the_same_by_any_name_and_no_other() {
    let (folder, path) = file();
    let link = folder.path().join("link");
    std::fs::hard_link(&path, &link).unwrap();
    let another = folder.path().join("another");
    File::create(&another).unwrap();
    let first = File::open(&path).unwrap();
    let same = |path: &Path| is_same_file(&first, &File::open(path).unwrap()).unwrap();
    assert!(same(&path) && same(&link));
    assert!(!same(&another));
}

#[test]
fn the_lowest_of_many_is_found() {
    let (_folder, path) = file();
    let (one, other, asker) = (open(&path), open(&path), open(&path));
    for count in [70, 5, 900, 12, 6] {
        let holder = if count % 2 == 0 { &one } else { &other };
        assert!(holder.try_lock(snapshot(count), Sharing::Shared).unwrap());
    }
    let lowest = |range: Range<u64>| asker.lowest_held(snapshot(range.start)..snapshot(range.end)).unwrap();
    assert_eq!(lowest(0..1000), Some(snapshot(5)));
    assert_eq!(lowest(0..5), None);
    assert_eq!(lowest(13..900), Some(snapshot(70)));
    assert_eq!(lowest(7..7), None);
    assert_eq!(lowest(901..1 << 44), None);
}

#[test]
fn the_whole_file_and_its_bytes_do_not_collide() {
    let (_folder, path) = file();
    let (one, other) = (open(&path), open(&path));
    assert!(one.try_whole(Sharing::Exclusive).unwrap());
    assert!(other.try_lock(OPENING, Sharing::Exclusive).unwrap());
    assert!(!other.try_whole(Sharing::Shared).unwrap());
    one.release();
    assert!(other.try_whole(Sharing::Shared).unwrap());
}

#[test]
fn who_only_reads_can_share_and_ask() {
    let (_folder, path) = file();
    let writer = open(&path);
    let data = File::open(&path).unwrap();
    let reader = Locks::open(&data, || File::open(&path)).unwrap();
    assert!(reader.try_lock(snapshot(9), Sharing::Shared).unwrap());
    // Windows lets a reader do that.
    #[cfg(unix)]
    assert!(reader.try_lock(OPENING, Sharing::Exclusive).is_err());
    assert_eq!(writer.lowest_held(snapshot(0)..snapshot(100)).unwrap(), Some(snapshot(9)));
    assert!(writer.try_lock(entry(0), Sharing::Exclusive).unwrap());
    assert!(reader.is_held(entry(0)).unwrap());
}

#[test]
fn locks_are_given_up_with_the_last_of_an_opening() {
    let (_folder, path) = file();
    let (one, other) = (open(&path), open(&path));
    assert!(one.try_lock(entry(1), Sharing::Exclusive).unwrap());
    assert!(one.try_lock(snapshot(1 << 43), Sharing::Exclusive).unwrap());
    one.release();
    assert!(!other.is_held(entry(1)).unwrap());
    assert!(!other.is_held(snapshot(1 << 43)).unwrap());
}
