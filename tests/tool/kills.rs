//! An import of a million lines that is killed, and one that finds the disk full, are completed by the same command.

use std::time::{Duration, Instant};

use super::*;

/// Lines with a key twice here and there, whose last value counts.
fn lines(count: u64) -> String {
    use std::fmt::Write;

    let mut text = String::new();
    for number in 0..count {
        let key = if number % 1000 == 999 { number / 2 } else { number };
        writeln!(text, "key {key:07}\tvalue {number}").unwrap();
    }
    text
}

#[track_caller]
fn assert_complete(store: &Store, count: u64) {
    let content = support::content(store);
    let mut expected = support::Content::new();
    for line in lines(count).lines() {
        let (key, value) = line.split_once('\t').unwrap();
        expected.insert(key.into(), value.into());
    }
    assert!(content == expected, "{} and {} keys", content.len(), expected.len());
}

#[test]
fn a_killed_import_of_a_million_lines_is_completed_by_the_same_command() {
    const COUNT: u64 = 1_000_000;
    let place = Place::new();
    place.write("lines.tsv", lines(COUNT));
    let path = place.at("a.slotlog");
    let mut reached = 0;
    let mut killed = 0;
    for round in 1..=3 {
        let mut child = place.spawn("import a.slotlog lines.tsv");
        let start = Instant::now();
        // In the middle, wherever that is on this machine.
        while child.try_wait().unwrap().is_none() && start.elapsed() < support::LONG {
            std::thread::sleep(Duration::from_millis(3));
            let seen = read_only(&path).and_then(|store| store.len()).unwrap_or(0);
            if seen > reached && seen > COUNT / 4 * round {
                break;
            }
        }
        child.kill().unwrap();
        killed += u64::from(!child.wait().unwrap().success());
        let store = read_only(&path).unwrap();
        let now = store.len().unwrap();
        assert!(now >= reached, "round {round}: {reached}, then {now}");
        reached = now;
    }
    assert!(killed > 0 && reached > COUNT / 10, "{killed} kills, {reached} keys");
    let ran = place.line("import a.slotlog lines.tsv");
    assert!(ran.err.starts_with("slotlog: 1000000 entries imported") && ran.code == Some(0), "{ran:?}");
    let store = read_only(&path).unwrap();
    assert_complete(&store, COUNT);
    support::assert_clean(&store);
    if reached < COUNT / 10 * 9 {
        assert!(ran.err.contains(" there already"), "{ran:?}");
    }
    assert_eq!(place.names(), ["a.slotlog", "lines.tsv"]);
}

/// The limit on the length of files stands for a full disk: `ulimit -f` counts half a KiB or one.
#[test]
fn an_import_that_finds_no_room_says_how_far_it_came() {
    const COUNT: u64 = 100_000;
    if is_emulated() {
        return;
    }
    let place = Place::new();
    place.write("lines.tsv", lines(COUNT));
    let mut shell = Command::new("sh");
    shell.arg("-c").arg("ulimit -f 2000; exec \"$0\" \"$@\"").arg(PROGRAM).args(["import", "a.slotlog", "lines.tsv"]);
    let ran = Ran::of(&shell.current_dir(place.folder.path()).output().unwrap());
    ran.fails(&["a.slotlog: full: ", "ulimit -f", " entries are in the store by now, and the same command completes"]);
    let store = read_only(&place.at("a.slotlog")).unwrap();
    let said: u64 = ran.err.rsplit_once("; ").unwrap().1.split(' ').next().unwrap().parse().unwrap();
    let there = store.len().unwrap();
    assert!(there > 1000 && there < COUNT && said >= there, "{there} keys: {ran:?}");
    drop(store);
    place.line("import a.slotlog lines.tsv").done();
    let store = read_only(&place.at("a.slotlog")).unwrap();
    assert_complete(&store, COUNT);
    support::assert_clean(&store);
}

/// What an export or a backup leaves behind where there is no room: nothing under the name.
#[test]
fn an_export_that_finds_no_room_leaves_nothing() {
    if is_emulated() {
        return;
    }
    let place = Place::new();
    place.write("lines.tsv", lines(50_000));
    place.line("import a.slotlog lines.tsv").done();
    for format in ["tsv", "jsonl", "dump"] {
        let mut shell = Command::new("sh");
        let export = ["export", "a.slotlog", "out", "--format", format];
        let script = "trap '' XFSZ; ulimit -f 100; exec \"$0\" \"$@\"";
        shell.arg("-c").arg(script).arg(PROGRAM).args(export);
        let ran = Ran::of(&shell.current_dir(place.folder.path()).output().unwrap());
        ran.fails(&["out: could not be written: "]);
        assert_eq!(place.names(), ["a.slotlog", "lines.tsv"], "{format}");
    }
    if Path::new("/dev/full").exists() {
        for line in ["list a.slotlog", "get a.slotlog", "export a.slotlog - -q", "maps a.slotlog", "help"] {
            let mut command = place.command();
            let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
            let key = if line.starts_with("get") { &["key 0000000"][..] } else { &[] };
            let output = command.args(line.split(' ')).args(key).stdout(full).output().unwrap();
            let ran = Ran::of(&output);
            // The help is printed by another hand, which says nothing.
            if line != "help" {
                assert_eq!(ran.code, Some(2), "{line}: {ran:?}");
                assert!(ran.err.starts_with("slotlog: could not print: "), "{line}: {ran:?}");
            }
        }
    }
}
