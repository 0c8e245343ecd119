//! The file as it lies there: each extent in its place, and the log from its beginning to its end.

use std::fmt::Write as _;

use slotlog::{ExtentCensus, Stats};

use super::super::common::figures::{count, percent, ratio, size};
use super::super::look::Looked;
use super::escape;

/// Columns of a drawing, which are stretched to the width of the page.
const WIDTH: f64 = 1000.0;
/// Lines of a drawing.
const HEIGHT: f64 = 100.0;

/// A part of the file with its colours: how much of its height is filled, from below.
struct Part<'a> {
    from: u64,
    to: u64,
    back: &'static str,
    front: Option<(&'static str, f64)>,
    title: String,
    map: Option<&'a str>,
}

/// A map of the file, in rows.
pub fn in_place(looked: &Looked, stats: &Stats) -> String {
    let extents = looked.extents();
    if extents.is_empty() {
        return String::new();
    }
    let parts = parts(extents, stats);
    let end = parts.last().map_or(1, |last| last.to).max(1);
    let rows = match extents.len() {
        0..=12 => 1,
        13..=40 => 4,
        _ => 8,
    };
    let step = end.div_ceil(rows);
    let found: Vec<u64> = looked.verify.iter().flat_map(|report| report.findings()).map(|found| found.offset).collect();
    let mut drawn = String::new();
    for row in 0..rows {
        let (from, to) = (row * step, ((row + 1) * step).min(end));
        let mut inner: String = parts.iter().map(|part| draw(part, from, to, step)).collect();
        for offset in found.iter().filter(|offset| (from..to).contains(offset)) {
            let x = WIDTH * ratio(offset - from, step);
            let _ = write!(inner, "<rect class=\"finding\" x=\"{x:.2}\" y=\"0\" width=\"2.5\" height=\"{HEIGHT}\"/>");
        }
        let _ = write!(
            drawn,
            "<div class=\"row\"><span>{}</span><svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" preserveAspectRatio=\"none\" \
             role=\"img\" aria-label=\"the file from {from} to {to}\">{inner}</svg></div>",
            size(from)
        );
    }
    let mut keys = vec![
        ("alive", "log, alive"),
        ("dead", "log, dead"),
        ("unwritten", "log, unwritten"),
        ("index", "index, in use"),
        ("retired", "retired, waits"),
        ("reserve", "reserve"),
        ("tables", "tables"),
        ("free", "free"),
    ];
    if !found.is_empty() {
        keys.push(("finding", "damage"));
    }
    let keys: String =
        keys.iter().map(|(word, text)| format!("<span><i class=\"swatch p-{word}\"></i>{text}</span>")).collect();
    format!(
        "<section><h2>The file in place</h2><p class=\"sub\">From its first byte to its last, {} extents. The \
         higher an extent is filled, the more of it is in use.</p>{drawn}<div class=\"keys\">{keys}</div></section>\n",
        count(extents.len() as u64)
    )
}

/// The extents, and what is before and after them.
fn parts<'a>(extents: &[ExtentCensus], stats: &'a Stats) -> Vec<Part<'a>> {
    let frame =
        |from, to| Part { from, to, back: "frame", front: None, title: "first pages, and end".into(), map: None };
    let first = extents.first().map_or(0, |first| first.offset);
    let end = extents.last().map_or(0, |last| last.offset + last.bytes);
    let mut parts = vec![frame(0, first)];
    parts.extend(extents.iter().map(|extent| {
        let map = stats.maps.iter().find(|map| Some(map.id) == extent.map).map(|map| map.name.as_str());
        let written = extent.bytes - extent.unwritten_bytes;
        let (back, front) = match extent.kind.as_str() {
            "Log" | "ReserveLog" => ("dead", Some(("alive", ratio(extent.live_bytes, written)))),
            "Index" if map.is_some() => ("index-pale", Some(("index", ratio(extent.live_bytes, extent.bytes)))),
            "Index" => ("index-pale", None),
            "Retired" | "Emptied" => ("retired", None),
            "Reserve" => ("reserve", None),
            "Free" => ("free", None),
            _ => ("tables", None),
        };
        let used = front.map_or_else(String::new, |(word, share)| format!(", {} {word}", percent(share.min(1.0))));
        let age = extent.age.map_or_else(String::new, |age| format!(", {} commits old", count(age)));
        let title = format!("{} at {}: {}{used}{age}", extent.kind, size(extent.offset), size(extent.bytes));
        Part { from: extent.offset, to: extent.offset + extent.bytes, back, front, title, map }
    }));
    // What nothing was appended to yet lies at the end of its extent.
    let unwritten = extents.iter().filter(|extent| extent.unwritten_bytes > 0).map(|extent| {
        let to = extent.offset + extent.bytes;
        let (from, title) =
            (to - extent.unwritten_bytes, format!("the log goes on here: {}", size(extent.unwritten_bytes)));
        Part { from, to, back: "unwritten", front: None, title, map: None }
    });
    let unwritten: Vec<Part<'_>> = unwritten.collect();
    parts.extend(unwritten);
    if stats.file_len > end {
        parts.push(frame(end, stats.file_len));
    } else {
        parts.push(frame(end, end));
    }
    parts
}

/// What of a part lies in a row.
fn draw(part: &Part<'_>, from: u64, to: u64, step: u64) -> String {
    let (start, end) = (part.from.max(from), part.to.min(to));
    if start >= end {
        return String::new();
    }
    let x = WIDTH * ratio(start - from, step);
    let width = WIDTH * ratio(end - start, step);
    let map = part.map.map_or_else(String::new, |map| format!(", map {map}"));
    let title = escape(&format!("{}{map}", part.title));
    let mut drawn = format!(
        "<g><title>{title}</title><rect class=\"{}\" x=\"{x:.2}\" y=\"0\" width=\"{width:.2}\" height=\"{HEIGHT}\"/>",
        part.back
    );
    if let Some((front, share)) = part.front {
        let height = HEIGHT * share.clamp(0.0, 1.0);
        let y = HEIGHT - height;
        let _ = write!(
            drawn,
            "<rect class=\"{front}\" x=\"{x:.2}\" y=\"{y:.1}\" width=\"{width:.2}\" height=\"{height:.1}\"/>"
        );
    }
    // A line shows where one ends and the next begins.
    if width > 4.0 && part.to <= to {
        let _ = write!(
            drawn,
            "<rect class=\"edge\" x=\"{:.2}\" y=\"0\" width=\"1.2\" height=\"{HEIGHT}\"/>",
            x + width - 1.2
        );
    }
    drawn.push_str("</g>");
    drawn
}

/// The dead share of each extent of the log, in the order of the log.
pub fn along_the_log(extents: &[ExtentCensus]) -> String {
    let mut log: Vec<&ExtentCensus> =
        extents.iter().filter(|extent| matches!(extent.kind.as_str(), "Log" | "ReserveLog")).collect();
    log.sort_by_key(|extent| extent.ordinal);
    let written = |extent: &ExtentCensus| extent.bytes - extent.unwritten_bytes;
    let all: u64 = log.iter().map(|extent| written(extent)).sum();
    if all == 0 {
        return "<section><h2>Dead share along the log</h2><p class=\"quiet\">The log is empty.</p></section>"
            .to_owned();
    }
    let (mut x, mut drawn) = (0.0, String::new());
    for extent in &log {
        let width = WIDTH * ratio(written(extent), all);
        let dead = 1.0 - ratio(extent.live_bytes, written(extent)).min(1.0);
        let height = HEIGHT * if written(extent) == 0 { 0.0 } else { dead };
        let _ = write!(
            drawn,
            "<g><title>{} at {}: {} dead</title><rect class=\"dead\" x=\"{x:.2}\" y=\"{:.1}\" width=\"{width:.2}\" \
             height=\"{height:.1}\"/></g>",
            size(written(extent)),
            size(extent.offset),
            percent(dead),
            HEIGHT - height
        );
        x += width;
    }
    format!(
        "<section><h2>Dead share along the log</h2><p class=\"sub\">Orange is dead, blue alive. Upkeep cleans from \
         the left.</p><svg class=\"along\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" preserveAspectRatio=\"none\" \
         role=\"img\" aria-label=\"dead share along the log\">{drawn}</svg><div class=\"axis\"><span>oldest</span>\
         <span>{} of log</span><span>newest</span></div></section>",
        size(all)
    )
}
