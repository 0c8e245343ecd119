//! Where a backup cannot go: it says so, and leaves everything as it was.

use slotlog::format::{EXTENTS, LIVE};

use super::*;

pub(super) fn hold(path: &Path, access: &str) {
    let access = match access {
        "read" => Access::ReadOnly,
        "copy" => Access::CopyOnWrite,
        _ => Access::ReadWrite,
    };
    let _store = Store::options().access(access).open(path).unwrap();
    say("ready");
    support::until_stopped();
}

fn small(path: &Path) -> Store {
    let store = Store::open(path).unwrap();
    store.insert("key", "value").unwrap();
    store
}

/// Backs up to where that is refused, and checks that all files are as they were.
#[track_caller]
fn refused(folder: &Path, store: &Store, path: &Path, options: BackupOptions<'_>) -> Error {
    // Readers leave their pins in the live area.
    let bytes = |name: &String| {
        fs::read(folder.join(name)).ok().map(|mut bytes| {
            let live = (bytes.len() as u64).min(EXTENTS);
            bytes.drain(live.min(LIVE) as usize..live as usize);
            bytes
        })
    };
    let all = || names(folder).into_iter().map(|name| (bytes(&name), name)).collect::<Vec<_>>();
    let before = all();
    let error = store.backup_with(path, options).expect_err("it had to be refused");
    assert!(all() == before, "something has changed: {error}");
    let text = error.to_string();
    assert!(text.contains(&*path.to_string_lossy()) && text.contains("; "), "{text}");
    error
}

#[test]
fn a_missing_folder_and_what_is_no_file() {
    let folder = folder();
    let store = Store::in_memory().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::create_dir(at("folder")).unwrap();
    for options in [BackupOptions::new, overwriting] {
        let refused = |path: &Path| refused(folder.path(), &store, path, options());
        assert!(matches!(refused(&at("missing/copy")), Error::NotFound { .. }));
        assert!(matches!(refused(&at("folder")), Error::NotAFile { .. }));
        assert!(matches!(refused(&at("folder/..")), Error::NotAFile { .. }));
        assert!(matches!(store.backup_with("", options()), Err(Error::NotFound { .. })));
        #[cfg(unix)]
        {
            let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
            assert!(matches!(refused(&at("socket")), Error::NotAFile { .. }));
            fs::remove_file(at("socket")).unwrap();
        }
    }
    let long = "n".repeat(250);
    let error = store.backup(at(&long)).unwrap_err();
    assert!(matches!(error, Error::Io { .. }), "there is no room for the name of the unfinished file: {error}");
    assert_eq!(names(folder.path()), ["folder"]);
}

#[test]
fn a_path_without_a_folder_is_in_the_present_one() {
    // Tests run in the folder of the package. The name is not used otherwise.
    let name = format!("backup-test-{}.slotlog", std::process::id());
    let store = Store::in_memory().unwrap();
    store.backup(&name).unwrap();
    let opened = Store::options().create(false).open(&name).map(drop);
    fs::remove_file(&name).unwrap();
    opened.unwrap();
}

#[test]
fn the_store_itself_by_whatever_name() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let store = small(&at("store"));
    fs::hard_link(at("store"), at("second name")).unwrap();
    #[cfg(unix)]
    std::os::unix::fs::symlink(at("store"), at("link")).unwrap();
    let reader = Store::options().access(Access::ReadOnly).open(at("store")).unwrap();
    for options in [BackupOptions::new, overwriting] {
        for opener in [&store, &reader] {
            for name in names(folder.path()) {
                let error = refused(folder.path(), opener, &at(&name), options());
                assert!(matches!(error, Error::OntoItself { .. }), "{error}");
            }
        }
    }
    drop(reader);
    store.close().unwrap();
    let trial = Store::options().access(Access::CopyOnWrite).open(at("store")).unwrap();
    let error = refused(folder.path(), &trial, &at("second name"), overwriting());
    assert!(matches!(error, Error::OntoItself { .. }), "{error}");
}

#[test]
fn an_existing_file_unless_asked_for() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let store = small(&at("store"));
    small(&at("older")).close().unwrap();
    fs::write(at("text"), "something else, of some length").unwrap();
    fs::write(at("empty"), "").unwrap();
    for name in ["older", "text", "empty"] {
        let error = refused(folder.path(), &store, &at(name), BackupOptions::new());
        assert!(matches!(error, Error::AlreadyExists { .. }), "{error}");
    }
    assert!(matches!(refused(folder.path(), &store, &at("text"), overwriting()), Error::NotAStore { .. }));
    // A store is replaced, also a damaged one; and so is an empty file.
    let mut damaged = fs::read(at("older")).unwrap();
    damaged[..8192].iter_mut().skip(20).for_each(|byte| *byte ^= 0x55);
    fs::write(at("damaged"), damaged).unwrap();
    fs::write(at("short"), &fs::read(at("older")).unwrap()[..20_000]).unwrap();
    for name in ["older", "empty", "damaged", "short"] {
        let report = store.backup_with(at(name), overwriting()).unwrap();
        assert!(report.finished);
        assert_eq!(content(&Store::open(at(name)).unwrap()), content(&store), "{name}");
    }
    assert_eq!(names(folder.path()), ["damaged", "empty", "older", "short", "store", "text"]);
}

#[cfg(unix)]
#[test]
fn a_link_is_followed_only_to_a_file_that_may_be_replaced() {
    use std::os::unix::fs::symlink;

    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let store = small(&at("store"));
    fs::create_dir(at("elsewhere")).unwrap();
    small(&at("elsewhere/copy")).close().unwrap();
    symlink(at("elsewhere/copy"), at("link")).unwrap();
    symlink(at("nowhere"), at("dangling")).unwrap();
    for name in ["link", "dangling"] {
        let error = refused(folder.path(), &store, &at(name), BackupOptions::new());
        assert!(matches!(error, Error::AlreadyExists { .. }), "{error}");
    }
    assert!(matches!(refused(folder.path(), &store, &at("dangling"), overwriting()), Error::NotAFile { .. }));
    store.insert("newer", "1").unwrap();
    store.backup_with(at("link"), overwriting()).unwrap();
    assert!(fs::symlink_metadata(at("link")).unwrap().is_symlink());
    assert_eq!(content(&Store::open(at("elsewhere/copy")).unwrap()), content(&store));
    assert_eq!(names(&at("elsewhere")), ["copy"]);
    // A link under the name of the unfinished file may lead anywhere.
    symlink(at("elsewhere/copy"), part_of(&at("new"))).unwrap();
    let error = refused(folder.path(), &store, &at("new"), BackupOptions::new());
    assert!(matches!(error, Error::NotAFile { .. }), "{error}");
}

#[test]
fn a_store_that_others_have_open() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let store = small(&at("store"));
    small(&at("other")).close().unwrap();
    for access in ["write", "read", "copy"] {
        let holder = Player::start("holder", access, &at("other"));
        assert_eq!(holder.next(), "ready");
        let before = fs::metadata(at("other")).unwrap().len();
        let error = store.backup_with(at("other"), overwriting()).unwrap_err();
        match (access, &error) {
            ("write", Error::Locked { by: HeldBy::Writer { pid, .. }, .. }) => assert_eq!(*pid, holder.child.id()),
            ("read" | "copy", Error::Locked { by: HeldBy::Readers | HeldBy::Private, .. }) => {}
            _ => panic!("{access}: {error}"),
        }
        assert_eq!((fs::metadata(at("other")).unwrap().len(), names(folder.path()).len()), (before, 2));
        holder.stop();
    }
    // This process may have it open, too; and may open it only when the backup is almost done.
    let open = small(&at("other"));
    assert!(matches!(store.backup_with(at("other"), overwriting()), Err(Error::Locked { .. })));
    drop(open);
    let mut open = None;
    let options = overwriting().on_progress(|_| {
        open = Some(Store::open(at("other")).unwrap());
        ControlFlow::Continue(())
    });
    let refused = store.backup_with(at("other"), options);
    assert!(matches!(refused, Err(Error::Locked { .. })), "{refused:?}");
    assert_eq!(names(folder.path()), ["other", "store"]);
    assert_eq!(open.unwrap().get("key").unwrap().unwrap(), b"value");
}

#[test]
fn a_name_that_is_taken_meanwhile() {
    let folder = folder();
    let path = folder.path().join("copy");
    let store = Store::in_memory().unwrap();
    let write = |_| {
        fs::write(&path, "something else").unwrap();
        ControlFlow::Continue(())
    };
    assert!(matches!(
        store.backup_with(&path, BackupOptions::new().on_progress(write)),
        Err(Error::AlreadyExists { .. })
    ));
    assert_eq!(names(folder.path()), ["copy"]);
    fs::remove_file(&path).unwrap();
    assert!(matches!(store.backup_with(&path, overwriting().on_progress(write)), Err(Error::NotAStore { .. })));
    assert_eq!((names(folder.path()), fs::read(&path).unwrap()), (vec!["copy".to_owned()], b"something else".to_vec()));
}

#[test]
fn two_backups_to_one_place_do_not_disturb_each_other() {
    let folder = folder();
    let path = folder.path().join("copy");
    let store = Store::in_memory().unwrap();
    store.insert("key", "value").unwrap();
    for options in [BackupOptions::new, overwriting] {
        let report = store.backup_with(
            &path,
            options().on_progress(|_| {
                let refused = store.backup_with(&path, options());
                let Err(Error::Locked { path: held, by: HeldBy::Exclusive { pid, .. } }) = refused else {
                    panic!("{refused:?}")
                };
                assert_eq!((held, pid), (part_of(&path), std::process::id()));
                ControlFlow::Continue(())
            }),
        );
        assert!(report.unwrap().finished);
        assert_eq!(content(&Store::open(&path).unwrap()), content(&store));
        assert_eq!(names(folder.path()), ["copy"]);
        fs::remove_file(&path).unwrap();
    }
}

/// Somebody takes the unfinished file for a left-over and removes it, and another backup begins.
#[test]
fn only_the_own_unfinished_file_gets_the_name() {
    let folder = folder();
    let path = folder.path().join("copy");
    let store = Store::in_memory().unwrap();
    store.map::<u64, u64>("map").unwrap().extend((0..9000).map(|n| (n, n))).unwrap();
    let (begun, wait_until_begun) = std::sync::mpsc::channel();
    let (go_on, wait_to_go_on) = std::sync::mpsc::channel::<()>();
    std::thread::scope(|scope| {
        let first = scope.spawn(|| {
            let wait = move |_| {
                begun.send(()).unwrap();
                // The second call finds nobody who sends.
                let _ = wait_to_go_on.recv();
                ControlFlow::Continue(())
            };
            store.backup_with(&path, BackupOptions::new().on_progress(wait))
        });
        wait_until_begun.recv().unwrap();
        fs::remove_file(part_of(&path)).unwrap();
        let mut first = Some((first, go_on));
        let second = store.backup_with(
            &path,
            BackupOptions::new().on_progress(|_| {
                if let Some((first, go_on)) = first.take() {
                    drop((go_on, wait_until_begun.try_recv()));
                    let failed = first.join().unwrap();
                    assert!(matches!(failed, Err(Error::NotFound { .. })), "{failed:?}");
                    assert!(!path.exists(), "nothing half is under the name");
                    assert!(part_of(&path).exists(), "it belongs to the second one");
                }
                ControlFlow::Continue(())
            }),
        );
        assert!(second.unwrap().finished);
    });
    assert_eq!(names(folder.path()), ["copy"]);
    assert_eq!(Store::open(&path).unwrap().map::<u64, u64>("map").unwrap().len().unwrap(), 9000);
}

#[test]
fn a_left_over_is_replaced_and_another_file_of_that_name_is_not() {
    let folder = folder();
    let path = folder.path().join("copy");
    let store = small(&folder.path().join("store"));
    // Killed at once, in creation, and later.
    let mut begun = slotlog::format::CREATION_MAGIC.to_vec();
    begun.resize(4096, 0);
    for left in [Vec::new(), vec![0; 4096], begun, fs::read(folder.path().join("store")).unwrap()] {
        fs::write(part_of(&path), left).unwrap();
        store.backup(&path).unwrap();
        assert_eq!(names(folder.path()), ["copy", "store"]);
        assert_eq!(content(&Store::open(&path).unwrap()), content(&store));
        fs::remove_file(&path).unwrap();
    }
    fs::write(part_of(&path), "what somebody needs").unwrap();
    let error = refused(folder.path(), &store, &path, BackupOptions::new());
    assert!(matches!(&error, Error::NotAStore { path: there, .. } if *there == part_of(&path)), "{error}");
    fs::remove_file(part_of(&path)).unwrap();
    // Killed between the two steps of giving it its name.
    store.backup(&path).unwrap();
    fs::hard_link(&path, part_of(&path)).unwrap();
    store.insert("newer", "1").unwrap();
    store.backup_with(&path, overwriting()).unwrap();
    assert_eq!(content(&Store::open(&path).unwrap()), content(&store));
    assert_eq!(names(folder.path()), ["copy", "store"]);
}

#[cfg(unix)]
#[test]
fn it_may_be_read_by_those_that_may_read_the_original() {
    use std::os::unix::fs::PermissionsExt;

    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    for (number, wanted) in [0o600, 0o640].into_iter().enumerate() {
        let path = at(&format!("store {number}"));
        let store = Store::options().mode(wanted).open(&path).unwrap();
        let copy = at(&format!("copy {number}"));
        store.backup_with(&copy, BackupOptions::new().durability(Durability::Buffered)).unwrap();
        assert_eq!(mode(&copy), mode(&path));
    }
}
