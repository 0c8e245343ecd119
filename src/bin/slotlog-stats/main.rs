//! `slotlog-stats`: shows what is in a store, and checks it.
//!
//! The file is opened read-only and never changed; others may use it meanwhile. Exit code: 0; 1 if `--verify` has
//! findings; 2 for an error.

#[path = "../common/mod.rs"]
mod common;

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use common::figures::{date, percent, printable, ratio, size};
use common::output::{Answer, exit, print};
use serde_json::{Value, json};
use slotlog::{Access, Bookmark, Error, MapStats, Opened, Stats, Store, VerifyReport, VerifyScope};

/// Shows what is in a slotlog store, without changing it. Others may have it open, and are not disturbed.
///
/// Exit code: 0; 1 if --verify has findings; 2 for an error.
#[derive(Parser)]
#[command(name = "slotlog-stats", version)]
struct Arguments {
    /// The file of the store
    file: PathBuf,
    /// Print one JSON object instead of tables
    #[arg(long)]
    json: bool,
    /// Check the whole file too, and print the findings. While others are writing, one commit is checked
    #[arg(long)]
    verify: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = examine(&arguments).map_err(|error| error.report()).and_then(|examined| {
        // In one piece: a store that cannot be read to its end prints nothing.
        print(&examined.render(arguments.json))?;
        Ok(if examined.is_clean() { Answer::Yes } else { Answer::No })
    });
    exit("slotlog-stats", done)
}

/// Opens the store and reads everything to be printed.
fn examine(arguments: &Arguments) -> slotlog::Result<Examined> {
    let store = Store::options().access(Access::ReadOnly).create(false).open(&arguments.file)?;
    let report = if arguments.verify { Some(store.verify()?) } else { None };
    let figures = match (Figures::of(&store), &report) {
        // The cause of the failure is among the findings, which are worth more than one error.
        (Err(Error::Corrupt { .. }), Some(report)) if !report.is_clean() => None,
        (figures, _) => Some(figures?),
    };
    Ok(Examined { figures, report })
}

/// Everything that was read.
struct Examined {
    /// Missing if damage in the report prevents reading them.
    figures: Option<Figures>,
    /// Only with `--verify`.
    report: Option<VerifyReport>,
}

impl Examined {
    fn is_clean(&self) -> bool {
        self.report.as_ref().is_none_or(VerifyReport::is_clean)
    }

    fn render(&self, json: bool) -> String {
        if json {
            let mut object = self.figures.as_ref().map_or_else(|| json!({}), Figures::to_json);
            if let Some(report) = &self.report {
                object["verify"] = report_to_json(report);
            }
            format!("{object:#}\n")
        } else {
            let figures = self.figures.as_ref().map(Figures::to_text);
            let report = self.report.as_ref().map(report_to_text);
            figures.into_iter().chain(report).collect::<Vec<String>>().join("\n")
        }
    }
}

/// The figures that the store reports about itself.
struct Figures {
    stats: Stats,
    /// How many keys take 1, 2, 3 … lines of the index; the last element counts all longer searches.
    probe_lengths: [u64; 8],
}

impl Figures {
    fn of(store: &Store) -> slotlog::Result<Figures> {
        Ok(Figures { stats: store.stats()?, probe_lengths: store.probe_lengths()? })
    }

    /// The average number of index lines that a search for a key takes; `None` without keys.
    fn average_probe_length(&self) -> Option<f64> {
        let keys: u64 = self.probe_lengths.iter().sum();
        let lines: u64 = (1..).zip(self.probe_lengths).map(|(length, keys)| length * keys).sum();
        (keys > 0).then(|| ratio(lines, keys))
    }

    fn to_json(&self) -> Value {
        let stats = &self.stats;
        let extents = stats.extents.iter().map(|extents| {
            let (oldest, youngest) = extents.ages.unzip();
            json!({
                "kind": extents.kind,
                "count": extents.count,
                "bytes": extents.bytes,
                "oldest_commits": oldest,
                "youngest_commits": youngest,
            })
        });
        let processes = stats.processes.iter().map(|process| {
            let (since, reuse_refused) = (date(process.since), process.reuse_refused);
            let exclusive = process.exclusive;
            json!({ "pid": process.pid, "since": since, "exclusive": exclusive, "reuse_refused": reuse_refused })
        });
        let oldest_pin = stats
            .oldest_pin
            .as_ref()
            .map(|pin| json!({ "pid": pin.pid, "since": pin.since.map(date), "behind": pin.behind }));
        let resize = stats.resize.map(|resize| {
            json!({
                "map": resize.map,
                "lines": resize.lines,
                "moved": resize.moved,
                "target_lines": resize.target_lines,
            })
        });
        let writing = stats.writing.map(|pid| json!({ "pid": pid, "since": stats.writing_since.map(date) }));
        json!({
            "processes": processes.collect::<Vec<Value>>(),
            "writing": writing,
            "pins": stats.pins,
            "oldest_pin": oldest_pin,
            "bookmarks": stats.bookmarks.iter().map(bookmark_to_json).collect::<Vec<Value>>(),
            "origin": stats.origin.as_ref().map(|origin| json!({ "store": origin.store, "seq": origin.seq })),
            "poisoned": stats.poisoned,
            "path": stats.path.to_string_lossy(),
            "found": self.found(),
            "uuid": stats.uuid,
            "format_version": stats.format_version,
            "created": date(stats.created),
            "last_checkpoint": date(stats.last_checkpoint),
            "since_checkpoint": stats.since_checkpoint,
            "incarnation": stats.incarnation,
            "commits": stats.commits,
            "file_len": stats.file_len,
            "log_records": stats.log_records,
            "log_bytes": stats.log_bytes,
            "live_bytes": stats.live_bytes,
            "dead_bytes": stats.dead_bytes,
            "dead_share": stats.dead_share,
            "waiting": {
                "checkpoint": stats.waiting.checkpoint,
                "pins": stats.waiting.pins,
                "next_use": stats.waiting.next_use,
            },
            "resize": resize,
            "cleaned_bytes": stats.cleaned_bytes,
            "damage": {
                "quarantined_records": stats.damage.quarantined_records,
                "found": stats.damage.found,
                "last_scrub": stats.damage.last_scrub.map(date),
            },
            "extents": extents.collect::<Vec<Value>>(),
            "maps": stats.maps.iter().map(map_to_json).collect::<Vec<Value>>(),
            "probe_lengths": self.probe_lengths,
            "average_probe_length": self.average_probe_length(),
        })
    }

    fn to_text(&self) -> String {
        let stats = &self.stats;
        let identity = [
            ("store", printable(&stats.path)),
            ("found", self.found().into()),
            ("uuid", stats.uuid.clone()),
            ("format version", stats.format_version.to_string()),
            ("created", date(stats.created)),
            (
                "last checkpoint",
                format!("{}, {} bytes of log since", date(stats.last_checkpoint), stats.since_checkpoint),
            ),
            ("incarnation", stats.incarnation.to_string()),
            ("commits", stats.commits.to_string()),
            ("writing now", self.writing()),
            ("pins", self.pins()),
            ("resize", self.resize()),
            ("damage", self.damage()),
            ("compaction", format!("{} dead; {} cleaned so far", percent(stats.dead_share), size(stats.cleaned_bytes))),
        ];
        let mut text = String::new();
        for (name, value) in identity {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{name:<15}  {value}");
        }
        if stats.poisoned {
            let _ = writeln!(text, "a flush has failed, so durability is unknown");
        }
        if let Some(origin) = &stats.origin {
            let _ = writeln!(text, "a copy of commit {:#x} of store {}", origin.seq, origin.store);
        }
        if !stats.bookmarks.is_empty() {
            text.push('\n');
            text.push_str(&self.bookmarks().to_text());
        }
        if !stats.processes.is_empty() {
            text.push('\n');
            text.push_str(&self.processes().to_text());
        }
        for table in [
            self.space().to_text(),
            self.waiting().to_text(),
            self.extents().to_text(),
            self.maps().to_text(),
            self.probes().to_text(),
        ] {
            text.push('\n');
            text.push_str(&table);
        }
        text
    }

    /// The state in which the file was found.
    fn found(&self) -> &'static str {
        match self.stats.opened {
            Opened::Clean => "closed",
            Opened::AfterKill => "as left by killed processes",
            Opened::AfterPowerCut { .. } => "as left by a power cut, or copied from an open store; recovered in memory",
            _ => "open for writing",
        }
    }

    /// The process that holds the writer lock.
    fn writing(&self) -> String {
        match (self.stats.writing, self.stats.writing_since) {
            (None, _) => "none".to_owned(),
            (Some(pid), None) => format!("process {pid}"),
            (Some(pid), Some(since)) => format!("process {pid}, a transaction since {}", date(since)),
        }
    }

    fn pins(&self) -> String {
        let mut text = self.stats.pins.to_string();
        if let Some(oldest) = &self.stats.oldest_pin {
            let holder =
                oldest.pid.map_or_else(|| "a process that has ended".to_owned(), |pid| format!("process {pid}"));
            let since = oldest.since.map_or_else(String::new, |since| format!(", since {}", date(since)));
            // Writing to a string cannot fail.
            let _ = write!(text, "; the oldest is {} commits behind, held by {holder}{since}", oldest.behind);
        }
        text
    }

    /// Damage that compaction and scrubbing have found.
    fn damage(&self) -> String {
        let damage = &self.stats.damage;
        let scrubbed = damage.last_scrub.map_or_else(|| "never".to_owned(), date);
        let (found, quarantined) = (damage.found, damage.quarantined_records);
        format!("{found} found so far; {quarantined} in quarantine; last scrub: {scrubbed}")
    }

    fn resize(&self) -> String {
        let Some(resize) = self.stats.resize else { return "none".to_owned() };
        let name = self.stats.maps.iter().find(|map| map.id == resize.map).map_or("?", |map| &map.name);
        let done = percent(ratio(resize.moved, resize.lines));
        format!("{name}: from {} to {} lines, {done} done", resize.lines, resize.target_lines)
    }

    /// Space that cannot be used yet, and why.
    fn waiting(&self) -> Table<3> {
        let (waiting, mut table) = (self.stats.waiting, Table::new(["waiting space", "size", "bytes"]));
        let oldest = self.stats.oldest_pin.as_ref().and_then(|oldest| oldest.pid);
        let pins = oldest.map_or_else(|| "for readers".to_owned(), |pid| format!("for readers, like process {pid}"));
        let rows = [
            ("for a checkpoint".to_owned(), waiting.checkpoint),
            (pins, waiting.pins),
            ("for the next writer".to_owned(), waiting.next_use),
        ];
        for (what, bytes) in rows {
            table.row([what, size(bytes), bytes.to_string()]);
        }
        table
    }

    fn bookmarks(&self) -> Table<4> {
        let mut table = Table::new(["bookmark", "commit", "kept for it", "limit"]);
        for bookmark in &self.stats.bookmarks {
            let kept = if bookmark.is_broken { "broken".to_owned() } else { size(bookmark.kept_bytes) };
            table.row([
                bookmark.name.escape_debug().to_string(),
                format!("{:#x}", bookmark.seq),
                kept,
                size(bookmark.limit),
            ]);
        }
        table
    }

    fn processes(&self) -> Table<3> {
        let mut table = Table::new(["open for writing", "since", "mode"]);
        for process in &self.stats.processes {
            let mode = match (process.exclusive, process.reuse_refused) {
                (_, true) => "reuses no space: the system denies it membarrier",
                (true, _) => "exclusive",
                (false, _) => "shared",
            };
            table.row([process.pid.to_string(), date(process.since), mode.to_owned()]);
        }
        table
    }

    fn space(&self) -> Table<5> {
        let stats = &self.stats;
        let mut table = Table::new(["space", "size", "bytes", "share", "records"]);
        let share = |bytes| percent(ratio(bytes, stats.log_bytes));
        table.row(["file".to_owned(), size(stats.file_len), stats.file_len.to_string(), String::new(), String::new()]);
        table.row([
            "log".to_owned(),
            size(stats.log_bytes),
            stats.log_bytes.to_string(),
            String::new(),
            stats.log_records.to_string(),
        ]);
        for (name, bytes) in [("  live", stats.live_bytes), ("  dead", stats.dead_bytes)] {
            table.row([name.to_owned(), size(bytes), bytes.to_string(), share(bytes), String::new()]);
        }
        table
    }

    fn extents(&self) -> Table<5> {
        let mut table = Table::new(["extents", "count", "age, commits", "size", "bytes"]);
        for of_kind in &self.stats.extents {
            table.row([
                of_kind.kind.clone(),
                of_kind.count.to_string(),
                match of_kind.ages {
                    Some((oldest, youngest)) if oldest == youngest => oldest.to_string(),
                    Some((oldest, youngest)) => format!("{youngest} to {oldest}"),
                    None => String::new(),
                },
                size(of_kind.bytes),
                of_kind.bytes.to_string(),
            ]);
        }
        table
    }

    fn maps(&self) -> Table<10> {
        let mut table = Table::new([
            "map",
            "entries",
            "slots",
            "used",
            "load",
            "index",
            "index bytes",
            "live",
            "live bytes",
            "types",
        ]);
        for map in &self.stats.maps {
            table.row([
                // A name may be any text.
                map.name.escape_debug().to_string(),
                map.entries.to_string(),
                map.slots.to_string(),
                map.used_slots.to_string(),
                percent(map.load),
                size(map.index_bytes),
                map.index_bytes.to_string(),
                size(map.live_bytes),
                map.live_bytes.to_string(),
                map.types.clone(),
            ]);
        }
        table
    }

    fn probes(&self) -> Table<3> {
        let mut table = Table::new(["lines per search", "keys", "share"]);
        let all: u64 = self.probe_lengths.iter().sum();
        let last = self.probe_lengths.len();
        for (length, keys) in (1..).zip(self.probe_lengths).filter(|&(_, keys)| keys > 0) {
            let length = if length == last { format!("{length} or more") } else { length.to_string() };
            table.row([length, keys.to_string(), percent(ratio(keys, all))]);
        }
        let average = self.average_probe_length().map_or_else(|| "-".to_owned(), |average| format!("{average:.3}"));
        table.row(["average".to_owned(), average, String::new()]);
        table
    }
}

fn bookmark_to_json(bookmark: &Bookmark) -> Value {
    json!({
        "name": bookmark.name,
        "seq": bookmark.seq,
        "limit": bookmark.limit,
        "kept_bytes": bookmark.kept_bytes,
        "is_broken": bookmark.is_broken,
    })
}

fn map_to_json(map: &MapStats) -> Value {
    json!({
        "id": map.id,
        "name": map.name,
        "types": map.types,
        "version": map.version,
        "entries": map.entries,
        "slots": map.slots,
        "used_slots": map.used_slots,
        "load": map.load,
        "index_bytes": map.index_bytes,
        "live_bytes": map.live_bytes,
        "expired_bytes": map.expired_bytes,
    })
}

fn report_to_json(report: &VerifyReport) -> Value {
    let findings = report.findings().iter().map(|finding| json!({ "offset": finding.offset, "what": finding.what }));
    let mut object = json!({
        "clean": report.is_clean(),
        "records": report.records(),
        "keys": report.keys(),
        "finding_count": report.finding_count(),
        "findings": findings.collect::<Vec<Value>>(),
    });
    if report.scope() == VerifyScope::Snapshot {
        object["scope"] = "snapshot".into();
    }
    object
}

fn report_to_text(report: &VerifyReport) -> String {
    let (records, keys) = (report.records(), report.keys());
    let mut text = format!("verified {records} records and {keys} keys: ");
    // Writing to a string cannot fail.
    let _ = match report.finding_count() {
        0 => writeln!(text, "no findings"),
        1 => writeln!(text, "1 finding"),
        count => writeln!(text, "{count} findings"),
    };
    if report.scope() == VerifyScope::Snapshot {
        let _ = writeln!(
            text,
            "  (of one commit, since others are writing; run it again without writers to check the rest)"
        );
    }
    for finding in report.findings() {
        let _ = writeln!(text, "  {finding}");
    }
    let unnamed = report.finding_count() - report.findings().len() as u64;
    if unnamed > 0 {
        let _ = writeln!(text, "  and {unnamed} more");
    }
    text
}

/// Rows of cells: the first column is left-aligned, the others, which are figures, right-aligned.
struct Table<const COLUMNS: usize> {
    rows: Vec<[String; COLUMNS]>,
}

impl<const COLUMNS: usize> Table<COLUMNS> {
    fn new(head: [&str; COLUMNS]) -> Table<COLUMNS> {
        Table { rows: vec![head.map(str::to_owned)] }
    }

    fn row(&mut self, cells: [String; COLUMNS]) {
        self.rows.push(cells);
    }

    fn to_text(&self) -> String {
        let mut widths = [0; COLUMNS];
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = cell.chars().count().max(*width);
            }
        }
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (column, (cell, width)) in row.iter().zip(widths).enumerate() {
                // Writing to a string cannot fail.
                let _ = if column == 0 { write!(line, "{cell:<width$}") } else { write!(line, "  {cell:>width$}") };
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}
