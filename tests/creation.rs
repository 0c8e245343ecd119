//! A store is created wherever a file can be, with the requested permissions, or leaves nothing behind.
#![cfg(unix)]
#![allow(missing_docs, unsafe_code, clippy::unwrap_used, clippy::print_stderr)]

mod support;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use slotlog::{Access, Error, Opened, Store};
use support::{assert_clean, folder, give_up_rights, run_child, say};

fn mode_of(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

/// Creates a store, closes it and finds it again.
fn create_and_find(path: &Path) {
    let store = Store::open(path).unwrap();
    assert_eq!(store.opened(), Opened::Created);
    store.insert("key", "value").unwrap();
    store.close().unwrap();
    let store = Store::options().create(false).open(path).unwrap();
    assert_eq!(store.opened(), Opened::Clean);
    assert_eq!(store.get("key").unwrap().unwrap(), b"value");
    assert_clean(&store);
}

#[test]
#[ignore = "plays a role in a process of its own"]
fn child() {
    let Some((role, path)) = support::role() else { return };
    match role.split_once(' ').unwrap() {
        ("umask", mask) => with_umask(&path, mask.parse().unwrap()),
        ("descriptors", left) => with_descriptors(&path, left.parse().unwrap()),
        ("nobody", _) => as_nobody(&path),
        _ => panic!("{role}"),
    }
}

// Permissions.

/// Creates one store for each of some modes, and one with the default.
fn with_umask(folder: &Path, mask: u32) {
    // SAFETY: `umask` takes a number and always succeeds.
    unsafe { libc::umask(mask as _) };
    let path = folder.join(format!("plain under {mask:o}"));
    Store::open(&path).unwrap();
    assert_eq!(mode_of(&path), 0o666 & !mask);
    fs::write(folder.join("other"), "").unwrap();
    assert_eq!(mode_of(&path), mode_of(&folder.join("other")), "as any file");
    for mode in [0o600, 0o660, 0o644, 0o666, 0o777] {
        let path = folder.join(format!("{mode:o} under {mask:o}"));
        Store::options().mode(mode).open(&path).unwrap().insert("key", "value").unwrap();
        assert_eq!(mode_of(&path), mode & !mask, "{mode:o} under {mask:o}");
    }
    say("created");
}

#[test]
fn a_new_file_has_the_mode_that_was_asked_for_under_the_umask() {
    for mask in [0, 0o002, 0o022, 0o027, 0o077] {
        let folder = folder();
        assert_eq!(run_child(&format!("umask {mask}"), folder.path()), ["created"]);
    }
}

#[test]
fn the_mode_is_for_creation_only() {
    let folder = folder();
    let path = folder.path().join("store");
    Store::options().mode(0o600).open(&path).unwrap();
    Store::options().mode(0o666).open(&path).unwrap();
    assert_eq!(mode_of(&path), 0o600);
    for mode in [0, 0o400, 0o200, 0o066, 0o10600, u32::MAX] {
        let outcome = Store::options().mode(mode).open(folder.path().join("other"));
        assert!(matches!(outcome, Err(Error::InvalidOptions { .. })), "{mode:o}: {outcome:?}");
    }
    assert!(!folder.path().join("other").exists());
}

#[test]
fn the_mode_is_that_of_what_a_link_leads_to() {
    let folder = folder();
    let (link, target) = (folder.path().join("link"), folder.path().join("target"));
    symlink("target", &link).unwrap();
    Store::options().mode(0o600).open(&link).unwrap();
    assert_eq!(mode_of(&target), 0o600);
}

// Places.

#[test]
fn a_link_that_leads_to_nothing_is_followed() {
    let folder = folder();
    let inner = folder.path().join("inner");
    fs::create_dir(&inner).unwrap();
    let (link, second, target) = (folder.path().join("link"), inner.join("second"), folder.path().join("target"));
    symlink("inner/second", &link).unwrap();
    symlink("../target", &second).unwrap();
    for access in [Access::ReadOnly, Access::CopyOnWrite] {
        assert!(matches!(Store::options().access(access).open(&link), Err(Error::NotFound { .. })));
    }
    assert!(matches!(Store::options().create(false).open(&link), Err(Error::NotFound { .. })));
    // To the system, a link is something that exists.
    assert!(matches!(Store::options().create_new(true).open(&link), Err(Error::AlreadyExists { .. })));
    assert!(!target.exists());
    create_and_find(&link);
    assert!(fs::symlink_metadata(&target).unwrap().is_file());
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink() && fs::symlink_metadata(&second).unwrap().is_symlink());

    // A creation that fails leaves the links, and no target.
    fs::remove_file(&target).unwrap();
    assert!(matches!(Store::options().max_size(8192).open(&link), Err(Error::Full { .. })));
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink() && fs::symlink_metadata(&second).unwrap().is_symlink());
    assert!(fs::symlink_metadata(&target).is_err());

    // A link into a missing folder, and one to itself.
    for (name, to) in [("lost", "no/such/folder"), ("circle", "circle")] {
        let link = folder.path().join(name);
        symlink(to, &link).unwrap();
        assert!(Store::open(&link).is_err(), "{name}");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    }
}

fn as_nobody(path: &Path) {
    give_up_rights();
    assert!(fs::read_dir(path.parent().unwrap()).is_err(), "the folder can be read");
    create_and_find(path);
    say("created");
}

/// Root can read every folder, so the child gives up being root.
#[test]
fn a_folder_that_may_not_be_read_gets_a_store() {
    let folder = folder();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let inner = folder.path().join("inner");
    fs::create_dir(&inner).unwrap();
    fs::set_permissions(&inner, fs::Permissions::from_mode(0o333)).unwrap();
    let said = run_child("nobody there", &inner.join("store"));
    fs::set_permissions(&inner, fs::Permissions::from_mode(0o777)).unwrap();
    assert_eq!(said, ["created"]);
    // Only its owner can read the store.
    assert!(inner.join("store").exists());
}

/// A file without a name: opened by the number of its descriptor, again and again.
#[test]
#[cfg(target_os = "linux")]
fn a_file_without_a_name_gets_a_store() {
    use std::fs::File;
    use std::os::fd::{AsRawFd, FromRawFd};
    use std::os::unix::fs::OpenOptionsExt;

    let folder = folder();
    // SAFETY: the name is a C string that lives during the call, and only we own the descriptor, if there is one.
    let memory = unsafe { File::from_raw_fd(libc::memfd_create(c"store".as_ptr(), libc::MFD_CLOEXEC)) };
    let temporary = fs::OpenOptions::new().read(true).write(true).custom_flags(libc::O_TMPFILE).open(folder.path());
    let named = File::create(folder.path().join("named")).unwrap();
    let removed = File::create_new(folder.path().join("removed")).unwrap();
    fs::remove_file(folder.path().join("removed")).unwrap();
    let files =
        [("memfd", Some(memory)), ("O_TMPFILE", temporary.ok()), ("named", Some(named)), ("removed", Some(removed))];
    for (what, file) in files {
        let Some(file) = file else {
            eprintln!("skipped: no {what} here");
            continue;
        };
        for path in ["/proc/self/fd", "/dev/fd"] {
            file.set_len(0).unwrap();
            let path = Path::new(path).join(file.as_raw_fd().to_string());
            // A creation that fails leaves the file, which existed before.
            assert!(matches!(Store::options().max_size(8192).open(&path), Err(Error::Full { .. })), "{what}");
            file.set_len(0).unwrap();
            create_and_find(&path);
            let (first, second) = (Store::open(&path).unwrap(), Store::open(&path).unwrap());
            first.insert("one", "value").unwrap();
            assert_eq!(second.get("one").unwrap().unwrap(), b"value", "{what}");
            assert!(second.compact().unwrap().finished);
        }
    }
}

// Failures.

fn with_descriptors(path: &Path, left: u64) {
    // The descriptors of the test harness may have gaps; the next one is the lowest that is free.
    let mut held = Vec::new();
    // SAFETY: the struct consists of integers.
    let mut limit: libc::rlimit = unsafe { std::mem::zeroed() };
    // SAFETY: the call fills in the struct, which lives on this stack frame.
    assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) }, 0);
    let whole = limit.rlim_cur;
    limit.rlim_cur = 64;
    // SAFETY: the struct lives during the call.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) }, 0);
    while let Ok(file) = fs::File::open("/dev/null") {
        held.push(file);
    }
    held.truncate(held.len() - left as usize);
    let outcome = Store::options().create_new(true).open(path);
    let said = match &outcome {
        Ok(store) => {
            store.insert("key", "value").unwrap();
            "created"
        }
        Err(error) => {
            assert!(matches!(error, Error::Io { .. }), "{error:?}");
            "refused"
        }
    };
    drop(held);
    limit.rlim_cur = whole;
    // SAFETY: as above.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) }, 0);
    if outcome.is_err() {
        assert!(!path.exists(), "something is left, of {} bytes", fs::metadata(path).unwrap().len());
        Store::options().create_new(true).open(path).unwrap();
    }
    say(said);
}

/// Covers each of the descriptors that may be missing.
#[test]
fn a_creation_without_descriptors_leaves_nothing() {
    let folder = folder();
    let mut created = 0;
    for left in 0..8 {
        let path = folder.path().join(left.to_string());
        let said = run_child(&format!("descriptors {left}"), &path);
        assert!(said == ["created"] || said == ["refused"], "{said:?}");
        created += usize::from(said == ["created"]);
    }
    assert!((1..8).contains(&created), "{created} of 8: the limits are not about creation");
}
