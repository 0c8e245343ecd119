//! Where a path may lead, and with which rights it can be opened.

use super::*;

#[test]
fn a_missing_folder_is_not_found() {
    let folder = folder();
    let path = folder.path().join("no/such/store");
    assert!(matches!(Store::open(&path), Err(Error::NotFound { path: named }) if named == path));
}

#[test]
fn a_missing_file_is_created_only_if_that_is_asked_for() {
    let folder = folder();
    let path = folder.path().join("store");
    assert!(matches!(Store::options().create(false).open(&path), Err(Error::NotFound { .. })));
    assert!(matches!(Store::options().access(Access::ReadOnly).open(&path), Err(Error::NotFound { .. })));
    assert!(!path.exists(), "neither of them may create it");
    let store = Store::options().create_new(true).open(&path).unwrap();
    assert_eq!(store.opened(), Opened::Created);
    store.insert("key", "value").unwrap();
    store.close().unwrap();
    assert!(matches!(Store::options().create_new(true).open(&path), Err(Error::AlreadyExists { .. })));
    assert_eq!(Store::options().create(false).open(&path).unwrap().get("key").unwrap().unwrap(), b"value");
    let contradiction = Store::options().create_new(true).access(Access::ReadOnly).open(folder.path().join("other"));
    assert!(matches!(contradiction, Err(Error::InvalidOptions { .. })));
}

#[test]
fn what_is_not_a_regular_file_is_refused_without_waiting_for_it() {
    let folder = folder();
    let fifo = folder.path().join("fifo");
    let name = std::ffi::CString::new(fifo.as_os_str().as_encoded_bytes()).unwrap();
    // SAFETY: the name is a C string that lives during the call.
    assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
    let socket = folder.path().join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let link = folder.path().join("link");
    std::os::unix::fs::symlink(&fifo, &link).unwrap();
    for path in [folder.path(), &fifo, &socket, &link, Path::new("/dev/null")] {
        for access in [Access::ReadWrite, Access::ReadOnly] {
            // The reader of a FIFO waits for a writer, for ever.
            let path = path.to_owned();
            let (done, outcome) = std::sync::mpsc::channel();
            std::thread::spawn(move || done.send(Store::options().access(access).open(&path)));
            let outcome = outcome.recv_timeout(std::time::Duration::from_secs(10)).expect("opening it hangs");
            assert!(matches!(outcome, Err(Error::NotAFile { .. })), "{outcome:?}");
        }
    }
}

#[test]
fn a_link_to_a_store_is_as_good_as_the_store() {
    let folder = folder();
    let (path, link) = (folder.path().join("store"), folder.path().join("link"));
    make(&path, 3);
    std::os::unix::fs::symlink(&path, &link).unwrap();
    let store = Store::open(&link).unwrap();
    assert_eq!(store.len().unwrap(), 3);
    Store::open(&path).unwrap().insert("new", "value").unwrap();
    assert_eq!(store.get("new").unwrap().unwrap(), b"value", "it is one file");
}

#[test]
fn a_file_that_may_not_be_opened_is_permission_denied() {
    use std::os::unix::fs::PermissionsExt;

    let folder = folder();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let path = folder.path().join("store");
    make(&path, 3);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o444)).unwrap();
    // Root may do everything, so the child gives up being root.
    assert_eq!(run_child("without rights", &path), ["denied", "3 keys", "denied"]);
}

pub(super) fn without_rights(path: &Path) {
    let of_another = is_root();
    give_up_rights();
    let outcome = Store::open(path);
    say(if matches!(outcome, Err(Error::PermissionDenied { .. })) { "denied" } else { "opened" });
    let store = Store::options().access(Access::ReadOnly).open(path).unwrap();
    say(&format!("{} keys", store.len().unwrap()));
    let outcome = Store::open(path.with_file_name("another"));
    say(if matches!(outcome, Err(Error::PermissionDenied { .. })) || !of_another { "denied" } else { "opened" });
}
