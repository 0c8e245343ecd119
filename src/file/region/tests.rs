use super::*;

fn region_of_file(max_len: u64) -> (tempfile::TempDir, Region) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("region");
    let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
    (folder, Region::of_file(file, path, Protection::ReadWrite, max_len).unwrap())
}

#[test]
fn accesses_beyond_the_end_are_refused() {
    let (_folder, region) = region_of_file(1 << 30);
    let len = EXTENTS;
    assert_eq!(region.len(), len);
    assert!(region.word(len - 8).is_ok());
    assert!(region.live_word(len - 8).is_ok());
    assert!(region.frozen(Offset(len), 0).is_ok());
    for error in [
        region.word(len).unwrap_err(),
        region.word(len - 4).unwrap_err(),
        region.word(u64::MAX - 7).unwrap_err(),
        region.live_word(len).unwrap_err(),
        region.live_word(4).unwrap_err(),
        region.words::<8>(len - 32).unwrap_err(),
        region.words::<8>(len).unwrap_err(),
        region.frozen(Offset(len - 96), 97).unwrap_err(),
        region.frozen(Offset(1), u64::MAX).unwrap_err(),
        region.write(Offset(len - 1), b"ab").unwrap_err(),
    ] {
        assert!(matches!(error, Error::Corrupt { .. }), "{error}");
    }
    // What was cut off the file meanwhile has nothing to be flushed.
    region.flush(Offset(0), len + 1).unwrap();
    region.flush(Offset(len), 4096).unwrap();
}

#[test]
fn borrows_survive_growth_beyond_the_mapping() {
    let (_folder, region) = region_of_file(1 << 40);
    region.write(Offset(8), b"still here").unwrap();
    let borrowed = region.frozen(Offset(8), 10).unwrap();
    let word = region.word(64).unwrap();
    let grow = |len| {
        region.allocate(Offset(region.len()), Offset(len)).unwrap();
        region.write(Offset(len - 4), b"tail").unwrap();
        region.mappings.lock().unwrap().len()
    };
    let before = grow(RESERVE);
    #[cfg(unix)]
    let neighbour = neighbour_of(&region);
    assert!(grow(4 * RESERVE) > before, "growth was to need a new mapping");
    #[cfg(unix)]
    assert_eq!(neighbour.frozen(), [7; 4096]);
    region.store(64, 7, Ordering::Release).unwrap();
    assert_eq!(borrowed, b"still here");
    assert_eq!(word.load(), 7, "old and new mapping show the same file");
    assert_eq!(region.frozen(Offset(8), 10).unwrap(), b"still here");
    assert_eq!(region.frozen(Offset(EXTENTS), 8).unwrap(), [0; 8], "new space is zeros");
}

/// Memory where the mapping of a region would grow.
#[cfg(unix)]
fn neighbour_of(region: &Region) -> Neighbour {
    let mappings = region.mappings.lock().unwrap();
    let last = mappings.last().unwrap();
    let (access, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANON);
    // SAFETY: this takes addresses that are free: those behind the mapping, unless somebody else has them.
    let at = unsafe { libc::mmap(last.as_mut_ptr().wrapping_add(last.len()).cast(), 4096, access, flags, -1, 0) };
    assert!(at != libc::MAP_FAILED);
    // SAFETY: these bytes were mapped just now, for writing.
    unsafe { at.cast::<u8>().write_bytes(7, 4096) };
    Neighbour(at.cast())
}

#[cfg(unix)]
struct Neighbour(*const u8);

#[cfg(unix)]
impl Neighbour {
    fn frozen(&self) -> &[u8] {
        // SAFETY: so many bytes were mapped and written to, and nobody writes to them again.
        unsafe { std::slice::from_raw_parts(self.0, 4096) }
    }
}

#[cfg(unix)]
impl Drop for Neighbour {
    fn drop(&mut self) {
        // SAFETY: it was mapped for this, and is borrowed no more.
        unsafe { libc::munmap(self.0.cast_mut().cast(), 4096) };
    }
}

/// Nothing of a file is mapped twice as long as there is room behind its mapping, and stores in memory go on where they
/// are.
#[cfg(all(target_os = "linux", target_arch = "x86_64", not(thread_sanitizer)))]
#[test]
fn mappings_grow_where_they_are() {
    let regions = || {
        let (folder, file) = region_of_file(1 << 40);
        [(Some(folder), file), (None, Region::in_memory(1 << 40).unwrap())]
    };
    let regions: Vec<_> = (0..20).flat_map(|_| regions()).collect();
    for (number, (_, region)) in regions.iter().enumerate() {
        region.write(Offset(8), &[number as u8]).unwrap();
        for len in [EXTENTS + 4096, 2 << 20, 3 << 20, 9 << 20] {
            region.allocate(Offset(region.len()), Offset(len)).unwrap();
            region.write(Offset(len - 1), &[number as u8]).unwrap();
        }
        let mappings = region.mappings.lock().unwrap();
        assert_eq!(mappings.len(), 1);
        assert!(mappings[0].len() < 12 << 20, "no more addresses than it needs");
    }
    for (number, (_, region)) in regions.iter().enumerate() {
        for at in [8, EXTENTS + 4095, (9 << 20) - 1] {
            assert_eq!(region.frozen(Offset(at), 1).unwrap(), [number as u8]);
        }
    }
}

#[test]
fn growth_stops_at_the_limit_and_leaves_everything_as_it_was() {
    let (_folder, region) = region_of_file(EXTENTS + 8192);
    let (max, file_max) = (EXTENTS + 4096, EXTENTS + 8192);
    region.allocate(Offset(region.len()), Offset(max)).unwrap();
    let error = region.allocate(Offset(region.len()), Offset(max + 1)).unwrap_err();
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
    region.write(Offset(0), b"abc").unwrap();
    region.allocate(Offset(region.len()), Offset(1 << 20)).unwrap();
    assert_eq!(region.frozen(Offset(0), 3).unwrap(), b"abc");
    assert!(matches!(
        region.allocate(Offset(region.len()), Offset((1 << 20) + 1)),
        Err(Error::Full { needed: 1, why: FullReason::MaxSize(max), .. }) if max == 1 << 20
    ));
    let endless = Region::in_memory(u64::MAX).unwrap();
    #[cfg(unix)]
    let neighbour = neighbour_of(&endless);
    let (len, longer) = (endless.len(), if cfg!(unix) { 2 << 30 } else { 1 << 42 });
    let error = endless.allocate(Offset(len), Offset(longer)).unwrap_err();
    assert!(matches!(error, Error::Full { why: FullReason::AddressSpace(_), .. }), "{error}");
    assert_eq!(endless.len(), len);
    #[cfg(unix)]
    assert_eq!(neighbour.frozen(), [7; 4096]);
}

/// What was given back is zeros when it is used again, and not what the file behind it says.
#[test]
fn memory_behind_a_file_grows_shrinks_and_leaves_the_file_alone() {
    const BLOCKS: u64 = 8;
    let (_folder, region) = region_of_file(1 << 30);
    let (path, len) = (region.path().to_owned(), EXTENTS + BLOCKS * BLOCK);
    region.allocate(Offset(region.len()), Offset(len)).unwrap();
    region.write(Offset(EXTENTS), &[7; (BLOCKS * BLOCK) as usize]).unwrap();
    drop(region);
    let before = std::fs::read(&path).unwrap();
    let max = 16 * len;
    let file = File::open(&path).unwrap();
    let region = Region::of_file(file, path.clone(), Protection::ReadOnly, u64::MAX).unwrap();
    let region = region.into_private(max + BLOCK).unwrap();
    let block = |region: &Region, number: u64| region.frozen(Offset(EXTENTS + number * BLOCK), BLOCK).unwrap().to_vec();
    assert_eq!(block(&region, 7), [7; BLOCK as usize]);
    region.write(Offset(8), b"private").unwrap();
    assert_eq!(region.truncate(EXTENTS + 5 * BLOCK).unwrap(), 3 * BLOCK);
    region.allocate(Offset(region.len()), Offset(max)).unwrap();
    for number in 0..16 * BLOCKS {
        let is_left = number < 5;
        assert_eq!(block(&region, number), [if is_left { 7 } else { 0 }; BLOCK as usize], "block {number}");
    }
    region.write(Offset(max - 4), b"tail").unwrap();
    region.flush_all().unwrap();
    assert!(matches!(
        region.allocate(Offset(max), Offset(max + 1)),
        Err(Error::Full { why: FullReason::MaxSize(_), .. })
    ));
    drop(region);
    assert!(std::fs::read(&path).unwrap() == before, "not a byte of the file has changed");
}

#[test]
fn a_read_only_region_refuses_every_change() {
    let (_folder, region) = region_of_file(1 << 20);
    region.write(Offset(0), b"abc").unwrap();
    let path = region.path().to_owned();
    let region = Region::of_file(File::open(&path).unwrap(), path, Protection::ReadOnly, 1 << 20).unwrap();
    assert_eq!(region.frozen(Offset(0), 3).unwrap(), b"abc");
    for result in [
        region.write(Offset(0), b"x"),
        region.store(0, 1, Ordering::Relaxed),
        region.compare_exchange(0, 0, 1, Ordering::Relaxed).map(drop),
        region.allocate(Offset(region.len()), Offset(2 * EXTENTS)),
    ] {
        assert!(matches!(result, Err(Error::ReadOnly { .. })));
    }
}

#[test]
fn a_recorder_sees_every_change_in_order() {
    #[derive(Default)]
    struct Notes(Mutex<Vec<String>>);
    impl witness::Recorder for Notes {
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
    region.write(Offset(16), &[1, 2]).unwrap();
    region.store(24, 5, Ordering::Release).unwrap();
    assert!(!region.compare_exchange(24, 4, 6, Ordering::AcqRel).unwrap());
    assert!(region.compare_exchange(24, 5, 6, Ordering::AcqRel).unwrap());
    region.flush(Offset(0), 64).unwrap();
    region.allocate(Offset(region.len()), Offset(2 * EXTENTS)).unwrap();
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
