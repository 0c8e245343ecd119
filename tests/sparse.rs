//! Sparse files: a copy with holes in place of zeros reads the same, and gets real space before it is written to.
#![cfg(target_os = "linux")]
#![allow(missing_docs, unsafe_code, clippy::unwrap_used, clippy::print_stderr)]

mod support;

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::Command;

use slotlog::format::BLOCK;
use slotlog::{Access, Error, FullReason, Opened, Store};
use support::{assert_clean, folder, run_child, say};

/// Length of the part before the extents.
const EXTENTS: usize = 65536;

fn is_zero(block: &[u8]) -> bool {
    block.iter().all(|&byte| byte == 0)
}

/// Copies a file, with holes in place of blocks of zeros.
fn copy_sparsely(from: &Path, to: &Path) {
    let bytes = fs::read(from).unwrap();
    let file = File::create(to).unwrap();
    for (at, block) in (0..).step_by(BLOCK as usize).zip(bytes.chunks(BLOCK as usize)) {
        if !is_zero(block) {
            file.write_all_at(block, at).unwrap();
        }
    }
    file.set_len(bytes.len() as u64).unwrap();
}

fn space_behind(path: &Path) -> u64 {
    fs::metadata(path).unwrap().blocks() * 512
}

fn has_holes(path: &Path) -> bool {
    space_behind(path) < fs::metadata(path).unwrap().len()
}

#[test]
fn a_sparse_copy_gets_real_space_when_it_is_opened_for_writing() {
    let folder = folder();
    let (path, copy) = (folder.path().join("store"), folder.path().join("copy"));
    let store = Store::options().initial_capacity(100_000).open(&path).unwrap();
    store.insert("zeros", [0; 100_000]).unwrap();
    let mut store = Some(store);
    for closed in [false, true] {
        if closed {
            store.take().unwrap().close().unwrap();
        }
        copy_sparsely(&path, &copy);
        assert!(space_behind(&copy) < fs::metadata(&copy).unwrap().len() / 2);
        for access in [Access::ReadOnly, Access::CopyOnWrite] {
            let store = Store::options().access(access).open(&copy).unwrap();
            assert_eq!(store.get("zeros").unwrap().unwrap(), [0; 100_000]);
        }
        // In a file in memory, reading allocates space.
        copy_sparsely(&path, &copy);
        let store = Store::open(&copy).unwrap();
        assert!(!has_holes(&copy));
        assert_eq!(store.opened() == Opened::Clean, closed);
        assert_eq!(store.get("zeros").unwrap().unwrap(), [0; 100_000]);
        assert_clean(&store);
    }
}

#[test]
fn a_sparse_copy_on_a_full_disk_is_an_error_and_not_a_signal() {
    let folder = folder();
    for kind in ["tmpfs", "ext4"] {
        let said = run_child(kind, folder.path());
        match said.first().and_then(|line| line.strip_prefix("skipped: ")) {
            Some(reason) => eprintln!("skipped, for a small {kind} could not be mounted: {reason}"),
            None => assert_eq!(said, ["full while closed", "full while open", "goes on"], "{kind}"),
        }
    }
}

/// On a disk in memory a hole takes space when it is read. The log may end at a hole, and then there is space for the
/// part before the extents, and for nothing else.
#[test]
fn a_sparse_copy_is_not_looked_at_before_it_has_real_space() {
    let folder = folder();
    let said = run_child("front", folder.path());
    match said.first().and_then(|line| line.strip_prefix("skipped: ")) {
        Some(reason) => eprintln!("skipped, for a small tmpfs could not be mounted: {reason}"),
        None => assert_eq!(said, ["full while closed", "full while open"]),
    }
}

/// Mounts a file system of a few MiB over a folder, which vanishes with this process.
fn mount_small(kind: &str, folder: &Path) -> io::Result<()> {
    let run = |program: &str, arguments: &[&str], last: [&Path; 2]| {
        let status = Command::new(program).args(arguments).args(last).status()?;
        if status.success() { Ok(()) } else { Err(io::Error::other(format!("{program} failed"))) }
    };
    let name = CString::new(folder.as_os_str().as_encoded_bytes()).unwrap();
    let done = |result| if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) };
    // SAFETY: takes an integer.
    done(unsafe { libc::unshare(libc::CLONE_NEWNS) })?;
    let (root, private) = (c"/".as_ptr(), libc::MS_REC | libc::MS_PRIVATE);
    // SAFETY: the paths are C strings that live during the call.
    done(unsafe { libc::mount(root, root, std::ptr::null(), private, std::ptr::null()) })?;
    if kind != "tmpfs" {
        let image = folder.join("image");
        File::create(&image)?.set_len(8 << 20)?;
        run("mkfs.ext4", &["-q", "-m", "0", "-O", "^has_journal", "-F"], [&image, Path::new("8M")])?;
        return run("mount", &["-o", "loop"], [&image, folder]);
    }
    let (kind, size) = (c"tmpfs".as_ptr(), c"size=4m".as_ptr().cast());
    // SAFETY: as above.
    done(unsafe { libc::mount(kind, name.as_ptr(), kind, 0, size) })
}

/// Takes all remaining space.
fn take_the_rest(other: &Path) {
    let mut file = File::create(other).unwrap();
    for piece in [64 << 10, 4 << 10] {
        while file.write_all(&vec![1; piece]).is_ok() {}
    }
}

fn on_a_full_disk(kind: &str, folder: &Path) {
    if let Err(error) = mount_small(kind, folder) {
        say(&format!("skipped: {error}"));
        return;
    }
    let (path, copy, other) = (folder.join("store"), folder.join("copy"), folder.join("other"));
    let store = Store::options().initial_capacity(100_000).open(&path).unwrap();
    store.insert("zeros", [0; 100_000]).unwrap();
    copy_sparsely(&path, &copy);
    let of_open = fs::read(&copy).unwrap();
    store.close().unwrap();
    let closed = folder.join("closed");
    copy_sparsely(&path, &closed);
    fs::remove_file(&path).unwrap();
    take_the_rest(&other);
    for (copy, what) in [(&closed, "full while closed"), (&copy, "full while open")] {
        let before = fs::read(copy).unwrap();
        let error = Store::open(copy).unwrap_err();
        assert!(matches!(error, Error::Full { why: FullReason::Disk, needed, .. } if needed >= 500_000), "{error}");
        assert!(fs::read(copy).unwrap() == before, "a refused file has changed");
        // In a file in memory, reading allocates space.
        if kind != "tmpfs" {
            let store = Store::options().access(Access::ReadOnly).open(copy).unwrap();
            assert_eq!(store.get("zeros").unwrap().unwrap(), [0; 100_000]);
        }
        say(what);
    }
    assert!(fs::read(&copy).unwrap() == of_open);
    fs::remove_file(&other).unwrap();
    fs::remove_file(&copy).unwrap();
    let store = Store::open(&closed).unwrap();
    take_the_rest(&other);
    for key in 0u32.. {
        match store.insert(key.to_le_bytes(), [1; 1000]) {
            Ok(()) => {}
            Err(Error::Full { why: FullReason::Disk, .. }) => break,
            Err(error) => panic!("{error}"),
        }
    }
    assert_clean(&store);
    say("goes on");
}

fn with_space_for_the_front(folder: &Path) {
    if let Err(error) = mount_small("tmpfs", folder) {
        say(&format!("skipped: {error}"));
        return;
    }
    let (path, copy, other) = (folder.join("store"), folder.join("copy"), folder.join("other"));
    let mut store = Some(Store::open(&path).unwrap());
    let end_of = |key: u64, len: usize| {
        let record = [key.to_be_bytes().as_slice(), &vec![9; len]].concat();
        store.as_ref().unwrap().insert(&record[..8], &record[8..]).unwrap();
        let image = fs::read(&path).unwrap();
        (image.windows(record.len()).position(|bytes| bytes == record).unwrap() + record.len(), image)
    };
    let block = BLOCK as usize;
    // The log must end with a block, and continue in the next one: not with the end of an extent.
    let image = (1..100).step_by(3).find_map(|key| {
        let (first, second) = (end_of(key, 32).0, end_of(key + 1, 32).0);
        let (end, image) = end_of(key + 2, block - (2 * second - first.min(second) - 32) % block);
        (end.is_multiple_of(block) && is_zero(&image[end..end + block])).then_some(image)
    });
    let image = image.unwrap();
    fs::write(&other, &image).unwrap();
    for closed in [true, false] {
        let original = folder.join(if closed { "closed" } else { "open" });
        if closed {
            copy_sparsely(&other, &folder.join("open"));
            store.take().unwrap().close().unwrap();
            copy_sparsely(&path, &original);
            fs::remove_file(&path).unwrap();
        }
        fs::rename(&original, &copy).unwrap();
        let front = fs::read(&copy).unwrap()[..EXTENTS].chunks(block).filter(|block| is_zero(block)).count();
        fs::remove_file(&other).unwrap();
        take_the_rest(&other);
        let len = fs::metadata(&other).unwrap().len();
        File::options().write(true).open(&other).unwrap().set_len(len - (front * block) as u64).unwrap();
        let error = Store::open(&copy).unwrap_err();
        assert!(matches!(error, Error::Full { why: FullReason::Disk, .. }), "{error}");
        say(if closed { "full while closed" } else { "full while open" });
    }
}

/// Plays a part in a process of its own.
#[test]
#[ignore = "what a process of its own does, started by other tests"]
fn child() {
    let Some((role, path)) = support::role() else { return };
    match role.as_str() {
        "front" => with_space_for_the_front(&path),
        kind => on_a_full_disk(kind, &path),
    }
}
