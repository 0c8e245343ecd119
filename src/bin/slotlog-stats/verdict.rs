//! What is wrong with a store, if anything: the first thing that is shown.

use std::time::{Duration, SystemTime};

use serde::Serialize;
use slotlog::{Bookmark, Census, DamageStats, MapCensus, MapStats, Opened, Stats, VerifyReport, VerifyScope};

use super::common::figures::{count, escaped, percent, ratio, size, span};
use super::common::plain::one_line;

/// Less than this is not worth a word.
const SMALL: u64 = 1 << 20;

/// How serious something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Nothing to do.
    Good,
    /// Worth knowing.
    Note,
    /// Something costs more than it should.
    Warning,
    /// Data is in danger, or the store grows without end.
    Bad,
}

/// What is noticed about a store.
#[derive(Clone, Debug, Serialize)]
pub struct Remark {
    pub level: Level,
    /// What kind of remark it is, in one word.
    pub kind: &'static str,
    /// What is noticed.
    pub what: String,
    /// What to do.
    pub next: Option<String>,
}

/// The judgement about a store.
#[derive(Clone, Debug, Serialize)]
pub struct Verdict {
    /// In one word.
    pub word: &'static str,
    pub level: Level,
    /// In one sentence.
    pub what: String,
    /// In the order of their level, the worst first.
    pub remarks: Vec<Remark>,
}

impl Verdict {
    pub fn of(
        stats: Option<&Stats>,
        census: Option<&Census>,
        verify: Option<&VerifyReport>,
        damage: Option<String>,
    ) -> Verdict {
        let mut remarks = Remarks(Vec::new());
        remarks.about_damage(census, verify, damage);
        if let Some(stats) = stats {
            remarks.about_damage_found(stats);
            remarks.about_state(stats);
            remarks.about_waiting(stats);
            remarks.about_writers(stats);
            remarks.about_space(stats);
            remarks.about_maps(stats, census);
        }
        let mut remarks = remarks.0;
        remarks.sort_by_key(|remark| std::cmp::Reverse(remark.level));
        let of_state = stats.map_or(Level::Good, |stats| match stats.opened {
            Opened::AfterKill | Opened::AfterPowerCut { .. } => Level::Note,
            _ => Level::Good,
        });
        let level = remarks.first().map_or(of_state, |worst| worst.level.max(of_state));
        let word = match remarks.first().filter(|worst| worst.level > Level::Note) {
            Some(worst) => worst.kind,
            None => stats.map_or("unreadable", |stats| state(stats).0),
        };
        let mut what = stats.map_or_else(|| "its figures cannot be read".to_owned(), |stats| state(stats).1);
        if let Some(report) = verify {
            what = format!("{what}; {}", verified(report));
        }
        Verdict { word, level, what, remarks }
    }
}

/// The state of a store, in a word and in a sentence.
fn state(stats: &Stats) -> (&'static str, String) {
    match stats.opened {
        Opened::Clean => ("clean", "closed in order".to_owned()),
        Opened::AfterKill => (
            "killed",
            "the processes that had it open were killed; no commit is lost, and the next opener tidies up".to_owned(),
        ),
        Opened::AfterPowerCut { records, .. } => {
            let what = format!(
                "left by a power cut, or copied while open; recovered in memory, with {} records",
                count(records)
            );
            ("recovered", what)
        }
        _ => {
            let what = match stats.processes.len() {
                1 => "one process has it open for writing".to_owned(),
                processes => format!("{processes} processes have it open for writing"),
            };
            ("in use", what)
        }
    }
}

/// What a check has come to.
pub fn verified(report: &VerifyReport) -> String {
    let checked = format!("{} records and {} keys", count(report.records()), count(report.keys()));
    let found = match report.finding_count() {
        0 => "no findings".to_owned(),
        1 => "1 finding".to_owned(),
        findings => format!("{} findings", count(findings)),
    };
    match report.scope() {
        VerifyScope::Snapshot => format!("verified {checked} of one commit, since others are writing: {found}"),
        _ => format!("verified {checked}: {found}"),
    }
}

struct Remarks(Vec<Remark>);

impl Remarks {
    fn add(&mut self, level: Level, kind: &'static str, what: String, next: Option<&str>) {
        // Names in it may be any text.
        let what = one_line(&what);
        self.0.push(Remark { level, kind, what, next: next.map(str::to_owned) });
    }

    /// About the damage that compaction and scrubbing have come upon.
    fn about_damage_found(&mut self, stats: &Stats) {
        let DamageStats { quarantined_records, found, .. } = stats.damage;
        if quarantined_records > 0 {
            let records = match quarantined_records {
                1 => "a damaged record was".to_owned(),
                records => format!("{} damaged records were", count(records)),
            };
            let what = format!("{records} put into quarantine: reading their keys fails until they are written again");
            self.add(Level::Warning, "damaged", what, Some("`slotlog-stats FILE --verify` lists those that still are"));
        } else if found > 0 {
            let what = "the log was found to be damaged".to_owned();
            self.add(Level::Warning, "damaged", what, Some("`slotlog-stats FILE --verify` says where"));
        }
    }

    fn about_damage(&mut self, census: Option<&Census>, verify: Option<&VerifyReport>, damage: Option<String>) {
        const NEXT: &str = "take a copy of the file, then `slotlog repair FILE NEW` saves what can be read";
        let found = verify.filter(|report| !report.is_clean());
        if let Some(report) = found {
            let first = report.findings().first().map_or_else(String::new, |finding| format!("; the first {finding}"));
            let what = match report.finding_count() {
                1 => format!("the file is damaged{}", first.replace("the first at", "at")),
                findings => format!("the file is damaged in {} places{first}", count(findings)),
            };
            self.add(Level::Bad, "damaged", what, Some(NEXT));
        }
        if let Some(damage) = damage {
            self.add(Level::Bad, "damaged", damage, Some(NEXT));
        }
        for map in census.iter().flat_map(|census| &census.maps).filter(|map| map.damaged > 0) {
            let what = format!("map {}: {} entries lead to damaged records", map.name, count(map.damaged));
            self.add(Level::Bad, "damaged", what, Some("`slotlog-stats FILE --verify` says where"));
        }
    }

    fn about_state(&mut self, stats: &Stats) {
        if stats.poisoned {
            let what = "a flush has failed: what was committed since may not survive a power cut".to_owned();
            self.add(
                Level::Bad,
                "poisoned",
                what,
                Some("look at the disk; then close the store everywhere and open it anew"),
            );
        }
        if let Some(resting) = &stats.resting {
            self.add(Level::Bad, "resting", format!("no upkeep is done, so the log grows: {}", resting.why), None);
        }
    }

    /// What keeps space from being used again.
    fn about_waiting(&mut self, stats: &Stats) {
        let waiting = stats.waiting.pins;
        if waiting >= SMALL && waiting > stats.live_bytes / 4 {
            let level = if waiting > stats.live_bytes { Level::Bad } else { Level::Warning };
            let share = percent(ratio(waiting, stats.file_len));
            let what =
                format!("{} keeps {} that could be used again, {share} of the file", oldest_pin(stats), size(waiting));
            self.add(level, "bloated", what, Some("drop that snapshot, iterator or value, or end its process"));
        }
        for bookmark in &stats.bookmarks {
            self.about_bookmark(bookmark, stats);
        }
        if stats.waiting.checkpoint >= SMALL.max(stats.live_bytes) {
            let what = format!("{} wait for a checkpoint", size(stats.waiting.checkpoint));
            self.add(Level::Note, "waiting", what, Some("writers take one in time; `Store::checkpoint` does it now"));
        }
    }

    fn about_bookmark(&mut self, bookmark: &Bookmark, stats: &Stats) {
        let name = &bookmark.name;
        if bookmark.is_broken {
            let what = format!("bookmark {name:?} is broken: the log no longer reaches back to its commit");
            self.add(Level::Warning, "broken bookmark", what, Some("its follower has to begin with a new backup"));
        } else if bookmark.kept_bytes >= SMALL.max(stats.live_bytes) {
            let what = format!("bookmark {name:?} keeps {} of the log", size(bookmark.kept_bytes));
            self.add(Level::Warning, "bloated", what, Some("let its follower catch up, or remove the bookmark"));
        }
    }

    fn about_writers(&mut self, stats: &Stats) {
        let age = stats.writing_since.map(age).filter(|age| *age > Duration::from_secs(10));
        if let (Some(pid), Some(age)) = (stats.writing, age) {
            let what = format!("process {pid} has had a transaction open for {}", span(age));
            let (level, what) = if stats.writer_waits {
                (Level::Bad, format!("{what}, and others wait for it"))
            } else {
                (Level::Warning, what)
            };
            self.add(level, "blocked", what, Some("commit or drop that transaction, or end its process"));
        }
        for process in stats.processes.iter().filter(|process| process.reuse_refused) {
            let what = format!("process {} reuses no space: the system denies it membarrier", process.pid);
            let next = "see `ProcessStats::reuse_refused` for the remedies";
            self.add(Level::Warning, "growing", what, Some(next));
        }
    }

    fn about_space(&mut self, stats: &Stats) {
        let free = stats.extents.iter().find(|extents| extents.kind == "Free").map_or(0, |free| free.bytes);
        if free >= 8 * SMALL && free > stats.file_len / 2 {
            let what = format!("{} of the file is free: {}", percent(ratio(free, stats.file_len)), size(free));
            self.add(Level::Note, "roomy", what, Some("new data goes there; `slotlog compact FILE` gives it back"));
        }
        let is_held = stats.waiting.pins >= SMALL && stats.waiting.pins > stats.live_bytes / 4;
        if stats.dead_share > 0.7 && stats.dead_bytes >= 4 * SMALL && !is_held {
            let what = format!("{} of the log is dead: {}", percent(stats.dead_share), size(stats.dead_bytes));
            let next = "writers clean it step by step unless `auto_compact` is off; `slotlog compact FILE` does it now";
            self.add(Level::Warning, "bloated", what, Some(next));
        }
    }

    fn about_maps(&mut self, stats: &Stats, census: Option<&Census>) {
        let of_users = stats.maps.iter().filter(|map| map.id != 0 && map.entries > 0).count();
        for map in stats.maps.iter().filter(|map| map.id != 0) {
            let of_census = census.and_then(|census| census.maps.iter().find(|other| other.id == map.id));
            self.about_index(map, of_census);
            if of_users > 2 && map.live_bytes >= SMALL && map.live_bytes > stats.live_bytes / 5 * 4 {
                let share = percent(ratio(map.live_bytes, stats.live_bytes));
                let what = format!("map {} has {share} of all data: {}", map.name, size(map.live_bytes));
                self.add(Level::Note, "one huge map", what, None);
            }
            let expired =
                of_census.filter(|census| census.looked_at >= 1.0).map_or(map.expired_bytes, |c| c.expired_bytes);
            if expired >= SMALL.min(stats.file_len / 8) && expired > map.live_bytes / 4 {
                let share = percent(ratio(expired, map.live_bytes));
                let what = format!("map {}: {share} of its data has expired: {}", map.name, size(expired));
                let next = "writers remove it as they write; `slotlog compact FILE` does it now";
                self.add(Level::Warning, "expired", what, Some(next));
            }
            if let Some(census) = of_census {
                self.about_values(map, census);
            }
        }
    }

    fn about_index(&mut self, map: &MapStats, census: Option<&MapCensus>) {
        let average = census.and_then(|census| average(&census.search_lengths));
        if map.load > 0.76 || map.entries > 100 && average.is_some_and(|average| average > 1.8) {
            let lines = average.map_or_else(String::new, |average| format!("; a search reads {average:.1} lines"));
            let what = format!("map {}: its index is {} full{lines}", map.name, percent(map.load));
            let next = "it grows with the next writes if the file may grow: look at `max_size` and at the disk";
            self.add(Level::Warning, "index too full", what, Some(next));
        }
        if map.index_bytes >= 8 * SMALL && map.load < 0.05 {
            let what =
                format!("map {}: its index of {} is {} full", map.name, size(map.index_bytes), percent(map.load));
            self.add(Level::Note, "roomy", what, Some("`slotlog compact FILE` makes it smaller"));
        }
    }

    /// A value that is far larger than the others of its map.
    fn about_values(&mut self, map: &MapStats, census: &MapCensus) {
        let values = &census.values;
        let Some(largest) = census.largest.first().filter(|_| values.count >= 100) else { return };
        if largest.value_len >= SMALL && largest.value_len >= 20 * values.p99.max(1) {
            let key = escaped(&largest.key, 40);
            let what = format!(
                "map {}: the value of {key} has {}; 99 of 100 have at most {}",
                map.name,
                size(largest.value_len),
                size(values.p99)
            );
            self.add(Level::Warning, "outlier", what, Some("see whether it belongs there"));
        }
    }
}

/// Who holds the oldest pin, and for how long.
pub fn oldest_pin(stats: &Stats) -> String {
    let Some(oldest) = &stats.oldest_pin else { return "a snapshot of a process that only reads".to_owned() };
    let held = oldest.since.map_or_else(String::new, |since| format!(" for {}", span(age(since))));
    match oldest.pid {
        Some(pid) => format!("a snapshot that process {pid} has held{held}"),
        None => format!("a snapshot that a process has held{held}"),
    }
}

/// The average number of lines that a search reads; `None` without keys.
pub fn average(lengths: &[u64; 8]) -> Option<f64> {
    let keys: u64 = lengths.iter().sum();
    let lines: u64 = (1..).zip(lengths).map(|(length, keys)| length * keys).sum();
    (keys > 0).then(|| ratio(lines, keys))
}

/// How long ago a time is.
pub fn age(time: SystemTime) -> Duration {
    time.elapsed().unwrap_or_default()
}
