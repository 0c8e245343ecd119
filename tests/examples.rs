//! The examples do what they say.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Output, Stdio};

use support::example;

fn run(name: &str, folder: &Path, arguments: &[&str]) -> String {
    let output = example(name, folder).args(arguments).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn fails(name: &str, folder: &Path, arguments: &[&str]) -> String {
    let output: Output = example(name, folder).args(arguments).output().unwrap();
    assert!(!output.status.success(), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

/// The program of the README: see `tests/front_door.rs`.
#[test]
fn visits() {
    let folder = tempfile::tempdir().unwrap();
    let lines = |output: String| {
        let mut lines: Vec<String> = output.lines().map(String::from).collect();
        lines.sort();
        lines
    };
    assert_eq!(lines(run("visits", folder.path(), &[])), ["alice: 4", "bob: 1"]);
    assert_eq!(lines(run("visits", folder.path(), &[])), ["alice: 4", "bob: 2"], "what was closed is there again");
}

#[test]
fn settings() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let set = |name, value| assert_eq!(run("settings", path, &[name, value]), "");
    assert_eq!(run("settings", path, &[]), "dark    false\nvolume  5\ntheme   plain\nwindow  800x600\n");
    set("dark", "true");
    set("volume", "11");
    set("theme", "sea");
    set("window", "320x200");
    assert_eq!(run("settings", path, &[]), "dark    true\nvolume  11\ntheme   sea\nwindow  320x200\n");
    assert!(fails("settings", path, &["volume", "300"]).contains("number too large"));
    assert!(fails("settings", path, &["colour", "red"]).contains("there is no setting colour"));
    assert!(fails("settings", path, &["a", "b", "c"]).contains("usage"));
    assert_eq!(run("settings", path, &["reset"]), "");
    assert_eq!(run("settings", path, &[]), "dark    false\nvolume  5\ntheme   plain\nwindow  800x600\n");
}

#[test]
fn cache() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    std::fs::write(path.join("file"), "one\ntwo\n").unwrap();
    let first = run("cache", path, &["file"]);
    let words: Vec<&str> = first.split_whitespace().collect();
    let checksum = format!("{:08x}", crc32fast::hash(b"one\ntwo\n"));
    assert_eq!(words, ["read", "8", "bytes", "2", "lines", &checksum, "file"]);
    // Within a minute, whatever happens to the file.
    std::fs::write(path.join("file"), "").unwrap();
    assert_eq!(run("cache", path, &["file"]), first.replace("read  ", "cached"));
    assert!(fails("cache", path, &["no such file"]).contains("no such file: "));
    assert!(fails("cache", path, &[]).contains("usage"));
}

#[test]
fn mailbox() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    assert_eq!(run("mailbox", path, &["send", "weather: sun"]), "");
    assert_eq!(run("mailbox", path, &["send", "weather: rain"]), "nobody has received \"sun\"\n");
    let receiver = example("mailbox", path).arg("receive").stdout(Stdio::piped()).spawn().unwrap();
    // Until it has received what was there, and waits.
    let store = slotlog::Store::open(path.join("mailbox.slotlog")).unwrap();
    let map = store.map::<str, str>("mailbox").unwrap();
    let wait = || {
        for _ in 0..1000 {
            if map.is_empty().unwrap() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        panic!("nobody receives");
    };
    wait();
    run("mailbox", path, &["send", "hello"]);
    wait();
    run("mailbox", path, &["send", "stop"]);
    let output = receiver.wait_with_output().unwrap();
    assert!(output.status.success());
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "weather: rain\nhello: hello\n");
    assert!(fails("mailbox", path, &["send"]).contains("usage"));
}

#[test]
fn samples() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    assert_eq!(run("samples", path, &["record", "86400"]), "86400 samples in 22 blocks\n");
    let average = run("samples", path, &["average"]);
    assert!(average.starts_with("86400 samples up to 86399000 ms"), "{average}");
    assert!(average.ends_with("15.00 °C, 60.0 %\n"), "{average}");
    run("samples", path, &["record", "1"]);
    assert!(run("samples", path, &["average"]).starts_with("86401 samples"));
    assert!(fails("samples", path, &["record", "many"]).contains("invalid digit"));
    assert!(fails("samples", path, &[]).contains("usage"));
}

#[test]
fn sessions() {
    let folder = tempfile::tempdir().unwrap();
    for round in 1..=2 {
        let output = run("sessions", folder.path(), &[]);
        let (sessions, notes) = (19 * round, 190 * round);
        let expected = format!(
            "19 sessions finished, 1 died in a transaction\n\
             {sessions} sessions are counted, and {notes} notes are in the store\n"
        );
        assert_eq!(output, expected);
    }
    assert!(fails("sessions", folder.path(), &["many"]).contains("invalid digit"));
}

/// A process of the example `follow`, which is killed when it is dropped.
struct Following(std::process::Child);

impl Drop for Following {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn serve(folder: &Path, address: &str) -> (Following, String) {
    let mut leader = example("follow", folder);
    let mut child = leader.args(["serve", "app", address]).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    (Following(child), line.trim().strip_prefix("serving on ").unwrap().to_owned())
}

fn copy(folder: &Path, address: &str) -> Following {
    let mut copy = example("follow", folder);
    Following(copy.args(["copy", address, "replica", "test"]).stdout(Stdio::null()).spawn().unwrap())
}

/// Waits until the copy has what the store has.
fn wait_for_copy(folder: &Path, store: &slotlog::Store) {
    let expected = support::everything_in(store);
    for _ in 0..6000 {
        if let Ok(copy) = support::read_only(&folder.join("replica"))
            && support::everything_in(&copy) == expected
        {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("the copy stays behind");
}

#[test]
fn follow() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let store = slotlog::Store::open(path.join("app")).unwrap();
    store.map::<str, u32>("ages").unwrap().insert("Ada", 36).unwrap();
    let (leader, address) = serve(path, "127.0.0.1:0");
    let follower = copy(path, &address);
    wait_for_copy(path, &store);
    for number in 0..1000 {
        store.insert(format!("{number}"), "while it runs").unwrap();
    }
    wait_for_copy(path, &store);
    // The copy is killed, and the leader.
    drop(follower);
    store.remove("7").unwrap();
    store.drop_map("ages").unwrap();
    let follower = copy(path, &address);
    wait_for_copy(path, &store);
    drop(leader);
    store.insert("key", "while there is no leader").unwrap();
    let (leader, _) = serve(path, &address);
    wait_for_copy(path, &store);
    // The history is gone.
    drop(follower);
    store.clear().unwrap();
    store.remove_bookmark("test").unwrap();
    store.insert("key", "afterwards").unwrap();
    assert!(store.compact().unwrap().finished);
    let follower = copy(path, &address);
    wait_for_copy(path, &store);
    store.insert("key", "and it goes on").unwrap();
    wait_for_copy(path, &store);

    // An older file is put in the place of the leader's, and goes on differently.
    drop((leader, follower));
    let (app, older) = (path.join("app"), path.join("older"));
    store.close().unwrap();
    slotlog::Store::open(&app).unwrap().close().unwrap();
    std::fs::copy(&app, &older).unwrap();
    let store = slotlog::Store::open(&app).unwrap();
    (0..10).for_each(|number| store.insert(format!("{number}"), "lost").unwrap());
    let (leader, _) = serve(path, &address);
    let follower = copy(path, &address);
    wait_for_copy(path, &store);
    drop((leader, follower));
    store.close().unwrap();
    std::fs::rename(&older, &app).unwrap();
    let store = slotlog::Store::open(&app).unwrap();
    (0..1000).for_each(|number| store.insert(format!("{number}"), "instead of it").unwrap());
    let (_leader, _) = serve(path, &address);
    let _follower = copy(path, &address);
    wait_for_copy(path, &store);

    assert!(fails("follow", path, &["serve", "missing folder/app", "127.0.0.1:0"]).contains("not found"));
    assert!(fails("follow", path, &["serve"]).contains("usage"));
}
