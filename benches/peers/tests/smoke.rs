//! The program does all its work with all its peers, on next to no keys, and reports it.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::process::Command;

fn run(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_slotlog-peers")).args(arguments).output().unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{arguments:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
#[cfg(not(feature = "rocksdb"))]
fn a_peer_that_is_not_built_in_says_how_to_build_it() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_slotlog-peers"));
    let output = command.args(["--peers", "rocksdb"]).output().unwrap();
    assert!(!output.status.success());
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(errors.contains("rocksdb is not built in: cargo run --release --features rocksdb"), "{errors}");
}

/// Values that end within a word, and values longer than a page.
#[test]
fn every_peer_does_every_workload() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().to_str().unwrap();
    let sizes = ["--keys", "1500", "--values", "9,5000", "--rounds", "1", "--operations", "2000"];
    let text = run(&[&sizes[..], &["--seconds", "0.05", "--out", out]].concat());
    assert!(!text.contains(" failed at "), "{text}");
    assert_eq!(text.matches("\n## 1,500 keys").count(), 2, "{text}");

    let peers = text.lines().skip_while(|line| !line.starts_with("| peer |")).skip(2);
    assert!(peers.take_while(|line| line.starts_with('|')).count() >= 10, "{text}");
    for row in ["load, one by one", "miss, in one view", "YCSB F", "synced batch of 1000", "open after a power cut"] {
        let line = text.lines().find(|line| line.starts_with(&format!("| {row}"))).unwrap();
        assert!(line.split('|').nth(2).unwrap().chars().any(|c| c.is_ascii_digit()), "slotlog has no figure: {line}");
    }
    for plot in ["peers-1500x9.svg", "peers-1500x9-short.svg", "peers-1500x5000.svg"] {
        assert!(fs::read_to_string(folder.path().join(plot)).unwrap().contains("</svg>"), "{plot}");
    }

    // The report can be made again from the kept results.
    let kept = folder.path().join("results.json");
    assert_eq!(run(&["report", kept.to_str().unwrap()]), text);
}
