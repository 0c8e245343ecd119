//! The maps: how large they are, how full their indexes, and what their entries are like.

use std::fmt::Write as _;

use slotlog::Stats;

use super::super::common::figures::{count, escaped, percent, ratio, size};
use super::super::look::OneMap;
use super::super::verdict::average;
use super::charts::{histogram, searches};
use super::{escape, sentence};

/// Maps in the list, and maps with charts.
const LISTED: usize = 60;
const DRAWN: usize = 12;

pub fn maps(maps: &[OneMap<'_>], stats: &Stats) -> String {
    let mut sorted = maps.to_vec();
    sorted.sort_by_key(|map| std::cmp::Reverse((map.stats.live_bytes, map.stats.entries)));
    // The catalogue is the store's own, and empty maps are of no interest before the others.
    sorted.retain(|map| map.stats.entries > 0 && map.stats.id != 0);
    let empty = maps.iter().filter(|map| map.stats.entries == 0 && map.stats.id > 1).count();
    let mut rows = String::from(
        "<div class=\"map head\"><span>map</span><span>data</span><span class=\"cell\">entries</span>\
         <span>index</span><span class=\"cell\">lines per search</span></div>",
    );
    let most = sorted.first().map_or(1, |first| first.stats.live_bytes);
    sorted.iter().take(LISTED).for_each(|map| rows.push_str(&row(*map, most, stats)));
    let mut rest = Vec::new();
    if sorted.len() > LISTED {
        let bytes = sorted[LISTED..].iter().map(|map| map.stats.live_bytes).sum();
        rest.push(format!("{} smaller maps have {} together", count((sorted.len() - LISTED) as u64), size(bytes)));
    }
    if empty > 0 {
        rest.push(if empty == 1 {
            "one map is empty".to_owned()
        } else {
            format!("{} maps are empty", count(empty as u64))
        });
    }
    if sorted.is_empty() {
        rows = "<p class=\"quiet\">There are no entries.</p>".to_owned();
    }
    let rest =
        if rest.is_empty() { String::new() } else { format!("<p class=\"sub\">{}</p>", sentence(&rest.join("; "))) };
    let cards: String = sorted.iter().take(DRAWN).map(|map| card(*map)).collect();
    format!(
        "<section><h2>Maps</h2><p class=\"sub\">The largest first. The mark in the index is at 75 %, where it \
         grows.</p>\
         {rows}{rest}</section>\n{cards}"
    )
}

fn row(map: OneMap<'_>, most: u64, stats: &Stats) -> String {
    let of_map = map.stats;
    let expired = map.census.map_or(of_map.expired_bytes, |census| census.expired_bytes).min(of_map.live_bytes);
    let alive = 100.0 * ratio(of_map.live_bytes - expired, most);
    let width = 100.0 * ratio(of_map.live_bytes, most);
    let fill = format!(
        "<i style=\"width:{width:.1}%;background:linear-gradient(90deg,var(--alive) {cut:.1}%,\
         var(--expired) {cut:.1}%)\"></i>",
        cut = if width > 0.0 { 100.0 * alive / width } else { 100.0 }
    );
    let expired =
        if expired > 0 { format!("{} expired", percent(ratio(expired, of_map.live_bytes))) } else { String::new() };
    let share = percent(ratio(of_map.live_bytes, stats.live_bytes));
    let load = 100.0 * of_map.load.clamp(0.0, 1.0);
    let load_fill = if of_map.load > 0.76 { "var(--bad)" } else { "var(--index)" };
    let average = map.census.and_then(|census| average(&census.search_lengths));
    let average = average.map_or_else(String::new, |average| format!("{average:.2}"));
    format!(
        "<div class=\"map\"><span class=\"name\"><a href=\"#map-{}\">{}</a><span class=\"types\">{}</span></span>\
         <div><div class=\"label\"><span>{}</span><span class=\"quiet\">{}</span></div>\
         <div class=\"meter\">{fill}</div></div>\
         <span class=\"cell\">{}<span class=\"hint\"> entries</span></span>\
         <div><div class=\"label\"><span>{}</span><span class=\"quiet\">{}</span></div>\
         <div class=\"meter\" style=\"--fill:{load_fill}\"><i style=\"width:{load:.1}%\"></i>\
         <u style=\"left:75%\"></u></div></div>\
         <span class=\"cell\">{average}<span class=\"hint\"> lines per search</span></span></div>",
        of_map.id,
        escape(&of_map.name),
        escape(&of_map.types),
        size(of_map.live_bytes),
        if expired.is_empty() { share } else { expired },
        count(of_map.entries),
        percent(of_map.load),
        size(of_map.index_bytes),
    )
}

fn card(map: OneMap<'_>) -> String {
    let Some(census) = map.census.filter(|census| census.values.count > 0) else { return String::new() };
    // A value that is far larger than 99 of 100 others may not belong there.
    let largest = census.largest.first();
    let is_odd = census.values.count >= 100
        && largest.is_some_and(|largest| largest.value_len >= 1 << 20 && largest.value_len >= 20 * census.values.p99);
    let odd_from = is_odd.then(|| 4 * census.values.p99.max(1));
    let charts = [
        histogram("Keys by length", &census.keys, size, None, false),
        histogram("Values by length", &census.values, size, odd_from, true),
        histogram("Age in commits", &census.ages, count, None, false),
        average(&census.search_lengths).map_or_else(String::new, |average| searches(&census.search_lengths, average)),
    ]
    .concat();
    let mut largest = String::new();
    for entry in census.largest.iter().take(3) {
        let separator = if largest.is_empty() { "" } else { ", " };
        let _ =
            write!(largest, "{separator}<code>{}</code> {}", escape(&escaped(&entry.key, 48)), size(entry.value_len));
    }
    format!(
        "<section id=\"map-{}\"><h3>{}</h3><div class=\"charts\">{charts}</div>\
         <p class=\"largest\">Largest values: {largest}.</p>\
         </section>\n",
        map.stats.id,
        escape(&map.stats.name)
    )
}
