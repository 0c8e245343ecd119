//! The example `wordcount`, run as a user runs it. The programs have folders of their own: `tests/stats`.

#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::sleep;
use std::time::Duration;

use slotlog::Store;
use support::read_only;
use tempfile::TempDir;

/// Makes the tests take turns. While one of them starts a program, that program has all open files of this process
/// until it really runs, and with them the lock of a store that another test is just closing.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    // A failed test must not make the others fail.
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// The cells of the first line that begins with `name`, without those words.
#[track_caller]
fn line<'a>(text: &'a str, name: &str) -> Vec<&'a str> {
    let found = text.lines().find_map(|line| line.trim_start().strip_prefix(name)?.strip_prefix("  "));
    let Some(cells) = found else { panic!("no line {name:?} in\n{text}") };
    cells.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect()
}

/// The example, ready to run in `folder`.
fn wordcount(folder: &Path) -> Command {
    support::example("wordcount", folder)
}

fn count(folder: &Path, word: &str) -> Option<u64> {
    let store = read_only(&folder.join("wordcount.slotlog")).unwrap();
    store.get(word).unwrap().map(|value| u64::from_le_bytes(value.try_into().unwrap()))
}

/// A working directory with texts in it: three files with 21 words, 15 of them distinct, and two files that are not
/// text.
fn texts() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir_all(folder.path().join("texts/deep/er")).unwrap();
    for (name, text) in [
        ("texts/fox.txt", &b"The quick brown fox; the lazy dog.\n"[..]),
        ("texts/deep/er/dog.md", b"The dog (the DOG!) isn't lazy: 'quick' it is"),
        ("texts/empty", b""),
        ("texts/deep/letters", "gr\u{fc}n Gr\u{dc}N \u{3b1} b2b\n\nthe".as_bytes()),
        ("texts/latin1.txt", b"gr\xfcn the"),
        ("texts/deep/image", b"\x89PNG\xff the"),
    ] {
        fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

#[test]
fn wordcount_adds_up_over_runs() {
    let _turn = turn();
    let folder = texts();
    for run in 1..=3 {
        let output = wordcount(folder.path()).arg("texts").output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        assert_eq!(stderr(&output), "");
        let text = stdout(&output);
        assert_eq!(line(&text, &(5 * run).to_string()), ["the"]);
        let top: Vec<u64> =
            text.lines().take(10).map(|line| line.split_whitespace().next().unwrap().parse().unwrap()).collect();
        assert!(top.is_sorted_by(|one, next| one >= next), "{text}");
        assert_eq!(text.lines().count(), 12, "{text}");
        assert!(text.contains(&format!("12 distinct words, {} words in wordcount.slotlog", 21 * run)), "{text}");
        assert!(text.contains("4 files, 21 words, 2 files skipped"), "{text}");
        for (word, expected) in
            [("the", 5), ("dog", 3), ("isn't", 1), ("quick", 2), ("gr\u{fc}n", 2), ("\u{3b1}", 1), ("b2b", 1)]
        {
            assert_eq!(count(folder.path(), word), Some(expected * run), "{word}");
        }
        for word in ["The", "", "isn", "'quick'"] {
            assert_eq!(count(folder.path(), word), None, "{word}");
        }
    }
    assert!(read_only(&folder.path().join("wordcount.slotlog")).unwrap().verify().unwrap().is_clean());
}

#[test]
fn wordcount_leaves_out_its_store_and_counts_no_file_twice() {
    let _turn = turn();
    let folder = texts();
    for run in 1..=2 {
        let output = wordcount(folder.path()).args([".", "texts/fox.txt", "texts"]).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        assert!(stdout(&output).contains("4 files, 21 words, 2 files skipped"), "{}", stdout(&output));
        assert_eq!(count(folder.path(), "the"), Some(5 * run));
    }
}

#[test]
fn wordcount_survives_words_that_are_no_words() {
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("data"), format!("one {} two", "A".repeat(100_000))).unwrap();
    let output = wordcount(folder.path()).arg("data").output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stdout(&output).contains("1 files, 2 words"), "{}", stdout(&output));
}

#[test]
fn wordcount_says_what_is_wrong() {
    let _turn = turn();
    let folder = texts();
    let output = wordcount(folder.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).starts_with("usage: "), "{}", stderr(&output));
    assert_eq!(stdout(&output), "");

    // Nothing is counted before all paths are found.
    let output = wordcount(folder.path()).args(["texts", "no/where"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).starts_with("wordcount: no/where: "), "{}", stderr(&output));
    assert_eq!(stdout(&output), "");
    assert!(!folder.path().join("wordcount.slotlog").exists());

    // A store with other content.
    let store = Store::options().exclusive(true).open(folder.path().join("wordcount.slotlog")).unwrap();
    store.insert("the", "text").unwrap();
    let output = wordcount(folder.path()).arg("texts").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("in use"), "{}", stderr(&output));
    store.close().unwrap();
    let output = wordcount(folder.path()).arg("texts").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("\"the\" has no count"), "{}", stderr(&output));
}

/// Each file has the same words, so that whole files make equal counts.
#[test]
fn wordcount_killed_anywhere_has_counted_whole_files() {
    const FILES: u64 = 300;
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let texts = folder.path().join("texts");
    fs::create_dir(&texts).unwrap();
    let text: String = (0..300).map(|word| format!("word{word} ")).collect();
    for file in 0..FILES {
        fs::write(texts.join(file.to_string()), &text).unwrap();
    }
    let path = folder.path().join("wordcount.slotlog");
    let counted = || -> u64 {
        // Opened in the same way as by the next run.
        let store = Store::open(&path).unwrap();
        let snapshot = store.snapshot().unwrap();
        let counts: Vec<&[u8]> = snapshot.values().map(Result::unwrap).collect();
        assert!(counts.iter().all(|count| *count == counts[0]), "a file is counted by half");
        assert!([0, 300].contains(&counts.len()), "a file is counted by half");
        counts.first().map_or(0, |count| u64::from_le_bytes((*count).try_into().unwrap()))
    };

    let (mut before, mut killed_midway) = (0, 0);
    for round in 0..10 {
        let mut child = wordcount(folder.path()).arg("texts").stdout(Stdio::null()).spawn().unwrap();
        sleep(Duration::from_millis(10 * round));
        child.kill().unwrap();
        child.wait().unwrap();
        let now = counted();
        assert!((before..=before + FILES).contains(&now), "{before}, then {now}");
        killed_midway += u64::from(now > before && now < before + FILES);
        before = now;
    }
    assert!(killed_midway > 0, "no kill came in the middle; the files are too few");
    let output = wordcount(folder.path()).arg("texts").output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(counted(), before + FILES);
}
