//! The figures of a store as metrics.

use std::time::SystemTime;

use metrics::Unit;

use super::report::Stats;

/// A figure of the whole store.
struct Figure {
    name: &'static str,
    unit: Unit,
    what: &'static str,
    value: Value,
}

enum Value {
    /// It only grows.
    Counter(u64),
    Gauge(f64),
}

fn counter(name: &'static str, unit: Unit, value: u64, what: &'static str) -> Figure {
    Figure { name, unit, what, value: Value::Counter(value) }
}

fn gauge(name: &'static str, unit: Unit, value: f64, what: &'static str) -> Figure {
    Figure { name, unit, what, value: Value::Gauge(value) }
}

fn bytes(name: &'static str, value: u64, what: &'static str) -> Figure {
    gauge(name, Unit::Bytes, value as f64, what)
}

fn flag(name: &'static str, value: bool, what: &'static str) -> Figure {
    gauge(name, Unit::Count, f64::from(u8::from(value)), what)
}

/// The seconds that have passed since then; zero if there is no such time.
fn age(since: Option<SystemTime>) -> f64 {
    since.and_then(|since| since.elapsed().ok()).map_or(0.0, |age| age.as_secs_f64())
}

impl Stats {
    /// Gives these figures to the recorder of the crate [`metrics`], under the names that [`watching`](crate::watching)
    /// lists, with the label `store`, which is the path. Call it as often as they are collected, such as every ten
    /// seconds: reads and writes count nothing for it, so that they cost the same with and without this.
    ///
    /// Available with the feature `metrics`. Takes time in proportion to the number of maps. Does nothing without a
    /// recorder.
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// # struct Exporter;
    /// # impl Exporter { fn install() { let _ = metrics::set_global_recorder(metrics::NoopRecorder); } }
    /// Exporter::install();                                   // for instance that of `metrics-exporter-prometheus`
    /// store.insert("alice", "3 visits")?;
    /// store.stats()?.publish_metrics();                      // now slotlog_commits_total is one more
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    pub fn publish_metrics(&self) {
        let store = self.path.display().to_string();
        let figures = self.of_use().into_iter().chain(self.of_upkeep()).chain(self.of_state());
        for Figure { name, unit, what, value } in figures {
            match value {
                Value::Counter(value) => {
                    metrics::describe_counter!(name, unit, what);
                    metrics::counter!(name, "store" => store.clone()).absolute(value);
                }
                Value::Gauge(value) => {
                    metrics::describe_gauge!(name, unit, what);
                    metrics::gauge!(name, "store" => store.clone()).set(value);
                }
            }
        }
        self.publish_waiting(&store);
        self.publish_maps(&store);
        describe_events();
    }

    fn of_use(&self) -> [Figure; 9] {
        let free = self.extents.iter().filter(|extents| extents.kind == "Free").map(|extents| extents.bytes).sum();
        [
            counter("slotlog_commits_total", Unit::Count, self.commits, "Commits since the store was created"),
            bytes("slotlog_file_bytes", self.file_len, "Length of the file"),
            bytes("slotlog_free_bytes", free, "Free space in the file"),
            bytes("slotlog_log_bytes", self.log_bytes, "Size of the log"),
            bytes("slotlog_live_bytes", self.live_bytes, "Size of the records that hold a current value"),
            bytes("slotlog_dead_bytes", self.dead_bytes, "Size of the other records of the log"),
            gauge("slotlog_pins", Unit::Count, self.pins as f64, "Pins in use by readers and snapshots"),
            gauge(
                "slotlog_oldest_pin_commits",
                Unit::Count,
                self.oldest_pin.as_ref().map_or(0.0, |pin| pin.behind as f64),
                "Commits since the one that the oldest reader sees",
            ),
            gauge(
                "slotlog_oldest_snapshot_seconds",
                Unit::Seconds,
                age(self.oldest_snapshot),
                "Age of the oldest snapshot",
            ),
        ]
    }

    /// What this process has done since it opened the store.
    fn of_upkeep(&self) -> [Figure; 8] {
        let (upkeep, damage, eviction) = (&self.upkeep, &self.damage, &self.eviction);
        [
            counter("slotlog_evicted_total", Unit::Count, eviction.evicted, "Entries evicted to make room"),
            counter("slotlog_evicted_bytes_total", Unit::Bytes, eviction.evicted_bytes, "Bytes of their records"),
            counter(
                "slotlog_spared_total",
                Unit::Count,
                eviction.spared,
                "Times that an entry was spared, as it was read",
            ),
            counter(
                "slotlog_cache_clears_total",
                Unit::Count,
                eviction.clears,
                "Times that all maps were cleared for room",
            ),
            counter("slotlog_moved_lines_total", Unit::Count, upkeep.lines, "Index lines moved by resizes"),
            counter("slotlog_moved_bytes_total", Unit::Bytes, upkeep.moved_bytes, "Bytes moved by compaction"),
            counter(
                "slotlog_flushed_bytes_total",
                Unit::Bytes,
                upkeep.flushed_bytes,
                "Bytes of log written back early",
            ),
            counter("slotlog_scrubbed_bytes_total", Unit::Bytes, damage.scrubbed_bytes, "Bytes of log scrubbed"),
        ]
    }

    fn of_state(&self) -> [Figure; 9] {
        let processes = self.processes.len() as f64;
        let checkpoint = age(Some(self.last_checkpoint));
        let (quarantined, found) = (self.damage.quarantined_records as f64, self.damage.found as f64);
        [
            gauge("slotlog_processes", Unit::Count, processes, "Processes that have the store open for writing"),
            flag("slotlog_writer_waits", self.writer_waits, "Whether a process waits for its turn to write"),
            gauge("slotlog_checkpoint_age_seconds", Unit::Seconds, checkpoint, "Time since the last checkpoint"),
            bytes("slotlog_since_checkpoint_bytes", self.since_checkpoint, "Bytes of log since the last checkpoint"),
            flag("slotlog_resizes", self.resize.is_some(), "Whether an index is being resized"),
            flag("slotlog_upkeep_rests", self.resting.is_some(), "Whether upkeep rests because of an error"),
            gauge("slotlog_damage_found", Unit::Count, found, "Times that damage was found"),
            gauge("slotlog_quarantined_records", Unit::Count, quarantined, "Damaged records put into quarantine"),
            flag("slotlog_poisoned", self.poisoned, "Whether a flush has failed"),
        ]
    }

    fn publish_waiting(&self, store: &str) {
        let waiting = &self.waiting;
        metrics::describe_gauge!(
            "slotlog_waiting_bytes",
            Unit::Bytes,
            "Space that is not free yet, by what it waits for"
        );
        for (reason, bytes) in
            [("checkpoint", waiting.checkpoint), ("pins", waiting.pins), ("next use", waiting.next_use)]
        {
            metrics::gauge!("slotlog_waiting_bytes", "store" => store.to_owned(), "for" => reason).set(bytes as f64);
        }
    }

    fn publish_maps(&self, store: &str) {
        metrics::describe_gauge!("slotlog_map_entries", Unit::Count, "Keys of the map that have a value");
        metrics::describe_gauge!("slotlog_map_live_bytes", Unit::Bytes, "Size of the records that hold its values");
        metrics::describe_gauge!("slotlog_map_expired_bytes", Unit::Bytes, "How much of that has expired: an estimate");
        metrics::describe_gauge!("slotlog_map_index_bytes", Unit::Bytes, "Size of its index");
        for map in &self.maps {
            for (name, value) in [
                ("slotlog_map_entries", map.entries),
                ("slotlog_map_live_bytes", map.live_bytes),
                ("slotlog_map_expired_bytes", map.expired_bytes),
                ("slotlog_map_index_bytes", map.index_bytes),
            ] {
                metrics::gauge!(name, "store" => store.to_owned(), "map" => map.name.clone()).set(value as f64);
            }
        }
    }
}

/// What the events of this process count.
fn describe_events() {
    use metrics::{describe_counter, describe_histogram};

    describe_histogram!("slotlog_recovery_seconds", Unit::Seconds, "Time that a recovery after a power cut took");
    describe_histogram!("slotlog_checkpoint_seconds", Unit::Seconds, "Time that a checkpoint took");
    describe_histogram!("slotlog_compact_seconds", Unit::Seconds, "Time that a compaction on request took");
    describe_counter!("slotlog_long_lock_waits_total", Unit::Count, "Waits for the writer lock of 100 ms or more");
    describe_counter!("slotlog_upkeep_failures_total", Unit::Count, "Errors that made upkeep rest");
    describe_counter!("slotlog_damage_found_total", Unit::Count, "Places of damage that this process has found");
    describe_counter!("slotlog_flush_failures_total", Unit::Count, "Flushes that have failed");
}
