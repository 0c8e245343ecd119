//! With the feature `tracing`, what happens is told, once, and what does not happen is not.
#![allow(missing_docs, clippy::unwrap_used)]

#[path = "support/events.rs"]
mod collector;
mod support;

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use collector::{Told, told};
use slotlog::Store;
use support::{folder, overwrite, until_stopped};
use tracing::Level;

/// The events that say this.
fn those<'t>(events: &'t [Told], what: &str) -> Vec<&'t Told> {
    events.iter().filter(|event| event.what == what).collect()
}

fn only<'t>(events: &'t [Told], what: &str) -> &'t Told {
    let found = those(events, what);
    assert_eq!(found.len(), 1, "{what}: {events:?}");
    found[0]
}

fn number(event: &Told, field: &str) -> u64 {
    event.fields[field].parse().unwrap()
}

#[test]
fn opening_and_closing_are_told_with_the_state() {
    let folder = folder();
    let path = folder.path().join("store");
    for state in ["Created", "Clean"] {
        let (store, events) = told(|| Store::open(&path).unwrap());
        let opened = only(&events, "opened");
        assert_eq!(opened.level, Level::INFO);
        assert_eq!((opened.fields["state"].as_str(), opened.fields["path"].as_str()), (state, path.to_str().unwrap()));
        let (other, events) = told(|| Store::open(&path).unwrap());
        assert_eq!(only(&events, "opened").fields["state"], "Attached");
        drop(other);
        let (closed, events) = told(|| store.close());
        closed.unwrap();
        assert_eq!(only(&events, "closed").level, Level::INFO);
    }
    let (refused, events) = told(|| Store::options().create_new(true).open(&path));
    assert!(refused.is_err() && events.is_empty(), "{events:?}");
}

#[test]
fn a_recovery_is_told_with_what_it_found() {
    let folder = folder();
    let (path, copy) = (folder.path().join("store"), folder.path().join("copy"));
    let store = Store::open(&path).unwrap();
    (0..100u32).for_each(|number| store.insert(number.to_le_bytes(), "value").unwrap());
    fs::copy(&path, &copy).unwrap();
    let (recovered, events) = told(|| Store::open(&copy).unwrap());
    let begun = events.iter().position(|event| event.what == "recovery begun").unwrap();
    let ended = events.iter().position(|event| event.what == "recovery ended").unwrap();
    let opened = events.iter().position(|event| event.what == "opened").unwrap();
    assert!(begun < ended && ended < opened);
    let slotlog::Opened::AfterPowerCut { records, bytes } = recovered.opened() else { panic!("it was recovered") };
    assert_eq!((number(&events[ended], "records"), number(&events[ended], "log_bytes")), (records, bytes));
    assert!(records >= 100);
}

#[test]
fn a_checkpoint_is_told_if_there_was_something_to_do() {
    let folder = folder();
    let store = Store::open(folder.path().join("store")).unwrap();
    let (_, events) = told(|| store.insert("key", "value").unwrap());
    assert!(those(&events, "checkpoint").is_empty(), "{events:?}");
    let (_, events) = told(|| store.checkpoint().unwrap());
    assert_eq!(number(only(&events, "checkpoint"), "commits"), store.stats().unwrap().commits);
    let (_, events) = told(|| store.checkpoint().unwrap());
    assert!(events.is_empty(), "{events:?}");
}

#[test]
fn a_write_and_a_read_tell_nothing() {
    let folder = folder();
    let store = Store::open(folder.path().join("store")).unwrap();
    store.insert("key", "value").unwrap();
    let (_, events) = told(|| {
        store.insert("key", "other").unwrap();
        store.get("key").unwrap();
        store.snapshot().unwrap().iter().count();
        store.remove("key").unwrap()
    });
    assert!(events.is_empty(), "{events:?}");
}

#[test]
fn growth_and_resizes_are_told() {
    let folder = folder();
    let path = folder.path().join("store");
    let store = Store::open(&path).unwrap();
    let before = fs::metadata(&path).unwrap().len();
    let ((), events) = told(|| (0..20_000u32).for_each(|key| store.insert(key.to_le_bytes(), [7; 100]).unwrap()));
    let lengths = those(&events, "the length of the file has changed");
    let grown: u64 = lengths.iter().map(|event| number(event, "now") - number(event, "before")).sum();
    assert_eq!(grown, fs::metadata(&path).unwrap().len() - before);
    let replaced = those(&events, "index replaced");
    assert!(replaced.len() > 2, "{replaced:?}");
    for (one, next) in replaced.iter().zip(&replaced[1..]) {
        assert_eq!(number(one, "target_lines"), number(next, "lines"));
    }
    let last = replaced.last().unwrap();
    let stats = store.stats().unwrap();
    let default = stats.maps.iter().find(|map| map.name == "(default)").unwrap();
    assert_eq!(number(last, "target_lines") * 6, default.slots);
    assert_eq!(number(last, "map"), u64::from(default.id));
    assert!(!those(&events, "index resize begun").is_empty());
}

#[test]
fn compaction_is_told_step_by_step_and_as_a_whole() {
    let folder = folder();
    let path = folder.path().join("store");
    let store = Store::open(&path).unwrap();
    let ((), events) =
        told(|| (0..20_000u32).for_each(|key| store.insert((key % 50).to_le_bytes(), [7; 200]).unwrap()));
    let cleaned: u64 = those(&events, "log cleaned").iter().map(|event| number(event, "passed_bytes")).sum();
    assert_eq!(cleaned, store.stats().unwrap().cleaned_bytes);
    assert!(cleaned > 0);
    let (report, events) = told(|| store.compact().unwrap());
    let compacted = only(&events, "compacted");
    assert_eq!((compacted.level, &compacted.fields["report"]), (Level::INFO, &format!("{report:?}")));
}

#[test]
fn damage_is_told_where_it_is() {
    let folder = folder();
    let path = folder.path().join("store");
    let store = Store::open(&path).unwrap();
    store.insert("damaged", [5; 1000]).unwrap();
    let bytes = fs::read(&path).unwrap();
    let at = bytes.windows(1000).position(|window| window == [5; 1000]).unwrap() as u64;
    overwrite(&path, at + 500, b"damage");
    let (_, events) = told(|| {
        (0..20_000u32).for_each(|key| store.insert((key % 50).to_le_bytes(), [7; 200]).unwrap());
        store.compact().unwrap()
    });
    let damage = only(&events, "damage found");
    assert_eq!(damage.level, Level::ERROR);
    assert!((at - 100..at).contains(&number(damage, "offset")), "{damage:?}");
    assert_eq!(number(damage, "offset"), store.stats().unwrap().damage.findings[0].offset);
    assert_eq!(number(only(&events, "damaged records put into quarantine"), "records"), 1);
}

/// Waits for a transaction of another thread until that was told.
#[test]
fn a_long_wait_is_told_with_the_holder() {
    let folder = folder();
    let store = Store::open(folder.path().join("store")).unwrap();
    assert_long_wait(&store, std::process::id(), || {
        let (begun, is_begun) = mpsc::channel();
        let (end, is_ended) = mpsc::channel::<()>();
        let store = store.clone();
        let holder = thread::spawn(move || {
            let transaction = store.begin().unwrap();
            begun.send(()).unwrap();
            let _ = is_ended.recv();
            drop(transaction);
        });
        is_begun.recv().unwrap();
        move || {
            drop(end);
            holder.join().unwrap();
        }
    });
}

/// The same with another process.
#[test]
fn a_long_wait_for_a_process_is_told_with_the_holder() {
    let folder = folder();
    let path = folder.path().join("store");
    let store = Store::open(&path).unwrap();
    let mut holder = support::child("holder", &path);
    let mut holder = holder.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let lines = support::listen(&mut holder);
    assert_eq!(lines.recv_timeout(Duration::from_secs(60)).unwrap(), "begun");
    assert_long_wait(&store, holder.id(), || {
        move || {
            drop(holder.stdin.take());
            assert!(holder.wait().unwrap().success());
        }
    });
}

/// Writes while `begin` has begun a transaction, which is ended well after the wait has become long.
fn assert_long_wait<E: FnOnce() + Send>(store: &Store, pid: u32, begin: impl FnOnce() -> E) {
    let end = begin();
    let ((), events) = thread::scope(|scope| {
        scope.spawn(|| {
            thread::sleep(Duration::from_millis(500));
            end();
        });
        told(|| store.insert("key", "value").unwrap())
    });
    let wait = only(&events, "waiting for the writer lock");
    assert_eq!((wait.level, number(wait, "pid")), (Level::WARN, u64::from(pid)));
    assert!(["waited", "held"].iter().all(|field| wait.fields[*field].ends_with("ms")), "{wait:?}");
    let (_, events) = told(|| store.insert("key", "free").unwrap());
    assert!(events.is_empty(), "{events:?}");
}

/// Holds the writer lock in a process of its own.
#[test]
#[ignore = "started by another test"]
fn child() {
    let Some((_, path)) = support::role() else { return };
    let store = Store::open(&path).unwrap();
    let transaction = store.begin().unwrap();
    support::say("begun");
    until_stopped();
    drop(transaction);
}

/// The page lists the events of the source, with their levels.
#[test]
fn the_page_lists_the_events() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let source = fs::read_to_string(root.join("src/telemetry.rs")).unwrap();
    let page = fs::read_to_string(root.join("docs/watching.md")).unwrap();
    let calls: Vec<&str> = source.split("event!(").skip(1).map(|rest| rest.split(";\n").next().unwrap()).collect();
    let calls: Vec<&&str> = calls.iter().filter(|call| call.contains("path, ")).collect();
    assert!(calls.len() >= 16, "{calls:?}");
    for call in calls {
        let level = call.split(',').next().unwrap().trim();
        let what = call.rsplit('"').nth(1).unwrap();
        assert!(page.contains(&format!("| `{what}` | {level} |")), "{call}");
    }
}
