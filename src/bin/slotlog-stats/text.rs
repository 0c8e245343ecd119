//! What is printed for people: the verdict, then the figures, in 80 columns.

use slotlog::{DamageStats, Distribution, Stats, VerifyReport};

use super::arguments::Arguments;
use super::common::colour::{Colours, paint};
use super::common::figures::{count, date, escaped, percent, printable, ratio, size, span};
use super::common::plain::one_line;
use super::common::tables::{lines, table, table_with_text, width, wrapped};
use super::look::{Looked, OneMap};
use super::space;
use super::verdict::{Level, Remark, age, average, oldest_pin};
use super::words::{self, Words};

/// Maps that are listed without being asked for by name.
const MOST_MAPS: usize = 40;

/// Columns of the name of a figure.
const NAME: usize = 12;

/// Columns of the longest bar of a histogram.
const BAR: f64 = 40.0;

/// The text, line by line.
struct Text {
    lines: Vec<String>,
    colours: Colours,
    explain: bool,
    width: usize,
}

pub fn text(looked: &Looked, arguments: &Arguments) -> String {
    let (colours, explain, width) = (Colours::of_stdout(), arguments.explain, width());
    let mut text = Text { lines: Vec::new(), colours, explain, width };
    text.verdict(looked, &printable(&arguments.file));
    if let Some(stats) = &looked.stats {
        if arguments.map.is_none() {
            text.store(stats);
            text.space(stats);
            text.holders(stats);
        }
        text.maps(&looked.maps());
    }
    if arguments.map.is_some() {
        looked.maps().iter().for_each(|map| text.histograms(*map));
    }
    if let Some(report) = &looked.verify {
        text.findings(report);
    }
    text.lines.join("\n") + "\n"
}

impl Text {
    fn line(&mut self, line: impl Into<String>) {
        self.lines.push(line.into());
    }

    /// A heading, after an empty line.
    fn heading(&mut self, heading: &str) {
        self.line("");
        self.line(paint(self.colours.heading, heading));
    }

    /// What the words of a section mean, if that is asked for.
    fn explain(&mut self, words: Words) {
        if !self.explain {
            return;
        }
        for (word, meaning) in words {
            for line in wrapped(&format!("    {word}: {meaning}"), 6, self.width) {
                self.line(paint(self.colours.faint, &line));
            }
        }
    }

    fn verdict(&mut self, looked: &Looked, file: &str) {
        let verdict = &looked.verdict;
        let style = self.style(verdict.level);
        self.line(format!("{file}: {}", paint(style, verdict.word)));
        for line in wrapped(&verdict.what, 0, self.width) {
            self.line(line);
        }
        for remark in &verdict.remarks {
            self.remark(remark);
        }
    }

    fn remark(&mut self, remark: &Remark) {
        let name = match remark.level {
            Level::Bad => "bad",
            Level::Warning => "warning",
            Level::Note | Level::Good => "note",
        };
        let style = self.style(remark.level);
        let next = remark.next.as_ref().map_or_else(String::new, |next| format!("; {next}"));
        let text = wrapped(&format!("{name:<9}{}{next}", remark.what), 9, self.width);
        for (number, line) in text.iter().enumerate() {
            match line.strip_prefix(name).filter(|_| number == 0) {
                Some(rest) => self.line(format!("{}{rest}", paint(style, name))),
                None => self.line(line.as_str()),
            }
        }
    }

    fn style(&self, level: Level) -> anstyle::Style {
        match level {
            Level::Good => self.colours.good,
            Level::Note => self.colours.note,
            Level::Warning => self.colours.warning,
            Level::Bad => self.colours.bad,
        }
    }

    fn store(&mut self, stats: &Stats) {
        self.heading("store");
        let mut figure = |name: &str, value: String| self.line(format!("  {name:<NAME$}  {value}"));
        figure("file", format!("{} in {}", size(stats.file_len), printable(&stats.path)));
        figure("uuid", stats.uuid.clone());
        figure("format", format!("version {}, created {}", stats.format_version, date(stats.created)));
        figure("commits", count(stats.commits));
        if stats.incarnation > 0 {
            figure("incarnation", count(stats.incarnation));
        }
        let checkpoint = date(stats.last_checkpoint);
        figure("checkpoint", format!("{checkpoint}, {} of log since", size(stats.since_checkpoint)));
        figure("writing now", writing(stats));
        figure("upkeep", upkeep(stats));
        figure("damage", damage(stats));
        if let Some(origin) = &stats.origin {
            figure("copy of", format!("store {}, commit {:#x}", origin.store, origin.seq));
        }
        self.explain(words::STORE);
    }

    fn space(&mut self, stats: &Stats) {
        let mut parts = table_with_text(["space", "size", "share", "extents", "what becomes of it"]);
        for part in space::uses(stats) {
            let share = percent(ratio(part.bytes, stats.file_len));
            parts.add_row([part.word.to_owned(), size(part.bytes), share, part.pieces, part.why]);
        }
        self.table(&parts);
        let waiting = space::waiting(stats);
        if waiting.iter().any(|(_, bytes, _)| *bytes > 0) {
            let mut table = table_with_text(["waiting space", "size", "because of"]);
            for (word, bytes, who) in waiting {
                table.add_row([word.to_owned(), size(bytes), who]);
            }
            self.table(&table);
        }
        self.explain(words::SPACE);
    }

    /// The lines of a table, its head as a heading.
    fn table(&mut self, table: &comfy_table::Table) {
        let mut lines = lines(table).into_iter();
        if let Some(head) = lines.next() {
            self.heading(&head);
        }
        lines.for_each(|line| self.line(line));
    }

    fn holders(&mut self, stats: &Stats) {
        if stats.processes.is_empty() && stats.pins == 0 && stats.bookmarks.is_empty() {
            return;
        }
        if !stats.processes.is_empty() {
            let mut table = table_with_text(["open for writing", "for", "since", "mode"]);
            for process in &stats.processes {
                let mode = match (process.exclusive, process.reuse_refused) {
                    (_, true) => "reuses no space",
                    (true, _) => "exclusive",
                    (false, _) => "shared",
                };
                let (name, open) = (format!("process {}", process.pid), span(age(process.since)));
                table.add_row([name, open, date(process.since), mode.to_owned()]);
            }
            self.table(&table);
        }
        let oldest = stats.oldest_pin.as_ref();
        let behind = oldest.map_or_else(String::new, |oldest| {
            format!("; the oldest is {} commits behind: {}", count(oldest.behind), oldest_pin(stats))
        });
        let pins = format!("pins: {}{behind}", count(stats.pins));
        wrapped(&pins, 6, self.width).into_iter().for_each(|line| self.line(line));
        if !stats.bookmarks.is_empty() {
            let mut table = table(["bookmark", "commit", "keeps", "limit"]);
            for bookmark in &stats.bookmarks {
                let keeps = if bookmark.is_broken { "broken".to_owned() } else { size(bookmark.kept_bytes) };
                let name = escaped(bookmark.name.as_bytes(), 40);
                table.add_row([name, format!("{:#x}", bookmark.seq), keeps, size(bookmark.limit)]);
            }
            self.table(&table);
        }
        self.explain(words::HOLDERS);
    }

    fn maps(&mut self, maps: &[OneMap<'_>]) {
        let mut shown = maps.to_vec();
        if shown.len() > MOST_MAPS {
            shown.sort_by_key(|map| std::cmp::Reverse(map.stats.live_bytes));
            shown.truncate(MOST_MAPS);
        }
        let mut table = table_with_text(["map", "entries", "data", "index", "load", "expired", "types"]);
        for map in &shown {
            let stats = map.stats;
            let expired = ratio(stats.expired_bytes, stats.live_bytes);
            table.add_row([
                name(&stats.name),
                count(stats.entries),
                size(stats.live_bytes),
                size(stats.index_bytes),
                percent(stats.load),
                if expired > 0.0 { percent(expired) } else { "-".to_owned() },
                name(&stats.types),
            ]);
        }
        self.table(&table);
        if maps.len() > shown.len() {
            self.line(format!("and {} smaller maps, which --json names", count((maps.len() - shown.len()) as u64)));
        }
        self.sizes(&shown);
        self.searches(&shown);
        if shown.iter().any(is_sample) {
            self.line("");
            self.line("~ judged by a sample; --exact looks at every entry");
        }
        self.explain(words::MAPS);
    }

    /// Lengths of keys and values.
    fn sizes(&mut self, maps: &[OneMap<'_>]) {
        let mut table = table(["sizes", "of", "min", "average", "p50", "p99", "max"]);
        let mut is_empty = true;
        for map in maps {
            let Some(census) = map.census.filter(|census| census.keys.count > 0) else { continue };
            is_empty = false;
            let about = if is_sample(map) { "~" } else { "" };
            for (of, sizes) in [("keys", &census.keys), ("values", &census.values)] {
                let first = if of == "keys" { format!("{}{about}", name(&map.stats.name)) } else { String::new() };
                let average = size(sizes.mean().unwrap_or_default().round() as u64);
                let [min, p50, p99, max] = [sizes.min, sizes.p50, sizes.p99, sizes.max].map(size);
                table.add_row([first, of.to_owned(), min, average, p50, p99, max]);
            }
        }
        if !is_empty {
            self.table(&table);
        }
    }

    fn searches(&mut self, maps: &[OneMap<'_>]) {
        let mut table = table(["lines per search", "1", "2", "3", "4 or more", "average"]);
        let mut is_empty = true;
        for map in maps {
            let Some(census) = map.census else { continue };
            let Some(average) = average(&census.search_lengths) else { continue };
            is_empty = false;
            let all: u64 = census.search_lengths.iter().sum();
            let [one, two, three, more @ ..] = census.search_lengths;
            let shares = [one, two, three, more.iter().sum()].map(|keys| percent(ratio(keys, all)));
            let [one, two, three, more] = shares;
            let about = if is_sample(map) { "~" } else { "" };
            let name = format!("{}{about}", name(&map.stats.name));
            table.add_row([name, one, two, three, more, format!("{average:.3}")]);
        }
        if !is_empty {
            self.table(&table);
        }
    }

    fn histograms(&mut self, map: OneMap<'_>) {
        let Some(census) = map.census else { return };
        self.histogram("keys by length", &census.keys, size);
        self.histogram("values by length", &census.values, size);
        self.histogram("entries by age, in commits", &census.ages, count);
        if let Some(first) = census.largest.first() {
            let wide = size(first.value_len).len();
            self.heading("largest entries");
            for entry in &census.largest {
                self.line(format!("  {:>wide$}  {}", size(entry.value_len), escaped(&entry.key, 60)));
            }
        }
    }

    fn histogram(&mut self, heading: &str, distribution: &Distribution, show: impl Fn(u64) -> String) {
        if distribution.count == 0 {
            return;
        }
        self.heading(heading);
        let most = distribution.buckets.iter().map(|bucket| bucket.count).max().unwrap_or(1);
        for bucket in &distribution.buckets {
            let range = if bucket.from == bucket.to {
                show(bucket.from)
            } else {
                format!("{} to {}", show(bucket.from), show(bucket.to))
            };
            let bar = "█".repeat((BAR * ratio(bucket.count, most)).ceil() as usize);
            self.line(format!("  {range:>24}  {bar} {}", count(bucket.count)));
        }
    }

    fn findings(&mut self, report: &VerifyReport) {
        if report.is_clean() {
            return;
        }
        self.heading("findings");
        for finding in report.findings() {
            self.line(format!("  {}", one_line(&finding.to_string())));
        }
        let unnamed = report.finding_count() - report.findings().len() as u64;
        if unnamed > 0 {
            self.line(format!("  and {} more", count(unnamed)));
        }
    }
}

/// A name may be any text.
fn name(name: &str) -> String {
    name.escape_debug().to_string()
}

fn is_sample(map: &OneMap<'_>) -> bool {
    map.census.is_some_and(|census| census.looked_at < 1.0)
}

/// The process that holds the writer lock, and the one that waits for it.
pub fn writing(stats: &Stats) -> String {
    let writing = match (stats.writing, stats.writing_since) {
        (None, _) => "none".to_owned(),
        (Some(pid), None) => format!("process {pid}"),
        (Some(pid), Some(since)) => format!("process {pid}, a transaction for {}", span(age(since))),
    };
    match (stats.writer_waits, stats.next_writer) {
        (false, _) => writing,
        (true, None) => format!("{writing}; others wait"),
        (true, Some(next)) => format!("{writing}; process {next} waits"),
    }
}

/// The damage that compaction and scrubs have found.
fn damage(stats: &Stats) -> String {
    let DamageStats { found, quarantined_records, last_scrub, .. } = &stats.damage;
    let scrubbed = last_scrub.map_or_else(|| "never".to_owned(), date);
    let found = match found {
        0 => "none found".to_owned(),
        found => format!("found {} times, {} in quarantine", count(*found), count(*quarantined_records)),
    };
    format!("{found}; last scrub: {scrubbed}")
}

/// What upkeep does.
pub fn upkeep(stats: &Stats) -> String {
    let dead =
        format!("{} of the log is dead, {} cleaned so far", percent(stats.dead_share), size(stats.cleaned_bytes));
    let Some(resize) = stats.resize else { return dead };
    let name =
        stats.maps.iter().find(|map| map.id == resize.map).map_or_else(|| "?".to_owned(), |map| one_line(&map.name));
    let done = percent(ratio(resize.moved, resize.lines));
    format!("{dead}; the index of {name} is being resized, {done} done")
}
