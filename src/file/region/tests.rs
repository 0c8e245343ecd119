use super::*;

fn region_of_file(max_len: u64) -> (tempfile::TempDir, Region) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("region");
    let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
    (folder, Region::of_file(file, path, false, max_len).unwrap())
}

#[test]
fn accesses_beyond_the_end_are_refused() {
    let (_folder, region) = region_of_file(1 << 30);
    let len = EXTENTS;
    assert_eq!(region.len(), len);
    assert!(region.word(len - 8).is_ok());
    assert!(region.live_word(len - 8).is_ok());
    assert!(region.frozen(len, 0).is_ok());
    for error in [
        region.word(len).unwrap_err(),
        region.word(len - 4).unwrap_err(),
        region.word(u64::MAX - 7).unwrap_err(),
        region.live_word(len).unwrap_err(),
        region.live_word(4).unwrap_err(),
        region.words::<8>(len - 32).unwrap_err(),
        region.words::<8>(len).unwrap_err(),
        region.frozen(len - 96, 97).unwrap_err(),
        region.frozen(1, u64::MAX).unwrap_err(),
        region.write(len - 1, b"ab").unwrap_err(),
    ] {
        assert!(matches!(error, Error::Corrupt { .. }), "{error}");
    }
    // What was cut off the file meanwhile has nothing to be flushed.
    region.flush(0, len + 1).unwrap();
    region.flush(len, 4096).unwrap();
}

#[test]
fn borrows_survive_growth_beyond_the_mapping() {
    let (_folder, region) = region_of_file(1 << 40);
    region.write(8, b"still here").unwrap();
    let borrowed = region.frozen(8, 10).unwrap();
    let word = region.word(64).unwrap();
    // More than the room that the first mapping has.
    for len in [EXTENTS + 4096, RESERVE, RESERVE + 4096] {
        region.allocate(region.len(), len).unwrap();
        region.write(len - 4, b"tail").unwrap();
    }
    assert!(region.mappings.lock().unwrap().len() > 1, "growth was to need a new mapping");
    region.store(64, 7, Ordering::Release).unwrap();
    assert_eq!(borrowed, b"still here");
    assert_eq!(word.load(), 7, "old and new mapping show the same file");
    assert_eq!(region.frozen(8, 10).unwrap(), b"still here");
    assert_eq!(region.frozen(EXTENTS, 8).unwrap(), [0; 8], "new space is zeros");
}

#[test]
fn growth_stops_at_the_limit_and_leaves_everything_as_it_was() {
    let (_folder, region) = region_of_file(EXTENTS + 8192);
    let (max, file_max) = (EXTENTS + 4096, EXTENTS + 8192);
    region.allocate(region.len(), max).unwrap();
    let error = region.allocate(region.len(), max + 1).unwrap_err();
    assert!(
        matches!(error, Error::Full { needed: 1, why: FullReason::MaxSize(limit), .. } if limit == file_max),
        "{error}"
    );
    assert_eq!(region.len(), max);
    assert_eq!(std::fs::metadata(region.path()).unwrap().len(), file_max, "the seal lies behind it");
}

#[test]
fn memory_grows_in_place() {
    let region = Region::in_memory(1 << 20).unwrap();
    region.write(0, b"abc").unwrap();
    region.allocate(region.len(), 1 << 20).unwrap();
    assert_eq!(region.frozen(0, 3).unwrap(), b"abc");
    assert!(matches!(
        region.allocate(region.len(), (1 << 20) + 1),
        Err(Error::Full { needed: 1, why: FullReason::MaxSize(max), .. }) if max == 1 << 20
    ));
    let endless = Region::in_memory(u64::MAX).unwrap();
    assert!(matches!(
        endless.allocate(endless.len(), 1 << 42),
        Err(Error::Full { why: FullReason::AddressSpace(_), .. })
    ));
}

/// What was given back is zeros when it is used again, and not what the file behind it says.
#[test]
fn memory_behind_a_file_grows_shrinks_and_leaves_the_file_alone() {
    const BLOCKS: u64 = 8;
    let (_folder, region) = region_of_file(1 << 30);
    let (path, len) = (region.path().to_owned(), EXTENTS + BLOCKS * BLOCK);
    region.allocate(region.len(), len).unwrap();
    region.write(EXTENTS, &[7; (BLOCKS * BLOCK) as usize]).unwrap();
    drop(region);
    let before = std::fs::read(&path).unwrap();
    let max = 16 * len;
    let region = Region::of_file(File::open(&path).unwrap(), path.clone(), true, u64::MAX).unwrap();
    let region = region.into_private(max + BLOCK).unwrap();
    let block = |region: &Region, number: u64| region.frozen(EXTENTS + number * BLOCK, BLOCK).unwrap().to_vec();
    assert_eq!(block(&region, 7), [7; BLOCK as usize]);
    region.write(8, b"private").unwrap();
    // A hole, that is not whole pages where those are larger.
    assert!(region.punch(EXTENTS + BLOCK, 2 * BLOCK).unwrap());
    assert_eq!(region.truncate(EXTENTS + 5 * BLOCK).unwrap(), 3 * BLOCK);
    region.allocate(region.len(), max).unwrap();
    for number in 0..16 * BLOCKS {
        let is_left = matches!(number, 0 | 3 | 4);
        assert_eq!(block(&region, number), [if is_left { 7 } else { 0 }; BLOCK as usize], "block {number}");
    }
    region.write(max - 4, b"tail").unwrap();
    region.flush_all().unwrap();
    assert!(matches!(region.allocate(max, max + 1), Err(Error::Full { why: FullReason::MaxSize(_), .. })));
    drop(region);
    assert!(std::fs::read(&path).unwrap() == before, "not a byte of the file has changed");
}

#[test]
fn a_read_only_region_refuses_every_change() {
    let (_folder, region) = region_of_file(1 << 20);
    region.write(0, b"abc").unwrap();
    let path = region.path().to_owned();
    let region = Region::of_file(File::open(&path).unwrap(), path, true, 1 << 20).unwrap();
    assert_eq!(region.frozen(0, 3).unwrap(), b"abc");
    for result in [
        region.write(0, b"x"),
        region.store(0, 1, Ordering::Relaxed),
        region.compare_exchange(0, 0, 1, Ordering::Relaxed).map(drop),
        region.allocate(region.len(), 2 * EXTENTS),
    ] {
        assert!(matches!(result, Err(Error::ReadOnly { .. })));
    }
}

#[test]
fn a_recorder_sees_every_change_in_order() {
    #[derive(Default)]
    struct Notes(Mutex<Vec<String>>);
    impl door::Recorder for Notes {
        fn write(&self, offset: u64, bytes: &[u8]) {
            self.0.lock().unwrap().push(format!("write {offset} {bytes:?}"));
        }
        fn store(&self, offset: u64, value: u64) {
            self.0.lock().unwrap().push(format!("store {offset} {value}"));
        }
        fn flush(&self, offset: u64, len: u64) -> io::Result<()> {
            self.0.lock().unwrap().push(format!("flush {offset} {len}"));
            Ok(())
        }
        fn set_len(&self, len: u64) {
            self.0.lock().unwrap().push(format!("len {len}"));
        }
    }
    let (_folder, region) = region_of_file(1 << 20);
    let notes = Arc::new(Notes::default());
    region.set_recorder(notes.clone());
    region.write(16, &[1, 2]).unwrap();
    region.store(24, 5, Ordering::Release).unwrap();
    assert!(!region.compare_exchange(24, 4, 6, Ordering::AcqRel).unwrap());
    assert!(region.compare_exchange(24, 5, 6, Ordering::AcqRel).unwrap());
    region.flush(0, 64).unwrap();
    region.allocate(region.len(), 2 * EXTENTS).unwrap();
    let to_here = ["write 16 [1, 2]", "store 24 5", "store 24 6", "flush 0 64"];
    // First what the seal says, then that it is there.
    let growth = ["len 135168", "store 131072 0", "store 131080 0", "store 131088 0", "store 8296 131072"];
    assert_eq!(*notes.0.lock().unwrap(), [&to_here[..], &growth].concat());
}

/// Memory is given back by pages, which on some systems are longer than the blocks that are free or not.
#[cfg(unix)]
#[test]
fn only_whole_pages_are_given_back() {
    assert_eq!(os::whole_pages(4096..12288, 4096), 4096..12288);
    assert_eq!(os::whole_pages(4096..65536, 16384), 16384..65536);
    assert_eq!(os::whole_pages(65536..200_704, 65536), 65536..196_608);
    assert!(os::whole_pages(4096..61440, 65536).is_empty());
    assert!(os::whole_pages(0..0, 4096).is_empty());
}
