//! The verdict: what is wrong with a store comes first; and what cannot be looked at is an error.

use std::fs;

use slotlog::Store;
use slotlog::format::REGION_MAGIC;

use super::support::{command, folder};
use super::*;

/// The first words of each remark, and the word of the verdict.
fn remarks(path: &Path, options: &[&str]) -> (String, Vec<(String, String, String)>) {
    let printed = json(&stats(path, &[options, &["--json"]].concat()));
    let verdict = &printed["verdict"];
    let remarks = verdict["remarks"].as_array().unwrap().iter().map(|remark| {
        let text = |name: &str| remark[name].as_str().unwrap().to_owned();
        (text("level"), text("kind"), text("what"))
    });
    (verdict["word"].as_str().unwrap().to_owned(), remarks.collect())
}

#[track_caller]
fn first_line(path: &Path, options: &[&str]) -> String {
    stdout(&stats(path, options)).lines().next().unwrap().replace(&format!("{}: ", path.display()), "")
}

#[test]
fn a_clean_store_is_called_clean() {
    let _turn = turn();
    let (_folder, path) = example_store();
    assert_eq!(first_line(&path, &[]), "clean");
    assert_eq!(remarks(&path, &["--verify"]), ("clean".to_owned(), Vec::new()));
}

#[test]
fn a_store_without_its_processes_was_killed() {
    let _turn = turn();
    let folder = folder();
    let path = folder.path().join("killed");
    let output = super::support::child("leaver", &path).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(first_line(&path, &[]), "killed");
    let store = Store::open(&path).unwrap();
    let copy = folder.path().join("copy");
    fs::copy(&path, &copy).unwrap();
    assert_eq!(first_line(&path, &[]), "in use");
    drop(store);
    assert_eq!(first_line(&path, &[]), "clean");
    assert_eq!(first_line(&copy, &[]), "recovered");
}

#[test]
fn a_snapshot_that_holds_space_is_named_first() {
    let _turn = turn();
    let folder = folder();
    let path = folder.path().join("bloated");
    let store = Store::open(&path).unwrap();
    store.insert("key", "before").unwrap();
    let snapshot = store.snapshot().unwrap();
    for number in 0..6000u32 {
        store.insert((number % 100).to_le_bytes(), [7; 1000]).unwrap();
    }
    assert_eq!(first_line(&path, &[]), "bloated");
    let text = printed(&path, &[]);
    let pid = std::process::id();
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words.contains(&format!("bad a snapshot that process {pid} has held for ")), "{text}");
    assert!(line(after(&text, "space"), "dead").contains(&"a reader holds it"), "{text}");
    assert!(line(&text, "waits for readers")[1].contains(&format!("process {pid}")), "{text}");
    drop(snapshot);
    store.compact().unwrap();
    assert_eq!(remarks(&path, &[]), ("in use".to_owned(), Vec::new()));
}

#[test]
fn values_that_do_not_belong_there_are_named() {
    let _turn = turn();
    let (_folder, path) = mixed_store();
    let (word, remarks) = remarks(&path, &[]);
    assert_eq!(word, "outlier", "{remarks:?}");
    let of_kind = |kind: &str| remarks.iter().find(|remark| remark.1 == kind).unwrap();
    let outlier = of_kind("outlier");
    assert!(
        outlier.2.starts_with("map images: the value of \"\"left\" & <forgotten>\\n.tar\" has 2.0 MiB"),
        "{outlier:?}"
    );
    let expired = of_kind("expired");
    assert!(expired.2.starts_with("map sessions: 70.0 % of its data has expired"), "{expired:?}");
    assert_eq!((outlier.0.as_str(), expired.0.as_str()), ("warning", "warning"));
}

#[test]
fn verify_finds_damage_and_says_where() {
    let _turn = turn();
    let (_folder, path) = example_store();
    let flipped = damage(&path, b"the value of 500");

    let output = stats(&path, &["--verify"]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert_eq!(stderr(&output), "");
    let text = stdout(&output);
    assert!(text.starts_with(&format!("{}: damaged\n", path.display())), "{text}");
    let first = after(&text, "findings").lines().nth(2).unwrap().strip_prefix("  at offset ").unwrap();
    let (offset, what) = first.split_once(": ").unwrap();
    let offset: u64 = offset.parse().unwrap();
    // The offset where the record of the value begins.
    assert!((flipped - 64..flipped).contains(&offset), "{first}, but the damage is at {flipped}");
    assert!(!what.is_empty());
    assert_eq!(line(after(&text, "map"), "(default)")[0], "950", "the figures can be read all the same");

    let output = stats(&path, &["--verify", "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let printed = json(&output);
    assert_eq!((&printed["verdict"]["word"], &printed["verdict"]["level"]), (&"damaged".into(), &"bad".into()));
    let report = &printed["verify"];
    assert_eq!(report["findings"][0]["offset"], offset);
    assert_eq!(report["findings"][0]["what"], what);
    assert_eq!(report["finding_count"], report["findings"].as_array().unwrap().len());

    let output = stats(&path, &[]);
    assert_eq!(output.status.code(), Some(0), "the question was not whether the store is sound");
}

#[test]
fn verify_reports_damage_that_hides_the_figures() {
    let _turn = turn();
    let (_folder, path) = example_store();
    // The headers of the indexes.
    let mut file = fs::read(&path).unwrap();
    let regions: Vec<usize> = (0..file.len() - 8).filter(|&at| file[at..].starts_with(&REGION_MAGIC)).collect();
    assert!(!regions.is_empty());
    for region in regions {
        file[region] ^= 1;
    }
    fs::write(&path, file).unwrap();

    let output = stats(&path, &[]);
    assert_error(&output, &path, "corrupt at offset ");
    let output = stats(&path, &["--verify"]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let text = stdout(&output);
    assert!(text.contains("at offset ") && text.contains("its figures cannot be read"), "{text}");
    let output = stats(&path, &["--verify", "--json"]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(json(&output)["stats"].is_null() && json(&output)["verify"]["finding_count"].as_u64().unwrap() > 0);
    let output = stats(&path, &["--verify", "--html", "-"]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(stdout(&output).contains("damaged"), "there is a page all the same");
}

#[test]
fn errors_are_messages() {
    let _turn = turn();
    let (folder, path) = example_store();

    let missing = folder.path().join("missing");
    assert_error(&stats(&missing, &[]), &missing, "not found");
    assert_error(&stats(&missing, &["--watch", "1"]), &missing, "not found");
    assert!(!missing.exists());
    assert_error(&stats(folder.path(), &[]), folder.path(), "is a directory");

    let text = folder.path().join("notes.txt");
    fs::write(&text, "no store, ".repeat(10_000)).unwrap();
    assert_error(&stats(&text, &["--json"]), &text, "not a slotlog store");
    let empty = folder.path().join("empty");
    fs::write(&empty, "").unwrap();
    assert_error(&stats(&empty, &["--verify"]), &empty, "not a slotlog store");

    let short = folder.path().join("short");
    let bytes = fs::read(&path).unwrap();
    fs::write(&short, &bytes[..bytes.len() / 2]).unwrap();
    assert_error(&stats(&short, &[]), &short, "truncated");

    let nowhere = folder.path().join("no/where.html");
    assert_error(&stats(&path, &["--html", nowhere.to_str().unwrap()]), &nowhere, "");

    let output = command(STATS).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("Usage"), "{}", stderr(&output));
    for wrong in [&["--watch", "0"][..], &["--watch", "soon"], &["--json", "--html", "x"], &["--count", "3"]] {
        let output = stats(&path, wrong);
        assert_eq!(output.status.code(), Some(2), "{wrong:?}: {}", stderr(&output));
        assert!(stderr(&output).starts_with("error: "), "{}", stderr(&output));
    }
}

#[test]
fn help_has_examples_and_exit_codes() {
    let _turn = turn();
    let help = stdout(&command(STATS).arg("--help").output().unwrap());
    for part in ["Examples:", "Exit code:", "slotlog-stats app.slotlog --watch 1", "--json | jq"] {
        assert!(help.contains(part), "{part} in\n{help}");
    }
}

/// As they stand in the help, on a store of that name.
#[test]
fn the_examples_of_the_help_run() {
    let _turn = turn();
    let (folder, path) = mixed_store();
    std::fs::rename(&path, folder.path().join("app.slotlog")).unwrap();
    let help = stdout(&command(STATS).arg("--help").output().unwrap());
    let examples: Vec<&str> =
        help.lines().filter_map(|line| line.strip_prefix("  slotlog-stats app.slotlog")).collect();
    assert_eq!(examples.len(), 7, "{help}");
    for example in examples {
        // What comes after two spaces says what it does; a watch would never end.
        let words = example.split("  ").next().unwrap().split(" | ").next().unwrap();
        let words: Vec<&str> = words.split_whitespace().collect();
        let end = if words.contains(&"--watch") { &["--count", "1"][..] } else { &[] };
        let mut program = command(STATS);
        program.current_dir(&folder).arg("app.slotlog").args(&words).args(end);
        let output = program.output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{words:?}: {}", stderr(&output));
    }
    assert!(folder.path().join("page.html").exists());
}

#[test]
fn a_closed_pipe_is_no_failure() {
    let _turn = turn();
    let (_folder, path) = example_store();
    for options in [&[][..], &["--json", "--verify"], &["--html", "-"], &["--watch", "0.1"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = command(STATS).arg(&path).args(options).stdout(writer).output().unwrap();
        assert_eq!(stderr(&output), "");
        assert_eq!(output.status.code(), Some(0));
    }
}

#[cfg(target_os = "linux")]
#[test]
fn output_that_cannot_be_written_is_an_error() {
    let _turn = turn();
    let (_folder, path) = example_store();
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = command(STATS).arg(&path).stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).starts_with("slotlog-stats: could not print: "), "{}", stderr(&output));
}
