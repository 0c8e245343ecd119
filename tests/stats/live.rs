//! Stores that others have open.

use std::fs;
use std::process::Stdio;
use std::thread;

use slotlog::Store;

use super::support::{command, read_only};
use super::*;

#[test]
fn a_store_that_is_not_closed_is_looked_at_all_the_same() {
    let _turn = turn();
    let (folder, path) = example_store();
    let store = Store::open(&path).unwrap();
    store.insert("one", "more").unwrap();
    let copy = folder.path().join("copy");
    fs::copy(&path, &copy).unwrap();
    let bytes = fs::read(&copy).unwrap();
    let recovered = printed(&copy, &["--verify"]);
    assert_eq!(line(after(&recovered, "map"), "(default)")[0], "951");
    assert!(recovered.starts_with(&format!("{}: recovered\nleft by a power cut", copy.display())), "{recovered}");
    assert!(fs::read(&copy).unwrap() == bytes, "not a byte was written");
    let live = printed(&path, &["--verify"]);
    assert_eq!(line(after(&live, "map"), "(default)")[0], "951", "it looks on while others write");
    assert_eq!(line(&live, "writing now"), ["none"]);
    let snapshot = store.snapshot().unwrap();
    let transaction = store.begin().unwrap();
    let live = printed(&path, &["--verify"]);
    let words = live.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words.contains("of one commit, since others are writing: no findings"), "{live}");
    let figures = json(&stats(&path, &["--json", "--verify"]));
    assert_eq!((&figures["verify"]["finding_count"], &figures["verify"]["scope"]), (&0.into(), &"snapshot".into()));
    let pid = std::process::id();
    assert!(line(&live, "writing now")[0].starts_with(&format!("process {pid}, a transaction for ")), "{live}");
    assert!(words.contains(&format!("0 commits behind: a snapshot that process {pid} has held for ")), "{live}");
    let figures = &json(&stats(&path, &["--json"]))["stats"];
    assert_eq!(figures["processes"][0]["pid"], pid);
    assert_eq!(figures["writing"], pid);
    assert_eq!((&figures["pins"], &figures["oldest_pin"]["pid"]), (&1.into(), &pid.into()));
    drop((snapshot, transaction));
    store.close().unwrap();
    let store = Store::options().exclusive(true).open(&path).unwrap();
    assert_error(&stats(&path, &[]), &path, "in use by process");
    store.close().unwrap();
    assert_eq!(line(after(&printed(&path, &[]), "map"), "(default)")[0], "951");
}

#[test]
fn readers_do_not_exclude_each_other() {
    let _turn = turn();
    let (_folder, path) = example_store();
    let _store = read_only(&path).unwrap();
    printed(&path, &["--verify"]);
}

#[cfg(unix)]
#[test]
fn a_file_without_write_permission_is_enough() {
    use std::os::unix::fs::PermissionsExt;

    let _turn = turn();
    let (folder, path) = example_store();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o444)).unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o555)).unwrap();
    let output = stats(&path, &["--verify"]);
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(line(after(&stdout(&output), "map"), "(default)")[0], "950");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no other file was made");
}

/// The figures of the looks, which come one after the other in a pipe.
#[test]
fn watching_shows_what_happens() {
    let _turn = turn();
    let (_folder, path) = example_store();
    let store = Store::open(&path).unwrap();
    let mut watch = command(STATS);
    watch.arg(&path).args(["--watch", "0.2", "--count", "4"]).stdout(Stdio::piped());
    let watching = watch.spawn().unwrap();
    let watching = thread::spawn(move || watching.wait_with_output().unwrap());
    let mut number = 0u32;
    while !watching.is_finished() {
        store.insert(number.to_le_bytes(), [7; 100]).unwrap();
        number += 1;
        thread::sleep(Duration::from_micros(200));
    }
    let output = watching.join().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let text = stdout(&output);
    let looks: Vec<&str> = text.split_terminator("\n\n").collect();
    assert_eq!(looks.len(), 4, "{text}");
    let commits = |look: &str| line(look, "commits")[0].split(',').collect::<String>();
    assert!(!looks[0].contains("a second"), "there was no look before: {text}");
    for look in &looks[1..] {
        assert!(!commits(look).contains(" 0 a second"), "{text}");
        assert!(line(look, "log")[0].ends_with("a second written"), "{text}");
        assert!(line(look, "file")[0].contains(", +") || line(look, "file")[0].contains(", -"), "{text}");
        assert_eq!(line(look, "openers"), [std::process::id().to_string()]);
    }
    store.close().unwrap();
}
