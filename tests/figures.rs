//! With the feature `metrics`, the figures of a store are those of its `Stats`, and all are in `docs/watching.md`.
#![allow(missing_docs, clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};

use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit,
};
use slotlog::Store;

/// Keeps what it is given.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// By name and labels but that of the store.
    values: BTreeMap<String, f64>,
    described: BTreeMap<String, Option<Unit>>,
}

/// One figure of it.
struct Place(Kept, String);

impl Place {
    fn change(&self, change: impl FnOnce(&mut f64)) {
        change(self.0.0.lock().unwrap().values.entry(self.1.clone()).or_default());
    }
}

impl CounterFn for Place {
    fn increment(&self, value: u64) {
        self.change(|now| *now += value as f64);
    }

    fn absolute(&self, value: u64) {
        self.change(|now| *now = now.max(value as f64));
    }
}

impl GaugeFn for Place {
    fn increment(&self, value: f64) {
        self.change(|now| *now += value);
    }

    fn decrement(&self, value: f64) {
        self.change(|now| *now -= value);
    }

    fn set(&self, value: f64) {
        self.change(|now| *now = value);
    }
}

impl HistogramFn for Place {
    /// Only the number of values.
    fn record(&self, value: f64) {
        assert!((0.0..60.0).contains(&value));
        self.change(|now| *now += 1.0);
    }
}

impl Kept {
    fn place(&self, key: &Key) -> Arc<Place> {
        assert!(key.labels().any(|label| label.key() == "store"), "{key}");
        let labels = key.labels().filter(|label| label.key() != "store").map(|label| label.value());
        let name = [key.name()].into_iter().chain(labels).collect::<Vec<_>>().join(" ");
        Arc::new(Place(self.clone(), name))
    }

    fn described(&self, name: &KeyName, unit: Option<Unit>) {
        self.0.lock().unwrap().described.insert(name.as_str().to_owned(), unit);
    }

    fn value(&self, name: &str) -> Option<f64> {
        self.0.lock().unwrap().values.get(name).copied()
    }
}

impl Recorder for Kept {
    fn describe_counter(&self, name: KeyName, unit: Option<Unit>, _: SharedString) {
        self.described(&name, unit);
    }

    fn describe_gauge(&self, name: KeyName, unit: Option<Unit>, _: SharedString) {
        self.described(&name, unit);
    }

    fn describe_histogram(&self, name: KeyName, unit: Option<Unit>, _: SharedString) {
        self.described(&name, unit);
    }

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.place(key))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.place(key))
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(self.place(key))
    }
}

/// The names in `docs/watching.md`.
fn documented() -> BTreeSet<String> {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/watching.md")).unwrap();
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `slotlog_")?.split(" |").next());
    rows.flat_map(|names| names.split(", "))
        .map(|name| format!("slotlog_{}", name.trim_start_matches("`slotlog_")))
        .map(|name| name.trim_end_matches('`').to_owned())
        .filter(|name| !name.contains(' '))
        .collect()
}

#[test]
fn the_figures_are_those_of_the_stats() {
    let folder = tempfile::tempdir().unwrap();
    let kept = Kept::default();
    metrics::with_local_recorder(&kept, || {
        let store = Store::open(folder.path().join("store")).unwrap();
        let ages = store.map::<str, u32>("ages").unwrap();
        for number in 0..100 {
            ages.insert(&format!("{number}"), &number).unwrap();
            ages.insert("again", &number).unwrap();
        }
        let snapshot = store.snapshot().unwrap();
        ages.remove("again").unwrap();
        let stats = store.stats().unwrap();
        assert_eq!(kept.value("slotlog_commits_total"), None, "nothing is counted before it is asked for");
        stats.publish_metrics();
        for (name, value) in [
            ("slotlog_commits_total", stats.commits),
            ("slotlog_file_bytes", stats.file_len),
            ("slotlog_log_bytes", stats.log_bytes),
            ("slotlog_live_bytes", stats.live_bytes),
            ("slotlog_dead_bytes", stats.dead_bytes),
            ("slotlog_free_bytes", stats.extents.last().unwrap().bytes),
            ("slotlog_pins", 1),
            ("slotlog_oldest_pin_commits", 1),
            ("slotlog_processes", 1),
            ("slotlog_poisoned", 0),
            ("slotlog_upkeep_rests", 0),
            ("slotlog_map_entries ages", 100),
            ("slotlog_map_entries (default)", 0),
            ("slotlog_waiting_bytes pins", stats.waiting.pins),
        ] {
            assert_eq!(kept.value(name), Some(value as f64), "{name}");
        }
        assert!(stats.dead_bytes > 0);
        assert!(kept.value("slotlog_oldest_snapshot_seconds").unwrap() > 0.0);

        drop(snapshot);
        ages.insert("once more", &1).unwrap();
        store.stats().unwrap().publish_metrics();
        assert_eq!(kept.value("slotlog_commits_total"), Some(stats.commits as f64 + 1.0));
        assert_eq!(kept.value("slotlog_pins"), Some(0.0));
        assert_eq!(kept.value("slotlog_oldest_pin_commits"), Some(0.0));
        assert_eq!(kept.value("slotlog_map_entries ages"), Some(101.0));
    });
}

#[test]
fn what_takes_time_is_measured_when_it_happens() {
    let folder = tempfile::tempdir().unwrap();
    let kept = Kept::default();
    metrics::with_local_recorder(&kept, || {
        let store = Store::open(folder.path().join("store")).unwrap();
        let before = kept.value("slotlog_checkpoint_seconds").unwrap_or_default();
        store.insert("key", "value").unwrap();
        store.checkpoint().unwrap();
        assert_eq!(kept.value("slotlog_checkpoint_seconds"), Some(before + 1.0));
        store.checkpoint().unwrap();
        assert_eq!(kept.value("slotlog_checkpoint_seconds"), Some(before + 1.0), "there was nothing to do");
        store.compact().unwrap();
        assert_eq!(kept.value("slotlog_compact_seconds"), Some(1.0));
        assert_eq!(kept.value("slotlog_recovery_seconds"), None);
        let copy = folder.path().join("copy");
        fs::copy(folder.path().join("store"), &copy).unwrap();
        Store::open(&copy).unwrap();
        assert_eq!(kept.value("slotlog_recovery_seconds"), Some(1.0), "the copy was not closed");
    });
}

#[test]
fn the_page_lists_the_figures_and_each_has_a_unit() {
    let kept = Kept::default();
    metrics::with_local_recorder(&kept, || Store::in_memory().unwrap().stats().unwrap().publish_metrics());
    let described = kept.0.lock().unwrap().described.clone();
    let names: BTreeSet<String> = described.keys().cloned().collect();
    assert_eq!(names, documented());
    assert!(described.values().all(Option::is_some), "{described:?}");
    for (name, unit) in &described {
        assert_eq!(name.contains("_bytes"), *unit == Some(Unit::Bytes), "{name}");
        assert_eq!(name.contains("_seconds"), *unit == Some(Unit::Seconds), "{name}");
    }
}
