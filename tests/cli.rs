//! The programs, run as a user runs them: `slotlog-stats`, and the example `wordcount`.

#![cfg(feature = "cli")]
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::sleep;
use std::time::{Duration, SystemTime};

use serde_json::Value;
use slotlog::Store;
use slotlog::format::{BLOCK, EXTENTS, REGION_MAGIC};
use support::read_only;
use tempfile::TempDir;

const STATS: &str = env!("CARGO_BIN_EXE_slotlog-stats");

/// Makes the tests take turns. While one of them starts a program, that program has all open files of this process
/// until it really runs, and with them the lock of a store that another test is just closing.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    // A failed test must not make the others fail.
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A closed store of 1000 keys, 100 of which were replaced, in one commit, and 50 removed.
fn example_store() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("example.slotlog");
    // Closing must not compact it, which would take numbers and drop dead records.
    let store = Store::options().auto_compact(None).open(&path).unwrap();
    for number in 0..1000 {
        store.insert(format!("key {number}"), format!("the value of {number}")).unwrap();
    }
    let mut replacing = store.begin().unwrap();
    for number in 0..100 {
        replacing.insert(format!("key {number}"), "replaced").unwrap();
    }
    replacing.commit().unwrap();
    for number in 900..950 {
        assert!(store.remove(format!("key {number}")).unwrap());
    }
    store.close().unwrap();
    (folder, path)
}

/// Runs `slotlog-stats`, which must leave the file as it was.
fn stats(path: &Path, options: &[&str]) -> Output {
    let look = || (fs::read(path).ok(), fs::metadata(path).ok().map(|metadata| metadata.modified().unwrap()));
    let before = look();
    let output = support::command(STATS).arg(path).args(options).output().unwrap();
    assert!(before == look(), "the file was changed");
    output
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[track_caller]
fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The cells of the first line that begins with `name`, without those words.
#[track_caller]
fn line<'a>(text: &'a str, name: &str) -> Vec<&'a str> {
    let found = text.lines().find_map(|line| line.trim_start().strip_prefix(name)?.strip_prefix("  "));
    let Some(cells) = found else { panic!("no line {name:?} in\n{text}") };
    cells.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect()
}

#[track_caller]
fn assert_error(output: &Output, path: &Path, what: &str) {
    let message = stderr(output);
    assert_eq!(output.status.code(), Some(2), "{message}");
    assert_eq!(stdout(output), "");
    assert!(message.starts_with(&format!("slotlog-stats: {}: ", path.display())), "{message}");
    assert!(message.contains(what), "{message}");
    assert_eq!(message.lines().count(), 1, "{message}");
}

#[test]
fn tables_show_what_is_in_a_store() {
    let _turn = turn();
    let (_folder, path) = example_store();
    let output = stats(&path, &[]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(stderr(&output), "");
    let text = stdout(&output);

    let store = read_only(&path).unwrap();
    let figures = store.stats().unwrap();
    assert_eq!(line(&text, "store"), [path.to_str().unwrap()]);
    assert_eq!(line(&text, "uuid"), [figures.uuid.as_str()]);
    assert_eq!(line(&text, "format version"), [slotlog::format::VERSION.to_string()]);
    assert_eq!(line(&text, "incarnation"), ["0"]);
    assert_eq!(line(&text, "commits"), ["1051"]);
    assert_recent(line(&text, "created")[0]);
    let (checkpoint, since) = line(&text, "last checkpoint")[0].split_once(", ").unwrap();
    assert_recent(checkpoint);
    assert_eq!(since, "0 bytes of log since");

    let len = fs::metadata(&path).unwrap().len();
    assert_eq!(line(&text, "file")[1], len.to_string());
    let log = line(&text, "log");
    assert_eq!(log[1], figures.log_bytes.to_string());
    assert_eq!(log[2], figures.log_records.to_string());
    assert!(figures.log_records >= 1150, "{figures:?}");
    let [live, dead] = ["live", "dead"].map(|name| line(&text, name));
    assert_eq!(live[1], figures.live_bytes.to_string());
    assert_eq!(dead[1], (figures.log_bytes - figures.live_bytes).to_string());
    let share = 100.0 * figures.dead_bytes as f64 / figures.log_bytes as f64;
    assert_eq!(dead[2], format!("{share:.1} %"));
    assert!((5.0..50.0).contains(&share), "200 of 1150 records are dead, not {share} %");

    // After the fixed pages there are only extents, free space, and the seal.
    let (_, extents) = text.split_once("\nextents").unwrap();
    let (extents, _) = extents.split_once("\n\n").unwrap();
    let bytes = extents.lines().skip(1).map(|line| line.split_whitespace().last().unwrap().parse::<u64>().unwrap());
    assert_eq!(bytes.sum::<u64>(), len - EXTENTS - BLOCK);

    let map = line(&text, "(default)");
    assert_eq!(map[0], "950");
    let index = figures.maps.iter().find(|map| map.name == "(default)").unwrap();
    assert_eq!(map[1..3], [index.slots.to_string(), index.used_slots.to_string()]);
    assert_eq!(map[3], format!("{:.1} %", 100.0 * index.used_slots as f64 / index.slots as f64));
    assert_eq!(map[5], index.index_bytes.to_string());
    assert_eq!(map[7], figures.live_bytes.to_string());

    let (_, probes) = text.split_once("lines per search").unwrap();
    let lengths = store.probe_lengths().unwrap();
    assert_eq!(line(probes, "1")[0], lengths[0].to_string());
    let lines = lengths.iter().enumerate().map(|(at, keys)| (at as u64 + 1) * keys).sum::<u64>();
    let average = lines as f64 / lengths.iter().sum::<u64>() as f64;
    assert_eq!(line(probes, "average"), [format!("{average:.3}")]);
}

#[track_caller]
fn assert_recent(text: &str) {
    assert!(text.ends_with('Z'), "{text}");
    let time = humantime::parse_rfc3339(text).unwrap();
    // The clock of a file is in milliseconds, and ours may be ahead of it by the rounding.
    let age = SystemTime::now().duration_since(time).unwrap();
    assert!(age < Duration::from_secs(600), "{text}");
}

#[test]
fn sizes_are_shown_for_people_too() {
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("large");
    let store = Store::open(&path).unwrap();
    store.insert("large", vec![1; 3 << 20]).unwrap();
    store.close().unwrap();
    let text = stdout(&stats(&path, &[]));
    assert_eq!(line(&text, "live")[0], "3.0 MiB");
    assert_eq!(line(&text, "(catalogue)")[6], "0 B");
}

#[test]
fn columns_are_aligned() {
    let _turn = turn();
    let (_folder, path) = example_store();
    let text = stdout(&stats(&path, &[]));
    for table in ["map", "extents"] {
        let lines: Vec<&str> =
            text.lines().skip_while(|line| !line.starts_with(table)).take_while(|line| !line.is_empty()).collect();
        assert!(lines.len() > 2, "{text}");
        assert!(lines.iter().all(|line| line.len() == lines[0].len()), "{text}");
    }
    assert!(text.lines().all(|line| line == line.trim_end()), "{text}");
}

#[test]
fn an_empty_store_has_figures() {
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("empty");
    Store::open(&path).unwrap().close().unwrap();
    let output = stats(&path, &["--verify"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let text = stdout(&output);
    assert_eq!(line(&text, "(default)")[0], "0");
    assert_eq!(line(&text, "average"), ["-"]);
    assert_eq!(line(&text, "dead")[2], "0.0 %");
    assert_eq!(json(&stats(&path, &["--json"]))["average_probe_length"], Value::Null);
}

#[test]
fn maps_have_their_names_and_types() {
    let _turn = turn();
    let (_folder, path) = example_store();
    let store = Store::open(&path).unwrap();
    store.map::<str, u64>("visits").unwrap().insert("home", 1).unwrap();
    store.map_versioned::<u32, (String, bool)>("a\nb", 3).unwrap();
    store.close().unwrap();
    let text = stdout(&stats(&path, &[]));
    let visits = line(&text, "visits");
    assert_eq!((visits[0], *visits.last().unwrap()), ("1", "str -> u64"));
    assert_eq!(*line(&text, "a\\nb").last().unwrap(), "u32 -> (str, bool)", "a name of two lines takes one");
    let figures = json(&stats(&path, &["--json"]));
    let map = figures["maps"].as_array().unwrap().iter().find(|map| map["name"] == "a\nb").unwrap().clone();
    assert_eq!((map["types"].as_str(), map["version"].as_u64()), (Some("u32 -> (str, bool)"), Some(3)));
}

#[test]
fn json_agrees_with_the_library() {
    let _turn = turn();
    let (_folder, path) = example_store();
    let output = stats(&path, &["--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let printed = json(&output);

    let store = read_only(&path).unwrap();
    let figures = store.stats().unwrap();
    assert_eq!(printed["path"], path.to_str().unwrap());
    assert_eq!(printed["uuid"], figures.uuid);
    assert_eq!(printed["format_version"], figures.format_version);
    let milliseconds = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis();
    for (name, time) in [("created", figures.created), ("last_checkpoint", figures.last_checkpoint)] {
        let printed = humantime::parse_rfc3339(printed[name].as_str().unwrap()).unwrap();
        assert_eq!(milliseconds(printed), milliseconds(time), "{name}");
    }
    for (name, figure) in [
        ("since_checkpoint", figures.since_checkpoint),
        ("incarnation", figures.incarnation),
        ("commits", figures.commits),
        ("file_len", figures.file_len),
        ("log_records", figures.log_records),
        ("log_bytes", figures.log_bytes),
        ("live_bytes", figures.live_bytes),
        ("dead_bytes", figures.dead_bytes),
    ] {
        assert_eq!(printed[name], figure, "{name}");
    }
    let share = figures.dead_bytes as f64 / figures.log_bytes as f64;
    assert!((printed["dead_share"].as_f64().unwrap() - share).abs() < 1e-9, "{printed}");

    let extents = printed["extents"].as_array().unwrap();
    assert_eq!(extents.len(), figures.extents.len());
    for (printed, extents) in extents.iter().zip(&figures.extents) {
        assert_eq!(printed["kind"], extents.kind);
        assert_eq!(printed["count"], extents.count);
        assert_eq!(printed["bytes"], extents.bytes);
    }
    let maps = printed["maps"].as_array().unwrap();
    assert_eq!(maps.len(), figures.maps.len());
    for (printed, map) in maps.iter().zip(&figures.maps) {
        assert_eq!(printed["id"], map.id);
        assert_eq!(printed["name"], map.name);
        assert_eq!(printed["entries"], map.entries);
        assert_eq!(printed["slots"], map.slots);
        assert_eq!(printed["used_slots"], map.used_slots);
        assert_eq!(printed["load"], map.load);
        assert_eq!(printed["index_bytes"], map.index_bytes);
        assert_eq!(printed["live_bytes"], map.live_bytes);
    }
    assert_eq!(maps.iter().find(|map| map["name"] == "(default)").unwrap()["entries"], 950);

    let lengths = store.probe_lengths().unwrap();
    let printed_lengths: Vec<u64> =
        printed["probe_lengths"].as_array().unwrap().iter().map(|length| length.as_u64().unwrap()).collect();
    assert_eq!(printed_lengths, lengths);
    assert!(printed["average_probe_length"].as_f64().unwrap() >= 1.0);
    assert_eq!(printed.get("verify"), None);
}

#[test]
fn verify_of_a_sound_store() {
    let _turn = turn();
    let (_folder, path) = example_store();
    let output = stats(&path, &["--verify"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let text = stdout(&output);
    let records = read_only(&path).unwrap().stats().unwrap().log_records;
    assert!(text.ends_with(&format!("\nverified {records} records and 950 keys: no findings\n")), "{text}");
    assert_eq!(line(&text, "(default)")[0], "950");

    let output = stats(&path, &["--verify", "--json"]);
    assert_eq!(output.status.code(), Some(0));
    let printed = json(&output);
    assert_eq!(printed["commits"], 1051);
    let expected = serde_json::json!(
        { "clean": true, "records": records, "keys": 950, "finding_count": 0, "findings": [] }
    );
    assert_eq!(printed["verify"], expected);
}

/// Flips a bit of the last byte of the only occurrence of `bytes` in the file, and returns its offset.
fn damage(path: &Path, bytes: &[u8]) -> u64 {
    let mut file = fs::read(path).unwrap();
    let places: Vec<usize> = file
        .windows(bytes.len())
        .enumerate()
        .filter_map(|(at, window)| (window == bytes).then_some(at + bytes.len() - 1))
        .collect();
    assert_eq!(places.len(), 1);
    file[places[0]] ^= 1;
    fs::write(path, file).unwrap();
    places[0] as u64
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
    let (_, findings) = text.split_once("finding").unwrap();
    let first = findings.lines().nth(1).unwrap().strip_prefix("  at offset ").unwrap();
    let (offset, what) = first.split_once(": ").unwrap();
    let offset: u64 = offset.parse().unwrap();
    // The offset where the record of the value begins.
    assert!((flipped - 64..flipped).contains(&offset), "{first}, but the damage is at {flipped}");
    assert!(!what.is_empty());
    assert_eq!(line(&text, "(default)")[0], "950", "the figures can be read all the same");

    let output = stats(&path, &["--verify", "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let report = &json(&output)["verify"];
    assert_eq!(report["clean"], false);
    assert_eq!(report["findings"][0]["offset"], offset);
    assert_eq!(report["findings"][0]["what"], what);
    assert_eq!(report["finding_count"], report["findings"].as_array().unwrap().len());

    let output = stats(&path, &[]);
    assert_eq!(output.status.code(), Some(0), "nobody asked whether the store is sound");
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
    assert!(stdout(&output).contains("at offset "), "{}", stdout(&output));
    let output = stats(&path, &["--verify", "--json"]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert_eq!(json(&output)["verify"]["clean"], false);
}

#[test]
fn errors_are_messages() {
    let _turn = turn();
    let (folder, path) = example_store();

    let missing = folder.path().join("missing");
    assert_error(&stats(&missing, &[]), &missing, "not found");
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

    let output = support::command(STATS).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("Usage"), "{}", stderr(&output));
}

#[test]
fn a_store_that_is_not_closed_is_looked_at_all_the_same() {
    let _turn = turn();
    let (folder, path) = example_store();
    let store = Store::open(&path).unwrap();
    store.insert("one", "more").unwrap();
    let copy = folder.path().join("copy");
    fs::copy(&path, &copy).unwrap();
    let bytes = fs::read(&copy).unwrap();
    let recovered = stdout(&stats(&copy, &["--verify"]));
    assert_eq!(line(&recovered, "(default)")[0], "951");
    assert!(recovered.contains("found            as left by a power cut"), "{recovered}");
    assert!(fs::read(&copy).unwrap() == bytes, "not a byte was written");
    let live = stdout(&stats(&path, &["--verify"]));
    assert_eq!(line(&live, "(default)")[0], "951", "it looks on while others write");
    assert!(live.contains("open for writing") && live.contains("writing now      none"), "{live}");
    let snapshot = store.snapshot().unwrap();
    let transaction = store.begin().unwrap();
    let live = stdout(&stats(&path, &["--verify"]));
    assert!(live.contains("keys: no findings") && live.contains("of one commit, since others are writing"), "{live}");
    let json: serde_json::Value = serde_json::from_str(&stdout(&stats(&path, &["--json", "--verify"]))).unwrap();
    assert_eq!((&json["verify"]["clean"], &json["verify"]["scope"]), (&true.into(), &"snapshot".into()));
    let pid = std::process::id();
    assert!(live.contains(&format!("writing now      process {pid}, a transaction since")), "{live}");
    assert!(live.contains(&format!("0 commits behind, held by process {pid}, since")), "{live}");
    let json: serde_json::Value = serde_json::from_str(&stdout(&stats(&path, &["--json"]))).unwrap();
    assert_eq!(json["processes"][0]["pid"], pid);
    assert_eq!(json["writing"]["pid"], pid);
    assert_eq!((&json["pins"], &json["oldest_pin"]["pid"]), (&1.into(), &pid.into()));
    drop((snapshot, transaction));
    store.close().unwrap();
    let store = Store::options().exclusive(true).open(&path).unwrap();
    assert_error(&stats(&path, &[]), &path, "in use by process");
    store.close().unwrap();
    assert_eq!(line(&stdout(&stats(&path, &[])), "(default)")[0], "951");
}

#[test]
fn readers_do_not_exclude_each_other() {
    let _turn = turn();
    let (_folder, path) = example_store();
    let _store = read_only(&path).unwrap();
    assert_eq!(stats(&path, &["--verify"]).status.code(), Some(0));
}

#[cfg(unix)]
#[test]
fn a_file_that_nobody_may_write_is_enough() {
    use std::os::unix::fs::PermissionsExt;

    let _turn = turn();
    let (folder, path) = example_store();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o444)).unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o555)).unwrap();
    let output = stats(&path, &["--verify"]);
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(line(&stdout(&output), "(default)")[0], "950");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no other file was made");
}

#[test]
fn a_closed_pipe_is_no_failure() {
    let _turn = turn();
    let (_folder, path) = example_store();
    for options in [&[][..], &["--json", "--verify"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = support::command(STATS).arg(&path).args(options).stdout(writer).output().unwrap();
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
    let output = support::command(STATS).arg(&path).stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).starts_with("slotlog-stats: could not print: "), "{}", stderr(&output));
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
    assert_eq!(stats(&folder.path().join("wordcount.slotlog"), &["--verify"]).status.code(), Some(0));
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
