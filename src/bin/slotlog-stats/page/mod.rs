//! A page about a store, to look at: one file, which needs nothing else.
//!
//! It is well-formed as XML too, apart from its first line, so that a test can read it.

mod charts;
mod file;
mod maps;

use std::fmt::Write as _;

use slotlog::Stats;

use super::common::figures::{count, date, percent, printable, ratio, size, span};
use super::look::Looked;
use super::space;
use super::text::{upkeep, writing};
use super::verdict::{Level, Remark, Verdict, age, oldest_pin};
use super::words;

const STYLE: &str = include_str!("style.css");

/// The page of a store.
pub fn page(looked: &Looked) -> Result<String, String> {
    let mut page = String::new();
    let name = looked.stats.as_ref().map_or_else(String::new, |stats| {
        stats.path.file_name().map_or_else(|| printable(&stats.path), |name| printable(name.as_ref()))
    });
    let head = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"/>\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\
         <title>{}: {}</title>\n<style>{STYLE}</style></head>\n<body><main>\n",
        escape(&name),
        looked.verdict.word
    );
    page.push_str(&head);
    page.push_str(&verdict(&looked.verdict, &name));
    if let Some(stats) = &looked.stats {
        page.push_str(&figures(stats));
        page.push_str(&uses(stats));
        page.push_str(&file::in_place(looked, stats));
        let _ = writeln!(page, "<div class=\"two\">{}{}</div>", file::along_the_log(looked.extents()), waits(stats));
        page.push_str(&maps::maps(&looked.maps(), stats));
        page.push_str(&holders(stats));
    }
    if let Some(report) = looked.verify.as_ref().filter(|report| !report.is_clean()) {
        let findings: String =
            report.findings().iter().take(50).map(|finding| tag("li", &finding.to_string())).collect();
        let _ = writeln!(page, "<section><h2>Findings</h2><ol>{findings}</ol></section>");
    }
    page.push_str(&explained());
    page.push_str(&footer(looked)?);
    Ok(page)
}

/// Text, as it stands in a page.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            c if c.is_control() => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}

/// Text with commands between backticks.
fn with_code(text: &str) -> String {
    let parts = text.split('`').enumerate();
    parts.map(|(number, part)| if number % 2 == 1 { tag("code", part) } else { escape(part) }).collect()
}

/// An element with text in it.
fn tag(name: &str, text: &str) -> String {
    format!("<{name}>{}</{name}>", escape(text))
}

fn class(level: Level) -> &'static str {
    match level {
        Level::Good => "good",
        Level::Note => "note",
        Level::Warning => "warning",
        Level::Bad => "bad",
    }
}

fn verdict(verdict: &Verdict, name: &str) -> String {
    // What matters most is said in large letters.
    let (first, rest) = match verdict.remarks.split_first() {
        Some((first, rest)) if first.level > Level::Note => (Some(first), rest),
        _ => (None, verdict.remarks.as_slice()),
    };
    let what = first.map_or_else(|| sentence(&verdict.what), |first| sentence(&first.what));
    let state = first.map_or_else(String::new, |first| {
        let next = first
            .next
            .as_ref()
            .map_or_else(String::new, |next| format!("<p class=\"next\"><b>What to do:</b> {}.</p>", with_code(next)));
        format!("{next}<p class=\"state\">{}</p>", escape(&sentence(&verdict.what)))
    });
    let remarks: String = rest.iter().map(remark).collect();
    let remarks = if verdict.remarks.is_empty() {
        "<p class=\"state\">Nothing wrong was noticed.</p>".to_owned()
    } else if remarks.is_empty() {
        remarks
    } else {
        format!("<ul class=\"remarks\">{remarks}</ul>")
    };
    format!(
        "<section class=\"verdict {}\"><h1>{}</h1><span class=\"word\">{}</span>\
         <p class=\"what\">{}</p>{state}{remarks}</section>\n",
        class(verdict.level),
        escape(name),
        verdict.word,
        escape(&what)
    )
}

fn remark(remark: &Remark) -> String {
    let next = remark
        .next
        .as_ref()
        .map_or_else(String::new, |next| format!(" <span class=\"next\">→ {}</span>", with_code(next)));
    format!(
        "<li class=\"{}\"><span class=\"kind\">{}:</span> {}{next}</li>",
        class(remark.level),
        remark.kind,
        escape(&remark.what)
    )
}

/// The same with a capital letter, and a full stop.
fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().map(|first| first.to_uppercase().to_string()).unwrap_or_default();
    format!("{first}{}.", letters.as_str())
}

/// The most important figures.
fn figures(stats: &Stats) -> String {
    let of_users = stats.maps.iter().filter(|map| map.id != 0);
    let entries: u64 = of_users.clone().map(|map| map.entries).sum();
    let figures = [
        ("File", size(stats.file_len)),
        ("Alive", size(stats.live_bytes)),
        ("Dead", size(stats.dead_bytes)),
        ("Held by readers", size(stats.waiting.pins)),
        ("Index", size(stats.maps.iter().map(|map| map.index_bytes).sum())),
        ("Entries", count(entries)),
        ("Maps", count(of_users.filter(|map| map.id != 1 || map.entries > 0).count() as u64)),
        ("Commits", count(stats.commits)),
    ];
    let figures: String =
        figures.iter().map(|(name, value)| format!("<div><dt>{name}</dt><dd>{value}</dd></div>")).collect();
    format!("<dl class=\"figures\">{figures}</dl>\n")
}

/// Where the space goes: one bar, and its legend.
fn uses(stats: &Stats) -> String {
    let (mut bar, mut legend) = (String::new(), String::new());
    for part in space::uses(stats) {
        let share = ratio(part.bytes, stats.file_len);
        let (word, meaning) = (part.word, escape(words::meaning(part.word)));
        if share >= 0.002 {
            let label = match share {
                0.4.. if !part.why.is_empty() => format!("{word}: {}", escape(&part.why)),
                0.09.. => word.to_owned(),
                _ => String::new(),
            };
            let _ =
                write!(bar, "<i class=\"p-{word}\" style=\"flex:{share:.4}\" title=\"{word}: {meaning}\">{label}</i>");
        }
        let _ = write!(
            legend,
            "<li title=\"{meaning}\"><i class=\"swatch p-{word}\"></i><b>{word}</b><span class=\"num\">{}</span>\
             <span class=\"num\">{}</span><span class=\"why\">{}</span></li>",
            size(part.bytes),
            percent(share),
            escape(&part.why)
        );
    }
    format!(
        "<section><h2>Where the space goes</h2><p class=\"sub\">All {} of the file.</p><div class=\"stack\">{bar}</div>\
         <ul class=\"legend\">{legend}</ul></section>\n",
        size(stats.file_len)
    )
}

/// What waits for what.
fn waits(stats: &Stats) -> String {
    const HEADING: &str = "<section><h2>What waits for what</h2>";
    let mut items = String::new();
    let waiting = space::waiting(stats);
    if waiting.iter().all(|(_, bytes, _)| *bytes == 0) {
        return format!("{HEADING}<p class=\"quiet\">Nothing waits: what is not in use can be used.</p></section>");
    }
    for (word, bytes, who) in waiting {
        let share = ratio(bytes, stats.file_len).min(1.0) * 100.0;
        let fill = if share > 25.0 { "var(--bad)" } else { "var(--retired)" };
        let who = if who.is_empty() { escape(words::meaning(word)) } else { escape(&sentence(&who)) };
        let _ = write!(
            items,
            "<li><div class=\"line\"><b>{}</b><span class=\"num\">{}</span></div>\
             <div class=\"meter\" style=\"--fill:{fill}\">\
             <i style=\"width:{share:.1}%\"></i></div><small class=\"quiet\">{who}</small></li>",
            sentence(word).trim_end_matches('.'),
            size(bytes)
        );
    }
    format!(
        "{HEADING}<p class=\"sub\">Space that cannot be used again yet, beside the whole file.</p>\
         <ul class=\"waits\">{items}</ul></section>"
    )
}

/// Processes, pins and bookmarks.
fn holders(stats: &Stats) -> String {
    let mut rows = String::new();
    let mut row = |cells: [String; 3]| {
        let cells: String = cells.iter().map(|cell| tag("td", cell)).collect();
        let _ = write!(rows, "<tr>{cells}</tr>");
    };
    row(["writing now".into(), writing(stats), String::new()]);
    for process in &stats.processes {
        let mode = match (process.exclusive, process.reuse_refused) {
            (_, true) => "open for writing; reuses no space, since the system denies it membarrier",
            (true, _) => "open for writing, and excludes all others",
            (false, _) => "open for writing",
        };
        let since = format!("for {}, since {}", span(age(process.since)), date(process.since));
        row([format!("process {}", process.pid), mode.into(), since]);
    }
    if let Some(oldest) = &stats.oldest_pin {
        let pins = if stats.pins > 1 { format!("oldest of {} pins", count(stats.pins)) } else { "pin".into() };
        let since = oldest.since.map_or_else(String::new, |since| format!("since {}", date(since)));
        row([pins, format!("{}, {} commits behind", oldest_pin(stats), count(oldest.behind)), since]);
    }
    for bookmark in &stats.bookmarks {
        let keeps = if bookmark.is_broken {
            "broken".into()
        } else {
            format!("keeps {} of the log", size(bookmark.kept_bytes))
        };
        row([format!("bookmark {:?}", bookmark.name), keeps, format!("limit {}", size(bookmark.limit))]);
    }
    row(["upkeep".into(), upkeep(stats), String::new()]);
    let checkpoint = format!("{} of log since", size(stats.since_checkpoint));
    row(["last checkpoint".into(), checkpoint, date(stats.last_checkpoint)]);
    format!("<section><h2>Who holds what</h2><div class=\"scroll\"><table>{rows}</table></div></section>\n")
}

/// What the words mean.
fn explained() -> String {
    let mut list = String::new();
    for words in [words::SPACE, words::MAPS, words::HOLDERS, words::STORE] {
        for (word, meaning) in words {
            list.push_str(&tag("dt", word));
            list.push_str(&tag("dd", meaning));
        }
    }
    format!("<section><details><summary>What the words mean</summary><dl>{list}</dl></details></section>\n")
}

/// Where the page comes from, and everything on it for programs.
fn footer(looked: &Looked) -> Result<String, String> {
    let identity = looked.stats.as_ref().map_or_else(String::new, |stats| {
        format!(
            "{} · store {} · format {} · created {} · ",
            printable(&stats.path),
            stats.uuid,
            stats.format_version,
            date(stats.created)
        )
    });
    let json = serde_json::to_string(looked).map_err(|error| error.to_string())?;
    // Neither HTML nor XML may find anything of theirs in it.
    let json = json.replace('&', "\\u0026").replace('<', "\\u003c").replace('>', "\\u003e");
    Ok(format!(
        "<footer>{}looked at {} by {}. The figures are in this page as JSON, too.</footer>\n</main>\
         <script type=\"application/json\" id=\"figures\">{json}</script></body></html>\n",
        escape(&identity),
        date(looked.at),
        looked.program
    ))
}
