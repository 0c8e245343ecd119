use super::*;

fn mapping_of_file(max_len: u64) -> (tempfile::TempDir, Mapping) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mapping");
    let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
    (folder, Mapping::of_file(file, path, Protection::ReadWrite, max_len).unwrap())
}

#[test]
fn accesses_beyond_the_end_are_refused() {
    let (_folder, mapping) = mapping_of_file(1 << 30);
    let len = EXTENTS;
    assert_eq!(mapping.len(), len);
    assert!(mapping.word(len - 8).is_ok());
    assert!(mapping.live_word(len - 8).is_ok());
    assert!(mapping.frozen(Offset(len), 0).is_ok());
    for error in [
        mapping.word(len).unwrap_err(),
        mapping.word(len - 4).unwrap_err(),
        mapping.word(u64::MAX - 7).unwrap_err(),
        mapping.live_word(len).unwrap_err(),
        mapping.live_word(4).unwrap_err(),
        mapping.words::<8>(len - 32).unwrap_err(),
        mapping.words::<8>(len).unwrap_err(),
        mapping.frozen(Offset(len - 96), 97).unwrap_err(),
        mapping.frozen(Offset(1), u64::MAX).unwrap_err(),
        mapping.write(Offset(len - 1), b"ab").unwrap_err(),
    ] {
        assert!(matches!(error, Error::Corrupt { .. }), "{error}");
    }
    // The part that was cut off the file meanwhile needs no flush.
    mapping.flush(Offset(0), len + 1).unwrap();
    mapping.flush(Offset(len), 4096).unwrap();
}

#[test]
fn borrows_survive_growth_beyond_the_mapping() {
    let (_folder, mapping) = mapping_of_file(1 << 40);
    mapping.write(Offset(8), b"still here").unwrap();
    let borrowed = mapping.frozen(Offset(8), 10).unwrap();
    let word = mapping.word(64).unwrap();
    let grow = |len| {
        mapping.allocate(Offset(mapping.len()), Offset(len)).unwrap();
        mapping.write(Offset(len - 4), b"tail").unwrap();
        mapping.spans.lock().unwrap().len()
    };
    let before = grow(RESERVE);
    #[cfg(unix)]
    let neighbour = neighbour_of(&mapping);
    assert!(grow(4 * RESERVE) > before, "growth was to need a new mapping");
    #[cfg(unix)]
    assert_eq!(neighbour.frozen(), [7; 4096]);
    mapping.store(64, 7, Ordering::Release).unwrap();
    assert_eq!(borrowed, b"still here");
    assert_eq!(word.load(), 7, "old and new mapping show the same file");
    assert_eq!(mapping.frozen(Offset(8), 10).unwrap(), b"still here");
    assert_eq!(mapping.frozen(Offset(EXTENTS), 8).unwrap(), [0; 8], "new space is zeros");
}

/// Memory where the span of a mapping would grow.
#[cfg(unix)]
fn neighbour_of(mapping: &Mapping) -> Neighbour {
    let spans = mapping.spans.lock().unwrap();
    let last = spans.last().unwrap();
    let (access, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANON);
    // SAFETY: this takes addresses that are free: those after the span, unless they are taken.
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
        // SAFETY: this many bytes were mapped and written to, and nothing writes to them again.
        unsafe { std::slice::from_raw_parts(self.0, 4096) }
    }
}

#[cfg(unix)]
impl Drop for Neighbour {
    fn drop(&mut self) {
        // SAFETY: it was mapped for this, and is no longer borrowed.
        unsafe { libc::munmap(self.0.cast_mut().cast(), 4096) };
    }
}

/// No part of a file is mapped twice while there is room after its span, and stores in memory grow in place.
#[cfg(all(target_os = "linux", target_arch = "x86_64", not(thread_sanitizer)))]
#[test]
fn mappings_grow_where_they_are() {
    let mappings = || {
        let (folder, file) = mapping_of_file(1 << 40);
        [(Some(folder), file), (None, Mapping::in_memory(1 << 40).unwrap())]
    };
    let mappings: Vec<_> = (0..20).flat_map(|_| mappings()).collect();
    for (number, (_, mapping)) in mappings.iter().enumerate() {
        mapping.write(Offset(8), &[number as u8]).unwrap();
        for len in [EXTENTS + 4096, 2 << 20, 3 << 20, 9 << 20] {
            mapping.allocate(Offset(mapping.len()), Offset(len)).unwrap();
            mapping.write(Offset(len - 1), &[number as u8]).unwrap();
        }
        let spans = mapping.spans.lock().unwrap();
        assert_eq!(spans.len(), 1);
        assert!(spans[0].len() < 12 << 20, "no more addresses than it needs");
    }
    for (number, (_, mapping)) in mappings.iter().enumerate() {
        for at in [8, EXTENTS + 4095, (9 << 20) - 1] {
            assert_eq!(mapping.frozen(Offset(at), 1).unwrap(), [number as u8]);
        }
    }
}

#[test]
fn growth_stops_at_the_limit_and_leaves_everything_as_it_was() {
    let (_folder, mapping) = mapping_of_file(EXTENTS + 8192);
    let (max, file_max) = (EXTENTS + 4096, EXTENTS + 8192);
    mapping.allocate(Offset(mapping.len()), Offset(max)).unwrap();
    let error = mapping.allocate(Offset(mapping.len()), Offset(max + 1)).unwrap_err();
    assert!(
        matches!(error, Error::Full { needed: 1, why: FullReason::MaxSize(limit), .. } if limit == file_max),
        "{error}"
    );
    assert_eq!(mapping.len(), max);
    assert_eq!(std::fs::metadata(mapping.path()).unwrap().len(), file_max, "the seal lies behind it");
}

#[test]
fn memory_grows_in_place() {
    let mapping = Mapping::in_memory(1 << 20).unwrap();
    mapping.write(Offset(0), b"abc").unwrap();
    mapping.allocate(Offset(mapping.len()), Offset(1 << 20)).unwrap();
    assert_eq!(mapping.frozen(Offset(0), 3).unwrap(), b"abc");
    assert!(matches!(
        mapping.allocate(Offset(mapping.len()), Offset((1 << 20) + 1)),
        Err(Error::Full { needed: 1, why: FullReason::MaxSize(max), .. }) if max == 1 << 20
    ));
    let endless = Mapping::in_memory(u64::MAX).unwrap();
    #[cfg(unix)]
    let neighbour = neighbour_of(&endless);
    let (len, longer) = (endless.len(), if cfg!(unix) { 2 << 30 } else { 1 << 42 });
    let error = endless.allocate(Offset(len), Offset(longer)).unwrap_err();
    assert!(matches!(error, Error::Full { why: FullReason::AddressSpace(_), .. }), "{error}");
    assert_eq!(endless.len(), len);
    #[cfg(unix)]
    assert_eq!(neighbour.frozen(), [7; 4096]);
}

/// Space that was given back reads as zeros when it is used again, not as the file behind it.
#[test]
fn memory_behind_a_file_grows_shrinks_and_leaves_the_file_alone() {
    const BLOCKS: u64 = 8;
    let (_folder, mapping) = mapping_of_file(1 << 30);
    let (path, len) = (mapping.path().to_owned(), EXTENTS + BLOCKS * BLOCK);
    mapping.allocate(Offset(mapping.len()), Offset(len)).unwrap();
    mapping.write(Offset(EXTENTS), &[7; (BLOCKS * BLOCK) as usize]).unwrap();
    drop(mapping);
    let before = std::fs::read(&path).unwrap();
    let max = 16 * len;
    let file = File::open(&path).unwrap();
    let mapping = Mapping::of_file(file, path.clone(), Protection::ReadOnly, u64::MAX).unwrap();
    let mapping = mapping.into_private(max + BLOCK).unwrap();
    let block =
        |mapping: &Mapping, number: u64| mapping.frozen(Offset(EXTENTS + number * BLOCK), BLOCK).unwrap().to_vec();
    assert_eq!(block(&mapping, 7), [7; BLOCK as usize]);
    mapping.write(Offset(8), b"private").unwrap();
    assert_eq!(mapping.truncate(EXTENTS + 5 * BLOCK).unwrap(), 3 * BLOCK);
    mapping.allocate(Offset(mapping.len()), Offset(max)).unwrap();
    for number in 0..16 * BLOCKS {
        let is_left = number < 5;
        assert_eq!(block(&mapping, number), [if is_left { 7 } else { 0 }; BLOCK as usize], "block {number}");
    }
    mapping.write(Offset(max - 4), b"tail").unwrap();
    mapping.flush_all().unwrap();
    assert!(matches!(
        mapping.allocate(Offset(max), Offset(max + 1)),
        Err(Error::Full { why: FullReason::MaxSize(_), .. })
    ));
    drop(mapping);
    assert!(std::fs::read(&path).unwrap() == before, "not a byte of the file has changed");
}

#[test]
fn a_read_only_mapping_refuses_every_change() {
    let (_folder, mapping) = mapping_of_file(1 << 20);
    mapping.write(Offset(0), b"abc").unwrap();
    let path = mapping.path().to_owned();
    let mapping = Mapping::of_file(File::open(&path).unwrap(), path, Protection::ReadOnly, 1 << 20).unwrap();
    assert_eq!(mapping.frozen(Offset(0), 3).unwrap(), b"abc");
    for result in [
        mapping.write(Offset(0), b"x"),
        mapping.store(0, 1, Ordering::Relaxed),
        mapping.compare_exchange(0, 0, 1, Ordering::Relaxed).map(drop),
        mapping.allocate(Offset(mapping.len()), Offset(2 * EXTENTS)),
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
    let (_folder, mapping) = mapping_of_file(1 << 20);
    let notes = Arc::new(Notes::default());
    mapping.set_recorder(notes.clone());
    mapping.write(Offset(16), &[1, 2]).unwrap();
    mapping.store(24, 5, Ordering::Release).unwrap();
    assert!(!mapping.compare_exchange(24, 4, 6, Ordering::AcqRel).unwrap());
    assert!(mapping.compare_exchange(24, 5, 6, Ordering::AcqRel).unwrap());
    mapping.flush(Offset(0), 64).unwrap();
    mapping.allocate(Offset(mapping.len()), Offset(2 * EXTENTS)).unwrap();
    let to_here = ["write 16 [1, 2]", "store 24 5", "store 24 6", "flush 0 64"];
    // First the block of the seal and its words, then its place.
    let block = format!("write 131072 {:?}", [0u8; BLOCK as usize]);
    let growth = ["len 135168", &block, "store 131072 0", "store 131080 0", "store 131088 0", "store 8296 131072"];
    assert_eq!(*notes.0.lock().unwrap(), [&to_here[..], &growth].concat());
}

/// What was read there would be in memory page by page when something is appended later.
#[cfg(target_os = "linux")]
#[test]
fn growth_reads_nothing_of_the_file() {
    let (_folder, mapping) = mapping_of_file(1 << 30);
    let pages_in_memory = |from: u64, to: u64| {
        let mut pages = vec![0; ((to - from) / BLOCK) as usize];
        let start = mapping.frozen(Offset(from), to - from).unwrap().as_ptr();
        // SAFETY: the range is mapped, and there is a byte for each of its pages, which are no shorter than a block.
        let outcome = unsafe { libc::mincore(start.cast_mut().cast(), (to - from) as usize, pages.as_mut_ptr()) };
        assert_eq!(outcome, 0, "{}", io::Error::last_os_error());
        pages.iter().filter(|&&page| page & 1 != 0).count()
    };
    for megabytes in 1..8 {
        let (from, to) = (mapping.len(), megabytes << 20);
        mapping.allocate(Offset(from), Offset(to)).unwrap();
        // Those of the seal before, which is read where it is for the first time.
        let pages = pages_in_memory(from, to);
        assert!(megabytes == 1 || pages <= 1, "{pages} pages of {megabytes} MiB");
    }
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
